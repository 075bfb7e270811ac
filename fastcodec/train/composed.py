"""Quantizers made of residual ones, in training: HiFi-Codec's groups and Mimi's two parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fastcodec.layers.quantize import (
    GroupedResidualQuantizer,
    ProjectedQuantizer,
    ResidualQuantizer,
    SplitQuantizer,
)
from fastcodec.train.codebook_options import CodebookOptions
from fastcodec.train.codebooks import TrainedQuantizer
from fastcodec.train.quantized import Quantized, drawn_numbers, up_to


class _Composed(nn.Module):
    """What both have in common.

    Args:
        parts: the residual quantizers that are trained
        options: of each of them; dropout counts the codebooks of all
        generator: as ``TrainedQuantizer``'s
    """

    def __init__(
        self,
        parts: Sequence[ResidualQuantizer],
        options: CodebookOptions | None,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.options, self.generator = options or CodebookOptions(), generator
        self.parts = nn.ModuleList(TrainedQuantizer(q, self.options, generator) for q in parts)
        self.n_codebooks = sum(q.n_codebooks for q in parts)

    def _in_use(self, batch: int, n_codebooks: Tensor | int | None) -> Tensor:
        """[B, K] of all parts together, in the order of the codes."""
        if n_codebooks is None and self.training:
            n_codebooks = drawn_numbers(self.options, batch, self.n_codebooks, self.generator)
        return up_to(n_codebooks, batch, self.n_codebooks)

    def _joined(
        self, results: Sequence[Quantized], places: Sequence[slice], y: Tensor, first: Tensor
    ) -> Quantized:
        """The results of parts whose codebooks have these places among all."""
        batch, _, frames = results[0].codes.shape
        codes = results[0].codes.new_empty(batch, self.n_codebooks, frames)
        commitments = y.new_empty(self.n_codebooks)
        learning = y.new_zeros(())
        for result, place in zip(results, places, strict=True):
            codes[:, place], commitments[place] = result.codes, result.commitments
            learning = learning + result.codebook * _used(result.codes)
        count = _used(codes)
        return Quantized(y, codes, commitments.sum() / count, learning / count, commitments, first)


def _used(codes: Tensor) -> Tensor:
    """How many codebooks have a code in [B, K, T]."""
    return (codes >= 0).any(2).any(0).sum().clamp(min=1)


class TrainedGroups(_Composed):
    """HiFi-Codec's quantizer: a ``TrainedQuantizer`` for each group of features.

    Args:
        quantizer, options, generator: as ``TrainedQuantizer``'s
    """

    def __init__(
        self,
        quantizer: GroupedResidualQuantizer,
        options: CodebookOptions | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(cast(list[ResidualQuantizer], list(quantizer.groups)), options, generator)

    def forward(self, latent: Tensor, n_codebooks: Tensor | int | None = None) -> Quantized:
        """As ``TrainedQuantizer``'s; ``first`` is the first level of all groups."""
        in_use, step = self._in_use(len(latent), n_codebooks), len(self.parts)
        places = [slice(g, None, step) for g in range(step)]
        results: list[Quantized] = [
            part(x, in_use[:, place].sum(1))
            for part, x, place in zip(self.parts, latent.chunk(step, dim=1), places, strict=True)
        ]
        y, first = (
            torch.cat(x, dim=1) for x in ([r.latent for r in results], [r.first for r in results])
        )
        return self._joined(results, places, y, first)


class TrainedSplit(_Composed):
    """Mimi's quantizer: a ``TrainedQuantizer`` for each of its two parts, between projections.

    Args:
        quantizer, options, generator: as ``TrainedQuantizer``'s
    """

    def __init__(
        self,
        quantizer: SplitQuantizer,
        options: CodebookOptions | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        projected = (quantizer.first, quantizer.rest)
        super().__init__([part.residual for part in projected], options, generator)
        self.projected = nn.ModuleList(projected)

    def forward(self, latent: Tensor, n_codebooks: Tensor | int | None = None) -> Quantized:
        """As ``TrainedQuantizer``'s."""
        in_use = self._in_use(len(latent), n_codebooks)
        n_first = cast(TrainedQuantizer, self.parts[0]).quantizer.n_codebooks
        places = [slice(0, n_first), slice(n_first, None)]
        results: list[Quantized] = []
        with torch.autocast(latent.device.type, enabled=False):
            both = [cast(ProjectedQuantizer, part) for part in self.projected]
            for part, around, place in zip(self.parts, both, places, strict=True):
                x = around.in_proj(latent.to(around.in_proj.weight.dtype))
                results.append(part(x, in_use[:, place].sum(1)))
            outputs = [p.out_proj(r.latent) for p, r in zip(both, results, strict=True)]
            first = both[0].out_proj(results[0].first)
        return self._joined(results, places, outputs[0] + outputs[1], first)
