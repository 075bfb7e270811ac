"""``rvq_encode`` of EnCodec 24 kHz: 8 and 32 stages of 1024 words of 128, and one frame of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.floors import Work
from benchmarks.gates import codes_up_to_ties, doubled
from benchmarks.ops._eager import eager, generator, n_bytes, time_major
from benchmarks.runner import Bench, Case, Row
from benchmarks.signals import word_sizes
from fastcodec import ops

WORDS, FEATURES = 1024, 128


def rows(bench: Bench) -> Iterator[Row]:
    """The whole signal at two numbers of stages, and a frame."""
    frames = round(75 * bench.seconds)
    for name, stages, length in (("k8", 8, frames), ("k32", 32, frames), ("one_frame", 8, 1)):
        if bench.wanted(f"rvq_encode.{name}"):
            yield from bench.measure(_case(f"rvq_encode.{name}", stages, length))


def _case(name: str, stages: int, frames: int) -> Case:
    draw = generator()
    x = draw(1, FEATURES, frames)
    books = draw(stages, WORDS, FEATURES) * word_sizes(stages)[:, None, None]
    packed, ours_x, by_frame = ops.rvq_encode_pack(books), time_major(x), x[0].T.contiguous()

    def encode(norm_of_residual: bool) -> Tensor:
        residual, codes = by_frame, []
        for words in books:
            score = 2 * (residual @ words.T) - words.square().sum(1)
            if norm_of_residual:  # as encodec and transformers compute it
                score = score - residual.square().sum(1, keepdim=True)
            codes.append(score.max(dim=1).indices)
            residual = residual - words[codes[-1]]
        return torch.stack(codes)[None]

    return Case(
        name,
        {"B": 1, "T": frames, "K": stages, "N": WORDS, "D": FEATURES},
        lambda: ops.rvq_encode(ours_x, books, packed),
        eager({"distance": lambda: encode(True), "score": lambda: encode(False)}),
        lambda got, truth: codes_up_to_ties(got, truth, x, books),
        Work(2 * frames * books.numel(), n_bytes(x, books) + 8 * stages * frames),
        lambda: ops.rvq_encode.reference(*doubled((x, books, None))),
    )
