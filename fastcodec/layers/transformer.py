"""A streaming causal transformer: every frame sees a window of the frames before it.

A window is counted in absolute positions, and ``ops.attention`` gives a frame's bits whatever else
is in the cache: so pushes of any size give what the whole signal gives. A layer is made of the
parts that it is given; a language model may put in its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.attention import (
    KeyValueCache,
    SelfAttention,
    Step,
    StillCache,
    angles,
    frequencies,
)
from fastcodec.layers.conv import Activation, Conv1d
from fastcodec.layers.norm import LayerNorm
from fastcodec.layers.plan import Leaf, Plan
from fastcodec.layers.streaming import StreamingModule
from fastcodec.ops._op import serves_native


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a pre-norm transformer without biases.

    ``feed_forward``: width between its two linear layers; ``context``: frames that a frame sees,
    itself included, or None for all before it; ``max_period``: of the rotary positions, in frames.
    """

    layers: int = 8
    heads: int = 8
    kv_heads: int | None = None
    head_features: int | None = None
    feed_forward: int = 2048
    activation: str = "gelu"
    context: int | None = 250
    max_period: float = 10000.0
    layer_scale: bool = True
    epsilon: float = 1e-5


class LayerScale(nn.Module):
    """x [B, C, T] times a factor for each channel (Touvron et al. 2021, arXiv:2103.17239)."""

    def __init__(self, channels: int, initial: float = 0.01) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None]


class FeedForward(nn.Module):
    """linear2(activation(linear1(x)))."""

    def __init__(self, channels: int, width: int, activation: str = "gelu") -> None:
        super().__init__()
        self.linear1 = Conv1d(channels, width, 1, bias=False)
        self.linear2 = Conv1d(width, channels, 1, bias=False, activation=Activation(activation))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x))

    def lower(self, plan: Plan) -> bool:
        """Its steps, as a streaming layer's."""
        return self.linear1.lower(plan) and self.linear2.lower(plan)


