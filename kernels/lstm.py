"""``lstm`` in Triton: one launch a frame, in which every layer is one frame behind that below it.

A program has a few hidden units of one layer and one row of the batch, with both products of the
frame: T + L - 1 launches in all. Nothing waits for anything inside a launch, so this is right on
every GPU and in every stream. The price is a launch a frame, which a CUDA graph makes small; the
weights come out of the second-level cache for every frame.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastcodec.kernels._tools import INT32_MOST, MEDIUM, Offline, launcher, only_float32

NARROW = 128  # hidden units: up to here fewer and larger programs


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """By exp(-2 |x|), which cancels near zero: there by its series, the next term below 1e-8."""
    s = x * x
    near = tl.fma(s, -0.053968254, 0.13333334)
    near = tl.fma(near, s, -0.33333334)
    near = tl.fma(near * s, x, x)
    e = tl.exp(-2.0 * tl.abs(x))
    far = (1.0 - e) / (1.0 + e)
    return tl.where(tl.abs(x) < 0.15, near, tl.where(x < 0, -far, far))


@triton.jit
def operand(x, MEDIUM: tl.constexpr):
    """What is multiplied: x, or x rounded to bfloat16, ties to even, as csrc/cpu/vec.h does."""
    if MEDIUM:
        bits = x.to(tl.int32, bitcast=True)
        up = bits + 0x7FFF + ((bits >> 16) & 1)
        bits = tl.where((bits & 0x7FFFFFFF) > 0x7F800000, bits | 0x400000, up)
        x = (bits & -65536).to(tl.float32, bitcast=True)
    return x


@triton.jit
def one_of(gates, number: tl.constexpr):
    """Row ``number`` of gates [4, UNITS]."""
    here = tl.arange(0, 4)[:, None] == number
    return tl.sum(tl.where(here, gates, 0.0), axis=0)


@triton.jit
def lstm_kernel(
    weight_ih, weight_hh, bias_ih, bias_hh, sequences, c, y, step, frames, hidden,
    UNITS: tl.constexpr, INPUTS: tl.constexpr, SKIP: tl.constexpr, MEDIUM: tl.constexpr,
):  # fmt: skip
    """Grid (blocks of units, batch, layers).

    sequences [layers + 1, batch, frames + 1, hidden]: the input, then what each layer gives; frame
    0 is the state before the first.
    """
    rows, layers = tl.num_programs(1), tl.num_programs(2)
    row, layer = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    frame = step - layer
    if (frame >= 0) & (frame < frames):
        # Rows of the weights: all four gates of the units.
        row_of = tl.arange(0, 4 * UNITS)
        of_gate = tl.program_id(0) * UNITS + row_of % UNITS
        weight_row = (layer * 4 + row_of // UNITS) * hidden + of_gate
        lane = tl.arange(0, INPUTS)
        own = sequences + ((layer + 1) * rows + row) * (frames + 1) * hidden
        below = sequences + (layer * rows + row) * (frames + 1) * hidden
        now, then = (frame + 1) * hidden, frame * hidden
        sums = tl.zeros((4 * UNITS, INPUTS), tl.float32)
        for first in range(0, hidden, INPUTS):
            k = first + lane
            known = k < hidden
            mask = (of_gate < hidden)[:, None] & known[None, :]
            at = weight_row[:, None] * hidden + k[None, :]
            x = operand(tl.load(below + now + k, mask=known, other=0.0), MEDIUM)
            w = operand(tl.load(weight_ih + at, mask=mask, other=0.0), MEDIUM)
            sums = tl.fma(w, x[None, :], sums)
            h = operand(tl.load(own + then + k, mask=known, other=0.0), MEDIUM)
            w = operand(tl.load(weight_hh + at, mask=mask, other=0.0), MEDIUM)
            sums = tl.fma(w, h[None, :], sums)
        bias = tl.load(bias_ih + weight_row, mask=of_gate < hidden, other=0.0)
        bias += tl.load(bias_hh + weight_row, mask=of_gate < hidden, other=0.0)
        gates = tl.reshape(tl.sum(sums, axis=1) + bias, (4, UNITS))
        opened = sigmoid(gates)
        unit = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
        there = unit < hidden
        cell = c + (layer * rows + row) * hidden + unit
        kept = one_of(opened, 1) * tl.load(cell, mask=there, other=0.0)
        state = tl.fma(one_of(opened, 0), tanh(one_of(gates, 2)), kept)
        out = one_of(opened, 3) * tanh(state)
        tl.store(cell, state, mask=there)
        tl.store(own + now + unit, out, mask=there)
        if layer == layers - 1:
            if SKIP:
                first_input = sequences + row * (frames + 1) * hidden + now + unit
                out += tl.load(first_input, mask=there, other=0.0)
            tl.store(y + (row * frames + frame) * hidden + unit, out, mask=there)


def why_not(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    packed: Tensor | None = None,
    skip: bool = False,
    precision: int = 0,
) -> str | None:
    """Float32 of fitting shapes."""
    if (reason := only_float32(x, h, c, weight_ih, weight_hh, bias_ih, bias_hh)) is not None:
        return reason
    if not 0 <= precision <= MEDIUM:
        return f"precision must be a number from 0 to {MEDIUM}, got {precision}"
    if x.dim() != 3 or weight_ih.dim() != 3 or weight_ih.shape[0] == 0:
        return f"x {tuple(x.shape)} or weight_ih {tuple(weight_ih.shape)} has not 3 dimensions"
    batch, hidden, frames = x.shape
    layers = weight_ih.shape[0]
    state, weight, bias = (
        (layers, batch, hidden),
        (layers, 4 * hidden, hidden),
        (layers, 4 * hidden),
    )
    found = [tuple(t.shape) for t in (h, c, weight_ih, weight_hh, bias_ih, bias_hh)]
    if found != [state, state, weight, weight, bias, bias]:
        return f"states and weights of shapes {found} do not fit x {tuple(x.shape)}"
    if max(batch, layers) > 65535 or max(frames, layers * 4 * hidden) > INT32_MOST - 1024:
        return f"it takes batches of up to 65535, got {batch}"  # of a grid's second axis
    return None


def blocks(hidden: int) -> dict[str, int]:
    """The compiled sizes, by the layer's only."""
    return {"UNITS": 64, "INPUTS": 64} if hidden <= NARROW else {"UNITS": 8, "INPUTS": 128}


