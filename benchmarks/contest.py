"""A codec at each precision against every setting of every peer.

A trial runs each once and checks it; the fastest that compute in float32, and the fastest at all,
then take turns with ours. All keep the time they had.
"""

from __future__ import annotations

import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks.engines import (
    MISSING,
    OTHER_ENGINES,
    Exported,
    Function,
    Published,
    compiled,
    under,
)
from benchmarks.floors import Floors, Work
from benchmarks.gates import PEER, Gate
from benchmarks.machine import package
from benchmarks.runner import Bench, Row, Run, in_turns, ratio, sample_s, summary

SLOW_S = 1.0  # a call as long is timed once in the trial
COMPILE_S = 240  # torch.compile may take as long
LONG_MS = 5000.0  # a call as long is measured well enough by the trial, by the one that is checked
CLOSE = 1.3  # times as slow as the fastest in the trial: takes turns, too
HOPELESS = 2.0  # times as slow as the fastest on a short signal: not run on the whole one


@dataclass(frozen=True)
class Contest:
    """One direction of one codec.

    Args:
        name: ``<preset>.encode`` or ``<preset>.decode``
        config: its sizes, under the letters of the conventions
        ours: precision -> run; the first is "highest"
        twins: precision -> one before it that computes the same bits
        peers: the first one's float32 result is the truth
        function: of a peer, for this direction
        inputs: of that function
        short: a short signal's, where the whole one is long
        gate: (precision, result, truth) -> gate; ``PEER`` for peers below float32
        work: for the floor
        accuracy: precision -> figures
        seconds, short_s: of sound in ``inputs`` and ``short``
    """

    name: str
    config: Mapping[str, Any]
    ours: Mapping[str, Run]
    twins: Mapping[str, str]
    peers: Sequence[Published]
    function: Callable[[Published], Function | None]
    inputs: tuple[Tensor, ...]
    short: tuple[Tensor, ...] | None
    gate: Callable[[str, Tensor, Tensor], Gate]
    work: Work
    accuracy: Mapping[str, Mapping[str, Any]]
    seconds: float
    short_s: float = 1.0
    exports: dict[str, Exported] = field(default_factory=dict)


@dataclass
class Entry:
    """A peer under a setting: its time, or why it has none."""

    name: str
    setting: str
    run: Run | None = None
    ms: float = 0.0
    seconds: float = 0.0
    gate: Gate | None = None
    exact: bool = False  # in float32, and passes the gate of "highest"
    problem: str | None = None

    @property
    def counts(self) -> bool:
        """Whether it may be called the best: right, and run on the whole signal."""
        return self.run is not None and self.problem is None

    def as_row(self) -> Row:
        """For the row."""
        row: Row = {"name": self.name, "setting": self.setting}
        if self.gate:
            row["gate"] = self.gate.as_row()
        if self.problem:
            return row | {"problem": self.problem}
        row |= {"ms": round(self.ms, 4), "seconds": self.seconds, "float32": self.exact}
        return row | {"real_time_factor": round(self.ms / self.seconds / 1e3, 6)}


def measure(bench: Bench, contest: Contest) -> Iterator[Row]:
    """A row for each number of threads and precision."""
    for floors in bench.floors:
        torch.set_num_threads(floors.threads)
        with torch.inference_mode():
            yield from _at(bench, contest, floors)


