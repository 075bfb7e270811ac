"""EnCodec and audiocraft's variants beside PyPI's encodec and transformers' EncodecModel."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.codecs._pair import Pair, pair_rows, peer
from benchmarks.engines import Published
from benchmarks.published import published, quietly, version_of
from benchmarks.runner import Bench, Row
from benchmarks.weights import pour, random_codec, upstream_state
from fastcodec.codecs import encodec
from fastcodec.codecs.base import Codec

# Preset -> kbps; the encoder's work depends on it, the decoder's hardly.
KBPS = {
    "encodec_24khz": (6.0, 24.0),
    "encodec_48khz": (6.0,),
    "encodec_32khz": (2.2,),
    "encodec_16khz": (2.2,),
}
ON_PYPI = {"encodec_24khz": "encodec_model_24khz", "encodec_48khz": "encodec_model_48khz"}
UNUSED = ("inited", "cluster_size", "embed_avg")


def rows(bench: Bench) -> Iterator[Row]:
    """Encode at each bandwidth, and decode at the first, of every preset."""
    for name, bandwidths in KBPS.items():
        both = [what for what in ("encode", "decode") if bench.wanted(f"{name}.{what}")]
        if both:
            first = pair(name)
            yield from pair_rows(bench, first, both)
            for kbps in bandwidths[1:] if "encode" in both else ():
                yield from pair_rows(bench, pair(name, kbps), ["encode"])


def pair(name: str, kbps: float | None = None) -> Pair:
    """Both sides with one set of random weights."""
    kbps = KBPS[name][0] if kbps is None else kbps
    codec = random_codec(encodec, name)
    there = [peer("transformers", partial(hf, kbps=kbps), codec)]
    if name in ON_PYPI:
        there.insert(0, peer("encodec", partial(on_pypi, kbps=kbps), codec))
    else:
        there.append(Published(version_of("encodec"), absent="it has the 24 and 48 kHz models"))
    return Pair(name, upstream_state(codec), there, kbps)


def on_pypi(codec: Codec, kbps: float) -> Published:
    """encodec's own model."""
    model: Any = published("encodec.model").EncodecModel
    net = quietly(getattr(model, ON_PYPI[codec.name]), pretrained=False)
    pour(upstream_state(codec), net, UNUSED)
    net.set_target_bandwidth(kbps)

    def encode(wav: Tensor) -> Tensor:
        return torch.cat([tokens for tokens, _ in net.encode(wav)], dim=2)

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        parts, scales = _segments(codec, codes, scale)
        return net.decode(list(zip(parts, scales, strict=True)))

    return Published(version_of("encodec"), net, encode, decode)


def hf(codec: Codec, kbps: float) -> Published:
    """transformers' model."""
    package, config = published("transformers"), codec.config
    net = quietly(package.EncodecModel, _hf_config(package, config))
    pour(upstream_state(codec, encodec.transformers_name), net, UNUSED)

    def encode(wav: Tensor) -> Tensor:
        codes = net.encode(wav, bandwidth=kbps).audio_codes
        return codes.permute(1, 2, 0, 3).flatten(2)[..., : codec.n_frames(wav.shape[2])]

    def decode(codes: Tensor, scale: Tensor | None = None) -> Tensor:
        parts, scales = _segments(codec, codes, scale)
        last_pad = parts[0].shape[2] - parts[-1].shape[2]
        stacked = torch.stack([*parts[:-1], F.pad(parts[-1], (0, last_pad))])
        return net.decode(stacked, scales, last_frame_pad_length=last_pad).audio_values

    return Published(version_of("transformers"), net, encode, decode)


def _segments(
    codec: Codec, codes: Tensor, scale: Tensor | None
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Codes of each segment and its level [B, 1]; the whole signal where there are none."""
    segment = codec.config.segment
    frames = codes.shape[2] if segment is None else -(-segment // codec.hop)
    parts = list(codes.split(frames, dim=2))
    return parts, [None] * len(parts) if scale is None else list(scale.T[..., None])


def _hf_config(package: Any, config: Any) -> Any:
    seanet, segment, stride = config.seanet, config.segment, config.segment_stride
    return package.EncodecConfig(
        target_bandwidths=list(config.bandwidths_kbps),
        sampling_rate=config.sample_rate_hz,
        audio_channels=seanet.channels,
        normalize=segment is not None,
        chunk_length_s=segment / config.sample_rate_hz if segment else None,
        overlap=1 - stride / segment if segment and stride else None,
        num_filters=seanet.n_filters,
        upsampling_ratios=list(seanet.ratios),
        norm_type=seanet.norm,
        use_causal_conv=seanet.causal,
        pad_mode="constant" if seanet.padding == "zero" else seanet.padding,
        use_conv_shortcut=not seanet.true_skip,
        codebook_size=config.codebook_size,
    )
