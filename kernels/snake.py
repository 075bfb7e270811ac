"""``snake`` in Triton: x + sin^2(alpha x) / (beta + 1e-9), at the rate of a copy of its bytes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._tools import Offline, launcher

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
ELEMENTS = 1024  # a program's


@triton.jit
def snaked(x, alpha, inverse_beta):
    """Of float32 values: sin^2 as a polynomial of what the argument exceeds whole half turns by."""
    turns = alpha * 0.31830987
    # What the product and the constant 1 / pi lose in float32.
    lost = tl.fma(alpha, 0.31830987, -turns) + alpha * 1.2841276e-08
    product = x * turns
    whole = tl.floor(product + 0.5)
    part = tl.fma(x, turns, -whole) + x * lost
    s = part * part
    # sin(pi f)^2 / f^2 of s = f^2, |f| <= 1/2 (fitted, error 1.4e-8), as csrc/cpu/vec.h has it
    p = tl.fma(s, -3.33621097, 13.0371122)
    p = tl.fma(p, s, -30.0985527)
    p = tl.fma(p, s, 42.7269287)
    p = tl.fma(p, s, -32.4696617)
    p = tl.fma(p, s, 9.86960411)
    return tl.fma(p, s * inverse_beta, x)


@triton.jit
def snake_kernel(x, alpha, beta, out, count, channels, inner, ELEMENTS: tl.constexpr):
    """Element i in memory order belongs to channel (i / inner) % channels."""
    at = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = at < count
    channel = (at // inner) % channels
    a = tl.load(alpha + channel, mask=inside, other=1.0).to(tl.float32)
    b = tl.load(beta + channel, mask=inside, other=1.0).to(tl.float32)
    v = tl.load(x + at, mask=inside, other=0.0)
    y = snaked(v.to(tl.float32), a, 1.0 / (b + 1e-9))
    tl.store(out + at, y.to(v.dtype), mask=inside)


def why_not(x: Tensor, alpha: Tensor, beta: Tensor | None = None) -> str | None:
    """Any of the three kinds of float, if all are of one kind."""
    kinds = {t.dtype for t in (x, alpha, beta) if t is not None}
    return None if len(kinds) == 1 and kinds <= set(FLOATS) else f"it got tensors of {kinds}"


def snake(x: Tensor, alpha: Tensor, beta: Tensor | None = None) -> Tensor:
    """See ``fastcodec.ops.snake``; the layout of x stays."""
    time_major = x.transpose(1, 2).is_contiguous()
    x = x if time_major else x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        inner = 1 if time_major else x.shape[2]
        beta = alpha if beta is None else beta
        grid = (triton.cdiv(x.numel(), ELEMENTS),)
        launcher(snake_kernel)[grid](
            x, alpha.contiguous(), beta.contiguous(), out, x.numel(), x.shape[1], inner, ELEMENTS
        )
    return out


def offline() -> list[Offline]:
    """Both layouts, float32 and bf16."""
    sizes = {"count": "i32", "channels": "i32", "inner": "i32"}
    return [
        Offline(
            snake_kernel,
            dict.fromkeys(("x", "alpha", "beta", "out"), f"*{kind}") | sizes,
            {"ELEMENTS": ELEMENTS},
            aligned=("x", "alpha", "beta", "out", "count", "channels"),
        )
        for kind in ("fp32", "bf16")
    ]
