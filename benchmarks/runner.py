"""Measures cases: correctness first, then ours and the peers in turns, at each thread count."""

from __future__ import annotations

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.floors import Floors, Work
from benchmarks.gates import Gate
from benchmarks.machine import fastcodec_version, machine

Row = dict[str, Any]
Run = Callable[[], Any]

SAMPLE_S = 0.005  # shorter calls are repeated until a sample lasts this long
BUDGET_S = 3.0  # rounds go on until a case has taken this long
MOST_ROUNDS = 40


class Absent(Exception):
    """What a file of cases needs is not here; it is reported, not an error."""


@dataclass(frozen=True)
class Peer:
    """Another implementation.

    Args:
        name: with its version
        variants: ways to run it, by name (memory layouts, formulas): the fastest one is measured
        absent: why it cannot run here; it is reported, not measured
        check: what to compare, where a variant's result depends on the calls before it
    """

    name: str
    variants: Mapping[str, Run] = field(default_factory=dict)
    absent: str | None = None
    check: Run | None = None


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Args:
        name: ``<file>.<what>``, or ``<preset>.<what>``
        config: its sizes, under the letters of the conventions
        ours: runs fastcodec
        peers: run the same
        compare: (result, truth) -> gate, for ours and every peer
        work: for the floor
        truth: the right result; None takes the first peer's
    """

    name: str
    config: Mapping[str, Any]
    ours: Run
    peers: Sequence[Peer]
    compare: Callable[[Any, Any], Gate]
    work: Work
    truth: Run | None = None


@dataclass(frozen=True)
class Bench:
    """Options of a run, and what rows are made of.

    Args:
        floors: one for each number of threads to measure at
        seconds: length of the signals
        repeats: least number of rounds
        long_s: length of the long input
        wanted: whether a case of this name was asked for
        precisions: of the codecs
        memory_s: the two lengths whose peaks of memory are compared
    """

    floors: Sequence[Floors]
    seconds: float
    repeats: int
    long_s: float
    wanted: Callable[[str], bool]
    precisions: tuple[str, ...] = ("highest", "high", "medium")
    memory_s: tuple[float, ...] = (10.0, 600.0)

    def measure(self, case: Case) -> Iterator[Row]:
        """One row for each number of threads and peer."""
        if not self.wanted(case.name):
            return
        for floors in self.floors:
            torch.set_num_threads(floors.threads)
            yield from self._at(case, floors)

    def row(self, name: str, config: Mapping[str, Any], floors: Floors) -> Row:
        """What every row starts with; the load average tells whether the machine was quiet."""
        return {
            "name": name,
            "config": dict(config),
            "threads": floors.threads,
            "machine": machine(),
            "floors": floors.as_row(),
            "torch": torch.__version__,
            "fastcodec": fastcodec_version(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "load_1min": round(os.getloadavg()[0], 2),
        }

    @torch.inference_mode()
    def _at(self, case: Case, floors: Floors) -> list[Row]:
        row = self.row(case.name, case.config, floors)
        peers = [peer for peer in case.peers if peer.absent is None]
        picked = [fastest_variant(peer) for peer in peers]
        runs = [peer.variants[name] for peer, name in zip(peers, picked, strict=True)]
        truth = (case.truth or runs[0])()
        gate = case.compare(case.ours(), truth)
        row["gate"] = gate.as_row()
        if not gate.passed:
            return [row | {"error": f"wrong: {gate.what} {gate.value:.3g} > {gate.limit:g}"}]
        checks = [peer.check or run for peer, run in zip(peers, runs, strict=True)]
        theirs = [case.compare(run(), truth) for run in checks]
        ours_ms, *peers_ms = in_turns([case.ours, *runs], self.repeats)
        floor_name, floor_ms = floors.of(case.work)
        row["ours_ms"] = summary(ours_ms)
        row |= {"floor": floor_name, "floor_ms": round(floor_ms, 5)}
        row["percent_of_floor"] = round(100 * floor_ms / statistics.median(ours_ms), 1)
        rows = []
        for peer, variant, check, ms in zip(peers, picked, theirs, peers_ms, strict=True):
            beside = row | {"peer": peer.name, "peer_variant": variant, "peer_ms": summary(ms)}
            if check.passed:
                rows.append(beside | ratio(ours_ms, ms))
            else:
                error = f"the peer computes something else: {check.what} {check.value:.3g}"
                rows.append(beside | {"error": error})
        for peer in case.peers:
            if peer.absent is not None:
                rows.append(row | {"peer": peer.name, "peer_absent": peer.absent})
        return rows or [row]


def fastest_variant(peer: Peer) -> str:
    """The name of the variant with the smallest median of a few runs, warm-up aside."""
    if len(peer.variants) == 1:
        return next(iter(peer.variants))
    samples = in_turns(list(peer.variants.values()), 3, budget_s=0.2)
    medians = [statistics.median(ms) for ms in samples]
    return list(peer.variants)[medians.index(min(medians))]


def in_turns(runs: Sequence[Run], rounds: int, budget_s: float = BUDGET_S) -> list[list[float]]:
    """ms a call of each run, a list of samples each; the i-th samples were taken together.

    Every other round goes backwards, so that none always follows the same one.
    """
    calls = [max(1, math.ceil(SAMPLE_S / max(sample_s(run, 1), 1e-7))) for run in runs]
    samples: list[list[float]] = [[] for _ in runs]
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + budget_s
        done = 0
        while done < rounds or (done < MOST_ROUNDS and time.perf_counter() < end):
            order = range(len(runs)) if done % 2 == 0 else reversed(range(len(runs)))
            for i in order:
                samples[i].append(sample_s(runs[i], calls[i]) / calls[i] * 1e3)
            done += 1
    finally:
        gc.enable()
    return samples


def sample_s(run: Run, calls: int) -> float:
    """Seconds that a number of calls takes."""
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - begin


def summary(ms: Sequence[float]) -> dict[str, float]:
    """Median, extremes and number of samples."""
    return {
        "median": round(statistics.median(ms), 5),
        "min": round(min(ms), 5),
        "max": round(max(ms), 5),
        "n": len(ms),
    }


def ratio(ours_ms: Sequence[float], peer_ms: Sequence[float]) -> Row:
    """How many times faster ours is: median of the pairs taken together, and their quartiles."""
    pairs = sorted(peer / ours for ours, peer in zip(ours_ms, peer_ms, strict=True))
    low, _, high = statistics.quantiles(pairs, n=4)
    middle = statistics.median(pairs)
    return {"ratio": round(middle, 3), "ratio_quartiles": [round(low, 3), round(high, 3)]}
