"""Spectrograms that losses compare: magnitudes, powers, mels, with every codec's padding."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Scale = Literal["slaney", "htk"]


def to_mel(hz: Tensor, scale: Scale) -> Tensor:
    """Frequencies on the mel scale.

    ``"slaney"`` is linear up to 1 kHz, 15 mel, and logarithmic above, 27 mel a factor of 6.4 (his
    Auditory Toolbox); ``"htk"`` is 2595 log10(1 + hz / 700) (O'Shaughnessy).
    """
    if scale == "htk":
        return 2595 * torch.log10(1 + hz / 700)
    above = 15 + torch.log(hz.clamp(min=1000) / 1000) * (27 / math.log(6.4))
    return torch.where(hz < 1000, hz * 3 / 200, above)


def from_mel(mel: Tensor, scale: Scale) -> Tensor:
    """The inverse of ``to_mel``, in Hz."""
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    above = 1000 * torch.exp((mel.clamp(min=15) - 15) * (math.log(6.4) / 27))
    return torch.where(mel < 15, mel * 200 / 3, above)


def mel_filters(
    sample_rate_hz: int,
    n_fft: int,
    n_mels: int,
    min_hz: float = 0.0,
    max_hz: float | None = None,
    scale: Scale = "slaney",
    equal_area: bool = True,
) -> Tensor:
    """Triangles [n_mels, n_fft / 2 + 1] float32, equally wide in mel, each half over the next.

    Args:
        sample_rate_hz, n_fft: of the spectra
        n_mels: number of triangles
        min_hz, max_hz: foot of the first and the last; half the sample rate where None
        scale: see ``to_mel``
        equal_area: each divided by half its width in Hz ("slaney" norm); else each of height 1
    """
    top = sample_rate_hz / 2 if max_hz is None else max_hz
    feet = to_mel(torch.tensor([min_hz, top], dtype=torch.float64), scale)
    first, last = feet.tolist()
    corners = from_mel(torch.linspace(first, last, n_mels + 2, dtype=torch.float64), scale)
    bins = torch.linspace(0, sample_rate_hz / 2, n_fft // 2 + 1, dtype=torch.float64)
    widths = corners.diff()[:, None]
    away = bins - corners[:, None]  # [n_mels + 2, bins]
    rise, fall = away[:-2] / widths[:-1], -away[2:] / widths[1:]
    filters = torch.minimum(rise, fall).clamp(min=0)
    if equal_area:
        filters = filters * 2 / (corners[2:] - corners[:-2])[:, None]
    return filters.float()


class Spectrogram(nn.Module):
    """Magnitudes of a signal's short-time Fourier transform, [B, bins, frames] of [B, C, S].

    Channels count as items of the batch: B is B * C.

    Args:
        n_fft, hop: samples
        window: samples of the Hann window, n_fft where None
        power: 1 for magnitudes, 2 for powers
        centred: a frame is centred on each multiple of the hop (reflection of n_fft / 2 on both
            sides); else reflection of (n_fft - hop) / 2
        fill_last: zeros at the end fill a last frame
        floor: no power is less, before the root is taken
        offset: added to powers before it
        normalised: divided by the root of the sum of the window's squares, before the power
    """

    hann: Tensor

    def __init__(
        self,
        n_fft: int,
        hop: int,
        window: int | None = None,
        power: int = 1,
        centred: bool = True,
        fill_last: bool = False,
        floor: float = 1e-18,
        offset: float = 0.0,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.n_fft, self.hop, self.power = n_fft, hop, power
        self.floor, self.offset = floor, offset
        self.padding = n_fft // 2 if centred else (n_fft - hop) // 2
        self.fill_last = fill_last
        hann = torch.hann_window(window or n_fft)
        hann = hann / hann.square().sum().sqrt() if normalised else hann
        self.register_buffer("hann", hann, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x.flatten(0, 1)[:, None], (self.padding, self.padding), "reflect")[:, 0]
        if self.fill_last:
            x = F.pad(x, (0, -(x.shape[1] - self.n_fft) % self.hop))
        hann = self.hann.to(x.dtype)
        spectrum = torch.stft(
            x, self.n_fft, self.hop, len(hann), hann, center=False, return_complex=True
        )
        # Not abs(): its gradient at silence is not a number in some precisions.
        power = spectrum.real.square() + spectrum.imag.square()
        return power if self.power == 2 else (power + self.offset).clamp(min=self.floor).sqrt()


class MelSpectrogram(nn.Module):
    """A spectrogram's bins summed by mel filters, [B, n_mels, frames] of [B, C, S].

    Args:
        spectrogram: of the signal
        filters: see ``mel_filters``
    """

    filters: Tensor

    def __init__(self, spectrogram: Spectrogram, filters: Tensor) -> None:
        super().__init__()
        self.spectrogram = spectrogram
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        spectrum: Tensor = self.spectrogram(x)
        return self.filters.to(spectrum.dtype) @ spectrum
