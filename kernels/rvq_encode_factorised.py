"""``rvq_encode_factorised`` in Triton: all levels in one launch, a block of frames a program.

The residual is kept as it is, all its channels, in a buffer of which a program reads and writes its
own rows only, so that they stay in the caches. Projections add their bias and then channel after
channel in float32 FMA, as the CPU kernel does; lengths are summed in another order than there, so
the codes are the CPU's but where two words are equally near up to rounding.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._search import keep_better, winner
from fastcodec.kernels._tools import INT32_MOST, Offline, launcher, only_float32

ROWS = 16  # frames a program
WORDS = 2048  # of a step of the search, times their features
CHUNK = 32  # channels of a step
MOST_FEATURES = 64  # of a word: as many as registers hold
OPTIONS = {"num_warps": 8, "num_stages": 2}


@triton.jit
def unit(x, axis: tl.constexpr):
    """Scaled to unit length along an axis; no less than 1e-12 is divided by."""
    length = tl.sqrt_rn(tl.sum(x * x, axis=axis, keep_dims=True))
    return tl.div_rn(x, tl.where(length < 1e-12, 1e-12, length) + tl.zeros_like(x))


@triton.jit
def nearest(point, table, words, features, ROWS: tl.constexpr, WORDS: tl.constexpr):
    """Per row of point [ROWS, FEATURES] the word nearest to it, all words at unit length."""
    FEATURES: tl.constexpr = point.shape[1]
    feature = tl.arange(0, FEATURES)
    best = tl.full((ROWS, WORDS), float("-inf"), tl.float32)
    best_word = tl.zeros((ROWS, WORDS), tl.int32)
    for first in range(0, words, WORDS):
        word = first + tl.arange(0, WORDS)
        known = word < words
        at = word.to(tl.int64)[None, :] * features + feature[:, None]
        mask = known[None, :] & (feature < features)[:, None]
        c = unit(tl.load(table + at, mask=mask, other=0.0), 0)
        score = tl.dot(point, c, input_precision="ieee") - 0.5 * tl.sum(c * c, axis=0)[None, :]
        score = tl.where(known[None, :], score, float("-inf"))
        best, best_word = keep_better(score, word[None, :], best, best_word)
    return winner(best, best_word)


@triton.jit
def rvq_encode_factorised_kernel(
    x, in_weight, in_bias, codebooks, out_weight, out_bias, residuals, codes,
    rows, frames, levels, words, features, channels, x_batch, x_channel, x_frame,
    ROWS: tl.constexpr, WORDS: tl.constexpr, FEATURES: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Rows are the frames of all signals; residuals [rows, channels]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None]
    batch, frame = row // frames, row % frames
    feature, lane = tl.arange(0, FEATURES), tl.arange(0, CHUNK)
    there = feature < features
    own = residuals + row[:, None] * channels
    at = (batch * x_batch + frame * x_frame)[:, None]
    for d in range(0, channels, CHUNK):
        channel = (d + lane)[None, :]
        mask = inside & (channel < channels)
        v = tl.load(x + at + channel.to(tl.int64) * x_channel, mask=mask, other=0.0)
        tl.store(own + channel, v, mask=mask)
    tl.debug_barrier()
    word = tl.zeros((ROWS, FEATURES), tl.float32)
    for level in range(levels):
        bias = tl.load(in_bias + level * features + feature, mask=there, other=0.0)
        projected = tl.zeros((ROWS, FEATURES), tl.float32) + bias[None, :]
        for d in range(0, channels, CHUNK):
            channel = d + lane
            known = channel < channels
            # What the level before gives back; nothing before the first.
            before = (level - 1) * channels + channel
            given = known & (level > 0)
            back = tl.load(
                out_weight + before.to(tl.int64)[None, :] * features + feature[:, None],
                mask=given[None, :] & there[:, None],
                other=0.0,
            )
            y = tl.zeros((ROWS, CHUNK), tl.float32)
            y += tl.load(out_bias + before, mask=given, other=0.0)[None, :]
            y = tl.dot(word, back, y, input_precision="ieee")
            mask = inside & known[None, :]
            v = tl.load(own + channel[None, :], mask=mask, other=0.0) - y
            tl.store(own + channel[None, :], v, mask=mask)
            into = tl.load(
                in_weight + (level * features + feature).to(tl.int64)[None, :] * channels
                + channel[:, None],
                mask=known[:, None] & there[None, :],
                other=0.0,
            )  # fmt: skip
            projected = tl.dot(v, into, projected, input_precision="ieee")
        tl.debug_barrier()
        table = codebooks + tl.cast(level, tl.int64) * words * features
        found = nearest(unit(projected, 1), table, words, features, ROWS, WORDS)
        chosen = table + found.to(tl.int64)[:, None] * features + feature[None, :]
        word = tl.load(chosen, mask=inside & there[None, :], other=0.0)
        to = (batch * levels + level) * frames + frame
        tl.store(codes + to, found.to(tl.int64), mask=row < rows)


def why_not(
    x: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    codebooks: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    packed: Tensor | None = None,
) -> str | None:
    """Float32 of fitting shapes, and words as short as projections are."""
    given = (x, in_weight, in_bias, codebooks, out_weight, out_bias)
    if (reason := only_float32(*given)) is not None:
        return reason
    if x.dim() != 3 or codebooks.dim() != 3:
        return f"x {tuple(x.shape)} or codebooks {tuple(codebooks.shape)} has not 3 dimensions"
    channels, (levels, words, features) = x.shape[1], codebooks.shape
    into, back = (levels, features, channels), (levels, channels, features)
    fitting = (into, into[:2], tuple(codebooks.shape), back, back[:2])
    shapes = tuple(tuple(t.shape) for t in given[1:])
    if shapes != fitting:
        return f"parameters of shapes {shapes} do not fit x {tuple(x.shape)}"
    if not 0 < features <= MOST_FEATURES or words == 0:
        return f"it takes words of 1 to {MOST_FEATURES} features, got {tuple(codebooks.shape)}"
    if max(levels * channels, levels * words, x.shape[2]) > INT32_MOST - WORDS:
        return f"it takes sizes that int32 holds, got {shapes}"
    return None


def blocks(words: int, features: int) -> dict[str, int]:
    """The compiled sizes: by those of the codebooks only."""
    width = max(16, triton.next_power_of_2(features))
    return {
        "ROWS": ROWS,
        "WORDS": min(WORDS // width, max(16, triton.next_power_of_2(words))),
        "FEATURES": width,
        "CHUNK": CHUNK,
    }


def rvq_encode_factorised(
    x: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    codebooks: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    packed: Tensor | None = None,
) -> Tensor:
    """See ``fastcodec.ops.rvq_encode_factorised``; ``packed`` is the CPU's."""
    batch, channels, frames = x.shape
    levels, words, features = codebooks.shape
    codes = torch.empty(batch, levels, frames, dtype=torch.int64, device=x.device)
    if codes.numel():
        parameters = (in_weight, in_bias, codebooks, out_weight, out_bias)
        residuals = x.new_empty(batch * frames, channels)
        launcher(rvq_encode_factorised_kernel)[(triton.cdiv(batch * frames, ROWS),)](
            x, *(p.contiguous() for p in parameters), residuals, codes,
            batch * frames, frames, levels, words, features, channels, *x.stride(),
            **blocks(words, features), **OPTIONS,
        )  # fmt: skip
    return codes


def offline() -> list[Offline]:
    """DAC and SNAC (words of 8 features), and the longest words."""
    parameters = ("in_weight", "in_bias", "codebooks", "out_weight", "out_bias")
    pointers = dict.fromkeys(("x", *parameters, "residuals"), "*fp32") | {"codes": "*i64"}
    sizes = ("rows", "frames", "levels", "words", "features", "channels")
    types = pointers | dict.fromkeys((*sizes, "x_batch", "x_channel", "x_frame"), "i32")
    aligned = (*pointers, "words", "channels")
    return [
        Offline(rvq_encode_factorised_kernel, types, blocks(*shape), OPTIONS, aligned)
        for shape in ((1024, 8), (1024, MOST_FEATURES))
    ]
