"""``attention`` in Triton: one pass over a query's keys, with the softmax rescaled on the way.

A program has some queries of one head, each with keys of its own: blocks of them from the first of
its span on, so its result depends on nothing but the span, neither on where that lies in k and v
nor on other queries. What queries share (keys, and a key head's query heads) is read again, out of
the caches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._tools import INT32_MOST, Offline, launcher, only_float32

KEYS = 16  # of a query in a step
BLOCK = 4096  # queries of a program, times keys of a step, times their features
MOST_FEATURES = 256  # of a head
OPTIONS = {"num_warps": 8}
MOST_OF_AN_AXIS = 65535  # programs along the second and third axis of a grid


@triton.jit
def attention_kernel(
    q, k, v, first, last, out, frames, keys, features, groups, scale,
    q_batch, q_channel, q_frame, k_batch, k_channel, k_frame, v_batch, v_channel, v_frame,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """Grid (block of frames, head, batch); out [batch, frame, head, feature]."""
    frame = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    d = tl.arange(0, FEATURES)
    there = d < features
    channel = (head * features + d).to(tl.int64)
    shared = (head // groups * features + d).to(tl.int64)
    asked = frame < frames
    both = asked[:, None] & there[None, :]
    at = q + batch * q_batch + frame[:, None] * q_frame + channel[None, :] * q_channel
    query = tl.load(at, mask=both, other=0.0)[:, None, :]
    k += batch * k_batch + shared * k_channel
    v += batch * v_batch + shared * v_channel
    begin = tl.maximum(tl.load(first + frame, mask=asked, other=0), 0)
    end = tl.minimum(tl.load(last + frame, mask=asked, other=0), keys)
    most = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((QUERIES, FEATURES), tl.float32)
    # A query whose keys are at an end before others' adds zeros.
    for step in range(0, tl.max(end - begin, axis=0), KEYS):
        key = begin[:, None] + step + tl.arange(0, KEYS)[None, :]
        inside = key < end[:, None]
        mask = inside[:, :, None] & there[None, None, :]
        row = tl.load(k[None, None, :] + key[:, :, None] * k_frame, mask=mask, other=0.0)
        score = tl.where(inside, scale * tl.sum(query * row, axis=2), float("-inf"))
        before, most = most, tl.maximum(most, tl.max(score, axis=1))
        # Minus infinity has weight zero also where all are minus infinity so far.
        reference = tl.where(most == float("-inf"), 0.0, most)
        weight = tl.where(inside, tl.exp(score - reference[:, None]), 0.0)
        kept = tl.exp(before - reference)
        row = tl.load(v[None, None, :] + key[:, :, None] * v_frame, mask=mask, other=0.0)
        total = total * kept + tl.sum(weight, axis=1)
        sums = sums * kept[:, None] + tl.sum(weight[:, :, None] * row, axis=1)
    some = begin < end
    y = tl.where(some[:, None], sums / tl.where(some, total, 1.0)[:, None], 0.0)
    heads = tl.num_programs(1)
    to = (batch * frames + frame)[:, None] * heads * features + channel[None, :]
    tl.store(out + to, y, mask=both)


def why_not(
    q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor, heads: int, scale: float
) -> str | None:
    """Float32 of fitting shapes, heads that registers hold."""
    if (reason := only_float32(q, k, v)) is not None:
        return reason
    if q.dim() != 3 or k.dim() != 3 or k.shape != v.shape or k.shape[0] != q.shape[0]:
        return f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} do not fit"
    features = q.shape[1] // heads if heads > 0 and q.shape[1] % heads == 0 else 0
    if features == 0 or k.shape[1] == 0 or q.shape[1] % k.shape[1] or k.shape[1] % features:
        return f"{heads} heads do not divide q {tuple(q.shape)} and k {tuple(k.shape)}"
    if features > MOST_FEATURES:
        return f"it takes heads of up to {MOST_FEATURES} features, got {features}"
    for span in (first, last):
        if span.dtype is not torch.int64 or span.shape != q.shape[2:] or span.device != q.device:
            return f"first and last must be int64 [{q.shape[2]}] on {q.device}"
    if max(heads, q.shape[0]) > MOST_OF_AN_AXIS or max(q.shape[2], k.shape[2]) > INT32_MOST:
        return f"it takes up to {MOST_OF_AN_AXIS} heads and rows, got {heads} and {q.shape[0]}"
    return None


def blocks(features: int) -> dict[str, int]:
    """The compiled sizes, by those of a head only."""
    width = max(16, triton.next_power_of_2(features))
    return {"QUERIES": BLOCK // (KEYS * width), "KEYS": KEYS, "FEATURES": width}


def attention(
    q: Tensor, k: Tensor, v: Tensor, first: Tensor, last: Tensor, heads: int, scale: float
) -> Tensor:
    """See ``fastcodec.ops.attention``."""
    batch, channels, frames = q.shape
    out = q.new_empty(batch, frames, channels)
    if out.numel():
        features, groups = channels // heads, channels // k.shape[1]
        sizes = blocks(features)
        launcher(attention_kernel)[(triton.cdiv(frames, sizes["QUERIES"]), heads, batch)](
            q, k, v, first.contiguous(), last.contiguous(), out, frames, k.shape[2], features,
            groups, scale, *q.stride(), *k.stride(), *v.stride(), **sizes, **OPTIONS,
        )  # fmt: skip
    return out.transpose(1, 2)


def offline() -> list[Offline]:
    """Mimi (8 heads of 64), and the widest heads."""
    types = dict.fromkeys(("q", "k", "v", "out"), "*fp32") | {"scale": "fp32"}
    types |= {"first": "*i64", "last": "*i64"}
    strides = [f"{t}_{axis}" for t in "qkv" for axis in ("batch", "channel", "frame")]
    types |= dict.fromkeys(("frames", "keys", "features", "groups", *strides), "i32")
    aligned = ("q", "k", "v", "out", "first", "last")
    return [
        Offline(attention_kernel, types, blocks(features), OPTIONS, aligned)
        for features in (64, MOST_FEATURES)
    ]
