"""The comparison rule of the golden vectors (README.md beside them), in one place.

Every function raises ``Mismatch``, with what was measured and what is allowed, or returns the
measurement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

SQ_SUM_TOLERANCE = 1e-5  # relative
COS_DOT_TOLERANCE = 1e-3  # times rms * sqrt(count)
EXCUSED_CAP = 0.1  # of the frames of a case


class Mismatch(AssertionError):
    """A result is not what the reference gave."""


@dataclass(frozen=True)
class Reference:
    """One array of a case: its manifest entry, and what the case's file holds of it.

    Args:
        name: of the array
        entry: ``shape``, ``dtype``, ``stored``, and ``stats``, ``step``, ``head`` where they apply
        parts: ``{"full": ...}``, or ``{"every": ..., "head": ...}`` of a sampled array
    """

    name: str
    entry: Mapping[str, Any]
    parts: Mapping[str, NDArray[Any]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array, stored or not."""
        return tuple(self.entry["shape"])

    @property
    def full(self) -> NDArray[Any]:
        """The whole array."""
        if "full" not in self.parts:
            raise ValueError(f"{self.name}: only a sample of this array is stored")
        return self.parts["full"]

    @property
    def count(self) -> int:
        """Number of values of the whole array."""
        return int(np.prod(self.shape))

    @property
    def rms(self) -> float:
        """Root mean square of the whole array."""
        return float(np.sqrt(self.entry["stats"]["sq_sum"] / self.count))

    def sampled(self, array: NDArray[Any]) -> list[tuple[str, NDArray[Any], NDArray[Any]]]:
        """(part, stored, the same part of ``array``) of everything that is stored."""
        flat = array.reshape(-1)
        if "full" in self.parts:
            return [("full", self.full.reshape(-1), flat)]
        step, head = self.entry["step"], self.entry["head"]
        return [
            ("every", self.parts["every"].reshape(-1), flat[::step]),
            ("head", self.parts["head"].reshape(-1), flat[:head]),
        ]


def shapes(got: ArrayLike, reference: Reference) -> NDArray[Any]:
    """``got`` as an array, which must have the reference's shape (rule 1)."""
    array = np.asarray(got)
    if array.shape != reference.shape:
        raise Mismatch(
            f"{reference.name}: expected shape {list(reference.shape)}, got {list(array.shape)}"
        )
    return array


def floats(got: ArrayLike, reference: Reference, tolerance: float, unit: str = "rms") -> float:
    """The largest difference, in units of the reference's rms (or ``"max_abs"``): rule 2.

    Of a sampled array also the two sums over all its values are compared.
    """
    array = shapes(got, reference).astype(np.float64)
    scale = reference.rms if unit == "rms" else reference.entry["stats"]["max_abs"]
    worst = 0.0
    for part, want, have in reference.sampled(array):
        largest = float(np.abs(have - want).max(initial=0.0))
        if not largest <= tolerance * scale:  # true of NaN, too
            raise Mismatch(
                f"{reference.name}: {part} differs by {largest / scale:.3g} {unit}, allowed "
                f"{tolerance:g}"
            )
        worst = max(worst, largest)
    if "full" not in reference.parts:
        _sums(array.reshape(-1), reference)
    return worst / scale if scale else worst


def _sums(flat: NDArray[np.float64], reference: Reference) -> None:
    stats = reference.entry["stats"]
    sq_sum = float(np.square(flat).sum())
    if not abs(sq_sum - stats["sq_sum"]) <= SQ_SUM_TOLERANCE * stats["sq_sum"]:
        raise Mismatch(f"{reference.name}: sq_sum is {sq_sum:.9g}, expected {stats['sq_sum']:.9g}")
    cos_dot = float(flat @ np.cos(0.5 * np.arange(flat.size)))
    allowed = COS_DOT_TOLERANCE * reference.rms * np.sqrt(reference.count)
    if not abs(cos_dot - stats["cos_dot"]) <= allowed:
        raise Mismatch(
            f"{reference.name}: cos_dot is {cos_dot:.6g}, expected {stats['cos_dot']:.6g} "
            f"within {allowed:.3g}"
        )


def relative_rms(got: ArrayLike, reference: Reference, tolerance: float) -> float:
    """rms of the difference over the reference's rms, over what is stored (rule 6, int8 files)."""
    array = shapes(got, reference).astype(np.float64)
    worst = 0.0
    for _, want, have in reference.sampled(array):
        relative = float(np.sqrt(np.square(have - want).mean())) / reference.rms
        if not relative <= tolerance:
            raise Mismatch(
                f"{reference.name}: rms of the difference is {relative:.3g} of the rms, allowed "
                f"{tolerance:g}"
            )
        worst = max(worst, relative)
    return worst


def exact(got: ArrayLike, reference: Reference) -> None:
    """All values equal: file contents, integer tables."""
    array = shapes(got, reference)
    wrong = np.flatnonzero(array.reshape(-1) != reference.full.reshape(-1))
    if wrong.size:
        at = int(wrong[0])
        raise Mismatch(
            f"{reference.name}: {wrong.size} of {array.size} values differ, first at {at}: "
            f"expected {reference.full.reshape(-1)[at]}, got {array.reshape(-1)[at]}"
        )


def codes(
    got: Sequence[ArrayLike] | NDArray[Any],
    want: Sequence[ArrayLike] | NDArray[Any],
    margins: Sequence[ArrayLike] | NDArray[Any] | None = None,
    epsilon: float = 0.0,
    chains: Sequence[int] | None = None,
) -> float:
    """The fraction of frames with an excused code (rule 3).

    A code may differ where its margin is below ``epsilon``, and then the later levels of its chain
    may, in the frames that it covers.

    Args:
        got, want: levels of [T] codes; a level with fewer frames covers several of the finest
        margins: like ``want``: how decisive each code was; None: every code must be equal
        chains: which chain of residuals each level belongs to; all one chain where None
    """
    ours, theirs = [np.asarray(x) for x in got], [np.asarray(x) for x in want]
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        raise Mismatch(
            f"codes: expected {len(theirs)} levels of {_lengths(theirs)} frames, got {len(ours)} "
            f"of {_lengths(ours)}"
        )
    chains = [0] * len(ours) if chains is None else chains
    frames = max((x.size for x in ours), default=0)
    excused = {chain: np.zeros(frames, bool) for chain in chains}
    for level, (mine, theirs_now, chain) in enumerate(zip(ours, theirs, chains, strict=True)):
        hold = frames // mine.size
        free = excused[chain].reshape(mine.size, hold).any(axis=1)
        differs = (mine != theirs_now) & ~free
        margin = np.full(mine.size, np.inf) if margins is None else np.asarray(margins[level])
        decided = np.flatnonzero(differs & ~(margin.astype(np.float64) < epsilon))
        if decided.size:
            at = int(decided[0])
            raise Mismatch(
                f"codes: {decided.size} of level {level} differ without excuse, first in frame "
                f"{at}: expected {theirs_now[at]}, got {mine[at]}, margin {margin[at]:.3g}, "
                f"epsilon {epsilon:.3g}"
            )
        excused[chain] |= np.repeat(differs, hold)
    share = float(np.mean(np.any(list(excused.values()), axis=0))) if excused else 0.0
    if not share < EXCUSED_CAP:
        raise Mismatch(f"codes: {share:.1%} of the frames need an excuse, allowed below 10 %")
    return share


def _lengths(levels: Sequence[NDArray[Any]]) -> list[int]:
    return sorted({x.size for x in levels})
