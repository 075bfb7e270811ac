"""Lyra v2 (google/lyra@47698dad and v1.2.0): a SoundStream (arXiv:2107.03312) with public weights.

16 kHz, 20 ms frames, 46 codebooks of 16 words. Causal convolutions with leaky ReLU; a residual unit
is a depthwise, a pointwise and a grouped convolution. Only whole frames are encoded: a tail shorter
than 20 ms is dropped, as upstream does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastcodec.codecs import lyra_int8, lyra_weights
from fastcodec.codecs.base import Codec
from fastcodec.errors import WeightsError
from fastcodec.io.checkpoints import load_strict
from fastcodec.layers.conv import Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.quantize import ResidualQuantizer
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule

LEAKY = Activation("leaky_relu", 0.3)


@dataclass(frozen=True)
class LyraConfig:
    """Sizes of the quantizer; those of the nets are fixed."""

    n_codebooks: int = 46
    codebook_size: int = 16
    dimension: int = 64


CONFIG = LyraConfig
PRESETS = {"lyra_v2": LyraConfig()}
DILATIONS = (1, 3, 9)
# (width, groups of a unit's last convolution) of the encoder's blocks; the decoder's in reverse.
BLOCKS = ((64, 1), (128, 2), (256, 4))
# (kernel, stride, groups) of the resampling convolution behind each encoder block.
RESAMPLING = ((10, 5, 1), (4, 2, 2), (4, 2, 4))


class Lyra(Codec):
    """Lyra v2's nets in float32; int8 weights put the integer nets in their place."""

    sample_rate_hz, hop = 16000, 320
    bandwidths_kbps = (3.2, 6.0, 9.2)
    licence, weights_at = "Apache-2.0", "github.com/google/lyra, model_coeffs/*.tflite (a folder)"
    drops_tail = True
    tile_s = 2.0  # its layers are narrow

    quantizer: ResidualQuantizer

    def __init__(self, config: LyraConfig, name: str = "lyra_v2") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.encoder: StreamingModule = encoder()
        self.decoder: StreamingModule = decoder()
        self.quantizer = ResidualQuantizer(
            config.n_codebooks, config.codebook_size, config.dimension
        )

    def _load_published(self, weights: str | os.PathLike[str] | Mapping[str, Any] | None) -> None:
        """Load the three .tflite files of a folder, float32 (v1.2.0) or int8 (v1.3).

        Args:
            weights: the folder, or a mapping of this module's names to tensors (there are no names
                to keep in upstream's files)
        """
        if weights is None:
            raise WeightsError(
                f"{self.name}: give weights=, the folder with soundstream_encoder.tflite, "
                f"quantizer.tflite and lyragan.tflite of {self.weights_at}"
            )
        if isinstance(weights, Mapping):
            return load_strict(self, weights, f"the mapping given for {self.name}")
        folder = Path(weights)
        if lyra_weights.lyra_is_int8(folder):
            nets = lyra_int8.load_lyra_int8(folder)
            self.encoder, self.decoder = nets.encoder, nets.decoder
            self.quantizer.codebooks.copy_(nets.codebooks)
            return
        state = lyra_weights.load_lyra_weights(folder)
        load_strict(self, {_own_name(name): value for name, value in state.items()}, str(weights))


def encoder() -> Sequential:
    """wav [B, 1, S] -> latents [B, 64, S / 320]."""
    layers: list[StreamingModule] = [_conv(1, 64, 64, stride=16, activation=Activation())]
    for (width, groups), (kernel, stride, resample_groups) in zip(BLOCKS, RESAMPLING, strict=True):
        layers += [_residual_unit(width, dilation, groups) for dilation in DILATIONS]
        layers.append(_conv(width, 2 * width, kernel, stride, groups=resample_groups))
    layers.append(_conv(512, 64, 3, groups=4))
    return Sequential(*layers)


def decoder() -> Sequential:
    """latents [B, 64, T] -> wav [B, 1, 320 T]."""
    layers: list[StreamingModule] = [_conv(64, 512, 3, groups=4, activation=Activation())]
    for (width, groups), (kernel, stride, resample_groups) in zip(
        reversed(BLOCKS), reversed(RESAMPLING), strict=True
    ):
        layers.append(_conv_transpose(2 * width, width, kernel, stride, resample_groups))
        layers += [_residual_unit(width, dilation, groups) for dilation in DILATIONS]
    layers.append(_conv_transpose(64, 1, 64, 16, 1))
    return Sequential(*layers)


def _conv(
    c_in: int,
    c_out: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: Activation = LEAKY,
) -> Conv1d:
    left = (kernel - 1) * dilation + 1 - stride
    return Conv1d(c_in, c_out, kernel, stride, dilation, groups, left=left, activation=activation)


def _conv_transpose(
    c_in: int, c_out: int, kernel: int, stride: int, groups: int
) -> ConvTranspose1d:
    cut = kernel - stride
    return ConvTranspose1d(c_in, c_out, kernel, stride, groups, cut_right=cut, activation=LEAKY)


def _residual_unit(width: int, dilation: int, groups: int) -> Residual:
    depthwise = _conv(width, width, 3, dilation=dilation, groups=width)
    pointwise = _conv(width, width, 1, activation=Activation())
    return Residual([depthwise, pointwise, _conv(width, width, 1, groups=groups)])


def _own_name(name: str) -> str:
    """The name here of an entry of ``lyra_weights.load_lyra_weights``."""
    part, _, rest = name.partition(".")
    units, unit_parts = len(DILATIONS), ("depthwise", "pointwise", "grouped")
    first, *inside = rest.split(".")
    if part == "quantizer":
        return name
    if first != "blocks":
        index = 0 if first == "conv0" else 1 + len(BLOCKS) * (units + 1)
        return f"{part}.layers.{index}.{inside[-1]}"
    start = 1 + int(inside[0]) * (units + 1)
    if inside[1] in ("down", "up"):
        index = start + units if part == "encoder" else start
        return f"{part}.layers.{index}.{inside[-1]}"
    index = start + int(inside[2]) + (0 if part == "encoder" else 1)
    return f"{part}.layers.{index}.body.{unit_parts.index(inside[3])}.{inside[-1]}"


def build(name: str, config: LyraConfig | None = None) -> Lyra:
    """The net of a preset, without its weights."""
    return Lyra(config or PRESETS[name], name)
