"""DAC at 44.1 and 24 kHz beside descript-audio-codec and transformers' DacModel."""

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
from fastcodec.codecs import dac
from fastcodec.codecs.base import Codec
from fastcodec.codecs.dac import DacConfig

PRESETS = ("dac_44khz", "dac_24khz")


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode of both."""
    yield from pair_rows(bench, {name: partial(pair, name) for name in PRESETS})


def pair(name: str) -> Pair:
    """Both sides with one set of random weights."""
    codec = random_codec(dac, name)
    state = upstream_state(codec, dac.native_name)
    return Pair(name, state, [peer("dac", descript, codec), peer("transformers", hf, codec)])


def descript(codec: Codec) -> Published:
    """descript-audio-codec's model."""
    config: DacConfig = codec.config
    net = quietly(
        published("dac").DAC,
        encoder_dim=config.encoder_dim,
        encoder_rates=list(config.encoder_rates),
        latent_dim=config.latent_dim,
        decoder_dim=config.decoder_dim,
        decoder_rates=list(config.decoder_rates),
        n_codebooks=config.n_codebooks,
        codebook_size=config.codebook_size,
        codebook_dim=config.codebook_dim,
        sample_rate=config.sample_rate,
    )
    pour(upstream_state(codec, dac.native_name), net)

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return net.decode(net.quantizer.from_codes(codes)[0])

    def encode(wav: Tensor) -> Tensor:
        return net.encode(wav)[1]

    return Published(version_of("dac"), net, encode, decode)


def hf(codec: Codec) -> Published:
    """transformers' model."""
    package, config = published("transformers"), codec.config
    theirs = package.DacConfig(
        encoder_hidden_size=config.encoder_dim,
        downsampling_ratios=list(config.encoder_rates),
        decoder_hidden_size=config.decoder_dim,
        upsampling_ratios=list(config.decoder_rates),
        n_codebooks=config.n_codebooks,
        codebook_size=config.codebook_size,
        codebook_dim=config.codebook_dim,
        sampling_rate=config.sample_rate,
    )
    net = quietly(package.DacModel, theirs)
    pour(upstream_state(codec, dac.transformers_name), net)

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        return net.decode(audio_codes=codes).audio_values.view(len(codes), 1, -1)

    def encode(wav: Tensor) -> Tensor:
        return net.encode(wav).audio_codes

    return Published(version_of("transformers"), net, encode, decode)