def _at(bench: Bench, contest: Contest, floors: Floors) -> list[Row]:
    row = bench.row(contest.name, contest.config, floors) | {"seconds": contest.seconds}
    entries, truth = _trial(contest)
    gates = {p: contest.gate(p, run(), truth) for p, run in contest.ours.items()}
    right = [e for e in entries if e.counts]
    exact = [e for e in right if e.exact]
    rivals = list({id(e): e for e in (*_front(exact), *_front(right))}.values())
    timed = {p: run for p, run in contest.ours.items() if gates[p].passed}
    timed = {p: run for p, run in timed.items() if contest.twins.get(p) not in timed}
    runs = [*timed.values(), *(e.run for e in rivals if e.run is not None)]
    samples = in_turns(runs, bench.repeats)
    ours_ms = dict(zip(timed, samples, strict=False))
    theirs_ms = {id(e): ms for e, ms in zip(rivals, samples[len(timed) :], strict=True)}
    for entry in rivals:
        entry.ms = statistics.median(theirs_ms[id(entry)])
    best = min((e for e in rivals if e.exact), key=lambda e: e.ms, default=None)
    fastest = min(rivals, key=lambda e: e.ms, default=None)
    rows = []
    for precision, gate in gates.items():
        mine = row | {"precision": precision, "gate": gate.as_row()}
        mine["accuracy"] = dict(contest.accuracy.get(precision, {}))
        mine["peers"] = [e.as_row() for e in entries]
        if not gate.passed:
            rows.append(mine | {"error": f"wrong: {gate.what} {gate.value:.3g} > {gate.limit:g}"})
            continue
        ms = ours_ms.get(precision) or ours_ms[contest.twins[precision]]
        mine |= _times(contest, precision, ms, floors)
        for label, rival in (("float32", best), ("any", fastest)):
            if rival is not None:
                mine |= _beside(label, rival, ms, theirs_ms[id(rival)])
        rows.append(mine)
    return rows


def _front(entries: Sequence[Entry]) -> list[Entry]:
    """The fastest of the trial, and the next one where the trial may have been mistaken."""
    ranked = sorted(entries, key=lambda e: e.ms)[:2]
    if ranked and ranked[0].ms > LONG_MS:
        return ranked[:1]
    return [e for e in ranked if e.ms <= CLOSE * ranked[0].ms]


def _times(contest: Contest, precision: str, ms: list[float], floors: Floors) -> Row:
    floor, floor_ms = floors.of(contest.work, precision)
    median = statistics.median(ms)
    twin = {"same_bits_as": contest.twins[precision]} if precision in contest.twins else {}
    return twin | {
        "ours_ms": summary(ms),
        "real_time_factor": round(median / contest.seconds / 1e3, 6),
        "floor": floor,
        "floor_ms": round(floor_ms, 5),
        "percent_of_floor": round(100 * floor_ms / median, 1),
        "flops": contest.work.flops,
    }


def _beside(label: str, entry: Entry, ours_ms: list[float], ms: list[float]) -> Row:
    found = ratio(ours_ms, ms)
    return {
        f"best_{label}": f"{entry.name} [{entry.setting}]",
        f"best_{label}_ms": summary(ms),
        f"ratio_{label}": found["ratio"],
        f"ratio_{label}_quartiles": found["ratio_quartiles"],
    }


def _trial(contest: Contest) -> tuple[list[Entry], Tensor]:
    """Every peer under every setting, and the truth."""
    entries: list[Entry] = []
    there = [p for p in contest.peers if p.absent is None]
    first = contest.function(there[0])
    assert first is not None
    if there[0].renew:
        there[0].renew()
    truth = first(*contest.inputs)
    eager: list[tuple[Published, str, Function]] = []
    for peer in contest.peers:
        run = contest.function(peer)
        if run is None:
            entries.append(Entry(peer.name, "float32", problem=peer.absent))
            continue
        eager += [(peer, setting, under(setting, run)) for setting in peer.settings]
    short = _short_ms(contest, [run for _, _, run in eager])
    worthwhile = HOPELESS * min(ms or float("inf") for ms in short)
    for (peer, setting, run), ms in zip(eager, short, strict=True):
        entry = Entry(_eager(peer), setting)
        if ms is not None and ms > worthwhile:
            entry.ms, entry.seconds = ms, contest.short_s
        else:
            _try(entry, run, contest, truth, peer.renew)
        entries.append(entry)
    entries += _compiled(contest, eager, entries, truth)
    entries += _exported(contest, there, truth)
    return entries, truth


def _eager(peer: Published) -> str:
    return peer.name if peer.net is None else f"{peer.name} eager"


