"""The CUDA kernels' own source, run thread by thread on the CPU, against the references."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fastcodec import ops

from ..conftest import ROOT
from ..ops.test_contract import assert_nearest

KERNELS = ("rvq_encode.cu", "rvq_decode.cu", "snake.cu", "lstm.cu", "plan.cpp")
FOLDER = ROOT / "tests/kernels/emulated"
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All launchers, compiled as C++ against the headers of ``emulated``."""
    folder = tmp_path_factory.mktemp("emulated")
    sources = [ROOT / "csrc/cuda" / name for name in KERNELS] + [FOLDER / "library.cpp"]
    flags = ["-x", "c++", "-std=c++17", "-O1", "-fPIC", "-w", f"-I{FOLDER}", f"-I{ROOT}/csrc"]
    objects = [folder / f"{source.name}.o" for source in sources]
    for source, target in zip(sources, objects, strict=True):
        subprocess.run(["g++", *flags, "-c", source, "-o", target], check=True)
    subprocess.run(["g++", "-shared", *objects, "-o", folder / "library.so"], check=True)
    return ctypes.CDLL(str(folder / "library.so"))


@pytest.fixture(params=["forwards", "backwards"])
def order(request: pytest.FixtureRequest, gpu: ctypes.CDLL) -> Iterator[None]:
    """Threads in rising and in falling order: what depends on it is a race."""
    gpu.run_backwards(int(request.param == "backwards"))
    yield
    gpu.run_backwards(0)


def at(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


def longs(*values: int) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


def n(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def encode(gpu: ctypes.CDLL, x: Tensor, books: Tensor, capability: int) -> Tensor:
    codes = torch.full((x.shape[0], books.shape[0], x.shape[2]), -9)
    assert gpu.rvq_encode(
        *(at(x), longs(*x.stride()), at(books), at(codes), n(x.shape[0]), n(x.shape[2])),
        *(books.shape[2], books.shape[1], books.shape[0], capability),
    )
    return codes


# (batch, D, T, K, N): one word, odd sizes, more words than a block holds, words of 4 blocks a CTA
SEARCHES = [(1, 1, 1, 1, 2), (3, 7, 2, 2, 5), (2, 33, 25, 3, 65), (1, 24, 3, 2, 1100)]


@pytest.mark.parametrize("capability", [80, 86, 90])
@pytest.mark.parametrize("shape", SEARCHES)
def test_rvq_encode(gpu: ctypes.CDLL, order: None, shape: tuple[int, ...], capability: int) -> None:
    batch, d, frames, k, words = shape
    x, books = random(batch, d, frames), random(k, words, d, seed=1)
    codes = encode(gpu, x, books, capability)
    assert_nearest(codes, (x, books), 3e-6)
    time_major = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(encode(gpu, time_major, books, capability), codes)
    for b in range(batch):
        assert torch.equal(encode(gpu, x[b : b + 1], books, capability), codes[b : b + 1])


@pytest.mark.parametrize("capability", [80, 90])
def test_rvq_encode_of_the_usual_sizes(gpu: ctypes.CDLL, capability: int) -> None:
    """1024 words of 128 features, and more rows than one tile of a cluster has."""
    x, books = random(1, 128, 20), random(2, 1024, 128, seed=1)
    codes = encode(gpu, x, books, capability)
    assert_nearest(codes, (x, books), 3e-6)
    assert torch.equal(encode(gpu, x, books, 170 - capability), codes)


@pytest.mark.parametrize("capability", [80, 90])
def test_rvq_encode_of_near_ties(gpu: ctypes.CDLL, order: None, capability: int) -> None:
    """TF32 cannot tell these words apart: there are more candidates than the list has room for."""
    base = random(1, 16, seed=2)
    words = base + 2e-6 * random(400, 16, seed=3)
    x = words[torch.arange(5, 400, 21)].T[None].contiguous()
    codes = encode(gpu, x, words[None], capability)
    assert_nearest(codes, (x, words[None]), 3e-7)
    first = torch.cat([words, words])[None].contiguous()
    assert torch.equal(encode(gpu, x, first, capability), codes)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38, 1e-42])
def test_rvq_encode_of_odd_values(gpu: ctypes.CDLL, capability: int, value: float) -> None:
    x, books = random(1, 12, 20), random(3, 150, 12, seed=1)
    broken = x.clone()
    broken[0, 5, 4] = value
    clean, got = (encode(gpu, v, books, capability) for v in (x, broken))
    assert 0 <= got.min() and got.max() < 150
    got[..., 4] = clean[..., 4]
    assert torch.equal(got, clean)
    words = books.clone()
    words[0, 7, 3] = value
    codes = encode(gpu, x, words, capability)
    assert 0 <= codes.min() and codes.max() < 150


def test_rvq_decode(gpu: ctypes.CDLL) -> None:
    for d in (32, 33):
        books = random(4, 64, d)
        codes = torch.randint(-1, 64, (2, 3, 30), generator=torch.Generator().manual_seed(0))
        out = torch.full((2, 30, d), 7.0)
        sizes = (n(2), n(30), d, 64, 3)
        gpu.rvq_decode(at(codes), longs(*codes.stride()), at(books), at(out), *sizes)
        want = ops.rvq_decode.reference(codes, books).transpose(1, 2)
        assert torch.equal(out, want)
        codes[1, 2, 5] = 64
        gpu.rvq_decode(at(codes), longs(*codes.stride()), at(books), at(out), *sizes)
        bad = torch.zeros(2, 30, 1, dtype=torch.bool)
        bad[1, 5] = True
        assert torch.equal(out.isnan(), bad.expand_as(out))


