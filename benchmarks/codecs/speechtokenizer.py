"""SpeechTokenizer beside speechtokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor

from benchmarks.codecs._pair import Pair, peer
from benchmarks.codecs._pair import rows as pair_rows
from benchmarks.engines import Published
from benchmarks.published import published, quietly, version_of
from benchmarks.runner import Bench, Row
from benchmarks.weights import pour, random_codec, upstream_state
from fastcodec.codecs import speechtokenizer
from fastcodec.codecs.base import Codec
from fastcodec.codecs.keys import snake_first

PRESETS = ("speechtokenizer_16khz",)
UNUSED = (".inited", ".cluster_size", ".embed_avg")


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode."""
    yield from pair_rows(bench, {name: partial(pair, name) for name in PRESETS})


def pair(name: str) -> Pair:
    """Both sides with one set of random weights."""
    codec = random_codec(speechtokenizer, name)
    peers = [peer("speechtokenizer", theirs, codec)]
    return Pair(name, upstream_state(codec, snake_first), peers)


def theirs(codec: Codec) -> Published:
    """speechtokenizer's model, made of a config.json."""
    config, net = codec.config, codec.config.seanet
    model = quietly(
        published("speechtokenizer").SpeechTokenizer,
        {
            "n_filters": net.n_filters,
            "strides": list(net.ratios),
            "dimension": net.dimension,
            "semantic_dimension": config.semantic_dimension,
            "bidirectional": net.bidirectional,
            "dilation_base": net.dilation_base,
            "residual_kernel_size": net.residual_kernel_size,
            "n_residual_layers": net.n_residual_layers,
            "lstm_layers": net.lstm,
            "activation": {"elu": "ELU", "snake": "Snake"}[net.activation],
            "codebook_size": config.codebook_size,
            "n_q": config.n_codebooks,
            "sample_rate": config.sample_rate_hz,
        },
    )
    pour(upstream_state(codec, snake_first), model, UNUSED)
    for name, buffer in model.named_buffers():
        if name.endswith("inited"):
            buffer.fill_(1)

    def encode(wav: Tensor) -> Tensor:
        return model.encode(wav).transpose(0, 1)

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return model.decode(codes.transpose(0, 1))

    return Published(version_of("speechtokenizer"), model, encode, decode)
