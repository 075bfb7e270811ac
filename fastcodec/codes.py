"""``Codes``: what every codec's ``encode`` returns and every ``decode`` takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

ABSENT = -1  # a token that stands for nothing: padding of a ragged batch, a stage that was not sent


@dataclass(frozen=True)
class Codes:
    """Codebook indices of a batch of signals, at the codec's finest frame rate.

    Args:
        tokens: [B, K, T] int64, codebook indices; rows shorter than T end in ``ABSENT`` (-1)
        frame_rate_hz: frames a second
        n_samples: [B] int64, length of each signal before encoding, in samples at the codec's rate
        codec: preset name, as given to ``fastcodec.load``
        scale: [B, segments] float32, gain of each segment (EnCodec 48 kHz), or None
    """

    tokens: Tensor
    frame_rate_hz: float
    n_samples: Tensor
    codec: str
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        tokens, n_samples = self.tokens, self.n_samples
        if tokens.ndim != 3 or tokens.dtype != torch.int64:
            raise ValueError(
                f"Codes: tokens must be [B, K, T] int64, got {list(tokens.shape)} {tokens.dtype}"
            )
        if n_samples.shape != tokens.shape[:1] or n_samples.dtype != torch.int64:
            raise ValueError(
                f"Codes: n_samples must be [{tokens.shape[0]}] int64, one a row of tokens, got "
                f"{list(n_samples.shape)} {n_samples.dtype}"
            )

    @property
    def n_codebooks(self) -> int:
        """K, the number of codebooks that were kept."""
        return self.tokens.shape[1]

    def __len__(self) -> int:
        """B, the number of signals."""
        return self.tokens.shape[0]

    def __getitem__(self, rows: int | slice | list[int]) -> Codes:
        """The codes of one row (still a batch, of one) or of several."""
        rows = [rows] if isinstance(rows, int) else rows
        scale = None if self.scale is None else self.scale[rows]
        return replace(self, tokens=self.tokens[rows], n_samples=self.n_samples[rows], scale=scale)

    def to(self, device: torch.device | str) -> Codes:
        """The same codes on ``device``."""
        scale = None if self.scale is None else self.scale.to(device)
        return replace(self, tokens=self.tokens.to(device), scale=scale)
