"""Lyra v2 packets: 4 bits a quantizer, the first in the high half of the first byte.

Source: google/lyra lyra/packet.h, lyra/lyra_config.h@47698dad. A packet is one frame of 20 ms and
has no header; a ``.lyra`` file is its packets one after the other, so the bit rate must be known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastcodec.codes import ABSENT
from fastcodec.errors import FormatError
from fastcodec.io.source import Source, Target, read_all, write_all

N_CODEBOOKS = 46
CODEWORDS = 16
PACKET_BYTES = {16: 8, 30: 15, 46: 23}  # by the number of codebooks sent: 3.2, 6.0 and 9.2 kbps


def pack_lyra(codes: NDArray[np.int64]) -> bytes:
    """The packets of ``codes``, one after the other.

    Args:
        codes: [K, T] codes in [0, 16); of 46 rows, the last may be -1 (not sent) throughout

    Raises:
        ValueError: another number of codebooks than 16, 30 or 46, or a code out of range
    """
    if codes.ndim != 2:
        raise ValueError(f"pack_lyra: codes must be [K, T], got {list(codes.shape)}")
    sent = codes[: _count_sent(codes)]
    if len(sent) not in PACKET_BYTES:
        raise ValueError(
            f"pack_lyra: a packet holds {sorted(PACKET_BYTES)} codebooks, got {len(sent)}"
        )
    if sent.size and not 0 <= sent.min() <= sent.max() < CODEWORDS:
        raise ValueError(
            f"pack_lyra: codes must be in [0, {CODEWORDS}), or -1 in all frames of the last "
            f"codebooks; got {sent.min()} to {sent.max()}"
        )
    halves = np.ascontiguousarray(sent.T, dtype=np.uint8)
    return (halves[:, 0::2] << 4 | halves[:, 1::2]).tobytes()


def unpack_lyra(data: bytes, n_codebooks: int | None = None) -> NDArray[np.int64]:
    """The codes [46, T] of packets, -1 in the codebooks that were not sent.

    Args:
        data: whole packets
        n_codebooks: 16, 30 or 46; None finds it where only one packet size divides the length

    Raises:
        FormatError: ``data`` is empty, no whole number of packets, or the rate cannot be inferred
    """
    n_sent = _infer_codebooks(len(data)) if n_codebooks is None else n_codebooks
    if n_sent not in PACKET_BYTES:
        raise ValueError(
            f"unpack_lyra: n_codebooks must be one of {sorted(PACKET_BYTES)}, got {n_sent}"
        )
    size = PACKET_BYTES[n_sent]
    if not data or len(data) % size:
        raise FormatError(
            f"Lyra packets of {n_sent} codebooks have {size} bytes each, got {len(data)} bytes; "
            "the file is truncated or has another bit rate"
        )
    packets = np.frombuffer(data, np.uint8).reshape(-1, size)
    codes = np.full((N_CODEBOOKS, len(packets)), ABSENT, np.int64)
    codes[0:n_sent:2] = (packets >> 4).T
    codes[1:n_sent:2] = (packets & 15).T
    return codes


def read_lyra(source: Source, n_codebooks: int | None = None) -> NDArray[np.int64]:
    """The codes [46, T] of a ``.lyra`` file; see ``unpack_lyra``."""
    return unpack_lyra(read_all(source), n_codebooks)


def write_lyra(codes: NDArray[np.int64], target: Target) -> None:
    """Writes the ``.lyra`` file of ``codes`` [K, T]; see ``pack_lyra``."""
    write_all(target, pack_lyra(codes))


def _count_sent(codes: NDArray[np.int64]) -> int:
    """K without the last rows that are absent in every frame."""
    present = np.flatnonzero((codes != ABSENT).any(axis=1))
    if codes.shape[1] == 0 or not len(present):
        return len(codes)
    return int(present[-1]) + 1


def _infer_codebooks(n_bytes: int) -> int:
    fitting = [count for count, size in PACKET_BYTES.items() if n_bytes and n_bytes % size == 0]
    if len(fitting) == 1:
        return fitting[0]
    reason = f"could be {' or '.join(map(str, fitting))} codebooks" if fitting else "fit no rate"
    raise FormatError(
        f"Lyra packets have 8, 15 or 23 bytes each; {n_bytes} bytes {reason}: give n_codebooks "
        "(16, 30 or 46) if the file is whole"
    )
