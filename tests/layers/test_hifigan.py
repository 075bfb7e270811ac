"""What HiFi-Codec and SpeechTokenizer are made of: bidirectional LSTM, grouped norm, residual
blocks. Against torch's own, in float64 on the reference backend, and in pieces."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastcodec.layers.hifigan import ResBlock
from fastcodec.layers.lstm import BiLstm
from fastcodec.layers.norm import GroupNorm

from .. import nets
from ..backends import needs_native, threads
from ._streaming import PLACES, assert_pushes_equal_forward, cut, pushed, with_random_weights

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES, BATCH = st.integers(1, 70), st.integers(1, 3)


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@settings(max_examples=30)
@torch.no_grad()
@given(st.integers(1, 9), st.integers(1, 3), FRAMES, BATCH)
def test_bidirectional_lstm(channels: int, layers: int, frames: int, batch: int) -> None:
    ours = with_random_weights(BiLstm(channels, layers)).double()
    theirs = torch.nn.LSTM(channels, channels, layers, bidirectional=True).double()
    theirs.load_state_dict(
        {
            name.removeprefix("."): value
            for own, both in ours.state_dict().items()
            for name, value in zip(ours.stacked_names("", own), both, strict=True)  # type: ignore[operator]
        }
    )
    x = nets.signal(batch, channels, frames).double() * 10
    rows = x.permute(2, 0, 1)
    close(ours(x), (theirs(rows)[0] + rows.repeat(1, 1, 2)).permute(1, 2, 0))


@needs_native
@settings(max_examples=30)
@given(st.sampled_from([1, 5, 16, 40]), FRAMES, PLACES, st.booleans())
def test_bidirectional_lstm_of_any_rows_and_pieces(
    channels: int, frames: int, places: list[float], end: bool
) -> None:
    layer = with_random_weights(BiLstm(channels, 2))
    x = nets.signal(5, channels, frames) * 10
    with torch.no_grad():
        whole = layer(x)
        for n_threads in (1, 2):
            with threads(n_threads):
                for rows in ([0], [3, 1], [4, 3, 2, 1, 0]):
                    assert torch.equal(layer(x[rows]), whole[rows])
    assert torch.equal(pushed(layer, cut(x, places), empty_end=end), whole)


@torch.no_grad()
@given(st.integers(1, 4), st.integers(2, 5), FRAMES, BATCH)
def test_group_norm_of_groups(groups: int, width: int, frames: int, batch: int) -> None:
    layer = with_random_weights(GroupNorm(groups * width, 1e-6, groups)).double()
    x = nets.signal(batch, groups * width, frames).double()
    want = F.group_norm(x, groups, layer.weight, layer.bias, 1e-6)  # type: ignore[arg-type]
    close(layer(x), want)


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_residual_block(causal: bool, second: bool) -> None:
    """Written out with torch's convolutions, and in pieces."""
    block = with_random_weights(ResBlock(6, 5, (1, 3), causal, groups=2, second=second))
    x = nets.signal(2, 6, 40)
    convs, want = dict(block.convolutions()), x.double()  # type: ignore[operator]
    assert list(convs) == (
        ["convs1.0", "convs2.0", "convs1.1", "convs2.1"] if second else ["convs.0", "convs.1"]
    )
    for i, dilation in enumerate((1, 3)):
        y = want
        names = (f"convs1.{i}", f"convs2.{i}") if second else (f"convs.{i}",)
        for name, d in zip(names, (dilation, 1), strict=False):
            pad = (4 * d, 0) if causal else (2 * d, 2 * d)
            weight, bias = convs[name].weight.double(), convs[name].bias.double()
            y = F.conv1d(F.pad(F.leaky_relu(y, 0.1), pad), weight, bias, dilation=d, groups=2)
        want = want + y
    torch.testing.assert_close(block(x), want.float(), rtol=1e-5, atol=1e-5)
    for places in ([0.1, 0.1, 0.5], [0.9], []):
        assert_pushes_equal_forward(block, 6, 40, 2, places, True)
