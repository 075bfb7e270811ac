"""UnivNet's multi-resolution discriminator (Jang et al. 2021, arXiv 2106.07889): magnitudes.

As in AudioDec models/vocoder/modules/discriminator.py@e451e625, for its models named "univ".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec.train.discriminators.judgement import Judgement, Judges, activated, scaled
from fastcodec.train.discriminators.norms import normed
from fastcodec.train.discriminators.spectra import Spectrum

# (n_fft, hop, window) in samples, at 48 kHz
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))


class MagnitudeDiscriminator(nn.Module):
    """[B, 1, S] -> score [B, 1, frames, bins / 8], and all layers' maps with the score as the last.

    Args:
        n_fft, hop, window: of the spectrum, in samples; the signal gets half a window of zeros at
            both ends first
        filters: channels of the maps
    """

    def __init__(self, n_fft: int, hop: int, window: int, filters: int = 32) -> None:
        super().__init__()
        self.spectrum = Spectrum(n_fft, hop, window, centred=True)
        self.zeros = window // 2
        convs = [
            nn.Conv2d(1, filters, (3, 9), padding=(1, 4)),
            *(nn.Conv2d(filters, filters, (3, 9), (1, 2), (1, 4)) for _ in range(3)),
            nn.Conv2d(filters, filters, 3, padding=1),
        ]
        self.convs = nn.ModuleList([normed(conv, "weight") for conv in convs])
        self.conv_post = normed(nn.Conv2d(filters, 1, 3, padding=1), "weight")

    def forward(self, x: Tensor) -> Judgement:
        magnitude = self.spectrum(F.pad(x, (self.zeros, self.zeros))).abs()
        maps = activated(magnitude, self.convs, 0.2)
        maps.append(self.conv_post(maps[-1]))
        return Judgement(maps[-1], maps)


def univnet(
    resolutions: Sequence[tuple[int, int, int]] = RESOLUTIONS,
    width: float = 1.0,
) -> Judges:
    """A discriminator for each of several resolutions.

    Args:
        resolutions: (n_fft, hop, window) of each, in samples
        width: multiplies the 32 channels of the maps
    """
    filters = scaled(32, width)
    return Judges([MagnitudeDiscriminator(*r, filters) for r in resolutions])
