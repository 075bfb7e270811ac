"""How wrong codes are: by how much the word taken is farther than the right one, in float64."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.gates import PEER, TIE_LIMIT, Gate
from fastcodec.layers.conv import Conv1d
from fastcodec.layers.quantize import (
    FactorisedLevel,
    FactorisedQuantizer,
    GroupedResidualQuantizer,
    MultiRateQuantizer,
    ProjectedQuantizer,
    ResidualQuantizer,
    SplitQuantizer,
)

# Of the squared residual. Rounding in float32 stays far below the first; bfloat16 has 8 bits.
LIMITS = {"highest": TIE_LIMIT, "high": 1e-3, "medium": 0.1, PEER: 0.1}


def tie_gate(
    quantizer: nn.Module, latents: Tensor, got: Tensor, truth: Tensor, precision: str = "highest"
) -> Gate:
    """Zero where all codes are equal, else the widest gap where a frame first differs.

    Args:
        quantizer: of the codes
        latents: [B, D, T] what was quantised, in float32
        got, truth: [B, K, T] int64
        precision: whose limit holds
    """
    limit = LIMITS[precision]
    if got.shape != truth.shape:
        return Gate(f"shape {list(got.shape)}, not {list(truth.shape)}", math.nan, limit)
    if not (got >= 0).all():
        return Gate("codes below 0", math.nan, limit)
    equal = (got == truth).float().mean().item()
    widest = 0.0 if equal == 1 else _gap(quantizer, latents.double(), got, truth)
    return Gate(f"tie gap where codes differ ({equal:.2%} equal)", widest, limit)


def _gap(q: nn.Module, x: Tensor, got: Tensor, truth: Tensor) -> float:
    if isinstance(q, ResidualQuantizer):
        return _residual_gap(q.codebooks.double(), x.mT, got, truth)
    if isinstance(q, ProjectedQuantizer):
        return _gap(q.residual, _linear(q.in_proj, x), got, truth)
    if isinstance(q, SplitQuantizer):
        first, rest = (
            _gap(part, x, got[:, rows], truth[:, rows])
            for part, rows in ((q.first, slice(q.n_first)), (q.rest, slice(q.n_first, None)))
        )
        return max(first, rest)
    if isinstance(q, GroupedResidualQuantizer):
        count = len(q.groups)
        parts = zip(q.groups, x.chunk(count, dim=1), strict=True)
        return max(
            _gap(group, part, got[:, g::count], truth[:, g::count])
            for g, (group, part) in enumerate(parts)
        )
    if isinstance(q, FactorisedQuantizer):
        return _factorised_gap(q, x, got, truth)
    raise TypeError(f"tie_gate: no rule for {type(q).__name__}")


def _residual_gap(books: Tensor, residual: Tensor, got: Tensor, truth: Tensor) -> float:
    """``residual``: [B, T, D]."""
    widest, same = 0.0, torch.ones_like(got[:, 0], dtype=torch.bool)
    for words, a, b in zip(books, got.unbind(1), truth.unbind(1), strict=False):
        widest = max(widest, _first_gap(residual, words[a], words[b], same & (a != b)))
        same, residual = same & (a == b), residual - words[b]
    return widest


def _factorised_gap(q: FactorisedQuantizer, x: Tensor, got: Tensor, truth: Tensor) -> float:
    hold = q.hold if isinstance(q, MultiRateQuantizer) else (1,) * q.n_codebooks
    widest, same = 0.0, torch.ones_like(got[:, 0], dtype=torch.bool)
    for part, every, a, b in zip(q.levels, hold, got.unbind(1), truth.unbind(1), strict=False):
        level = cast(FactorisedLevel, part)
        pooled = nn.functional.avg_pool1d(x, every).repeat_interleave(every, dim=2)
        seen = nn.functional.normalize(_linear(level.in_proj, pooled), dim=1).mT
        words = nn.functional.normalize(level.codebook.double(), dim=1)
        widest = max(widest, _first_gap(seen, words[a], words[b], same & (a != b)))
        same = same & (a == b)
        x = x - _linear(level.out_proj, level.codebook.double()[b].mT)
    return widest


def _first_gap(residual: Tensor, ours: Tensor, theirs: Tensor, where: Tensor) -> float:
    """The widest gap of frames [B, T] where two words were chosen for one residual."""
    if not where.any():
        return 0.0
    left, a, b = residual[where], ours[where], theirs[where]
    gap = (left - a).square().sum(1) - (left - b).square().sum(1)
    return (gap.abs() / left.square().sum(1)).max().item()


def _linear(conv: Conv1d, x: Tensor) -> Tensor:
    """A convolution of kernel 1 in float64."""
    y = conv.weight.double()[..., 0] @ x
    return y if conv.bias is None else y + conv.bias.double()[:, None]
