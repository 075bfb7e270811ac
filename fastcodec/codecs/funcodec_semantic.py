"""FunCodec's semantic augmentation (arXiv:2309.07405, section 2.4): phone classes beside the codes.

The classes of every frame ("ppg" is upstream's name for them) become latents at the codes' rate,
which are taken off what is quantised, added to it behind the quantizer, or put beside it. As in the
training step of codec_semantic_aug.py@3435d870 (some forms fail in upstream's ``inference``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fastcodec.codecs.funcodec_config import NetConfig, PpgConfig
from fastcodec.codecs.funcodec_seanet import Builder
from fastcodec.codecs.keys import tag
from fastcodec.layers.conv import NONE
from fastcodec.layers.streaming import Sequential

Ppg = Tensor | np.ndarray


class Semantics(nn.Module):
    """The layers that make latents [B, D, T] of phone classes, and put them to the codes'."""

    def __init__(self, config: PpgConfig, dimension: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = tag(nn.Embedding(config.classes, dimension), "ppg_embedding")
        down = Builder(NetConfig(norm="time_group_norm"), "ppg_ds_layer")
        down.conv(dimension, dimension, 7, activation=NONE)
        down.config = NetConfig(norm="none")
        down.conv(dimension, dimension, 2 * config.rate, stride=config.rate)
        self.down = Sequential(*down.layers)
        beside = Builder(NetConfig(norm="none"), "ppg_cond_layer")
        beside.conv(2 * dimension, dimension, 3, activation=NONE)
        self.beside = Sequential(*beside.layers)

    def latents(self, ppg: Tensor, frames: int, whole_hops: int) -> Tensor:
        """[1, D, frames] of a signal's classes [T'] int64; those after its whole hops do not count,
        the last one that does is repeated.
        """
        y = self.embedding(ppg)[None].transpose(1, 2)
        y = self.down(y) if self.config.convolution else y[..., :: self.config.rate]
        y = y[..., : min(frames, max(1, whole_hops))]
        return torch.cat([y, y[..., -1:].expand(-1, -1, frames - y.shape[2])], dim=2)

    def before(self, latent: Tensor, ppg: Tensor) -> Tensor:
        """What is quantised, of the encoder's latents."""
        return latent - ppg if self.config.usage == "residual" else latent

    def after(self, quantised: Tensor, ppg: Tensor) -> Tensor:
        """What is decoded, of the quantised latents."""
        if self.config.usage == "concat":
            return self.beside(torch.cat([ppg, quantised], dim=1))
        return quantised + ppg

    def rows(self, ppg: Ppg | Sequence[Ppg] | None, count: int) -> list[Tensor]:
        """[T'] int64 classes of each of ``count`` signals.

        Args:
            ppg: [T'] or [B, T'] whole numbers, [T', classes] or [B, T', classes] posteriors, or a
                list of [T'] or [T', classes]

        Raises:
            ValueError: there is none, or of another shape, or not that many
        """
        if ppg is None:
            raise ValueError("ppg: this codec needs the phone classes, too")
        if isinstance(ppg, list | tuple):
            rows = [torch.as_tensor(row) for row in ppg]
        else:
            one = torch.as_tensor(ppg)
            batched = one.ndim == (3 if one.dtype.is_floating_point else 2)
            rows = list(one) if batched else [one]
        if len(rows) != count:
            raise ValueError(f"ppg: expected classes of {count} signals, got {len(rows)}")
        return [self._classes(row) for row in rows]

    def _classes(self, row: Tensor) -> Tensor:
        posteriors = row.dtype.is_floating_point
        if posteriors and row.ndim == 2 and row.shape[1] == self.config.classes and len(row):
            row = row.max(dim=1).indices
        elif posteriors or row.ndim != 1 or len(row) == 0:
            raise ValueError(
                f"ppg: expected [T] classes or [T, {self.config.classes}] posteriors, got "
                f"{list(row.shape)} {row.dtype}"
            )
        row = row.long()
        low, high = int(row.min()), int(row.max())
        if low < 0 or high >= self.config.classes:
            raise ValueError(
                f"ppg: classes must be 0 to {self.config.classes - 1}, got {low} to {high}"
            )
        return row.to(self.embedding.weight.device)
