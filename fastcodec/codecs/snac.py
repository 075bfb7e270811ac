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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from fastcodec.codecs.base import Codec, CodecInfo, Weights
from fastcodec.codecs.keys import tag
from fastcodec.codecs.settings import checked
from fastcodec.errors import WeightsError
from fastcodec.io import checkpoints
from fastcodec.io.checkpoints import State
from fastcodec.layers import noise
from fastcodec.layers.conv import Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.local_attention import WindowAttention
from fastcodec.layers.noise import NoiseBlock
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import FactorisedLevel, MultiRateQuantizer
from fastcodec.layers.streaming import PadTo, Regroup, Residual, Sequential, StreamingModule

SNAKE = Activation("snake")
DILATIONS = (1, 3, 9)
HEAD = 64  # features of a head of attention


@dataclass(frozen=True)
class SnacConfig:
    """Upstream's constructor arguments; ``hub`` is the repository of the weights."""

    sampling_rate: int = 44100
    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (2, 3, 8, 8)
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (8, 8, 3, 2)
    attn_window_size: int | None = 32
    codebook_size: int = 4096
    codebook_dim: int = 8
    vq_strides: tuple[int, ...] = (8, 4, 2, 1)
    noise: bool = True
    depthwise: bool = True
    hub: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        if min(self.encoder_rates + self.decoder_rates, default=0) < 2 or self.hop != math.prod(
            self.decoder_rates
        ):
            raise ValueError(
                f"SnacConfig: the rates must be 2 or more and have one product, got "
                f"{self.encoder_rates} and {self.decoder_rates}"
            )
        if any(self.group % stride for stride in self.vq_strides) or not self.vq_strides:
            raise ValueError(
                f"SnacConfig: every one of vq_strides must divide the least common multiple of the "
                f"first and the attention's window, got {self.vq_strides}"
            )
        widths = self.dimension, self.decoder_dim
        if self.attn_window_size is not None and any(width % HEAD for width in widths):
            raise ValueError(
                f"SnacConfig: attention needs widths that are multiples of {HEAD}, got {widths}"
            )

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.encoder_rates)

    @property
    def dimension(self) -> int:
        """D."""
        return self.encoder_dim * 2 ** len(self.encoder_rates)

    @property
    def group(self) -> int:
        """A signal has a multiple of so many frames."""
        return math.lcm(self.vq_strides[0], self.attn_window_size or 1)


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

    def _adapt(self, state: State) -> State:
        """Upstream's snakes have alpha [1, C, 1], its linear layers weights [C', C]."""
        linear = re.compile(r"\.(to_qkv|to_out)\.weight$")
        state = {n: v.reshape(-1) if n.endswith(".alpha") else v for n, v in state.items()}
        return {n: v[..., None] if linear.search(n) else v for n, v in state.items()}

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
        layers += _units(config, width, f"{path}.{i}.block", 0)
        pad = math.ceil(stride / 2)
        down = Conv1d(width, 2 * width, 2 * stride, stride, left=pad, right=pad, activation=SNAKE)
        layers.append(tag(down, f"{path}.{i}.block.4"))
        width *= 2
    index = len(config.encoder_rates) + 1
    if config.attn_window_size is not None:
        layers.append(_attention(width, config.attn_window_size, f"{path}.{index}"))
        index += 1
    groups = width if config.depthwise else 1
    layers.append(tag(Conv1d(width, width, 7, groups=groups, left=3, right=3), f"{path}.{index}"))
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
    for i, level in enumerate(cast(list[FactorisedLevel], list(net.levels))):
        path = f"quantizer.quantizers.{i}"
        tag(level, path)
        tag(level.in_proj, f"{path}.in_proj")
        tag(level.out_proj, f"{path}.out_proj")
    return net


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
    return layers + _units(config, half, path, 1 + len(layers))


def _units(config: SnacConfig, width: int, path: str, first: int) -> list[StreamingModule]:
    """Three residual units, the first of which upstream numbers ``first``."""
    units: list[StreamingModule] = []
    for i, dilation in enumerate(DILATIONS, first):
        groups, pad, unit = width if config.depthwise else 1, 3 * dilation, f"{path}.{i}.block"
        conv7 = Conv1d(width, width, 7, 1, dilation, groups, left=pad, right=pad, activation=SNAKE)
        conv1 = Conv1d(width, width, 1, activation=SNAKE)
        units.append(Residual([tag(conv7, f"{unit}.1"), tag(conv1, f"{unit}.3")]))
    return units


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


def native_name(name: str) -> str:
    """The name in upstream's checkpoints: a snake is the module before its convolution."""
    if name.endswith(".codebook"):
        return name + ".weight"
    path, _, leaf = name.rpartition(".")
    stem, _, number = path.rpartition(".")
    return f"{stem}.{int(number) - 1}.alpha" if leaf == "alpha" else name


_DEFAULTS = {
    "sampling_rate": 44100, "encoder_dim": 64, "encoder_rates": (3, 3, 7, 7), "latent_dim": None,
    "decoder_dim": 1536, "decoder_rates": (7, 7, 3, 3), "attn_window_size": 32,
    "codebook_size": 4096, "codebook_dim": 8, "vq_strides": (8, 4, 2, 1), "noise": True,
    "depthwise": True,
}  # fmt: skip


def from_upstream(config: Mapping[str, Any]) -> SnacConfig:
    """The configuration that a ``config.json`` of upstream's describes.

    Raises:
        WeightsError: a setting that is not known, or a value that no model can have
    """
    settings = checked("SNAC", config, _DEFAULTS, nullable=("attn_window_size",))
    latent_dim = settings.pop("latent_dim")
    try:
        found = SnacConfig(**settings)
    except ValueError as error:
        raise WeightsError(str(error)) from error
    if latent_dim not in (None, found.dimension):
        raise WeightsError(f"SNAC: latent_dim must be {found.dimension}, got {latent_dim}")
    return found


def build(name: str, config: SnacConfig | None = None) -> Snac:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return Snac(config or PRESETS[name], name)