# [B, C, T] and whether time-major: vectors within a channel, across channels, and neither
SIGNALS = [((2, 5, 12), False), ((2, 8, 9), True), ((1, 3, 7), False), ((2, 33, 600), True)]


@pytest.mark.parametrize("shape, time_major", SIGNALS)
def test_snake(gpu: ctypes.CDLL, shape: tuple[int, int, int], time_major: bool) -> None:
    batch, c, frames = shape
    x, alpha, beta = 4 * random(*shape), random(c, seed=1), random(c, seed=2).abs() + 0.1
    x[0, 0, :3] = torch.tensor([2e7, float("inf"), float("nan")])
    alpha[0] = 3.0
    laid_out = x.transpose(1, 2).contiguous() if time_major else x
    out = torch.empty_like(laid_out)
    inner = 1 if time_major else frames
    gpu.snake(at(laid_out), at(alpha), at(beta), at(out), n(x.numel()), n(c), n(inner))
    got = out.transpose(1, 2) if time_major else out
    want = ops.snake.reference(x.double(), alpha.double(), beta.double())
    torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=2e-5, equal_nan=True)


@pytest.mark.parametrize("shape, time_major", SIGNALS)
def test_snake_backward(
    gpu: ctypes.CDLL, order: None, shape: tuple[int, int, int], time_major: bool
) -> None:
    batch, c, frames = shape
    leaves = [random(*shape), random(c, seed=1), random(c, seed=2).abs() + 0.5]
    grad = random(*shape, seed=3)
    exact = [v.double().requires_grad_() for v in leaves]
    want = torch.autograd.grad(ops.snake.reference(*exact), exact, grad.double())
    x, g = (v.transpose(1, 2).contiguous() if time_major else v for v in (leaves[0], grad))
    dx, d_alpha, d_beta = torch.empty_like(x), torch.empty(c), torch.empty(c)
    pointers = (at(t) for t in (g, x, leaves[1], leaves[2], dx, d_alpha, d_beta))
    gpu.snake_backward(*pointers, n(batch), n(c), n(frames), int(time_major))
    got = (dx.transpose(1, 2) if time_major else dx, d_alpha, d_beta)
    for mine, theirs in zip(got, want, strict=True):
        assert (mine.double() - theirs).abs().max() <= 2e-6 * theirs.abs().max()


def layer(
    gpu: ctypes.CDLL,
    x: Tensor,
    state: list[Tensor],
    weights: list[Tensor],
    capability: int,
    **how: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, h, c) of one layer by the emulated kernels."""
    batch, hidden, frames = x.shape
    h, c, y = (
        torch.empty(batch, hidden),
        torch.empty(batch, hidden),
        torch.empty(batch, frames, hidden),
    )
    pointers = (at(t) for t in (*weights, *state, h, c, y))
    sizes = (n(batch), n(frames), hidden, how.get("skip", 0), how.get("medium", 0), capability)
    assert gpu.lstm_layer(at(x), longs(*x.stride()), *pointers, *sizes)
    return y.transpose(1, 2), h, c


# (batch, H, T): one block; a cluster of 2 and of 16, of units that are not full, rows of 1, 2 and 4
LAYERS = [(1, 1, 2), (2, 17, 3), (9, 40, 2), (17, 33, 2), (1, 300, 2)]


@pytest.mark.parametrize("medium", [0, 1])
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("batch, hidden, frames", LAYERS)
def test_lstm(
    gpu: ctypes.CDLL,
    order: None,
    batch: int,
    hidden: int,
    frames: int,
    capability: int,
    medium: int,
) -> None:
    x, scale = random(batch, hidden, frames), hidden**-0.5
    state = [random(batch, hidden, seed=1), random(batch, hidden, seed=2)]
    weights = [scale * random(4 * hidden, hidden, seed=s) for s in (3, 4)]
    weights += [random(4 * hidden, seed=s) for s in (5, 6)]
    got = layer(gpu, x, state, weights, capability, skip=1, medium=medium)
    double = [t.double()[None] for t in (*state, *weights)]
    want = ops.lstm.reference(x.double(), *double, None, True, 2 * medium)
    for mine, exact in zip(got, (want[0], want[1][0], want[2][0]), strict=True):
        error = (mine.double() - exact).abs().max() / exact.abs().max()
        # What is rounded twice, or falls on the other side of a tie, is off by a step of bfloat16.
        assert error <= (2e-3 if medium else 3e-6)
    other = layer(gpu, x, state, weights, 170 - capability, skip=1, medium=medium)
    assert all(torch.equal(a, b) for a, b in zip(got, other, strict=True))
    for b in range(0, batch, 5):
        alone = [t[b : b + 1] for t in (x, *state)]
        single = layer(gpu, alone[0], alone[1:], weights, capability, skip=1, medium=medium)
        assert all(torch.equal(a, t[b : b + 1]) for a, t in zip(single, got, strict=True))
    y, *carried = layer(gpu, x[..., :1], state, weights, capability, skip=1, medium=medium)
    rest = layer(gpu, x[..., 1:], carried, weights, capability, skip=1, medium=medium)
    assert torch.equal(torch.cat([y, rest[0]], dim=2), got[0])
    assert all(torch.equal(a, b) for a, b in zip(rest[1:], got[1:], strict=True))
