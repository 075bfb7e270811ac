"""Streaming pushes of a whole net as CUDA graphs: one launch a push instead of hundreds.

    push:   first ones       │ one that leaves the state's form as it was │ every later one
    works:  eagerly          │ eagerly, and is then captured              │ a replay
    state:  the stream's own │ the stream's own                           │ the graph's, in place

A graph is fixed: the addresses it reads and writes, and every size. So it has an input, an output
and a state of its own, and serves all streams whose push has that size and whose state that form.
A stream's state stays in the graph until another stream comes; then the two change places. What
the layers count in Python must be the same at every push, or be one of their state's ``counters``,
which only the final push reads; else there is no graph, and an error says so.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn

Push = Callable[[Tensor, Any], Tensor]  # (x, state) -> y; the state is updated
Run = Callable[[], Tensor]

MOST = 8  # graphs a codec keeps; the one that waited longest gives way
PATIENCE = 256  # pushes within which the beginning of a signal must be over


@dataclass(frozen=True)
class Place:
    """A value in a state: an attribute of a dataclass, or an item of a list."""

    owner: Any
    key: Any

    def get(self) -> Any:
        """What is there."""
        if isinstance(self.owner, list | tuple):
            return self.owner[self.key]
        return getattr(self.owner, self.key)

    def put(self, value: Any) -> None:
        """Put something else there."""
        if isinstance(self.owner, list):
            self.owner[self.key] = value
        else:
            setattr(self.owner, self.key, value)

    @property
    def counts(self) -> bool:
        """Whether it is one of its owner's ``counters``."""
        return self.key in getattr(self.owner, "counters", ())


def places(state: Any) -> Iterator[Place]:
    """Of all values in a state made of dataclasses, lists and tuples, in a fixed order."""
    if is_dataclass(state):
        inside = [Place(state, field.name) for field in fields(state)]
    elif isinstance(state, list | tuple):
        inside = [Place(state, i) for i in range(len(state))]
    elif state is None:
        return
    else:
        raise TypeError(f"graph: a state cannot hold a {type(state).__name__}")
    for place in inside:
        value = place.get()
        if value is None or isinstance(value, Tensor | bool | int | float | str):
            yield place
        else:
            yield from places(value)


def tensors(state: Any) -> list[Place]:
    """The places of a state's tensors."""
    return [place for place in places(state) if isinstance(place.get(), Tensor)]


def form(state: Any) -> tuple[Any, ...]:
    """All of a state but the tensors' values and the ``counters``: states of one form share a
    graph.
    """
    found: list[Any] = []
    for place in places(state):
        value = place.get()
        if isinstance(value, Tensor):
            found.append((value.shape, value.dtype))
        else:
            found.append(None if place.counts else value)
    return tuple(found)


def hold_still(state: Any) -> None:
    """Ask whatever in a fresh state grows with the signal to keep one size."""
    if hasattr(state, "hold_still"):
        state.hold_still()
    elif is_dataclass(state):
        for field in fields(state):
            hold_still(getattr(state, field.name))
    elif isinstance(state, list | tuple):
        for part in state:
            hold_still(part)


def why_not(net: nn.Module) -> str | None:
    """Why no graph can be made of a net's pushes, or None."""
    reasons = (getattr(layer, "not_capturable_because", None) for layer in net.modules())
    return next((reason for reason in reasons if reason is not None), None)


class Live:
    """A stream's state, wherever it is: here, or in the graph that pushed it last."""

    def __init__(self, state: Any) -> None:
        self.state = state
        self.at: Recorded | None = None
        self.beginning = 0  # pushes so far of which no graph could be made

    def settle(self) -> Any:
        """The state, with its values here."""
        if self.at is not None:
            self.at.release()
        return self.state


class Capture:
    """How a run is recorded; this one only remembers it, for tests where there is no GPU."""

    def record(self, run: Run) -> tuple[Callable[[], Any], Tensor]:
        """What runs it again, and the output that this fills."""
        y = run()
        return lambda: y.copy_(run()), y

    def begin(self, sources: Sequence[Tensor] = ()) -> None:
        """Before the first use of a graph's memory: whatever came before it is over.

        Args:
            sources: tensors that are going to be read
        """

    def end(self) -> None:
        """After the last one."""


