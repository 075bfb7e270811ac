"""The int8 layers against XNNPACK's formulas in integers, and the order of sums they count on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fastcodec.errors import WeightsError
from fastcodec.layers.conv import NONE, Activation, Conv1d
from fastcodec.layers.int8 import (
    Add,
    Dequantize,
    Int8Conv1d,
    Int8OverlapAdd,
    LeakyRelu,
    Quantize,
    Scale,
)
from fastcodec.layers.overlap import FloatOverlapAdd

from .. import nets
from ..backends import needs_native
from ._streaming import assert_pushes_equal_forward

SCALES = st.builds(Scale, st.floats(0.125, 4.0, width=32), st.integers(-128, 127))
PLACES = st.lists(st.floats(0, 1), max_size=6)
STORED = np.arange(-128, 128)
LEAKY = Activation("leaky_relu", 0.3)


@given(source=SCALES, to=SCALES)
def test_leaky_relu(source: Scale, to: Scale) -> None:
    """xnn_qs8_vlrelu_ukernel__avx2_u32: mulhrs of 16 bits, then two saturations."""
    positive = np.float32(source.scale) / np.float32(to.scale)
    multipliers = [np.rint(np.float32(256) * positive), np.rint(256 * (positive * np.float32(0.3)))]
    chosen = np.where(source.zero_point < STORED, *multipliers).astype(np.int64)
    product = ((source.zero_point - STORED) << 7) * -chosen
    stored = np.clip((((product >> 14) + 1) >> 1) + to.zero_point, -128, 127)
    ours = LeakyRelu(source, to, 0.3)(_centred(source))
    np.testing.assert_array_equal(ours[0, 0], stored - to.zero_point)


@given(a=SCALES, b=SCALES, to=SCALES)
def test_add(a: Scale, b: Scale, to: Scale) -> None:
    """xnn_qs8_vadd_minmax_ukernel and xnn_init_qs8_add_minmax_scalar_params, all pairs."""
    ratios = [float(np.float32(x.scale) / np.float32(to.scale)) for x in (a, b)]
    shift = 20 - math.floor(math.log2(max(ratios)))
    times_a, times_b = (int(np.rint(math.ldexp(ratio, shift))) for ratio in ratios)
    x, y = np.meshgrid(STORED, STORED)
    bias = (1 << (shift - 1)) - times_a * a.zero_point - times_b * b.zero_point
    stored = np.clip(((bias + x * times_a + y * times_b) >> shift) + to.zero_point, -128, 127)
    ours = Add(a, b, to)(
        torch.tensor(x - a.zero_point, dtype=torch.float32),
        torch.tensor(y - b.zero_point, dtype=torch.float32),
    )
    np.testing.assert_array_equal(ours, stored - to.zero_point)


@given(scale=SCALES)
def test_quantize_undoes_dequantize(scale: Scale) -> None:
    centred = _centred(scale)
    assert torch.equal(Quantize(scale)(Dequantize(scale)(centred)), centred)


def test_quantize_rounds_half_to_even_and_saturates() -> None:
    scale = Scale(0.5, 20)
    x = torch.tensor([[[0.25, 0.75, -0.25, 1e30, -1e30, 53.25]]])
    assert Quantize(scale)(x)[0, 0].tolist() == [0, 2, 0, 107, -148, 106]


@given(
    groups=st.sampled_from([1, 2, 4]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 3]),
    places=PLACES,
)
def test_int8_conv1d(groups: int, stride: int, dilation: int, places: list[float]) -> None:
    g = nets.generator(1)
    source, to = Scale(0.5, -7), Scale(1.7, 12)
    weight = torch.randint(-127, 128, (8, 8 // groups, 4), generator=g).float()
    bias = torch.randint(-5000, 5000, (8,), generator=g).float()
    scales = torch.rand(8, generator=g) / 100 + 1e-4
    layer = Int8Conv1d(weight, bias, scales, source, to, stride, dilation, groups)
    x = torch.randint(source.low, source.high + 1, (2, 8, 40), generator=g).float()
    padded = F.pad(x, (3 * dilation + 1 - stride, 0)).double()
    sums = F.conv1d(padded, weight.double(), bias.double(), stride, 0, dilation, groups)
    multiplier = (torch.tensor(source.scale) * scales) / torch.tensor(to.scale)
    want = (sums.float() * multiplier[:, None]).round().clamp(to.low, to.high)
    assert torch.equal(layer(x), want)
    assert_pushes_equal_forward(layer, 8, 40, 2, places, end=False)


def test_refuses_sums_beyond_float32() -> None:
    weight, scale = torch.full((1, 1100, 1), 127.0), Scale(1.0, 0)
    with pytest.raises(WeightsError, match="may reach 17881600"):
        Int8Conv1d(weight, torch.zeros(1), torch.ones(1), scale, scale)


def test_refuses_scales_that_upstream_cannot_hold() -> None:
    with pytest.raises(WeightsError, match="too far apart"):
        LeakyRelu(Scale(1e-4, 0), Scale(1.0, 0), 0.3)
    with pytest.raises(WeightsError, match="too far apart"):
        Add(Scale(1.0, 0), Scale(1e-4, 0), Scale(1.0, 0))


@needs_native
@pytest.mark.parametrize(("groups", "stride", "activation"), [(1, 1, NONE), (2, 3, LEAKY)])
def test_float_conv1d_adds_in_order(groups: int, stride: int, activation: Activation) -> None:
    """Bias first, then tap by tap and channel by channel, each product added by fma."""
    g = nets.generator(2)
    weight, bias = torch.randn(6, 8 // groups, 4, generator=g), torch.randn(6, generator=g)
    layer = Conv1d(8, 6, 4, stride, 1, groups, left=4 - stride, activation=activation)
    x = nets.signal(1, 8, 30)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        got = layer(x)
    padded = F.pad(x if activation is NONE else F.leaky_relu(x, 0.3), (4 - stride, 0))
    sums = bias[:, None].expand(6, got.shape[2])
    for tap in range(4):
        frames = padded[0, :, tap : tap + (got.shape[2] - 1) * stride + 1 : stride]
        for channel in range(8 // groups):
            rows = frames.view(groups, -1, got.shape[2])[:, channel].repeat_interleave(
                6 // groups, 0
            )
            # A product of two float32 is exact in float64: this is an fma but for double rounding.
            products = rows.double() * weight[:, channel, tap, None].double()
            sums = (sums.double() + products).float()
    assert torch.equal(got[0], sums)


@given(batch=st.integers(1, 3), codec_frames=st.integers(1, 6), cut=st.integers(0, 6))
def test_float_overlap_add(batch: int, codec_frames: int, cut: int) -> None:
    g = nets.generator(3)
    weight, bias = torch.randn(8, 3, 10, generator=g) / 5, torch.randn(3, generator=g)
    layer = FloatOverlapAdd(weight, bias, stride=5, frame=4, activation=LEAKY)
    x = nets.signal(batch, 8, 4 * codec_frames)
    with torch.no_grad():
        y = layer(x)
        state, cut = layer.init_state(batch), 4 * min(cut, codec_frames)
        pieces = [layer.push(x[..., :cut], state), layer.push(x[..., cut:], state, final=True)]
    want = F.conv_transpose1d(F.leaky_relu(x, 0.3), weight, bias, 5)[..., : y.shape[2]]
    torch.testing.assert_close(y, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(pieces, dim=2), y, rtol=1e-6, atol=1e-6)


@given(places=PLACES, groups=st.sampled_from([1, 2]))
def test_int8_overlap_add(places: list[float], groups: int) -> None:
    g = nets.generator(4)
    source, to = Scale(0.1, -60), [Scale(0.14, 12), Scale(0.15, 17)][:groups]
    weight = torch.randint(-9, 10, (8, 6 // groups, 4), generator=g).float()
    bias = torch.randint(-500, 500, (6,), generator=g).float()
    scales = torch.full((6,), 0.01)
    real_bias = bias * 0.001
    layer = Int8OverlapAdd(weight, bias, scales, source, to, real_bias, stride=2, frame=1)
    x = torch.randint(source.low, source.high + 1, (2, 8, 9), generator=g).float()
    with torch.no_grad():
        y = layer(x)
    want = F.conv_transpose1d(x * 0.1, weight * 0.01, real_bias, 2, groups=groups)[..., :18]
    steps = torch.tensor([scale.scale for scale in to]).repeat_interleave(6 // groups)
    assert ((y - want).abs() <= 1.01 * steps[:, None]).all()
    assert_pushes_equal_forward(layer, 8, 9, 2, places, end=False)


def _centred(scale: Scale) -> torch.Tensor:
    """Every value that an int8 tensor of this scale can hold."""
    return torch.tensor(STORED - scale.zero_point, dtype=torch.float32)[None, None]
