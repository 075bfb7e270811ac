"""EnCodec's ``.ecdc`` container, byte for byte as upstream writes it.

Source: facebookresearch/encodec encodec/compress.py@0e2d0aed. After the header, each segment is a
big-endian float32 gain (48 kHz only) and its codes, frame by frame: 10 bits each, or one
arithmetic-coded stream where a language model is used.

Entropy-coded files that fastcodec writes name their probability model in the header (``pm``) and
carry a checksum of the codes (``crc``); they decode on any machine. Upstream's have neither: their
probabilities are torch's on the machine that wrote them, and reading them elsewhere is a matter of
luck in the last bits.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fastcodec.codes import Codes
from fastcodec.errors import FormatError
from fastcodec.io.bits import pack_bits, packed_bytes, unpack_bits
from fastcodec.io.ecdc_header import (
    BITS_PER_CODE,
    CODEWORDS,
    LAYOUTS,
    EcdcHeader,
    check_scale,
    parse_header,
)
from fastcodec.io.entropy import ProbabilityModel, decode_segment, encode_segment
from fastcodec.io.source import Source, Target, read_all, write_all

_SCALE = struct.Struct("!f")


@dataclass(frozen=True)
class Segment:
    """One segment: ``codes`` [K, T] int64 and, at 48 kHz, the gain it is played back with."""

    codes: NDArray[np.int64]
    scale: float | None = None


@dataclass(frozen=True)
class EcdcFile:
    """What a file holds: one signal.

    Args:
        model: ``"encodec_24khz"`` or ``"encodec_48khz"``
        n_samples: length of the signal in samples at the model's rate
        n_codebooks: K
        uses_lm: whether the codes are entropy-coded
        segments: in the order of time
        probability_model: name of what the file was read with; the writer takes the model's own
    """

    model: str
    n_samples: int
    n_codebooks: int
    uses_lm: bool
    segments: Sequence[Segment]
    probability_model: str | None = None

    @classmethod
    def from_codes(cls, codes: Codes, model: str | None = None, uses_lm: bool = False) -> EcdcFile:
        """The file of one row of codes, whose segments lie one after the other along T."""
        name = model or codes.codec
        if len(codes) != 1 or name not in LAYOUTS:
            raise ValueError(
                f".ecdc holds one signal of {sorted(LAYOUTS)}, got {len(codes)} of {name!r}"
            )
        n_samples = int(codes.n_samples[0])
        tokens = codes.tokens[0].cpu().numpy()
        scales = [None] if codes.scale is None else codes.scale[0].tolist()
        if n_samples < 1 or len(scales) < LAYOUTS[name].n_segments(n_samples):
            raise ValueError(f".ecdc: {n_samples} samples do not go with {len(scales)} segments")
        segments, begin = [], 0
        for frames, scale in zip(LAYOUTS[name].frames(n_samples), scales, strict=False):
            segments.append(Segment(tokens[:, begin : begin + frames], scale))
            begin += frames
        return cls(name, n_samples, codes.n_codebooks, uses_lm, segments)

    def to_codes(self, codec: str | None = None) -> Codes:
        """The codes as a batch of one; ``codec`` is fastcodec's preset, by default ``model``."""
        tokens = np.concatenate([segment.codes for segment in self.segments], axis=1)
        scales = [segment.scale for segment in self.segments if segment.scale is not None]
        return Codes(
            tokens=torch.from_numpy(tokens)[None],
            frame_rate_hz=float(LAYOUTS[self.model].frame_rate_hz),
            n_samples=torch.tensor([self.n_samples]),
            codec=codec or self.model,
            scale=torch.tensor([scales]) if scales else None,
            hop=round(LAYOUTS[self.model].sample_rate_hz / LAYOUTS[self.model].frame_rate_hz),
        )


def read_ecdc_header(source: Source) -> EcdcHeader:
    """The header alone."""
    return parse_header(read_all(source))[0]


