"""Residual vector quantizers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.packed import Packed


class ResidualQuantizer(nn.Module):
    """K codebooks of N words, each quantising what the ones before left over.

    Always in float32, whatever the precision of the net around it: near ties decide codes.
    """

    codebooks: Tensor

    def __init__(self, n_codebooks: int, codebook_size: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.randn(n_codebooks, codebook_size, dimension))
        self._packed = Packed(ops.rvq_encode_pack)

    def encode(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        """Codes [B, n_codebooks, T] int64 of latents [B, D, T]."""
        packed = self._packed.get(self.codebooks)
        return ops.rvq_encode(x.float(), self.codebooks[:n_codebooks], packed)

    def decode(self, codes: Tensor) -> Tensor:
        """Latents [B, D, T] of codes [B, K, T] int64, -1 standing for nothing."""
        return ops.rvq_decode(codes, self.codebooks)
