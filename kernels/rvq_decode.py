"""``rvq_decode`` in Triton: the sum over the stages in registers, one store.

A code outside -1 .. N - 1 makes its frame NaN: looking for one before the launch, as the CPU kernel
does, would wait for the GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._tools import INT32_MOST, Offline, launcher, only_float32

ROWS = 8  # frames a program
FEATURES = 256  # a program's, at most


@triton.jit
def rvq_decode_kernel(
    codes, codebooks, out, rows, frames, stages, words, features, by_batch, by_stage, by_frame,
    ROWS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """Rows are the frames of all signals; out [rows, features]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    feature = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    part = (row < rows)[:, None] & (feature < features)[None, :]
    at = row // frames * by_batch + row % frames * by_frame
    total = tl.zeros((ROWS, FEATURES), tl.float32)
    for _ in range(stages):
        code = tl.load(codes + at, mask=row < rows, other=-1)
        known = (code >= 0) & (code < words)
        word = (codebooks + code * features)[:, None] + feature[None, :]
        total += tl.load(word, mask=part & known[:, None], other=0.0)
        total = tl.where(((code < -1) | (code >= words))[:, None], float("nan"), total)
        at += by_stage
        codebooks += tl.cast(words, tl.int64) * features
    tl.store(out + row[:, None] * features + feature[None, :], total, mask=part)


def why_not(codes: Tensor, codebooks: Tensor) -> str | None:
    """Float32 tables and int64 codes of fitting shapes."""
    if (reason := only_float32(codebooks)) is not None:
        return reason
    if codes.dtype is not torch.int64 or codes.device != codebooks.device:
        return f"it takes int64 codes on {codebooks.device}, got {codes.dtype} on {codes.device}"
    if codes.dim() != 3 or codebooks.dim() != 3 or codes.shape[1] > codebooks.shape[0]:
        return f"codes {tuple(codes.shape)} do not fit codebooks {tuple(codebooks.shape)}"
    if max(*codes.shape, *codebooks.shape) > INT32_MOST - FEATURES:
        return f"it takes sizes that int32 holds, got {tuple(codes.shape)}"
    return None


def rvq_decode(codes: Tensor, codebooks: Tensor) -> Tensor:
    """See ``fastcodec.ops.rvq_decode``."""
    batch, stages, frames = codes.shape
    words, features = codebooks.shape[1:]
    out = codebooks.new_empty(batch, frames, features)
    if out.numel():
        width = min(FEATURES, max(16, triton.next_power_of_2(features)))
        grid = (triton.cdiv(batch * frames, ROWS), triton.cdiv(features, width))
        launcher(rvq_decode_kernel)[grid](
            codes, codebooks.contiguous(), out, batch * frames, frames, stages, words, features,
            *codes.stride(), ROWS, width,
        )  # fmt: skip
    return out.transpose(1, 2)


def offline() -> list[Offline]:
    """EnCodec and Mimi."""
    sizes = ("rows", "frames", "stages", "words", "features", "by_batch", "by_stage", "by_frame")
    types = {"codes": "*i64", "codebooks": "*fp32", "out": "*fp32"} | dict.fromkeys(sizes, "i32")
    aligned = ("codes", "codebooks", "out", "words", "features")
    return [
        Offline(rvq_decode_kernel, types, {"ROWS": ROWS, "FEATURES": n}, aligned=aligned)
        for n in (128, FEATURES)
    ]
