"""Short-time Fourier transform and its inverse, with torch.stft's and torch.istft's meaning.

In float64 and in additions and multiplications only, each of which rounds a value alike wherever it
stands: torch's own transform may choose its algorithm by how many frames there are.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from fastcodec.layers.conv import pad

_FRAMES = 64  # that are transformed at a time: their working set fits the caches


def hann(size: int) -> Tensor:
    """torch's periodic Hann window [size] float64, of values that float32 has."""
    return torch.hann_window(size, dtype=torch.float32).double()


def stft(x: Tensor, window: Tensor, hop: int) -> Tensor:
    """The spectrum [B, T, F, 2] float64, real and imaginary, of signals padded by reflection.

    Args:
        x: [B, S] float, S > N / 2
        window: [N] float64, N a power of two
        hop: samples from a frame to the next

    Returns:
        T = S // hop + 1 frames of F = N / 2 + 1 bins
    """
    size = window.shape[0]
    padded = pad(x[..., None], size // 2, size // 2, "reflect")[..., 0]
    frames = padded.unfold(1, size, hop)
    bins = size // 2 + 1
    out = x.new_empty(*frames.shape[:2], bins, 2, dtype=torch.float64)
    for begin in range(0, frames.shape[1], _FRAMES):
        part = frames[:, begin : begin + _FRAMES].double() * window
        real, imaginary = fft(part, torch.zeros_like(part))
        out[:, begin : begin + _FRAMES, :, 0] = real[..., :bins]
        out[:, begin : begin + _FRAMES, :, 1] = imaginary[..., :bins] + 0.0  # no negative zeros
    return out


def istft(spectrum: Tensor, window: Tensor, hop: int) -> Tensor:
    """The signals [B, (T - 1) * hop] float64 of a spectrum [B, T, F, 2] float64."""
    size, frames = window.shape[0], spectrum.shape[1]
    y = spectrum.new_empty(*spectrum.shape[:2], size)
    for begin in range(0, frames, _FRAMES):
        real, imaginary = spectrum[:, begin : begin + _FRAMES].unbind(-1)
        real = torch.cat([real, real[..., 1:-1].flip(-1)], dim=-1)
        # Of the conjugate: the inverse transform is the transform of the conjugate, conjugated.
        imaginary = torch.cat([-imaginary, imaginary[..., 1:-1].flip(-1)], dim=-1)
        y[:, begin : begin + _FRAMES] = fft(real, imaginary)[0] * (window / size)
    weight = overlap_add((window * window).expand(1, frames, size), hop)
    inside = slice(size // 2, size // 2 + (frames - 1) * hop)
    return overlap_add(y, hop)[:, inside] / weight[:, inside]


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """[B, (T - 1) * hop + N] sum of frames [B, T, N], each ``hop`` after the one before."""
    batch, count, size = frames.shape
    every = -(-size // hop)  # frames so far apart do not touch
    out = frames.new_zeros(batch, (count - 1) * hop + size + every * hop)
    for first in range(min(every, count)):
        apart = nn.functional.pad(frames[:, first::every], (0, every * hop - size)).flatten(1)
        out[:, first * hop : first * hop + apart.shape[1]] += apart
    return out[:, : (count - 1) * hop + size]


def fft(real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
    """The discrete Fourier transform of [..., N], N a power of two.

    Radix 2, decimation in time: row k, column j of the working array is bin k of the transform of
    every l-th value from the j-th on; a step makes one transform of twice the length of two.
    """
    size = real.shape[-1]
    if size & (size - 1):
        raise ValueError(f"fft: the length must be a power of two, got {size}")
    re, im = real[..., None, :], imaginary[..., None, :]
    while re.shape[-1] > 1:
        half = re.shape[-1] // 2
        cosine, sine = (w.to(re.device) for w in _twiddle(re.shape[-2]))
        re_odd, im_odd = re[..., half:], im[..., half:]
        re_turned = re_odd * cosine - im_odd * sine
        im_turned = re_odd * sine + im_odd * cosine
        re, im = re[..., :half], im[..., :half]
        re = torch.cat([re + re_turned, re - re_turned], dim=-2)
        im = torch.cat([im + im_turned, im - im_turned], dim=-2)
    return re[..., 0], im[..., 0]


@functools.cache
def _twiddle(length: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts [length, 1] of exp(-pi i k / length), by Python's own functions."""
    angles = [-math.pi * k / length for k in range(length)]
    parts = ([math.cos(a) for a in angles], [math.sin(a) for a in angles])
    real, imaginary = (torch.tensor(p, dtype=torch.float64, device="cpu")[:, None] for p in parts)
    return real, imaginary
