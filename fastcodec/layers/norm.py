"""Normalisation over all of a signal's channels and frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.streaming import Held, StreamingModule


class GroupNorm(StreamingModule):
    """Group normalisation with one group; it needs the whole signal at once."""

    not_streamable_because = "group normalisation takes its statistics over the whole segment"

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def init_state(self, batch_size: int) -> list[bool]:
        return [False]

    def push(
        self, x: Tensor, state: list[bool], final: bool = False, held: Held | None = None
    ) -> Tensor:
        """As every layer's; ``held``: frames to add to the result."""
        if not final or state[0]:
            raise ValueError(f"GroupNorm.push: {self.not_streamable_because}")
        state[0] = True
        y = ops.group_norm(x, self.weight, self.bias, self.epsilon)
        return y if held is None else y + held.take(x.shape[2])
