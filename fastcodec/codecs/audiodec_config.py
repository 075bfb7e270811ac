"""Sizes of an AudioDec, and the config.yml beside upstream's checkpoints (AudioDec@e451e625)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import prod
from typing import Any

from fastcodec.codecs import audiodec_vocoder
from fastcodec.codecs.audiodec_vocoder import VocoderConfig, fixed, generator_params
from fastcodec.codecs.settings import checked, made
from fastcodec.errors import WeightsError


@dataclass(frozen=True)
class AudioDecConfig:
    """A codec of the family, its sizes under upstream's names.

    A vocoder replaces the decoder. ``flow``: see ``audiodec``. ``priming``: samples of silence.
    """

    sample_rate_hz: int
    enc_strides: tuple[int, ...] = (3, 4, 5, 5)
    dec_strides: tuple[int, ...] = (5, 5, 4, 3)
    enc_ratios: tuple[int, ...] = (2, 4, 8, 16)
    dec_ratios: tuple[int, ...] = (16, 8, 4, 2)
    encode_channels: int = 32
    decode_channels: int = 32
    code_dim: int = 64
    codebook_num: int = 8
    codebook_size: int = 1024
    codec: str = "audiodec"
    vocoder: VocoderConfig | None = None
    flow: str = "offline"
    priming: int = 8192

    def __post_init__(self) -> None:
        net = self.vocoder
        up, features = (
            (net.hop, net.in_channels) if net else (prod(self.dec_strides), self.code_dim)
        )
        if (up, features) != (self.hop, self.code_dim):
            raise ValueError(
                f"AudioDecConfig: the encoder makes a frame of {self.code_dim} features from "
                f"{self.hop} samples, the decoder {up} samples from one of {features}"
            )
        pairs = ((self.enc_strides, self.enc_ratios), (self.dec_strides, self.dec_ratios))
        if any(len(strides) != len(ratios) for strides, ratios in pairs):
            raise ValueError(f"AudioDecConfig: as many ratios as strides, got {pairs}")
        if self.codec not in ("audiodec", "activate_audiodec"):
            raise ValueError(
                f"AudioDecConfig: codec must be audiodec or activate_audiodec, got {self.codec!r}"
            )

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return prod(self.enc_strides)


# Arguments of upstream's generator that we have for one value only; ours that it has not.
_FIXED = {
    "input_channels": 1,
    "output_channels": 1,
    "bias": True,
    "mode": "causal",
    "projector": "conv1d",
    "quantier": "residual_vq",
    "nonlinear_activation": "ELU",
}
_NOT_UPSTREAM = ("sample_rate_hz", "vocoder", "flow", "priming")


def from_upstream(
    config: Mapping[str, Any], vocoder: Mapping[str, Any] | None = None
) -> AudioDecConfig:
    """The configuration that upstream's config.yml describes.

    Args:
        config: contents of the file beside an autoencoder's checkpoint
        vocoder: contents of the one beside a vocoder's, which replaces the decoder

    Raises:
        WeightsError: names what is unknown, misshapen or not built
    """
    given = generator_params(config, "AudioDec")
    if given.pop("nonlinear_activation_params", {}):
        raise WeightsError("AudioDec: only ELU without nonlinear_activation_params is built")
    own = {f.name: f.default for f in fields(AudioDecConfig) if f.name not in _NOT_UPSTREAM}
    defaults = {**own, **_FIXED, "use_weight_norm": False}
    settings = fixed("AudioDec", checked("AudioDec", given, defaults), defaults, list(_FIXED))
    rate = checked(
        "AudioDec", {"sampling_rate": config.get("sampling_rate", 0)}, {"sampling_rate": 1}
    )
    net = audiodec_vocoder.from_upstream(vocoder) if vocoder else None
    return made(AudioDecConfig, rate["sampling_rate"], **settings, vocoder=net)
