"""Pushes of any size, for the tests of layers."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from fastcodec import _native
from fastcodec.layers.streaming import StreamingModule

from .. import nets

# Where a signal is cut, as fractions; equal ones make an empty push.
PLACES = st.lists(st.floats(0, 1), max_size=8)


def cut(x: Tensor, places: list[float]) -> list[Tensor]:
    """x [B, C, T] in pieces, some of them empty."""
    edges = sorted(round(place * x.shape[2]) for place in places)
    pieces = zip([0, *edges], [*edges, x.shape[2]], strict=True)
    return [x[..., begin:end] for begin, end in pieces]


@torch.no_grad()
def pushed(layer: StreamingModule, pieces: list[Tensor], empty_end: bool = False) -> Tensor:
    """What the pushes of the pieces give; the last is final, or an empty one after it."""
    state = layer.init_state(len(pieces[0]))
    pieces = [*pieces, pieces[-1][..., :0]] if empty_end else pieces
    last = len(pieces) - 1
    return torch.cat([layer.push(x, state, final=i == last) for i, x in enumerate(pieces)], dim=2)


def assert_same(got: Tensor, want: Tensor) -> None:
    """Bit-identical with the native kernels; torch's own choose their algorithm by shape."""
    assert got.shape == want.shape
    if _native.cpu.why_not is None and got.dtype is torch.float32:
        assert torch.equal(got, want)
    else:
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def assert_pushes_equal_forward(
    layer: StreamingModule, channels: int, frames: int, batch: int, places: list[float], end: bool
) -> None:
    """The layer's ``forward`` and its pushes over the same signal."""
    x = nets.signal(batch, channels, frames) * 10
    before = x.clone()
    assert_same(pushed(layer, cut(x, places), empty_end=end), layer(x))
    assert torch.equal(x, before), "the layer has changed its input"


def with_random_weights(layer: StreamingModule) -> StreamingModule:
    """The layer with all parameters drawn anew, biases too."""
    g = nets.generator(7)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) / 2)
    return layer
