"""DAC, the Descript Audio Codec (Kumar et al. 2023, arXiv:2306.06546).

    wav [B, 1, S]    conv7 -> per rate s: 3 residual units, conv of 2 s, stride s, twice the width
                     -> conv3 -> latents [B, D, T]
    codes [B, K, T]  factorised residual quantizer: words of 8 features, nearest in angle
    decoder          conv7 -> per rate s: transposed conv of 2 s, half the width, 3 residual units
                     -> conv7 -> tanh

A residual unit is x + conv1(conv7(x)), the conv7s dilated by 1, 3 and 9; a snake stands before
every convolution but the first of each net. The signal is filled up with zeros to whole frames.
For an odd stride s upstream's padding leaves s T - 1 of s T samples, so T frames of the 16 and
24 kHz models decode to 320 T - 8 samples (descript-audio-codec dac/model/dac.py@c7cfc5d2).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from fastcodec.codecs.base import Codec
from fastcodec.codecs.dac_config import DacConfig, from_transformers, from_upstream
from fastcodec.codecs.keys import snake_first, tag
from fastcodec.codecs.stream import Wav, below_autograd, checked_finite
from fastcodec.io import checkpoints
from fastcodec.io.checkpoints import State
from fastcodec.layers.conv import NONE, Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import FactorisedLevel, FactorisedQuantizer
from fastcodec.layers.residual import ResidualUnit
from fastcodec.layers.streaming import PadTo, Sequential, StreamingModule

Factorised = TypeVar("Factorised", bound=FactorisedQuantizer)

SNAKE = Activation("snake")
DILATIONS = (1, 3, 9)

CONFIG = DacConfig
_RELEASES = "https://github.com/descriptinc/descript-audio-codec/releases/download"

PRESETS = {
    "dac_16khz": DacConfig(
        16000, encoder_rates=(2, 4, 5, 8), decoder_rates=(8, 5, 4, 2), n_codebooks=12,
        hub="descript/dac_16khz", licence="MIT",
    ),
    "dac_24khz": DacConfig(
        24000, encoder_rates=(2, 4, 5, 8), decoder_rates=(8, 5, 4, 2), n_codebooks=32,
        hub="descript/dac_24khz", licence="MIT",
    ),
    "dac_44khz": DacConfig(hub="descript/dac_44khz", licence="MIT"),
    "dac_44khz_16kbps": DacConfig(
        latent_dim=128, n_codebooks=18, url=f"{_RELEASES}/1.0.0/weights_44khz_16kbps.pth",
        licence="MIT",
    ),
}  # fmt: skip


class Dac(Codec):
    """A DAC.

    Args:
        config: one of ``PRESETS``, or your own
        name: what ``Codes.codec`` will say
        padded: False for the form that ``dac_chunks`` runs on windows, without any padding
    """

    quantizer: FactorisedQuantizer

    def __init__(self, config: DacConfig, name: str = "dac", padded: bool = True) -> None:
        super().__init__()
        self.config, self.name, self.padded = config, name, padded
        self.encoder: Sequential = encoder(config, padded)
        self.decoder: Sequential = decoder(config, padded)
        self.quantizer = quantizer(config)
        self.sample_rate_hz, self.hop = config.sample_rate, config.hop
        self.licence, self.weights_at = config.licence, config.hub or config.url

    def n_frames(self, n_samples: int) -> int:
        """How many frames a signal of ``n_samples`` makes."""
        if self.padded:
            return super().n_frames(n_samples)
        return output_length(self.encoder, n_samples)

    def latents(self, wav: Wav, n_codebooks: int | None = None) -> Tensor:
        """What each level of the quantizer sees, projected: [B, K * 8, T], upstream's ``latents``.

        Args:
            wav: as in ``encode``; held in memory with all that the encoder makes of it
            n_codebooks: K; all where None
        """
        parts = []
        with below_autograd(self.device):
            residual = self.encoder(checked_finite(self._as_batch(wav, "wav"), 0))
            for level in self._levels(self._n_codebooks(n_codebooks, None)):
                parts.append(level.project(residual))
                residual = residual - level.decode(level.encode(parts[-1]))
            return torch.cat(parts, dim=1)

    def tokens_of(self, latents: Tensor) -> Tensor:
        """The tokens [B, K, T] of projected latents [B, K * 8, T], each level's on its own."""
        width = self.config.codebook_dim
        count, rest = divmod(latents.shape[1], width)
        if rest or latents.ndim != 3:
            raise ValueError(
                f"tokens_of: latents must be [B, K * {width}, T], got {list(latents.shape)}"
            )
        parts = latents.split(width, dim=1)
        with below_autograd(self.device):
            levels = self._levels(self._n_codebooks(count, None))
            codes = [lv.encode(x) for lv, x in zip(levels, parts, strict=True)]
        return torch.stack(codes, dim=1)

    def unpadded(self) -> Dac:
        """The same weights in the form without padding."""
        with torch.device("meta"):
            twin = Dac(self.config, self.name, padded=False)
        twin.quantizer = self.quantizer
        for mine, theirs in zip(convolutions(self), convolutions(twin), strict=True):
            theirs.weight, theirs.bias, theirs.alpha = mine.weight, mine.bias, mine.alpha
            theirs._packed = mine._packed  # the kernels' copy, as large as the weights
        twin.set_precision(self.precision)
        return twin.train(self.training)

    def _levels(self, count: int) -> list[FactorisedLevel]:
        return cast(list[FactorisedLevel], list(self.quantizer.levels)[:count])

    def _layout(self, state: State) -> Callable[[str], str]:
        return transformers_name if "encoder.conv1.bias" in state else native_name

    def _from_hub(self) -> str | os.PathLike[str]:
        if self.config.hub:
            return checkpoints.from_hub(self.config.hub, "model.safetensors")
        cached = Path.home() / ".cache/descript/dac/weights_44khz_16kbps_1.0.0.pth"
        if self.config.url and cached.is_file():  # upstream's own download
            return cached
        return super()._from_hub()


