"""``snake``: x + sin^2(alpha x) / alpha, and SnakeBeta (Ziyin et al. 2020, arXiv:2006.08195)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import op
from fastcodec.ops.conv1d import ACTIVATIONS, activate


@op(fake=lambda x, alpha, beta=None: torch.empty_like(x), trainable=True)
def snake(x: Tensor, alpha: Tensor, beta: Tensor | None = None) -> Tensor:
    """x + sin^2(alpha x) / (beta + 1e-9), in the layout of x.

    Args:
        x: [B, C, T] float
        alpha: [C] float
        beta: [C] float; alpha where None. Both as used, no exponential is taken.
    """
    return activate(x, ACTIVATIONS["snake"], alpha, beta, 0.0)


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
