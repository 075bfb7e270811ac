"""``rvq_encode`` in Triton: all stages in one launch, what is left of a frame in registers.

A score x.c - |c|^2 / 2 adds its products feature after feature in float32 FMA, as the CPU kernel
does, so that near-ties fall alike. (Tensor cores would round otherwise.) A program has few frames,
for 10 s of EnCodec are only 750, and a wide block of words, for a word is read once for all frames.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._search import keep_better, winner
from fastcodec.kernels._tools import INT32_MOST, Offline, launcher, only_float32

NORMS = 64  # words a program that takes their length
MOST_FEATURES = 1024
OPTIONS = {"num_warps": 8, "num_stages": 3}


@triton.jit
def half_norms_kernel(codebooks, half_norms, words, features, WORDS: tl.constexpr):
    """|c|^2 / 2 of every word, summed in float64; products of floats are exact there."""
    word = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    inside = (word < words)[:, None]
    lane = tl.arange(0, 64)[None, :]
    total = tl.zeros((WORDS, 64), tl.float64)
    for first in range(0, features, 64):
        at = word[:, None] * features + first + lane
        c = tl.load(codebooks + at, mask=inside & (first + lane < features), other=0.0)
        total += c.to(tl.float64) * c.to(tl.float64)
    tl.store(half_norms + word, (0.5 * tl.sum(total, axis=1)).to(tl.float32), mask=word < words)


@triton.jit
def rvq_encode_kernel(
    x, codebooks, half_norms, codes, rows, frames, stages, words, features,
    x_batch, x_channel, x_frame,
    ROWS: tl.constexpr, WORDS: tl.constexpr, CHUNKS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Rows are the frames of all signals; codes [batch, stage, frame]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    batch, frame = row // frames, row % frames
    chunk, lane = tl.arange(0, CHUNKS), tl.arange(0, CHUNK)
    feature = chunk[None, :, None] * CHUNK + lane[None, None, :]
    there = (row < rows)[:, None, None] & (feature < features)
    at = (batch * x_batch + frame * x_frame)[:, None, None] + feature.to(tl.int64) * x_channel
    residual = tl.load(x + at, mask=there, other=0.0)  # [ROWS, CHUNKS, CHUNK]
    for stage in range(stages):
        best = tl.full((ROWS, WORDS), float("-inf"), tl.float32)
        best_word = tl.zeros((ROWS, WORDS), tl.int32)
        for first in range(0, words, WORDS):
            word = first + tl.arange(0, WORDS)
            known = word < words
            table = codebooks + (stage * words + word).to(tl.int64) * features
            dot = tl.zeros((ROWS, WORDS), tl.float32)
            for part in range(tl.cdiv(features, CHUNK)):
                d = part * CHUNK + lane
                mask = known[None, :] & (d < features)[:, None]
                c = tl.load(table[None, :] + d[:, None], mask=mask, other=0.0)
                # This chunk of the residual: adding zeros to it changes nothing.
                if CHUNKS == 1:
                    v = tl.reshape(residual, (ROWS, CHUNK))
                else:
                    v = tl.sum(tl.where(chunk[None, :, None] == part, residual, 0.0), axis=1)
                dot = tl.dot(v, c, dot, input_precision="ieee")
            half = tl.load(half_norms + stage * words + word, mask=known, other=float("inf"))
            best, best_word = keep_better(dot - half[None, :], word[None, :], best, best_word)
        found = winner(best, best_word)
        chosen = (stage * words + found).to(tl.int64)[:, None, None] * features + feature
        residual -= tl.load(codebooks + chosen, mask=there, other=0.0)
        to = (batch * stages + stage) * frames + frame
        tl.store(codes + to, found.to(tl.int64), mask=row < rows)


def why_not(x: Tensor, codebooks: Tensor, packed: Tensor | None = None) -> str | None:
    """Float32 of fitting shapes, as many features as registers hold."""
    if (reason := only_float32(x, codebooks)) is not None:
        return reason
    if x.dim() != 3 or codebooks.dim() != 3 or x.shape[1] != codebooks.shape[2]:
        return f"x {tuple(x.shape)} does not fit codebooks {tuple(codebooks.shape)}"
    if x.shape[1] > MOST_FEATURES:
        return f"it takes up to {MOST_FEATURES} features, got {x.shape[1]}"
    words = codebooks.shape[0] * codebooks.shape[1]
    if codebooks.shape[1] == 0 or max(words, x.shape[2]) > INT32_MOST - 1024:
        return f"it takes from one word to 2^31 - 2^10 of all stages, got {tuple(codebooks.shape)}"
    return None


def blocks(words: int, features: int) -> dict[str, int]:
    """The compiled sizes: by those of the codebooks only, or bits would depend on the input's."""
    chunk = min(16 if words > 128 else 64, max(16, triton.next_power_of_2(features)))
    most = 512 if features <= 512 else 256  # the residual takes registers, too
    return {
        "ROWS": 8 if words > 128 else 32,  # frames a program
        "WORDS": min(most, max(16, triton.next_power_of_2(words))),
        "CHUNKS": triton.next_power_of_2(triton.cdiv(features, chunk)),
        "CHUNK": chunk,
    }


def rvq_encode(x: Tensor, codebooks: Tensor, packed: Tensor | None = None) -> Tensor:
    """See ``fastcodec.ops.rvq_encode``; ``packed`` is the CPU's. Where all is NaN the code is 0."""
    batch, features, frames = x.shape
    stages, words, _ = codebooks.shape
    codes = torch.empty(batch, stages, frames, dtype=torch.int64, device=x.device)
    if codes.numel() == 0:
        return codes
    books = codebooks.contiguous()
    half_norms = books.new_empty(stages, words)
    launcher(half_norms_kernel)[(triton.cdiv(stages * words, NORMS),)](
        books, half_norms, stages * words, features, NORMS, num_warps=4
    )
    tile = blocks(words, features)
    sizes = (batch * frames, frames, stages, words, features)
    launcher(rvq_encode_kernel)[(triton.cdiv(batch * frames, tile["ROWS"]),)](
        x, books, half_norms, codes, *sizes, *x.stride(), **tile, **OPTIONS
    )
    return codes


def offline() -> list[Offline]:
    """EnCodec and Mimi (128 and 256 features), the narrowest and the widest there are."""
    pointers = dict.fromkeys(("x", "codebooks", "half_norms"), "*fp32") | {"codes": "*i64"}
    sizes = dict.fromkeys(("rows", "frames", "stages", "words", "features"), "i32")
    types = pointers | sizes | dict.fromkeys(("x_batch", "x_channel", "x_frame"), "i32")
    aligned = ("x", "codebooks", "half_norms", "codes", "words", "features")
    norms = Offline(half_norms_kernel, types, {"WORDS": NORMS}, aligned=aligned[1:3])
    return [norms] + [
        Offline(rvq_encode_kernel, types, blocks(words, features), OPTIONS, aligned)
        for words, features in (
            (16, 8),
            (128, 64),
            (1024, 128),
            (2048, 256),
            (1024, 512),
            (1024, 1024),
        )
    ]  # fmt: skip
