"""``group_norm`` of EnCodec 48 kHz, a segment of a second: its first layer and its last."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F

from benchmarks.floors import Work
from benchmarks.gates import doubled, relative_l2
from benchmarks.ops._eager import eager, generator, n_bytes, time_major
from benchmarks.runner import Bench, Case, Row
from fastcodec import ops


def rows(bench: Bench) -> Iterator[Row]:
    """One case a size."""
    for name, channels, frames in (("wide_open", 32, 48000), ("deep", 512, 150)):
        if bench.wanted(f"group_norm.{name}"):
            yield from bench.measure(_case(f"group_norm.{name}", channels, frames))


def _case(name: str, channels: int, frames: int) -> Case:
    draw = generator()
    x, weight, bias = draw(1, channels, frames) + 0.5, draw(channels), draw(channels)
    ours_x = time_major(x)
    return Case(
        name,
        {"B": 1, "C": channels, "T": frames},
        lambda: ops.group_norm(ours_x, weight, bias, 1e-5),
        eager(
            {
                "contiguous": lambda: F.group_norm(x, 1, weight, bias),
                "time_major": lambda: F.group_norm(ours_x, 1, weight, bias),
            }
        ),
        relative_l2,
        Work(n_bytes=2 * n_bytes(x)),
        lambda: ops.group_norm.reference(*doubled((x, weight, bias, 1e-5))),
    )
