"""What every layer offers: ``forward`` over a whole signal, ``push`` over its pieces.

``push(x, state, final=False)`` takes any number of frames (none, too) and returns what they
complete; ``final=True`` says that no more will come, adds the padding of the end and returns the
rest. ``forward`` is one final push into a fresh state, so both are the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from fastcodec.layers import plan
from fastcodec.layers.plan import ChainState, Leaf, Plan, Runs


class StreamingModule(nn.Module):
    """A layer over [B, C, T] signals that can be fed in pieces.

    ``lookahead`` is how many of its input frames after the current one an output frame depends on,
    and ``rate`` how many output frames an input frame makes (a fraction for a strided layer).
    """

    lookahead: float = 0
    rate: float = 1
    not_streamable_because: str | None = None
    not_capturable_because: str | None = None  # as a CUDA graph, see ``graph``

    def init_state(self, batch_size: int) -> Any:
        """The state before the first frame."""
        return None

    def push(self, x: Tensor, state: Any, final: bool = False) -> Tensor:
        """The frames of the output that x completes.

        Args:
            x: [B, C_in, T] float, T >= 0
            state: from ``init_state``, updated in place
            final: no more input will come
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The output of a whole signal [B, C_in, T]; differentiable."""
        return self.push(x, self.init_state(x.shape[0]), final=True)

    def lower(self, plan: Plan, held: int = 0) -> bool:
        """Append to a plan what a push does between a signal's ends; False where it cannot.

        Args:
            plan: of the layers before
            held: a step of the plan whose frames are to be added to the result; 0: none
        """
        return False

    def leaves(self, state: Any) -> Iterator[Leaf]:
        """The parts of a state that the steps of ``lower`` carry on, in their order."""
        return iter(())

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """``lower`` is not inherited: whatever a class overrides, a push may be another."""
        super().__init_subclass__(**kwargs)
        if "lower" not in vars(cls):
            cls.lower = StreamingModule.lower  # type: ignore[method-assign]


class WholeSignal(StreamingModule):
    """A layer that needs all of a signal in one push, the final one."""

    def init_state(self, batch_size: int) -> list[bool]:
        return [False]  # nothing has come

    def push(self, x: Tensor, state: list[bool], final: bool = False) -> Tensor:
        if not final or state[0]:
            raise ValueError(f"{type(self).__name__}.push: {self.not_streamable_because}")
        state[0] = True
        return self.whole(x)

    def whole(self, x: Tensor) -> Tensor:
        """The output of a whole signal [B, C_in, T]."""
        raise NotImplementedError


def streaming(layers: nn.ModuleList) -> list[StreamingModule]:
    """The layers of a list under their true type."""
    return cast(list[StreamingModule], list(layers))


class Sequential(StreamingModule):
    """Layers one after the other."""

    def __init__(self, *layers: StreamingModule) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        reasons = [layer.not_streamable_because for layer in layers if layer.not_streamable_because]
        self.not_streamable_because = reasons[0] if reasons else None
        self.rate, self.lookahead = 1.0, 0.0
        for layer in layers:
            self.lookahead += layer.lookahead / self.rate
            self.rate *= layer.rate
        self._runs: Runs | None = None
        self._within = False  # has its steps in the plan of a larger net

    def init_state(self, batch_size: int) -> ChainState:
        return ChainState([layer.init_state(batch_size) for layer in streaming(self.layers)])

    def push(self, x: Tensor, state: ChainState, final: bool = False) -> Tensor:
        if not final and not self._within and plan.serves(x):
            if self._runs is None or not self._runs.up_to_date():
                self._runs = Runs(streaming(self.layers))
            return self._runs.push(x, state)
        state.give_back()
        for layer, layer_state in zip(streaming(self.layers), state, strict=True):
            x = layer.push(x, layer_state, final)
        return x

    def lower(self, plan: Plan, held: int = 0) -> bool:
        self._within = not held and all(layer.lower(plan) for layer in streaming(self.layers))
        return self._within

    def leaves(self, state: ChainState) -> Iterator[Leaf]:
        state.give_back()
        for layer, layer_state in zip(streaming(self.layers), state, strict=True):
            yield from layer.leaves(layer_state)


@dataclass
class Held(Leaf):
    """Frames that wait for another path to catch up, [B, T, C] in memory."""

    def add(self, x: Tensor) -> None:
        """Append x [B, C, T]."""
        self.frames = append(self.frames, x)

    def __len__(self) -> int:
        return 0 if self.frames is None else self.frames.shape[1]

    def take(self, count: int) -> Tensor:
        """Remove and return the first ``count`` frames as [B, C, count]."""
        assert self.frames is not None and self.frames.shape[1] >= count
        taken, self.frames = self.frames[:, :count], self.frames[:, count:]
        return taken.transpose(1, 2)


def append(before: Tensor | None, x: Tensor) -> Tensor:
    """x [B, C, T] put after ``before`` [B, T', C] as [B, T' + T, C], without a transposition."""
    frames = x.transpose(1, 2)
    if before is None or before.shape[1] == 0:
        return frames
    return torch.cat([before, frames], dim=1) if x.shape[2] else before


@dataclass
class ResidualState:
    """States of the two paths and the skip path's frames that the body has not reached."""

    body: list[Any]
    skip: Any
    held: Held = field(default_factory=Held)


