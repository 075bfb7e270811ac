"""``lstm`` of EnCodec 24 kHz: 2 layers of 512 over the frames of a signal, and over one frame."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.floors import Work
from benchmarks.gates import Gate, doubled, relative_l2, worst
from benchmarks.ops._eager import eager, generator, n_bytes, time_major
from benchmarks.runner import Bench, Case, Row
from fastcodec import ops

LAYERS, HIDDEN = 2, 512


def rows(bench: Bench) -> Iterator[Row]:
    """The whole signal, one frame of it, and a batch."""
    frames = round(75 * bench.seconds)
    for name, batch, length in (("signal", 1, frames), ("one_frame", 1, 1), ("batch", 8, frames)):
        if bench.wanted(f"lstm.{name}"):
            yield from bench.measure(_case(f"lstm.{name}", batch, length))


def _case(name: str, batch: int, frames: int) -> Case:
    draw, gates = generator(), 4 * HIDDEN
    x = draw(batch, HIDDEN, frames)
    h, c = draw(LAYERS, batch, HIDDEN), draw(LAYERS, batch, HIDDEN)
    weights = [draw(LAYERS, gates, HIDDEN) * HIDDEN**-0.5 for _ in range(2)]
    biases = [draw(LAYERS, gates) * HIDDEN**-0.5 for _ in range(2)]
    packed, ours_x = ops.lstm_pack(*weights), time_major(x)
    by_layer = [w[layer] for layer in range(LAYERS) for w in (*weights, *biases)]
    by_frame = x.permute(2, 0, 1).contiguous()

    def torch_lstm() -> tuple[Tensor, Tensor, Tensor]:
        y, h_out, c_out = torch.lstm(
            by_frame, (h, c), by_layer, True, LAYERS, 0.0, False, False, False
        )
        return (y + by_frame).permute(1, 2, 0), h_out, c_out

    return Case(
        name,
        {"B": batch, "H": HIDDEN, "L": LAYERS, "T": frames},
        lambda: ops.lstm(ours_x, h, c, *weights, *biases, packed, True),
        eager({"time first": torch_lstm}),
        _all_outputs,
        Work(
            2 * batch * frames * sum(w.numel() for w in weights),
            n_bytes(*weights, *biases) + 2 * n_bytes(x, h, c),
        ),
        lambda: ops.lstm.reference(*doubled((x, h, c, *weights, *biases, None, True))),
    )


def _all_outputs(got: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> Gate:
    return worst(*(relative_l2(g, t) for g, t in zip(got, truth, strict=True)))
