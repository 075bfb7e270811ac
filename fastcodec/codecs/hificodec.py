"""HiFi-Codec (Yang et al. 2023, arXiv:2305.02765), of the AcademiCodec toolkit.

    wav [B, 1, S]    conv7 -> per rate s: strided conv, 3 residual blocks side by side, their sum
                     normalised after each -> conv3 -> latents [B, D, T]
    codes [B, 4, T]  two halves of the features, each with a residual quantizer of two levels
    generator        conv7 -> per rate s: transposed conv, mean of 3 residual blocks
                     -> conv7 -> tanh

The generator is HiFi-GAN's, the encoder its mirror image. Samples at the end of a signal that fill
no frame are dropped (academicodec/models/hificodec/models.py@b6ac1347).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastcodec.codecs.base import Codec, Weights
from fastcodec.codecs.keys import tag
from fastcodec.codecs.settings import checked, made
from fastcodec.io import checkpoints, torchfile
from fastcodec.io.checkpoints import State
from fastcodec.layers.conv import NONE, Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.hifigan import LEAKY, ResBlock
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import GroupedResidualQuantizer
from fastcodec.layers.streaming import Sequential, StreamingModule, Sum, streaming

LEVELS = 2  # of residual quantization
GROUP = 16  # channels that are normalised together


@dataclass(frozen=True)
class HificodecConfig:
    """Upstream's settings.

    ``encoder_channels``: of the encoder's first convolution, in upstream always 32.
    """

    sampling_rate: int = 16000
    upsample_rates: tuple[int, ...] = (8, 5, 4, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 11, 8, 4)
    upsample_initial_channel: int = 512
    resblock: str = "1"
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    n_code_groups: int = 2
    n_codes: int = 1024
    encoder_channels: int = 32
    hub: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        pairs = list(zip(self.upsample_rates, self.upsample_kernel_sizes, strict=False))
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes) or any(
            kernel < rate or (kernel - rate) % 2 for rate, kernel in pairs
        ):
            raise ValueError(
                f"HificodecConfig: each of upsample_kernel_sizes must be an even number more than "
                f"its rate, got {self.upsample_kernel_sizes} for {self.upsample_rates}"
            )
        if self.resblock not in ("1", "2"):
            raise ValueError(f"HificodecConfig: resblock must be '1' or '2', got {self.resblock!r}")
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise ValueError(
                f"HificodecConfig: resblock_dilation_sizes must be as many as the kernels, "
                f"{len(self.resblock_kernel_sizes)}, got {self.resblock_dilation_sizes}"
            )

    @property
    def dimension(self) -> int:
        """D, the encoder's last width."""
        return self.encoder_channels * 2 ** len(self.upsample_rates)


CONFIG = HificodecConfig
_preset = functools.partial(
    HificodecConfig, hub="Dongchao/AcademiCodec", licence="MIT (as the readme says)"
)
PRESETS = {
    "hifi_16k_320d": _preset(16000),
    "hifi_16k_320d_large_uni": _preset(16000),
    "hifi_24k_320d": _preset(24000),
    "hifi_24k_240d": _preset(24000, (8, 5, 3, 2), (16, 11, 7, 4)),
}
_FILES = {
    "hifi_16k_320d": "HiFi-Codec-16k-320d",
    "hifi_16k_320d_large_uni": "HiFi-Codec-16k-320d-large-universal",
    "hifi_24k_320d": "HiFi-Codec-24k-320d",
    "hifi_24k_240d": "HiFi-Codec-24k-240d",
}


