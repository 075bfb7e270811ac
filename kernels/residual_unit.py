"""``residual_unit`` in Triton: a program makes a tile of frames with all their channels.

    for each block of hidden channels:
        x [frames + context, C] ── act ── a dot a tap ──> [frames, BLOCK_H] ── act ── a dot ── sum
    y [frames, C] = sum + bias + x

What lies between the two convolutions never leaves the chip. Every tap loads and activates its own
window of the tile. The order of a sum is taps, then blocks of ``BLOCK_K`` channels; of the second
convolution, blocks of ``BLOCK_H``.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._tools import MEDIUM, Offline, launcher
from fastcodec.kernels.snake import snaked

NONE, ELU, LEAKY_RELU, SNAKE = (tl.constexpr(kind) for kind in range(4))
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
MOST = 256  # channels whose sums fit the registers of a program
BLOCK_K = 32  # channels of a dot: part of the order of summation


@triton.jit
def activated(v, alpha, ACTIVATION: tl.constexpr, slope):
    """Of float32 values; alpha is broadcast along the channels."""
    if ACTIVATION == SNAKE:
        v = snaked(v, alpha, 1.0 / (alpha + 1e-9))
    if ACTIVATION == ELU:
        v = tl.where(v > 0, v, tl.exp(tl.where(v > 0, 0.0, v)) - 1.0)
    if ACTIVATION == LEAKY_RELU:
        v = tl.where(v > 0, v, v * slope)
    return v


@triton.jit
def to_bf16(v):
    """Rounded to bfloat16, ties to even; interpreted, as float32: there a dot knows no other."""
    if INTERPRETED:
        bits = v.to(tl.int32, bitcast=True)
        even = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        return tl.where(v == v, even.to(tl.float32, bitcast=True), v)
    else:
        return v.to(tl.bfloat16)


@triton.jit
def product(a, b, total, BF16: tl.constexpr):
    """total + a b; of bfloat16 or of float32 values, the latter as three products of TF32 pairs."""
    if BF16:
        total = tl.dot(to_bf16(a), to_bf16(b), total)
    else:
        total = tl.dot(a, b, total, input_precision="tf32x3")
    return total


@triton.jit
def residual_unit_kernel(
    x,
    weight,
    bias,
    alpha,
    point_weight,
    point_bias,
    point_alpha,
    out,
    frames,
    slope,
    x_batch,
    x_frame,
    x_channel,
    dilation,
    left,
    CHANNELS: tl.constexpr,
    HIDDEN: tl.constexpr,
    TAPS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    DEPTHWISE: tl.constexpr,
    FIRST_BF16: tl.constexpr,
    SECOND_BF16: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """weight [TAPS, C, H] or, one channel a group, [TAPS, H]; point_weight [H, C]; out [B, T, C].

    A vector that is not there is given as any other: a flag would double the variants, so the
    launcher passes zeros for a bias.
    """
    tiles = tl.cdiv(frames, BLOCK_T)
    row = (tl.program_id(0) // tiles).to(tl.int64)
    frame = (tl.program_id(0) % tiles).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = frame < frames
    x += row * x_batch
    n = tl.arange(0, BLOCK_N)
    kept = n < CHANNELS
    y = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for first in range(0, HIDDEN, BLOCK_H):
        h = first + tl.arange(0, BLOCK_H)
        real = h < HIDDEN
        total = tl.zeros((BLOCK_T, BLOCK_H), tl.float32)
        if DEPTHWISE:
            a = tl.load(alpha + h, mask=real, other=1.0)[None, :]
            for tap in range(TAPS):
                at = (frame + tap * dilation)[:, None] * x_frame + h[None, :] * x_channel
                v = tl.load(x + at, mask=inside[:, None] & real[None, :], other=0.0)
                w = tl.load(weight + tap * HIDDEN + h, mask=real, other=0.0)
                total = tl.fma(activated(v, a, ACTIVATION, slope), w[None, :], total)
        else:
            for tap in range(TAPS):
                for block in range(0, CHANNELS, BLOCK_K):
                    c = block + tl.arange(0, BLOCK_K)
                    there = c < CHANNELS
                    at = (frame + tap * dilation)[:, None] * x_frame + c[None, :] * x_channel
                    v = tl.load(x + at, mask=inside[:, None] & there[None, :], other=0.0)
                    a = tl.load(alpha + c, mask=there, other=1.0)[None, :]
                    w = tl.load(
                        weight + (tap * CHANNELS + c)[:, None] * HIDDEN + h[None, :],
                        mask=there[:, None] & real[None, :],
                        other=0.0,
                    )
                    total = product(activated(v, a, ACTIVATION, slope), w, total, FIRST_BF16)
        total += tl.load(bias + h, mask=real, other=0.0)[None, :]
        a = tl.load(point_alpha + h, mask=real, other=1.0)[None, :]
        # What is beyond H is zero: a NaN of x times a zero there would be one.
        hidden = tl.where(real[None, :], activated(total, a, ACTIVATION, slope), 0.0)
        w = tl.load(
            point_weight + h[:, None] * CHANNELS + n[None, :],
            mask=real[:, None] & kept[None, :],
            other=0.0,
        )
        y = product(hidden, w, y, SECOND_BF16)
    y += tl.load(point_bias + n, mask=kept, other=0.0)[None, :]
    there = inside[:, None] & kept[None, :]
    y += tl.load(
        x + (frame + left)[:, None] * x_frame + n[None, :] * x_channel, mask=there, other=0.0
    )
    tl.store(out + (row * frames + frame)[:, None] * CHANNELS + n[None, :], y, mask=there)


def why_not(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    alpha: Tensor | None,
    point_weight: Tensor,
    point_bias: Tensor | None,
    point_alpha: Tensor | None,
    dilation: int = 1,
    groups: int = 1,
    left: int = 0,
    activation: int = 0,
    slope: float = 0.0,
    precision: int = 0,
) -> str | None:
    """Float32; the first convolution whole or one channel a group; hidden channels on the chip."""
    vectors = (bias, alpha, point_bias, point_alpha)
    kinds = {t.dtype for t in (x, weight, point_weight, *vectors) if t is not None}
    if kinds != {torch.float32}:
        return f"it takes float32 tensors, got {kinds}"
    hidden, channels = weight.shape[0], x.shape[1]
    if groups != 1 and not groups == hidden == channels:
        return f"its first convolution has one group or one for each channel, got {groups}"
    if max(hidden, channels) > MOST:
        return f"it takes up to {MOST} channels, got {channels} and {hidden} hidden ones"
    if activation > SNAKE.value:
        return f"its activation is none, ELU, leaky ReLU or snake, got number {activation}"
    return None


def residual_unit(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    alpha: Tensor | None,
    point_weight: Tensor,
    point_bias: Tensor | None,
    point_alpha: Tensor | None,
    dilation: int = 1,
    groups: int = 1,
    left: int = 0,
    activation: int = 0,
    slope: float = 0.0,
    precision: int = 0,
) -> Tensor:
    """See ``fastcodec.ops.residual_unit``."""
    (hidden, per_group, taps), channels = weight.shape, x.shape[1]
    frames = x.shape[2] - (taps - 1) * dilation
    if not 0 <= left <= x.shape[2] - frames:
        raise ValueError(
            f"residual_unit: left must be 0 to {x.shape[2] - frames}, got {left}: no such frame"
        )
    out = x.new_empty(x.shape[0], frames, channels)
    constants = blocks(channels, hidden, taps, activation, groups > 1, precision, per_group)
    if out.numel():
        grid = (triton.cdiv(frames, constants["BLOCK_T"]) * x.shape[0],)
        launcher(residual_unit_kernel)[grid](
            x,
            weight.permute(2, 1, 0).contiguous(),
            x.new_zeros(hidden) if bias is None else bias.contiguous(),
            weight if alpha is None else alpha.contiguous(),
            point_weight[:, :, 0].t().contiguous(),
            x.new_zeros(channels) if point_bias is None else point_bias.contiguous(),
            weight if point_alpha is None else point_alpha.contiguous(),
            out,
            frames,
            slope,
            x.stride(0),
            x.stride(2),
            x.stride(1),
            dilation,
            left,
            num_warps=8 if constants["BLOCK_N"] > 64 else 4,
            **constants,
        )
    return out.transpose(1, 2)


def blocks(
    channels: int,
    hidden: int,
    taps: int,
    activation: int,
    depthwise: bool,
    precision: int,
    per_group: int,
) -> dict[str, int]:
    """The kernel's constants; only ``BLOCK_T`` may be changed without changing the sums."""
    wide = max(16, triton.next_power_of_2(max(channels, hidden)))
    medium = precision == MEDIUM
    most_hidden = (128 if wide <= 128 else 64) if medium else 32
    return {
        "CHANNELS": channels,
        "HIDDEN": hidden,
        "TAPS": taps,
        "ACTIVATION": activation,
        "DEPTHWISE": depthwise,
        # As ``operands`` of conv1d: few results, or odd inputs, stay float32.
        "FIRST_BF16": medium and per_group % 2 == 0 and hidden > 2,
        "SECOND_BF16": medium and hidden % 2 == 0 and channels > 2,
        "BLOCK_T": 64 if wide <= 128 else 32,
        "BLOCK_K": BLOCK_K,
        "BLOCK_H": max(16, min(triton.next_power_of_2(hidden), most_hidden)),
        "BLOCK_N": max(16, triton.next_power_of_2(channels)),
    }


def offline() -> list[Offline]:
    """DAC's last two blocks and SNAC's, in float32 and with bfloat16 products."""
    tensors = ("x", "weight", "bias", "alpha", "point_weight", "point_bias", "point_alpha", "out")
    strides = ("x_batch", "x_frame", "x_channel")
    sizes = dict.fromkeys(("frames", *strides, "dilation", "left"), "i32")
    types = dict.fromkeys(tensors, "*fp32") | sizes | {"slope": "fp32"}
    made = []
    for channels, depthwise in ((96, False), (192, False), (96, True)):
        for precision in (0, MEDIUM):
            per_group = 1 if depthwise else channels
            constants = blocks(channels, channels, 7, SNAKE.value, depthwise, precision, per_group)
            options = {"num_warps": 8 if constants["BLOCK_N"] > 64 else 4}
            one = {"x_channel": 1}  # of time-major memory, as the launcher finds it
            kind = {name: type for name, type in types.items() if name not in one}
            made.append(
                Offline(
                    residual_unit_kernel,
                    kind,
                    {**one, **constants},
                    options,
                    aligned=(*tensors, "x_batch", "x_frame"),
                )
            )
    return made
