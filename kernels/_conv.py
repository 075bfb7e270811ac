"""What the two convolutions share: implicit GEMM over time-major memory, without im2col.

A convolution of stride s is one dense sum; a transposed one is s of them, its phases:

    y[t s + r, n] = sum over i, c of act(x[t - i, c]) w[c, n, r + i s]      for r = 0 .. s - 1

so that each output is written once, where it belongs. Both kinds are then: row t of a phase adds,
tap by tap, a window of x that moves by ``x_step`` a row and by ``x_tap`` a tap. Three forms:

* dense: tiles of rows x columns on the tensor cores, A tiles loaded from x where they lie;
* few: fewer than 16 input channels a group (first layers, depthwise), where an MMA would multiply
  padding: one term after the other by fused multiply-adds;
* last: one or two outputs a group: the lanes run over the channels, and are added pairwise.

A tile of x goes through the activation once, on its way to the registers. But taps and column tiles
load a value again: 42 times in DAC's widest residual units, where snake would take 3.5 times as
long as the bfloat16 products [reckoned: 25 instructions a value against 128 products]. Above
``FUSED_USES`` uses, x is therefore *staged*: activated once, into a time-major tensor of what
the products take, the same values.

The order of a sum is (tap, block of channels), then the form's own; it follows from the weight's
shape and the precision alone. The bias and the residual are added to the sum.

Float32 is three products of TF32 pairs (Markidis et al. 2018, arXiv:1803.04014) which Triton adds
to the sum with a rounded float32 addition after every block of channels. Tensor cores truncate
their own sums: bfloat16 products chained over 3072 terms would be off by 4e-6 of the largest
result, over 7168 by 1.5e-5; so these leave the tensor cores after every block, too: 4e-7 (computed
in float64 with sums cut to 24 bits; TF32 pairs 5e-7, float32 term by term 3e-6). ``ieee`` dots
would run on the ordinary cores, at less than half the rate of three TF32 products.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from fastcodec.kernels._tools import INT32_MOST, MEDIUM, Offline, launcher
from fastcodec.kernels.activation import KINDS, activated

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
NONE, SNAKE = tl.constexpr(0), tl.constexpr(3)
FLOATS = (torch.float32, torch.bfloat16)


@triton.jit
def rounded(v):
    """As bfloat16 has it, ties to even, in float32. Triton's interpreter has no such cast."""
    if INTERPRETED:
        bits = v.to(tl.int32, bitcast=True)
        even = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        v = tl.where(v == v, even.to(tl.float32, bitcast=True), v)
    else:
        v = v.to(tl.bfloat16).to(tl.float32)
    return v


@triton.jit
def product(a, b, ROUNDED: tl.constexpr):
    """a b, a sum of its own: not chained to the one before, see the head of this file."""
    if not ROUNDED:
        p = tl.dot(a, b, input_precision="tf32x3")
    elif INTERPRETED:  # its dot knows no bfloat16
        p = tl.dot(rounded(a.to(tl.float32)), b.to(tl.float32))
    else:
        # The limit on chained sums, which only matters to 8 bit floats, keeps the compiler from
        # merging the product with the addition that follows.
        p = tl.dot(a.to(tl.bfloat16), b, max_num_imprecise_acc=1)
    return p


@triton.jit
def prologue(v, KIND: tl.constexpr, alpha, beta, channel, there, slope):
    """The activation of v in float32; channel: of v, or of what v is broadcast against."""
    if KIND == SNAKE:
        a = tl.load(alpha + channel, mask=there, other=1.0).to(tl.float32)
        b = tl.load(beta + channel, mask=there, other=1.0).to(tl.float32)
        v = activated(v.to(tl.float32), KIND, a, 1.0 / (b + 1e-9), slope)
    else:
        v = activated(v.to(tl.float32), KIND, 1.0, 1.0, slope)
    return v


