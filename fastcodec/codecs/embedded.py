"""The codec that comes with the package: speech at 16 kHz, 0.5 to 4 kbps, streaming.

Around 8 codebooks of 1024 words, 50 frames a second, no look-ahead: short strided convolutions of
ELUs from rate to rate, and at each rate residual blocks of a depthwise and two pointwise
convolutions, as in ConvNeXt (Liu et al. 2022, arXiv:2201.03545) but without normalisation, which
would take a frame's level away. Most weights work at 100 Hz and less, so a second of sound costs
little; a narrow unit at the sound's own rate, as in SEANet, makes the overtones. Trained by
``fastcodec train`` on recordings under free licences; data, recipe and learning curves:
``fastcodec/train/recipes``.

    wav ─ ↓8 ─ block ─ ↓5 ─ 2 blocks ─ ↓4 ─ block ─ ↓2 ─ block ─ conv 1 ─► 64 × 50 Hz ─► 8 codes
              32           96             192          192 channels
    wav ◄ ↑8 ─ block ◄ ↑5 ─ 2 blocks ◄ ↑4 ─ 2 blocks ◄ ↑2 ─ block ◄ conv 3 ◄── sum of words ◄─┘
         └ and a unit and conv 7

    block: x + conv 1 (gelu (conv 1 (depthwise conv 7 (x))))
    unit, 16 channels: x + conv 1 (elu (conv 5 (elu (x))))
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from fastcodec.codecs.base import Codec
from fastcodec.layers.conv import ELU, NONE, Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.quantize import ResidualQuantizer
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule

ASSETS = Path(__file__).parents[1] / "assets"
DEFAULT = "fastcodec_16khz"  # where no codec is named: it needs nothing but the package


@dataclass(frozen=True)
class EmbeddedConfig:
    """A ladder of rates, from the sound's down to the codes'; every tuple has one value a step.

    ``strides`` and ``kernels``: of a step's convolution; ``widths``: channels below it;
    ``encoder_blocks``, ``decoder_blocks``: residual blocks there; ``block_kernel`` and
    ``expansion``: of a block; ``last_width``: channels of the unit; ``dimension``: of the latents.
    """

    sample_rate_hz: int = 16000
    strides: tuple[int, ...] = (8, 5, 4, 2)
    kernels: tuple[int, ...] = (16, 10, 8, 2)
    widths: tuple[int, ...] = (32, 96, 192, 192)
    encoder_blocks: tuple[int, ...] = (1, 2, 1, 1)
    decoder_blocks: tuple[int, ...] = (1, 2, 2, 1)
    block_kernel: int = 7
    expansion: int = 3
    last_width: int = 16
    dimension: int = 64
    n_codebooks: int = 8
    codebook_size: int = 1024
    licence: str = ""

    def __post_init__(self) -> None:
        ladder = ("strides", "kernels", "widths", "encoder_blocks", "decoder_blocks")
        if len({len(getattr(self, name)) for name in ladder}) != 1:
            raise ValueError(
                f"EmbeddedConfig: {', '.join(ladder)} must be equally long, got "
                f"{', '.join(str(getattr(self, name)) for name in ladder)}"
            )

    @property
    def steps(self) -> list[tuple[int, int, int, int]]:
        """Stride, kernel, and channels above and below, from the sound's rate down."""
        above = (self.last_width, *self.widths[:-1])
        return list(zip(self.strides, self.kernels, above, self.widths, strict=True))


CONFIG = EmbeddedConfig

PRESETS = {
    "fastcodec_16khz": EmbeddedConfig(
        licence="CC-BY-SA 3.0, as the recordings it learnt from",
    )
}


class Embedded(Codec):
    """A codec whose published weights lie in the package."""

    def __init__(self, config: EmbeddedConfig, name: str = DEFAULT) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.encoder, self.decoder = encoder(config), decoder(config)
        self.quantizer = ResidualQuantizer(
            config.n_codebooks, config.codebook_size, config.dimension
        )
        self.sample_rate_hz, self.channels = config.sample_rate_hz, 1
        self.hop = math.prod(config.strides)
        bits_a_second = math.log2(config.codebook_size) * config.sample_rate_hz / self.hop
        counts = range(1, config.n_codebooks + 1)
        self.bandwidths_kbps = tuple(k * bits_a_second / 1000 for k in counts)
        self.licence = config.licence

    def _from_hub(self) -> os.PathLike[str]:
        return ASSETS / f"{self.name}.safetensors"


def encoder(config: EmbeddedConfig) -> Sequential:
    """wav [B, 1, S] -> latents [B, D, T], S / T = product of the strides."""
    layers: list[StreamingModule] = []
    for i, (stride, kernel, above, below) in enumerate(config.steps):
        above, activation = (above, ELU) if i else (1, NONE)
        left = kernel - stride
        layers.append(
            Conv1d(above, below, kernel, stride, left=left, fill_last=True, activation=activation)
        )
        layers += [block(below, config) for _ in range(config.encoder_blocks[i])]
    return Sequential(*layers, Conv1d(config.widths[-1], config.dimension, 1))


def decoder(config: EmbeddedConfig) -> Sequential:
    """latents [B, D, T] -> wav [B, 1, S]."""
    layers: list[StreamingModule] = [Conv1d(config.dimension, config.widths[-1], 3, left=2)]
    for (stride, kernel, above, below), blocks in zip(
        reversed(config.steps), reversed(config.decoder_blocks), strict=True
    ):
        layers += [block(below, config) for _ in range(blocks)]
        cut = kernel - stride
        layers.append(ConvTranspose1d(below, above, kernel, stride, cut_right=cut, activation=ELU))
    width = config.last_width
    unit = [
        Conv1d(width, width, 5, left=4, activation=ELU),
        Conv1d(width, width, 1, activation=ELU),
    ]
    return Sequential(*layers, Residual(unit), Conv1d(width, 1, 7, left=6, activation=ELU))


def block(width: int, config: EmbeddedConfig) -> Residual:
    """A depthwise convolution over time, then a perceptron over the channels; causal."""
    kernel, inner = config.block_kernel, config.expansion * width
    return Residual(
        [
            Conv1d(width, width, kernel, groups=width, left=kernel - 1),
            Conv1d(width, inner, 1),
            Conv1d(inner, width, 1, activation=Activation("gelu")),
        ]
    )


def build(name: str, config: EmbeddedConfig | None = None) -> Embedded:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return Embedded(config or PRESETS[name], name)


__all__ = ["CONFIG", "DEFAULT", "PRESETS", "Embedded", "EmbeddedConfig", "build"]
