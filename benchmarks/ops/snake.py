"""``snake`` at the sizes of DAC 44.1 kHz: its last block, a middle one, one that fits the cache.

Into memory that is there (``out``), as in the layers of a net, or into a new tensor, whose pages
the system has to make first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.floors import Work
from benchmarks.gates import relative_l2, worst
from benchmarks.machine import package
from benchmarks.ops._eager import eager, generator, n_bytes, time_major
from benchmarks.runner import Bench, Case, Peer, Row
from fastcodec import ops
from fastcodec.ops.snake import snake_backward

# name, C, samples of wav a frame; 0: 0.01 s of the first size
SHAPES = (("last_block", 96, 1), ("middle_block", 384, 16), ("in_cache", 96, 0))


def rows(bench: Bench) -> Iterator[Row]:
    """One case a size, layout, and way to give the result."""
    for name, channels, hop in SHAPES:
        frames = round(44100 * bench.seconds) // hop if hop else 441
        for layout in ("contiguous", "time_major"):
            for suffix in ("", ".out"):
                full = f"snake.{name}.{layout}{suffix}"
                if bench.wanted(full):
                    yield from bench.measure(_case(full, channels, frames, layout, suffix != ""))
    for layout in ("contiguous", "time_major"):
        if bench.wanted(f"snake.backward.{layout}"):
            frames = round(44100 * bench.seconds)
            yield from bench.measure(_backward(f"snake.backward.{layout}", 96, frames, layout))


def _case(name: str, channels: int, frames: int, layout: str, into: bool) -> Case:
    draw = generator()
    x, alpha = draw(1, channels, frames), draw(channels).abs() + 0.1
    given = x if layout == "contiguous" else time_major(x)
    column, inverse = alpha[:, None], 1 / (alpha[:, None] + 1e-9)

    def formula(x: Tensor) -> Tensor:
        return x + torch.sin(column * x).square() * inverse

    def in_place(x: Tensor) -> Tensor:
        y = torch.mul(x, column)
        return y.sin_().square_().mul_(inverse).add_(x)

    out = torch.empty_like(given)

    def ours_into() -> Tensor:
        ops.snake_out(given, alpha, None, out)
        return out

    def eager_into() -> Tensor:
        y = torch.mul(given, column, out=out)
        return y.sin_().square_().mul_(inverse).add_(given)

    compiled = torch.compile(formula)
    compiled_into = torch.compile(lambda x, y: y.copy_(formula(x)))
    variants = {"formula": lambda: formula(given), "in place": lambda: in_place(given)}
    return Case(
        name,
        {"B": 1, "C": channels, "T": frames},
        ours_into if into else lambda: ops.snake(given, alpha),
        [
            *eager({"given memory": eager_into} if into else variants),
            _compiled({"formula": lambda: compiled_into(given, out) if into else compiled(given)}),
        ],
        relative_l2,
        Work(n_bytes=2 * n_bytes(x)),
        lambda: ops.snake.reference(x.double(), alpha.double()),
    )


def _backward(name: str, channels: int, frames: int, layout: str) -> Case:
    """Of x and alpha, the forward pass aside: x and the gradient read, a gradient written."""
    draw = generator()
    x, grad, alpha = draw(1, channels, frames), draw(1, channels, frames), draw(channels).abs()
    alpha += 0.1
    x, grad = (t if layout == "contiguous" else time_major(t) for t in (x, grad))

    def pieces(x: Tensor, alpha: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        column = alpha[:, None]
        angle, inverse = column * x, 1 / (column + 1e-9)
        double = torch.sin(2 * angle)
        d_alpha = (double * x - torch.sin(angle).square() * inverse) * inverse * grad
        return grad * (1 + column * inverse * double), d_alpha.sum(dim=(0, 2))

    def ours() -> tuple[Tensor, Tensor]:
        dx, of_alpha, of_beta = snake_backward(grad, x, alpha)
        return dx, of_alpha + of_beta

    compiled = torch.compile(pieces)
    return Case(
        name,
        {"B": 1, "C": channels, "T": frames},
        ours,
        [
            *eager({"formula": lambda: pieces(x, alpha, grad)}),
            _compiled({"formula": lambda: compiled(x, alpha, grad)}),
        ],
        lambda got, truth: worst(*(relative_l2(g, t) for g, t in zip(got, truth, strict=True))),
        Work(n_bytes=3 * n_bytes(x)),
        lambda: pieces(x.double(), alpha.double(), grad.double()),
    )


def _compiled(variants: Mapping[str, Callable[[], Any]]) -> Peer:
    name = f"{package('torch')} compile"
    if shutil.which("g++") is None:
        return Peer(name, absent="torch.compile needs g++")
    return Peer(name, variants)
