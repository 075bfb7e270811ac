"""An hour of audio: time and peak memory of encode, each codec in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.floors import Floors, Work
from benchmarks.gates import Gate, identical, worst
from benchmarks.machine import ROOT
from benchmarks.runner import Bench, Row
from benchmarks.signals import wav
from benchmarks.work import net_flops
from fastcodec.codecs import encodec, lyra
from fastcodec.codecs.base import Codec

LIMIT_MB = 600.0  # of memory above the weights and what an import takes, input included
CODEBOOKS = {"encodec_24khz": 8, "lyra_v2": 46}
PREFIX_S = 3.0  # this much, encoded alone, must give the same codes but for its last second


def rows(bench: Bench) -> Iterator[Row]:
    """One row a codec, at the largest number of threads."""
    floors = bench.floors[-1]
    for name, count in CODEBOOKS.items():
        if bench.wanted(f"long.{name}"):
            yield _row(bench, name, count, floors)


def _row(bench: Bench, name: str, count: int, floors: Floors) -> Row:
    arguments = [name, str(count), str(bench.long_s), str(floors.threads)]
    command = [sys.executable, "-m", "benchmarks.long", *arguments]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    row = bench.row(f"long.{name}", {"seconds": bench.long_s, "B": 1, "K": count}, floors)
    if child.returncode:
        return row | {"error": f"exit code {child.returncode}: {child.stderr[-1000:]}"}
    found = json.loads(child.stdout)
    memory = Gate("MB above imports and weights", found["memory_mb"]["above_weights"], LIMIT_MB)
    gate = worst(Gate("codes unlike the prefix's", found.pop("unlike_prefix"), 0.0), memory)
    floor, floor_ms = floors.of(Work(found.pop("flops")))
    ms, parts = found["encode_s"] * 1e3, found["memory_mb"]
    row |= found | {
        "gate": gate.as_row(),
        "ours_ms": {"median": ms, "min": ms, "max": ms, "n": 1},
        "floor": floor,
        "floor_ms": round(floor_ms, 1),
        "percent_of_floor": round(100 * floor_ms / ms, 1),
        "result": f"{found['encode_s']:.0f} s, {parts['above_weights']:.0f} MB above the weights, "
        f"{parts['above_weights_and_input']:.0f} without the input",
    }
    return row if gate.passed else row | {"error": f"{gate.what}: {gate.value:.6g}"}


def measure(name: str, count: int, seconds: float, threads: int) -> dict[str, Any]:
    """Encode in this process, which must have done nothing else; weights are random."""
    torch.set_num_threads(threads)
    imports_mb = memory_mb("VmRSS")
    codec = build(name)
    tensors = [*codec.parameters(), *codec.buffers()]
    weights_mb = sum(t.numel() * t.element_size() for t in tensors) / 1e6
    x = torch.empty(1, 1, round(codec.sample_rate_hz * seconds))
    piece = wav(codec.sample_rate_hz, 1, 1)
    for start in range(0, x.shape[2], piece.shape[2]):
        part = x[..., start : start + piece.shape[2]]
        part.copy_(piece[..., : part.shape[2]])
    forget_peak()
    begin = time.perf_counter()
    tokens = codec.encode(x, n_codebooks=count).tokens
    encode_s = time.perf_counter() - begin
    peak_mb, input_mb = memory_mb("VmHWM"), x.numel() * 4 / 1e6
    prefix = codec.encode(x[..., : round(PREFIX_S * codec.sample_rate_hz)], n_codebooks=count)
    frames = max(1, min(prefix.tokens.shape[2], tokens.shape[2]) - round(codec.frame_rate_hz))
    above = peak_mb - imports_mb - weights_mb
    return {
        "encode_s": round(encode_s, 2),
        "real_time_factor": round(encode_s / seconds, 5),
        "flops": net_flops(codec.encoder, x.shape[2])
        + 2 * tokens.shape[2] * codec.quantizer.codebooks[:count].numel(),
        "unlike_prefix": identical(tokens[..., :frames], prefix.tokens[..., :frames]).value,
        "memory_mb": {
            "peak": round(peak_mb, 1),
            "imports": round(imports_mb, 1),
            "weights": round(weights_mb, 1),
            "input": round(input_mb, 1),
            "above_weights": round(above, 1),
            "above_weights_and_input": round(above - input_mb, 1),
        },
    }


def build(name: str) -> Codec:
    """A preset with its constructor's random weights: memory and time do not depend on them."""
    torch.manual_seed(0)
    codec: Codec = encodec.build(name) if name in encodec.PRESETS else lyra.build(name)
    return codec.eval().requires_grad_(False)


def memory_mb(field: str) -> float:
    """A figure of this process, such as VmRSS (resident now) or VmHWM (its peak)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    """Start the peak anew, so that building the net does not count where the kernel lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    asked = sys.argv[1:]
    print(json.dumps(measure(asked[0], int(asked[1]), float(asked[2]), int(asked[3]))))
