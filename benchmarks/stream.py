"""A live stream, 80 ms a push: time of encode and of decode, beside what the machine allows."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import fastcodec
from benchmarks.codecs import lyra, mimi
from benchmarks.codecs._pair import AUDIO_LIMITS
from benchmarks.codecs.lyra import LiteRt, speech, weights_folder
from benchmarks.floors import Floors
from benchmarks.gates import Gate, identical, relative_l2
from benchmarks.machine import package
from benchmarks.published import version_of
from benchmarks.runner import Absent, Bench, Row, ratio, summary
from benchmarks.signals import wav
from benchmarks.ties import tie_gate
from benchmarks.weights import random_codec, upstream_state
from benchmarks.work import net_flops, parameter_bytes, quantizer_bytes, quantizer_flops
from fastcodec.codecs import Codec
from fastcodec.codecs import dac as dac_family
from fastcodec.codecs import encodec as encodec_family
from fastcodec.codecs import mimi as mimi_family

Push = Callable[[Tensor], Tensor]  # wav [1, C, n] -> codes [1, K, t], or the other way

PUSH_S = 0.08
BLOCK = 16  # pushes in a row before the next implementation has its turn: its weights stay in cache
WARM_UP = 2 * BLOCK
LEAST_PUSHES = 13 * BLOCK  # for a 99th percentile
CHECKED_S = 8.0  # moshi's stream differs from its whole signal, and from ours, past 10 s


@dataclass(frozen=True)
class Live:
    """A codec and what runs beside it.

    Args:
        name: of the preset
        weights: what ours loads
        kbps: bandwidth, or None for all codebooks
        signal: seconds -> wav
        others: name -> direction -> a new stream of it, or why there is none
    """

    name: str
    weights: Any
    kbps: float | None
    signal: Callable[[float], Tensor]
    others: Mapping[str, Mapping[str, Callable[[], Push]] | str] = field(default_factory=dict)


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode of four codecs."""
    makers = {"mimi_24khz": _mimi, "encodec_24khz": _encodec, "dac_44khz": _dac, "lyra_v2": _lyra}
    for name, make in makers.items():
        asked = [w for w in ("encode", "decode") if bench.wanted(f"stream.{name}.{w}")]
        if not asked:
            continue
        try:
            live = make()
        except Absent as reason:
            yield bench.row(f"stream.{name}", {}, bench.floors[0]) | {"absent": str(reason)}
            continue
        ours = {p: fastcodec.load(name, live.weights, precision=p) for p in bench.precisions}
        for floors in bench.floors:
            torch.set_num_threads(floors.threads)
            for what in asked:
                yield from _rows(bench, live, ours, what, floors)


def _mimi() -> Live:
    codec = random_codec(mimi_family, mimi.NAME)
    others: dict[str, Any] = {f"{version_of('moshi')} streaming": _by_moshi(codec)}
    return Live(mimi.NAME, mimi.moshi_state(codec), mimi.KBPS, _noise(codec), others)


def _by_moshi(codec: Codec) -> dict[str, Callable[[], Push]] | str:
    try:
        net = mimi.moshi_net(codec)
    except Absent as reason:
        return str(reason)
    net.set_num_codebooks(mimi.CODEBOOKS)

    def stream(push: Push) -> Callable[[], Push]:
        def make() -> Push:
            if net.is_streaming:
                net._stop_streaming()
            net.streaming_forever(1)
            return push

        return make

    return {"encode": stream(net.encode), "decode": stream(net.decode)}


def _encodec() -> Live:
    codec = random_codec(encodec_family, "encodec_24khz")
    others = {f"{package('torch')} eager, our layers": by_torch(codec, 6.0)}
    return Live(codec.name, upstream_state(codec), 6.0, _noise(codec), others)


def _dac() -> Live:
    codec = random_codec(dac_family, "dac_44khz")
    state = upstream_state(codec, dac_family.native_name)
    others = {f"{package('torch')} eager, our layers": by_torch(codec, None)}
    return Live(codec.name, state, None, _noise(codec), others)


def _lyra() -> Live:
    folder = weights_folder()
    codec, litert = fastcodec.load(lyra.NAME, folder), LiteRt(folder)

    def encode() -> Push:
        litert.forget()
        return lambda x: litert.encode(x, 46)

    def decode() -> Push:
        litert.forget()
        return litert.decode

    others = {
        f"{package('torch')} eager, our layers": by_torch(codec, lyra.KBPS),
        package("ai-edge-litert"): litert.absent or {"encode": encode, "decode": decode},
    }
    return Live(lyra.NAME, folder, lyra.KBPS, speech, others)


def _noise(codec: Codec) -> Callable[[float], Tensor]:
    return lambda seconds: wav(codec.sample_rate_hz, codec.channels, seconds)


def by_fastcodec(codec: Codec, kbps: float | None, what: str) -> Push:
    """A new stream of ours."""
    stream = codec.stream(bandwidth_kbps=kbps)
    return stream.decode if what == "decode" else lambda x: stream.encode(x).tokens


def by_torch(codec: Codec, kbps: float | None) -> dict[str, Callable[[], Push]]:
    """New streams of ours with every op served by its plain-torch reference."""

    def make(what: str) -> Push:
        push = by_fastcodec(codec, kbps, what)

        def forced(x: Tensor) -> Tensor:
            with fastcodec.use_backend("reference"):
                return push(x)

        return forced

    return {what: lambda what=what: make(what) for what in ("encode", "decode")}  # type: ignore[misc]