class TransformerLayer(nn.Module):
    """x + scale1(attention(norm1(x))), then the same with the feed-forward part.

    Args:
        attention: called with (x, step, cache)
        norm1, feed_forward, norm2: called with x
        scale1, scale2: of what is added; None adds it as it is
    """

    def __init__(
        self,
        attention: SelfAttention,
        norm1: nn.Module,
        feed_forward: nn.Module,
        norm2: nn.Module,
        scale1: nn.Module | None = None,
        scale2: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.attention, self.norm1, self.scale1 = attention, norm1, scale1
        self.feed_forward, self.norm2, self.scale2 = feed_forward, norm2, scale2

    def forward(self, x: Tensor, step: Step, cache: KeyValueCache | StillCache) -> Tensor:
        y = self.attention(self.norm1(x), step, cache)
        x = x + (y if self.scale1 is None else self.scale1(y))
        y = self.feed_forward(self.norm2(x))
        return x + (y if self.scale2 is None else self.scale2(y))

    def lower(self, plan: Plan, context: int, frequency: Tensor) -> bool:
        """Its steps, as a streaming layer's; False where a part is not one of those here."""
        attention, feed_forward = self.attention, self.feed_forward
        if type(attention) is not SelfAttention or type(feed_forward) is not FeedForward:
            return False
        return self._lower(
            plan, self.norm1, self.scale1, lambda: attention.lower(plan, context, frequency)
        ) and self._lower(plan, self.norm2, self.scale2, lambda: feed_forward.lower(plan))

    @staticmethod
    def _lower(
        plan: Plan, norm: nn.Module, scale: nn.Module | None, body: Callable[[], bool]
    ) -> bool:
        """The steps of x + scale(body(norm(x)))."""
        if not isinstance(norm, LayerNorm) or type(scale) not in (LayerScale, type(None)):
            return False
        plan.branch()
        held = plan.hold(0)
        parts = None if scale is None else (scale, "scale")
        return norm.lower(plan) and body() and plan.add(held, parts)


@dataclass
class TransformerState:
    """Each layer's keys and values.

    ``still``: they are to be tensors of one size from the first frame on, and so is ``position``,
    how many frames have passed; None: the caches know.
    """

    caches: list[KeyValueCache] | list[StillCache]
    position: Tensor | None = None
    still: bool = False

    def hold_still(self) -> None:
        """Of a fresh state; the first push makes the tensors."""
        self.still, self.caches = True, []


class Transformer(StreamingModule):
    """Layers over x [B, C, T], one after the other.

    Args:
        layers: all with heads of one size
        context, max_period: see ``TransformerConfig``
    """

    def __init__(
        self,
        layers: Sequence[TransformerLayer],
        context: int | None = None,
        max_period: float = 10000.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.context, self.max_period = context, max_period
        self._features = layers[0].attention.head_features
        self._frequency = frequencies(self._features, max_period)

    def init_state(self, batch_size: int) -> TransformerState:
        return TransformerState([KeyValueCache() for _ in self.layers])

    def push(self, x: Tensor, state: TransformerState, final: bool = False) -> Tensor:
        if x.shape[2] == 0:
            return x
        if state.still and state.position is None:
            self._begin_still(x, state)
        step = self._step(x, state, final)
        for layer, cache in zip(self.layers, state.caches, strict=True):
            x = layer(x, step, cache)
        if state.position is not None:
            state.position = state.position + x.shape[2]
        return x

    @property
    def not_capturable_because(self) -> str | None:  # type: ignore[override]
        return "its attention sees the whole signal" if self.context is None else None

    def _begin_still(self, x: Tensor, state: TransformerState) -> None:
        assert self.context is not None
        attention = cast(TransformerLayer, self.layers[0]).attention
        width = 2 * attention.sizes[1]  # of keys and values
        state.position = torch.zeros((), dtype=torch.int64, device=x.device)
        state.caches = [
            StillCache(x.new_zeros(len(x), self.context - 1, width)) for _ in self.layers
        ]

    def lower(self, plan: Plan, held: int = 0) -> bool:
        context = self.context
        if held or context is None or "oldest" in vars(self):  # one that was put in its place
            return False
        layers = cast(list[TransformerLayer], list(self.layers))
        return all(layer.lower(plan, context, self._frequency) for layer in layers)

    def leaves(self, state: TransformerState) -> Iterator[Leaf]:
        return iter(cast(list[KeyValueCache], state.caches))

    def oldest(self, position: Tensor) -> Tensor:
        """The first position that the frames at these positions [T] see."""
        if self.context is None:
            return torch.zeros_like(position)
        return (position - self.context + 1).clamp(min=0)

    def _step(self, x: Tensor, state: TransformerState, final: bool) -> Step:
        cache, frames = state.caches[0], x.shape[2]
        before = cache.passed if isinstance(cache, KeyValueCache) else cast(Tensor, state.position)
        position = torch.arange(frames, device=x.device) + before
        kept_from = before - len(cache)
        cos, sin = self._turns(x, before, position)
        keep = len(cache) + frames if self.context is None else self.context - 1
        return Step(
            first=self.oldest(position) - kept_from,
            last=position + 1 - kept_from,
            cos=cos,
            sin=sin,
            keep=None if final else keep,
        )

    def _turns(self, x: Tensor, before: int | Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, D / 2] of the positions [T], the first of them ``before``."""
        if isinstance(before, int) and serves_native("rotations", x):
            turns = ops.rotations(self._frequency, before, len(position))
            return turns[..., 0], turns[..., 1]
        angle = angles(position, self._features, self.max_period)
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


def transformer(channels: int, config: TransformerConfig) -> Transformer:
    """A transformer of plain parts."""
    return Transformer(
        [_layer(channels, config) for _ in range(config.layers)], config.context, config.max_period
    )


def _layer(channels: int, config: TransformerConfig) -> TransformerLayer:
    return TransformerLayer(
        SelfAttention(channels, config.heads, config.kv_heads, config.head_features),
        LayerNorm(channels, config.epsilon),
        FeedForward(channels, config.feed_forward, config.activation),
        LayerNorm(channels, config.epsilon),
        LayerScale(channels) if config.layer_scale else None,
        LayerScale(channels) if config.layer_scale else None,
    )
