"""Streaming convolutions: padding is data that the first and the last push add."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.packed import Packed
from fastcodec.layers.plan import Leaf, Plan
from fastcodec.layers.streaming import Held, StreamingModule, append
from fastcodec.ops.conv_transpose1d import context

Padding = Literal["zero", "reflect", "replicate"]
First = Literal["zero", "replicate"]


@dataclass(frozen=True)
class Activation:
    """What a layer does to its input first; ``kind`` is a key of ``ops.ACTIVATIONS``."""

    kind: str = "none"
    slope: float = 0.0


NONE = Activation()
ELU = Activation("elu")


class _Convolution(StreamingModule):
    """Parameters shared by both kinds of convolution."""

    precision = ops.PRECISIONS["highest"]  # may be changed at any time; see ``set_precision``

    def __init__(
        self, weight: Tensor, channels_out: int, bias: bool, activation: Activation, groups: int
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        grouped = isinstance(self, Conv1d)
        self.channels_in = weight.shape[1] * groups if grouped else weight.shape[0]
        snake = activation.kind == "snake"
        self.alpha = nn.Parameter(torch.ones(self.channels_in)) if snake else None
        self.channels_out, self.groups = channels_out, groups
        self.activation = ops.ACTIVATIONS[activation.kind]
        self.slope = activation.slope
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def _nothing(self, x: Tensor) -> Tensor:
        return x.new_empty(x.shape[0], 0, self.channels_out).transpose(1, 2)


def set_precision(net: nn.Module, precision: str, but: nn.Module) -> None:
    """Sets the precision, a key of ``ops.PRECISIONS``, of a net's convolutions and LSTMs.

    Args:
        but: the part of the net, or beside it, whose layers keep theirs
    """
    kept = {id(layer) for layer in but.modules()}
    for layer in net.modules():
        if isinstance(getattr(layer, "precision", None), int) and id(layer) not in kept:
            layer.precision = ops.PRECISIONS[precision]  # type: ignore[assignment]


@dataclass
class ConvState(Leaf):
    """Input frames that a window may still need, [B, T, C], and where the next window begins."""

    start: int = 0
    padded: bool = False
    begun: bool = False  # a window has been computed
    counts = ("start", "begun")

    @property
    def steady(self) -> bool:
        """The padding of the beginning is done."""
        return self.padded


class Conv1d(_Convolution):
    """conv(activation(pad(x))).

    Args:
        channels_in, channels_out, kernel, stride, dilation, groups, bias: as in torch
        left, right: frames of padding before the first and after the last input frame
        padding: what they hold
        fill_last: pad on the right, further, until the last window is full; otherwise a tail that
            fills no window is dropped
        activation: of the input
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        left: int = 0,
        right: int = 0,
        padding: Padding = "zero",
        fill_last: bool = False,
        activation: Activation = NONE,
    ) -> None:
        weight = torch.empty(channels_out, channels_in // groups, kernel)
        super().__init__(weight, channels_out, bias, activation, groups)
        self.stride, self.dilation = stride, dilation
        self.span = (kernel - 1) * dilation + 1
        self.left, self.right, self.padding, self.fill_last = left, right, padding, fill_last
        # Frames the padding may look at: reflection needs one more than it makes.
        self.right_most = right + (stride - 1 if fill_last else 0)
        self.margin = {"zero": 0, "replicate": 1, "reflect": self.right_most + 1}[padding]
        self.head = {"zero": 0, "replicate": 1, "reflect": max(left, self.right_most) + 1}[padding]
        self.margin = self.margin if self.right_most else 0
        self.pointwise = self.span == 1 and stride == 1 and left == right == 0
        self.lookahead, self.rate = self.span - 1 - left, 1 / stride
        self._packed = Packed(ops.conv1d_pack, groups)

    def init_state(self, batch_size: int) -> ConvState:
        return ConvState()

    def push(
        self, x: Tensor, state: ConvState, final: bool = False, held: Held | None = None
    ) -> Tensor:
        """As every layer's; ``held``: frames to add to the result, as many as there are of it."""
        if self.pointwise:
            return self._convolve(x, held) if x.shape[2] else self._nothing(x)
        window = self.window(x, state, final)
        return self._nothing(x) if window is None else self._convolve(window, held)

    def window(self, x: Tensor, state: ConvState, final: bool = False) -> Tensor | None:
        """What a push of x has to convolve: padded frames [B, C_in, S], or None."""
        frames = append(state.frames, x)
        if not state.padded and (final or frames.shape[1] >= self.head):
            right = self._right(frames.shape[1] + self.left, 1) if final else 0
            frames, state.padded = pad(frames, self.left, right, self.padding), True
        elif final:
            right = self._right(frames.shape[1] - state.start, 0 if state.begun else 1)
            frames = pad(frames, 0, right, self.padding)
        ready = frames.shape[1] - state.start - self.span if state.padded else -1
        if ready < 0:
            state.frames = frames
            return None
        state.begun, count = True, ready // self.stride + 1
        end = state.start + (count - 1) * self.stride + self.span
        window = frames[:, state.start : end].transpose(1, 2)
        following = state.start + count * self.stride
        keep = max(0, min(following, frames.shape[1] - self.margin))
        state.frames, state.start = frames[:, keep:], following - keep
        return window

    def lower(self, plan: Plan, held: int = 0) -> bool:
        return plan.conv(self, 0 if self.pointwise else self.span + self.stride + self.margin, held)

    def leaves(self, state: ConvState) -> Iterator[Leaf]:
        return iter([] if self.pointwise else [state])

    def _right(self, available: int, least: int) -> int:
        """Padding after the last of ``available`` frames, counted from the next window's first.

        ``least``: windows that are completed even if no frame is left for them.
        """
        over = available + self.right - self.span
        windows = max(least, -(-over // self.stride) + 1)
        if not self.fill_last or windows == 0:
            return self.right
        return self.right + (windows - 1) * self.stride - over

    def _convolve(self, x: Tensor, held: Held | None) -> Tensor:
        count = (x.shape[2] - self.span) // self.stride + 1
        return ops.conv1d(
            x,
            self.weight,
            self.bias,
            None if held is None else held.take(count),
            self.alpha,
            None,
            self._packed.get(self.weight, precision=self.precision),
            self.stride,
            self.dilation,
            self.groups,
            self.activation,
            self.slope,
            self.precision,
        )


def pad(frames: Tensor, left: int, right: int, mode: Padding) -> Tensor:
    """frames [B, T, C] with padding on both sides.

    Reflection of a signal no longer than its padding follows EnCodec (modules/conv.py@0e2d0aed):
    zeros are put after it first, and as many frames dropped from the end.
    """
    length = frames.shape[1]
    if mode == "reflect" and length <= max(left, right):
        extra = max(left, right) - length + 1
        padded = pad(pad(frames, 0, extra, "zero"), left, right, "reflect")
        return padded[:, : padded.shape[1] - extra]
    if mode == "reflect":
        before = frames[:, 1 : left + 1].flip(1)
        after = frames[:, length - right - 1 : length - 1].flip(1)
    elif mode == "replicate":
        before = frames[:, :1].expand(-1, left, -1)
        after = frames[:, -1:].expand(-1, right, -1)
    else:
        before = frames.new_zeros(frames.shape[0], left, frames.shape[2])
        after = frames.new_zeros(frames.shape[0], right, frames.shape[2])
    return torch.cat([before, frames, after], dim=1) if left or right else frames


@dataclass
class ConvTransposeState(Leaf):
    """The last input frames, [B, H, C]; what is still to be cut; what came in and went out."""

    cut: int = 0
    received: int = 0
    emitted: int = 0
    counts = counters = ("received", "emitted")

    @property
    def steady(self) -> bool:
        """The first frame has come, and there is nothing more to cut."""
        return self.frames is not None and self.cut == 0


class ConvTranspose1d(_Convolution):
    """Transposed convolution of activation(x), cut on both sides.

    Args:
        channels_in, channels_out, kernel, stride, groups, bias: as in torch
        cut_left, cut_right: samples dropped from torch's full result of (T - 1) * stride + kernel;
            on the right at most kernel - stride: a push cannot take back what the last ones gave
        activation: of the input
        norm: applied to the full result before it is cut; makes the layer not streamable
        first: what stands before the first frame: zeros, or copies of it
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        stride: int,
        groups: int = 1,
        bias: bool = True,
        cut_left: int = 0,
        cut_right: int = 0,
        activation: Activation = NONE,
        norm: GroupNorm | None = None,
        first: First = "zero",
    ) -> None:
        if not 0 <= cut_right <= kernel - stride:
            raise ValueError(
                f"ConvTranspose1d: cut_right must be 0 to kernel - stride = {kernel - stride}, got "
                f"{cut_right}"
            )
        weight = torch.empty(channels_in, channels_out // groups, kernel)
        super().__init__(weight, channels_out, bias, activation, groups)
        self.kernel, self.stride = kernel, stride
        self.cut_left, self.cut_right = cut_left, cut_right
        self.norm, self.first = norm, first
        self.not_streamable_because = norm.not_streamable_because if norm else None
        self.context = context(kernel, stride)
        self.lookahead, self.rate = cut_left / stride, stride
        self._packed = Packed(ops.conv_transpose1d_pack, stride, groups)

    def init_state(self, batch_size: int) -> ConvTransposeState:
        return ConvTransposeState(cut=self.cut_left)

    def push(self, x: Tensor, state: ConvTransposeState, final: bool = False) -> Tensor:
        if x.shape[2] == 0 and not final:  # the first frame, which may be copied, is still to come
            return self._nothing(x)
        zeros = x.new_zeros(x.shape[0], self.context, x.shape[1])
        if state.frames is None and self.first == "replicate" and x.shape[2]:
            state.frames = x[..., :1].transpose(1, 2).expand_as(zeros)
        frames = append(zeros if state.frames is None else state.frames, x)
        state.received += x.shape[2]
        if final:
            frames = torch.cat([frames, zeros], dim=1)
        if frames.shape[1] <= self.context:
            state.frames = frames
            return self._nothing(x)
        state.frames = frames[:, frames.shape[1] - self.context :]
        y = self._convolve(frames.transpose(1, 2))
        if self.norm is not None:
            if not final or state.emitted or y.shape[2] < self._full(state.received):
                raise ValueError(f"ConvTranspose1d.push: {self.not_streamable_because}")
            y = self.norm(y[..., : self._full(state.received)])
        cut = min(state.cut, y.shape[2])
        state.cut -= cut
        end = y.shape[2]
        if final:
            total = max(0, self._full(state.received) - self.cut_left - self.cut_right)
            end = cut + max(0, total - state.emitted)
        y = y[..., cut:end]
        state.emitted += y.shape[2]
        return y

    def lower(self, plan: Plan, held: int = 0) -> bool:
        return not held and self.norm is None and plan.conv_transpose(self)

    def leaves(self, state: ConvTransposeState) -> Iterator[Leaf]:
        return iter([state])

    def _full(self, frames: int) -> int:
        return (frames - 1) * self.stride + self.kernel if frames else 0

    def _convolve(self, x: Tensor) -> Tensor:
        return ops.conv_transpose1d(
            x,
            self.weight,
            self.bias,
            self.alpha,
            None,
            self._packed.get(self.weight, precision=self.precision),
            self.stride,
            self.groups,
            self.activation,
            self.slope,
            self.precision,
        )
