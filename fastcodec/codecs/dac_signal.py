"""Resampling and loudness, as DAC's ``compress`` and ``decompress`` need them: audiotools' numbers.

Resampling: julius.resample_frac (julius/resample.py@0.2.7), J. O. Smith's windowed sinc, with
audiotools' 24 zero crossings and a cutoff at 0.945 of the lower rate. Loudness: ITU-R BS.1770-4 as
audiotools measures it on a CPU (audiotools/core/loudness.py@0.7.2) with pyloudnorm's filters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

_ZEROS, _ROLLOFF = 24, 0.945
_BLOCK = 1 << 22  # weights in memory at a time

MIN_DB = -70.0  # of silence
_BLOCK_S, _STEP = 0.4, 0.25  # of a gating block; from one to the next, in blocks
_BLOCKS_AT_ONCE = 64
_GAINS = (1.0, 1.0, 1.0, 1.41, 1.41)  # of channels: left, right, centre, surround
_RESPONSE_S = 0.25  # by then the filters' response has died away: exp(-2 pi 38 Hz t) < 1e-25


def resample(wav: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """wav [..., S] at another rate, [..., floor(S * to / from)]."""
    if from_hz == to_hz:
        return wav
    gcd = math.gcd(from_hz, to_hz)
    old, new = from_hz // gcd, to_hz // gcd
    length = wav.shape[-1]
    # Upstream computes the length in float32, which is off by some samples for 2^24 and more.
    size = min(math.floor(np.float32(new * length / old)), (length // old + 1) * new)
    width = math.ceil(_ZEROS * old / (min(old, new) * _ROLLOFF))
    rows = wav.reshape(-1, length)
    before, after = (rows[:, i : i + 1].expand(-1, width + old + 1) for i in (0, length - 1))
    taps = torch.cat([before[:, 1:], rows, after], dim=1).unfold(1, 2 * width + 2, 1)
    out = wav.new_empty(len(rows), size)
    step = max(1, _BLOCK // (len(rows) * (2 * width + 2)))
    period = _weights(torch.arange(new), old, new, width) if new <= step else None
    for begin in range(0, size, step):
        at = torch.arange(begin, min(begin + step, size))
        weights = _weights(at % new, old, new, width) if period is None else period[at % new]
        first = (at // new * old + at % new * old // new + old).to(wav.device)
        out[:, begin : begin + step] = (taps[:, first] * weights.to(wav)).sum(dim=-1)
    return out.reshape(*wav.shape[:-1], size)


def _weights(phase: Tensor, old: int, new: int, width: int) -> Tensor:
    """[n, 2 * width + 2] of the samples around each output; ``phase`` counts outputs modulo new.

    In float32 and in upstream's order, because codes depend on the last bits of the signal.
    """
    index = (phase * old // new)[:, None] + torch.arange(-width, width + 2)
    t = ((-phase.double() / new).float()[:, None] + index.float() / old) * (
        min(old, new) * _ROLLOFF
    )
    t = t.clamp(-_ZEROS, _ZEROS) * math.pi
    sinc = torch.where(t == 0, torch.ones(()), torch.sin(t) / t)
    weights = sinc * torch.cos(t / _ZEROS / 2) ** 2
    return weights / weights.sum(dim=1, keepdim=True)


def loudness(wav: Tensor, rate_hz: int) -> Tensor:
    """[B] float32, the integrated loudness in LUFS of wav [B, C, S], -70 at least.

    Signals shorter than half a second are filled up with zeros to that length.
    """
    if wav.shape[1] > len(_GAINS):
        raise ValueError(f"loudness: at most {len(_GAINS)} channels, got {wav.shape[1]}")
    power = torch.cat(list(_block_powers(wav, rate_hz)), dim=2)
    gains = power.new_tensor(_GAINS[: wav.shape[1]])
    rows = [_gated((gains[:, None] * row).sum(0)) for row in power]
    return torch.tensor(rows, dtype=torch.float32, device=wav.device)


def _gated(power: Tensor) -> float:
    """The loudness of blocks [n]: of those above -70 LUFS, those less than 10 below their mean."""
    loud = power[power > _power(MIN_DB)]
    loud = loud[loud > loud.mean() / 10]
    return max(MIN_DB, -0.691 + 10 * math.log10(float(loud.mean()))) if loud.numel() else MIN_DB


def _power(db: float) -> float:
    return 10 ** ((db + 0.691) / 10)


def _block_powers(wav: Tensor, rate_hz: int) -> Iterator[Tensor]:
    """[B, C, n] mean squares of the filtered signal's overlapping blocks, some seconds at once."""
    seconds = wav.shape[2] / rate_hz
    if seconds < 0.5:
        wav = nn.functional.pad(wav, (0, int((0.5 - seconds) * rate_hz)))
    size, step = int(_BLOCK_S * rate_hz), int(_BLOCK_S * rate_hz * _STEP)
    response = _response(rate_hz).to(wav.device)
    count = -(-max(0, wav.shape[2] - size) // step) + 1  # the last may reach beyond the end
    for first in range(0, count, _BLOCKS_AT_ONCE):
        begin, blocks = first * step, min(_BLOCKS_AT_ONCE, count - first)
        end = begin + (blocks - 1) * step + size
        heard = max(0, begin - len(response))
        y = _filtered(wav[..., heard:end].double(), response)[..., begin - heard :]
        y = nn.functional.pad(y, (0, end - begin - y.shape[2]))
        yield y.unfold(2, size, step).square().sum(dim=-1) / (_BLOCK_S * rate_hz)


def _filtered(x: Tensor, response: Tensor) -> Tensor:
    """x [B, C, n] convolved with the response, from its first sample on."""
    size = x.shape[2] + len(response) - 1
    spectrum = torch.fft.rfft(x, size) * torch.fft.rfft(response, size)
    return torch.fft.irfft(spectrum, size)[..., : x.shape[2]]


@functools.lru_cache(maxsize=8)
def _response(rate_hz: int) -> Tensor:
    """[n] float64, the impulse response of the K-weighting: a high shelf, then a high pass."""
    y = np.zeros(int(_RESPONSE_S * rate_hz))
    y[0] = 1.0
    for b, a in (_high_shelf(rate_hz), _high_pass(rate_hz)):
        # Upstream filters in float32; of its roundings only those of the coefficients matter.
        b, a = (np.float32(np.asarray(c) / a[0]).astype(float) for c in (b, a))
        x, y = y, np.zeros_like(y)
        for i in range(len(y)):
            y[i] = sum(b[k] * x[i - k] for k in range(3) if i >= k)
            y[i] -= sum(a[k] * y[i - k] for k in (1, 2) if i >= k)
    return torch.from_numpy(y)


Biquad = tuple[tuple[float, float, float], tuple[float, float, float]]


def _high_shelf(rate_hz: int, gain_db: float = 4.0, corner_hz: float = 1500.0) -> Biquad:
    """Numerator and denominator, by R. Bristow-Johnson's cookbook, Q = 1 / sqrt(2)."""
    amp, w = 10 ** (gain_db / 40), 2 * math.pi * corner_hz / rate_hz
    c, root = math.cos(w), math.sqrt(2 * amp) * math.sin(w)  # 2 sqrt(A) alpha
    up, down = amp + 1, amp - 1
    b = (amp * (up + down * c + root), -2 * amp * (down + up * c), amp * (up + down * c - root))
    return b, (up - down * c + root, 2 * (down - up * c), up - down * c - root)


def _high_pass(rate_hz: int, corner_hz: float = 38.0) -> Biquad:
    """Likewise, Q = 1 / 2."""
    w = 2 * math.pi * corner_hz / rate_hz
    c, alpha = math.cos(w), math.sin(w)
    return ((1 + c) / 2, -(1 + c), (1 + c) / 2), (1 + alpha, -2 * c, 1 - alpha)
