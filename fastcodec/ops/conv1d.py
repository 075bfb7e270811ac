"""``conv1d``: a convolution without padding, its input's activation before and a sum after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcodec.ops._op import declare_schema, op, packed_vector, time_major

ACTIVATIONS = {
    "none": 0,
    "elu": 1,
    "leaky_relu": 2,
    "snake": 3,
    "gelu": 4,
    "silu": 5,
    "tanh": 6,
    "sigmoid": 7,
}
# What the products of a convolution are made of; its sums are float32 in all three. "highest" is
# float32, "medium" bfloat16; "high", float32's accuracy but for about 1e-5, is float32 too: three
# products of bfloat16 pairs are faster only where they take a sixth of the time, as on AMX.
PRECISIONS = {"highest": 0, "high": 1, "medium": 2}


def _gelu(x: Tensor) -> Tensor:
    """x Phi(x); torch's own loses the negative tail in float32, and is NaN at infinity."""
    return 0.5 * x * torch.erfc(-(0.5**0.5) * x)


_PLAIN: dict[int, Callable[[Tensor], Tensor]] = {
    4: _gelu,
    5: F.silu,
    6: torch.tanh,
    7: torch.sigmoid,
}


def activate(
    x: Tensor, activation: int, alpha: Tensor | None, beta: Tensor | None, slope: float
) -> Tensor:
    """The prologue of a convolution; see ``conv1d``."""
    if activation == ACTIVATIONS["elu"]:
        return F.elu(x)
    if activation == ACTIVATIONS["leaky_relu"]:
        return F.leaky_relu(x, slope)
    if activation == ACTIVATIONS["snake"]:
        if alpha is None:
            raise ValueError("conv1d: activation 'snake' needs alpha [C]")
        a = alpha[:, None]
        return x + torch.sin(a * x) ** 2 / ((a if beta is None else beta[:, None]) + 1e-9)
    if activation in _PLAIN:
        return _PLAIN[activation](x)
    return x


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.to(torch.bfloat16).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def rounded(x: Tensor) -> Tensor:
    """x as bfloat16 has it, ties to even, in its own type; gradients pass as if it were x."""
    y: Tensor = _Rounded.apply(x)
    return y


def operands(
    x: Tensor, weight: Tensor, channels: tuple[int, int], precision: int
) -> tuple[Tensor, Tensor]:
    """What a convolution multiplies: its activated input and its weight, rounded or not.

    Medium rounds where that saves time. With one channel a group, or one or two results, as in a
    net's first and last layer, it saves none, and rounding before the last layer alone may cost
    10 dB: these, and groups of any odd number of channels, stay float32.

    Args:
        channels: of the input and of the output, a group
    """
    if precision not in PRECISIONS.values():
        raise ValueError(f"conv1d: precision must be a value of {PRECISIONS}, got {precision}")
    if precision != PRECISIONS["medium"] or channels[0] % 2 or channels[1] <= 2:
        return x, weight
    return rounded(x), rounded(weight)


def _fake(
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
    frames = (x.shape[2] - (weight.shape[2] - 1) * dilation - 1) // stride + 1
    return time_major(x, x.shape[0], weight.shape[0], frames)


@op(fake=_fake, trainable=True)
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
    """conv(activation(x)) + bias + residual, [B, C_out, T] time-major.

    Args:
        x: [B, C_in, S] float
        weight: [C_out, C_in / groups, k] float
        bias: [C_out] float
        residual: [B, C_out, T] float, added to the result
        alpha, beta: [C_in] float, parameters of snake (beta: alpha where None)
        packed: what ``conv1d_pack(weight, groups, precision)`` gave; saves the repacking of the
            weight a call
        activation: one of ``ACTIVATIONS``, applied to x; "gelu" is the exact one, by erf
        slope: of leaky ReLU for negative x
        precision: one of ``PRECISIONS``. Medium rounds activation(x) and weight to bfloat16, ties
            to even (see ``operands`` for the exceptions), and is float32 from there on; the order
            of its sums, and whether subnormal numbers count as zero, depends on the processor.

    Returns:
        T = (S - (k - 1) * dilation - 1) // stride + 1 frames
    """
    x = activate(x, activation, alpha, beta, slope)
    channels = weight.shape[1], weight.shape[0] // groups
    x, weight = operands(x, weight, channels, precision)
    y = F.conv1d(x, weight, bias, stride, 0, dilation, groups)
    return y if residual is None else y + residual


def conv1d_pack(weight: Tensor, groups: int = 1, precision: int = 0) -> Tensor:
    """The CPU kernels' own copy of a weight: an opaque vector for ``conv1d(packed=)``."""
    packed: Tensor = torch.ops.fastcodec.conv1d_pack(weight, groups, precision)
    return packed


declare_schema(conv1d_pack, lambda weight, groups=1, precision=0: packed_vector(weight))


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    none, elu, leaky, snake, gelu = 0, 1, 2, 3, 4
    high, medium = 1, 2
    return [
        (r(2, 1, 50), r(32, 1, 7), r(32), None, None, None, None, 1, 1, 1, none, 0.0),
        (r(1, 32, 19), r(16, 32, 3), r(16), None, None, None, None, 1, 1, 1, elu, 0.0),
        (r(3, 5, 41), r(7, 5, 4), None, r(3, 7, 19), None, None, None, 2, 1, 1, elu, 0.0),
        (r(2, 33, 40), r(66, 33, 7), r(66), None, r(33), None, None, 1, 3, 1, snake, 0.0),
        (r(2, 33, 40), r(1, 33, 7), r(1), None, r(33), r(33).abs(), None, 1, 1, 1, snake, 0.0),
        (r(1, 64, 30), r(64, 1, 3), r(64), None, None, None, None, 1, 9, 64, leaky, 0.3),
        (r(2, 24, 30), r(36, 8, 4), r(36), None, None, None, None, 2, 1, 3, leaky, 0.3),
        (r(2, 32, 90), r(2, 32, 7), r(2), r(2, 2, 84), None, None, None, 1, 1, 1, elu, 0.0),
        (r(1, 96, 1), r(40, 96, 1), r(40), None, None, None, None, 1, 1, 1, none, 0.0),
        (r(1, 1, 300), r(64, 1, 64), r(64), None, None, None, None, 16, 1, 1, none, 0.0),
        (r(2, 64, 5), r(24, 64, 1), None, r(2, 24, 5), None, None, None, 1, 1, 1, gelu, 0.0),
        (r(1, 8, 9), r(4, 8, 3), r(4), None, None, None, None, 1, 1, 1, none, 0.0, high),
        (r(2, 34, 40), r(66, 34, 7), r(66), None, r(34), None, None, 1, 3, 1, snake, 0.0, medium),
        (r(3, 6, 41), r(7, 6, 4), None, r(3, 7, 19), None, None, None, 2, 1, 1, elu, 0.0, medium),
        (r(2, 5, 30), r(18, 5, 4), r(18), None, None, None, None, 1, 1, 1, none, 0.0, medium),
        (r(2, 24, 30), r(36, 8, 4), r(36), None, None, None, None, 2, 1, 3, leaky, 0.3, medium),
        (r(1, 64, 30), r(64, 1, 3), r(64), None, None, None, None, 1, 9, 64, elu, 0.0, medium),
        (r(2, 32, 90), r(2, 32, 7), r(2), None, None, None, None, 1, 1, 1, elu, 0.0, medium),
    ]


conv1d.examples = _examples
