"""Reconstruction losses: modules called with (decoded, target), both [B, C, S], giving a scalar.

``mel(name, sample_rate_hz)`` gives the multi-scale mel loss that a codec was trained with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fastcodec.train.spectra import MelSpectrogram, Scale, Spectrogram, mel_filters


class Waveform(nn.Module):
    """The mean over samples of |decoded - target| ** power.

    Args:
        power: 1 or 2
    """

    def __init__(self, power: Literal[1, 2] = 1) -> None:
        super().__init__()
        if power not in (1, 2):
            raise ValueError(f"Waveform: power must be 1 or 2, got {power}")
        self.power = power

    def forward(self, decoded: Tensor, target: Tensor) -> Tensor:
        difference = decoded - target
        return (difference.abs() if self.power == 1 else difference.square()).mean()


class MultiResolutionStft(nn.Module):
    """Spectral convergence and mean difference of log magnitudes, averaged over resolutions.

    Parallel WaveGAN (arXiv:1910.11480, section 2.2), whose sizes are the default.

    Args:
        sizes: (n_fft, hop, window) of each resolution
        floor: no power is less
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int, int]] = (
            (1024, 120, 600),
            (2048, 240, 1200),
            (512, 50, 240),
        ),
        floor: float = 1e-7,
    ) -> None:
        super().__init__()
        self.spectrograms = nn.ModuleList(Spectrogram(*size, floor=floor) for size in sizes)

    def forward(self, decoded: Tensor, target: Tensor) -> Tensor:
        total = decoded.new_zeros(())
        for spectrogram in self.spectrograms:
            got, want = spectrogram(decoded), spectrogram(target)
            total = total + (want - got).norm() / want.norm()
            total = total + (want.log() - got.log()).abs().mean()
        return total / len(self.spectrograms)


@dataclass(frozen=True)
class MelScale:
    """One resolution of a multi-scale mel loss, and what is compared at it.

    Args:
        n_fft, hop, n_mels: samples, samples, number of filters
        window: samples, n_fft where None
        l1: weight of the mean absolute difference of mels
        log_l1, log_l2: weights of the mean absolute and the mean squared difference of their logs
        log_norm: weight of the mean over frames of the norm of the difference of their logs
    """

    n_fft: int
    hop: int
    n_mels: int
    window: int | None = None
    l1: float = 0.0
    log_l1: float = 0.0
    log_l2: float = 0.0
    log_norm: float = 0.0


class MultiScaleMel(nn.Module):
    """Differences of mel spectrograms of several resolutions, weighted and added.

    Args:
        sample_rate_hz: of the signals
        scales: see there
        min_hz, max_hz, scale, equal_area: see ``mel_filters``
        log_floor: of mels, before the logarithm
        floor_added: it is added; else no mel is less
        log: natural or decimal
        spectra: further arguments of ``Spectrogram``, of every scale
    """

    def __init__(
        self,
        sample_rate_hz: int,
        scales: Sequence[MelScale],
        min_hz: float = 0.0,
        max_hz: float | None = None,
        scale: Scale = "slaney",
        equal_area: bool = True,
        log_floor: float = 1e-5,
        floor_added: bool = False,
        log: Literal["natural", "decimal"] = "decimal",
        **spectra: Any,
    ) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.log_floor, self.floor_added = log_floor, floor_added
        self.log: Callable[[Tensor], Tensor] = torch.log if log == "natural" else torch.log10
        filters = (min_hz, max_hz, scale, equal_area)
        self.mels = nn.ModuleList(
            MelSpectrogram(
                Spectrogram(s.n_fft, s.hop, s.window, **spectra),
                mel_filters(sample_rate_hz, s.n_fft, s.n_mels, *filters),
            )
            for s in scales
        )

    def forward(self, decoded: Tensor, target: Tensor) -> Tensor:
        total = decoded.new_zeros(())
        for scale, mel in zip(self.scales, self.mels, strict=True):
            got, want = mel(decoded), mel(target)
            total = total + scale.l1 * (got - want).abs().mean()
            logs = self._logs(got) - self._logs(want)
            total = total + scale.log_l1 * logs.abs().mean() + scale.log_l2 * logs.square().mean()
            if scale.log_norm:  # whose gradient where nothing differs is not a number
                norms = logs.square().sum(1).clamp(min=1e-12).sqrt()
                total = total + scale.log_norm * norms.mean()
        return total

    def _logs(self, mel: Tensor) -> Tensor:
        return self.log(mel + self.log_floor if self.floor_added else mel.clamp(min=self.log_floor))


