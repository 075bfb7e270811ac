"""A case on a GPU: gates first, then every backend of ours and every peer in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.gates import Gate
from benchmarks.gpu.clock import Row, Run, Side, Timed, in_turns, prepare
from benchmarks.machine import fastcodec_version, package
from fastcodec import use_backend
from fastcodec.ops._op import Op

BACKENDS = ("cuda", "triton")
Check = Callable[[Any], Gate]


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Args:
        name, config: as the rows of the CPU
        ours: ways of ours, by name
        peers: of others
        check: a result -> its gate
        floor_us: what the hardware needs at least
        must: what the work has to reach, in words, and (best of ours in us, best peer in us, floor)
            -> whether it does
        peer_check: of a peer's result, where it may be less exact
    """

    name: str
    config: dict[str, Any]
    ours: Sequence[Side]
    peers: Sequence[Side]
    check: Check
    floor_us: float
    must: tuple[str, Callable[[float, float, float], bool]]
    peer_check: Check | None = None


@dataclass
class Bench:
    """What all rows share, and how long there is."""

    floors: dict[str, float]
    gpu: Row
    until: float  # by time.monotonic
    rows: list[Row] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        """Seconds that are left."""
        return self.until - time.monotonic()

    def row(self, name: str, config: dict[str, Any]) -> Row:
        """What every row starts with."""
        return {
            "name": name,
            "config": config,
            "gpu": self.gpu,
            "floors": self.floors,
            "torch": torch.__version__,
            "triton": package("triton"),
            "fastcodec": fastcodec_version(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    @torch.no_grad()
    def measure(self, case: Case) -> Row:
        """One row of all sides; a side whose result is wrong has no time in it."""
        row = self.row(case.name, case.config) | {"floor_us": round(case.floor_us, 3)}
        if self.left_s <= 0:
            return row | {"error": "there was no time left"}
        ours = [_checked(side, case.check) for side in case.ours]
        peers = [_checked(side, case.peer_check or case.check) for side in case.peers]
        ready = [(facts, timed) for facts, timed in [*ours, *peers] if timed is not None]
        in_turns([timed for _, timed in ready])
        for facts, timed in ready:
            facts |= timed.as_row()
        row["ours"] = {side.name: f for side, (f, _) in zip(case.ours, ours, strict=True)}
        row["peers"] = {side.name: f for side, (f, _) in zip(case.peers, peers, strict=True)}
        return row | _verdict(case, row)


def _checked(side: Side, check: Check) -> tuple[Row, Timed | None]:
    if side.run is None:
        return {"absent": side.absent}, None
    try:
        gate = check(side.run())
        facts: Row = {"gate": gate.as_row()}
        return facts, prepare(side) if gate.passed else None
    except Exception as error:  # one side must not cost the others' rows
        text = str(error).strip().splitlines()
        return {"error": f"{type(error).__name__}: {text[0][:200] if text else ''}"}, None


def _verdict(case: Case, row: Row) -> Row:
    """The best of both sides, and whether the goal is reached."""
    mine, theirs = (
        {name: f["median_us"] for name, f in row[side].items() if "median_us" in f}
        for side in ("ours", "peers")
    )
    words, reached = case.must
    found: Row = {"must": words}
    if not mine:
        return found | {"error": "no backend of ours passed its gate"}
    best = min(mine, key=lambda name: mine[name])
    found |= {"best": best, "best_us": mine[best]}
    found["times_floor"] = round(mine[best] / case.floor_us, 2) if case.floor_us else None
    if theirs:
        peer = min(theirs, key=lambda name: theirs[name])
        found |= {"best_peer": peer, "ratio": round(theirs[peer] / mine[best], 3)}
    rival = min(theirs.values(), default=float("inf"))
    return found | {"reached": bool(reached(mine[best], rival, case.floor_us))}


def by_backend(op: Op, args: tuple[Any, ...]) -> list[Side]:
    """A call of an op by each backend on a GPU."""
    return [served(backend, lambda: op(*args), op.why_not(backend, args)) for backend in BACKENDS]


def served(backend: str, run: Run, absent: str | None) -> Side:
    """A run with every op served by one backend."""
    if absent is not None:
        return Side(backend, absent=absent)

    def forced() -> Any:
        with use_backend(backend):
            return run()

    return Side(backend, forced)


def compiled(name: str, function: Callable[..., Any], *args: Any) -> Side:
    """By torch.compile; what does not compile is a reason."""
    torch._dynamo.reset()
    made = torch.compile(function, dynamic=False)
    try:
        made(*args)
    except Exception as error:
        return Side(name, absent=f"{type(error).__name__}: {str(error)[:120]}")
    return Side(name, lambda: made(*args))
