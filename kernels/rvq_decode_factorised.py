"""``rvq_decode_factorised`` in Triton: all levels in one launch, the sum in registers.

A level adds its bias and then feature after feature of its word, in float32 FMA; as the CPU kernel
does. A code outside -1 .. N - 1 makes its frame NaN, as in ``rvq_decode``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._tools import INT32_MOST, Offline, launcher, only_float32

ROWS = 32  # frames a program
CHANNELS = 64  # a program's, at most
OPTIONS = {"num_warps": 4}


@triton.jit
def rvq_decode_factorised_kernel(
    codes, codebooks, out_weight, out_bias, out, rows, frames, levels, words, features, channels,
    by_batch, by_level, by_frame,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Rows are the frames of all signals; out [rows, channels]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = channel < channels
    at = row // frames * by_batch + row % frames * by_frame
    total = tl.zeros((ROWS, CHANNELS), tl.float32)
    for level in range(levels):
        code = tl.load(codes + at, mask=row < rows, other=-1)
        known = (code >= 0) & (code < words)
        word = codebooks + code * features
        weight = out_weight + (level * channels + channel).to(tl.int64) * features
        bias = tl.load(out_bias + level * channels + channel, mask=there, other=0.0)
        y = tl.zeros((ROWS, CHANNELS), tl.float32) + bias[None, :]
        for d in range(features):
            w = tl.load(weight + d, mask=there, other=0.0)
            v = tl.load(word + d, mask=known, other=0.0)
            y = tl.fma(w[None, :], v[:, None], y)
        total += tl.where(known[:, None], y, 0.0)
        total = tl.where(((code < -1) | (code >= words))[:, None], float("nan"), total)
        at += by_level
        codebooks += tl.cast(words, tl.int64) * features
    to = out + row[:, None] * channels + channel[None, :]
    tl.store(to, total, mask=(row < rows)[:, None] & there[None, :])


def why_not(codes: Tensor, codebooks: Tensor, out_weight: Tensor, out_bias: Tensor) -> str | None:
    """Float32 parameters and int64 codes of fitting shapes."""
    if (reason := only_float32(codebooks, out_weight, out_bias)) is not None:
        return reason
    if codes.dtype is not torch.int64 or codes.device != codebooks.device:
        return f"it takes int64 codes on {codebooks.device}, got {codes.dtype} on {codes.device}"
    if codes.dim() != 3 or codebooks.dim() != 3 or codes.shape[1] > codebooks.shape[0]:
        return f"codes {tuple(codes.shape)} do not fit codebooks {tuple(codebooks.shape)}"
    levels, _, features = codebooks.shape
    channels = out_weight.shape[1] if out_weight.dim() == 3 else 0
    if out_weight.shape != (levels, channels, features) or out_bias.shape != (levels, channels):
        return f"out_weight {tuple(out_weight.shape)} or out_bias does not fit the codebooks"
    if max(*codes.shape, *codebooks.shape, levels * channels) > INT32_MOST - CHANNELS:
        return f"it takes sizes that int32 holds, got {tuple(codes.shape)}"
    return None


def rvq_decode_factorised(
    codes: Tensor, codebooks: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """See ``fastcodec.ops.rvq_decode_factorised``."""
    batch, levels, frames = codes.shape
    words, features = codebooks.shape[1:]
    channels = out_weight.shape[1]
    out = codebooks.new_empty(batch, frames, channels)
    if out.numel():
        width = min(CHANNELS, max(16, triton.next_power_of_2(channels)))
        grid = (triton.cdiv(batch * frames, ROWS), triton.cdiv(channels, width))
        launcher(rvq_decode_factorised_kernel)[grid](
            codes, codebooks.contiguous(), out_weight.contiguous(), out_bias.contiguous(), out,
            batch * frames, frames, levels, words, features, channels, *codes.stride(), ROWS, width,
            **OPTIONS,
        )  # fmt: skip
    return out.transpose(1, 2)


def offline() -> list[Offline]:
    """DAC."""
    parameters = ("codebooks", "out_weight", "out_bias", "out")
    sizes = ("rows", "frames", "levels", "words", "features", "channels")
    strides = ("by_batch", "by_level", "by_frame")
    types = {"codes": "*i64"} | dict.fromkeys(parameters, "*fp32")
    types |= dict.fromkeys((*sizes, *strides), "i32")
    aligned = ("codes", *parameters, "words", "channels")
    constants = {"ROWS": ROWS, "CHANNELS": CHANNELS}
    return [Offline(rvq_decode_factorised_kernel, types, constants, OPTIONS, aligned)]
