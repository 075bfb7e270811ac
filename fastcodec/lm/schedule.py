"""In which step a codec LM reads and writes which code, as static tables.

A schedule is a list of steps, each with the codes (frame t, codebook q) that the model emits there:
the codebook patterns of MusicGen (Copet et al. 2023, arXiv:2306.05284, section 2.2;
audiocraft/modules/codebooks_patterns.py@896ec7c) and of every system that decodes a grid of codes
step by step. A step without a code of some codebook holds the special token there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

Code = tuple[int, int]  # frame, codebook
Step = tuple[Code, ...]


@dataclass(frozen=True)
class Table:
    """Where every position of a result is taken from.

    Args:
        index: int64 into the flattened source, whose last entry, one past it, is the special token
        inside: bool, whether it is a position of the source
    """

    index: Tensor
    inside: Tensor

    def take(self, source: Tensor, special: float) -> Tensor:
        """[B, K, ...] from [B, K, n], the special value outside."""
        index = self.index.to(source.device)
        beside = source.new_full((len(source), 1), special)
        flat = torch.cat([source.reshape(len(source), -1), beside], dim=1)
        return flat[:, index.flatten()].view(len(source), *index.shape)


@dataclass(frozen=True)
class Schedule:
    """Steps of a grid of K codebooks and T frames.

    Args:
        steps: the codes of each, and maybe codes of frames from T on, which nobody keeps
        n_codebooks, n_frames: K, T
    """

    steps: tuple[Step, ...]
    n_codebooks: int
    n_frames: int

    def __post_init__(self) -> None:
        codes = [code for step in self.steps for code in step]
        if len(set(codes)) < len(codes):
            raise ValueError("Schedule: expected every code in one step, got one in two")
        if any(t < 0 or not 0 <= q < self.n_codebooks for t, q in codes):
            raise ValueError(
                f"Schedule: expected frames from 0 on and codebooks below {self.n_codebooks}"
            )

    def __len__(self) -> int:
        return len(self.steps)

    @cached_property
    def kept(self) -> tuple[tuple[int, int, int], ...]:
        """(step, frame, codebook) of every code of the grid."""
        return tuple(
            (s, t, q) for s, step in enumerate(self.steps) for t, q in step if t < self.n_frames
        )

    @property
    def begins_empty(self) -> bool:
        """Whether the model starts from a step of special tokens."""
        return bool(self.steps) and not self.steps[0]

    @property
    def overhang(self) -> int:
        """Frames from T on that the last steps hold."""
        last = max((t for step in self.steps for t, _ in step), default=self.n_frames - 1)
        return last + 1 - self.n_frames

    def without_overhang(self) -> Schedule:
        """The steps that a training sequence has: as many fewer as frames hang over."""
        steps = self.steps[: len(self) - self.overhang]
        return Schedule(steps, self.n_codebooks, self.n_frames)

    @cached_property
    def first_step(self) -> tuple[int, ...]:
        """Per frame the first step that holds a code of it."""
        first = [len(self)] * self.n_frames
        for s, t, _ in reversed(self.kept):
            first[t] = min(first[t], s)
        return tuple(first)

    @cached_property
    def last_step(self) -> tuple[int, ...]:
        """Per frame the step after which all its codes are there."""
        last = [0] * self.n_frames
        for s, t, _ in self.kept:
            last[t] = max(last[t], s)
        return tuple(last)

    @cached_property
    def to_sequence(self) -> Table:
        """[K, S] of [K, T]: the codes of every step."""
        shape = (self.n_codebooks, len(self))
        index = torch.full(shape, self.n_codebooks * self.n_frames)
        for s, t, q in self.kept:
            index[q, s] = t + q * self.n_frames
        return Table(index, index < self.n_codebooks * self.n_frames)

    @cached_property
    def to_grid(self) -> Table:
        """[K, T] of [K, S]: the codes of every frame."""
        return self._to_grid(0)

    @cached_property
    def outputs_to_grid(self) -> Table:
        """[K, T] of [K, S], what a model says at every step: the codes of the step after it."""
        return self._to_grid(int(self.begins_empty))

    def _to_grid(self, ahead: int) -> Table:
        outside = self.n_codebooks * len(self)
        index = torch.full((self.n_codebooks, self.n_frames), outside)
        for s, t, q in self.kept:
            index[q, t] = s - ahead + q * len(self)
        return Table(index, index < outside)

    def sequence(self, codes: Tensor, special: int) -> Tensor:
        """Codes [B, K, T] as [B, K, S], what the model reads."""
        self._check(codes, "codes", self.n_frames)
        return self.to_sequence.take(codes, special)

    def grid(self, sequence: Tensor, special: int) -> Tensor:
        """[B, K, S] as codes [B, K, T]; the special value where no step has the code."""
        self._check(sequence, "sequence", len(self))
        return self.to_grid.take(sequence, special)

    def _check(self, x: Tensor, what: str, columns: int) -> None:
        if x.ndim != 3 or tuple(x.shape[1:]) != (self.n_codebooks, columns):
            raise ValueError(
                f"Schedule: expected {what} of [B, {self.n_codebooks}, {columns}], got "
                f"{list(x.shape)}"
            )


def delayed(
    n_frames: int, delays: Sequence[int], flat_frames: int = 0, empty_steps: int = 0
) -> Schedule:
    """Codebook q of a frame comes delays[q] steps after the frame's turn; zeros: all at once.

    Args:
        flat_frames: so many first frames come one code a step
        empty_steps: further steps without a code at the beginning; -1: not even the usual one
    """
    count, most = len(delays), max(delays, default=0)
    if min(delays, default=-1) < 0 or empty_steps < -1:
        raise ValueError(f"delayed: expected delays from 0 on, got {list(delays)}")
    steps: list[Step] = [()] * (1 + empty_steps)
    steps += [((t, q),) for t in range(min(flat_frames, n_frames)) for q in range(count)]
    for turn in range(flat_frames, n_frames + most):
        ready = ((turn - delay, q) for q, delay in enumerate(delays))
        steps.append(tuple((t, q) for t, q in ready if t >= flat_frames))
    return Schedule(tuple(steps), count, n_frames)


def flattened(
    n_frames: int, places: Sequence[int], delays: Sequence[int] | None = None
) -> Schedule:
    """A frame takes as many steps as there are places; codebook q comes at places[q].

    Args:
        delays: by how many frames each codebook is late; the same for those of one place
    """
    late = list(delays) if delays is not None else [0] * len(places)
    for place in set(places):
        if len({late[q] for q, p in enumerate(places) if p == place}) > 1:
            raise ValueError(f"flattened: expected one delay for the codebooks of place {place}")
    turns = n_frames + max(late)
    found: list[tuple[int, Step]] = []
    for t in range(turns):
        for place in range(max(places) + 1):
            codes = tuple((t, q) for q, p in enumerate(places) if p == place)
            turn = t + (late[codes[0][1]] if codes else 0)
            if turn < turns:
                found.append((turn, codes))
    return Schedule(((), *(step for _, step in sorted(found))), len(places), n_frames)


def coarse_first(n_frames: int, delays: Sequence[int]) -> Schedule:
    """All of the first codebook; then the others, codebook q late by delays[q - 1]."""
    coarse: list[Step] = [((t, 0),) for t in range(n_frames)]
    fine = [
        tuple((turn - late, q + 1) for q, late in enumerate(delays) if turn >= late)
        for turn in range(n_frames + max(delays, default=0))
    ]
    return Schedule(((), *coarse, *fine), len(delays) + 1, n_frames)


def grouped(n_frames: int, n_codebooks: int, group: int) -> Schedule:
    """Codebooks in groups, one code a step: all frames of a group, then the next (MusicLM)."""
    if group < 1 or n_codebooks % group:
        raise ValueError(f"grouped: expected groups that divide {n_codebooks}, got {group}")

    def steps() -> Iterator[Step]:
        for first in range(0, n_codebooks, group):
            for t in range(n_frames):
                for q in range(first, first + group):
                    yield ((t, q),)

    return Schedule(((), *steps()), n_codebooks, n_frames)
