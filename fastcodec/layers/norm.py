"""Normalisation over all of a signal's channels and frames, or over the channels of a frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.plan import Plan
from fastcodec.layers.streaming import Held, StreamingModule, WholeSignal


class GroupNorm(WholeSignal):
    """Group normalisation; it needs the whole signal at once.

    Args:
        channels: C
        epsilon: added to the variance
        groups: of equally many neighbouring channels, each with its own statistics
    """

    not_streamable_because = "group normalisation takes its statistics over the whole segment"

    def __init__(self, channels: int, epsilon: float = 1e-5, groups: int = 1) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"GroupNorm: {channels} channels do not make {groups} groups")
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epsilon, self.groups = epsilon, groups

    def push(
        self, x: Tensor, state: list[bool], final: bool = False, held: Held | None = None
    ) -> Tensor:
        """As every layer's; ``held``: frames to add to the result."""
        y = super().push(x, state, final)
        return y if held is None else y + held.take(x.shape[2])

    def whole(self, x: Tensor) -> Tensor:
        count = self.groups
        parts = zip(
            x.chunk(count, 1), self.weight.chunk(count), self.bias.chunk(count), strict=True
        )
        normal = [ops.group_norm(*part, self.epsilon) for part in parts]
        if len(normal) == 1:
            return normal[0]
        return torch.cat([y.transpose(1, 2) for y in normal], dim=2).transpose(1, 2)


class LayerNorm(StreamingModule):
    """Normalisation over the channels of each frame."""

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def push(self, x: Tensor, state: None, final: bool = False) -> Tensor:
        y: Tensor = ops.layer_norm(x, self.weight, self.bias, self.epsilon)
        return y

    def lower(self, plan: Plan, held: int = 0) -> bool:
        return not held and plan.layer_norm(self)