def options(hidden: int) -> dict[str, int]:
    """As many warps as hold the sums."""
    return {"num_warps": 8 if hidden <= NARROW else 4}


def lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    packed: Tensor | None = None,
    skip: bool = False,
    precision: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``fastcodec.ops.lstm``; ``packed`` is the CPU's."""
    batch, hidden, frames = x.shape
    layers = weight_ih.shape[0]
    y = x.new_empty(batch, frames, hidden)
    state = c.clone(memory_format=torch.contiguous_format)
    sequences = x.new_empty(layers + 1, batch, frames + 1, hidden)
    sequences[0, :, 1:].copy_(x.transpose(1, 2))
    sequences[1:, :, 0].copy_(h)
    weights = [w.contiguous() for w in (weight_ih, weight_hh, bias_ih, bias_hh)]
    sizes = blocks(hidden)
    grid = (triton.cdiv(hidden, sizes["UNITS"]), batch, layers)
    kernel = launcher(lstm_kernel)
    medium = precision == MEDIUM
    for step in range(frames + layers - 1 if y.numel() else 0):
        kernel[grid](
            *weights, sequences, state, y, step, frames, hidden, *sizes.values(), skip, medium,
            **options(hidden),
        )  # fmt: skip
    return y.transpose(1, 2), sequences[1:, :, frames].clone(), state


def offline() -> list[Offline]:
    """EnCodec (512 hidden units) and a narrow layer."""
    pointers = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "sequences", "c", "y")
    types = dict.fromkeys(pointers, "*fp32") | dict.fromkeys(("step", "frames", "hidden"), "i32")
    return [
        Offline(
            lstm_kernel, types, blocks(hidden) | {"SKIP": True, "MEDIUM": medium},
            options(hidden), aligned=(*pointers, "hidden"),
        )
        for hidden, medium in ((512, False), (512, True), (64, False))
    ]  # fmt: skip
