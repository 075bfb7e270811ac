"""Short-time spectra that a gradient flows through, for discriminators."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Spectrum(nn.Module):
    """Complex spectrum [B, C, S] -> [B, C, frames, bins], with a periodic Hann window.

    Args:
        n_fft: samples of a transform; bins = n_fft // 2 + 1
        hop: samples from frame to frame
        window: samples of the window, in the middle of a frame; None is ``n_fft``
        centred: a frame is centred at its sample, the signal reflected at both ends
        unit_power: divided by the root of the window's summed squares, torchaudio's "normalized"
        rectangular: a window of ones instead
    """

    window: Tensor

    def __init__(
        self,
        n_fft: int,
        hop: int,
        window: int | None = None,
        *,
        centred: bool = False,
        unit_power: bool = False,
        rectangular: bool = False,
    ) -> None:
        super().__init__()
        length = n_fft if window is None else window
        values = torch.ones(length) if rectangular else torch.hann_window(length)
        self.register_buffer("window", values, persistent=False)
        self.n_fft, self.hop, self.centred = n_fft, hop, centred
        self.scale = 1 / math.sqrt(float(values.square().sum())) if unit_power else 1.0

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype in (torch.float16, torch.bfloat16):  # torch has no transform of these
            x = x.float()
        flat = x.flatten(0, 1)
        spectrum = torch.stft(
            flat,
            self.n_fft,
            self.hop,
            self.window.shape[0],
            self.window.to(flat.dtype),
            center=self.centred,
            return_complex=True,
        )
        return spectrum.unflatten(0, x.shape[:2]).mT * self.scale


def stride_matched(x: Tensor, window: int) -> Tensor:
    """The signal padded so that a centred spectrum of hop window / 4 has a frame for every hop.

    Of that spectrum, the first two and the last two frames are to be dropped (audiotools
    ``STFTParams.match_stride``).

    Args:
        x: [B, C, S]
        window: of the spectrum, in samples
    """
    hop = window // 4
    side = (window - hop) // 2
    return F.pad(x, (side, side + -x.shape[2] % hop), "reflect")


def as_channels(spectrum: Tensor) -> Tensor:
    """Real parts of all channels, then imaginary parts: [B, C, ...] complex -> [B, 2 C, ...]."""
    return torch.cat([spectrum.real, spectrum.imag], dim=1)
