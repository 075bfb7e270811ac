"""``conv1d`` in Triton: implicit GEMM over time-major memory; see ``_conv.py``."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fastcodec.kernels._conv import Shape, convolve, is_rounded, offline_of, refusal
from fastcodec.kernels._tools import Offline
from fastcodec.kernels.activation import KINDS


def shape_of(
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: int = 0,
    precision: int = 0,
) -> tuple[Shape, int]:
    """The convolution as the kernels see it, and its frames."""
    columns, channels, taps = weight.shape
    frames = (x.shape[2] - (taps - 1) * dilation - 1) // stride + 1
    width = columns // groups
    rounded = is_rounded(x, channels, width, precision)
    rows = x.shape[0] * frames
    return Shape(rows, channels, width, taps, groups, 1, stride, activation, rounded), frames


def why_not(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
    packed: Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: int = 0,
    slope: float = 0.0,
    precision: int = 0,
) -> str | None:
    shape, _ = shape_of(x, weight, stride, dilation, groups, activation, precision)
    return refusal(shape, x, weight, bias, residual, alpha, beta)


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
    packed: Tensor | None = None,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: int = 0,
    slope: float = 0.0,
    precision: int = 0,
) -> Tensor:
    """See ``fastcodec.ops.conv1d``; ``packed`` is the CPU's."""
    shape, frames = shape_of(x, weight, stride, dilation, groups, activation, precision)
    return convolve(
        "conv1d", x, weight, bias, residual, alpha, beta, shape, frames, 0, dilation, slope
    )


# (channels, width, kernel, stride, groups, activation, residual) of layers of EnCodec 24 kHz (elu),
# DAC 44.1 kHz (snake), Mimi (elu, gelu) and, depthwise, SNAC.
LAYERS = [
    (1, 32, 7, 1, 1, "none", False),
    (32, 16, 3, 1, 1, "elu", False),
    (16, 32, 1, 1, 1, "elu", True),
    (32, 64, 4, 2, 1, "elu", False),
    (256, 512, 16, 8, 1, "elu", False),
    (512, 128, 7, 1, 1, "elu", False),
    (32, 1, 7, 1, 1, "elu", False),
    (1, 64, 7, 1, 1, "none", False),
    (64, 64, 7, 1, 1, "snake", False),
    (64, 128, 4, 2, 1, "snake", False),
    (96, 96, 7, 1, 1, "snake", False),
    (96, 96, 1, 1, 1, "snake", True),
    (768, 768, 7, 1, 1, "snake", False),
    (768, 768, 1, 1, 1, "snake", True),
    (1024, 1536, 7, 1, 1, "none", False),
    (96, 1, 7, 1, 1, "snake", False),
    (512, 512, 4, 2, 1, "none", False),
    (2048, 512, 1, 1, 1, "gelu", True),
    (48, 48, 1, 1, 1, "snake", True),
    (1, 1, 7, 1, 768, "snake", False),
]


def offline() -> list[Offline]:
    """The layers, long and short, in float32 and with bfloat16 products."""

    def shapes() -> Iterator[tuple[Shape, bool]]:
        for channels, width, kernel, stride, groups, kind, residual in LAYERS:
            for rounded in {False, channels % 2 == 0 and width > 2}:
                for rows in (1, 100_000):
                    sizes = (rows, channels, width, kernel, groups, 1, stride)
                    yield Shape(*sizes, KINDS.index(kind), rounded), residual

    return offline_of(shapes())
