"""Noise that a decoder adds: SNAC's block, and a generator that any cutting leaves the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastcodec.layers.conv import Conv1d
from fastcodec.layers.streaming import StreamingModule

Noise = Callable[[int, int], Tensor]

_STEP = 0x9E3779B97F4A7C15
_BLOCK = 256  # values are made in whole blocks: each comes out of the same vector code every time


@dataclass
class NoiseState:
    """How many samples have come; without noise nothing depends on it."""

    counters: ClassVar[tuple[str, ...]] = ("position",)
    position: int = 0


class NoiseBlock(StreamingModule):
    """x + noise * linear(x), one noise value for all channels of a sample.

    As in SNAC (snac/layers.py@f49016a4).
    ``noise`` gives the values [count] of the samples from ``begin`` on; None: x itself.
    """

    noise: Noise | None = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = Conv1d(channels, channels, 1, bias=False)

    @property
    def not_capturable_because(self) -> str | None:  # type: ignore[override]
        return None if self.noise is None else "its noise is made by the host"

    def init_state(self, batch_size: int) -> NoiseState:
        return NoiseState()

    def push(self, x: Tensor, state: NoiseState, final: bool = False) -> Tensor:
        begin, count = state.position, x.shape[2]
        state.position += count
        if self.noise is None or count == 0:
            return x
        return x + self.noise(begin, count).to(x) * self.linear(x)


def normal(seed: int, stream: int, begin: int, count: int) -> Tensor:
    """[count] float32, independent and normally distributed: those numbered ``begin`` on.

    Each depends on its number, the seed and the stream alone: two hashes (the finaliser of
    splitmix64, Steele et al. 2014) and the Box-Muller transform in double precision.
    """
    start = begin // _BLOCK * _BLOCK
    stop = -(-(begin + count) // _BLOCK) * _BLOCK
    number = np.arange(start, stop, dtype=np.uint64) * np.uint64(_STEP)
    key = _mixed(np.array([seed % 2**64], np.uint64)) ^ np.uint64(stream)
    first, second = (
        (_mixed(_mixed(key + np.uint64(half)) + number) >> np.uint64(11)).astype(np.float64)
        for half in (0, 2**32)
    )
    radius = np.sqrt(-2.0 * np.log((first + 1.0) * 2.0**-53))
    values = radius * np.cos(2.0 * np.pi * 2.0**-53 * second)
    return torch.from_numpy(values[begin - start :][:count].astype(np.float32))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of every value, one to one."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
