"""The attention layers beside local-attention 1.11.2 and over pieces; what torch would do alone."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastcodec.layers.local_attention import (
    GegluFeedForward,
    LookBackAttention,
    WindowAttention,
    angles,
    turned,
)

from .. import nets
from ._streaming import PLACES, assert_pushes_equal_forward, with_random_weights

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW, HEADS, FEATURES, CHANNELS = 6, 3, 8, 20


def look_back(base: int | None = None) -> LookBackAttention:
    layer = LookBackAttention(CHANNELS, WINDOW, HEADS, FEATURES, base)
    with_random_weights(layer)
    return layer


@pytest.mark.parametrize("base", [None, 5])
@pytest.mark.parametrize("frames", [1, WINDOW, 5 * WINDOW + 2])
@torch.no_grad()
def test_look_back_is_the_published_layer(base: int | None, frames: int) -> None:
    transformer = importlib.import_module("local_attention.transformer")
    ours = look_back(base)
    theirs = transformer.LocalMHA(
        dim=CHANNELS, window_size=WINDOW, dim_head=FEATURES, heads=HEADS, causal=True,
        prenorm=True, qk_rmsnorm=True, use_xpos=True, xpos_scale_base=base,
        gate_values_per_head=True, use_rotary_pos_emb=True,
    )  # fmt: skip
    load(theirs, ours, {"to_v_gate": "to_v_gate.0"})
    x = nets.signal(2, frames, CHANNELS) * 10
    torch.testing.assert_close(ours(x.mT).mT, theirs(x) + x, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_feed_forward_is_the_published_layer() -> None:
    transformer = importlib.import_module("local_attention.transformer")
    theirs = transformer.FeedForward(dim=CHANNELS)
    ours = GegluFeedForward(CHANNELS, theirs[4].in_features)
    with_random_weights(ours)
    load(theirs, ours, {"norm": "0", "up": "1", "down": "4"})
    x = nets.signal(2, 7, CHANNELS) * 10
    torch.testing.assert_close(ours(x.mT).mT, theirs(x) + x, rtol=1e-5, atol=1e-5)


def load(theirs: Any, ours: torch.nn.Module, names: dict[str, str]) -> None:
    """Our weights in the published layer, whose constants stay."""
    state = theirs.state_dict()
    for name, value in ours.state_dict().items():
        path, _, leaf = name.rpartition(".")
        full = f"{names.get(path, path)}.{leaf}" if path else leaf
        state[full] = value.squeeze(2) if value.ndim == 3 else value
    theirs.load_state_dict(state)


@torch.no_grad()
def test_windows_do_not_see_each_other() -> None:
    """And within one every frame sees all: plain softmax attention, window by window."""
    layer = WindowAttention(CHANNELS, WINDOW, head_features=4)
    with_random_weights(layer)
    x = nets.signal(2, CHANNELS, 2 * WINDOW + 3) * 10
    want = torch.cat([x_ + plain(layer, x_) for x_ in x.split(WINDOW, dim=2)], dim=2)
    torch.testing.assert_close(layer(x), want, rtol=1e-5, atol=1e-5)


def plain(layer: WindowAttention, x: Tensor) -> Tensor:
    """The layer's attention over all of x [B, C, T], by torch."""
    frames, features = x.shape[2], CHANNELS // layer.heads
    q, k, v = layer.to_qkv(layer.norm(x)).mT.chunk(3, dim=2)
    angle = angles(frames, features)
    cos, sin = angle.cos().float(), angle.sin().float()
    q, k = turned(q, cos, sin, layer.heads), turned(k, cos, sin, layer.heads)
    q, k, v = (y.unflatten(2, (layer.heads, features)).transpose(1, 2) for y in (q, k, v))
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    out: Tensor = layer.to_out(y.transpose(1, 2).flatten(2).mT)
    return out


@given(st.integers(1, 5 * WINDOW), st.integers(1, 2), PLACES, st.booleans())
def test_pushes_of_window_attention(
    frames: int, batch: int, places: list[float], end: bool
) -> None:
    layer = with_random_weights(WindowAttention(CHANNELS, WINDOW, head_features=10))
    assert_pushes_equal_forward(layer, CHANNELS, frames, batch, places, end)


@given(st.integers(1, 5 * WINDOW), st.integers(1, 2), PLACES, st.booleans())
def test_pushes_of_look_back(frames: int, batch: int, places: list[float], end: bool) -> None:
    assert_pushes_equal_forward(look_back(), CHANNELS, frames, batch, places, end)


@torch.no_grad()
def test_look_back_reaches_so_far_and_no_farther() -> None:
    layer, frames, changed = look_back(), 4 * WINDOW, 5
    x = nets.signal(1, CHANNELS, frames) * 10
    y = layer(x)
    x[:, ::2, changed] += 1.0
    differs = (layer(x) != y).any(dim=1)[0].nonzero()[:, 0].tolist()
    assert differs == list(range(changed, changed + WINDOW + 1))


@torch.no_grad()
def test_look_back_remembers_two_windows_at_most() -> None:
    layer = look_back()
    state = layer.init_state(1)
    for _ in range(50):
        layer.push(nets.signal(1, CHANNELS, WINDOW - 1), state)
        assert state.early is not None and state.early.shape[1] < 2 * WINDOW
