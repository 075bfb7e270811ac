"""Gradients of ``snake`` in Triton, with sums in one order: partial ones, then those.

dx = g (1 + alpha sin(2 alpha x) / b)      b = beta + 1e-9
d_alpha = sum of g x sin(2 alpha x) / b    d_beta = - sum of g sin^2(alpha x) / b^2
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._tools import Offline, launcher
from fastcodec.kernels.snake import FLOATS

BLOCK_T, BLOCK_C = 64, 32
PARTS = 256  # at most: partial sums a channel


@triton.jit
def slopes(x, alpha):
    """(sin(2 alpha x), sin^2(alpha x)), as polynomials; see ``snaked`` and csrc/cpu/vec.h."""
    turns = alpha * 0.31830987
    lost = tl.fma(alpha, 0.31830987, -turns) + alpha * 1.2841276e-08
    whole = tl.floor(x * turns + 0.5)
    f = tl.fma(x, turns, -whole) + x * lost
    s = f * f
    p = tl.fma(s, -3.33621097, 13.0371122)
    p = tl.fma(p, s, -30.0985527)
    p = tl.fma(p, s, 42.7269287)
    p = tl.fma(p, s, -32.4696617)
    p = tl.fma(p, s, 9.86960411)
    q = tl.fma(s, 3.23849487, -14.900115)
    q = tl.fma(q, s, 42.026001)
    q = tl.fma(q, s, -76.7030258)
    q = tl.fma(q, s, 81.6051331)
    q = tl.fma(q, s, -41.3417015)
    q = tl.fma(q, s, 6.28318548)
    return f * q, p * s


@triton.jit
def snake_backward_kernel(
    grad, x, alpha, beta, dx, partial,
    rows, frames, channels, tiles,
    g_batch, g_frame, g_channel, x_batch, x_frame, x_channel, d_batch, d_frame, d_channel,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """A program takes ``tiles`` tiles of frames, one after the other; partial: [parts, 2, C]."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    real = c < channels
    a = tl.load(alpha + c, mask=real, other=1.0).to(tl.float32)[None, :]
    b = tl.load(beta + c, mask=real, other=1.0).to(tl.float32)[None, :]
    inverse = 1.0 / (b + 1e-9)
    channel = c.to(tl.int64)[None, :]
    alphas = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    betas = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    for tile in range(tiles):
        row = (tl.program_id(0).to(tl.int64) * tiles + tile) * BLOCK_T + tl.arange(0, BLOCK_T)
        there = (row < rows)[:, None] & real[None, :]
        batch, frame = (row // frames)[:, None], (row % frames)[:, None]
        at = batch * x_batch + frame * x_frame + channel * x_channel
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        at = batch * g_batch + frame * g_frame + channel * g_channel
        g = tl.load(grad + at, mask=there, other=0.0).to(tl.float32)
        double, square = slopes(v, a)
        slope = g * double
        at = batch * d_batch + frame * d_frame + channel * d_channel
        tl.store(dx + at, tl.fma(slope, a * inverse, g).to(dx.dtype.element_ty), mask=there)
        alphas = tl.fma(slope, v, alphas)
        betas = tl.fma(g, square, betas)
    partial += tl.program_id(0) * 2 * channels + c
    tl.store(partial, tl.sum(alphas * inverse, axis=0), mask=real)
    tl.store(partial + channels, tl.sum(-betas * inverse * inverse, axis=0), mask=real)


@triton.jit
def sum_kernel(partial, out, parts, columns, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sums over the first axis of [parts, columns]."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.arange(0, PARTS)[:, None]
    there = (part < parts) & (column < columns)[None, :]
    v = tl.load(partial + part * columns + column[None, :], mask=there, other=0.0)
    tl.store(out + column, tl.sum(v, axis=0).to(out.dtype.element_ty), mask=column < columns)


def why_not(grad: Tensor, x: Tensor, alpha: Tensor, beta: Tensor | None = None) -> str | None:
    """Any of the three kinds of float, if all are of one kind."""
    kinds = {t.dtype for t in (grad, x, alpha, beta) if t is not None}
    return None if len(kinds) == 1 and kinds <= set(FLOATS) else f"it got tensors of {kinds}"


def grid_of(rows: int) -> tuple[int, int]:
    """(partial sums a channel, tiles of frames of each)."""
    tiles = triton.cdiv(triton.cdiv(rows, BLOCK_T), PARTS)
    return triton.cdiv(rows, BLOCK_T * max(tiles, 1)), tiles


def snake_backward(
    grad: Tensor, x: Tensor, alpha: Tensor, beta: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, alpha and beta, the latter two as if they were not the same where None."""
    batch, channels, frames = x.shape
    dx = torch.empty_like(x)
    sums = x.new_empty(2, channels)
    if not x.numel():
        return dx, sums[0].zero_(), sums[1].zero_()
    parts, tiles = grid_of(batch * frames)
    partial = torch.empty(parts, 2, channels, device=x.device, dtype=torch.float32)
    beta = alpha if beta is None else beta
    launcher(snake_backward_kernel)[parts, triton.cdiv(channels, BLOCK_C)](
        *(grad, x, alpha.contiguous(), beta.contiguous(), dx, partial),
        *(batch * frames, frames, channels, tiles),
        *(t.stride(i) for t in (grad, x, dx) for i in (0, 2, 1)),
        *(BLOCK_T, BLOCK_C),
    )
    launcher(sum_kernel)[(triton.cdiv(2 * channels, 16),)](
        partial, sums, parts, 2 * channels, PARTS, 16
    )
    return dx, sums[0], sums[1]


def offline() -> list[Offline]:
    """Time-major, float32 and bf16."""
    sizes = ("rows", "frames", "channels", "tiles")
    strides = ("g_batch", "g_frame", "x_batch", "x_frame", "d_batch", "d_frame")
    pointers = ("grad", "x", "alpha", "beta", "dx")
    return [
        Offline(
            snake_backward_kernel,
            dict.fromkeys(pointers, f"*{kind}")
            | {"partial": "*fp32"}
            | dict.fromkeys(sizes + strides, "i32"),
            {"BLOCK_T": BLOCK_T, "BLOCK_C": BLOCK_C}
            | dict.fromkeys(("g_channel", "x_channel", "d_channel"), 1),
            aligned=(*pointers, *strides),
        )
        for kind in ("fp32", "bf16")
    ] + [
        Offline(
            sum_kernel,
            {"partial": "*fp32", "out": "*fp32", "parts": "i32", "columns": "i32"},
            {"PARTS": PARTS, "COLUMNS": 16},
        )
    ]
