"""EnCodec (Défossez et al. 2022, arXiv:2210.13438) and audiocraft's variants of it.

SEANet around a residual quantizer. The 48 kHz model works on segments of one second, each scaled to
unit volume and overlapped with the next by 1 % (encodec/model.py@0e2d0aed).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from fastcodec.codecs import seanet
from fastcodec.codecs.base import Codec, Progress
from fastcodec.codecs.encodec_config import EncodecConfig, from_transformers
from fastcodec.codecs.keys import tag
from fastcodec.codecs.seanet import SeanetConfig
from fastcodec.codecs.stream import checked_finite
from fastcodec.codes import Codes
from fastcodec.io import checkpoints
from fastcodec.io.checkpoints import State
from fastcodec.layers.quantize import ResidualQuantizer

CONFIG = EncodecConfig

_AUDIOCRAFT = {"n_filters": 64, "causal": False, "padding": "zero", "true_skip": True}
_NON_COMMERCIAL = "CC-BY-NC 4.0"

PRESETS = {
    "encodec_24khz": EncodecConfig(
        24000, SeanetConfig(), 32, 1024, (1.5, 3.0, 6.0, 12.0, 24.0),
        "facebook/encodec_24khz", "not stated (code: MIT)",
    ),
    "encodec_48khz": EncodecConfig(
        48000, SeanetConfig(channels=2, causal=False, norm="time_group_norm"),
        16, 1024, (3.0, 6.0, 12.0, 24.0), "facebook/encodec_48khz", "not stated (code: MIT)",
        segment=48000, segment_stride=47520,
    ),
    "encodec_32khz": EncodecConfig(
        32000, SeanetConfig(ratios=(8, 5, 4, 4), **_AUDIOCRAFT),  # type: ignore[arg-type]
        4, 2048, (2.2,), "facebook/encodec_32khz", _NON_COMMERCIAL,
    ),
    "encodec_16khz": EncodecConfig(
        16000, SeanetConfig(ratios=(8, 5, 4, 2), **_AUDIOCRAFT),  # type: ignore[arg-type]
        4, 2048, (2.2,), "facebook/audiogen-medium", _NON_COMMERCIAL,
    ),
}  # fmt: skip


class Encodec(Codec):
    """A model without segments: 24 kHz, and audiocraft's 32 and 16 kHz.

    Args:
        config: one of ``PRESETS``, or your own
        name: what ``Codes.codec`` will say
    """

    training_only = re.compile(r"\.(inited|cluster_size|embed_avg)$")

    def __init__(self, config: EncodecConfig, name: str = "encodec") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.encoder = seanet.encoder(config.seanet)
        self.decoder = seanet.decoder(config.seanet)
        quantizer = ResidualQuantizer(
            config.n_codebooks, config.codebook_size, config.seanet.dimension
        )
        self.quantizer = tag(quantizer, "quantizer.vq.layers.{}._codebook.embed")
        self.sample_rate_hz, self.channels = config.sample_rate_hz, config.seanet.channels
        self.hop = round(1 / self.encoder.rate)
        self.bandwidths_kbps = config.bandwidths_kbps
        self.licence, self.weights_at = config.licence, config.hub

    def _layout(self, state: State) -> Callable[[str], str]:
        return transformers_name if any("encoder.layers." in name for name in state) else str

    def _from_hub(self) -> os.PathLike[str]:
        if self.name == "encodec_16khz":
            return checkpoints.from_hub(self.config.hub, "compression_state_dict.bin")
        return checkpoints.from_hub(self.config.hub, "model.safetensors")


class EncodecSegmented(Encodec):
    """The 48 kHz model: segments of a second, each with its own scale, overlap-added."""

    def _overlapped(self, n_samples: int) -> Iterator[tuple[int, int]]:
        assert self.config.segment is not None and self.config.segment_stride is not None
        for begin in range(0, n_samples, self.config.segment_stride):
            yield begin, min(begin + self.config.segment, n_samples)

    def n_frames(self, n_samples: int) -> int:
        """Frames of all segments together; overlapped samples count twice."""
        return sum(-(-(end - begin) // self.hop) for begin, end in self._overlapped(n_samples))

    def n_scales(self, n_samples: int) -> int:
        return sum(1 for _ in self._overlapped(n_samples))

    def _encode_batch(self, wav: Tensor, n_codebooks: int, progress: Progress | None) -> Codes:
        shape = (len(wav), n_codebooks, self.n_frames(wav.shape[2]))
        tokens, scales, at = torch.empty(shape, dtype=torch.int64, device=wav.device), [], 0
        for begin, end in self._overlapped(wav.shape[2]):
            x = checked_finite(wav[..., begin:end], begin)
            scale = volume(x) + 1e-8
            latent = self.encoder(x / scale[:, None, None])
            tokens[..., at : at + latent.shape[2]] = self.quantizer.encode(latent, n_codebooks)
            at += latent.shape[2]
            scales.append(scale)
            if progress:
                progress(end, wav.shape[2])
        n_samples = [wav.shape[2]] * len(wav)
        return self._codes(tokens, n_samples, torch.stack(scales, dim=1))

    def _decode_batch(self, codes: Codes, n_samples: int, progress: Progress | None) -> Tensor:
        tokens, at = codes.tokens[..., : self.n_frames(n_samples)], 0
        self._check_tokens(tokens)
        segments = list(self._overlapped(n_samples))
        if codes.scale is None or codes.scale.shape[1] < len(segments):
            raise ValueError(f"decode: {self.name} needs Codes.scale [B, {len(segments)}]")
        total = torch.zeros(len(tokens), self.channels, n_samples, device=self.device)
        weights = torch.zeros(n_samples, device=self.device)
        window: Tensor | None = None
        for i, (begin, end) in enumerate(segments):
            frames = -(-(end - begin) // self.hop)
            y = self.decoder(self.quantizer.decode(tokens[..., at : at + frames]))
            y = y * codes.scale[:, i, None, None]
            window = triangle(y.shape[2], y) if window is None else window
            length = min(y.shape[2], n_samples - begin)
            total[..., begin : begin + length] += window[:length] * y[..., :length]
            weights[begin : begin + length] += window[:length]
            at += frames
            if progress:
                progress(at, tokens.shape[2])
        return total.div_(weights)

    def _decode_tokens(self, tokens: Tensor, progress: Progress | None) -> Tensor:
        raise ValueError(
            f"decode: {self.name} needs Codes with scale and n_samples, not bare tokens"
        )


def volume(x: Tensor) -> Tensor:
    """[B] root mean square of the mean over the channels of x [B, C, S].

    Summed one after the other, in float64: a reduction split over threads would change the scale.
    """
    mono = x.mean(dim=1)
    power = mono.double().square().cumsum(dim=1)[:, -1] / x.shape[2]
    return power.sqrt().float()


def triangle(length: int, like: Tensor) -> Tensor:
    """Overlap-add window [length], highest in the middle, never 0 (encodec/utils.py@0e2d0aed)."""
    t = torch.linspace(0, 1, length + 2, device=like.device, dtype=like.dtype)[1:-1]
    return 0.5 - (t - 0.5).abs()


def transformers_name(name: str) -> str:
    """The name that transformers' EncodecModel gives to an entry of encodec's checkpoint."""
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"\.(conv|convtr)\.(conv|convtr)\.", ".conv.", name)
    name = re.sub(r"\.(conv|convtr)\.norm\.", ".norm.", name)
    return name.replace("quantizer.vq.layers.", "quantizer.layers.").replace(
        "_codebook", "codebook"
    )


def build(name: str, config: EncodecConfig | None = None) -> Encodec:
    """The net of a preset, or of a configuration of your own, without its weights."""
    config = config or PRESETS[name]
    return (Encodec if config.segment is None else EncodecSegmented)(config, name)


__all__ = [
    "CONFIG",
    "PRESETS",
    "Encodec",
    "EncodecConfig",
    "EncodecSegmented",
    "build",
    "from_transformers",
]
