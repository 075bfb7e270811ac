"""``snake``: x + sin^2(alpha x) / alpha, and SnakeBeta (Ziyin et al. 2020, arXiv:2006.08195)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastcodec.ops._op import declare_schema, op, serves_native, triton_kernel
from fastcodec.ops.conv1d import ACTIVATIONS, activate


def _native_vjp(args: list[Any], grad: Tensor) -> tuple[Tensor | None, ...] | None:
    x, alpha, beta = args
    if serves_native("snake_backward", x):
        dx, d_alpha, d_beta = snake_backward(grad, x, alpha, beta)
    elif kernel := triton_kernel("snake_backward", x, grad, x, alpha, beta):
        dx, d_alpha, d_beta = kernel(grad, x, alpha, beta)
    else:
        return None
    return (dx, d_alpha + d_beta, None) if beta is None else (dx, d_alpha, d_beta)


def _alike(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Both dense and of one layout, that of x where it has one."""
    if x.transpose(1, 2).is_contiguous():
        return grad.transpose(1, 2).contiguous().transpose(1, 2), x
    return grad.contiguous(), x.contiguous()


@op(fake=lambda x, alpha, beta=None: torch.empty_like(x), trainable=True, native_vjp=_native_vjp)
def snake(x: Tensor, alpha: Tensor, beta: Tensor | None = None) -> Tensor:
    """x + sin^2(alpha x) / (beta + 1e-9), in the layout of x.

    Args:
        x: [B, C, T] float
        alpha: [C] float
        beta: [C] float; alpha where None. Both as used, no exponential is taken.
    """
    return activate(x, ACTIVATIONS["snake"], alpha, beta, 0.0)


def snake_backward(
    grad: Tensor, x: Tensor, alpha: Tensor, beta: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, alpha and beta, the latter two as if they were not the same where None."""
    dx, d_alpha, d_beta = torch.ops.fastcodec.snake_backward(*_alike(grad, x), alpha, beta)
    return dx, d_alpha, d_beta


def snake_out(x: Tensor, alpha: Tensor, beta: Tensor | None, out: Tensor) -> None:
    """``snake`` into memory that is there: fresh pages cost more than the arithmetic.

    Args:
        out: x itself, or a tensor of its own of the same shape and dense in the layout of x

    Raises:
        ValueError: where a gradient is wanted, which it cannot give
    """
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, alpha, beta, out)
    ):
        raise ValueError("snake_out: expected no tensor that requires grad; use snake")
    if serves_native("snake_out", x):
        torch.ops.fastcodec.snake_out(x, alpha, beta, out)
    else:
        out.copy_(snake(x, alpha, beta))


declare_schema(
    snake_backward,
    lambda grad, x, alpha, beta=None: (
        torch.empty_like(x),
        torch.empty_like(alpha),
        torch.empty_like(alpha),
    ),
)
declare_schema(snake_out, lambda x, alpha, beta, out: None, mutates=("out",))


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)
    x, alpha = torch.randn(2, 37, 45, generator=g), torch.rand(37, generator=g) + 0.5
    rows = torch.randn(1, 70, 3, generator=g).mul(40).transpose(1, 2).contiguous().transpose(1, 2)
    return [
        (x, alpha, None),
        (x.transpose(1, 2).contiguous().transpose(1, 2), alpha, alpha + 1),
        (rows, torch.rand(70, generator=g) + 0.5, None),
        (torch.randn(3, 1, 5, generator=g), torch.ones(1), None),
    ]


snake.examples = _examples
