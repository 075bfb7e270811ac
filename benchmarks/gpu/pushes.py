"""A live stream on the GPU, about 80 ms a push: what the caller waits, to the 99th percentile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.codecs import mimi as mimi_pair
from benchmarks.gates import identical, relative_l2
from benchmarks.gpu.clock import Row
from benchmarks.gpu.contest import Bench
from benchmarks.runner import Absent
from benchmarks.signals import wav
from benchmarks.ties import tie_gate
from benchmarks.weights import random_codec
from fastcodec import use_backend
from fastcodec.codecs import Codec, dac, encodec, mimi

PUSH_S = 0.08
CODECS = {
    "mimi_24khz": (mimi, 1.1),
    "encodec_24khz": (encodec, 6.0),
    "dac_44khz": (dac, None),
}
WARM_UP, PUSHES, BLOCK = 48, 400, 16
Push = Callable[[Tensor], Any]


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode of three codecs, by graphs and eagerly, beside moshi where it is."""
    for name, (family, kbps) in CODECS.items():
        if bench.left_s <= 0:
            yield bench.row(f"push.{name}", {}) | {"error": "there was no time left"}
            continue
        net = random_codec(family, name).cuda()
        for what in ("encode", "decode"):
            yield _row(bench, net, what, kbps)


@torch.no_grad()
def _row(bench: Bench, net: Codec, what: str, kbps: float | None) -> Row:
    frames = max(1, round(PUSH_S * net.frame_rate_hz))
    count, size = WARM_UP + 16, frames * net.hop
    x = wav(net.sample_rate_hz, net.channels, count * size / net.sample_rate_hz).cuda()
    x = x[..., : count * size]
    codes = net.encode(x, bandwidth_kbps=kbps).tokens[..., : count * frames]
    pieces = list(x.split(size, 2) if what == "encode" else codes.split(frames, 2))
    config = {"B": 1, "K": codes.shape[1], "S": size}
    row = bench.row(f"push.{net.name}.{what}", config)
    row |= {
        "push_ms": round(1e3 * size / net.sample_rate_hz, 2),
        "must": "1.5 times as fast as moshi",
    }

    def stream(graph: bool) -> Push:
        live = net.stream(bandwidth_kbps=kbps, graph=graph)
        return live.decode if what == "decode" else lambda x: live.encode(x).tokens

    def by_torch() -> Push:
        """Our layers, every op by torch and cuDNN, as a graph: what graphs alone are worth."""
        with use_backend("reference"):
            push = stream(True)

        def forced(x: Tensor) -> Any:
            with use_backend("reference"):
                return push(x)

        return forced

    eager = torch.cat([push for push in map(stream(False), pieces)], dim=2)
    makers: dict[str, Callable[[], Push]] = {
        "fastcodec graph": lambda: stream(True),
        "fastcodec eager": lambda: stream(False),
        "torch eager, our layers, graph": by_torch,
    }
    facts: dict[str, Row] = {}
    ready: dict[str, Push] = {}
    makers |= _moshi(net, what, facts)
    for name, make in makers.items():
        try:
            push = make()
            got = torch.cat([push(piece) for piece in pieces], dim=2)
            ours = name.startswith("fastcodec")
            gate = identical(got, eager) if ours else _near(net, what, got, eager, x)
            facts[name] = {"gate": gate.as_row()}
            if gate.passed:
                ready[name] = push
        except Exception as error:
            facts[name] = {"error": f"{type(error).__name__}: {str(error)[:160]}"}
    for name, ms in _in_turns(ready, pieces).items():
        facts[name] |= {
            "median_us": round(1e3 * statistics.median(ms), 1),
            "p99_us": round(1e3 * statistics.quantiles(ms, n=100)[98], 1),
            "n": len(ms),
        }
    row["sides"] = facts
    mine, theirs = facts["fastcodec graph"], facts.get("moshi", {})
    if "median_us" not in mine:
        return row | {"error": "the graph's pushes are not the eager ones, or there is none"}
    if "median_us" in theirs:
        ratio = theirs["median_us"] / mine["median_us"]
        row |= {"ratio": round(ratio, 3), "reached": ratio >= 1.5}
    return row


def _near(net: Codec, what: str, got: Tensor, truth: Tensor, x: Tensor) -> Any:
    length = min(got.shape[2], truth.shape[2])
    got, truth = got[..., :length], truth[..., :length]
    if what == "decode":
        return relative_l2(got, truth, 1e-3)
    return tie_gate(net.quantizer, net.encoder(x)[..., :length], got, truth, "high")


def _moshi(net: Codec, what: str, facts: dict[str, Row]) -> dict[str, Callable[[], Push]]:
    """moshi's streaming Mimi, which captures graphs of its own."""
    if net.name != mimi_pair.NAME:
        return {}
    try:
        theirs = mimi_pair.moshi_net(random_codec(mimi, mimi_pair.NAME)).cuda()
    except Absent as reason:
        facts["moshi"] = {"absent": str(reason)}
        return {}
    theirs.set_num_codebooks(mimi_pair.CODEBOOKS)

    def make() -> Push:
        theirs.streaming_forever(1)
        return theirs.encode if what == "encode" else theirs.decode

    return {"moshi": make}


def _in_turns(pushes: dict[str, Push], pieces: list[Tensor]) -> dict[str, list[float]]:
    """ms of each push until its result is there, blocks of pushes of each in turn."""
    times: dict[str, list[float]] = {name: [] for name in pushes}
    for first in range(0, WARM_UP + PUSHES, BLOCK):
        for name, push in pushes.items():
            for i in range(first, first + BLOCK):
                torch.cuda.synchronize()
                begin = time.perf_counter()
                push(pieces[i % len(pieces)])
                torch.cuda.synchronize()
                times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: ms[WARM_UP:] for name, ms in times.items()}
