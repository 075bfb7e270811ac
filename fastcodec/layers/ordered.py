"""Float convolutions that add in XNNPACK's order, for nets that must give LiteRT's bits.

XNNPACK (src/f32-gemm, f32-igemm @75db3c0) starts each sum from the bias and adds the products by
fma, tap by tap and channel by channel; a transposed convolution takes the latest frame first. The
native kernels add in the same order but the bias last. A channel of ones before the others, whose
weight is the bias at the first tap and 0 at the rest, puts it first. With torch's convolutions
(backend ``reference``) the order is unknown and the results agree to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.conv import NONE, Activation, Conv1d
from fastcodec.layers.packed import Packed
from fastcodec.layers.streaming import Held, StreamingModule


def causal_left(kernel: int, stride: int, dilation: int) -> int:
    """Zeros before the first frame with which each output frame sees none after its own."""
    return (kernel - 1) * dilation + 1 - stride


class OrderedConv1d(Conv1d):
    """A causal conv1d(activation(x)) whose sums start from the bias.

    Args:
        weight: [C_out, C_in / groups, k] float
        bias: [C_out] float
        stride, dilation, groups: as in torch
        activation: of the input; it must leave 1 as it is
    """

    _with_bias: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: Activation = NONE,
    ) -> None:
        c_out, channels, kernel = weight.shape
        left = causal_left(kernel, stride, dilation)
        super().__init__(
            channels * groups, c_out, kernel, stride, dilation, groups, left=left,
            activation=activation,
        )  # fmt: skip
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        # Without a bias (every depthwise layer of Lyra) there is no order to keep.
        self.plain = not bool(bias.any())
        self.register_buffer("_with_bias", _bias_first(weight, bias), persistent=False)

    def _convolve(self, x: Tensor, held: Held | None) -> Tensor:
        if self.plain:
            return super()._convolve(x, held)
        count = (x.shape[2] - self.span) // self.stride + 1
        y: Tensor = ops.conv1d(
            _with_ones(x, self.groups),
            self._with_bias,
            None,
            None if held is None else held.take(count),
            None,
            None,
            self._packed.get(self._with_bias),
            self.stride,
            self.dilation,
            self.groups,
            self.activation,
            self.slope,
        )
        return y


@dataclass
class OverlapState:
    """What the frames so far add to the first samples of the next, [B, C_out, kernel - stride]."""

    tail: Tensor | None = None


class OverlapAdd(StreamingModule):
    """A transposed convolution done a codec frame at a time, frames joined by overlap-add.

    The order of additions is that of google/lyra's graphs: y = convolution(frame) + bias + tail of
    the frame before; the tail that is kept has the bias taken off again.

    Args:
        kernel, stride: kernel is at most ``(frame + 1) * stride``, so a tail ends in the next frame
        frame: frames of the input that one codec frame holds
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
        batch, _, length = x.shape
        count, channels = length // self.frame, self.channels_out
        assert count * self.frame == length
        if count == 0:
            return x.new_empty(batch, 0, channels).transpose(1, 2)
        frames = x.transpose(1, 2).reshape(batch * count, self.frame, -1).transpose(1, 2)
        y = self.whole(frames).transpose(1, 2).reshape(batch, count, -1, channels)
        samples, overlap = self.frame * self.stride, self.kernel - self.stride
        before = x.new_zeros(batch, overlap, channels) if state.tail is None else state.tail
        tails = y[:, :, samples:] - self.carried_bias
        state.tail = tails[:, -1]
        y = y[:, :, :samples]
        y[:, :, :overlap] += torch.cat([before[:, None], tails[:, :-1]], dim=1)
        return y.reshape(batch, count * samples, channels).transpose(1, 2)


class OrderedOverlapAdd(OverlapAdd):
    """``OverlapAdd`` in float, in XNNPACK's order: the bias, then the latest frame first.

    Args:
        weight: [C_in, C_out, k] float, k a multiple of the stride
        bias: [C_out] float
        stride, frame, activation: as for ``OverlapAdd`` and ``OrderedConv1d``
    """

    _rows: Tensor

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
        rows = rows.reshape(stride * c_out, c_in, self.taps)
        self.register_buffer("_rows", _bias_first(rows, bias.repeat(stride)), persistent=False)
        self.activation, self.slope = ops.ACTIVATIONS[activation.kind], activation.slope
        self._packed = Packed(ops.conv1d_pack, 1)

    def whole(self, x: Tensor) -> Tensor:
        beyond = self.taps - 1
        reversed_x = _with_ones(F.pad(x, (beyond, beyond)).flip(2), 1)
        y = ops.conv1d(
            reversed_x, self._rows, None, None, None, None, self._packed.get(self._rows),
            1, 1, 1, self.activation, self.slope,
        )  # fmt: skip
        samples: Tensor = y.transpose(1, 2).flip(1)
        return samples.reshape(len(x), -1, self.channels_out).transpose(1, 2)


def _bias_first(weight: Tensor, bias: Tensor) -> Tensor:
    """weight [C_out, C, k] with the bias as the first tap of a channel before the others."""
    first = torch.zeros(weight.shape[0], 1, weight.shape[2])
    first[:, 0, 0] = bias
    return torch.cat([first, weight], dim=1)


def _with_ones(x: Tensor, groups: int) -> Tensor:
    """x [B, C, T] with a channel of ones before those of each group."""
    frames = x.transpose(1, 2)
    frames = frames.reshape(*frames.shape[:2], groups, -1)
    return F.pad(frames, (1, 0), value=1.0).flatten(2).transpose(1, 2)
