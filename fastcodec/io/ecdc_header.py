"""Header of EnCodec's ``.ecdc`` container, and what the model it names fixes about the body.

Source: facebookresearch/encodec encodec/binary.py, encodec/compress.py, encodec/model.py@0e2d0aed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastcodec.errors import FormatError

CODEWORDS = 1024
BITS_PER_CODE = 10

_PREFIX = struct.Struct("!4sBI")  # magic, version, bytes of JSON
_MAGIC = b"ECDC"
_MAX_JSON_BYTES = 1 << 16
_MAX_FLOAT32 = (2 - 2**-23) * 2.0**127


@dataclass(frozen=True)
class EcdcLayout:
    """How a model cuts a signal: in samples, except the rates."""

    sample_rate_hz: int
    frame_rate_hz: int
    max_codebooks: int
    segment: int | None = None  # None: the whole signal is one
    stride: int | None = None
    has_scale: bool = False

    def n_segments(self, n_samples: int) -> int:
        """How many segments ``n_samples`` make; the last one may be short."""
        return -(-n_samples // (self.stride or n_samples))

    def frames(self, n_samples: int) -> Iterator[int]:
        """T of each segment. The released 0.1.1 rounds differently and misreads some lengths."""
        for index in range(self.n_segments(n_samples)):
            left = n_samples - index * (self.stride or 0)
            segment = min(left, self.segment or left)
            yield -(-segment * self.frame_rate_hz // self.sample_rate_hz)


LAYOUTS = {
    "encodec_24khz": EcdcLayout(24_000, 75, 32),
    "encodec_48khz": EcdcLayout(48_000, 150, 16, segment=48_000, stride=47_520, has_scale=True),
}


@dataclass(frozen=True)
class EcdcHeader:
    """What the JSON says.

    Args:
        model: upstream's model name, a key of ``LAYOUTS``
        n_samples: length of the signal in samples at the model's rate
        n_codebooks: K
        uses_lm: whether the codes are entropy-coded by a language model
        probability_model: name of the implementation of that language model; None is upstream's.
            Two implementations of one model differ in the last bits, and then the codes are lost
        crc32: of the codes, where ``probability_model`` is named
    """

    model: str
    n_samples: int
    n_codebooks: int
    uses_lm: bool
    probability_model: str | None = None
    crc32: int | None = None

    @property
    def layout(self) -> EcdcLayout:
        """How the model cuts the signal."""
        return LAYOUTS[self.model]

    def problem(self) -> str | None:
        """What is wrong with these values, or None."""
        if self.model not in LAYOUTS:
            return f"the model must be one of {sorted(LAYOUTS)}, got {self.model!r}"
        if not _is_int(self.n_samples, 1, 1 << 62):
            return f"the number of samples must be positive, got {self.n_samples!r}"
        if not _is_int(self.n_codebooks, 1, self.layout.max_codebooks):
            limit = self.layout.max_codebooks
            return f"{self.model} has 1 to {limit} codebooks, got {self.n_codebooks!r}"
        if not isinstance(self.uses_lm, bool):
            return f"the entry for the language model must be true or false, got {self.uses_lm!r}"
        if self.probability_model is not None and not (
            isinstance(self.probability_model, str) and _is_int(self.crc32, 0, (1 << 32) - 1)
        ):
            return "a named probability model and its checksum belong together"
        return None

    def to_bytes(self) -> bytes:
        """The file's first bytes. Upstream reads its four keys by name and ignores the others."""
        fields: dict[str, Any] = {
            "m": self.model,
            "al": self.n_samples,
            "nc": self.n_codebooks,
            "lm": self.uses_lm,
        }
        if self.probability_model is not None:
            fields |= {"pm": self.probability_model, "crc": self.crc32}
        text = json.dumps(fields).encode()
        return _PREFIX.pack(_MAGIC, 0, len(text)) + text


def parse_header(data: bytes) -> tuple[EcdcHeader, int]:
    """The header, and the number of bytes it takes.

    Raises:
        FormatError: it is truncated, corrupted or of an unknown version or model
    """
    if len(data) < _PREFIX.size or data[:4] != _MAGIC:
        raise FormatError(f".ecdc: expected a file that starts with {_MAGIC!r}, got {data[:4]!r}")
    _, version, size = _PREFIX.unpack_from(data)
    end = _PREFIX.size + size
    if version != 0:
        raise FormatError(f".ecdc: expected version 0, got {version}")
    if size > _MAX_JSON_BYTES or end > len(data):
        raise FormatError(f".ecdc: a header of {size} bytes in a file of {len(data)}")
    try:
        fields = json.loads(data[_PREFIX.size : end].decode())
    # RecursionError: brackets nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise FormatError(f".ecdc: the header is no JSON: {error}") from error
    if not isinstance(fields, dict) or not {"m", "al", "nc", "lm"} <= fields.keys():
        raise FormatError(".ecdc: the header lacks one of the entries m, al, nc, lm")
    if not isinstance(fields["m"], str):
        raise FormatError(f".ecdc: the model name must be text, got {fields['m']!r}")
    named = fields["lm"] is True
    header = EcdcHeader(
        model=fields["m"],
        n_samples=fields["al"],
        n_codebooks=fields["nc"],
        uses_lm=fields["lm"],
        probability_model=fields.get("pm") if named else None,
        crc32=fields.get("crc") if named else None,
    )
    problem = header.problem()
    if problem:
        raise FormatError(f".ecdc: {problem}")
    return header, end


def check_scale(scale: float | None, layout: EcdcLayout) -> str | None:
    """What is wrong with a segment's gain, or None."""
    if (scale is not None) != layout.has_scale:
        return "a gain for each segment is needed" if layout.has_scale else "no gain is possible"
    if scale is not None and not 0 <= scale <= _MAX_FLOAT32:
        return f"a segment's gain must be finite and not negative, got {scale}"
    return None


def _is_int(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
