"""Types of the compiled module (csrc/host/module.cpp)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

def pack_bits(values: ArrayLike, width: int) -> bytes:
    """The values as ``width`` bits each, least significant bit first, padded to a byte."""

def unpack_bits(data: bytes | memoryview, width: int, count: int) -> NDArray[np.int64]:
    """The first ``count`` values of ``data``; ``FormatError`` where it is too short."""

def quantized_cdf(pdf: ArrayLike, *, fit_total: bool = False) -> NDArray[np.int32]:
    """[..., N] probabilities -> [..., N] cumulative counts out of 2^24, as upstream rounds them.

    ``fit_total`` keeps the last count at 2^24 or below, which upstream does not.
    """

def cpu_report() -> dict[str, str | bool]:
    """``brand`` and, by name, whether each instruction set can be used; brand "" if unknown."""

class ArithmeticEncoder:
    def push(self, symbols: ArrayLike, cdf: ArrayLike) -> None:
        """Codes [n] symbols, each by its row of [n, N] cumulative counts."""

    def finish(self) -> bytes:
        """The stream, padded to a byte."""

class ArithmeticDecoder:
    def __init__(self, data: bytes | memoryview) -> None: ...
    def pull(self, cdf: ArrayLike) -> NDArray[np.int64]:
        """One symbol for each row of [n, N] cumulative counts; ``FormatError`` on bad bytes."""

    @property
    def bytes_read(self) -> int: ...

class EntropySession:
    def __call__(self, previous: ArrayLike | None) -> NDArray[np.float32]:
        """[K, N] probabilities of the next frame, given the [K] codes of the one before."""

class EntropyModel:
    def __init__(
        self, weights: Mapping[str, NDArray[np.float32]], heads: int, past_frames: int
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def n_codebooks(self) -> int: ...
    def start(self, n_codebooks: int) -> EntropySession:
        """A new segment."""
