"""DAC's multi-resolution, multi-band discriminator, and its whole set (Kumar et al. 2023).

arXiv 2306.06546; dac/model/discriminator.py@c7cfc5d2. Each band of a complex spectrum has its own
convolutions; one more judges the bands side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastcodec.train.discriminators.judgement import Judgement, Judges, activated, scaled
from fastcodec.train.discriminators.mpd import KINDS, PERIODS, PeriodDiscriminator
from fastcodec.train.discriminators.norms import normed
from fastcodec.train.discriminators.spectra import Spectrum, as_channels, stride_matched

WINDOWS = (2048, 1024, 512)
BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))  # of the bins


class BandDiscriminator(nn.Module):
    """[B, 1, S] -> score [B, 1, hops, bins / 8], and all maps with the score as the last one.

    Args:
        window: of the spectrum, in samples; the hop is a quarter
        bands: where each begins and ends, as parts of the bins, rounded down
        filters: channels of the maps
    """

    def __init__(
        self, window: int, bands: Sequence[Sequence[float]] = BANDS, filters: int = 32
    ) -> None:
        super().__init__()
        self.spectrum = Spectrum(window, window // 4, centred=True)
        bins = window // 2 + 1
        self.edges = [(int(low * bins), int(high * bins)) for low, high in bands]
        self.bands = nn.ModuleList([_convs(filters) for _ in bands])
        self.conv_post = normed(nn.Conv2d(filters, 1, 3, padding=1), "weight")

    def forward(self, x: Tensor) -> Judgement:
        spectrum = self.spectrum(stride_matched(x, self.spectrum.n_fft))
        parts = as_channels(spectrum[:, :, 2:-2])
        maps: list[Tensor] = []
        ends: list[Tensor] = []
        for (low, high), convs in zip(self.edges, self.bands, strict=True):
            maps += activated(parts[..., low:high], convs, 0.1)  # type: ignore[arg-type]
            ends.append(maps[-1])
        maps.append(self.conv_post(torch.cat(ends, dim=3)))
        return Judgement(maps[-1], maps)


def _convs(filters: int) -> nn.ModuleList:
    convs = [
        nn.Conv2d(2, filters, (3, 9), padding=(1, 4)),
        *(nn.Conv2d(filters, filters, (3, 9), (1, 2), (1, 4)) for _ in range(3)),
        nn.Conv2d(filters, filters, 3, padding=1),
    ]
    return nn.ModuleList([normed(conv, "weight") for conv in convs])


class LevelledJudges(Judges):
    """Discriminators that see every channel without its mean, its largest value at 0.8."""

    def views(self, x: Tensor) -> list[Tensor]:
        x = x - x.mean(dim=2, keepdim=True)
        x = 0.8 * x / (x.abs().amax(dim=2, keepdim=True) + 1e-9)
        return [x] * len(self.discriminators)


def mrd_dac(
    windows: Sequence[int] = WINDOWS,
    bands: Sequence[Sequence[float]] = BANDS,
    width: float = 1.0,
) -> Judges:
    """A band discriminator for each of several windows.

    Args:
        windows: in samples
        bands: where each begins and ends, as parts of the bins
        width: multiplies the 32 channels of the maps
    """
    return Judges([BandDiscriminator(window, bands, scaled(32, width)) for window in windows])


def dac(
    periods: Sequence[int] = PERIODS,
    windows: Sequence[int] = WINDOWS,
    bands: Sequence[Sequence[float]] = BANDS,
    width: float = 1.0,
) -> Judges:
    """DAC's set: a discriminator for each period, then one for each window.

    Args:
        periods: in samples
        windows, bands, width: as of ``mrd_dac``
    """
    judges = [PeriodDiscriminator(period, KINDS["dac"], width=width) for period in periods]
    resolutions = mrd_dac(windows, bands, width).discriminators
    return LevelledJudges([*judges, *resolutions])
