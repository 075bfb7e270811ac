"""What this machine can do at best, measured by torch in the process that measures the rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

COPY_BYTES = 256 << 20  # read, and as much written: beyond the last-level cache
GEMM_SIZE = 2048
SPLIT = 3  # products of bf16 that "high" makes of one of float32


@dataclass(frozen=True)
class Work:
    """The least that an operation must do: floating-point operations, bytes of memory traffic."""

    flops: float = 0.0
    n_bytes: float = 0.0


@dataclass(frozen=True)
class Floors:
    """Rates at a number of threads: best of a few runs, since nothing makes a machine faster."""

    threads: int
    copy_gbps: float
    gemm_f32_gflops: float
    gemm_bf16_gflops: float
    read_gbps: float

    def of(self, work: Work, precision: str = "highest") -> tuple[str, float]:
        """Which rate binds work of a precision, and the ms it takes at that rate."""
        rate, gflops = self.gemm(precision)
        compute_ms = work.flops / gflops / 1e6
        memory_ms = work.n_bytes / self.copy_gbps / 1e6
        return (rate, compute_ms) if compute_ms >= memory_ms else ("copy", memory_ms)

    def push_ms(self, flops: float, weight_bytes: float, precision: str = "highest") -> float:
        """ms of a push: every weight read once from memory, then the arithmetic."""
        n_bytes = weight_bytes / 2 if precision == "medium" else weight_bytes
        return n_bytes / self.read_gbps / 1e6 + flops / self.gemm(precision)[1] / 1e6

    def gemm(self, precision: str) -> tuple[str, float]:
        """The matrix rate that a precision allows, and its name."""
        if precision == "medium" and self.gemm_bf16_gflops > self.gemm_f32_gflops:
            return "gemm_bf16", self.gemm_bf16_gflops
        if precision == "high" and self.gemm_bf16_gflops > SPLIT * self.gemm_f32_gflops:
            return f"gemm_bf16 / {SPLIT}", self.gemm_bf16_gflops / SPLIT
        return "gemm_f32", self.gemm_f32_gflops

    def as_row(self) -> dict[str, Any]:
        """Rounded, for the row."""
        return {
            "copy_gbps": round(self.copy_gbps, 2),
            "read_gbps": round(self.read_gbps, 2),
            "gemm_f32_gflops": round(self.gemm_f32_gflops, 1),
            "gemm_bf16_gflops": round(self.gemm_bf16_gflops, 1),
        }


def measure(threads: int) -> Floors:
    """The floors with torch set to ``threads`` threads, which stay set."""
    torch.set_num_threads(threads)
    return Floors(threads, _copy(), _gemm(torch.float32), _gemm(torch.bfloat16), _read())


def _copy() -> float:
    source = torch.ones(COPY_BYTES // 4)
    target = torch.zeros_like(source)
    return 2 * COPY_BYTES / _best(lambda: target.copy_(source), 5) / 1e9


def _read() -> float:
    """By the faster of a sum and a matrix-vector product, which do little else than read."""
    matrix, vector = torch.ones(COPY_BYTES // 4 >> 12, 1 << 12), torch.ones(1 << 12)
    seconds = min(_best(lambda: matrix.sum(), 5), _best(lambda: matrix @ vector, 5))
    return COPY_BYTES / seconds / 1e9


def _gemm(dtype: torch.dtype) -> float:
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE).to(dtype) for _ in range(2))
    return 2 * GEMM_SIZE**3 / _best(lambda: a @ b, 3) / 1e9


def _best(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest run, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)
