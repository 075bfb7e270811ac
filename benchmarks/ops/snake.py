"""``snake`` at the sizes of DAC 44.1 kHz: its last block, a middle one, one that fits the cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.floors import Work
from benchmarks.gates import relative_l2
from benchmarks.ops._eager import eager, generator, n_bytes, time_major
from benchmarks.runner import Bench, Case, Row
from fastcodec import ops

# name, C, samples of wav a frame; 0: 0.01 s of the first size
SHAPES = (("last_block", 96, 1), ("middle_block", 384, 16), ("in_cache", 96, 0))


def rows(bench: Bench) -> Iterator[Row]:
    """One case a size and layout."""
    for name, channels, hop in SHAPES:
        frames = round(44100 * bench.seconds) // hop if hop else 441
        for layout in ("contiguous", "time_major"):
            if bench.wanted(f"snake.{name}.{layout}"):
                yield from bench.measure(_case(f"snake.{name}.{layout}", channels, frames, layout))


def _case(name: str, channels: int, frames: int, layout: str) -> Case:
    draw = generator()
    x, alpha = draw(1, channels, frames), draw(channels).abs() + 0.1
    given = x if layout == "contiguous" else time_major(x)
    column, inverse = alpha[:, None], 1 / (alpha[:, None] + 1e-9)

    def formula(x: Tensor) -> Tensor:
        return x + torch.sin(column * x).square() * inverse

    def in_place(x: Tensor) -> Tensor:
        y = torch.mul(x, column)
        return y.sin_().square_().mul_(inverse).add_(x)

    return Case(
        name,
        {"B": 1, "C": channels, "T": frames},
        lambda: ops.snake(given, alpha),
        eager({"formula": lambda: formula(given), "in place": lambda: in_place(given)}),
        relative_l2,
        Work(n_bytes=2 * n_bytes(x)),
        lambda: ops.snake.reference(x.double(), alpha.double()),
    )
