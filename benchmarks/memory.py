"""Peak memory of a short and of a long signal, encoded and decoded, each in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch

from benchmarks.gates import Gate
from benchmarks.long import forget_peak, memory_mb
from benchmarks.machine import ROOT
from benchmarks.runner import Bench, Row
from benchmarks.signals import wav
from fastcodec.codecs.base import Codec

LIMIT = 1.2  # times the peak of the short signal
SEGMENT_S = 10.0  # of codecs that need whole signals
# Preset -> the module of its family.
PRESETS = {
    "encodec_24khz": "encodec",
    "encodec_48khz": "encodec",
    "dac_44khz": "dac",
    "dac_24khz": "dac",
    "snac_24khz": "snac",
    "speechtokenizer_16khz": "speechtokenizer",
    "mimi_24khz": "mimi",
    "hifi_24k_320d": "hificodec",
    "audiodec_24khz_libritts": "audiodec",
    "funcodec_en_16k_nq32ds320": "funcodec",
    "lyra_v2": "lyra",
}


def rows(bench: Bench) -> Iterator[Row]:
    """One row a codec, at the largest number of threads."""
    for name in PRESETS:
        if bench.wanted(f"memory.{name}"):
            yield _row(bench, name)


def _row(bench: Bench, name: str) -> Row:
    floors = bench.floors[-1]
    row = bench.row(f"memory.{name}", {"seconds": list(bench.memory_s), "B": 1}, floors)
    found = []
    for seconds in bench.memory_s:
        arguments = [name, str(seconds), str(floors.threads)]
        command = [sys.executable, "-m", "benchmarks.memory", *arguments]
        child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if child.returncode:
            return row | {"error": f"exit code {child.returncode}: {child.stderr[-1000:]}"}
        found.append(json.loads(child.stdout))
    short, long = (part["peak_mb"] for part in found)
    gate = Gate("peak of the long signal / of the short one", long / short, LIMIT)
    row |= {"gate": gate.as_row(), "runs": found}
    row["result"] = f"{short:.0f} MB, {long:.0f} MB: {long / short:.2f} times"
    return row if gate.passed else row | {"error": f"{gate.what}: {gate.value:.3g}"}


def measure(name: str, seconds: float, threads: int) -> dict[str, Any]:
    """Encode and decode in this process; weights are random, the signal counts as memory, too."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    family: Any = import_module(f"fastcodec.codecs.{PRESETS[name]}")
    codec: Codec = family.build(name).eval().requires_grad_(False)
    x = torch.empty(1, codec.channels, round(codec.sample_rate_hz * seconds))
    piece = wav(codec.sample_rate_hz, codec.channels, 1)
    for start in range(0, x.shape[2], piece.shape[2]):
        part = x[..., start : start + piece.shape[2]]
        part.copy_(piece[..., : part.shape[2]])
    own = getattr(codec.config, "segment", None) is not None  # EnCodec 48 kHz: of a second
    segment = None if codec.info.streamable or own else SEGMENT_S
    forget_peak()
    begin = time.perf_counter()
    codes = codec.encode(x, segment_s=segment)
    middle, encode_mb = time.perf_counter(), memory_mb("VmHWM")
    codec.decode(codes)
    return {
        "seconds": seconds,
        "encode_s": round(middle - begin, 3),
        "decode_s": round(time.perf_counter() - middle, 3),
        "encode_peak_mb": round(encode_mb, 1),
        "peak_mb": round(memory_mb("VmHWM"), 1),
        "signal_mb": round(x.numel() * 4 / 1e6, 1),
        "segment_s": segment,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))))
