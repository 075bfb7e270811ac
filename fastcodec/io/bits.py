"""Fixed-width integers as bits, least significant first (EnCodec's BitPacker).

Source: facebookresearch/encodec encodec/binary.py@0e2d0aed. Compiled where ``fastcodec._host`` is
built, otherwise NumPy: the bytes are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcodec.errors import BackendError, FormatError
from fastcodec.io.entropy import host

_CHUNK = 1 << 16  # values at a time: the NumPy path needs 3 bytes a bit


def packed_bytes(count: int, width: int) -> int:
    """How many bytes ``count`` values of ``width`` bits take."""
    return (count * width + 7) // 8


def pack_bits(values: NDArray[np.int64], width: int) -> bytes:
    """``values`` [n], each in [0, 2^width), as bytes; the last one is padded with zero bits."""
    try:
        return bytes(host().pack_bits(values, width))
    except BackendError:
        return _pack(values, width)


def unpack_bits(data: bytes | memoryview, width: int, count: int) -> NDArray[np.int64]:
    """The first ``count`` values of ``data``, [count] int64.

    Raises:
        FormatError: ``data`` is too short
    """
    if packed_bytes(count, width) > len(data):
        raise FormatError(f"{count} values of {width} bits do not fit in {len(data)} bytes")
    try:
        values: NDArray[np.int64] = host().unpack_bits(data, width, count)
        return values
    except BackendError:
        return _unpack(data, width, count)


def _pack(values: NDArray[np.int64], width: int) -> bytes:
    if values.size and not 0 <= values.min() <= values.max() < 1 << width:
        raise ValueError(f"pack_bits: values must be in [0, {(1 << width) - 1}] for width {width}")
    parts = []
    for begin in range(0, len(values), _CHUNK):
        chunk = values[begin : begin + _CHUNK].astype("<u2")
        bits = np.unpackbits(chunk.view(np.uint8).reshape(-1, 2), axis=1, bitorder="little")
        parts.append(np.packbits(bits[:, :width], bitorder="little").tobytes())
    return b"".join(parts)


def _unpack(data: bytes | memoryview, width: int, count: int) -> NDArray[np.int64]:
    values = np.empty(count, np.int64)
    stream = np.frombuffer(data, np.uint8)
    step = _CHUNK * width // 8
    for begin in range(0, count, _CHUNK):
        size = min(_CHUNK, count - begin)
        chunk = stream[begin * width // 8 :][:step]
        bits = np.unpackbits(chunk, count=size * width, bitorder="little").reshape(size, width)
        padded = np.zeros((size, 16), np.uint8)
        padded[:, :width] = bits
        packed = np.packbits(padded, axis=1, bitorder="little")
        values[begin : begin + size] = packed.view("<u2")[:, 0]
    return values
