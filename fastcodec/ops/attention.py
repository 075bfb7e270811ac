"""``attention``: softmax attention, every query over a span of keys of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import op, time_major


def _fake(
    q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor, heads: int, scale: float
) -> Tensor:
    return time_major(q, *q.shape)


@op(fake=_fake, trainable=True)
def attention(
    q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor, heads: int, scale: float
) -> Tensor:
    """softmax(scale * q k) v over the keys of the span, head by head; [B, H * D, T], time-major.

    Query t sees the keys first[t] <= s < last[t] and nothing else: the native result depends, bit
    for bit, on these alone, not on where they lie in k and v nor on the other queries. A span
    without keys gives zeros.

    Args:
        q: [B, H * D, T] float
        k, v: [B, H' * D, S] float; H a multiple of H', each key head serves H / H' query heads
        first, last: [T] int64, a span of keys for each query, the same for the whole batch
        heads: H
        scale: of the scores, 1 / sqrt(D) as a rule
    """
    batch, channels, frames = q.shape
    keys, features = k.shape[2], channels // heads
    groups = channels // k.shape[1]
    position = torch.arange(keys, device=q.device)
    inside = (position >= first[:, None]) & (position < last[:, None])  # [T, S]
    queries, key_heads, value_heads = (
        x.reshape(batch, -1, features, x.shape[2]).transpose(2, 3) for x in (q, k, v)
    )  # [B, heads, T or S, D]
    key_heads, value_heads = (x.repeat_interleave(groups, dim=1) for x in (key_heads, value_heads))
    scores = scale * (queries @ key_heads.transpose(2, 3))
    # A row without any key would be NaN, and its gradient too.
    empty = ~inside.any(dim=1, keepdim=True)
    scores = scores.masked_fill(~inside & ~empty, float("-inf")).masked_fill(empty, 0.0)
    weights = scores.softmax(dim=3).masked_fill(~inside, 0.0)
    y = weights @ value_heads  # [B, heads, T, D]
    return y.permute(0, 2, 1, 3).reshape(batch, frames, channels).transpose(1, 2)


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    def window(frames: int, width: int, keys: int) -> tuple[Tensor, Tensor]:
        last = torch.arange(keys - frames + 1, keys + 1)
        return (last - width).clamp(min=0), last

    empty = (torch.tensor([2, 3, 0, 1]), torch.tensor([2, 1, 9, 4]))
    return [
        (r(2, 32, 20), r(2, 32, 20), r(2, 32, 20), *window(20, 7, 20), 2, 0.25),
        (r(1, 48, 3), r(1, 16, 40), r(1, 16, 40), *window(3, 40, 40), 6, 0.35),
        (r(3, 15, 4), r(3, 15, 9), r(3, 15, 9), *empty, 3, 0.5),
        (r(1, 200, 1), r(1, 100, 2), r(1, 100, 2), *window(1, 2, 2), 2, 0.1),
    ]


attention.examples = _examples
