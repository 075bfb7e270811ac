"""FunCodec beside funcodec."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from benchmarks.codecs._pair import Pair, peer
from benchmarks.codecs._pair import rows as pair_rows
from benchmarks.engines import Published
from benchmarks.published import published, quietly, version_of
from benchmarks.runner import Bench, Row
from benchmarks.weights import pour, random_codec, upstream_state
from fastcodec.codecs import funcodec
from fastcodec.codecs.base import Codec
from fastcodec.codecs.keys import snake_first

PRESETS = ("funcodec_en_16k_nq32ds320",)
UNUSED = (".inited", ".cluster_size", ".embed_avg", "mel_spec_transforms", "discriminator")


def rows(bench: Bench) -> Iterator[Row]:
    """Encode and decode with all 32 codebooks."""
    yield from pair_rows(bench, {name: partial(pair, name) for name in PRESETS})


def pair(name: str) -> Pair:
    """Both sides with one set of random weights."""
    codec = random_codec(funcodec, name)
    return Pair(name, upstream_state(codec, snake_first), [peer("funcodec", theirs, codec)])


def theirs(codec: Codec) -> Published:
    """funcodec's model, put together as its ``build_model`` does."""
    config, sizes = codec.config, codec.config.encoder
    net: dict[str, Any] = {
        "n_filters": sizes.n_filters,
        "ratios": list(sizes.ratios),
        "norm": sizes.norm,
        "causal": sizes.causal,
    }

    def made(module: str, kind: str, **arguments: Any) -> Any:
        return quietly(getattr(published(f"funcodec.models.{module}"), kind), **arguments)

    encoder = made(
        "encoder.seanet_encoder", "SEANetEncoder", input_size=1, dimension=sizes.dimension, **net
    )
    decoder = made("decoder.seanet_decoder", "SEANetDecoder", input_size=sizes.dimension, **net)
    quantizer = made(
        "quantizer.costume_quantizer",
        "CostumeQuantizer",
        input_size=sizes.dimension,
        codebook_size=config.codebook_size,
        num_quantizers=config.n_codebooks,
        sampling_rate=config.sample_rate_hz,
        encoder_hop_length=codec.hop,
        kmeans_init=False,
    )
    model = made(
        "codec_basic",
        "Encodec",
        input_size=1,
        odim=sizes.dimension,
        encoder=encoder,
        quantizer=quantizer,
        decoder=decoder,
        audio_normalize=config.normalize,
        segment_dur=None,
        overlap_ratio=None,
        multi_spectral_window_powers_of_two=[],
    )
    pour(upstream_state(codec, snake_first), model, UNUSED)

    def encode(wav: Tensor) -> Tensor:
        ((latents, _),) = model._encode(wav)
        return model.quantizer.encode(latents).transpose(0, 1)

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        words = model.quantizer.decode(codes.transpose(0, 1))
        return model._decode([(words.transpose(1, 2), scale)])

    return Published(version_of("funcodec"), model, encode, decode)
