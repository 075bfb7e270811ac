"""What stands before the first frame of a transposed convolution: zeros, or copies of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fastcodec.layers.conv import Activation, ConvTranspose1d
from fastcodec.layers.streaming import Sequential

from .. import nets
from ._streaming import PLACES, assert_pushes_equal_forward, pushed, with_random_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@st.composite
def replicating(draw: st.DrawFn, channels: int | None = None) -> ConvTranspose1d:
    """Any transposed convolution that copies the first frame, with any cut."""
    stride, longer = draw(st.integers(1, 5)), draw(st.integers(0, 9))
    layer = ConvTranspose1d(
        channels or draw(st.integers(1, 5)),
        channels or draw(st.integers(1, 4)),
        stride + longer,
        stride,
        bias=draw(st.booleans()),
        cut_left=draw(st.integers(0, longer)),
        cut_right=draw(st.integers(0, longer)),
        activation=draw(st.sampled_from([Activation(), Activation("leaky_relu", 0.3)])),
        first="replicate",
    )
    return with_random_weights(layer)  # type: ignore[return-value]


@given(replicating(), st.integers(1, 60), st.integers(1, 3), PLACES, st.booleans())
def test_pushes(
    layer: ConvTranspose1d, frames: int, batch: int, places: list[float], end: bool
) -> None:
    assert_pushes_equal_forward(layer, layer.weight.shape[0], frames, batch, places, end)


@given(replicating(2), replicating(2), st.integers(1, 30), PLACES, st.booleans())
def test_pushes_of_a_chain(
    one: ConvTranspose1d, two: ConvTranspose1d, frames: int, places: list[float], end: bool
) -> None:
    """The second layer's first frame may come pushes after the first layer's."""
    assert_pushes_equal_forward(Sequential(one, two), 2, frames, 2, places, end)


@pytest.mark.parametrize("first", ["zero", "replicate"])
@pytest.mark.parametrize(("kernel", "stride"), [(6, 3), (10, 5), (7, 3), (3, 3), (16, 5)])
@pytest.mark.parametrize("frames", [1, 2, 9])
@torch.no_grad()
def test_torch_after_padding(first: str, kernel: int, stride: int, frames: int) -> None:
    """torch's transposed convolution of the padded signal, from where the padding's share ends."""
    layer = ConvTranspose1d(4, 3, kernel, stride, cut_right=kernel - stride, first=first)  # type: ignore[arg-type]
    with_random_weights(layer)
    x = nets.signal(2, 4, frames)
    pads = {"zero": nn.ConstantPad1d((layer.context, 0), 0.0)}
    pads["replicate"] = nn.ReplicationPad1d((layer.context, 0))
    full = nn.functional.conv_transpose1d(pads[first](x), layer.weight, layer.bias, stride)
    want = full[..., layer.context * stride :][..., : frames * stride]
    torch.testing.assert_close(layer(x), want)


def test_a_signal_without_frames_has_no_first_one() -> None:
    layer = ConvTranspose1d(4, 3, 6, 3, cut_right=3, first="replicate")
    assert pushed(layer, [torch.zeros(1, 4, 0)], empty_end=True).shape == (1, 3, 0)


def test_an_empty_first_push_is_not_the_first_frame() -> None:
    layer = with_random_weights(ConvTranspose1d(2, 2, 4, 2, cut_right=2, first="replicate"))
    x = nets.signal(1, 2, 5)
    assert torch.equal(pushed(layer, [x[..., :0], x]), layer(x).detach())
