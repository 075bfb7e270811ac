"""Inputs and random weights: nothing has to be downloaded to measure time."""

from __future__ import annotations

import torch
from torch import Tensor


def wav(sample_rate_hz: int, channels: int, seconds: float) -> Tensor:
    """[1, C, S] float32 in -1..1: noise under a slow swell, so that no two frames are alike."""
    samples = round(sample_rate_hz * seconds)
    source = torch.Generator().manual_seed(0)
    noise = torch.randn(1, channels, samples, generator=source).clamp_(-4, 4)
    swell = torch.linspace(0, 7 * seconds, samples).sin_().mul_(0.1).add_(0.12)
    return noise.mul_(swell)


def word_sizes(stages: int) -> Tensor:
    """[K] standard deviations of random words for a normal residual, such that all are used.

    Of 1024 words in 128 dimensions the nearest takes the most off a unit residual where their size
    is 0.28, and leaves 0.96 of it to the next stage.
    """
    return 0.28 * 0.96 ** torch.arange(stages)
