"""``conv1d``: a convolution without padding, its input's activation before and a sum after it."""

from __future__ import annotations

from collections.abc import Callable

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
) -> Tensor:
    """conv(activation(x)) + bias + residual, [B, C_out, T] time-major.

    Args:
        x: [B, C_in, S] float
        weight: [C_out, C_in / groups, k] float
        bias: [C_out] float
        residual: [B, C_out, T] float, added to the result
        alpha, beta: [C_in] float, parameters of snake (beta: alpha where None)
        packed: what ``conv1d_pack(weight, groups)`` gave; saves the repacking of the weight a call
        activation: one of ``ACTIVATIONS``, applied to x; "gelu" is the exact one, by erf
        slope: of leaky ReLU for negative x

    Returns:
        T = (S - (k - 1) * dilation - 1) // stride + 1 frames
    """
    y = F.conv1d(
        activate(x, activation, alpha, beta, slope), weight, bias, stride, 0, dilation, groups
    )
    return y if residual is None else y + residual


def conv1d_pack(weight: Tensor, groups: int = 1) -> Tensor:
    """The CPU kernels' own copy of a weight: an opaque vector for ``conv1d(packed=)``."""
    packed: Tensor = torch.ops.fastcodec.conv1d_pack(weight, groups)
    return packed


declare_schema(conv1d_pack, lambda weight, groups=1: packed_vector(weight))


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    none, elu, leaky, snake, gelu = 0, 1, 2, 3, 4
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
    ]


conv1d.examples = _examples