class NormalisedSum(StreamingModule):
    """normalise(... normalise(branch(x)) + branch(x) ...), divided by the number of branches.

    Args:
        branches: layers of one rate and width
        norms: a normalisation of the sum after each of them
    """

    def __init__(self, branches: Sequence[StreamingModule], norms: Sequence[GroupNorm]) -> None:
        super().__init__()
        self.branches, self.norms = nn.ModuleList(branches), nn.ModuleList(norms)
        self.not_streamable_because = norms[0].not_streamable_because
        self.lookahead = max(branch.lookahead for branch in branches)

    def init_state(self, batch_size: int) -> list[tuple[Any, Any]]:
        layers = zip(streaming(self.branches), streaming(self.norms), strict=True)
        return [(b.init_state(batch_size), n.init_state(batch_size)) for b, n in layers]

    def push(self, x: Tensor, state: list[tuple[Any, Any]], final: bool = False) -> Tensor:
        total: Tensor | None = None
        layers = zip(streaming(self.branches), streaming(self.norms), state, strict=True)
        for branch, norm, (branch_state, norm_state) in layers:
            y = branch.push(x, branch_state, final)
            total = norm.push(y if total is None else total + y, norm_state, final)
        assert total is not None
        return total / len(self.branches)


class Hificodec(Codec):
    """A HiFi-Codec: the encoder needs whole signals, decoding streams.

    Args:
        config: one of ``PRESETS``, or your own
        name: what ``Codes.codec`` will say
    """

    quantizer: GroupedResidualQuantizer
    drops_tail = True

    def __init__(self, config: HificodecConfig, name: str = "hificodec") -> None:
        super().__init__()
        self.config, self.name = config, name
        self.encoder: Sequential = encoder(config)
        self.decoder: Sequential = generator(config)
        self.quantizer = quantizer(config)
        self.sample_rate_hz, self.hop = config.sampling_rate, math.prod(config.upsample_rates)
        self.licence, self.weights_at = config.licence, config.hub

    def read(self, source: Weights) -> State:
        """Upstream saves the state dicts of its three nets side by side."""
        if isinstance(source, Mapping):
            return checkpoints.read_state(_flat(source))
        path = Path(source)
        if path.suffix == ".safetensors" or not path.is_file():
            return super().read(source)
        return checkpoints.state_of(_flat(torchfile.read(path)), str(path))

    def _layout(self, state: State) -> Callable[[str], str]:
        return upstream_name

    def _from_hub(self) -> str | os.PathLike[str]:
        file = _FILES.get(self.name)
        return checkpoints.from_hub(self.config.hub, file) if file else super()._from_hub()


