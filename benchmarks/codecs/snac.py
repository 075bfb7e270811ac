"""SNAC beside snac, whose noise is left out: ours adds none, and it would differ at every call."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.codecs._pair import Pair, peer
from benchmarks.codecs._pair import rows as pair_rows
from benchmarks.engines import Published
from benchmarks.published import published, quietly, version_of
from benchmarks.runner import Bench, Row
from benchmarks.weights import pour, random_codec, upstream_state
from fastcodec.codecs import snac
from fastcodec.codecs.base import Codec
from fastcodec.codecs.dac import native_name

PRESETS = ("snac_24khz", "snac_44khz")


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode of the speech and the music model."""
    yield from pair_rows(bench, {name: partial(pair, name) for name in PRESETS})


def pair(name: str) -> Pair:
    """Both sides with one set of random weights."""
    codec = random_codec(snac, name)
    return Pair(name, upstream_state(codec, native_name), [peer("snac", theirs, codec)])


def theirs(codec: Codec) -> Published:
    """snac's model."""
    config = codec.config
    net = quietly(
        published("snac").SNAC,
        sampling_rate=config.sampling_rate,
        encoder_dim=config.encoder_dim,
        encoder_rates=list(config.encoder_rates),
        decoder_dim=config.decoder_dim,
        decoder_rates=list(config.decoder_rates),
        attn_window_size=config.attn_window_size,
        codebook_size=config.codebook_size,
        codebook_dim=config.codebook_dim,
        vq_strides=list(config.vq_strides),
        noise=config.noise,
        depthwise=config.depthwise,
    )
    pour(upstream_state(codec, native_name), net, unused=("rel_pos.inv_freq",))
    for parent in list(net.decoder.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == "NoiseBlock":
                setattr(parent, name, nn.Identity())
    strides = config.vq_strides

    def encode(wav: Tensor) -> Tensor:
        levels = net.encode(wav)
        rows = [c.repeat_interleave(s, dim=1) for c, s in zip(levels, strides, strict=True)]
        return torch.stack(rows, dim=1)

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return net.decode([codes[:, k, ::s] for k, s in enumerate(strides)])

    return Published(version_of("snac"), net, encode, decode)
