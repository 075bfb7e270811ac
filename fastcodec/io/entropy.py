"""Codes as an entropy-coded segment: a probability model drives EnCodec's arithmetic coder.

Source: facebookresearch/encodec encodec/compress.py, encodec/quantization/ac.py@0e2d0aed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastcodec.errors import BackendError, FormatError

Codes64: TypeAlias = NDArray[np.int64]

# The likeliest of 1024 symbols leaves at least 2 of the 2^24 counts to each of the others, so that
# even a certain symbol costs log2(2^24 / (2^24 - 2046)) bits.
_MIN_BITS_PER_SYMBOL = 1.75e-4


class ProbabilityModel(Protocol):
    """What predicts a frame's codes from the frames before.

    ``name`` is written into the file, for the reader to take the same one; None is upstream's.
    """

    @property
    def name(self) -> str | None: ...

    def start(self, n_codebooks: int) -> Callable[[Codes64 | None], NDArray[np.float32]]:
        """A segment's step: [K] codes of the frame before or None -> [K, N] of the next."""
        ...


def host() -> Any:
    """The compiled module ``fastcodec._host``.

    Raises:
        BackendError: it has not been built
    """
    try:
        return importlib.import_module("fastcodec._host")
    except ImportError as error:
        raise BackendError(
            f"entropy coding needs the compiled module fastcodec._host ({error}); build it with "
            "`pip install .` or `make`, or use files without the language model"
        ) from error


def encode_segment(model: ProbabilityModel, codes: Codes64) -> bytes:
    """The arithmetic-coded stream of ``codes`` [K, T]."""
    native = host()
    step = model.start(codes.shape[0])
    encoder = native.ArithmeticEncoder()
    previous = None
    for frame in np.ascontiguousarray(codes.T):
        encoder.push(frame, _counts(native, model, step(previous)))
        previous = frame
    return bytes(encoder.finish())


def decode_segment(
    model: ProbabilityModel, data: memoryview, n_codebooks: int, n_frames: int
) -> tuple[Codes64, int]:
    """The codes [K, T] at the start of ``data``, and how many bytes they took.

    Raises:
        FormatError: ``data`` ends too early or cannot come from the encoder
    """
    n_symbols = n_codebooks * n_frames
    if n_symbols * _MIN_BITS_PER_SYMBOL > 8 * len(data):
        raise FormatError(
            f"entropy-coded segment: {n_symbols} codes cannot fit in {len(data)} bytes; "
            "the file is truncated or its header is corrupted"
        )
    native = host()
    decoder = native.ArithmeticDecoder(data)
    step = model.start(n_codebooks)
    # Grows with what was really decoded: the header may promise anything.
    decoded = bytearray()
    previous = None
    for _ in range(n_frames):
        previous = decoder.pull(_counts(native, model, step(previous)))
        decoded += previous.astype("<u2").tobytes()
    codes = np.frombuffer(bytes(decoded), "<u2").reshape(n_frames, n_codebooks)
    return np.ascontiguousarray(codes.T, dtype=np.int64), decoder.bytes_read


def _counts(native: Any, model: ProbabilityModel, pdf: NDArray[np.float32]) -> NDArray[np.int32]:
    """Cumulative counts; upstream's own streams need upstream's totals, overshoot included."""
    counts: NDArray[np.int32] = native.quantized_cdf(pdf, fit_total=model.name is not None)
    return counts
