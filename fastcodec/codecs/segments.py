"""Segments, each coded on its own: constant memory for codecs that need whole signals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastcodec.codes import Codes

if TYPE_CHECKING:
    from fastcodec.codecs.base import Codec, Progress


def spans(n_samples: int, segment: int | None) -> list[tuple[int, int]]:
    """Where each segment begins and ends; the last takes up to half a segment more."""
    count = max(1, -((segment - 2 * n_samples) // (2 * segment))) if segment else 1
    starts = [i * (segment or 0) for i in range(count)]
    return list(zip(starts, [*starts[1:], n_samples], strict=True))


def length(codec: Codec, segment_s: float | None) -> int | None:
    """A segment's length in samples, whole frames; None where none was asked for.

    Raises:
        ValueError: the codec streams and needs none, or less than a frame
    """
    if segment_s is None:
        return None
    if codec.info.streamable:
        raise ValueError(
            f"encode: {codec.name} takes signals of any length in constant memory; leave "
            f"segment_s out"
        )
    if not 0 < segment_s < math.inf:
        raise ValueError(f"encode: segment_s must be at least a frame, got {segment_s}")
    unit = codec.hop * codec.frame_multiple
    segment = round(segment_s * codec.sample_rate_hz / unit) * unit
    if segment < unit:
        raise ValueError(f"encode: segment_s must be at least a frame, got {segment_s}")
    return segment


def encode(
    codec: Codec, wav: Tensor, n_codebooks: int, progress: Progress | None, segment: int | None
) -> Codes:
    """The codes of wav [B, C, S], each segment of ``segment`` samples on its own."""
    n_samples = wav.shape[2]
    if segment is None:
        return codec._encode_batch(wav, n_codebooks, progress)
    parts = []
    for begin, end in spans(n_samples, segment):
        parts.append(codec._encode_batch(wav[..., begin:end], n_codebooks, None))
        if progress:
            progress(end, n_samples)
    return _joined(parts, segment)


def decode(codec: Codec, codes: Codes, n_samples: int, progress: Progress | None) -> Tensor:
    """The signals [B, C, n_samples] of codes, each segment on its own."""
    if codes.segment is None:
        return codec._decode_batch(codes, n_samples, progress)
    out = torch.zeros(len(codes), codec.channels, n_samples, device=codec.device)
    at = scaled = 0
    for begin, end in spans(n_samples, codes.segment):
        frames, scales = codec.n_frames(end - begin), codec.n_scales(end - begin)
        part = replace(
            codes,
            tokens=codes.tokens[..., at : at + frames],
            n_samples=torch.full_like(codes.n_samples, end - begin),
            scale=None if codes.scale is None else codes.scale[:, scaled : scaled + scales],
            segment=None,
        )
        y = codec._decode_batch(part, end - begin, None)[..., : end - begin]
        out[..., begin : begin + y.shape[2]] = y
        at, scaled = at + frames, scaled + scales
        if progress:
            progress(at, codes.tokens.shape[2])
    return out


def _joined(parts: Sequence[Codes], segment: int) -> Codes:
    scales = [part.scale for part in parts if part.scale is not None]
    return replace(
        parts[0],
        tokens=torch.cat([part.tokens for part in parts], dim=2),
        n_samples=torch.stack([part.n_samples for part in parts]).sum(dim=0),
        scale=torch.cat(scales, dim=1) if scales else None,
        segment=segment,
    )
