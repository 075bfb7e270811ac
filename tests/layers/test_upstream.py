"""The layers against encodec's own, in float64 on the reference backend: padding, lengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.lstm import Lstm
from fastcodec.layers.norm import GroupNorm

from .. import nets, oracles

pytestmark = pytest.mark.usefixtures("one_thread")

MODES = {"constant": "zero", "reflect": "reflect", "replicate": "replicate"}


def close(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(ours.double()(x), theirs.double()(x), rtol=1e-9, atol=1e-12)


@given(
    kernel=st.integers(1, 9),
    stride=st.integers(1, 9),
    dilation=st.integers(1, 4),
    causal=st.booleans(),
    mode=st.sampled_from(list(MODES)),
    frames=st.integers(1, 30),
)
def test_convolution_of_any_short_signal(
    kernel: int, stride: int, dilation: int, causal: bool, mode: str, frames: int
) -> None:
    stride = min(stride, kernel)  # upstream's padding is negative otherwise
    dilation = dilation if stride == 1 else 1  # upstream warns of both and gets the end wrong
    total = (kernel - 1) * dilation + 1 - stride
    right = 0 if causal else total // 2
    ours = Conv1d(
        2, 3, kernel, stride, dilation, left=total - right, right=right, padding=MODES[mode],
        fill_last=True,
    )  # type: ignore[arg-type]  # fmt: skip
    theirs = oracles.encodec("encodec.modules.conv").SConv1d(
        2, 3, kernel, stride, dilation, causal=causal, pad_mode=mode
    )
    theirs.conv.conv.load_state_dict(ours.state_dict())
    close(ours, theirs, nets.signal(2, 2, frames).double())


@given(
    kernel=st.integers(1, 9),
    stride=st.integers(1, 9),
    causal=st.booleans(),
    frames=st.integers(1, 20),
)
def test_transposed_convolution(kernel: int, stride: int, causal: bool, frames: int) -> None:
    stride = min(stride, kernel)
    total = kernel - stride
    right = total if causal else total // 2
    ours = ConvTranspose1d(2, 3, kernel, stride, cut_left=total - right, cut_right=right)
    theirs = oracles.encodec("encodec.modules.conv").SConvTranspose1d(
        2, 3, kernel, stride, causal=causal
    )
    theirs.convtr.convtr.load_state_dict(ours.state_dict())
    close(ours, theirs, nets.signal(2, 2, frames).double())


@given(width=st.integers(1, 9), layers=st.integers(1, 3), frames=st.integers(1, 20))
def test_lstm(width: int, layers: int, frames: int) -> None:
    ours = Lstm(width, layers)
    theirs = oracles.encodec("encodec.modules.lstm").SLSTM(width, layers)
    state: dict[str, Any] = {
        f"{name}_l{i}": torch.randn(value[i].shape, generator=nets.generator(i))
        for name, value in ours.state_dict().items()
        for i in range(layers)
    }
    theirs.lstm.load_state_dict(state)
    for name, value in ours.state_dict().items():
        value.copy_(torch.stack([state[f"{name}_l{i}"] for i in range(layers)]))
    close(ours, theirs, nets.signal(2, width, frames).double())


@given(width=st.integers(1, 9), frames=st.integers(1, 50))
def test_group_norm(width: int, frames: int) -> None:
    ours, theirs = GroupNorm(width), nn.GroupNorm(1, width)
    parameters = {name: torch.randn(width) for name in ("weight", "bias")}
    for net in (ours, theirs):
        net.load_state_dict(parameters)
    close(ours, theirs, nets.signal(2, width, frames).double() + 1)