@torch.inference_mode()
def _rows(
    bench: Bench, live: Live, ours: Mapping[str, Codec], what: str, floors: Floors
) -> list[Row]:
    highest = next(iter(ours.values()))
    frames = max(1, round(PUSH_S * highest.frame_rate_hz))
    hop, count = frames * highest.hop, round(CHECKED_S / frames * highest.frame_rate_hz)
    signal = live.signal(count * hop / highest.sample_rate_hz)[..., : count * hop]
    codes = highest.encode(signal, bandwidth_kbps=live.kbps)
    pieces = list((signal if what == "encode" else codes.tokens).split(
        hop if what == "encode" else frames, dim=2
    ))  # fmt: skip
    config = {"B": 1, "C": highest.channels, "K": codes.n_codebooks, "S": hop}
    row = bench.row(f"stream.{live.name}.{what}", config, floors) | {
        "push_ms": round(1e3 * hop / highest.sample_rate_hz, 3)
    }
    reference = _output(by_fastcodec(highest, live.kbps, what), pieces)
    there = {n: m[what] for n, m in live.others.items() if not isinstance(m, str)}
    makers = [lambda c=c: by_fastcodec(c, live.kbps, what) for c in ours.values()]
    samples = _in_turns([make() for make in [*makers, *there.values()]], pieces)
    found: list[Row] = []
    for (precision, codec), ms in zip(ours.items(), samples, strict=False):
        gate = _as_whole(codec, live, what, signal, pieces)
        mine = row | {"precision": precision, "gate": gate.as_row()}
        if not gate.passed:
            found.append(mine | {"error": f"not what the whole signal gives: {gate.value}"})
            continue
        mine |= _times(codec, what, frames, codes.n_codebooks, precision, ms, floors)
        for (name, make), theirs in zip(there.items(), samples[len(ours) :], strict=True):
            got = _output(make(), pieces)
            check = _beside(highest, what, got, reference, signal)
            beside = mine | {"peer": name, "peer_gate": check.as_row()}
            if check.passed:
                found.append(beside | {"peer_ms": _percentiles(theirs)} | ratio(ms, theirs))
            else:
                text = f"the peer computes something else: {check.what} {check.value:.3g}"
                found.append(beside | {"error": text})
        absent = {n: why for n, why in live.others.items() if isinstance(why, str)}
        found += [mine | {"peer": n, "peer_absent": why} for n, why in absent.items()]
    return found


def _as_whole(
    codec: Codec, live: Live, what: str, signal: Tensor, pieces: Sequence[Tensor]
) -> Gate:
    """Whether pushes give what the whole gives, but for what waits for the end of the signal."""
    got = _output(by_fastcodec(codec, live.kbps, what), pieces)
    if what == "encode":
        truth = codec.encode(signal, bandwidth_kbps=live.kbps).tokens
        late = (truth.shape[2] - got.shape[2]) * codec.hop
    else:
        truth = codec.decode(torch.cat(list(pieces), dim=2))
        late = truth.shape[2] - got.shape[2]
    if late > codec.info.latency + 2 * codec.hop:
        return Gate(f"{late} samples late", float("nan"), 0.0)
    return identical(got, truth[..., : got.shape[2]])


def _beside(codec: Codec, what: str, got: Tensor, truth: Tensor, signal: Tensor) -> Gate:
    """A peer's output against ours, as far as both go."""
    length = min(got.shape[2], truth.shape[2])
    got, truth = got[..., :length], truth[..., :length]
    if what == "decode":
        return relative_l2(got, truth, 10 * AUDIO_LIMITS["highest"])
    return tie_gate(codec.quantizer, codec.encoder(signal)[..., :length], got, truth)


def _times(
    codec: Codec,
    what: str,
    frames: int,
    count: int,
    precision: str,
    ms: list[float],
    floors: Floors,
) -> Row:
    """The push's time, and its floor: each weight read from memory once, then the arithmetic."""
    decode = what == "decode"
    net = codec.decoder if decode else codec.encoder
    flops = net_flops(net, frames if decode else frames * codec.hop)
    flops += quantizer_flops(codec.quantizer, frames, count, decode)
    n_bytes = parameter_bytes(net) + (0 if decode else quantizer_bytes(codec.quantizer, count))
    floor_ms, median = floors.push_ms(flops, n_bytes, precision), statistics.median(ms)
    percentiles = _percentiles(ms)
    return {
        "ours_ms": percentiles,
        "real_time_factor": round(median / (1e3 * frames / codec.frame_rate_hz), 5),
        "floor": "read, then gemm",
        "floor_ms": round(floor_ms, 5),
        "percent_of_floor": round(100 * floor_ms / median, 1),
        "times_floor": round(median / floor_ms, 2),
        "p99_to_median": round(percentiles["p99"] / median, 2),
    }


def _output(push: Push, pieces: Sequence[Tensor]) -> Tensor:
    return torch.cat([push(x) for x in pieces], dim=2)


def _in_turns(pushes: Sequence[Push], pieces: Sequence[Tensor]) -> list[list[float]]:
    """ms of every push of each, without the warm-up; a short signal is repeated."""
    times: list[list[float]] = [[] for _ in pushes]
    for first in range(0, WARM_UP + LEAST_PUSHES, BLOCK):
        for push, ms in zip(pushes, times, strict=True):
            for i in range(first, first + BLOCK):
                begin = time.perf_counter()
                push(pieces[i % len(pieces)])
                ms.append((time.perf_counter() - begin) * 1e3)
    return [ms[WARM_UP:] for ms in times]


def _percentiles(ms: list[float]) -> dict[str, Any]:
    return summary(ms) | {"p99": round(statistics.quantiles(ms, n=100)[98], 5)}
