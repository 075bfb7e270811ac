"""Causal self-attention over a window of frames, with rotary positions and a bounded cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.conv import Conv1d
from fastcodec.layers.plan import Leaf, Plan


class KeyValueCache(Leaf):
    """Rows [B, T, C] of keys and values, appended at the end and forgotten at the beginning.

    They are written behind those before until the room is used up; then what is still needed moves
    to the front of a new buffer, of twice that size. So a push copies its own rows, on average
    hardly more, and the memory is bounded by the window.
    """

    counts = ("passed",)

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._begin = self._end = 0
        self.passed = 0  # rows that have come in all

    @property
    def frames(self) -> Tensor | None:
        """The rows that are kept."""
        return None if self._rows is None else self._rows[:, self._begin : self._end]

    @frames.setter
    def frames(self, rows: Tensor | None) -> None:
        self._rows, self._begin, self._end = rows, 0, 0 if rows is None else rows.shape[1]

    def __len__(self) -> int:
        return self._end - self._begin

    def extend(self, *parts: Tensor) -> Tensor:
        """What is kept, and after it the parts [B, T, C] of new rows, side by side.

        A view, good until the next call.
        """
        count, widths = parts[0].shape[1], [part.shape[2] for part in parts]
        if self._rows is None or self._end + count > self._rows.shape[1]:
            self._move(parts[0].new_empty(parts[0].shape[0], 2 * (len(self) + count), sum(widths)))
        assert self._rows is not None
        room = self._rows[:, self._end : self._end + count].split(widths, dim=2)
        for place, part in zip(room, parts, strict=True):
            place.copy_(part)
        self._end += count
        self.passed += count
        return self._rows[:, self._begin : self._end]

    def keep(self, count: int) -> None:
        """Forget all but the last ``count`` rows."""
        self._begin = max(self._begin, self._end - count)

    def _move(self, room: Tensor) -> None:
        if self._rows is not None:
            room[:, : len(self)] = self._rows[:, self._begin : self._end]
        self._rows, self._begin, self._end = room, 0, len(self)


@dataclass
class StillCache:
    """``KeyValueCache`` of one size, for CUDA graphs: the last W rows [B, W, C].

    Rows of before the signal are zeros, which no query sees.
    """

    rows: Tensor

    def __len__(self) -> int:
        return self.rows.shape[1]

    def extend(self, *parts: Tensor) -> Tensor:
        """The rows, and after them the parts [B, T, C] of new ones, side by side."""
        joined = torch.cat([self.rows, torch.cat(parts, dim=2)], dim=1)
        self.rows = joined[:, parts[0].shape[1] :]
        return joined

    def keep(self, count: int) -> None:
        """It is W at any time."""
        assert count in (0, len(self))


@dataclass(frozen=True)
class Step:
    """What a push's frames have in common in every layer.

    ``first``, ``last``: [T] int64, the span of keys of each frame, counted from the oldest kept;
    ``cos``, ``sin``: [T, D / 2] of their positions; ``keep``: how many keys the next push may see,
    None where there is none.
    """

    first: Tensor
    last: Tensor
    cos: Tensor
    sin: Tensor
    keep: int | None


class SelfAttention(nn.Module):
    """out(attention(rotated q, rotated k, v)) with q, k, v = in(x).

    Args:
        channels: C of x and of the result
        heads: H
        kv_heads: of keys and values, each shared by H / kv_heads heads; H where None
        head_features: D; C / H where None
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        kv_heads: int | None = None,
        head_features: int | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.head_features = head_features or channels // heads
        q, kv = heads * self.head_features, self.kv_heads * self.head_features
        self.sizes = (q + kv, kv)  # of the part with positions, and of v
        self.in_proj = Conv1d(channels, q + 2 * kv, 1, bias=False)
        self.out_proj = Conv1d(q, channels, 1, bias=False)

    def forward(self, x: Tensor, step: Step, cache: KeyValueCache | StillCache) -> Tensor:
        """x [B, C, T] -> [B, C, T]."""
        turned, v = self.in_proj(x).transpose(1, 2).split(self.sizes, dim=2)
        turned = rotated(turned, step.cos, step.sin, self.heads + self.kv_heads)
        q, k = turned.split((self.sizes[0] - self.sizes[1], self.sizes[1]), dim=2)
        if len(cache) or step.keep is not None:
            k, v = cache.extend(k, v).split(self.sizes[1], dim=2)
            cache.keep(step.keep or 0)
        y = ops.attention(
            q.transpose(1, 2),
            k.transpose(1, 2),
            v.transpose(1, 2),
            step.first,
            step.last,
            self.heads,
            self.head_features**-0.5,
        )
        return self.out_proj(y)

    def lower(self, plan: Plan, context: int, frequency: Tensor) -> bool:
        """Its steps, as a layer's; see ``Plan.attend``."""
        return (
            self.head_features % 2 == 0
            and self.in_proj.lower(plan)
            and plan.attend(self.heads, self.kv_heads, self.head_features, context, frequency)
            and self.out_proj.lower(plan)
        )


def rotated(rows: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Rows [B, T, H * D], each pair of neighbouring features turned by its angle [T, D / 2].

    Rotary positions (Su et al. 2021, arXiv:2104.09864) with pairs (0, 1), (2, 3), ... as moshi has
    them; transformers' pairs lie half a head apart.
    """
    pairs = rows.unflatten(2, (heads, -1, 2))
    even, odd = pairs.unbind(dim=4)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=4).flatten(2)


def angles(position: Tensor, head_features: int, max_period: float) -> Tensor:
    """[T, D / 2] float64: position [T] times max_period ** (-2 i / D).

    Both factors and the product are rounded to float32, as upstream computes them: after minutes
    that matters more than the cosine's own rounding.
    """
    frequency = frequencies(head_features, max_period, position.device)
    return (position.float()[:, None] * frequency).double()


def frequencies(
    head_features: int, max_period: float, device: torch.device | None = None
) -> Tensor:
    """[D / 2] float32, radians a frame: max_period ** (-2 i / D)."""
    i = torch.arange(head_features // 2, dtype=torch.float64, device=device)
    return (max_period ** (-2 * i / head_features)).float()
