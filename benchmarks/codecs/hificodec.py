"""HiFi-Codec, whose package is on no index: beside its net in plain torch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.codecs._pair import Pair
from benchmarks.codecs._pair import rows as pair_rows
from benchmarks.engines import Published
from benchmarks.plain import PlainCodec
from benchmarks.runner import Bench, Row
from benchmarks.weights import random_codec, upstream_state
from fastcodec.codecs import hificodec
from fastcodec.codecs.base import Codec

PRESETS = ("hifi_24k_320d",)


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode."""
    yield from pair_rows(bench, {name: partial(pair, name) for name in PRESETS})


def pair(name: str) -> Pair:
    """Both sides with one set of random weights."""
    codec = random_codec(hificodec, name)
    return Pair(name, upstream_state(codec, hificodec.upstream_name), [in_plain_torch(codec)])


def in_plain_torch(codec: Codec) -> Published:
    """The layers of the published net, each as torch has it."""
    net = PlainCodec(codec).eval()

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return net.decode(codes)

    return Published(f"torch {torch.__version__}, upstream's layers", net, net.encode, decode)