def _short_ms(contest: Contest, runs: Sequence[Function]) -> list[float | None]:
    """ms of each on the short signal, None where there is none or it fails."""
    if contest.short is None:
        return [None] * len(runs)
    return [_ms_or_none(run, contest.short) for run in runs]


def _ms_or_none(run: Function, inputs: tuple[Tensor, ...]) -> float | None:
    try:
        run(*inputs)
        return sample_s(lambda: run(*inputs), 1) * 1e3
    except Exception:  # the trial on the whole signal will say why
        return None


def _try(
    entry: Entry,
    run: Function,
    contest: Contest,
    truth: Tensor,
    renew: Callable[[], None] | None = None,
    ready: bool = True,
) -> None:
    """Fill in an entry: its gate, and its time where it passes; ``ready``: a call is a time."""
    try:
        call: Run = lambda: run(*contest.inputs)  # noqa: E731
        if renew:
            renew()
        begin = time.perf_counter()
        got = call()
        seconds = time.perf_counter() - begin
        exact = contest.gate("highest", got, truth)
        entry.exact = exact.passed and entry.setting == "float32"
        entry.gate = exact if entry.exact else contest.gate(PEER, got, truth)
        if not entry.gate.passed:
            gate = entry.gate
            entry.problem = f"computes something else: {gate.what} {gate.value:.3g}"
            return
        if not ready or seconds * 1e3 < LONG_MS:
            seconds = sample_s(call, 1)
        if seconds < SLOW_S:
            seconds = min(seconds, *(sample_s(call, 1) for _ in range(3)))
        entry.ms, entry.seconds, entry.run = seconds * 1e3, contest.seconds, call
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        entry.problem = f"{type(error).__name__}: {text}"


def _compiled(
    contest: Contest,
    eager: Sequence[tuple[Published, str, Function]],
    entries: Sequence[Entry],
    truth: Tensor,
) -> list[Entry]:
    """torch.compile of the fastest in float32, and of the fastest of all."""
    by_name = {(_eager(peer), setting): peer for peer, setting, _ in eager}
    right = [e for e in entries if e.counts and (e.name, e.setting) in by_name]
    best = min((e for e in right if e.exact), key=lambda e: e.ms, default=None)
    fastest = min(right, key=lambda e: e.ms, default=None)
    made = []
    for entry in {id(e): e for e in (best, fastest) if e is not None}.values():
        if by_name[entry.name, entry.setting].net is None:
            continue
        peer = by_name[entry.name, entry.setting]
        run = contest.function(peer)
        assert run is not None
        new = Entry(f"{peer.name} torch.compile", entry.setting)
        with _deadline(COMPILE_S):
            _try(new, under(entry.setting, compiled(run)), contest, truth, ready=False)
        made.append(new)
    return made


@contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    """Raises TimeoutError inside what takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not ready after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _exported(contest: Contest, there: Sequence[Published], truth: Tensor) -> list[Entry]:
    """The first peer that torch.onnx exports, under the other engines."""
    made = []
    for engine, setting, make in OTHER_ENGINES:
        entry = Entry(package(engine), setting)
        made.append(entry)
        if not find_spec(engine):
            entry.problem = MISSING
            continue
        problems = []
        for peer in there:
            run = contest.function(peer)
            if run is None or peer.net is None:
                problems.append(f"{peer.name}: not a net of torch modules")
                continue
            if peer.name not in contest.exports:
                contest.exports[peer.name] = Exported(peer.net, run, contest.inputs)
            try:
                runs = make(contest.exports[peer.name])
            except Exception as error:
                text = " ".join(str(error).split())[:200]
                problems.append(f"{peer.name}: {type(error).__name__}: {text}")
                continue
            trial = replace(entry, name=f"{entry.name} ({peer.name})")
            _try(trial, runs, contest, truth)
            if trial.problem is None:
                made[-1] = trial
                break
            problems.append(f"{peer.name}: {trial.problem}")
        else:
            entry.problem = "; ".join(problems)
    return made