def encoder(config: HificodecConfig) -> Sequential:
    """wav [B, 1, S] -> latents [B, D, floor(S / hop)]."""
    width = config.encoder_channels
    layers: list[StreamingModule] = [_conv("encoder.conv_pre", 1, width, 7, activation=NONE)]
    pairs = zip(config.upsample_rates[::-1], config.upsample_kernel_sizes[::-1], strict=True)
    for i, (rate, kernel) in enumerate(pairs):
        layers.append(_conv(f"encoder.ups.{i}", width, 2 * width, kernel, rate))
        width *= 2
        branches = _blocks(config, "encoder.resblocks.{}", width, i, reverse=True)
        norms = [GroupNorm(width, 1e-6, width // GROUP) for _ in branches]
        for j, norm in enumerate(norms):
            tag(norm, f"encoder.normalize.{i * len(norms) + j}")
        layers.append(NormalisedSum(branches, norms))
    last = Activation("leaky_relu", 0.01)
    layers.append(_conv("encoder.conv_post", width, width, 3, activation=last))
    return Sequential(*layers)


def generator(config: HificodecConfig) -> Sequential:
    """latents [B, D, T] -> wav [B, 1, hop * T]."""
    width = config.upsample_initial_channel
    layers: list[StreamingModule] = [
        _conv("generator.conv_pre", config.dimension, width, 7, activation=NONE)
    ]
    pairs = zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)
    for i, (rate, kernel) in enumerate(pairs):
        cut = (kernel - rate) // 2
        up = ConvTranspose1d(
            width, width // 2, kernel, rate, cut_left=cut, cut_right=cut, activation=LEAKY
        )
        width //= 2
        branches = _blocks(config, "generator.resblocks.{}", width, i)
        layers += [tag(up, f"generator.ups.{i}"), Sum(branches, divide=len(branches))]
    layers.append(_conv("generator.conv_post", width, 1, 7))
    return Sequential(*layers, Pointwise("tanh"))


def quantizer(config: HificodecConfig) -> GroupedResidualQuantizer:
    """The quantizer of a configuration, tagged."""
    groups = config.n_code_groups
    net = GroupedResidualQuantizer(LEVELS, groups, config.n_codes, config.dimension)
    for group, layer in enumerate(net.groups):
        tag(layer, f"quantizer.{{}}.{group}")
    return net


def _conv(
    path: str, c_in: int, c_out: int, kernel: int, stride: int = 1, activation: Activation = LEAKY
) -> Conv1d:
    pad = (kernel - stride) // 2
    conv = Conv1d(c_in, c_out, kernel, stride, left=pad, right=pad, activation=activation)
    return tag(conv, path)


def _blocks(
    config: HificodecConfig, path: str, channels: int, stage: int, reverse: bool = False
) -> list[ResBlock]:
    """The residual blocks of a stage, tagged; they are numbered through all stages."""
    shapes = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
    blocks = []
    for j, (kernel, dilations) in enumerate(reversed(shapes) if reverse else shapes):
        block = ResBlock(channels, kernel, dilations, False, second=config.resblock == "1")
        for name, conv in block.convolutions():
            tag(conv, f"{path.format(stage * len(shapes) + j)}.{name}")
        blocks.append(block)
    return blocks


def _flat(tree: Any) -> Any:
    """The entries of upstream's three state dicts as one."""
    nets = ("encoder", "quantizer", "generator")
    if not isinstance(tree, Mapping) or any(not isinstance(tree.get(n), Mapping) for n in nets):
        return tree
    return {f"{net}.{name}": value for net in nets for name, value in tree[net].items()}


def upstream_name(name: str) -> str:
    """The name in upstream's checkpoints: ``quantizer.LEVEL.GROUP`` is spelled out."""
    if not name.startswith("quantizer."):
        return name
    _, level, group = name.split(".")
    modules = "quantizer_modules" + (str(int(level) + 1) if int(level) else "")
    return f"quantizer.{modules}.{group}.embedding.weight"


# What upstream's nets read of its config.json, and what stands there for their training.
_DEFAULTS: dict[str, Any] = {
    "sampling_rate": 16000, "upsample_rates": (8, 5, 4, 2),
    "upsample_kernel_sizes": (16, 11, 8, 4), "upsample_initial_channel": 512, "resblock": "1",
    "resblock_kernel_sizes": (3, 7, 11), "n_code_groups": 2, "n_codes": 1024,
}  # fmt: skip
_TRAINING = {
    "adam_b1", "adam_b2", "batch_size", "codebook_loss_lambda", "commitment_loss_lambda",
    "dist_config", "fmax", "fmax_for_loss", "fmin", "hop_size", "learning_rate", "lr_decay",
    "n_fft", "num_freq", "num_gpus", "num_mels", "num_workers", "seed", "segment_size", "win_size",
}  # fmt: skip


def from_upstream(config: Mapping[str, Any]) -> HificodecConfig:
    """The configuration that a ``config.json`` of upstream's describes.

    Raises:
        WeightsError: a setting that is not known, or a value that no model can have
    """
    given = {name: value for name, value in config.items() if name not in _TRAINING}
    dilations = given.pop("resblock_dilation_sizes", [[1, 3, 5]] * 3)
    settings = checked("HiFi-Codec", given, _DEFAULTS)
    rows = dilations if isinstance(dilations, list | tuple) else [dilations]
    sizes = {f"resblock_dilation_sizes[{i}]": row for i, row in enumerate(rows)}
    sizes = checked("HiFi-Codec", sizes, dict.fromkeys(sizes, (1,)))
    return made(HificodecConfig, resblock_dilation_sizes=tuple(sizes.values()), **settings)


def build(name: str, config: HificodecConfig | None = None) -> Hificodec:
    """The net of a preset, or of a configuration of your own, without its weights."""
    return Hificodec(config or PRESETS[name], name)
