"""Noise that does not depend on how it is asked for, and the block that adds it."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcodec.layers.noise import NoiseBlock, normal

from .. import nets
from ._streaming import PLACES, cut, pushed, with_random_weights


@given(st.integers(0, 2**40), st.integers(1, 700), st.integers(0, 5), st.integers(-9, 2**63))
def test_any_part_is_the_same(begin: int, count: int, stream: int, seed: int) -> None:
    whole = normal(seed, stream, begin, count)
    middle = count // 3
    assert torch.equal(whole[middle:], normal(seed, stream, begin + middle, count - middle))
    assert torch.equal(whole[:1], normal(seed, stream, begin, 1))


def test_distribution() -> None:
    """Moments, tails and independence of a long run, within five of their standard deviations."""
    count = 1 << 18
    x = normal(7, 0, 0, count).double()
    allowed = 5 / math.sqrt(count)
    assert abs(x.mean()) < allowed
    assert abs(x.square().mean() - 1) < allowed * math.sqrt(2)
    assert abs(x.pow(4).mean() - 3) < allowed * math.sqrt(96)
    assert abs((x.abs() < 1).double().mean() - 0.682689) < allowed / 2
    assert abs((x[1:] * x[:-1]).mean()) < allowed
    others = [normal(7, 1, 0, count), normal(8, 0, 0, count), normal(7, 0, 2**32, count)]
    assert all(abs((x * other).mean()) < allowed for other in others)


@given(PLACES)
def test_pushes_of_the_block(places: list[float]) -> None:
    layer = NoiseBlock(5)
    with_random_weights(layer)
    x = nets.signal(3, 5, 40)
    assert torch.equal(layer(x), x)
    layer.noise = lambda begin, count: normal(1, 2, begin, count)
    whole = pushed(layer, [x])
    assert torch.equal(pushed(layer, cut(x, places)), whole)
    torch.testing.assert_close(whole, x + normal(1, 2, 0, 40) * layer.linear(x))
    assert torch.equal(pushed(layer, [x[1:2]]), whole[1:2])
