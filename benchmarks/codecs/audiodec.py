"""AudioDec, whose package is on no index: beside its net in plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.codecs._pair import Pair
from benchmarks.codecs._pair import rows as pair_rows
from benchmarks.codecs.hificodec import in_plain_torch
from benchmarks.runner import Bench, Row
from benchmarks.weights import random_codec, upstream_state
from fastcodec.codecs import audiodec
from fastcodec.codecs.audiodec_vocoder import upstream_name

PRESETS = ("audiodec_24khz_libritts",)


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode."""
    yield from pair_rows(bench, {name: partial(pair, name) for name in PRESETS})


def pair(name: str) -> Pair:
    """Both sides with one set of random weights; upstream keeps its codebooks as [D, N]."""
    codec = random_codec(audiodec, name)
    state = upstream_state(codec, upstream_name)
    weights = {n: v.T.contiguous() if n.endswith(".embed") else v for n, v in state.items()}
    return Pair(name, weights, [in_plain_torch(codec)])
