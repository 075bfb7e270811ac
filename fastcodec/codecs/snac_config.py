"""Sizes of a SNAC, and the ``config.json`` beside upstream's weights (snac/snac.py@f49016a4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastcodec.codecs.dac_config import check_rates
from fastcodec.codecs.settings import checked, made
from fastcodec.errors import WeightsError

HEAD = 64  # features of a head of attention


@dataclass(frozen=True)
class SnacConfig:
    """Upstream's constructor arguments; ``hub`` is the repository of the weights."""

    sampling_rate: int = 44100
    encoder_dim: int = 64
    encoder_rates: tuple[int, ...] = (2, 3, 8, 8)
    decoder_dim: int = 1536
    decoder_rates: tuple[int, ...] = (8, 8, 3, 2)
    attn_window_size: int | None = 32
    codebook_size: int = 4096
    codebook_dim: int = 8
    vq_strides: tuple[int, ...] = (8, 4, 2, 1)
    noise: bool = True
    depthwise: bool = True
    hub: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        check_rates("SnacConfig", self.encoder_rates, self.decoder_rates)
        if any(self.group % stride for stride in self.vq_strides) or not self.vq_strides:
            raise ValueError(
                f"SnacConfig: every one of vq_strides must divide the least common multiple of the "
                f"first and the attention's window, got {self.vq_strides}"
            )
        widths = self.dimension, self.decoder_dim
        if self.attn_window_size is not None and any(width % HEAD for width in widths):
            raise ValueError(
                f"SnacConfig: attention needs widths that are multiples of {HEAD}, got {widths}"
            )

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return math.prod(self.encoder_rates)

    @property
    def dimension(self) -> int:
        """D."""
        return self.encoder_dim * 2 ** len(self.encoder_rates)

    @property
    def group(self) -> int:
        """A signal has a multiple of so many frames."""
        return math.lcm(self.vq_strides[0], self.attn_window_size or 1)


_DEFAULTS = {
    "sampling_rate": 44100, "encoder_dim": 64, "encoder_rates": (3, 3, 7, 7), "latent_dim": None,
    "decoder_dim": 1536, "decoder_rates": (7, 7, 3, 3), "attn_window_size": 32,
    "codebook_size": 4096, "codebook_dim": 8, "vq_strides": (8, 4, 2, 1), "noise": True,
    "depthwise": True,
}  # fmt: skip


def from_upstream(config: Mapping[str, Any]) -> SnacConfig:
    """The configuration that a ``config.json`` of upstream's describes.

    Raises:
        WeightsError: a setting that is not known, or a value that no model can have
    """
    settings = checked("SNAC", config, _DEFAULTS, nullable=("attn_window_size",))
    latent_dim = settings.pop("latent_dim")
    found = made(SnacConfig, **settings)
    if latent_dim not in (None, found.dimension):
        raise WeightsError(f"SNAC: latent_dim must be {found.dimension}, got {latent_dim}")
    return found