@dataclass(frozen=True)
class _Mel:
    scales: tuple[MelScale, ...]
    options: dict[str, Any] = field(default_factory=dict)


def _powers(first: int, last: int, n_fft: int, **weights: float) -> tuple[MelScale, ...]:
    """Windows of 2 ** first .. 2 ** last samples, a quarter of it the hop, and 64 mels."""
    windows = [2**power for power in range(first, last + 1)]
    return tuple(MelScale(max(n_fft, w), w // 4, 64, w, **weights) for w in windows)


_HIFIGAN = {"centred": False, "log": "natural", "offset": 1e-9}
_MELS: dict[str, _Mel] = {
    # audiocraft/losses/specloss.py@896ec7c, config/loss: each weight is 1 of 10 that are added.
    "encodec": _Mel(
        _powers(6, 10, 0, l1=0.1, log_l2=0.1),
        {
            "min_hz": 64.0, "scale": "htk", "equal_area": False, "floor_added": True, "power": 2,
            "centred": False, "fill_last": True, "normalised": True,
        },
    ),
    # descript-audio-codec/conf/base.yml@c7cfc5d2
    "dac": _Mel(
        tuple(MelScale(32 << i, 8 << i, 5 << i, log_l1=1.0) for i in range(7)),
    ),
    # AudioDec/losses/mel_loss.py@e451e625
    "audiodec": _Mel(
        (MelScale(2048, 300, 80, log_l1=1.0),),
        {"log": "natural", "log_floor": 1e-10, "floor": 1e-10},
    ),
    # AcademiCodec/egs/HiFi-Codec-24k-320d/train.py@b6ac1347
    "hificodec": _Mel(
        (
            MelScale(1024, 240, 80, log_l1=1.0),
            MelScale(512, 120, 80, log_l1=1 / 45),
            MelScale(256, 60, 80, log_l1=1 / 45),
        ),
        _HIFIGAN,
    ),
    # speechtokenizer/trainer/loss.py@30c96fb3, config/spt_base_cfg.json; without the 1e-9 that it
    # adds to magnitudes, of a log whose floor is 1e-5.
    "speechtokenizer": _Mel(
        tuple(
            MelScale(1024 >> i, 240 >> i, 80, log_l1=1.0 if i == 0 else 1 / 45) for i in range(4)
        ),
        {"centred": False, "log": "natural", "scale": "htk"},
    ),
    # funcodec/models/codec_basic.py@3435d870
    "funcodec": _Mel(
        _powers(5, 10, 1024, log_l1=1 / 6, log_l2=1 / 6),
        {"power": 2, "centred": False},
    ),
    # arXiv:2107.03312, equation 4
    "soundstream": _Mel(
        tuple(
            MelScale(max(512, 2**i), 2**i // 4, 64, 2**i, l1=1.0, log_norm=math.sqrt(2**i / 2))
            for i in range(6, 12)
        ),
        {"log": "natural"},
    ),
}  # fmt: skip
_MELS_AT = {  # where a codec's configurations differ
    ("hificodec", 16000): _Mel(
        (MelScale(1024, 200, 80, 800, log_l1=1.0), *_MELS["hificodec"].scales[1:]), _HIFIGAN
    ),
}


def mel(name: str, sample_rate_hz: int) -> MultiScaleMel:
    """The multi-scale mel loss of a codec, the first scale's weight being 1 where they differ.

    Args:
        name: ``"encodec"``, ``"dac"``, ``"audiodec"``, ``"hificodec"``, ``"speechtokenizer"``,
            ``"funcodec"`` or ``"soundstream"``
        sample_rate_hz: of the signals

    Raises:
        ValueError: there is no such name
    """
    if name not in _MELS:
        raise ValueError(f"mel: expected one of {', '.join(_MELS)}, got {name!r}")
    chosen = _MELS_AT.get((name, sample_rate_hz), _MELS[name])
    return MultiScaleMel(sample_rate_hz, chosen.scales, **chosen.options)