def encoder(config: DacConfig, padded: bool = True) -> Sequential:
    """wav [B, 1, S] -> latents [B, D, ceil(S / hop)]."""
    width, path = config.encoder_dim, "encoder.block"
    layers: list[StreamingModule] = [PadTo(config.hop)]
    layers.append(_conv(1, width, 7, 3 * padded, f"{path}.0", activation=NONE))
    for i, stride in enumerate(config.encoder_rates, 1):
        layers += residual_units(width, f"{path}.{i}.block", 0, padded)
        pad = math.ceil(stride / 2) * padded
        layers.append(_conv(width, 2 * width, 2 * stride, pad, f"{path}.{i}.block.4", stride))
        width *= 2
    last = len(config.encoder_rates) + 2
    layers.append(_conv(width, config.dimension, 3, 1 * padded, f"{path}.{last}"))
    return Sequential(*layers)


def decoder(config: DacConfig, padded: bool = True) -> Sequential:
    """latents [B, D, T] -> wav [B, 1, S]; see the module about S."""
    width, path = config.decoder_dim, "decoder.model"
    layers: list[StreamingModule] = [
        _conv(config.dimension, width, 7, 3 * padded, f"{path}.0", activation=NONE)
    ]
    for i, stride in enumerate(config.decoder_rates, 1):
        cut = math.ceil(stride / 2) * padded
        up = ConvTranspose1d(
            width, width // 2, 2 * stride, stride, cut_left=cut, cut_right=cut, activation=SNAKE
        )
        layers.append(tag(up, f"{path}.{i}.block.1"))
        width //= 2
        layers += residual_units(width, f"{path}.{i}.block", 2, padded)
    last = len(config.decoder_rates) + 2
    layers.append(_conv(width, 1, 7, 3 * padded, f"{path}.{last}"))
    return Sequential(*layers, Pointwise("tanh"))