@triton.jit
def epilogue(
    total, bias, residual, out, row, column, there, frames, columns, phases, phase,
    r_batch, r_frame, r_channel,
):  # fmt: skip
    """total + bias + residual to where row (of the phase) and column are in out [B, T, N]."""
    if bias is not None:
        total += tl.load(bias + column, mask=there, other=0.0).to(tl.float32)
    if residual is not None:
        at = (row // frames) * r_batch + (row % frames) * r_frame + column.to(tl.int64) * r_channel
        total += tl.load(residual + at, mask=there, other=0.0).to(tl.float32)
    if out.dtype.element_ty == tl.bfloat16:
        total = rounded(total)
    at = (row * phases + phase) * columns + column
    tl.store(out + at, total.to(out.dtype.element_ty), mask=there)


@triton.jit
def stage_kernel(
    x, alpha, beta, out, rows, frames, channels, slope, x_batch, x_frame, x_channel,
    KIND: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """out [rows, channels]: the activation of x, rounded where out is bfloat16."""
    tiles = tl.cdiv(channels, BLOCK_N)
    row = (tl.program_id(0) // tiles).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = (tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    real = channel < channels
    there = (row < rows)[:, None] & real
    at = ((row // frames) * x_batch + (row % frames) * x_frame)[:, None]
    v = tl.load(x + at + channel.to(tl.int64) * x_channel, mask=there, other=0.0)
    v = prologue(v, KIND, alpha, beta, channel, real, slope)
    if out.dtype.element_ty == tl.bfloat16:
        v = rounded(v)
    tl.store(out + row[:, None] * channels + channel, v.to(out.dtype.element_ty), mask=there)


@triton.jit
def dense_kernel(
    x, weight, bias, residual, alpha, beta, out,
    rows, frames, channels, width, groups, kernel, phases, slope,
    x_batch, x_step, x_tap, x_channel, r_batch, r_frame, r_channel,
    KIND: tl.constexpr, ROUNDED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """weight: [kernel, groups * width, channels]. Programs that share rows of x are neighbours."""
    tiles = tl.cdiv(width, BLOCK_N)
    across = tl.program_id(0) % (tiles * groups * phases)
    down = tl.program_id(0) // (tiles * groups * phases)
    phase = across // (tiles * groups)
    group = across // tiles % groups
    row = down.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (row < rows)[:, None]
    window = (row // frames) * x_batch + (row % frames) * x_step
    n = across % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    kept = (n < width)[None, :]
    column = (group * width + n)[None, :]
    lane = tl.arange(0, BLOCK_K)
    channel = (group * channels + lane)[None, :]
    x += window[:, None] + channel.to(tl.int64) * x_channel
    weight += column * channels + lane[:, None]
    taps = (kernel - phase + phases - 1) // phases  # 0 where the kernel is shorter than its stride
    blocks = tl.cdiv(channels, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(taps * blocks):
        tap = step // blocks
        first = step % blocks * BLOCK_K
        real = lane < channels - first
        at = tap.to(tl.int64) * x_tap + first.to(tl.int64) * x_channel
        a = tl.load(x + at, mask=inside & real[None, :], other=0.0)
        if KIND != NONE:
            a = prologue(a, KIND, alpha, beta, channel + first, real[None, :], slope)
        at = (phase + tap * phases) * (groups * width) * channels + first
        b = tl.load(weight + at, mask=real[:, None] & kept, other=0.0)
        total += product(a, b, ROUNDED)
    epilogue(
        total, bias, residual, out, row[:, None], column, inside & kept,
        frames, groups * width, phases, phase, r_batch, r_frame, r_channel,
    )  # fmt: skip


@triton.jit
def few_kernel(
    x, weight, bias, residual, alpha, beta, out,
    rows, frames, channels, width, groups, kernel, phases, slope,
    x_batch, x_step, x_tap, x_channel, r_batch, r_frame, r_channel,
    KIND: tl.constexpr, ROUNDED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUPED: tl.constexpr,
):  # fmt: skip
    """weight: [kernel, channels, groups * width]; a tile's columns may be of many groups."""
    columns = groups * width
    tiles = tl.cdiv(columns, BLOCK_N)
    across = tl.program_id(0) % (tiles * phases)
    phase = across // tiles
    row = (tl.program_id(0) // (tiles * phases)).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (row < rows)[:, None]
    window = (row // frames) * x_batch + (row % frames) * x_step
    column = (across % tiles * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    kept = column < columns
    if GROUPED:
        channel = column // width * channels
        loaded = inside & kept
    else:  # one column of x, for all columns of the tile
        channel = tl.zeros((1, 1), tl.int32)
        loaded = inside
    x += window[:, None] + channel.to(tl.int64) * x_channel
    weight += column
    taps = (kernel - phase + phases - 1) // phases
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(taps * channels):
        tap = step // channels
        c = step % channels
        at = tap.to(tl.int64) * x_tap + c.to(tl.int64) * x_channel
        v = tl.load(x + at, mask=loaded, other=0.0).to(tl.float32)
        if KIND != NONE:
            v = prologue(v, KIND, alpha, beta, channel + c, channel < groups * channels, slope)
        if ROUNDED:
            v = rounded(v)
        at = ((phase + tap * phases) * channels + c) * columns
        w = tl.load(weight + at, mask=kept, other=0.0).to(tl.float32)
        v, w = tl.broadcast(v, w)
        total = tl.fma(v, w, total)
    epilogue(
        total, bias, residual, out, row[:, None], column, inside & kept,
        frames, columns, phases, phase, r_batch, r_frame, r_channel,
    )  # fmt: skip


@triton.jit
def last_kernel(
    x, weight, bias, residual, alpha, beta, out,
    rows, frames, channels, width, groups, kernel, phases, slope,
    x_batch, x_step, x_tap, x_channel, r_batch, r_frame, r_channel,
    KIND: tl.constexpr, ROUNDED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """weight: [kernel, groups * width, channels]. One column a program; BLOCK_K is 32."""
    across = tl.program_id(0) % (width * groups * phases)
    phase = across // (width * groups)
    column = across % (width * groups)
    group = column // width
    down = tl.program_id(0) // (width * groups * phases)
    row = down.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    inside = (row < rows)[:, None]
    window = (row // frames) * x_batch + (row % frames) * x_step
    lane = tl.arange(0, BLOCK_K)[None, :]
    channel = group * channels + lane
    x += window[:, None] + channel.to(tl.int64) * x_channel
    weight += column * channels + lane
    taps = (kernel - phase + phases - 1) // phases
    blocks = tl.cdiv(channels, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_K), tl.float32)
    for step in range(taps * blocks):
        tap = step // blocks
        first = step % blocks * BLOCK_K
        real = lane < channels - first
        at = tap.to(tl.int64) * x_tap + first.to(tl.int64) * x_channel
        a = tl.load(x + at, mask=inside & real, other=0.0).to(tl.float32)
        if KIND != NONE:
            a = prologue(a, KIND, alpha, beta, channel + first, real, slope)
        at = (phase + tap * phases) * (groups * width) * channels + first
        w = tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
        a, w = tl.broadcast(a, w)
        total = tl.fma(a, w, total)
    # Pairs of neighbours, and again: an order that no layout of the tile, so no alignment of x and
    # no number of warps, can change, as that of tl.sum.
    for halving in tl.static_range(1, 6):
        left, right = tl.split(tl.reshape(total, [BLOCK_M, BLOCK_K >> halving, 2]))
        total = left + right
    epilogue(
        total, bias, residual, out, row[:, None], column + tl.zeros((1, 1), tl.int32), inside,
        frames, groups * width, phases, phase, r_batch, r_frame, r_channel,
    )  # fmt: skip


class Tile(NamedTuple):
    """Rows and, at most, columns of a program's tile."""

    m: int
    n: int
    warps: int
    stages: int


# By shape class and operands: "float32", "bfloat16" that was staged, or "rounded" in the kernel.
# Results do not depend on these numbers as long as a dense M stays a multiple of 64 and its warps
# one of 4, which keeps sm_90 on one kind of MMA. They are predictions: no GPU has run them yet.
# Reckoned with: registers and shared memory as compiled (``offline``) and, short, as many programs
# as the weight has columns for: a push of one frame reads weights.
TILES = {
    ("wide", "float32"): Tile(128, 64, 8, 3),
    ("wide", "bfloat16"): Tile(128, 128, 8, 3),
    ("wide", "rounded"): Tile(64, 64, 8, 4),
    ("wide, short", "float32"): Tile(64, 32, 4, 4),
    ("wide, short", "bfloat16"): Tile(64, 32, 4, 4),
    ("wide, short", "rounded"): Tile(64, 32, 4, 4),
    ("narrow", "float32"): Tile(128, 64, 8, 3),
    ("narrow", "bfloat16"): Tile(128, 64, 8, 3),
    ("narrow", "rounded"): Tile(128, 32, 8, 3),
    ("narrow, short", "float32"): Tile(64, 16, 4, 4),
    ("narrow, short", "bfloat16"): Tile(64, 16, 4, 4),
    ("narrow, short", "rounded"): Tile(64, 16, 4, 4),
    ("first", "float32"): Tile(64, 32, 4, 1),
    ("first", "rounded"): Tile(64, 32, 4, 1),
    ("depthwise", "float32"): Tile(32, 64, 4, 1),
    ("depthwise", "bfloat16"): Tile(32, 64, 4, 1),
    ("depthwise", "rounded"): Tile(32, 64, 4, 1),
    ("last", "float32"): Tile(64, 1, 4, 2),
    ("last", "bfloat16"): Tile(64, 1, 4, 2),
    ("last", "rounded"): Tile(64, 1, 4, 2),
    ("stage", "float32"): Tile(32, 64, 4, 1),
    ("stage", "bfloat16"): Tile(32, 64, 4, 1),
}
FEW = 16  # channels a group that a dot needs
SHORT = 512  # rows
FUSED_USES = 3  # of a value of x, at most, that activate it anew
CHEAP = ("none", "leaky_relu")  # one instruction
FUSED = (*CHEAP, "elu", "snake")  # the others need more registers than a dense tile leaves


@dataclass(frozen=True)
class Shape:
    """A convolution as ``phases`` dense ones. channels, width: a group's inputs and outputs.

    What decides the order of a sum, ``form`` and ``block_k``, does not read ``rows``.
    """

    rows: int  # of a phase, all of the batch
    channels: int
    width: int
    kernel: int
    groups: int
    phases: int
    step: int  # frames of x from row to row
    activation: int
    rounded: bool  # bfloat16 products

    @property
    def form(self) -> str:
        if self.channels < FEW:
            return "few"
        return "last" if self.width <= 2 else "dense"

    @property
    def staged(self) -> bool:
        """Whether x goes through the activation before, see the head of this file."""
        cheap = KINDS[self.activation] in CHEAP and not (self.rounded and self.form == "dense")
        if cheap or (self.form == "few" and self.groups == 1):
            return False
        if self.form == "dense" and KINDS[self.activation] not in FUSED:
            return True
        columns = {"few": 1, "last": self.width, "dense": triton.cdiv(self.width, 64)}[self.form]
        return triton.cdiv(self.kernel, self.step) * columns > FUSED_USES

    @property
    def shape_class(self) -> str:
        if self.form == "few":
            return "first" if self.groups == 1 else "depthwise"
        if self.form == "last":
            return "last"
        return ("narrow" if self.width <= 64 else "wide") + ", short" * (self.rows <= SHORT)

    @property
    def tile(self) -> Tile:
        operands = "float32" if not self.rounded else "bfloat16" if self.staged else "rounded"
        tile = TILES[self.shape_class, operands]
        if self.form == "last":
            return tile
        columns = self.width * self.groups if self.form == "few" else self.width
        return tile._replace(n=min(tile.n, max(16, triton.next_power_of_2(columns))))

    @property
    def block_k(self) -> int:
        """Channels of a dot: of the blocks with the least padding the largest."""
        if self.form == "last":
            return 32
        return min(
            (16, 32, 64) if self.rounded else (16, 32),
            key=lambda block: (-(-self.channels // block) * block, -block),
        )

    @property
    def programs(self) -> int:
        tile = self.tile
        across = {
            "dense": triton.cdiv(self.width, tile.n) * self.groups,
            "few": triton.cdiv(self.width * self.groups, tile.n),
            "last": self.width * self.groups,
        }[self.form]
        return triton.cdiv(self.rows, tile.m) * across * self.phases


KERNELS = {"dense": dense_kernel, "few": few_kernel, "last": last_kernel}


def constants(shape: Shape) -> tuple[dict[str, Any], dict[str, int]]:
    """(block sizes and flags, options of the compiler) of a launch."""
    tile = shape.tile
    values = {"KIND": 0 if shape.staged else shape.activation, "ROUNDED": shape.rounded}
    values |= {"BLOCK_M": tile.m, "BLOCK_N": tile.n, "BLOCK_K": shape.block_k}
    if shape.form == "few":
        values["GROUPED"] = shape.groups > 1
    return values, {"num_warps": tile.warps, "num_stages": tile.stages}


def is_rounded(x: Tensor, channels: int, width: int, precision: int) -> bool:
    """Whether the products are of bfloat16: see ``operands`` in fastcodec/ops/conv1d.py."""
    medium = precision == MEDIUM and channels % 2 == 0 and width > 2
    return medium or x.dtype is torch.bfloat16


_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def kept(weight: Tensor, layout: object, make: Callable[[Tensor], Tensor]) -> Tensor:
    """make(weight), kept with the weight from the second call with the same one on.

    So weights that change from call to call, in training, are never kept. Those of inference mode,
    which count no changes, are not either, nor what a captured graph makes at every replay. Waits
    once for what it keeps: another stream may be the next to use it.
    """
    if type(weight) not in (Tensor, torch.nn.Parameter) or weight.is_inference():
        return make(weight.detach())
    state = (weight._version, weight.data_ptr(), layout)
    before, made = _kept.get(weight, (None, None))
    if before == state and made is not None:
        return made
    made = make(weight.detach())
    if made.data_ptr() == weight.data_ptr():  # no copy was needed
        return made
    if before != state:
        _kept[weight] = (state, None)
    elif not weight.is_cuda:
        _kept[weight] = (state, made)
    elif not torch.cuda.is_current_stream_capturing():
        torch.cuda.current_stream(weight.device).synchronize()
        _kept[weight] = (state, made)
    return made


def repacked(weight: Tensor, shape: Shape, transposed: bool) -> Tensor:
    """[kernel, channels, columns] for the form "few", else [kernel, columns, channels].

    Torch's own layout has the taps side by side, so that a tile of one tap would be read with gaps.
    """
    dtype = torch.bfloat16 if shape.rounded else weight.dtype
    few = shape.form == "few"

    def make(w: Tensor) -> Tensor:
        grouped = w.unflatten(0, (shape.groups, -1))
        if transposed:
            grouped = grouped.transpose(1, 2)  # to groups, width, channels, taps
        return grouped.permute((3, 2, 0, 1) if few else (3, 0, 1, 2)).to(dtype).contiguous()

    return kept(weight, (dtype, few, shape.groups, transposed), make)


def refusal(shape: Shape, *tensors: Tensor | None) -> str | None:
    """Float32 or bfloat16, if all are of one kind, and what 32 bit numbers of programs reach."""
    given = [t for t in tensors if t is not None]
    kinds = {t.dtype for t in given}
    if len(kinds) > 1 or not kinds <= set(FLOATS):
        return f"it takes tensors of one of {FLOATS}, got {kinds}"
    devices = {t.device for t in given}
    if len(devices) > 1:
        return f"it takes tensors of one device, got {devices}"
    most = max(given[1].numel(), shape.programs)
    return None if most <= INT32_MOST else f"its counts end at {INT32_MOST}, this needs {most}"


def check(name: str, x: Tensor, shape: Shape, frames: int, **given: Tensor | None) -> None:
    """What would otherwise make the kernels read memory that is not theirs."""
    channels, columns = shape.groups * shape.channels, shape.groups * shape.width
    if x.ndim != 3 or x.shape[1] != channels:
        raise ValueError(f"{name}: expected x [B, {channels}, T], got {tuple(x.shape)}")
    if frames < 1:
        raise ValueError(f"{name}: the {x.shape[2]} frames of x are too few for the kernel")
    if not 0 <= shape.activation < len(KINDS):
        raise ValueError(f"{name}: expected an activation of ACTIVATIONS, got {shape.activation}")
    if KINDS[shape.activation] == "snake" and given["alpha"] is None:
        raise ValueError(f"{name}: activation 'snake' needs alpha [C]")
    sizes: dict[str, tuple[int, ...]] = {
        "bias": (columns,),
        "alpha": (channels,),
        "beta": (channels,),
    }
    sizes["residual"] = (x.shape[0], columns, frames * shape.phases)
    for what, tensor in given.items():
        if tensor is not None and tensor.shape != sizes[what]:
            raise ValueError(
                f"{name}: expected {what} {list(sizes[what])}, got {tuple(tensor.shape)}"
            )


def staged(
    x: Tensor, shape: Shape, alpha: Tensor | None, beta: Tensor | None, slope: float
) -> Tensor:
    """The activation of x, time-major, as the products take it."""
    batch, channels, frames = x.shape
    dtype = torch.bfloat16 if shape.rounded else torch.float32
    tile = TILES["stage", "bfloat16" if shape.rounded else "float32"]
    out = torch.empty(batch, frames, channels, dtype=dtype, device=x.device)
    grid = (triton.cdiv(batch * frames, tile.m) * triton.cdiv(channels, tile.n),)
    launcher(stage_kernel)[grid](
        *(x, alpha, beta, out, batch * frames, frames, channels, slope),
        *(x.stride(0), x.stride(2), x.stride(1), shape.activation, tile.m, tile.n),
        num_warps=tile.warps,
    )
    return out.transpose(1, 2)


def convolve(
    name: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    alpha: Tensor | None,
    beta: Tensor | None,
    shape: Shape,
    frames: int,
    lead: int,
    tap: int,
    slope: float,
) -> Tensor:
    """[B, groups * width, frames * phases] time-major.

    Args:
        frames: of a phase
        lead: the frame of x that tap 0 of row 0 reads
        tap: frames of x from tap to tap
    """
    check(name, x, shape, frames, bias=bias, residual=residual, alpha=alpha, beta=beta)
    out = x.new_empty(x.shape[0], frames * shape.phases, shape.groups * shape.width)
    if not out.numel():
        return out.transpose(1, 2)
    if KINDS[shape.activation] == "snake" and alpha is not None:
        alpha = alpha.contiguous()
        beta = alpha if beta is None else beta.contiguous()
    else:
        alpha = beta = None
    if shape.staged:
        x, alpha, beta = staged(x, shape, alpha, beta, slope), None, None
    x = x[..., lead:]
    residual_strides = (0, 0, 0) if residual is None else residual.stride()
    values, options = constants(shape)
    launcher(KERNELS[shape.form])[(shape.programs,)](
        x,
        repacked(weight, shape, transposed=name == "conv_transpose1d"),
        None if bias is None else bias.contiguous(),
        *(residual, alpha, beta, out, shape.rows, frames, shape.channels, shape.width),
        *(shape.groups, shape.kernel, shape.phases, slope),
        *(x.stride(0), shape.step * x.stride(2), tap * x.stride(2), x.stride(1)),
        *(residual_strides[i] for i in (0, 2, 1)),
        **values,
        **options,
    )
    return out.transpose(1, 2)


def offline_of(shapes: Iterable[tuple[Shape, bool]]) -> list[Offline]:
    """Each kernel that (a convolution, whether it adds a residual) runs with, once, time-major."""
    found: dict[object, Offline] = {}
    for shape, residual in shapes:
        for one in [_offline(shape, residual)] + [_offline_stage(shape)] * shape.staged:
            found[one.kernel.__name__, str(one.types), str(one.constants)] = one
    return list(found.values())


def _offline(shape: Shape, residual: bool) -> Offline:
    values, options = constants(shape)
    snake = ["alpha", "beta"] * (KINDS[values["KIND"]] == "snake")
    pointers = ["x", "weight", "bias", "out", *["residual"] * residual, *snake]
    sizes = ["rows", "frames", "channels", "width", "groups", "kernel", "phases"]
    strides = ["x_batch", "x_step", "x_tap", "r_batch", "r_frame"]
    # What the launcher would find to be 1, or missing, is a constant.
    ones = ["x_channel", "r_channel", *(n for n in sizes if getattr(shape, n, 0) == 1)]
    missing = {"residual", "alpha", "beta"} - set(pointers)
    types = dict.fromkeys(pointers, "*fp32") | {"slope": "fp32"}
    types |= {name: "i32" for name in sizes + strides if name not in ones}
    types["weight"] = "*bf16" if shape.rounded else "*fp32"
    types["x"] = "*bf16" if shape.rounded and shape.staged else "*fp32"
    multiples = [*pointers, *(name for name in strides if shape.channels % 16 == 0)]
    multiples += [name for name in ("channels", "width") if getattr(shape, name) % 16 == 0]
    return Offline(
        KERNELS[shape.form],
        types,
        values | dict.fromkeys(ones, 1) | dict.fromkeys(sorted(missing)),
        options,
        aligned=tuple(multiples),
    )


def _offline_stage(shape: Shape) -> Offline:
    tile = TILES["stage", "bfloat16" if shape.rounded else "float32"]
    snake = ["alpha", "beta"] * (KINDS[shape.activation] == "snake")
    sizes = ["rows", "frames", "channels", "x_batch", "x_frame"]
    return Offline(
        stage_kernel,
        dict.fromkeys(["x", *snake], "*fp32")
        | {"out": "*bf16" if shape.rounded else "*fp32", "slope": "fp32"}
        | dict.fromkeys(sizes, "i32"),
        {"KIND": shape.activation, "BLOCK_M": tile.m, "BLOCK_N": tile.n, "x_channel": 1}
        | dict.fromkeys({"alpha", "beta"} - set(snake)),
        {"num_warps": tile.warps},
        aligned=("x", "out", *snake, "channels", "x_batch", "x_frame"),
    )
