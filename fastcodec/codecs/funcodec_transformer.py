"""The transformer that FunCodec's nets may hold in the place of an LSTM.

funcodec/modules/normed_modules/transformer.py@3435d870: normalisation first, no positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.codecs.keys import tag
from fastcodec.layers.conv import NONE, Activation, Conv1d
from fastcodec.layers.norm import LayerNorm
from fastcodec.layers.streaming import WholeSignal

HEADS = 4
UNITS = 2048  # of the feed-forward layers
EPSILON = 1e-12  # of the normalisations
RELU = Activation("leaky_relu", 0.0)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, channels: int, causal: bool, path: str) -> None:
        super().__init__()
        self.causal = causal

        def linear(c_in: int, c_out: int, name: str, activation: Activation = NONE) -> Conv1d:
            return tag(Conv1d(c_in, c_out, 1, activation=activation), f"{path}.{name}")

        self.norm1, self.norm2 = (
            tag(LayerNorm(channels, EPSILON), f"{path}.norm{i}") for i in (1, 2)
        )
        self.q, self.k, self.v, self.out = (
            linear(channels, channels, f"self_attn.linear_{name}")
            for name in ("q", "k", "v", "out")
        )
        self.w_1 = linear(channels, UNITS, "feed_forward.w_1")
        self.w_2 = linear(UNITS, channels, "feed_forward.w_2", RELU)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] of x [B, C, T]."""
        y, frames = self.norm1(x), x.shape[2]
        position = torch.arange(1, frames + 1, device=x.device)
        last = position if self.causal else torch.full_like(position, frames)
        scale = (x.shape[1] // HEADS) ** -0.5
        y = ops.attention(
            self.q(y), self.k(y), self.v(y), torch.zeros_like(last), last, HEADS, scale
        )
        x = x + self.out(y)
        return x + self.w_2(self.w_1(self.norm2(x)))


class Transformer(WholeSignal):
    """Blocks and a last normalisation over a whole signal, and a skip path around all.

    Args:
        channels: C
        blocks: how many
        causal: a frame sees those before it only
        skip: return y + x instead of y
        path: in upstream's checkpoint
    """

    not_streamable_because = "its attention goes over the whole signal"

    def __init__(self, channels: int, blocks: int, causal: bool, skip: bool, path: str) -> None:
        super().__init__()
        if channels % HEADS:
            raise ValueError(f"FunCodec: {channels} channels do not make {HEADS} heads")
        self.skip = skip
        self.blocks = nn.ModuleList(
            Block(channels, causal, f"{path}.encoders.{i}") for i in range(blocks)
        )
        self.after_norm = tag(LayerNorm(channels, EPSILON), f"{path}.after_norm")

    def whole(self, x: Tensor) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y)
        y = self.after_norm(y)
        return y + x if self.skip else y
