"""Streaming: the pushes of a signal, however cut, give what ``forward`` gives of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastcodec.layers.conv import Activation, Conv1d, ConvTranspose1d
from fastcodec.layers.lstm import Lstm
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.streaming import Residual, Sequential, StreamingModule

from .. import nets
from ._streaming import PLACES, assert_pushes_equal_forward, pushed, with_random_weights

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES, BATCH = st.integers(1, 60), st.integers(1, 3)
ACTIVATIONS = st.sampled_from(
    [Activation(), Activation("elu"), Activation("leaky_relu", 0.3), Activation("snake")]
)


@st.composite
def convolutions(draw: st.DrawFn, channels: int | None = None) -> Conv1d:
    """Any convolution: stride, dilation, groups, padding on both sides, full last window or not."""
    groups = draw(st.sampled_from([1, 1, 2]))
    channels_in = channels or groups * draw(st.integers(1, 4))
    groups = 1 if channels_in % groups else groups
    kernel, dilation = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    span = (kernel - 1) * dilation + 1
    layer = Conv1d(
        channels_in,
        groups * draw(st.integers(1, 4)),
        kernel,
        stride=draw(st.integers(1, 5)),
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        left=draw(st.integers(0, span + 1)),
        right=draw(st.integers(0, span + 1)),
        padding=draw(st.sampled_from(["zero", "reflect", "replicate"])),
        fill_last=draw(st.booleans()),
        activation=draw(ACTIVATIONS),
    )
    return with_random_weights(layer)  # type: ignore[return-value]


@st.composite
def transposed_convolutions(draw: st.DrawFn, channels: int | None = None) -> ConvTranspose1d:
    """Any transposed convolution: kernel over or equal to its stride, cut on both sides."""
    channels_in = channels or draw(st.integers(1, 5))
    stride, longer = draw(st.integers(1, 5)), draw(st.integers(0, 6))
    layer = ConvTranspose1d(
        channels_in,
        draw(st.integers(1, 4)),
        stride + longer,
        stride,
        bias=draw(st.booleans()),
        cut_left=draw(st.integers(0, stride + longer)),
        cut_right=draw(st.integers(0, longer)),
        activation=draw(ACTIVATIONS),
    )
    return with_random_weights(layer)  # type: ignore[return-value]


@given(convolutions(), FRAMES, BATCH, PLACES, st.booleans())
def test_conv1d(layer: Conv1d, frames: int, batch: int, places: list[float], end: bool) -> None:
    channels = layer.weight.shape[1] * layer.groups
    assert_pushes_equal_forward(layer, channels, frames, batch, places, end)


@given(transposed_convolutions(), FRAMES, BATCH, PLACES, st.booleans())
def test_conv_transpose1d(
    layer: ConvTranspose1d, frames: int, batch: int, places: list[float], end: bool
) -> None:
    assert_pushes_equal_forward(layer, layer.weight.shape[0], frames, batch, places, end)


@pytest.mark.parametrize("cut_right", [-1, 3])
def test_a_transposed_convolution_cannot_take_samples_back(cut_right: int) -> None:
    with pytest.raises(ValueError, match="cut_right must be 0 to kernel - stride = 2, got"):
        ConvTranspose1d(1, 1, 5, 3, cut_right=cut_right)


@given(st.integers(1, 20), st.integers(1, 3), FRAMES, BATCH, PLACES, st.booleans())
def test_lstm(
    channels: int, layers: int, frames: int, batch: int, places: list[float], end: bool
) -> None:
    layer = with_random_weights(Lstm(channels, layers))
    assert_pushes_equal_forward(layer, channels, frames, batch, places, end)


@st.composite
def residuals(draw: st.DrawFn, channels: int = 3) -> Residual:
    """Units as in SEANet and Lyra: a body that keeps the length, causal or not; a skip path."""
    body: list[StreamingModule] = []
    hidden = draw(st.integers(1, 4))
    widths = [channels, *[hidden] * draw(st.integers(0, 2)), channels]
    for c_in, c_out in zip(widths, widths[1:], strict=False):
        total = (draw(st.integers(1, 5)) - 1) * (dilation := draw(st.integers(1, 3)))
        right = draw(st.integers(0, total))
        padding = draw(st.sampled_from(["zero", "reflect", "replicate"]))
        body.append(
            Conv1d(
                c_in,
                c_out,
                total // dilation + 1,
                dilation=dilation,
                left=total - right,
                right=right,
                padding=padding,
                activation=draw(ACTIVATIONS),
            )  # fmt: skip
        )
    skip = draw(st.booleans())
    unit = Residual(body, Sequential(Conv1d(channels, channels, 1)) if skip else None)
    return with_random_weights(unit)  # type: ignore[return-value]


@given(residuals(), FRAMES, BATCH, PLACES, st.booleans())
def test_residual(layer: Residual, frames: int, batch: int, places: list[float], end: bool) -> None:
    assert_pushes_equal_forward(layer, 3, frames, batch, places, end)


@st.composite
def chains(draw: st.DrawFn) -> Sequential:
    """Layers of all kinds after one another, up and down in rate."""
    layers: list[StreamingModule] = []
    channels = 2
    for kind in draw(st.lists(st.sampled_from("clrt"), min_size=1, max_size=5)):
        layer: Any
        if kind == "l":
            layer = with_random_weights(Lstm(channels, 1))
        elif kind == "r":
            layer = draw(residuals(channels))
        else:
            layer = draw((convolutions if kind == "c" else transposed_convolutions)(channels))
            channels = layer.channels_out
        layers.append(layer)
    return Sequential(*layers)


@given(chains(), st.integers(30, 90), BATCH, PLACES, st.booleans())
def test_sequential(
    layer: Sequential, frames: int, batch: int, places: list[float], end: bool
) -> None:
    assert_pushes_equal_forward(layer, 2, frames, batch, places, end)


@given(convolutions(), st.integers(1, 40))
def test_what_is_kept_between_pushes_is_bounded(layer: Conv1d, frames: int) -> None:
    """A state that grew with the signal would not be a stream."""
    state = layer.init_state(1)
    x = nets.signal(1, layer.weight.shape[1] * layer.groups, frames)
    with torch.no_grad():
        for _ in range(12):
            layer.push(x, state)
    kept = 0 if state.frames is None else state.frames.shape[1]
    assert kept <= layer.span + layer.stride + layer.margin + layer.head + layer.left


def test_group_norm_does_not_stream() -> None:
    layer, x = GroupNorm(4), nets.signal(2, 4, 30)
    reason = "group normalisation takes its statistics over the whole segment"
    with pytest.raises(ValueError, match=reason):
        layer.push(x, layer.init_state(2))
    state = layer.init_state(2)
    whole = layer.push(x, state, final=True)
    assert torch.equal(whole, layer(x))
    with pytest.raises(ValueError, match=reason):
        layer.push(x, state, final=True)
    chain = Sequential(Conv1d(4, 4, 1), layer)
    assert chain.not_streamable_because == reason
    assert Residual([Conv1d(4, 4, 3, left=2), layer]).not_streamable_because == reason
    with pytest.raises(ValueError, match=reason):
        pushed(chain, [x[..., :9], x[..., 9:]])


def test_a_norm_inside_a_transposed_convolution_does_not_stream() -> None:
    layer = ConvTranspose1d(4, 3, 4, 2, cut_left=1, cut_right=1, norm=GroupNorm(3))
    x = nets.signal(1, 4, 10)
    assert layer(x).shape == (1, 3, 20)
    with pytest.raises(ValueError, match="group normalisation"):
        layer.push(x, layer.init_state(1))
    with pytest.raises(ValueError, match="group normalisation"):
        pushed(layer, [x[..., :4], x[..., 4:]])


@given(convolutions(), st.integers(1, 40))
def test_gradients_flow_through_forward(layer: Conv1d, frames: int) -> None:
    x = nets.signal(1, layer.weight.shape[1] * layer.groups, frames).requires_grad_()
    y = layer(x)
    if y.numel():
        y.sum().backward()
        assert x.grad is not None and layer.weight.grad is not None
