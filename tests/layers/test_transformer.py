"""The streaming transformer: its meaning, its pushes, its memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fastcodec import ops
from fastcodec.layers.attention import KeyValueCache, angles, frequencies, rotated
from fastcodec.layers.transformer import (
    Transformer,
    TransformerConfig,
    TransformerLayer,
    TransformerState,
    transformer,
)

from .. import nets
from ..backends import needs_native, threads
from ._streaming import PLACES, assert_pushes_equal_forward, with_random_weights

pytestmark = pytest.mark.usefixtures("one_thread")

CHANNELS = 24
CONFIGS = {
    "all before": TransformerConfig(layers=2, heads=3, feed_forward=20, context=None),
    "window": TransformerConfig(layers=3, heads=2, feed_forward=31, context=5),
    "itself alone": TransformerConfig(layers=1, heads=1, feed_forward=8, context=1),
    "shared keys": TransformerConfig(
        layers=2, heads=4, kv_heads=2, head_features=10, feed_forward=16, activation="silu",
        context=12, layer_scale=False, max_period=500.0,
    ),
}  # fmt: skip


def make(name: str) -> Transformer:
    net = transformer(CHANNELS, CONFIGS[name])
    with_random_weights(net)
    return net


def by_definition(net: Transformer, config: TransformerConfig, x: Tensor) -> Tensor:
    """x [B, C, T] through the net in float64, by torch's own functions and complex numbers."""
    rows = x.double().mT
    length = rows.shape[1]
    distance = torch.arange(length)[:, None] - torch.arange(length)
    inside = (distance >= 0) & (distance < (config.context or length))
    for layer in net.layers:
        assert isinstance(layer, TransformerLayer)
        part = layer.attention
        y = normal(layer.norm1, rows) @ part.in_proj.weight[..., 0].double().T
        d, heads, kv_heads = part.head_features, part.heads, part.kv_heads
        split = y.unflatten(2, (heads + 2 * kv_heads, d)).transpose(1, 2)
        q, k, v = split.split((heads, kv_heads, kv_heads), dim=1)
        q, k = (turned(z, config.max_period) for z in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, inside, enable_gqa=True)
        y = y.transpose(1, 2).flatten(2) @ part.out_proj.weight[..., 0].double().T
        rows = rows + (y if layer.scale1 is None else y * layer.scale1.scale)
        y = normal(layer.norm2, rows) @ layer.feed_forward.linear1.weight[..., 0].double().T
        y = (F.gelu if config.activation == "gelu" else F.silu)(y)
        y = y @ layer.feed_forward.linear2.weight[..., 0].double().T
        rows = rows + (y if layer.scale2 is None else y * layer.scale2.scale)
    return rows.mT


def normal(norm: torch.nn.Module, rows: Tensor) -> Tensor:
    weight, bias = (p.double() for p in norm.parameters())
    return F.layer_norm(rows, weight.shape, weight, bias, 1e-5)


def turned(x: Tensor, max_period: float) -> Tensor:
    """x [B, H, T, D] with the features 2 i and 2 i + 1 as one complex number, turned."""
    d = x.shape[3]
    speed = max_period ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    angle = torch.arange(x.shape[2])[:, None] * speed
    pairs = torch.view_as_complex(x.unflatten(3, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(3)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_it_computes(name: str) -> None:
    net, x = make(name), nets.signal(2, CHANNELS, 40) * 10
    with torch.no_grad():
        got, want = net(x), by_definition(net, CONFIGS[name], x)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()


@given(st.sampled_from(list(CONFIGS)), st.integers(1, 60), st.integers(1, 3), PLACES, st.booleans())
def test_pushes(name: str, frames: int, batch: int, places: list[float], end: bool) -> None:
    assert_pushes_equal_forward(make(name), CHANNELS, frames, batch, places, end)


@needs_native
@torch.no_grad()
def test_threads_and_company_change_nothing() -> None:
    net, x = make("window"), nets.signal(3, CHANNELS, 400) * 10
    alone = net(x[1:2])
    with threads(2):
        assert torch.equal(net(x)[1:2], alone)


@torch.no_grad()
def test_it_sees_its_window_and_no_further() -> None:
    """A frame of 3 layers reaches 3 * 4 frames back; the first that does not is as if silent."""
    net, x = make("window"), nets.signal(1, CHANNELS, 40) * 10
    y = net(x)
    x[:, ::2, 10] += 1
    changed = (net(x) != y).any(dim=1)[0].nonzero()[:, 0].tolist()
    assert changed == list(range(10, 10 + 3 * 4 + 1))


@torch.no_grad()
def test_memory_is_bounded_by_the_window() -> None:
    net, x = make("window"), nets.signal(1, CHANNELS, 3)
    state = net.init_state(1)
    assert isinstance(state, TransformerState)
    for _ in range(50):
        net.push(x, state)
        held = [cache._rows for cache in state.caches if cache._rows is not None]
        assert len(held) == 3 and all(rows.shape[1] <= 2 * (4 + 3) for rows in held)


def test_the_cache_keeps_what_it_should() -> None:
    cache, rows = KeyValueCache(), torch.arange(100.0).view(1, 50, 2)
    for begin, end in [(0, 0), (0, 4), (4, 5), (5, 25), (25, 26), (26, 50)]:
        before = len(cache)
        got = cache.extend(rows[:, begin:end])
        assert torch.equal(got, rows[:, begin - before : end])
        cache.keep(6)
        assert len(cache) == min(6, end)


def test_turning_by_float32_angles() -> None:
    """As upstream rounds them; far from the start that is what decides."""
    position = torch.tensor([0, 1, 12345])
    angle = angles(position, 6, 10000.0)
    speed = torch.tensor([10000.0 ** (-2 * i / 6) for i in range(3)], dtype=torch.float32)
    assert torch.equal(angle, (position.float()[:, None] * speed).double())
    rows = torch.randn(2, 3, 12, generator=nets.generator(0))
    got = rotated(rows, angle.cos().float(), angle.sin().float(), 2)
    want = rows.unflatten(2, (2, 3, 2)).double()
    pairs = torch.view_as_complex(want.contiguous()) * torch.polar(
        torch.ones_like(angle), angle
    ).unsqueeze(1)
    torch.testing.assert_close(got.double(), torch.view_as_real(pairs).flatten(2))
    assert torch.equal(got[:, 0], rows[:, 0])


@needs_native
def test_the_native_rotations_are_torchs() -> None:
    """To the bit, but for a cosine that lies between two floats; hours into a stream, too."""
    frequency = frequencies(64, 10000.0)
    for position in (0, 7, 12345, 5_000_000):
        turns = ops.rotations(frequency, position, 9)
        angle = angles(torch.arange(position, position + 9), 64, 10000.0)
        want = torch.stack([angle.cos(), angle.sin()], dim=2)
        assert (turns.double() - want).abs().max() <= 2.0**-25
        assert torch.equal(turns[2:5], ops.rotations(frequency, position + 2, 3))


def test_gradients() -> None:
    """Of a whole signal, for the input and every parameter."""
    net = make("shared keys").double()
    x = nets.signal(1, CHANNELS, 5).double().requires_grad_()
    parameters = list(net.parameters())
    assert torch.autograd.gradcheck(lambda *_: net(x), (x, *parameters), fast_mode=True)
