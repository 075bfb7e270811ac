"""What every layer offers: ``forward`` over a whole signal, ``push`` over its pieces.

``push(x, state, final=False)`` takes any number of frames (none, too) and returns what they
complete; ``final=True`` says that no more will come, adds the padding of the end and returns the
rest. ``forward`` is one final push into a fresh state, so both are the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn


class StreamingModule(nn.Module):
    """A layer over [B, C, T] signals that can be fed in pieces.

    ``lookahead`` is how many of its input frames after the current one an output frame depends on,
    and ``rate`` how many output frames an input frame makes (a fraction for a strided layer).
    """

    lookahead: float = 0
    rate: float = 1
    not_streamable_because: str | None = None

    def init_state(self, batch_size: int) -> Any:
        """The state before the first frame."""
        return None

    def push(self, x: Tensor, state: Any, final: bool = False) -> Tensor:
        """The frames of the output that x completes.

        Args:
            x: [B, C_in, T] float, T >= 0
            state: from ``init_state``, updated in place
            final: no more input will come
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The output of a whole signal [B, C_in, T]; differentiable."""
        return self.push(x, self.init_state(x.shape[0]), final=True)


def streaming(layers: nn.ModuleList) -> list[StreamingModule]:
    """The layers of a list under their true type."""
    return cast(list[StreamingModule], list(layers))


class Sequential(StreamingModule):
    """Layers one after the other."""

    def __init__(self, *layers: StreamingModule) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        reasons = [layer.not_streamable_because for layer in layers if layer.not_streamable_because]
        self.not_streamable_because = reasons[0] if reasons else None
        self.rate, self.lookahead = 1.0, 0.0
        for layer in layers:
            self.lookahead += layer.lookahead / self.rate
            self.rate *= layer.rate

    def init_state(self, batch_size: int) -> list[Any]:
        return [layer.init_state(batch_size) for layer in streaming(self.layers)]

    def push(self, x: Tensor, state: list[Any], final: bool = False) -> Tensor:
        for layer, layer_state in zip(streaming(self.layers), state, strict=True):
            x = layer.push(x, layer_state, final)
        return x


@dataclass
class Held:
    """Frames that wait for another path to catch up, [B, T, C] in memory."""

    frames: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Append x [B, C, T]."""
        self.frames = append(self.frames, x)

    def take(self, count: int) -> Tensor:
        """Remove and return the first ``count`` frames as [B, C, count]."""
        assert self.frames is not None and self.frames.shape[1] >= count
        taken, self.frames = self.frames[:, :count], self.frames[:, count:]
        return taken.transpose(1, 2)


def append(before: Tensor | None, x: Tensor) -> Tensor:
    """x [B, C, T] put after ``before`` [B, T', C] as [B, T' + T, C], without a transposition."""
    frames = x.transpose(1, 2)
    if before is None or before.shape[1] == 0:
        return frames
    return torch.cat([before, frames], dim=1) if x.shape[2] else before


@dataclass
class ResidualState:
    """States of the two paths and the skip path's frames that the body has not reached."""

    body: list[Any]
    skip: Any
    held: Held = field(default_factory=Held)


class Residual(StreamingModule):
    """skip(x) + body(x); the last layer of the body adds the skip path to its own result.

    Args:
        body: layers of one rate in all; the last must offer ``push(x, state, final, residual)``
        skip: a layer without look-ahead, or None for x itself
    """

    def __init__(
        self, body: Sequence[StreamingModule], skip: StreamingModule | None = None
    ) -> None:
        super().__init__()
        self.body = nn.ModuleList(body)
        self.skip = skip
        chain = Sequential(*body)
        self.lookahead, self.not_streamable_because = chain.lookahead, chain.not_streamable_because

    def init_state(self, batch_size: int) -> ResidualState:
        body = [layer.init_state(batch_size) for layer in streaming(self.body)]
        return ResidualState(body, self.skip.init_state(batch_size) if self.skip else None)

    def push(self, x: Tensor, state: ResidualState, final: bool = False) -> Tensor:
        state.held.add(self.skip.push(x, state.skip, final) if self.skip else x)
        *inner, last = zip(streaming(self.body), state.body, strict=True)
        for layer, layer_state in inner:
            x = layer.push(x, layer_state, final)
        layer, layer_state = last
        return cast(Any, layer).push(x, layer_state, final, state.held)