def quantizer(config: DacConfig) -> FactorisedQuantizer:
    """The quantizer of a configuration, tagged."""
    net = FactorisedQuantizer(
        config.n_codebooks, config.codebook_size, config.codebook_dim, config.dimension
    )
    return tag_levels(net)


def tag_levels(net: Factorised) -> Factorised:
    """The quantizer, tagged."""
    for i, level in enumerate(net.levels):
        path = f"quantizer.quantizers.{i}"
        tag(level, path)
        tag(level.in_proj, f"{path}.in_proj")  # type: ignore[type-var]
        tag(level.out_proj, f"{path}.out_proj")  # type: ignore[type-var]
    return net


def _conv(
    c_in: int,
    c_out: int,
    kernel: int,
    pad: int,
    path: str,
    stride: int = 1,
    activation: Activation = SNAKE,
) -> Conv1d:
    conv = Conv1d(c_in, c_out, kernel, stride, left=pad, right=pad, activation=activation)
    return tag(conv, path)


def residual_units(
    width: int, path: str, first: int, padded: bool = True, groups: int = 1
) -> list[StreamingModule]:
    """Three residual units, the first of which upstream numbers ``first``."""
    units: list[StreamingModule] = []
    for i, dilation in enumerate(DILATIONS, first):
        lost, unit = 3 * dilation, f"{path}.{i}.block"  # by a conv7 without padding, on each side
        pad = lost * padded
        conv7 = Conv1d(width, width, 7, 1, dilation, groups, left=pad, right=pad, activation=SNAKE)
        tag(conv7, f"{unit}.1")
        conv1 = _conv(width, width, 1, 0, f"{unit}.3")
        units.append(ResidualUnit(conv7, conv1, None if padded else Drop(lost), lost))
    return units


class Drop(StreamingModule):
    """x without its first ``count`` frames: the skip path beside convolutions without padding."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def init_state(self, batch_size: int) -> list[int]:
        return [self.count]

    def push(self, x: Tensor, state: list[int], final: bool = False) -> Tensor:
        dropped = min(state[0], x.shape[2])
        state[0] -= dropped
        return x[..., dropped:]


def convolutions(net: nn.Module) -> list[Conv1d | ConvTranspose1d]:
    """All of them, in upstream's order (but for a quantizer's, which change no length)."""
    return [m for m in net.modules() if isinstance(m, Conv1d | ConvTranspose1d)]


def output_length(net: nn.Module, length: int) -> int:
    """What the convolutions of a net, without padding, make of a length."""
    for layer in convolutions(net):
        if isinstance(layer, Conv1d):
            length = (length - layer.span) // layer.stride + 1
        else:
            length = (length - 1) * layer.stride + layer.kernel
    return length


def native_name(name: str) -> str:
    """The name in the checkpoints of upstream, and of SNAC's."""
    return name + ".weight" if name.endswith(".codebook") else snake_first(name)


def transformers_name(name: str) -> str:
    """The name that transformers' DacModel gives to an entry."""
    side, _, rest = name.partition(".")
    if side == "quantizer":
        return native_name(name)
    block, *inner = (int(part) for part in rest.split(".") if part.isdigit())
    leaf = rest.rpartition(".")[2]
    conv, snake, path = "conv1", "snake1", side
    if len(inner) == 2:
        unit = inner[0] + 1 if side == "encoder" else inner[0] - 1
        path = f"{side}.block.{block - 1}.res_unit{unit}"
        conv, snake = ("conv1", "snake1") if inner[1] == 1 else ("conv2", "snake2")
    elif len(inner) == 1:
        path = f"{side}.block.{block - 1}"
        conv = "conv1" if side == "encoder" else "conv_t1"
    elif block:
        conv = "conv2"
    return f"{path}.{snake}.alpha" if leaf == "alpha" else f"{path}.{conv}.{leaf}"


def build(name: str, config: DacConfig | None = None) -> Dac:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return Dac(config or PRESETS[name], name)


__all__ = ["CONFIG", "PRESETS", "Dac", "DacConfig", "build", "from_transformers", "from_upstream"]
