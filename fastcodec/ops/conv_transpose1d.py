"""``conv_transpose1d``: a transposed convolution, cut to the outputs that see all their inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcodec.ops._op import declare_schema, op, packed_vector, time_major
from fastcodec.ops.conv1d import activate, operands


def context(kernel: int, stride: int) -> int:
    """Frames before the current one that an output of a transposed convolution depends on."""
    return -(-kernel // stride) - 1


def _fake(
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
    frames = x.shape[2] - context(weight.shape[2], stride)
    return time_major(x, x.shape[0], weight.shape[1] * groups, frames * stride)


@op(fake=_fake, trainable=True)
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
    """Samples H * stride .. T * stride of the transposed convolution of activation(x), plus bias.

    H = ceil(k / stride) - 1 is the number of frames an output looks back. With H frames of zeros
    (or of what came before) put before x, the result is what the frames of x complete: the form in
    which pushes of any size give the samples of the whole.

    Args:
        x: [B, C_in, T] float, T > H
        weight: [C_in, C_out / groups, k] float
        bias: [C_out] float
        alpha, beta, activation, slope, precision: as in ``conv1d``
        packed: what ``conv_transpose1d_pack(weight, stride, groups, precision)`` gave

    Returns:
        [B, C_out, (T - H) * stride], time-major
    """
    frames = x.shape[2]
    x = activate(x, activation, alpha, beta, slope)
    x, weight = operands(x, weight, (weight.shape[0] // groups, weight.shape[1]), precision)
    y = F.conv_transpose1d(x, weight, None, stride, groups=groups)
    y = F.pad(y, (0, max(0, frames * stride - y.shape[2])))  # a kernel shorter than its stride
    y = y[..., context(weight.shape[2], stride) * stride : frames * stride]
    return y if bias is None else y + bias[:, None]


def conv_transpose1d_pack(
    weight: Tensor, stride: int = 1, groups: int = 1, precision: int = 0
) -> Tensor:
    """The CPU kernels' own copy of a weight: an opaque vector for ``conv_transpose1d(packed=)``."""
    pack = torch.ops.fastcodec.conv_transpose1d_pack
    packed: Tensor = pack(weight, stride, groups, precision)
    return packed


declare_schema(
    conv_transpose1d_pack, lambda weight, stride=1, groups=1, precision=0: packed_vector(weight)
)


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    none, elu, leaky, snake, silu = 0, 1, 2, 3, 5
    high, medium = 1, 2
    return [
        (r(2, 32, 9), r(32, 16, 4), r(16), None, None, None, 2, 1, elu, 0.0),
        (r(1, 13, 7), r(13, 5, 10), None, None, None, None, 5, 1, none, 0.0),
        (r(2, 64, 8), r(64, 1, 64), r(1), None, None, None, 16, 1, leaky, 0.3),
        (r(2, 32, 6), r(32, 4, 4), r(16), None, None, None, 2, 4, leaky, 0.3),
        (r(1, 16, 6), r(16, 8, 7), r(8), r(16), None, None, 3, 1, snake, 0.0),
        (r(1, 8, 3), r(8, 8, 2), r(8), None, None, None, 3, 1, none, 0.0),
        (r(1, 24, 5), r(24, 1, 4), None, None, None, None, 2, 24, silu, 0.0),
        (r(1, 12, 4), r(12, 5, 4), r(5), None, None, None, 2, 1, none, 0.0, high),
        (r(2, 34, 9), r(34, 17, 4), r(17), r(34), None, None, 2, 1, snake, 0.0, medium),
        (r(1, 13, 7), r(13, 5, 10), None, None, None, None, 5, 1, elu, 0.0, medium),
        (r(2, 32, 6), r(32, 4, 4), r(16), None, None, None, 2, 4, leaky, 0.3, medium),
    ]


conv_transpose1d.examples = _examples
