"""Collects what one case compares, so that a report names every array that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from . import compare
from .cases import GOLDEN, Case

Levels = Sequence[ArrayLike] | NDArray[Any]
REPORT: list[tuple[str, ...]] = []  # a row a case, see ``conftest``
HEAD = ("case", "codes equal %", "frames excused %", "latents, rms", "audio, rms", "")


class Checks:
    """The comparisons of one case; ``finish`` fails if one failed or an array was left out.

    Args:
        case: whose arrays are compared
        unit: of the tolerance of float arrays, see ``compare.floats``
    """

    def __init__(self, case: Case, unit: str = "rms") -> None:
        self.case, self.unit = case, unit
        self.measured: dict[str, float] = {}
        self._problems: list[str] = []
        self._codes, self._excused = np.zeros(2, np.int64), 0.0  # (equal, all); share of frames
        self._left = set(case.arrays)

    @contextmanager
    def of(self, *names: str) -> Iterator[None]:
        """A block that compares these arrays; a mismatch is kept for the end."""
        self._left -= set(names)
        try:
            yield
        except (AssertionError, ValueError) as error:
            self._problems.append(f"{', '.join(names)}: {error}")

    def has(self, *names: str) -> bool:
        """Whether the case holds all of these arrays."""
        return set(names) <= set(self.case.arrays)

    def floats(self, name: str, got: ArrayLike | Callable[[], ArrayLike]) -> None:
        """Compare a float array by rule 2."""
        with self.of(name):
            value = got() if callable(got) else got
            reference = self.case.arrays[name]
            self.measured[name] = compare.floats(value, reference, self.case.tolerance, self.unit)

    def exact(self, name: str, got: ArrayLike | Callable[[], ArrayLike]) -> None:
        """Compare an array value by value."""
        with self.of(name):
            compare.exact(got() if callable(got) else got, self.case.arrays[name])

    def codes(self, name: str, got: ArrayLike, levels: int | None = None) -> None:
        """Compare codes [K, T] by rule 3, or the first ``levels`` of them."""
        margins = self.case.arrays[f"{name}_margin"]
        with self.of(name, margins.name):
            want = self.case.arrays[name].full[:levels]
            self.levels(got, want, margins.full[:levels], margins.entry["epsilon"])

    def levels(
        self,
        got: Levels,
        want: Levels,
        margins: Levels | None,
        epsilon: float,
        chains: Sequence[int] | None = None,
    ) -> None:
        """Compare levels of codes, as ``compare.codes``; raises where one differs."""
        self._excused = max(self._excused, compare.codes(got, want, margins, epsilon, chains))
        for ours, theirs in zip(got, want, strict=True):
            equal = np.asarray(ours) == np.asarray(theirs)
            self._codes += np.array([equal.sum(), equal.size])

    def equal(self, what: str, got: object, want: object) -> None:
        """Compare a plain value of the manifest."""
        if got != want:
            self._problems.append(f"{what}: expected {want}, got {got}")

    def uses(self, *names: str) -> None:
        """Say that these arrays served as input."""
        self._left -= set(names)

    def finish(self) -> None:
        """Fail with every problem; what was measured goes into the table at a report's end."""
        if self.case.folder.parent == GOLDEN:  # and not one of the harness's own tests
            REPORT.append(self._row())
        if self._left:
            self._problems.append(f"arrays that nothing compared: {', '.join(sorted(self._left))}")
        if self._problems:
            pytest.fail(f"{self.case.id}:\n  " + "\n  ".join(self._problems), pytrace=False)

    def _row(self) -> tuple[str, ...]:
        """Case, codes equal, frames excused, worst error of latents and of audio."""
        equal, count = self._codes
        audio = [value for name, value in self.measured.items() if "audio" in name]
        others = [value for name, value in self.measured.items() if "audio" not in name]
        return (
            self.case.id,
            f"{100 * equal / count:.3f}" if count else "",
            f"{100 * self._excused:.2f}" if count else "",
            f"{max(others):.1e}" if others else "",
            f"{max(audio):.1e}" if audio else "",
            "failed" if self._problems or self._left else "",
        )
