"""A residual unit in one kernel gives what its two convolutions give, whole and in pieces."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from fastcodec import ops, use_backend
from fastcodec.codecs.dac import Drop
from fastcodec.layers.conv import ELU, Activation, Conv1d
from fastcodec.layers.residual import ResidualUnit
from fastcodec.layers.streaming import Residual

from .. import nets
from ._streaming import cut, pushed, with_random_weights

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        torch.cuda.is_available() or ops.residual_unit.why_not("triton") is not None,
        reason="needs triton, interpreted on the CPU",
    ),
]
SNAKE = Activation("snake")


def unit(kind: str) -> ResidualUnit:
    """Centred as DAC's, causal as EnCodec's, and DAC's without padding."""
    if kind == "causal":
        first = Conv1d(6, 3, 3, left=2, padding="reflect", fill_last=True, activation=ELU)
        return prepared(ResidualUnit(first, Conv1d(3, 6, 1, activation=ELU)))
    pad = 6 if kind == "centred" else 0
    first = Conv1d(4, 4, 7, dilation=2, left=pad, right=pad, activation=SNAKE)
    skip = None if pad else Drop(6)
    return prepared(ResidualUnit(first, Conv1d(4, 4, 1, activation=SNAKE), skip, 6))


def prepared(layer: ResidualUnit) -> ResidualUnit:
    with_random_weights(layer)
    for convolution in layer.body:
        if convolution.alpha is not None:
            convolution.alpha.data.abs_().add_(0.2)
    return layer.requires_grad_(False)


KINDS = ["centred", "causal", "unpadded"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [[], [0.1, 0.1, 0.5], [0.0, 0.3, 0.31, 0.9]])
def test_pushes_by_one_kernel(kind: str, places: list[float]) -> None:
    layer = unit(kind)
    x = nets.signal(2, layer.body[0].channels_in, 37) * 10
    want = layer(x)
    with use_backend("triton"), mock.patch.object(Conv1d, "_convolve", side_effect=AssertionError):
        whole = layer(x)
        assert torch.equal(pushed(layer, cut(x, places), empty_end=True), whole)
    torch.testing.assert_close(whole, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_may_change_over(kind: str) -> None:
    layer = unit(kind)
    x = nets.signal(1, layer.body[0].channels_in, 50) * 10
    want, state, parts = layer(x), layer.init_state(1), []
    for i, piece in enumerate(x.split(11, dim=2)):
        with use_backend("triton" if i % 2 else None):
            parts.append(layer.push(piece, state, final=i == 4))
    torch.testing.assert_close(torch.cat(parts, dim=2), want, rtol=1e-5, atol=1e-5)


def test_on_the_cpu_it_is_as_any_other() -> None:
    layer = unit("centred")
    x = nets.signal(2, 4, 40)
    plain = Residual(list(layer.body))
    with mock.patch.object(ops.Op, "__call__", autospec=True, side_effect=ops.Op.__call__) as call:
        got = layer(x)
    assert "residual_unit" not in {given.args[0].name for given in call.call_args_list}
    assert torch.equal(got, plain(x))
    assert layer.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("change", ["precision", "activation"])
def test_unlike_convolutions_stay_two(change: str) -> None:
    layer = unit("causal")
    setattr(layer.body[1], change, 0 if change == "activation" else 1)
    with use_backend("triton"):
        assert not layer._may_fuse(nets.signal(1, 6, 9))
