"""Times of the GPU's own clock, replayed as graphs where that is possible; and its floors."""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Run = Callable[[], Any]
Row = dict[str, Any]

SAMPLE_MS = 1.0  # shorter runs are captured several times into one graph
MOST_IN_ONE = 64
ROUNDS = 21
BUDGET_S = 1.2  # of a case's rounds
COPY_BYTES = 2 << 30
SIZE = 8192  # of the matrix products


@dataclass(frozen=True)
class Side:
    """One way to do a case's work.

    Args:
        name: with its version or backend
        run: does it
        absent: why it cannot be run here
    """

    name: str
    run: Run | None = None
    absent: str | None = None


@dataclass
class Timed:
    """A side that is ready to be measured."""

    side: Side
    launch: Run
    calls: int
    how: str  # "graph", or "eager" and why
    ms: list[float] = field(default_factory=list)

    def as_row(self) -> Row:
        """Median, quartiles and extremes of a call, and how it was launched."""
        low, median, high = statistics.quantiles(self.ms, n=4)
        return {
            "median_us": round(1e3 * median, 2),
            "quartiles_us": [round(1e3 * low, 2), round(1e3 * high, 2)],
            "min_us": round(1e3 * min(self.ms), 2),
            "n": len(self.ms),
            "launched": self.how,
        }


def prepare(side: Side, graph: bool = True) -> Timed:
    """Warm it up, and capture it where that can be done."""
    run = side.run
    assert run is not None
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    once = min(elapsed_ms(run) for _ in range(3))
    calls = max(1, min(MOST_IN_ONE, round(SAMPLE_MS / max(once, 1e-3))))

    def several() -> None:
        for _ in range(calls):
            run()

    if not graph:
        return Timed(side, several, calls, "eager")
    captured = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(captured, stream=stream):
            several()
    except Exception as error:  # a peer that waits for the host
        torch.cuda.synchronize()
        return Timed(side, several, calls, f"eager: {_line(error)}")
    return Timed(side, captured.replay, calls, "graph")


def in_turns(timed: Sequence[Timed], rounds: int = ROUNDS, budget_s: float = BUDGET_S) -> None:
    """Fill in ``ms``; the i-th samples were taken one after the other, every other round
    backwards."""
    for one in timed:
        one.launch()
    end = time.monotonic() + budget_s
    for i in range(rounds):
        for one in timed if i % 2 == 0 else list(reversed(timed)):
            one.ms.append(elapsed_ms(one.launch) / one.calls)
        if i >= 4 and time.monotonic() > end:
            break


def elapsed_ms(run: Run) -> float:
    """Between two events around a call, all before it done."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def floors() -> dict[str, float]:
    """Copy rate in GB/s (read and written), TFLOP/s of torch's matrix product; the best of five."""
    found = {"copy_gbps": 2 * COPY_BYTES / _copy_ms() / 1e6}
    setting = torch.backends.cuda.matmul
    before = setting.fp32_precision
    for name, kind, precision in (
        ("bf16_tflops", torch.bfloat16, before),
        ("tf32_tflops", torch.float32, "tf32"),
        ("f32_tflops", torch.float32, "ieee"),
    ):
        a, b = (torch.randn(SIZE, SIZE, device="cuda").to(kind) for _ in range(2))
        setting.fp32_precision = precision
        found[name] = 2 * SIZE**3 / _best(lambda a=a, b=b: a @ b) / 1e9
    setting.fp32_precision = before
    return {name: round(value, 1) for name, value in found.items()}


def _copy_ms() -> float:
    source = torch.zeros(COPY_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    return _best(lambda: target.copy_(source))


def _best(run: Run) -> float:
    run()
    return min(elapsed_ms(run) for _ in range(5))


def gpu() -> Row:
    """What a row says about the GPU: its name, driver, clocks and temperature at this moment."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    facts: Row = {
        "name": properties.name,
        "sms": properties.multi_processor_count,
        "memory_gb": round(properties.total_memory / 1e9, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
    }
    names = (
        "driver_version",
        "clocks.sm",
        "clocks.mem",
        "clocks.max.sm",
        "temperature.gpu",
        "power.draw",
    )
    ask = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return facts
    values = answer.splitlines()[0].split(", ") if answer else []
    return facts | dict(zip(names, values, strict=False))


def slug() -> str:
    """A folder's name, such as ``h200``."""
    name = torch.cuda.get_device_name().lower().replace("nvidia", "")
    return re.sub(r"[^a-z0-9]+", "_", name).strip("_")


def _line(error: Exception) -> str:
    return (
        f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error) else ''}"
    )
