"""The CUDA kernel of ``residual_unit`` without a GPU: how it is cut up, and its arithmetic.

The plan and a warp's arithmetic are plain C++; a host library made of them runs every tile as the
kernel does, a warp's lanes side by side.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from fastcodec.ops import ACTIVATIONS, residual_unit
from fastcodec.ops.residual_unit import CUDA_CHANNELS, CUDA_CONTEXT, CUDA_HIDDEN

ROOT = Path(__file__).resolve().parents[2]
# The most shared memory that a block may have, by architecture (CUDA C programming guide).
SHARED = {80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 120: 99 * 1024}
PROCESSORS = 132
MEDIUM = 2


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    path = tmp_path_factory.mktemp("residual_unit") / "host.so"
    sources = [
        ROOT / "tests/kernels/residual_unit_host.cpp",
        ROOT / "csrc/cuda/residual_unit_plan.cpp",
    ]
    flags = ["-std=c++17", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}"]
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    subprocess.run([*compiler, *flags, *map(str, sources), "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


class Plan(NamedTuple):
    stationary: int
    rows16: int
    warps: int
    teams: int
    tile_frames: int
    tile_words: int
    weight_words: int
    packed_words: int
    shared_bytes: int
    blocks: int


def plan(
    library: ctypes.CDLL,
    channels: int,
    hidden: int,
    limit: int,
    medium: bool,
    batch: int = 1,
    frames: int = 441_000,
    taps: int = 7,
    dilation: int = 9,
) -> Plan:
    fields = (ctypes.c_int64 * len(Plan._fields))()
    made = library.fastcodec_residual_unit_plan(
        ctypes.c_int64(batch),
        ctypes.c_int64(frames),
        *(channels, hidden, taps, dilation, int(medium)),
        ctypes.c_int64(limit),
        PROCESSORS,
        fields,
    )
    assert made == 1
    return Plan(*fields)


def test_the_last_block_of_dac_stays_on_an_h200(library: ctypes.CDLL) -> None:
    """Both weights once a block, 144 KB, and two tiles of 128 frames."""
    one = plan(library, 96, 96, SHARED[90], medium=True)
    assert one.stationary and one.blocks == PROCESSORS
    assert one.weight_words * 4 == 8 * 96 * 96 * 2 == 144 * 1024
    assert (one.teams, one.warps, one.tile_frames) == (2, 4, 128)
    assert one.tile_words == (128 + 54) * (48 + 4)
    assert one.shared_bytes == 4 * (one.weight_words + 2 * one.tile_words)


@pytest.mark.parametrize("arch", [80, 86, 89, 120])
def test_elsewhere_its_weights_are_streamed(library: ctypes.CDLL, arch: int) -> None:
    one = plan(library, 96, 96, SHARED[arch], medium=True)
    assert not one.stationary and one.shared_bytes == 4 * one.teams * one.tile_words
    assert one.blocks == -(-441_000 // one.tile_frames // one.teams)


def test_whatever_is_not_refused_fits_every_gpu(library: ctypes.CDLL) -> None:
    for arch, limit in SHARED.items():
        for hidden in CUDA_HIDDEN:
            for channels in range(16, CUDA_CHANNELS + 1, 16):
                for medium in (False, True):
                    one = plan(
                        library, channels, hidden, limit, medium, taps=CUDA_CONTEXT + 1, dilation=1
                    )
                    assert one.shared_bytes <= limit, (arch, channels, hidden, medium)
                    assert 32 * one.warps * one.teams <= 256
                    assert one.tile_frames == 16 * one.rows16 * one.warps
                    assert one.rows16 * hidden <= 256  # sums a thread: half as many registers


@pytest.mark.parametrize("batch, frames", [(0, 10), (3, 0), (1, 1), (5, 129), (70_000, 400)])
def test_any_number_of_frames(library: ctypes.CDLL, batch: int, frames: int) -> None:
    for medium in (False, True):
        one = plan(library, 96, 96, SHARED[90], medium, batch, frames)
        tiles = batch * -(-frames // one.tile_frames)
        assert one.blocks <= -(-tiles // one.teams) and (one.blocks > 0) == (tiles > 0)
        assert not one.stationary or one.blocks <= PROCESSORS


Args = tuple[Any, ...]


def arguments(
    c: int, hidden: int, k: int, dilation: int, frames: int, kind: str, medium: bool, batch: int = 2
) -> Args:
    g = torch.Generator().manual_seed(c + hidden)

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    context = (k - 1) * dilation
    alphas = (r(c).abs() + 0.2, r(hidden).abs() + 0.2) if kind == "snake" else (None, None)
    x, weight, point = r(batch, c, frames + context), r(hidden, c, k), r(c, hidden, 1)
    weight, point = weight / (c * k) ** 0.5, point / hidden**0.5
    args = (x, weight, r(hidden), alphas[0], point, r(c), alphas[1])
    return (*args, dilation, 1, context // 2, ACTIVATIONS[kind], 0.2, MEDIUM * medium)


def run(library: ctypes.CDLL, args: Args, limit: int = SHARED[90]) -> Tensor:
    """By the kernel's arithmetic, from a result full of NaN."""
    x, *tensors = args[:7]
    dilation, _, left, activation, slope, precision = args[7:]
    (hidden, channels, taps), batch = tensors[0].shape, x.shape[0]
    frames = x.shape[2] - (taps - 1) * dilation
    rows = x.transpose(1, 2).contiguous()
    out = torch.full((batch, frames, channels), float("nan"))
    pointers = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in (rows, *tensors, out)]
    made = library.run_residual_unit(
        *pointers,
        ctypes.c_int64(batch),
        ctypes.c_int64(frames),
        *(channels, hidden, taps, dilation, left, activation, ctypes.c_float(slope)),
        int(precision == MEDIUM),
        ctypes.c_int64(limit),
    )
    assert made == 1
    return out.transpose(1, 2)


