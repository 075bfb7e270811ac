"""AudioDec's vocoders v0 to v3: causal HiFi-GAN generators from quantised latents to samples.

    (z - mean) / scale -> conv k7 -> 4 x [transposed conv, fusion] -> conv k7 -> tanh, a leaky ReLU
    before each convolution but the first

The fusion of v0 is HiFi-GAN's: the mean of three residual blocks of kernels 3, 7 and 11. That of v1
and v3 (kernel 11) and of v2 (kernel 3) is one residual block over three copies of the channels, in
three groups, and a 1x1 convolution back to their number.

Sources: Wu et al. 2023 (arXiv:2305.16608), HiFi-GAN (arXiv:2010.05646), and facts of AudioDec's
models/vocoder@e451e625.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from fastcodec.codecs.keys import tag
from fastcodec.codecs.settings import checked, made
from fastcodec.errors import WeightsError, shown
from fastcodec.layers.conv import NONE, Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.hifigan import ResBlock
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.streaming import Sequential, StreamingModule, Sum

# torch's default slope, not the net's: upstream leaves it out in this place.
LAST_LEAKY = Activation("leaky_relu", 0.01)
WHAT = "AudioDec vocoder"
# Upstream's arguments and defaults, but for those that are no numbers or lists of them.
_SETTINGS = {
    "in_channels": 80,
    "out_channels": 1,
    "channels": 512,
    "kernel_size": 7,
    "upsample_scales": (8, 8, 2, 2),
    "upsample_kernel_sizes": (16, 16, 4, 4),
    "resblock_kernel_sizes": (3, 7, 11),
    "groups": 1,
    "bias": True,
    "use_additional_convs": True,
    "nonlinear_activation": "LeakyReLU",
    "use_weight_norm": True,
    "stats": "",
}
_FIXED = ("out_channels", "bias", "use_additional_convs", "nonlinear_activation")


@dataclass(frozen=True)
class VocoderConfig:
    """Upstream's generator arguments under upstream's names; ``slope``: of its leaky ReLU.

    A single residual block with several ``groups`` means the fusion by groups.
    """

    in_channels: int = 64
    channels: int = 512
    kernel_size: int = 7
    upsample_scales: tuple[int, ...] = (5, 5, 4, 3)
    resblock_kernel_sizes: tuple[int, ...] = (11,)
    resblock_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),)
    groups: int = 3
    slope: float = 0.1

    def __post_init__(self) -> None:
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilations):
            raise ValueError(
                f"VocoderConfig: one tuple of dilations a kernel, got {self.resblock_kernel_sizes} "
                f"and {self.resblock_dilations}"
            )

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return prod(self.upsample_scales)


VOCODERS = {
    "v0": VocoderConfig(
        resblock_kernel_sizes=(3, 7, 11), resblock_dilations=((1, 3, 5),) * 3, groups=1
    ),
    "v1": VocoderConfig(),
    "v2": VocoderConfig(resblock_kernel_sizes=(3,)),
    "v3": VocoderConfig(),  # as v1, trained with other discriminators
}


def build(config: VocoderConfig) -> Sequential:
    """latents [B, D, T] -> wav [B, 1, S], S / T = product of the scales."""
    leaky = Activation("leaky_relu", config.slope)
    width = config.channels
    layers: list[StreamingModule] = [
        tag(Normalise(config.in_channels), "stats"),
        _conv("input_conv.conv", config.in_channels, width, config.kernel_size),
    ]
    for i, scale in enumerate(config.upsample_scales):
        width //= 2
        upsample = ConvTranspose1d(
            2 * width, width, 2 * scale, scale, cut_right=scale, activation=leaky
        )
        layers += [tag(upsample, f"upsamples.{i}.deconv"), _fusion(config, width, f"blocks.{i}")]
    layers += [
        _conv("output_conv.conv", width, 1, config.kernel_size, LAST_LEAKY),
        Pointwise("tanh"),
    ]
    return Sequential(*layers)


def upstream_name(name: str) -> str:
    """How upstream's checkpoint spells a name of our tags: the statistics stand at its top."""
    return name.removeprefix("stats.")


