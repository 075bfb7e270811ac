"""A live stream, a frame a push: time of encode and decode together, beside the frame's length."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import fastcodec
from benchmarks import peers
from benchmarks.codecs.lyra import LiteRt, speech, weights_folder
from benchmarks.floors import Floors, Work
from benchmarks.gates import identical, relative_l2
from benchmarks.machine import package
from benchmarks.runner import Bench, Row, ratio, summary
from benchmarks.signals import wav
from benchmarks.work import net_flops, parameter_bytes
from fastcodec.codecs import Codec
from fastcodec.codecs.encodec import PRESETS

Push = Callable[[Tensor], Tensor]  # samples [1, 1, hop] -> what they complete, [1, 1, n]

BLOCK = 16  # pushes in a row before the next implementation has its turn: its weights stay in cache
WARM_UP = 2 * BLOCK
LEAST_PUSHES = 8 * BLOCK


@dataclass(frozen=True)
class Live:
    """A codec and what to run beside it; ``others``: name -> a new stream, or why there is none."""

    codec: Codec
    kbps: float
    signal: Tensor
    others: dict[str, Callable[[], Push] | str] = field(default_factory=dict)


def rows(bench: Bench) -> Iterator[Row]:
    """EnCodec 24 kHz with random weights, Lyra v2 with its own."""
    for name, build in (("encodec_24khz", _encodec), ("lyra_v2", _lyra)):
        if bench.wanted(f"stream.{name}"):
            live = build(bench.seconds)
            for floors in bench.floors:
                torch.set_num_threads(floors.threads)
                yield from _rows(bench, live, floors)


def _encodec(seconds: float) -> Live:
    config = PRESETS["encodec_24khz"]
    weights = peers.transformers_encodec(config).state_dict()
    codec = fastcodec.load("encodec_24khz", weights)
    live = Live(codec, 6.0, wav(config.sample_rate_hz, 1, seconds))
    live.others[f"{package('torch')} eager, our layers"] = lambda: by_torch(codec, 6.0)
    return live


def _lyra(seconds: float) -> Live:
    codec = fastcodec.load("lyra_v2", weights_folder())
    litert = LiteRt(weights_folder())
    live = Live(codec, 9.2, speech(seconds))

    def by_litert() -> Push:
        litert.forget()
        return lambda x: litert.decode_frame(litert.encode_frame(x[0].numpy(), 46))[None]

    live.others[f"{package('torch')} eager, our layers"] = lambda: by_torch(codec, 9.2)
    live.others[package("ai-edge-litert")] = litert.absent or by_litert
    return live


def by_fastcodec(codec: Codec, kbps: float) -> Push:
    """A new stream of ours."""
    stream = codec.stream(bandwidth_kbps=kbps)
    return lambda x: stream.decode(stream.encode(x))


def by_torch(codec: Codec, kbps: float) -> Push:
    """A new stream of ours with every op served by its plain-torch reference."""
    push = by_fastcodec(codec, kbps)

    def forced(x: Tensor) -> Tensor:
        with fastcodec.use_backend("reference"):
            return push(x)

    return forced


@torch.inference_mode()
def _rows(bench: Bench, live: Live, floors: Floors) -> list[Row]:
    codec, hop = live.codec, live.codec.hop
    frames = list(live.signal.split(hop, dim=2))[: live.signal.shape[2] // hop]
    whole = codec.encode(live.signal, bandwidth_kbps=live.kbps)
    config = {"kbps": live.kbps, "B": 1, "K": whole.n_codebooks, "S": hop}
    row = bench.row(f"stream.{codec.name}", config, floors)
    truth = codec.decode(whole)
    ours = _output(by_fastcodec(codec, live.kbps), frames)
    # The last frames wait for the end of the signal, which a push without `final` is not.
    late = truth.shape[2] - ours.shape[2] > codec.info.latency + 2 * hop
    gate = identical(ours, truth[..., : ours.shape[2]])
    row["gate"] = gate.as_row()
    if late or not gate.passed:
        return [row | {"error": f"not what encode and decode give: {gate.what} {gate.value}"}]
    running = {name: make for name, make in live.others.items() if not isinstance(make, str)}
    pushes = [by_fastcodec(codec, live.kbps), *(make() for make in running.values())]
    ours_ms, *others_ms = _in_turns(pushes, frames)
    row |= _times(codec, ours_ms, floors, whole.n_codebooks)
    result = []
    for (name, make), ms in zip(running.items(), others_ms, strict=True):
        beside = row | {"peer": name, "peer_ms": _percentiles(ms)}
        check = relative_l2(_output(make(), frames)[..., : ours.shape[2]], ours)
        error = {"error": f"the peer computes something else: {check.what} {check.value:.3g}"}
        result.append(beside | (ratio(ours_ms, ms) if check.passed else error))
    absent = {name: why for name, why in live.others.items() if isinstance(why, str)}
    return result + [row | {"peer": name, "peer_absent": why} for name, why in absent.items()]


def _times(codec: Codec, ms: list[float], floors: Floors, n_codebooks: int) -> Row:
    frame_ms, median = 1e3 / codec.frame_rate_hz, statistics.median(ms)
    floor, floor_ms = floors.of(_work(codec, n_codebooks))
    return {
        "ours_ms": _percentiles(ms),
        "frame_ms": round(frame_ms, 3),
        "real_time_factor": round(median / frame_ms, 4),
        "floor": floor,
        "floor_ms": round(floor_ms, 5),
        "percent_of_floor": round(100 * floor_ms / median, 1),
    }


def _output(push: Push, frames: list[Tensor]) -> Tensor:
    return torch.cat([push(x) for x in frames], dim=2)


def _in_turns(pushes: list[Push], frames: list[Tensor]) -> list[list[float]]:
    """ms of every push of each, without the warm-up; a short signal is repeated."""
    times: list[list[float]] = [[] for _ in pushes]
    total = WARM_UP + max(LEAST_PUSHES, len(frames))
    for first in range(0, total, BLOCK):
        for push, ms in zip(pushes, times, strict=True):
            for i in range(first, first + BLOCK):
                begin = time.perf_counter()
                push(frames[i % len(frames)])
                ms.append((time.perf_counter() - begin) * 1e3)
    return [ms[WARM_UP:] for ms in times]


def _percentiles(ms: list[float]) -> dict[str, Any]:
    return summary(ms) | {"p95": round(statistics.quantiles(ms, n=20)[18], 5)}


def _work(codec: Codec, count: int) -> Work:
    """Of one frame: its arithmetic, and one reading of the weights."""
    books = codec.quantizer.codebooks[:count]
    flops = net_flops(codec.encoder, codec.hop) + net_flops(codec.decoder, 1) + 2 * books.numel()
    moved = parameter_bytes(codec.encoder) + parameter_bytes(codec.decoder) + 4 * books.numel()
    return Work(flops, moved)
