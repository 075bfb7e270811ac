"""Transposed convolutions done one codec frame at a time, as google/lyra's graphs do them.

Their order of additions shows in the bits: inside a frame each sum starts from the bias and takes
the latest input frame first (XNNPACK, src/operators/deconvolution-nhwc.c@75db3c0); the tail that
reaches into the next frame is added to that one's finished samples, the bias taken off again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.conv import NONE, Activation
from fastcodec.layers.packed import Packed
from fastcodec.layers.streaming import StreamingModule


@dataclass
class OverlapState:
    """What the frames so far add to the first samples of the next, [B, kernel - stride, C_out]."""

    tail: Tensor | None = None


class OverlapAdd(StreamingModule):
    """A causal transposed convolution over codec frames, joined by overlap-add.

    Args:
        kernel, stride: kernel is at most ``(frame + 1) * stride``, so a tail ends in the next frame
        frame: frames of the input that one codec frame holds; pushes hold whole codec frames
        carried_bias: [C_out] float, what is taken off the tail
    """

    carried_bias: Tensor

    def __init__(self, kernel: int, stride: int, frame: int, carried_bias: Tensor) -> None:
        super().__init__()
        self.kernel, self.stride, self.frame, self.rate = kernel, stride, frame, stride
        self.channels_out = len(carried_bias)
        self.register_buffer("carried_bias", carried_bias.clone(), persistent=False)

    def init_state(self, batch_size: int) -> OverlapState:
        return OverlapState()

    def whole(self, x: Tensor) -> Tensor:
        """[N, C_out, (frame - 1) * stride + kernel] with bias, of codec frames [N, C_in, frame]."""
        raise NotImplementedError

    def push(self, x: Tensor, state: OverlapState, final: bool = False) -> Tensor:
        batch, channels_in, length = x.shape
        count, channels = length // self.frame, self.channels_out
        assert count * self.frame == length
        if count == 0:
            return x.new_empty(batch, 0, channels).transpose(1, 2)
        frames = x.transpose(1, 2).reshape(batch * count, self.frame, channels_in)
        y = self.whole(frames.transpose(1, 2)).transpose(1, 2).reshape(batch, count, -1, channels)
        samples, overlap = self.frame * self.stride, self.kernel - self.stride
        before = x.new_zeros(batch, overlap, channels) if state.tail is None else state.tail
        tails = y[:, :, samples:] - self.carried_bias
        state.tail = tails[:, -1]
        y = y[:, :, :samples]
        y[:, :, :overlap] += torch.cat([before[:, None], tails[:, :-1]], dim=1)
        return y.reshape(batch, count * samples, channels).transpose(1, 2)


class FloatOverlapAdd(OverlapAdd):
    """``OverlapAdd`` of activation(x) in float.

    Args:
        weight: [C_in, C_out, k] float, k a multiple of the stride
        bias: [C_out] float
        stride, frame: as for ``OverlapAdd``
        activation: of the input
    """

    rows: Tensor
    tiled_bias: Tensor

    def __init__(
        self, weight: Tensor, bias: Tensor, stride: int, frame: int, activation: Activation = NONE
    ) -> None:
        c_in, c_out, kernel = weight.shape
        super().__init__(kernel, stride, frame, bias)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.taps = kernel // stride
        # The samples of one input frame are channels of a convolution over the frames in reverse.
        rows = weight.reshape(c_in, c_out, self.taps, stride).permute(3, 1, 0, 2)
        rows = rows.reshape(stride * c_out, c_in, self.taps).contiguous()
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("tiled_bias", bias.repeat(stride), persistent=False)
        self.activation, self.slope = ops.ACTIVATIONS[activation.kind], activation.slope
        self._packed = Packed(ops.conv1d_pack, 1)

    def whole(self, x: Tensor) -> Tensor:
        beyond = self.taps - 1
        y: Tensor = ops.conv1d(
            F.pad(x, (beyond, beyond)).flip(2),
            self.rows,
            self.tiled_bias,
            None,
            None,
            None,
            self._packed.get(self.rows),
            1,
            1,
            1,
            self.activation,
            self.slope,
        )
        samples = y.transpose(1, 2).flip(1)
        return samples.reshape(len(x), -1, self.channels_out).transpose(1, 2)
