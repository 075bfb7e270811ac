"""Multi-period discriminators: the signal folded into rows of p samples, convolved along columns.

HiFi-GAN's (Kong et al. 2020, arXiv 2010.05646), and what DAC, AudioDec and AcademiCodec made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec.train.discriminators.judgement import Judgement, Judges, activated, scaled
from fastcodec.train.discriminators.norms import normed

PERIODS = (2, 3, 5, 7, 11)


@dataclass(frozen=True)
class Kind:
    """What upstreams do differently.

    Args:
        widths: channels of the five convolutions, of strides 3, 3, 3, 3, 1
        norm: of the weights
        slope: of the leaky ReLU below zero
        post_kernel: of the last convolution. AudioDec's has 2 where 3 is meant, and so makes one
            row more
        pads_full: also a signal that divides into rows gets one more, made of its reflection
        flat: what is [B, rows * p], and not [B, 1, rows, p]: ``"score"``, ``"map"`` (the score and
            the last map, which are one tensor), ``""`` (nothing)
    """

    widths: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    norm: str = "weight"
    slope: float = 0.1
    post_kernel: int = 3
    pads_full: bool = False
    flat: str = "score"


# AcademiCodec models/hificodec/models.py@b6ac1347, models/soundstream/models.py; AudioDec
# models/vocoder/modules/discriminator.py@e451e625; DAC dac/model/discriminator.py@c7cfc5d2.
KINDS = {
    "hifigan": Kind(),
    "dac": Kind(pads_full=True, flat=""),
    "audiodec": Kind(post_kernel=2, flat="map"),
    "academicodec": Kind((32,) * 5, norm="none", slope=0.2),
}


class PeriodDiscriminator(nn.Module):
    """[B, C, S] -> score, and the maps [B, C', rows, p] of every layer with the score as the last.

    Args:
        period: p
        kind: the figures
        channels: C
        width: multiplies the numbers of channels
    """

    def __init__(
        self, period: int, kind: Kind = KINDS["hifigan"], channels: int = 1, width: float = 1.0
    ) -> None:
        super().__init__()
        self.period, self.kind = period, kind
        convs, now = [], channels
        for i, own in enumerate(kind.widths):
            stride = 3 if i + 1 < len(kind.widths) else 1
            out = scaled(own, width)
            convs.append(normed(nn.Conv2d(now, out, (5, 1), (stride, 1), (2, 0)), kind.norm))
            now = out
        self.convs = nn.ModuleList(convs)
        self.conv_post = normed(nn.Conv2d(now, 1, (kind.post_kernel, 1), 1, (1, 0)), kind.norm)

    def forward(self, x: Tensor) -> Judgement:
        maps = activated(self._folded(x), self.convs, self.kind.slope)
        last = self.conv_post(maps[-1])
        score = last.flatten(1) if self.kind.flat else last
        maps.append(score if self.kind.flat == "map" else last)
        return Judgement(score, maps)

    def _folded(self, x: Tensor) -> Tensor:
        missing = self.period - x.shape[2] % self.period
        if missing < self.period or self.kind.pads_full:
            x = F.pad(x, (0, missing), "reflect")
        return x.unflatten(2, (-1, self.period))


def mpd(
    kind: str = "hifigan",
    periods: Sequence[int] = PERIODS,
    channels: int = 1,
    width: float = 1.0,
) -> Judges:
    """A discriminator for each of several periods.

    Args:
        kind: whose: a key of ``KINDS``
        periods: in samples
        channels: C
        width: multiplies the numbers of channels
    """
    return Judges([PeriodDiscriminator(p, KINDS[kind], channels, width) for p in periods], channels)
