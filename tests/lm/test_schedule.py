"""The tables of every codebook pattern against audiocraft's, and what they must keep."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastcodec.lm.schedule import Schedule, coarse_first, delayed, flattened, grouped


def made(name: str, params: dict[str, Any]) -> Schedule:
    """Of a case's name, such as ``delay_step2_K4_T7``."""
    found = re.fullmatch(r"(.*)_K(\d+)_T(\d+)", name)
    assert found is not None
    kind, k, frames = found[1], int(found[2]), int(found[3])
    if kind.startswith(("delay", "parallel")):
        return delayed(frames, params["delays"], params["flatten_first"], params["empty_initial"])
    if kind.startswith("coarse_first"):
        return coarse_first(frames, params["delays"])
    if kind.startswith("musiclm"):
        return grouped(frames, k, params["group_by"])
    both = [0] + [1] * (k - 1)
    places, late = {
        "flatten": (list(range(k)), None),
        "partial": (both, None),
        "partial_delay": (both, [3 * q for q in both]),
        "flatten_sparse": ([2 * q for q in range(k)], None),
        "flatten_delays": (list(range(k)), [2 * q for q in range(k)]),
    }[kind]
    return flattened(frames, places, late)


def test_every_table_is_audiocrafts(shared: Path) -> None:
    folder = shared / "golden/lms"
    entry = json.loads((folder / "manifest.json").read_text())["patterns_audiocraft"]
    with np.load(folder / "patterns_audiocraft.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    compared = set()
    for name, params in entry["config"]["params"].items():
        schedule = made(name, params)
        whole = [[s, t, q] for s, step in enumerate(schedule.steps) for t, q in step]
        kept = schedule.without_overhang()
        got: dict[str, Any] = {
            "layout": whole,
            "steps": [len(schedule), schedule.overhang, len(schedule) - 1],
            "first_step": schedule.first_step,
        }
        for ending, one in (("", schedule), ("_valid", kept)):
            grid = torch.arange(one.n_codebooks * one.n_frames).view(1, one.n_codebooks, -1)
            sequence = one.sequence(grid, -7)
            got |= {
                f"build_idx{ending}": one.to_sequence.index,
                f"build_mask{ending}": one.to_sequence.inside,
                f"seq{ending}": sequence[0],
                f"revert_idx{ending}": one.to_grid.index,
                f"revert_mask{ending}": one.to_grid.inside,
                f"reverted{ending}": one.grid(sequence, -9)[0],
                f"logits_idx{ending}": one.outputs_to_grid.index,
                f"logits_mask{ending}": one.outputs_to_grid.inside,
            }
        for what, value in got.items():
            want = arrays[f"{name}/{what}"]
            assert np.array_equal(np.asarray(value), want), f"{name}/{what}"
            compared.add(f"{name}/{what}")
    assert compared == set(arrays)


@pytest.mark.parametrize(
    "schedule",
    [
        delayed(6, [0, 1, 1]),
        flattened(4, [0, 1, 1], [0, 2, 2]),
        coarse_first(5, [0, 1]),
        grouped(3, 4, 2),
    ],
)
def test_there_and_back(schedule: Schedule) -> None:
    codes = torch.randint(0, 99, (2, schedule.n_codebooks, schedule.n_frames))
    assert torch.equal(schedule.grid(schedule.sequence(codes, -1), -2), codes)
    for t, (first, last) in enumerate(zip(schedule.first_step, schedule.last_step, strict=True)):
        steps = [s for s, frame, _ in schedule.kept if frame == t]
        assert (min(steps), max(steps)) == (first, last)


def test_what_is_no_schedule() -> None:
    with pytest.raises(ValueError, match="every code in one step"):
        Schedule((((0, 0),), ((0, 0),)), 1, 1)
    with pytest.raises(ValueError, match="codebooks below 2"):
        Schedule((((0, 2),),), 2, 1)
    with pytest.raises(ValueError, match="one delay for the codebooks of place 1"):
        flattened(3, [0, 1, 1], [0, 1, 2])
    with pytest.raises(ValueError, match=r"expected codes of \[B, 2, 5\], got \[1, 2, 4\]"):
        delayed(5, [0, 1]).sequence(torch.zeros(1, 2, 4), 0)
