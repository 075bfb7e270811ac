"""Elementwise layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.streaming import StreamingModule


class Pointwise(StreamingModule):
    """An activation as a layer of its own.

    Args:
        kind: a key of ``ops.ACTIVATIONS`` but "snake"
        slope: of leaky ReLU
    """

    def __init__(self, kind: str, slope: float = 0.0) -> None:
        super().__init__()
        self.kind, self.slope = kind, slope

    def push(self, x: Tensor, state: None, final: bool = False) -> Tensor:
        y: Tensor = ops.activation(x, ops.ACTIVATIONS[self.kind], self.slope)
        return y


class Snake(StreamingModule):
    """x + sin^2(alpha x) / alpha, one alpha a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def push(self, x: Tensor, state: None, final: bool = False) -> Tensor:
        y: Tensor = ops.snake(x, self.alpha)
        return y
