"""FunCodec's quantizers: residual ones, maybe of projected latents or with a slower first codebook.

funcodec/models/quantizer/costume_quantizer.py@3435d870, modules/quantization/ddp_core_vq.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcodec import ops
from fastcodec.codecs.funcodec_config import FuncodecConfig
from fastcodec.codecs.keys import tag
from fastcodec.layers.conv import Conv1d
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import Quantizer, ResidualQuantizer

BOOKS = "quantizer.rq.model.embed"  # all codebooks, stacked


def quantizer(config: FuncodecConfig) -> Quantizer:
    """The quantizer of a configuration."""
    if config.codec_dim is None and config.codec_range is None and config.q0_ds_ratio == 1:
        sizes = (config.n_codebooks, config.codebook_size, config.encoder.dimension)
        return tag(ResidualQuantizer(*sizes), BOOKS)
    return FuncodecQuantizer(config)


class FuncodecQuantizer(Quantizer):
    """A residual quantizer of projected latents, or one whose first codebook has half the rate."""

    def __init__(self, config: FuncodecConfig) -> None:
        super().__init__()
        self.n_codebooks, self.codebook_size = config.n_codebooks, config.codebook_size
        dimension, width = config.encoder.dimension, config.codec_dim
        self.input_proj: Conv1d | None = None
        self.output_proj: Conv1d | None = None
        if width is not None:
            self.input_proj = tag(Conv1d(dimension, width, 1), "quantizer.input_proj")
            self.output_proj = tag(Conv1d(width, dimension, 1), "quantizer.output_proj")
        self.range, self.tanh = config.codec_range, Pointwise("tanh")
        self.halved = config.q0_ds_ratio > 1
        sizes = (self.n_codebooks, self.codebook_size, width or dimension)
        self.books = tag(ResidualQuantizer(*sizes), BOOKS)

    def encode(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        x = x.float() if self.input_proj is None else self.input_proj(x.float())
        x = x if self.range is None else self.tanh(x) * self.range
        if not self.halved:
            return self.books.encode(x, n_codebooks)
        frames, words = x.shape[2], self.books.codebooks[1:n_codebooks]
        half = max(1, frames // 2)  # whatever the ratio
        first = self.books.encode(x[..., _nearest(frames, half)], 1)[..., _nearest(half, frames)]
        if len(words) == 0:
            return first
        rest = ops.rvq_encode(x - self.books.decode(first), words)
        return torch.cat([first, rest], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        y = self.books.decode(codes)
        return y if self.output_proj is None else self.output_proj(y)


def _nearest(size: int, to: int) -> Tensor:
    """Which of ``size`` frames stand where there are to be ``to``, as torch interpolates."""
    return F.interpolate(torch.arange(size, dtype=torch.float32)[None, None], to)[0, 0].long()
