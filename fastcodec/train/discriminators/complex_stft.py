"""SoundStream's STFT discriminator (Zeghidour et al. 2021, arXiv 2107.03312), complex throughout.

    [B, 1, S] -> complex spectrum [B, 1, bins, frames] -> conv 7 x 7
      -> 6 x [x + conv 3 x 3 (modReLU (conv 3 x 3)) -> strided conv] -> conv over all bins -> |.|

As in audiolm-pytorch 2.4.0 soundstream.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec.train.discriminators.judgement import Judgement, Judges, Rules, scaled
from fastcodec.train.discriminators.spectra import Spectrum

STRIDES = ((1, 2), (2, 2), (1, 2), (2, 2), (1, 2), (2, 2))  # of bins, of frames
MULTIPLES = (1, 2, 4, 4, 8, 8)  # of the first convolution's channels
NAMES: Rules = (
    (r"(^|\.)layers\.(\d+)\.0\.fn\.0\.", r"\1units.\2.first."),
    (r"(^|\.)layers\.(\d+)\.0\.fn\.1\.b$", r"\1units.\2.threshold"),
    (r"(^|\.)layers\.(\d+)\.0\.fn\.2\.", r"\1units.\2.second."),
    (r"(^|\.)layers\.(\d+)\.1\.", r"\1units.\2.down."),
)


class ComplexConv2d(nn.Module):
    """A convolution of complex maps; real and imaginary parts of its weights lie in the last axis.

    Args:
        channels, filters: before and after it
        kernel, stride, padding: along bins and along frames
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        bound = (channels * kernel[0] * kernel[1]) ** -0.5
        self.weight = nn.Parameter(torch.empty(filters, channels, *kernel, 2))
        self.bias = nn.Parameter(torch.empty(filters, 2))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = torch.view_as_complex(self.weight), torch.view_as_complex(self.bias)
        return F.conv2d(x.to(weight.dtype), weight, bias, self.stride, self.padding)


class Unit(nn.Module):
    """A residual unit, then a strided convolution of kernel stride + 2.

    The modReLU between its two convolutions (Arjovsky et al. 2016, arXiv 1511.06464) takes a
    threshold off the magnitude and keeps the angle.
    """

    def __init__(self, channels: int, filters: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.first = ComplexConv2d(channels, channels, (3, 3), padding=(1, 1))
        self.threshold = nn.Parameter(torch.zeros(()))
        self.second = ComplexConv2d(channels, channels, (3, 3), padding=(1, 1))
        kernel = (stride[0] + 2, stride[1] + 2)
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.down = ComplexConv2d(channels, filters, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = torch.polar(F.relu(hidden.abs() + self.threshold), hidden.angle())
        down: Tensor = self.down(self.second(hidden) + x)
        return down


class ComplexStftDiscriminator(nn.Module):
    """[B, 1, S] -> score [B, 1, bins', frames'], and the complex maps of the layers before it.

    Args:
        n_fft: samples of a transform, and of its window; the hop is a quarter
        filters: channels of the first convolution
        rectangular: without a window
    """

    def __init__(self, n_fft: int = 1024, filters: int = 32, rectangular: bool = False) -> None:
        super().__init__()
        self.spectrum = Spectrum(n_fft, n_fft // 4, centred=True, rectangular=rectangular)
        self.init_conv = ComplexConv2d(1, filters, (7, 7), padding=(3, 3))
        widths = [filters, *(multiple * filters for multiple in MULTIPLES)]
        self.units = nn.ModuleList(map(Unit, widths, widths[1:], STRIDES))
        # 16 whatever the transform, so that the scores of other lengths than 1024 have other bins
        self.final_conv = ComplexConv2d(widths[-1], 1, (16, 1))

    def forward(self, x: Tensor) -> Judgement:
        maps = [self.init_conv(self.spectrum(x).mT)]
        for unit in self.units:
            maps.append(unit(maps[-1]))
        return Judgement(self.final_conv(maps[-1]).abs(), maps)


def complex_stft(n_fft: int = 1024, width: float = 1.0, rectangular: bool = False) -> Judges:
    """SoundStream's STFT discriminator.

    Args:
        n_fft: samples of a transform; the hop is a quarter
        width: multiplies the numbers of channels
        rectangular: without a window, as in FunCodec sound_stream.py@3435d870
    """
    judge = ComplexStftDiscriminator(n_fft, scaled(32, width), rectangular)
    return Judges([judge], rules=NAMES)
