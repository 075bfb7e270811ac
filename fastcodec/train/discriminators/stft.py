"""EnCodec's multi-scale STFT discriminator (Défossez et al. 2022, arXiv 2210.13438).

[B, C, S] -> complex spectrum as 2 C channels [B, 2 C, frames, bins]
  -> conv (3, 9) -> 3 x conv (3, 9), every second bin, dilated 1, 2, 4 in time -> conv (3, 3)
  -> conv (3, 3) -> score
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec.train.discriminators.judgement import Judgement, Judges, activated, scaled
from fastcodec.train.discriminators.norms import normed
from fastcodec.train.discriminators.spectra import Spectrum, as_channels

THREE_SCALES = (1024, 2048, 512)  # encodec msstftd.py@0e2d0aed, FunCodec
FIVE_SCALES = (1024, 2048, 512, 256, 128)  # AcademiCodec, SpeechTokenizer, audiocraft


class StftDiscriminator(nn.Module):
    """[B, C, S] -> score [B, 1, frames, bins / 8], and the five maps before it.

    Args:
        n_fft: samples of a transform, and of its window; the hop is a quarter
        filters: channels of the maps
        channels: C
        slope: of the leaky ReLU below zero
        first_without_norm: a mistake of encodec and its copies, which forget the argument for the
            first convolution; audiocraft has weight norm on all
        pooled: the score is averaged over 4 by 4 values at every second one, edges not counted
            (FunCodec encodec_disc.py@3435d870)
    """

    def __init__(
        self,
        n_fft: int,
        filters: int = 32,
        channels: int = 1,
        slope: float = 0.2,
        first_without_norm: bool = False,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        self.spectrum = Spectrum(n_fft, n_fft // 4, unit_power=True)
        first = nn.Conv2d(2 * channels, filters, (3, 9), padding=(1, 4))
        strided = [
            nn.Conv2d(filters, filters, (3, 9), (1, 2), (dilation, 4), (dilation, 1))
            for dilation in (1, 2, 4)
        ]
        last = nn.Conv2d(filters, filters, 3, padding=1)
        convs = [normed(conv, "weight") for conv in (*strided, last)]
        self.convs = nn.ModuleList(
            [normed(first, "none" if first_without_norm else "weight"), *convs]
        )
        self.conv_post = normed(nn.Conv2d(filters, 1, 3, padding=1), "weight")
        self.slope, self.pooled = slope, pooled

    def forward(self, x: Tensor) -> Judgement:
        maps = activated(as_channels(self.spectrum(x)), self.convs, self.slope)
        score = self.conv_post(maps[-1])
        if self.pooled:
            score = F.avg_pool2d(score, 4, 2, padding=1, count_include_pad=False)
        return Judgement(score, maps)


def msstftd(
    n_ffts: Sequence[int] = THREE_SCALES,
    channels: int = 1,
    width: float = 1.0,
    slope: float = 0.2,
    first_without_norm: bool = False,
    pooled: bool = False,
) -> Judges:
    """A discriminator for each of several lengths of transform.

    Args:
        n_ffts: in samples
        channels: C
        width: multiplies the 32 channels of the maps
        slope, first_without_norm, pooled: as of ``StftDiscriminator``
    """
    filters = scaled(32, width)
    judges = [
        StftDiscriminator(n, filters, channels, slope, first_without_norm, pooled) for n in n_ffts
    ]
    return Judges(judges, channels)
