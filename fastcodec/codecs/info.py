"""``CodecInfo``: the facts of a codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastcodec import _native, ops

if TYPE_CHECKING:
    from fastcodec.codecs.base import Codec


@dataclass(frozen=True)
class CodecInfo:
    """Facts of a codec. ``latency`` counts samples of look-ahead on top of the frame itself.

    ``kbps`` is the bit rate of all codebooks. ``streamable`` means both ways; where only ``encode``
    needs whole signals, ``decode_streamable`` is true nevertheless.
    ``invariant`` says whether the codes here are bit-identical for any batch, padding, chunking and
    number of threads: true where the CPU kernels serve every op (torch's own convolutions choose
    their algorithm by shape). ``precision`` is that of the convolutions, as ``load`` was told.
    """

    name: str
    sample_rate_hz: int
    channels: int
    frame_rate_hz: float
    hop: int
    n_codebooks: int
    codebook_size: int
    kbps: float
    bandwidths_kbps: tuple[float, ...]
    streamable: bool
    decode_streamable: bool
    not_streamable_because: str | None
    latency: int
    parameters: int
    licence: str
    weights: str
    invariant: bool
    precision: str


def info_of(codec: Codec) -> CodecInfo:
    """The facts of a codec, from its nets and attributes."""
    encoder, decoder, quantizer = codec.encoder, codec.decoder, codec.quantizer
    reason = encoder.not_streamable_because or decoder.not_streamable_because
    bits = (quantizer.codebook_size - 1).bit_length()
    hold = quantizer.hold or (1,) * quantizer.n_codebooks
    lookahead = encoder.lookahead - (codec.hop - 1) + decoder.lookahead * codec.hop
    return CodecInfo(
        name=codec.name,
        sample_rate_hz=codec.sample_rate_hz,
        channels=codec.channels,
        frame_rate_hz=codec.frame_rate_hz,
        hop=codec.hop,
        n_codebooks=quantizer.n_codebooks,
        codebook_size=quantizer.codebook_size,
        kbps=bits * codec.frame_rate_hz * sum(1 / every for every in hold) / 1000,
        bandwidths_kbps=codec.bandwidths_kbps,
        streamable=reason is None,
        decode_streamable=decoder.not_streamable_because is None,
        not_streamable_because=reason,
        latency=round(lookahead),
        parameters=sum(p.numel() for p in codec.parameters())
        + sum(b.numel() for b in quantizer.buffers()),
        licence=codec.licence,
        weights=codec.weights_at,
        invariant=_native.cpu.why_not is None
        and ops.forced_backend() in (None, "cpu")
        and codec.device.type == "cpu",
        precision=codec.precision,
    )
