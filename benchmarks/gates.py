"""Correctness checks: a row without one passed first is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FLOAT_LIMIT = 1e-5  # two float32 implementations of a net differ by about 1e-6 of its output
TIE_LIMIT = 1e-4
# In the place of a precision: the gate of peers in bf16, which may be less exact than our "medium"
# has to be, lest a fast one be left out for a decibel.
PEER = "peer"


@dataclass(frozen=True)
class Gate:
    """A value that must not exceed its limit; NaN does not pass."""

    what: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit

    def as_row(self) -> dict[str, Any]:
        """For the row; JSON has no NaN."""
        value = self.value if math.isfinite(self.value) else None
        return {"what": self.what, "value": value, "limit": self.limit, "passed": self.passed}


def relative_l2(got: Tensor, truth: Tensor, limit: float = FLOAT_LIMIT) -> Gate:
    """|got - truth| / |truth|."""
    if got.shape != truth.shape:
        return Gate(f"shape {list(got.shape)}, not {list(truth.shape)}", math.nan, limit)
    difference = (got.double() - truth.double()).norm() / truth.double().norm()
    return Gate("relative L2", difference.item(), limit)


def codes_up_to_ties(
    got: Tensor, truth: Tensor, latents: Tensor, codebooks: Tensor, limit: float = TIE_LIMIT
) -> Gate:
    """Zero where all codes are equal, else the widest gap between two that differ.

    In float64, at the first stage where a frame differs: how much nearer the one word is than the
    other, squared, relative to the residual's square. What rounding decides is far below the limit.

    Args:
        got, truth: [B, K, T] int64
        latents: [B, D, T] what was quantised
        codebooks: [K' >= K, N, D]
    """
    if got.shape != truth.shape:
        return Gate(f"shape {list(got.shape)}, not {list(truth.shape)}", math.nan, limit)
    differs = got != truth
    rows, frames = differs.any(dim=1).nonzero(as_tuple=True)
    stages = differs.int().argmax(dim=1)[rows, frames]
    books, vectors = codebooks.double(), latents.double().transpose(1, 2)
    widest = 0.0
    for row, frame, stage in zip(rows.tolist(), frames.tolist(), stages.tolist(), strict=True):
        residual = vectors[row, frame]
        for k in range(stage):
            residual = residual - books[k, got[row, k, frame]]
        ours, theirs = (books[stage, codes[row, stage, frame]] for codes in (got, truth))
        gap = (residual - ours).square().sum() - (residual - theirs).square().sum()
        widest = max(widest, (gap.abs() / residual.square().sum()).item())
    share = 1 - len(rows) / max(1, got.shape[0] * got.shape[2])
    return Gate(f"tie gap where codes differ ({share:.2%} of frames equal)", widest, limit)


def identical(got: Tensor, truth: Tensor) -> Gate:
    """How many elements differ: none may."""
    same_shape = got.shape == truth.shape
    count = float((got != truth).sum()) if same_shape else math.nan
    return Gate("elements that differ", count, 0.0)


def worst(*gates: Gate) -> Gate:
    """The one that failed, or else came nearest to its limit."""
    return max(gates, key=lambda g: (not g.passed, g.value / g.limit if g.limit else g.value))


def doubled(args: tuple[Any, ...]) -> list[Any]:
    """An op's arguments with every float tensor in float64, for its reference as the truth."""
    return [
        a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args
    ]