class Residual(StreamingModule):
    """skip(x) + body(x); the last layer of the body adds the skip path to its own result.

    Args:
        body: layers of one rate in all; the last must offer ``push(x, state, final, residual)``
        skip: a layer without look-ahead, or None for x itself
    """

    def __init__(
        self, body: Sequence[StreamingModule], skip: StreamingModule | None = None
    ) -> None:
        super().__init__()
        self.body = nn.ModuleList(body)
        self.skip = skip
        chain = Sequential(*body)
        self.lookahead, self.not_streamable_because = chain.lookahead, chain.not_streamable_because

    def init_state(self, batch_size: int) -> ResidualState:
        body = [layer.init_state(batch_size) for layer in streaming(self.body)]
        return ResidualState(body, self.skip.init_state(batch_size) if self.skip else None)

    def push(self, x: Tensor, state: ResidualState, final: bool = False) -> Tensor:
        state.held.add(self.skip.push(x, state.skip, final) if self.skip else x)
        *inner, last = zip(streaming(self.body), state.body, strict=True)
        for layer, layer_state in inner:
            x = layer.push(x, layer_state, final)
        layer, layer_state = last
        return cast(Any, layer).push(x, layer_state, final, state.held)

    def lower(self, plan: Plan, held: int = 0) -> bool:
        *inner, last = streaming(self.body)
        if held or self.lookahead < 0 or any(layer.rate != 1 for layer in streaming(self.body)):
            return False
        plan.branch()
        if self.skip is not None and not self.skip.lower(plan):
            return False
        kept = plan.hold(int(self.lookahead))
        return all(layer.lower(plan) for layer in inner) and last.lower(plan, kept)

    def leaves(self, state: ResidualState) -> Iterator[Leaf]:
        if self.skip is not None:
            yield from self.skip.leaves(state.skip)
        for layer, layer_state in zip(streaming(self.body), state.body, strict=True):
            yield from layer.leaves(layer_state)
        yield state.held


class Sum(StreamingModule):
    """The sum of parallel branches, in their order, divided by ``divide``.

    Args:
        branches: layers of one rate and width; what one of them gives early waits for the others
        divide: 1 leaves the sum as it is
    """

    def __init__(self, branches: Sequence[StreamingModule], divide: float = 1) -> None:
        super().__init__()
        self.branches, self.divide = nn.ModuleList(branches), divide
        reasons = [b.not_streamable_because for b in branches if b.not_streamable_because]
        self.not_streamable_because = reasons[0] if reasons else None
        self.lookahead, self.rate = max(b.lookahead for b in branches), branches[0].rate

    def init_state(self, batch_size: int) -> list[tuple[Any, Held]]:
        return [(b.init_state(batch_size), Held()) for b in streaming(self.branches)]

    def push(self, x: Tensor, state: list[tuple[Any, Held]], final: bool = False) -> Tensor:
        for branch, (branch_state, held) in zip(streaming(self.branches), state, strict=True):
            held.add(branch.push(x, branch_state, final))
        count = min(len(held) for _, held in state)
        y = state[0][1].take(count)
        for _, held in state[1:]:
            y = y + held.take(count)
        return y if self.divide == 1 else y / self.divide


@dataclass
class Waiting:
    """Frames that came and are not passed on yet, and how many have come in all."""

    counters: ClassVar[tuple[str, ...]] = ("received",)
    frames: Tensor | None = None
    received: int = 0


class PadTo(StreamingModule):
    """x with zeros after its end, up to a multiple of ``multiple`` frames."""

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple = multiple

    def init_state(self, batch_size: int) -> Waiting:
        return Waiting()

    def push(self, x: Tensor, state: Waiting, final: bool = False) -> Tensor:
        state.received += x.shape[2]
        missing = -state.received % self.multiple
        return nn.functional.pad(x, (0, missing)) if final and missing else x


class Regroup(StreamingModule):
    """x, passed on in multiples of ``multiple`` frames only; the last push passes on all."""

    def __init__(self, multiple: int) -> None:
        super().__init__()
        self.multiple, self.lookahead = multiple, multiple - 1

    def init_state(self, batch_size: int) -> Waiting:
        return Waiting()

    def push(self, x: Tensor, state: Waiting, final: bool = False) -> Tensor:
        frames = append(state.frames, x)
        count = frames.shape[1] if final else frames.shape[1] // self.multiple * self.multiple
        state.frames = frames[:, count:]
        return frames[:, :count].transpose(1, 2)
