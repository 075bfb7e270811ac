"""SNAC, the multi-scale neural audio codec (Siuzdak et al. 2024, arXiv:2410.14411).

    wav [B, 1, S]    conv7 -> per rate s: 3 residual units, conv of 2 s, stride s, twice the width
                     -> window attention -> conv7 (each channel alone) -> latents [B, D, T]
    codes [B, K, T]  factorised residual quantizer, each level at its own rate: level i sees the
                     mean of vq_strides[i] frames; its code is repeated for all of them
    decoder          conv7 (each channel alone) -> conv1 -> window attention -> per rate s:
                     transposed conv of 2 s, half the width, noise, 3 residual units
                     -> conv7 -> tanh

A residual unit is x + conv1(conv7(x)), the conv7s dilated by 1, 3 and 9 and each channel alone; a
snake stands before every convolution but the first of each net, the encoder's last and the
decoder's conv1. The 24 kHz model has no attention. The signal is filled up with zeros to whole
groups of frames (snac/snac.py and layers.py@f49016a4).
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from fastcodec.codecs.base import Codec, CodecInfo, Weights
from fastcodec.codecs.dac import SNAKE, native_name, residual_units, tag_levels
from fastcodec.codecs.keys import tag
from fastcodec.codecs.snac_config import HEAD, SnacConfig, from_upstream
from fastcodec.io import checkpoints
from fastcodec.io.checkpoints import State
from fastcodec.layers import noise
from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.local_attention import WindowAttention
from fastcodec.layers.noise import NoiseBlock
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import MultiRateQuantizer
from fastcodec.layers.streaming import PadTo, Regroup, Sequential, StreamingModule

CONFIG = SnacConfig

# The 32 and 44.1 kHz models have one architecture.
PRESETS = {
    "snac_24khz": SnacConfig(
        24000, 48, (2, 4, 8, 8), 1024, (8, 8, 4, 2), None, vq_strides=(4, 2, 1),
        hub="hubertsiuzdak/snac_24khz", licence="MIT",
    ),
    "snac_32khz": SnacConfig(32000, hub="hubertsiuzdak/snac_32khz", licence="MIT"),
    "snac_44khz": SnacConfig(44100, hub="hubertsiuzdak/snac_44khz", licence="MIT"),
}  # fmt: skip


class Snac(Codec):
    """A SNAC.

    Upstream's decoder draws new noise in every call. Here it adds none, or, where ``noise_seed`` is
    set, noise that is a function of the seed and the position: the same for every row of a batch,
    for pieces and for the whole.

    Args:
        config: one of ``PRESETS``, or your own
        name: what ``Codes.codec`` will say
    """

    quantizer: MultiRateQuantizer
    training_only = re.compile(r"\.rel_pos\.inv_freq$")  # computed, not learned

    def __init__(self, config: SnacConfig, name: str = "snac") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.encoder: Sequential = encoder(config)
        self.decoder: Sequential = decoder(config)
        self.quantizer = quantizer(config)
        self.sample_rate_hz, self.hop = config.sampling_rate, config.hop
        self.frame_multiple = config.group
        self.licence, self.weights_at = config.licence, config.hub
        self._noise_seed: int | None = None

    @property
    def info(self) -> CodecInfo:
        """The codec's facts."""
        return replace(super().info, latency=latency(self))

    @property
    def noise_seed(self) -> int | None:
        """Seed of the noise that ``decode`` adds; None, as at first: no noise."""
        return self._noise_seed

    @noise_seed.setter
    def noise_seed(self, seed: int | None) -> None:
        self._noise_seed = seed
        for i, block in enumerate(noise_blocks(self)):
            block.noise = None if seed is None else functools.partial(noise.normal, seed, i)

    def from_ragged(self, codes: Sequence[Tensor]) -> Tensor:
        """Tokens [B, K, T] for ``decode`` of upstream's codes, [B, T / stride] of each level."""
        lengths = [c.shape[1] * s for c, s in zip(codes, self.config.vq_strides, strict=False)]
        if not 1 <= len(codes) <= len(self.config.vq_strides) or len(set(lengths)) > 1:
            raise ValueError(
                f"from_ragged: codes must be [B, T / s] for s in {self.config.vq_strides}, got "
                f"{[list(c.shape) for c in codes]}"
            )
        return self.quantizer.from_ragged(codes)

    def read(self, source: Weights) -> State:
        if not isinstance(source, Mapping) and Path(source).is_dir():
            source = Path(source) / "pytorch_model.bin"
        return super().read(source)

    def _layout(self, state: State) -> Callable[[str], str]:
        return native_name

    def _from_hub(self) -> str | os.PathLike[str]:
        return checkpoints.from_hub(self.config.hub, "pytorch_model.bin")


