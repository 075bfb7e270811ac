"""``residual_unit``: x + conv1(act(conv_k(act(x)))), the block that audio codecs are built of."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import op, time_major
from fastcodec.ops.conv1d import ACTIVATIONS, PRECISIONS, conv1d

# What the CUDA kernel has code for: the hidden channels that a warp keeps in registers, the
# channels and the span whose tile fits the shared memory of every GPU, and the activations.
CUDA_HIDDEN = (32, 64, 96, 128, 192)
CUDA_CHANNELS = 256
CUDA_CONTEXT = 64
CUDA_ACTIVATIONS = ("none", "elu", "leaky_relu", "snake")


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    alpha: Tensor | None,
    point_weight: Tensor,
    point_bias: Tensor | None,
    point_alpha: Tensor | None,
    dilation: int = 1,
    groups: int = 1,
    left: int = 0,
    activation: int = 0,
    slope: float = 0.0,
    precision: int = 0,
) -> Tensor:
    frames = x.shape[2] - (weight.shape[2] - 1) * dilation
    return time_major(x, x.shape[0], point_weight.shape[0], frames)


@op(fake=_fake, trainable=True)
def residual_unit(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    alpha: Tensor | None,
    point_weight: Tensor,
    point_bias: Tensor | None,
    point_alpha: Tensor | None,
    dilation: int = 1,
    groups: int = 1,
    left: int = 0,
    activation: int = 0,
    slope: float = 0.0,
    precision: int = 0,
) -> Tensor:
    """x[..., left : left + T] + conv1(act(conv_k(act(x)))), [B, C, T] time-major.

    Args:
        x: [B, C, S] float, the context of the first convolution included
        weight: [H, C / groups, k] float, of the first, dilated convolution
        bias: [H] float
        alpha: [C] float, of the first snake
        point_weight: [C, H, 1] float, of the second convolution
        point_bias: [C] float
        point_alpha: [H] float, of the second snake
        groups: of the first convolution
        left: the frame of the first window that its result is added to, 0 to S - T
        activation: of both inputs, one of ``ACTIVATIONS``
        slope: of leaky ReLU for negative x
        precision: one of ``PRECISIONS``, of both convolutions; see ``conv1d``

    Returns:
        T = S - (k - 1) * dilation frames
    """
    y = conv1d.reference(
        x, weight, bias, None, alpha, None, None, 1, dilation, groups, activation, slope, precision
    )
    skip = x[..., left : left + y.shape[2]]
    rest = (point_alpha, None, None, 1, 1, 1, activation, slope, precision)
    unit: Tensor = conv1d.reference(y, point_weight, point_bias, skip, *rest)
    return unit


def _cuda_why_not(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    alpha: Tensor | None,
    point_weight: Tensor,
    point_bias: Tensor | None,
    point_alpha: Tensor | None,
    dilation: int = 1,
    groups: int = 1,
    left: int = 0,
    activation: int = 0,
    slope: float = 0.0,
    precision: int = 0,
) -> str | None:
    (hidden, _, taps), channels = weight.shape, x.shape[1]
    if groups != 1:
        return f"its first convolution is not grouped, got {groups} groups"
    if channels % 16 or channels > CUDA_CHANNELS:
        return f"it takes multiples of 16 channels up to {CUDA_CHANNELS}, got {channels}"
    if hidden not in CUDA_HIDDEN:
        return f"it takes {CUDA_HIDDEN} hidden channels, got {hidden}"
    if (taps - 1) * dilation > CUDA_CONTEXT:
        return f"its window spans up to {CUDA_CONTEXT + 1} frames, got {taps} dilated by {dilation}"
    if activation not in (ACTIVATIONS[name] for name in CUDA_ACTIVATIONS):
        return f"its activation is one of {CUDA_ACTIVATIONS}, got number {activation}"
    if any(t is not None and t.dtype is not torch.float32 for t in (weight, point_weight)):
        return f"it takes float32 weights, got {weight.dtype} and {point_weight.dtype}"
    return None


residual_unit.cuda_why_not = _cuda_why_not


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)
    elu, leaky, snake = (ACTIVATIONS[name] for name in ("elu", "leaky_relu", "snake"))

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    def unit(
        batch: int, c: int, hidden: int, k: int, dilation: int, kind: int, frames: int, *last: int
    ) -> tuple[object, ...]:
        """Weights of the size that keeps the signal's; ``last``: the precision."""
        context = (k - 1) * dilation
        first = (r(hidden, c, k) / (c * k) ** 0.5, r(hidden))
        second = (r(c, hidden, 1) / hidden**0.5, r(c))
        alphas = (r(c).abs() + 0.2, r(hidden).abs() + 0.2) if kind == snake else (None, None)
        rest = (dilation, 1, context // 2, kind, 0.2, *last)
        x = r(batch, c, frames + context)
        return (x, *first, alphas[0], *second, alphas[1], *rest)

    medium = PRECISIONS["medium"]
    return [
        unit(2, 32, 32, 7, 3, snake, 17),
        unit(1, 64, 32, 3, 1, elu, 9),
        unit(2, 5, 3, 4, 2, leaky, 11),
        unit(2, 16, 32, 7, 1, snake, 13, medium),
    ]


residual_unit.examples = _examples