def read_ecdc(
    source: Source, probabilities: Callable[[EcdcHeader], ProbabilityModel] | None = None
) -> EcdcFile:
    """What the file holds.

    Args:
        source: path, bytes or open binary file
        probabilities: gives the language model that the header asks for; only called if one is used

    Raises:
        FormatError: the file is truncated, corrupted or decodes to other codes than were written
        ValueError: it is entropy-coded and ``probabilities`` is None
    """
    data = read_all(source)
    header, position = parse_header(data)
    layout = header.layout
    body = memoryview(data)[position:]
    # A segment has a byte or more; this comes before any loop over the segments.
    n_segments = layout.n_segments(header.n_samples)
    if n_segments > len(body):
        raise FormatError(f".ecdc: {n_segments} segments in {len(body)} bytes; the file is cut off")
    model = None
    if header.uses_lm:
        if probabilities is None:
            raise ValueError("read_ecdc: the file is entropy-coded; give `probabilities`")
        model = probabilities(header)
    segments = []
    for frames in layout.frames(header.n_samples):
        segment, size = _read_segment(body, header, frames, model)
        segments.append(segment)
        body = body[size:]
    if len(body):
        raise FormatError(f".ecdc: {len(body)} bytes too many; the file or its header is corrupted")
    if header.crc32 is not None and _checksum(segments) != header.crc32:
        raise FormatError(
            ".ecdc: the decoded codes fail their checksum; the file is corrupted or the language "
            "model's weights are not those it was written with"
        )
    return EcdcFile(
        header.model,
        header.n_samples,
        header.n_codebooks,
        header.uses_lm,
        segments,
        header.probability_model,
    )


def write_ecdc(
    file: EcdcFile, target: Target | None = None, model: ProbabilityModel | None = None
) -> bytes:
    """The bytes of the file, also written to ``target`` if given.

    Args:
        file: what to write
        target: path or open binary file
        model: language model, needed where ``file.uses_lm``

    Raises:
        ValueError: codes, gains or sizes that do not belong to the model
    """
    if file.uses_lm and model is None:
        raise ValueError("write_ecdc: entropy coding needs the language model: give `model`")
    name = model.name if file.uses_lm and model is not None else None
    header = EcdcHeader(
        file.model,
        file.n_samples,
        file.n_codebooks,
        file.uses_lm,
        name,
        None if name is None else _checksum(file.segments),
    )
    problem = header.problem() or _segments_problem(file, header)
    if problem:
        raise ValueError(f"write_ecdc: {problem}")
    parts = [header.to_bytes()]
    for segment in file.segments:
        if segment.scale is not None:
            parts.append(_SCALE.pack(segment.scale))
        if file.uses_lm and model is not None:
            parts.append(encode_segment(model, segment.codes))
        else:
            parts.append(pack_bits(segment.codes.T.reshape(-1), BITS_PER_CODE))
    data = b"".join(parts)
    if target is not None:
        write_all(target, data)
    return data


def _read_segment(
    body: memoryview, header: EcdcHeader, frames: int, model: ProbabilityModel | None
) -> tuple[Segment, int]:
    """The segment at the start of ``body``, and its bytes."""
    scale, begin = None, 0
    if header.layout.has_scale:
        begin = _SCALE.size
        if len(body) < begin:
            raise FormatError(".ecdc: the file ends in a segment's gain")
        scale = _SCALE.unpack_from(body)[0]
    problem = check_scale(scale, header.layout)
    if problem:
        raise FormatError(f".ecdc: {problem}")
    if model is not None:
        codes, size = decode_segment(model, body[begin:], header.n_codebooks, frames)
        return Segment(codes, scale), begin + size
    count = header.n_codebooks * frames
    values = unpack_bits(body[begin:], BITS_PER_CODE, count).reshape(frames, header.n_codebooks)
    codes = np.ascontiguousarray(values.T)
    return Segment(codes, scale), begin + packed_bytes(count, BITS_PER_CODE)


def _segments_problem(file: EcdcFile, header: EcdcHeader) -> str | None:
    layout = header.layout
    if len(file.segments) != layout.n_segments(file.n_samples):
        expected = layout.n_segments(file.n_samples)
        return f"{file.n_samples} samples are {expected} segments, got {len(file.segments)}"
    for frames, segment in zip(layout.frames(file.n_samples), file.segments, strict=True):
        codes = segment.codes
        if codes.shape != (file.n_codebooks, frames):
            return f"a segment must be [{file.n_codebooks}, {frames}], got {list(codes.shape)}"
        if not 0 <= codes.min() <= codes.max() < CODEWORDS:
            return f"codes must be in [0, {CODEWORDS}), got {codes.min()} to {codes.max()}"
        problem = check_scale(segment.scale, layout)
        if problem:
            return problem
    return None


def _checksum(segments: Sequence[Segment]) -> int:
    """CRC-32 of all codes as little-endian 16-bit integers, frame by frame."""
    crc = 0
    for segment in segments:
        crc = zlib.crc32(segment.codes.T.astype("<u2").tobytes(), crc)
    return crc
