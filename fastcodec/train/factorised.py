"""Factorised quantizers in training: words and projections learn by gradient."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.quantize import FactorisedLevel, FactorisedQuantizer
from fastcodec.ops.rvq_encode_factorised import unit
from fastcodec.train.codebook_options import CodebookOptions
from fastcodec.train.quantized import Quantized, drawn_numbers, estimate, over_items, up_to


class TrainedFactorised(nn.Module):
    """DAC's or SNAC's quantizer, whose words and projections are parameters.

    descript-audio-codec/dac/nn/quantize.py@c7cfc5d2, snac/vq.py@f49016a4

    Args:
        quantizer: of which ``MultiRateQuantizer`` is one
        options: ``dropout…`` and ``gradient`` apply
        generator: of the dropout, on the CPU; torch's own where None
    """

    def __init__(
        self,
        quantizer: FactorisedQuantizer,
        options: CodebookOptions | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.quantizer, self.options = quantizer, options or CodebookOptions()
        self.generator = generator

    def forward(self, latent: Tensor, n_codebooks: Tensor | int | None = None) -> Quantized:
        """As ``TrainedQuantizer``'s; T is a multiple of every level's ``hold``."""
        count = self.quantizer.n_codebooks
        if n_codebooks is None and self.training:
            n_codebooks = drawn_numbers(self.options, len(latent), count, self.generator)
        in_use = up_to(n_codebooks, len(latent), count).to(latent.device)
        with torch.autocast(latent.device.type, enabled=False):
            return self._quantized(latent, in_use)

    def _quantized(self, latent: Tensor, in_use: Tensor) -> Quantized:
        levels = cast(list[FactorisedLevel], list(self.quantizer.levels))
        rest = latent.to(levels[0].codebook.dtype)
        outputs: list[Tensor] = []
        total, codes, commitments, books = torch.zeros_like(rest), [], [], []
        for level, hold, used in zip(
            levels, self.quantizer.hold or (1,) * len(levels), in_use.unbind(1), strict=True
        ):
            y, code, commitment, book = self._level(level, rest, hold, used)
            rest, total = rest - y, total + y * used[:, None, None]
            outputs.append(y)
            codes.append(code)
            commitments.append(commitment)
            books.append(book)
        every = torch.stack(commitments)
        return Quantized(
            total,
            torch.stack(codes, dim=1).where(in_use[..., None], -1),
            every.sum(),
            torch.stack(books).sum(),
            every,
            outputs[0],
        )

    def _level(
        self, level: FactorisedLevel, x: Tensor, hold: int, used: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A level's output [B, D, T], codes [B, T], commitment and codebook loss."""
        if hold > 1:
            x = nn.functional.avg_pool1d(x, hold)
        projected = level.project(x)
        words = unit(level.codebook.detach()[..., None])[None, ..., 0]
        codes: Tensor = ops.rvq_encode(unit(projected.detach()), words)
        word = nn.functional.embedding(codes[:, 0], level.codebook).transpose(1, 2)
        commitment = over_items((projected - word.detach()).square(), used)
        book = over_items((word - projected.detach()).square(), used)
        y: Tensor = level.out_proj(estimate(projected, word.detach(), self.options.gradient))
        code = codes[:, 0]
        if hold > 1:
            y, code = y.repeat_interleave(hold, dim=2), code.repeat_interleave(hold, dim=1)
        return y, code, commitment, book