class CudaCapture(Capture):
    """CUDA graphs, captured on a stream of their own, with one pool of memory for all of a codec.

    Because they share it, none may run beside another: each use waits for the one before, on
    whatever streams they are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, torch.cuda.graph_pool_handle()
        self._side, self._last = torch.cuda.Stream(device), torch.cuda.Event()

    def record(self, run: Run) -> tuple[Callable[[], Any], Tensor]:
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        self._side.wait_stream(here)
        with torch.cuda.stream(self._side):
            run()  # kernels are compiled and workspaces made
        here.wait_stream(self._side)
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"
        ):
            y = run()
        return graph.replay, y

    def begin(self, sources: Sequence[Tensor] = ()) -> None:
        here = torch.cuda.current_stream(self._device)
        here.wait_event(self._last)
        for tensor in sources:  # may be of another stream, which must not use its memory yet
            tensor.record_stream(here)

    def end(self) -> None:
        self._last.record(torch.cuda.current_stream(self._device))


class Recorded:
    """A push that was captured, with the memory it works in."""

    def __init__(self, push: Push, x: Tensor, state: Any, capture: Capture) -> None:
        self.x, self.shape = x.clone(), x.shape
        places_now = tensors(state)
        self._held = [place.get().contiguous().clone() for place in places_now]
        pairs = zip(places_now, self._held, strict=True)
        template = copy.deepcopy(state, {id(place.get()): kept for place, kept in pairs})
        inside = {kept.untyped_storage()._cdata for kept in self._held}
        self._steps: list[int] = []  # of each counter

        def run() -> Tensor:
            own = copy.deepcopy(template, {id(kept): kept for kept in self._held})
            counted = [place for place in places(own) if place.counts]
            before = [place.get() for place in counted]
            y = push(self.x, own)
            after = [place.get() for place in tensors(own)]
            # A view of what another replaces would change under it.
            after = [t.clone() if t.untyped_storage()._cdata in inside else t for t in after]
            _copy(self._held, after)
            self._steps = [p.get() - n for p, n in zip(counted, before, strict=True)]
            return y

        self._capture, self._owner, self._replays = capture, None, 0
        self._replay, self._y = capture.record(run)

    _owner: ReferenceType[Live] | None

    def push(self, x: Tensor, live: Live) -> Tensor:
        """As the layers' own push of x, in the state of ``live``."""
        if x.device != self.x.device:
            raise RuntimeError(
                f"stream(graph=True): it was captured on {self.x.device}, the codec is on "
                f"{x.device} now; make a new stream"
            )
        if live.at is not self:
            live.settle()
            self.release()
            sources = [place.get() for place in tensors(live.state)]
            self._capture.begin(sources)
            _copy(self._held, sources)
            self._owner, live.at = ref(live), self
        else:
            self._capture.begin()
        self.x.copy_(x)
        self._replay()
        self._replays += 1
        y = self._y.clone(memory_format=torch.preserve_format)
        self._capture.end()
        return y

    def release(self) -> None:
        """Give the state back to the stream whose it is."""
        live = self._owner() if self._owner is not None else None
        if live is not None:
            self._capture.begin()
            for place, kept in zip(tensors(live.state), self._held, strict=True):
                place.put(kept.clone())
            counted = (place for place in places(live.state) if place.counts)
            for place, step in zip(counted, self._steps, strict=True):
                place.put(place.get() + self._replays * step)
            self._capture.end()
            live.at = None
        self._owner, self._replays = None, 0


class Graphs:
    """The graphs of a codec's pushes, shared by its streams.

    Args:
        capture: how they are made
        most: of them to keep
        made_for: what they hold for: weights, precision, device
    """

    def __init__(self, capture: Capture, most: int = MOST, made_for: Any = None) -> None:
        self._capture, self._most, self.made_for = capture, most, made_for
        self._recorded: OrderedDict[tuple[Any, ...], Recorded] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._recorded)

    def __reduce__(self) -> tuple[Any, ...]:  # a copy or a pickle of the codec makes its own
        return type(None), ()

    def push(self, name: str, push: Push, x: Tensor, live: Live) -> Tensor:
        """``push(x, state of live)``, by a graph as soon as there can be one.

        Args:
            name: of this push among others of the codec

        Raises:
            RuntimeError: the state never keeps its form, or what is captured waits for the host
        """
        with self._lock:
            if live.at is not None and live.at.shape == x.shape:
                return live.at.push(x, live)
            state = live.settle()
            before = form(state)
            key = (name, x.shape, before)
            if (recorded := self._recorded.get(key)) is not None:
                self._recorded.move_to_end(key)
                return recorded.push(x, live)
            y = push(x, state)
            if form(state) == before:
                self._make_room()
                self._recorded[key] = Recorded(push, x, state, self._capture)
                return y
            live.beginning += 1
            if live.beginning > PATIENCE:
                raise RuntimeError(
                    f"stream(graph=True): none of {PATIENCE} pushes has left the state of {name} "
                    f"in the form in which it was; use graph=False"
                )
            return y

    def _make_room(self) -> None:
        while len(self._recorded) >= self._most:
            _, oldest = self._recorded.popitem(last=False)
            oldest.release()


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)
