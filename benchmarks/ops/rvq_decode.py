"""``rvq_decode`` of EnCodec 24 kHz: 8 and 32 stages of 1024 words of 128."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.floors import Work
from benchmarks.gates import relative_l2
from benchmarks.ops._eager import eager, generator
from benchmarks.runner import Bench, Case, Row
from fastcodec import ops

WORDS, FEATURES = 1024, 128


def rows(bench: Bench) -> Iterator[Row]:
    """One case a number of stages."""
    for stages in (8, 32):
        if bench.wanted(f"rvq_decode.k{stages}"):
            yield from bench.measure(_case(stages, round(75 * bench.seconds)))


def _case(stages: int, frames: int) -> Case:
    books = generator()(stages, WORDS, FEATURES)
    source = torch.Generator().manual_seed(0)
    codes = torch.randint(0, WORDS, (1, stages, frames), generator=source)
    table = books.flatten(0, 1)
    offsets = WORDS * torch.arange(stages)

    def loop() -> Tensor:  # as encodec and transformers do
        total = F.embedding(codes[:, 0], books[0])
        for stage in range(1, stages):
            total = total + F.embedding(codes[:, stage], books[stage])
        return total.transpose(1, 2)

    def bag() -> Tensor:  # one gather, codes numbered over all codebooks
        return F.embedding_bag(codes[0].T + offsets, table, mode="sum").T[None]

    read = min(stages * frames, stages * WORDS) * FEATURES * 4
    return Case(
        f"rvq_decode.k{stages}",
        {"B": 1, "T": frames, "K": stages, "N": WORDS, "D": FEATURES},
        lambda: ops.rvq_decode(codes, books),
        eager({"loop": loop, "embedding_bag": bag}),
        relative_l2,
        Work(stages * frames * FEATURES, read + 8 * stages * frames + 4 * FEATURES * frames),
        lambda: ops.rvq_decode.reference(codes, books.double()),
    )
