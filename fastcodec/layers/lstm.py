"""The LSTM of EnCodec-like nets: layers as wide as their input, and a skip path around them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.packed import Packed
from fastcodec.layers.streaming import StreamingModule


@dataclass
class LstmState:
    """Hidden and cell state, [L, B, H] each; None before the first frame: zeros."""

    h: Tensor | None = None
    c: Tensor | None = None


class Lstm(StreamingModule):
    """lstm(x) + x over time, zero initial state.

    Args:
        channels: H, width of the input and of every layer
        layers: L
    """

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        shape = (layers, 4 * channels, channels)
        bound = channels**-0.5
        self.weight_ih = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.zeros(shape[:2]))
        self.bias_hh = nn.Parameter(torch.zeros(shape[:2]))
        self._packed = Packed(ops.lstm_pack)

    def init_state(self, batch_size: int) -> LstmState:
        return LstmState()

    def push(self, x: Tensor, state: LstmState, final: bool = False) -> Tensor:
        if x.shape[2] == 0:
            return x
        if state.h is None or state.c is None:
            state.h = x.new_zeros(len(self.weight_ih), x.shape[0], x.shape[1])
            state.c = torch.zeros_like(state.h)
        packed = self._packed.get(self.weight_ih, self.weight_hh)
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        y: Tensor
        y, state.h, state.c = ops.lstm(x, state.h, state.c, *weights, packed, True)
        return y
