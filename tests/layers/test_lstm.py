"""The precision of an LSTM layer."""

from __future__ import annotations

import copy

import pytest
import torch

from fastcodec import ops
from fastcodec.layers.conv import set_precision
from fastcodec.layers.lstm import BiLstm, Lstm

from .. import nets
from ..backends import needs_native
from ._streaming import assert_same, cut, pushed

pytestmark = pytest.mark.usefixtures("one_thread")


@needs_native
@torch.no_grad()
def test_precision_can_be_changed_at_any_time() -> None:
    layer, x = Lstm(33, 2), nets.signal(2, 33, 40) * 10
    zeros = x.new_zeros(2, 2, 33)
    weights = (layer.weight_ih, layer.weight_hh, layer.bias_ih, layer.bias_hh)
    for precision in (0, 2, 1, 2, 0):
        layer.precision = precision
        want, _, _ = ops.lstm(x, zeros, zeros, *weights, None, True, precision)
        assert torch.equal(layer(x), want)
        assert torch.equal(copy.deepcopy(layer)(x), want)
        assert_same(pushed(layer, cut(x, [0.1, 0.1, 0.8])), want)
    layer.weight_hh.mul_(2)
    changed, _, _ = ops.lstm(x, zeros, zeros, *weights, None, True, 0)
    assert torch.equal(layer(x), changed) and not torch.equal(changed, want)


@needs_native
@torch.no_grad()
def test_both_directions_and_a_whole_net() -> None:
    net = torch.nn.ModuleList([Lstm(32, 1), BiLstm(32, 2), Lstm(32, 1)])
    x = nets.signal(3, 32, 20)
    exact = [layer(x) for layer in net]
    set_precision(net, "medium", but=net[2])
    for layer, want in zip(net[:2], exact, strict=False):
        y = layer(x)
        assert 0 < (y - want).norm() < 0.02 * want.norm()
        assert torch.equal(layer(x[1:2])[0], y[1])
    assert torch.equal(net[2](x), exact[2])
    set_precision(net, "highest", but=net[2])
    assert all(torch.equal(layer(x), want) for layer, want in zip(net, exact, strict=True))