def error(got: Tensor, args: Args) -> float:
    """The largest difference from the reference in float64, relative to the largest value."""
    exact = residual_unit.reference(*(a.double() if isinstance(a, Tensor) else a for a in args))
    return float((got.double() - exact).abs().max() / exact.abs().max())


# (channels, hidden channels, kernel, dilation, frames, activation)
SHAPES = [
    (96, 96, 7, 9, 150, "snake"),
    (192, 192, 7, 1, 20, "snake"),
    (64, 32, 3, 1, 129, "elu"),
    (16, 64, 1, 1, 1, "leaky_relu"),
    (48, 128, 3, 2, 17, "none"),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_arithmetic_of_float32(library: ctypes.CDLL, shape: Any) -> None:
    args = arguments(*shape, medium=False)
    assert error(run(library, args), args) <= 3e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_the_arithmetic_of_medium(library: ctypes.CDLL, shape: Any) -> None:
    """Whole numbers and a slope of one half: no sum is rounded, so no value lies near a tie."""
    *sizes, _ = shape
    args = list(arguments(*sizes, "leaky_relu", medium=True))
    g = torch.Generator().manual_seed(1)
    args[0] = torch.randint(-700, 700, args[0].shape, generator=g).float()
    for i in (1, 2, 4, 5):
        args[i] = torch.randint(-2, 3, args[i].shape, generator=g).float()
    args[11] = 0.5
    assert args[0].bfloat16().float().ne(args[0]).any()  # the operands are rounded
    want = residual_unit.reference(*(a.double() if isinstance(a, Tensor) else a for a in args))
    assert torch.equal(run(library, tuple(args)).double(), want)


@pytest.mark.parametrize("shape", SHAPES)
def test_medium_with_a_curve(library: ctypes.CDLL, shape: Any) -> None:
    """A hidden value beside a tie may go either way: 2^-8 of it."""
    args = arguments(*shape, medium=True)
    assert error(run(library, args), args) <= 2**-8


@pytest.mark.parametrize("medium", [False, True])
def test_the_same_bits_from_any_tile(library: ctypes.CDLL, medium: bool) -> None:
    """Whatever the GPU's shared memory, the batch, and where a signal is cut."""
    args = arguments(96, 96, 7, 3, 70, "snake", medium)
    whole = run(library, args)
    for limit in (SHARED[80], SHARED[86], 40 * 1024):
        assert torch.equal(run(library, args, limit), whole)
    x, *rest = args
    for begin, end in ((0, 1), (1, 40), (40, 70)):
        part = run(library, (x[1:, :, begin : end + 18], *rest))
        assert torch.equal(part, whole[1:, :, begin:end])


@pytest.mark.parametrize("medium", [False, True])
@pytest.mark.parametrize("kind", ["none", "elu", "snake"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_visible(
    library: ctypes.CDLL, value: float, kind: str, medium: bool
) -> None:
    args = arguments(32, 32, 3, 2, 24, kind, medium)
    args[0][1, 5, 9] = value
    got = run(library, args)
    want = residual_unit.reference(*(a.double() if isinstance(a, Tensor) else a for a in args))
    assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.isinf(), want.isinf())