def from_upstream(config: Mapping[str, Any]) -> VocoderConfig:
    """The configuration that upstream's config.yml of a vocoder describes.

    Raises:
        WeightsError: names what is unknown, misshapen or not built
    """
    given = generator_params(config, WHAT)
    dilations = given.pop("resblock_dilations", ((1, 3, 5),) * 3)
    leaky = given.pop("nonlinear_activation_params", {"negative_slope": 0.1})
    settings = fixed(WHAT, checked(WHAT, given, _SETTINGS), _SETTINGS, _FIXED)
    if not settings.pop("stats"):
        raise WeightsError(f"{WHAT}: only generators with stats, to normalise by, are built")
    if settings.pop("upsample_kernel_sizes") != tuple(2 * s for s in settings["upsample_scales"]):
        raise WeightsError(f"{WHAT}: upsample_kernel_sizes must be twice the upsample_scales")
    if not isinstance(dilations, list | tuple) or not isinstance(leaky, Mapping):
        raise WeightsError(
            f"{WHAT}: resblock_dilations must be a list of lists, got {shown(dilations)}, and "
            f"nonlinear_activation_params a mapping, got {shown(leaky)}"
        )
    rows = [
        checked(WHAT, {"resblock_dilations": row}, {"resblock_dilations": ()}) for row in dilations
    ]
    settings["resblock_dilations"] = tuple(row["resblock_dilations"] for row in rows)
    slope = checked(f"{WHAT}: nonlinear_activation_params", leaky, {"negative_slope": 0.01})
    return made(VocoderConfig, **settings, slope=slope["negative_slope"])


def generator_params(config: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A copy of the generator's arguments in upstream's config.yml."""
    given = config.get("generator_params")
    if not isinstance(given, Mapping):
        raise WeightsError(f"{what}: its config.yml has no generator_params, only: {list(config)}")
    return dict(given)


def fixed(
    what: str, settings: dict[str, Any], defaults: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """The settings without those that must have their default; WeightsError where one has not."""
    for name in names:
        if (got := settings.pop(name)) != defaults[name]:
            raise WeightsError(f"{what}: only {name}: {defaults[name]} is built, got {got}")
    settings.pop("use_weight_norm")  # a checkpoint's entries tell
    return settings


class Normalise(StreamingModule):
    """(x - mean) / scale, each [C] and from the checkpoint."""

    mean: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    def push(self, x: Tensor, state: None, final: bool = False) -> Tensor:
        return (x - self.mean[:, None]) / self.scale[:, None]


class Repeat(StreamingModule):
    """All channels ``times`` times over, one copy after the other."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def push(self, x: Tensor, state: None, final: bool = False) -> Tensor:
        return torch.cat([x.transpose(1, 2)] * self.times, dim=2).transpose(1, 2)


def _fusion(config: VocoderConfig, width: int, path: str) -> StreamingModule:
    kernels, leaky = config.resblock_kernel_sizes, Activation("leaky_relu", config.slope)
    if len(kernels) == 1 and config.groups > 1:
        wide = config.groups * width
        out = tag(Conv1d(wide, width, 1, bias=False), f"{path}.conv_out")
        dilations = config.resblock_dilations[0]
        block = ResBlock(wide, kernels[0], dilations, True, config.groups, activation=leaky)
        return Sequential(Repeat(config.groups), _tagged(block, path), out)
    blocks = [
        _tagged(ResBlock(width, k, d, True, config.groups, activation=leaky), f"{path}.blocks.{b}")
        for b, (k, d) in enumerate(zip(kernels, config.resblock_dilations, strict=True))
    ]
    return Sum(blocks, divide=len(blocks))


def _tagged(block: ResBlock, path: str) -> ResBlock:
    for name, conv in block.convolutions():
        tag(conv, f"{path}.{name}.conv")
    return block


def _conv(path: str, c_in: int, c_out: int, kernel: int, activation: Activation = NONE) -> Conv1d:
    return tag(Conv1d(c_in, c_out, kernel, left=kernel - 1, activation=activation), path)
