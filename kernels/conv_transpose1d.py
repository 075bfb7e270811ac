"""``conv_transpose1d`` in Triton: a dense convolution a phase of the stride; see ``_conv.py``."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fastcodec.kernels._conv import Shape, convolve, is_rounded, offline_of, refusal
from fastcodec.kernels._tools import Offline
from fastcodec.kernels.activation import KINDS


def context(kernel: int, stride: int) -> int:
    """Frames before the current one that an output depends on."""
    return -(-kernel // stride) - 1


def shape_of(
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    groups: int = 1,
    activation: int = 0,
    precision: int = 0,
) -> tuple[Shape, int]:
    """The convolution as the kernels see it, and the frames of a phase."""
    all_channels, width, taps = weight.shape
    channels, frames = all_channels // groups, x.shape[2] - context(taps, stride)
    rounded = is_rounded(x, channels, width, precision)
    rows = x.shape[0] * frames
    return Shape(rows, channels, width, taps, groups, stride, 1, activation, rounded), frames


def why_not(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
    packed: Tensor | None = None,
    stride: int = 1,
    groups: int = 1,
    activation: int = 0,
    slope: float = 0.0,
    precision: int = 0,
) -> str | None:
    shape, _ = shape_of(x, weight, stride, groups, activation, precision)
    return refusal(shape, x, weight, bias, alpha, beta)


def conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
    packed: Tensor | None = None,
    stride: int = 1,
    groups: int = 1,
    activation: int = 0,
    slope: float = 0.0,
    precision: int = 0,
) -> Tensor:
    """See ``fastcodec.ops.conv_transpose1d``; ``packed`` is the CPU's."""
    shape, frames = shape_of(x, weight, stride, groups, activation, precision)
    lead = context(weight.shape[2], stride)  # the first complete frame; other taps lie before it
    return convolve(
        "conv_transpose1d", x, weight, bias, None, alpha, beta, shape, frames, lead, -1, slope
    )


# (channels, width, kernel, stride, groups, activation) of layers of EnCodec 24 kHz (elu),
# DAC 44.1 kHz (snake) and Mimi (depthwise, from 12.5 to 25 Hz).
LAYERS = [
    (512, 256, 16, 8, 1, "elu"),
    (64, 32, 4, 2, 1, "elu"),
    (1536, 768, 16, 8, 1, "snake"),
    (192, 96, 4, 2, 1, "snake"),
    (1, 1, 4, 2, 512, "none"),
]


def offline() -> list[Offline]:
    """The layers, long and short, in float32 and with bfloat16 products."""

    def shapes() -> Iterator[tuple[Shape, bool]]:
        for channels, width, kernel, stride, groups, kind in LAYERS:
            for rounded in {False, channels % 2 == 0 and width > 2}:
                for rows in (1, 100_000):
                    sizes = (rows, channels, width, kernel, groups, stride, 1)
                    yield Shape(*sizes, KINDS.index(kind), rounded), False

    return offline_of(shapes())
