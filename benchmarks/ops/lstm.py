"""``lstm`` of EnCodec 24 kHz: 2 layers of 512 over the frames of a signal, and over one frame.

A medium row's peers are torch in float32 and in bfloat16 throughout, and its gate is that of
operands rounded to bfloat16, against float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.floors import Work
from benchmarks.gates import Gate, doubled, relative_l2, worst
from benchmarks.machine import package
from benchmarks.ops._eager import eager, generator, n_bytes, time_major
from benchmarks.runner import Bench, Case, Peer, Row
from fastcodec import ops

LAYERS, HIDDEN = 2, 512
ROUNDED = 0.02  # relative L2 of states in bfloat16


def rows(bench: Bench) -> Iterator[Row]:
    """The whole signal, one frame of it, and a batch; each in both precisions."""
    frames = round(75 * bench.seconds)
    for name, batch, length in (("signal", 1, frames), ("one_frame", 1, 1), ("batch", 8, frames)):
        for suffix, precision in (("", 0), (".medium", 2)):
            if bench.wanted(f"lstm.{name}{suffix}"):
                yield from bench.measure(_case(f"lstm.{name}{suffix}", batch, length, precision))


def _case(name: str, batch: int, frames: int, precision: int) -> Case:
    draw, gates = generator(), 4 * HIDDEN
    x = draw(batch, HIDDEN, frames)
    h, c = draw(LAYERS, batch, HIDDEN), draw(LAYERS, batch, HIDDEN)
    weights = [draw(LAYERS, gates, HIDDEN) * HIDDEN**-0.5 for _ in range(2)]
    biases = [draw(LAYERS, gates) * HIDDEN**-0.5 for _ in range(2)]
    packed, ours_x = ops.lstm_pack(*weights, precision), time_major(x)

    def torch_lstm(dtype: torch.dtype) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
        states = (h.to(dtype), c.to(dtype))
        by_layer = [w[i].to(dtype) for i in range(LAYERS) for w in (*weights, *biases)]
        by_frame = x.permute(2, 0, 1).to(dtype).contiguous()

        def run() -> tuple[Tensor, Tensor, Tensor]:
            y, h_out, c_out = torch.lstm(
                by_frame, states, by_layer, True, LAYERS, 0.0, False, False, False
            )
            return (y + by_frame).permute(1, 2, 0), h_out, c_out

        return run

    peers = eager({"time first": torch_lstm(torch.float32)})
    if precision == 2:
        variants = {"time first": torch_lstm(torch.bfloat16)}
        peers.append(Peer(f"{package('torch')} eager bfloat16", variants))

    return Case(
        name,
        {"B": batch, "H": HIDDEN, "L": LAYERS, "T": frames},
        lambda: ops.lstm(ours_x, h, c, *weights, *biases, packed, True, precision),
        peers,
        _all_outputs if precision == 0 else _all_rounded,
        Work(
            2 * batch * frames * sum(w.numel() for w in weights),
            n_bytes(*weights, *biases) + 2 * n_bytes(x, h, c),
        ),
        lambda: ops.lstm.reference(*doubled((x, h, c, *weights, *biases, None, True))),
    )


def _all_rounded(got: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> Gate:
    return worst(*(relative_l2(g.float(), t, ROUNDED) for g, t in zip(got, truth, strict=True)))


def _all_outputs(got: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> Gate:
    return worst(*(relative_l2(g, t) for g, t in zip(got, truth, strict=True)))
