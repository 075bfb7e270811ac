"""Multi-scale discriminators: one-dimensional convolutions on the signal and on its averages.

HiFi-GAN's (Kong et al. 2020, arXiv 2010.05646), AudioDec's, and SoundStream's (Zeghidour et al.
2021, arXiv 2107.03312), which is MelGAN's (Kumar et al. 2019, arXiv 1910.06711).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec.train.discriminators.judgement import Judgement, Judges, Rules, activated, scaled
from fastcodec.train.discriminators.norms import normed


class Layer(NamedTuple):
    """A convolution: channels that it makes, kernel, stride, groups."""

    channels: int
    kernel: int
    stride: int = 1
    groups: int = 1


# AcademiCodec models/hificodec/models.py@b6ac1347; SpeechTokenizer and FunCodec have the same.
HIFIGAN = (
    Layer(128, 15),
    Layer(128, 41, 2, 4),
    Layer(256, 41, 2, 16),
    Layer(512, 41, 4, 16),
    Layer(1024, 41, 4, 16),
    Layer(1024, 41, 1, 16),
    Layer(1024, 5),
)
# AudioDec config/autoencoder/*.yaml@e451e625: all four strides are 4.
AUDIODEC = (*HIFIGAN[:1], *(layer._replace(stride=4) for layer in HIFIGAN[1:5]), *HIFIGAN[5:])
# audiolm-pytorch soundstream.py 2.4.0.
MELGAN = (
    Layer(16, 15),
    Layer(64, 41, 4, 4),
    Layer(256, 41, 4, 16),
    Layer(1024, 41, 4, 64),
    Layer(1024, 41, 4, 256),
    Layer(1024, 5),
)
MELGAN_NAMES: Rules = (
    (r"(^|\.)init_conv\.", r"\1convs.0."),
    *((rf"(^|\.)conv_layers\.{i}\.0\.", rf"\1convs.{i + 1}.") for i in range(4)),
    (r"(^|\.)final_conv\.0\.", r"\1convs.5."),
    (r"(^|\.)final_conv\.2\.", r"\1conv_post."),
)


class ScaleDiscriminator(nn.Module):
    """HiFi-GAN's: [B, C, S] -> score, and every layer's map with the score as the last one.

    Args:
        layers: the convolutions, each followed by a leaky ReLU; then comes one of kernel 3
        norm: of the weights: ``"none"``, ``"weight"``, ``"spectral"``
        channels: C
        slope: of the leaky ReLU below zero
        width: multiplies the numbers of channels
        flat: the score is [B, S'], and not [B, 1, S']
    """

    def __init__(
        self,
        layers: Sequence[Layer] = HIFIGAN,
        norm: str = "weight",
        channels: int = 1,
        slope: float = 0.1,
        width: float = 1.0,
        flat: bool = True,
    ) -> None:
        super().__init__()
        convs, now = [], channels
        for layer in layers:
            out = scaled(layer.channels, width)
            groups = math.gcd(layer.groups, now, out)
            conv = nn.Conv1d(now, out, layer.kernel, layer.stride, layer.kernel // 2, groups=groups)
            convs.append(normed(conv, norm))
            now = out
        self.convs = nn.ModuleList(convs)
        self.conv_post = normed(nn.Conv1d(now, 1, 3, padding=1), norm)
        self.slope, self.flat = slope, flat

    def forward(self, x: Tensor) -> Judgement:
        maps = activated(x, self.convs, self.slope)
        maps.append(self.conv_post(maps[-1]))
        return Judgement(maps[-1].flatten(1) if self.flat else maps[-1], maps)


class MelganDiscriminator(ScaleDiscriminator):
    """SoundStream's: no activation after the first layer; the strided ones' maps are given."""

    def forward(self, x: Tensor) -> Judgement:
        first, *strided, last = self.convs
        maps = activated(first(x), strided, self.slope)
        (hidden,) = activated(maps[-1], [last], self.slope)
        return Judgement(self.conv_post(hidden), maps)


class MultiScale(Judges):
    """Discriminators on the signal, on its average over pairs of samples, on that one's average…"""

    def views(self, x: Tensor) -> list[Tensor]:
        """The signal at full, half, quarter… rate: [B, C, S // 2**i + 1] from the second on."""
        views = [x]
        while len(views) < len(self.discriminators):
            views.append(F.avg_pool1d(views[-1], 4, 2, padding=2))
        return views


def msd_hifigan(
    scales: int = 3, channels: int = 1, width: float = 1.0, spectral_first: bool = True
) -> MultiScale:
    """HiFi-GAN's, of AcademiCodec, SpeechTokenizer and FunCodec.

    Args:
        scales: how many rates, each half of the one before
        channels: C
        width: multiplies the numbers of channels
        spectral_first: the one at full rate has spectral norm, and not weight norm
    """
    norms = ["spectral" if spectral_first and i == 0 else "weight" for i in range(scales)]
    judges = [ScaleDiscriminator(HIFIGAN, n, channels, 0.1, width) for n in norms]
    return MultiScale(judges, channels)


def audiodec_msd(
    scales: int = 3, channels: int = 1, width: float = 1.0, norm_skips_conv1d: bool = False
) -> MultiScale:
    """AudioDec's.

    Args:
        scales: how many rates, each half of the one before
        channels: C
        width: multiplies the numbers of channels
        norm_skips_conv1d: upstream's mistake: its code that adds the norms looks for ``Conv2d``
            only, so that no layer has one. Its configuration asks for spectral norm at full rate
            and weight norm at the others
    """
    norms = ["none"] * scales if norm_skips_conv1d else ["spectral", *["weight"] * (scales - 1)]
    judges = [ScaleDiscriminator(AUDIODEC, n, channels, 0.1, width, flat=False) for n in norms]
    return MultiScale(judges, channels)


def msd_melgan(scales: int = 3, channels: int = 1, width: float = 1.0) -> MultiScale:
    """SoundStream's waveform discriminators; arguments as of ``msd_hifigan``."""
    judges = [MelganDiscriminator(MELGAN, "none", channels, 0.1, width) for _ in range(scales)]
    return MultiScale(judges, channels, MELGAN_NAMES)
