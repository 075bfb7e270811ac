"""Weight and spectral norm of a discriminator's convolutions, as torch parametrisations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

Conv = TypeVar("Conv", nn.Conv1d, nn.Conv2d)
NORMS = ("none", "weight", "spectral")
# What follows "weight_" with torch.nn.utils -> what follows "parametrizations.weight." here.
_WEIGHT = {"g": "original0", "v": "original1"}
_SPECTRAL = {"orig": "original", "u": "0.u", "v": "0.v"}


class SpectralNorm(nn.Module):
    """W / sigma(W), sigma estimated by one step of the power method a forward pass of training.

    Miyato et al. 2018 (arXiv 1802.05957), in the order of ``torch.nn.utils.spectral_norm``, which
    HiFi-GAN uses: v from u, then u from v. torch's newer parametrisation takes u first, so that it
    is half a step off from the same buffers.

    Args:
        weight: [C', ...] the first value of the weight
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows = weight.flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(rows.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(rows.shape[1]), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight [C', ...] divided by its largest singular value."""
        rows = weight.flatten(1)
        if self.training:
            with torch.no_grad():
                self.v.copy_(F.normalize(rows.mT @ self.u, dim=0, eps=1e-12))
                self.u.copy_(F.normalize(rows @ self.v, dim=0, eps=1e-12))
        # Copies: a second forward pass before the backward one (real, then fake) changes u and v.
        u, v = self.u.clone(), self.v.clone()
        sigma: Tensor = u.dot(rows @ v)
        return weight / sigma


def normed(conv: Conv, norm: str) -> Conv:
    """The convolution with a norm of its weight: ``"none"``, ``"weight"`` or ``"spectral"``."""
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    if norm == "weight":
        weight_norm(conv)
    elif norm == "spectral":
        parametrize.register_parametrization(conv, "weight", SpectralNorm(conv.weight))
    return conv


def respelled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with the entries of ``torch.nn.utils.weight_norm`` and ``spectral_norm`` renamed.

    They are ``weight_g`` and ``weight_v``; ``weight_orig``, ``weight_u`` and ``weight_v``.
    """
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        stem, _, own = name.rpartition("weight_")
        spelling = _SPECTRAL if f"{stem}weight_orig" in state else _WEIGHT
        known = name == f"{stem}weight_{own}" and own in spelling
        ours[f"{stem}parametrizations.weight.{spelling[own]}" if known else name] = value
    return ours
