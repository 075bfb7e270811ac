"""``group_norm`` in Triton: moments of equal parts of a signal, of all of it, the affine map.

A part is so many values in time-major order, wherever they lie; moments are float64, and are added
part after part. So a signal's result depends on nothing but the signal.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._tools import INT32_MOST, Offline, launcher, only_float32

PART = 2048  # values a program
TOTALS = 256  # parts of a step of their sum


@triton.jit
def moments_kernel(x, moments, count, parts, PART: tl.constexpr):
    """Of part p of signal b: the sum and the sum of squares, to moments [2, batch, parts]."""
    batch, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.cast(part, tl.int64) * PART + tl.arange(0, PART)
    v = tl.load(x + batch * count + at, mask=at < count, other=0.0).to(tl.float64)
    to = moments + batch * parts + part
    tl.store(to, tl.sum(v, axis=0))
    tl.store(to + tl.num_programs(0).to(tl.int64) * parts, tl.sum(v * v, axis=0))


@triton.jit
def statistics_kernel(moments, statistics, count, parts, epsilon, TOTALS: tl.constexpr):
    """Mean and 1 / sqrt(variance + epsilon) of a signal, to statistics [2, batch]."""
    batch, batches = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    sums, squares = tl.zeros((TOTALS,), tl.float64), tl.zeros((TOTALS,), tl.float64)
    for first in range(0, parts, TOTALS):
        part = first + tl.arange(0, TOTALS)
        at = moments + batch * parts + part
        sums += tl.load(at, mask=part < parts, other=0.0)
        squares += tl.load(at + batches * parts, mask=part < parts, other=0.0)
    mean = tl.sum(sums, axis=0) / count
    variance = tl.sum(squares, axis=0) / count - mean * mean
    # Not maximum: a NaN stays.
    variance = tl.where(variance < 0, 0.0, variance)
    tl.store(statistics + batch, mean)
    tl.store(statistics + batches + batch, 1.0 / tl.sqrt(variance + epsilon))


@triton.jit
def affine_kernel(x, statistics, weight, bias, out, count, channels, PART: tl.constexpr):
    """x * scale + shift, one pair a channel."""
    batch, batches = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    at = tl.program_id(1).to(tl.int64) * PART + tl.arange(0, PART)
    inside = at < count
    mean = tl.load(statistics + batch)
    rate = tl.load(statistics + batches + batch)
    channel = at % channels
    w = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float64)
    b = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float64)
    v = tl.load(x + batch * count + at, mask=inside, other=0.0)
    y = tl.fma(v, (w * rate).to(tl.float32), (b - mean * (w * rate)).to(tl.float32))
    tl.store(out + batch * count + at, y, mask=inside)


def why_not(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5) -> str | None:
    """Float32 of fitting shapes."""
    if (reason := only_float32(x, weight, bias)) is not None:
        return reason
    if x.dim() != 3 or not weight.shape == bias.shape == x.shape[1:2]:
        return f"x {tuple(x.shape)} does not fit weight {tuple(weight.shape)} and the bias"
    parts = triton.cdiv(x.shape[1] * x.shape[2], PART)
    if parts > 65535 or x.shape[0] > INT32_MOST:  # of a grid's second axis
        return f"it takes {65535 * PART} values of a signal, got {x.shape[1] * x.shape[2]}"
    return None


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    """See ``fastcodec.ops.group_norm``; in time-major memory, out in it."""
    batch, channels, frames = x.shape
    rows = x.transpose(1, 2).contiguous()
    out = torch.empty_like(rows)
    if x.numel():
        count = channels * frames
        parts = triton.cdiv(count, PART)
        moments = x.new_empty(2, batch, parts, dtype=torch.float64)
        statistics = x.new_empty(2, batch, dtype=torch.float64)
        launcher(moments_kernel)[(batch, parts)](rows, moments, count, parts, PART)
        launcher(statistics_kernel)[(batch,)](moments, statistics, count, parts, epsilon, TOTALS)
        launcher(affine_kernel)[(batch, parts)](
            rows, statistics, weight.contiguous(), bias.contiguous(), out, count, channels, PART
        )
    return out.transpose(1, 2)


def offline() -> list[Offline]:
    """All three."""
    floats = dict.fromkeys(("x", "weight", "bias", "out"), "*fp32") | {"epsilon": "fp32"}
    sizes = dict.fromkeys(("count", "parts", "channels"), "i32")
    types = floats | sizes | dict.fromkeys(("moments", "statistics"), "*fp64")
    part = {"PART": PART}
    return [
        Offline(moments_kernel, types, part, aligned=("x", "moments", "count")),
        Offline(statistics_kernel, types, {"TOTALS": TOTALS}, aligned=("moments", "statistics")),
        Offline(affine_kernel, types, part, aligned=("x", "out", "count", "channels")),
    ]
