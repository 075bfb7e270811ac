"""The EnCodecs of the AcademiCodec toolkit (Yang et al. 2023, arXiv:2305.02765).

EnCodec's net, not causal, with 512 features; a hop of 240 or 32 samples, too
(academicodec/models/encodec/net3.py@b6ac1347). Codes can be taken from a later codebook on, which
then quantises the latents themselves.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping

import torch

from fastcodec.codecs.base import Codec
from fastcodec.codecs.encodec import Encodec, EncodecConfig
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.io import checkpoints
from fastcodec.io.checkpoints import State
from fastcodec.layers.quantize import ResidualQuantizer

CONFIG = EncodecConfig
_HUB = "Dongchao/AcademiCodec"
_LICENCE = "MIT (as the readme says)"


def _seanet(*ratios: int) -> SeanetConfig:
    return SeanetConfig(dimension=512, ratios=ratios, causal=False)


PRESETS = {
    "academicodec_encodec_16k_320d": EncodecConfig(
        16000, _seanet(8, 5, 4, 2), 24, 1024, (1.0, 1.5, 2.0, 4.0, 6.0, 12.0), _HUB, _LICENCE
    ),
    "academicodec_encodec_24k_240d": EncodecConfig(
        24000, _seanet(6, 5, 4, 2), 12, 1024, (1.0, 2.0, 4.0, 8.0, 12.0), _HUB, _LICENCE
    ),
    "academicodec_encodec_24k_32d": EncodecConfig(
        24000, _seanet(2, 2, 2, 4), 2, 1024, (7.5, 15.0), _HUB, _LICENCE
    ),
}
_FILES = {
    "academicodec_encodec_16k_320d": "encodec_16khz_320d.pth",
    "academicodec_encodec_24k_240d": "encodec_24khz_240d.pth",
    "academicodec_encodec_24k_32d": "encodec_24khz_32d.pth",
}


class AcademiEncodec(Encodec):
    """An EnCodec whose quantizer can begin with a later codebook."""

    quantizer: ResidualQuantizer
    files: Mapping[str, str] = _FILES  # of the presets, in their repository

    def from_codebook(self, first_codebook: int) -> AcademiEncodec:
        """This codec without its first codebooks; all that is left is shared with it.

        ``encode`` of it quantises the latents themselves with codebook ``first_codebook``, and what
        they leave with the next one; ``decode`` sums up these codebooks' words only. Both are what
        upstream's ``st`` means; ``n_codebooks`` counts from ``first_codebook`` on.

        Raises:
            ValueError: there is no such codebook
        """
        most = self.quantizer.n_codebooks
        if not 0 <= first_codebook < most:
            raise ValueError(
                f"from_codebook: {self.name} has codebooks 0 to {most - 1}, got {first_codebook}"
            )
        books = self.quantizer.codebooks[first_codebook:]
        with torch.device("meta"):
            quantizer = ResidualQuantizer(*books.shape)
        quantizer.codebooks = books
        rest = copy.copy(self)
        rest._modules = {**self._modules, "quantizer": quantizer}
        rest.name, rest.bandwidths_kbps = f"{self.name}[{first_codebook}:]", ()
        return rest

    def _adapt(self, state: State) -> State:
        """Upstream saves what its training on several devices wraps the net in."""
        return {re.sub(r"^module\.", "", name): value for name, value in state.items()}

    def _from_hub(self) -> os.PathLike[str]:
        if self.name not in self.files:
            Codec._from_hub(self)  # says that there are none
        return checkpoints.from_hub(self.config.hub, self.files[self.name])


def build(name: str, config: EncodecConfig | None = None) -> AcademiEncodec:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return AcademiEncodec(config or PRESETS[name], name)