def encoder(config: SnacConfig) -> Sequential:
    """wav [B, 1, S] -> latents [B, D, T], T a multiple of ``config.group``."""
    width, path = config.encoder_dim, "encoder.block"
    first = tag(Conv1d(1, width, 7, left=3, right=3), f"{path}.0")
    layers: list[StreamingModule] = [PadTo(config.hop * config.group), first]
    for i, stride in enumerate(config.encoder_rates, 1):
        layers += residual_units(width, f"{path}.{i}.block", 0, groups=_groups(config, width))
        pad = math.ceil(stride / 2)
        down = Conv1d(width, 2 * width, 2 * stride, stride, left=pad, right=pad, activation=SNAKE)
        layers.append(tag(down, f"{path}.{i}.block.4"))
        width *= 2
    index = len(config.encoder_rates) + 1
    if config.attn_window_size is not None:
        layers.append(_attention(width, config.attn_window_size, f"{path}.{index}"))
        index += 1
    last = Conv1d(width, width, 7, groups=_groups(config, width), left=3, right=3)
    layers.append(tag(last, f"{path}.{index}"))
    return Sequential(*layers, Regroup(math.lcm(*config.vq_strides)))


def decoder(config: SnacConfig) -> Sequential:
    """latents [B, D, T] -> wav [B, 1, hop T]."""
    width, path, input_width = config.decoder_dim, "decoder.model", config.dimension
    layers: list[StreamingModule] = []
    if config.depthwise:
        alone = Conv1d(input_width, input_width, 7, groups=input_width, left=3, right=3)
        layers += [tag(alone, f"{path}.0"), tag(Conv1d(input_width, width, 1), f"{path}.1")]
    else:
        layers.append(tag(Conv1d(input_width, width, 7, left=3, right=3), f"{path}.0"))
    if config.attn_window_size is not None:
        layers.append(_attention(width, config.attn_window_size, f"{path}.{len(layers)}"))
    index = len(layers)
    for i, stride in enumerate(config.decoder_rates, index):
        layers += _upsampling(config, width, stride, f"{path}.{i}.block")
        width //= 2
    index += len(config.decoder_rates)
    last = Conv1d(width, 1, 7, left=3, right=3, activation=SNAKE)
    return Sequential(*layers, tag(last, f"{path}.{index + 1}"), Pointwise("tanh"))


def quantizer(config: SnacConfig) -> MultiRateQuantizer:
    """The quantizer of a configuration, tagged."""
    net = MultiRateQuantizer(
        config.vq_strides, config.codebook_size, config.codebook_dim, config.dimension
    )
    return tag_levels(net)


def _groups(config: SnacConfig, width: int) -> int:
    return width if config.depthwise else 1


def _attention(width: int, window: int, path: str) -> WindowAttention:
    layer = WindowAttention(width, window, HEAD)
    for name in ("norm", "to_qkv", "to_out"):
        tag(layer.get_submodule(name), f"{path}.{name}")
    return layer


def _upsampling(config: SnacConfig, width: int, stride: int, path: str) -> list[StreamingModule]:
    """One block of the decoder, stride T frames of half the width from T frames."""
    cut, half = math.ceil(stride / 2), width // 2
    up = ConvTranspose1d(
        width,
        half,
        2 * stride,
        stride,
        cut_left=cut,
        cut_right=stride - cut,
        activation=SNAKE,
    )
    layers: list[StreamingModule] = [tag(up, f"{path}.1")]
    if config.noise:
        block = NoiseBlock(half)
        tag(block.linear, f"{path}.2.linear")
        layers.append(block)
    groups = _groups(config, half)
    return layers + residual_units(half, path, 1 + len(layers), groups=groups)


def noise_blocks(codec: Snac) -> list[NoiseBlock]:
    """The blocks that add noise, in the decoder's order."""
    return [layer for layer in codec.decoder.layers if isinstance(layer, NoiseBlock)]


def latency(codec: Snac) -> int:
    """Look-ahead in samples. Windows and groups begin together, so some waits are not added up."""
    window, group = codec.config.attn_window_size or 1, math.lcm(*codec.config.vq_strides)

    def decoded(frames: int) -> int:
        """Frames that the decoder's attention lets through when the encoder's has had so many."""
        latents = frames // window * window
        coded = (latents - 3) // group * group
        return (coded - 3) // window * window

    period = math.lcm(window, group)
    wait = max(frames - decoded(frames) for frames in range(period, 2 * period))
    convolutions = codec.encoder.lookahead - (codec.hop - 1) + codec.decoder.lookahead * codec.hop
    added_up = 2 * (window - 1 + 3) + group - 1
    return round(convolutions + (wait - added_up) * codec.hop)


def build(name: str, config: SnacConfig | None = None) -> Snac:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return Snac(config or PRESETS[name], name)


__all__ = ["CONFIG", "PRESETS", "Snac", "SnacConfig", "build", "from_upstream"]
