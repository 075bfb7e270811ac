"""Arguments for ``lstm``; a file that a process of its own can import without the tests."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops import lstm

MEDIUM = 2
SHAPES = [(1, 1, 1, 1), (2, 1, 17, 3), (3, 2, 8, 1), (1, 3, 33, 20), (9, 2, 16, 5), (1, 2, 64, 40)]


def arguments(batch: int, layers: int, width: int, frames: int, scale: float = 1.0) -> list[Tensor]:
    g = torch.Generator().manual_seed(width)

    def r(*shape: int) -> Tensor:
        return scale * torch.randn(*shape, generator=g)

    state = [r(layers, batch, width), r(layers, batch, width)]
    weights = [width**-0.5 * r(layers, 4 * width, width) for _ in range(2)]
    return [r(batch, width, frames), *state, *weights, r(layers, 4 * width), r(layers, 4 * width)]


def medium(args: list[Tensor], skip: bool = True) -> tuple[Tensor, ...]:
    results: tuple[Tensor, ...] = lstm(*args, None, skip, MEDIUM)
    return results
