"""``Codes``: what every codec's ``encode`` returns and every ``decode`` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
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
        scale: [B, segments] float32, gain of each segment (EnCodec 48 kHz, FunCodec), or None
        hop: samples a frame, or None where it is not known
        hold: [K] frames over which each codebook's token is held (SNAC: 4, 2, 1), or None: all 1
        segment: samples of the segments that were coded on their own, or None: the signal as one
    """

    tokens: Tensor
    frame_rate_hz: float
    n_samples: Tensor
    codec: str
    scale: Tensor | None = None
    hop: int | None = None
    hold: tuple[int, ...] | None = None
    segment: int | None = None

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
        if self.hold is not None and len(self.hold) != tokens.shape[1]:
            raise ValueError(
                f"Codes: hold must name {tokens.shape[1]} numbers of frames, got {self.hold}"
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

    def truncate(self, n_codebooks: int) -> Codes:
        """The codes with the first ``n_codebooks`` codebooks only: a lower bit rate."""
        if not 1 <= n_codebooks <= self.n_codebooks:
            raise ValueError(f"truncate: there are 1 to {self.n_codebooks}, got {n_codebooks}")
        hold = self.hold and self.hold[:n_codebooks]
        return replace(self, tokens=self.tokens[:, :n_codebooks], hold=hold)

    def frames(self, start: int, stop: int) -> Codes:
        """The codes of frames ``start`` to ``stop``, with the samples that they stand for.

        Raises:
            ValueError: outside the signal, across a held token, or coded in segments, whose parts
                mean nothing alone
        """
        n_frames = self.tokens.shape[2]
        if not 0 <= start < stop <= n_frames:
            raise ValueError(
                f"frames: expected 0 <= start < stop <= {n_frames}, got {start}:{stop}"
            )
        in_segments = self.scale is not None and self.scale.shape[1] > 1
        if self.hop is None or self.segment is not None or in_segments:
            raise ValueError(
                f"frames: codes of {self.codec} that were coded in segments have no parts"
            )
        group = max(self.hold or (1,))
        if start % group or (stop % group and stop != n_frames):
            raise ValueError(
                f"frames: {self.codec} holds tokens for {group} frames; start and stop must be "
                f"multiples of it, got {start}:{stop}"
            )
        ends = self.n_samples if stop == n_frames else self.n_samples.clamp(max=stop * self.hop)
        n_samples = (ends - start * self.hop).clamp(min=0)
        return replace(self, tokens=self.tokens[..., start:stop], n_samples=n_samples)

    def ragged(self) -> list[Tensor]:
        """[B, T / hold] of every codebook: each token once, as SNAC's own package gives them."""
        hold = self.hold or (1,) * self.n_codebooks
        return [row[:, ::every] for row, every in zip(self.tokens.unbind(1), hold, strict=True)]


def join(parts: Sequence[Codes]) -> Codes:
    """The codes of consecutive pieces as one, such as the pushes of a stream gave them.

    Raises:
        ValueError: of different codecs or shapes, coded in segments, or a piece that is not the
            last ends within a frame
    """
    first = _alike(parts, "join")
    if any(part.segment is not None or part.scale is not None for part in parts):
        raise ValueError(f"join: codes of {first.codec} that are coded in segments do not join")
    for i, part in enumerate(parts[:-1]):
        if part.hop is not None and (part.n_samples != part.tokens.shape[2] * part.hop).any():
            raise ValueError(f"join: part {i} of {len(parts)} ends within a frame")
    n_samples = torch.stack([part.n_samples for part in parts]).sum(dim=0)
    return replace(first, tokens=torch.cat([p.tokens for p in parts], dim=2), n_samples=n_samples)


def batch(parts: Sequence[Codes]) -> Codes:
    """The rows of several ``Codes`` as one batch; rows that end early are filled up with ABSENT
    (their scales with 1).

    Raises:
        ValueError: of different codecs or numbers of codebooks
    """
    first = _alike(parts, "batch")

    def fill(rows: list[Tensor], value: float) -> Tensor:
        longest = max(row.shape[-1] for row in rows)
        return torch.cat([F.pad(row, (0, longest - row.shape[-1]), value=value) for row in rows])

    scales = [part.scale for part in parts if part.scale is not None]
    return replace(
        first,
        tokens=fill([part.tokens for part in parts], ABSENT),
        n_samples=torch.cat([part.n_samples for part in parts]),
        scale=fill(scales, 1.0) if scales else None,
    )


def _alike(parts: Sequence[Codes], what: str) -> Codes:
    """The first of the parts, all of one codec."""
    if not parts:
        raise ValueError(f"{what}: there are no codes to put together")
    for part in parts:
        mine, theirs = (
            (c.codec, c.n_codebooks, c.segment, c.scale is None) for c in (parts[0], part)
        )
        if mine != theirs:
            raise ValueError(
                f"{what}: all must be of one codec, number of codebooks and segment, got {mine} "
                f"and {theirs}"
            )
    return parts[0]
