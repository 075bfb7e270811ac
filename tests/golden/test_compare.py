"""The comparison rule rejects what it must: every kind of damage, at the size it should notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from . import compare
from .compare import Mismatch, Reference

RNG = np.random.default_rng(0)
AUDIO = RNG.standard_normal((2, 3000)).astype(np.float32) * 0.1
TOLERANCE = 1e-4


def reference(array: NDArray[Any], step: int = 0, head: int = 0) -> Reference:
    """What the golden vectors store of ``array``: all, or a sample where ``step`` is given."""
    flat = array.reshape(-1).astype(np.float64)
    entry = {"shape": list(array.shape), "dtype": str(array.dtype)}
    entry["stats"] = {
        "sq_sum": float(np.square(flat).sum()),
        "max_abs": float(np.abs(flat).max()),
        "cos_dot": float(flat @ np.cos(0.5 * np.arange(flat.size))),
    }
    if not step:
        return Reference("x", {**entry, "stored": "full"}, {"full": array})
    parts = {"every": array.reshape(-1)[::step], "head": array.reshape(-1)[:head]}
    return Reference("x", {**entry, "stored": "sample", "step": step, "head": head}, parts)


STORED = {"full": reference(AUDIO), "sample": reference(AUDIO, step=7, head=500)}
stored = pytest.mark.parametrize("want", STORED.values(), ids=STORED)


@stored
def test_rounding_passes(want: Reference) -> None:
    noise = RNG.uniform(-1, 1, AUDIO.shape) * 0.9e-5 * want.rms
    assert 0 < compare.floats(AUDIO + noise, want, TOLERANCE) < 1e-5


@stored
@pytest.mark.parametrize(
    "damage",
    [
        lambda x: np.roll(x, 1, axis=1),
        lambda x: x[::-1],
        lambda x: -x,
        lambda x: x * 1.001,
        lambda x: x + 2e-4 * 0.1,
        lambda x: x.reshape(-1)[::-1].reshape(x.shape),
        lambda x: np.zeros_like(x),
        lambda x: np.full_like(x, np.nan),
        lambda x: np.full_like(x, np.inf),
        lambda x: x[:, :-1],
        lambda x: x[:1],
        lambda x: x[None],
        lambda x: x.T,
        lambda x: np.pad(x, ((0, 0), (0, 1))),
    ],
)
def test_damage_fails(want: Reference, damage: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    with pytest.raises(Mismatch):
        compare.floats(damage(AUDIO), want, TOLERANCE)


@stored
@pytest.mark.parametrize("at", [0, 7, 499])
@pytest.mark.parametrize("value", [np.nan, 1.0, -np.inf])
def test_one_wrong_stored_value_fails(want: Reference, at: int, value: float) -> None:
    wrong = AUDIO.copy()
    wrong.reshape(-1)[at] = value
    with pytest.raises(Mismatch):
        compare.floats(wrong, want, TOLERANCE)


@pytest.mark.parametrize("factor, fails", [(0.99, False), (1.01, True)])
@pytest.mark.parametrize("unit", ["rms", "max_abs"])
def test_the_bound_is_tolerance_times_the_unit(unit: str, factor: float, fails: bool) -> None:
    want = STORED["full"]
    scale = want.rms if unit == "rms" else want.entry["stats"]["max_abs"]
    wrong = AUDIO.astype(np.float64)
    wrong[1, 17] += factor * TOLERANCE * scale
    if not fails:
        assert compare.floats(wrong, want, TOLERANCE, unit) == pytest.approx(factor * TOLERANCE)
        return
    with pytest.raises(Mismatch, match=f"differs by 0.000101 {unit}"):
        compare.floats(wrong, want, TOLERANCE, unit)


def test_what_was_not_stored_is_seen_in_the_sums() -> None:
    """Position 1002, for one, is in neither part; a value there, or the order, must still count."""
    want = STORED["sample"]
    louder, swapped = AUDIO.copy(), AUDIO.copy()
    louder.reshape(-1)[1002] += 0.1
    with pytest.raises(Mismatch, match="sq_sum"):
        compare.floats(louder, want, TOLERANCE)
    unstored = [i for i in range(500, swapped.size) if i % 7]
    swapped.reshape(-1)[unstored] = swapped.reshape(-1)[unstored[::-1]]
    with pytest.raises(Mismatch, match="cos_dot"):
        compare.floats(swapped, want, TOLERANCE)


def test_relative_rms() -> None:
    want = STORED["sample"]
    noise = RNG.standard_normal(AUDIO.shape) * want.rms
    assert compare.relative_rms(AUDIO + 0.05 * noise, want, 0.1) == pytest.approx(0.05, rel=0.2)
    for wrong in (AUDIO + 0.15 * noise, AUDIO * np.nan, AUDIO[:, 1:]):
        with pytest.raises(Mismatch):
            compare.relative_rms(wrong, want, 0.1)


def test_exact() -> None:
    data = np.arange(200, dtype=np.uint8)
    compare.exact(data, reference(data))
    wrong = data.copy()
    wrong[150] += 1
    with pytest.raises(
        Mismatch, match="1 of 200 values differ, first at 150: expected 150, got 151"
    ):
        compare.exact(wrong, reference(data))
    with pytest.raises(Mismatch, match="shape"):
        compare.exact(data[:-1], reference(data))


EPSILON = 0.01
CODES = RNG.integers(0, 16, (4, 50))
MARGINS = np.full(CODES.shape, 0.5, np.float16)


def changed(*places: tuple[int, int]) -> NDArray[np.int64]:
    """The codes with other values in these (level, frame)."""
    codes = CODES.copy()
    for level, frame in places:
        codes[level, frame] = (codes[level, frame] + 1) % 16
    return codes


def near_tie(*places: tuple[int, int], margin: float = 0.001) -> NDArray[np.float16]:
    """Margins that are below epsilon in these (level, frame)."""
    margins = MARGINS.copy()
    for level, frame in places:
        margins[level, frame] = margin
    return margins


def test_equal_codes_need_no_margins() -> None:
    assert compare.codes(CODES, CODES) == 0
    with pytest.raises(Mismatch, match="level 2.*frame 7"):
        compare.codes(changed((2, 7)), CODES)


def test_a_decisive_code_must_be_equal() -> None:
    for level in range(4):
        with pytest.raises(Mismatch, match=f"level {level} .*frame 7"):
            compare.codes(changed((level, 7)), CODES, MARGINS, EPSILON)


@pytest.mark.parametrize("margin", [0.001, -0.0001, 0.0])
def test_a_near_tie_excuses_itself_and_the_later_levels(margin: float) -> None:
    wrong, margins = changed((1, 7), (2, 7), (3, 7)), near_tie((1, 7), margin=margin)
    assert compare.codes(wrong, CODES, margins, EPSILON) == pytest.approx(1 / 50)


@pytest.mark.parametrize("place", [(0, 7), (1, 6), (2, 8)])
def test_a_near_tie_excuses_nothing_else(place: tuple[int, int]) -> None:
    with pytest.raises(Mismatch, match=f"level {place[0]} .*frame {place[1]}"):
        compare.codes(changed((1, 7), place), CODES, near_tie((1, 7)), EPSILON)


def test_a_near_tie_that_came_out_equal_excuses_nothing() -> None:
    with pytest.raises(Mismatch, match="level 2"):
        compare.codes(changed((2, 7)), CODES, near_tie((1, 7)), EPSILON)


def test_a_margin_of_epsilon_or_nan_is_no_excuse() -> None:
    for margin in (0.0101, np.nan):
        with pytest.raises(Mismatch):
            compare.codes(changed((3, 7)), CODES, near_tie((3, 7), margin=margin), EPSILON)


def test_excused_frames_stay_below_ten_percent() -> None:
    four, five = ([(0, frame) for frame in range(count)] for count in (4, 5))
    assert compare.codes(changed(*four), CODES, near_tie(*four), EPSILON) == pytest.approx(0.08)
    with pytest.raises(Mismatch, match="10.0% of the frames"):
        compare.codes(changed(*five), CODES, near_tie(*five), EPSILON)


def test_later_levels_are_those_of_the_same_chain() -> None:
    chains, margins = (0, 1, 0, 1), near_tie((0, 7))
    compare.codes(changed((0, 7), (2, 7)), CODES, margins, EPSILON, chains)
    for level in (1, 3):
        with pytest.raises(Mismatch, match=f"level {level}"):
            compare.codes(changed((0, 7), (level, 7)), CODES, margins, EPSILON, chains)


def test_a_coarse_level_excuses_the_frames_it_covers() -> None:
    rates = (4, 2, 1)
    codes = [RNG.integers(0, 16, 80 // rate) for rate in rates]
    margins = [np.full(x.shape, 0.5, np.float16) for x in codes]
    margins[0][2] = 0.001  # covers frames 8 to 11 of the finest level, 4 and 5 of the middle one

    def other(*places: tuple[int, int]) -> list[NDArray[np.int64]]:
        wrong = [x.copy() for x in codes]
        for level, frame in places:
            wrong[level][frame] += 1
        return wrong

    covered = other((0, 2), (1, 4), (1, 5), (2, 8), (2, 11))
    assert compare.codes(covered, codes, margins, EPSILON) == pytest.approx(4 / 80)
    for level, frame in ((1, 3), (1, 6), (2, 7), (2, 12)):
        with pytest.raises(Mismatch, match=f"level {level} .*frame {frame}"):
            compare.codes(other((0, 2), (level, frame)), codes, margins, EPSILON)


@pytest.mark.parametrize("wrong", [CODES[:3], CODES[:, :-1], CODES.T])
def test_codes_of_another_shape_fail(wrong: NDArray[np.int64]) -> None:
    with pytest.raises(Mismatch, match="expected 4 levels"):
        compare.codes(wrong, CODES, MARGINS, EPSILON)
