"""Convolutions over frequency and time, each made of 1-D ones over time.

A map is [B, F, T, C] in memory: every row of frequency is a time-major signal. A window that covers
k rows is a 1-D convolution of k * C channels, so all the reductions are those of ``ops.conv1d``.
Weights are kept in the form in which that takes them; ``kernel_form`` makes it of torch's. Maps are
whole signals: nothing here streams.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.conv import NONE, Activation, Padding, pad
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.packed import Packed

Pair = tuple[int, int]  # of frequency and of time, or before and after


class _Convolution2d(nn.Module):
    """Parameters shared by both kinds."""

    def __init__(
        self, weight: Tensor, channels_in: int, channels_out: int, activation: Activation
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(channels_out))
        snake = activation.kind == "snake"
        self.alpha = nn.Parameter(torch.ones(channels_in)) if snake else None
        self.activation, self.slope = ops.ACTIVATIONS[activation.kind], activation.slope
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def kernel_form(self, weight: Tensor) -> Tensor:
        """Our weight, of torch's four dimensions."""
        raise NotImplementedError

    def _alpha(self, rows: int, groups: int) -> Tensor | None:
        if self.alpha is None:
            return None
        return self.alpha.view(groups, 1, -1).expand(-1, rows, -1).flatten()


class Conv2d(_Convolution2d):
    """conv(activation(pad(x))) of maps.

    Args:
        channels_in, channels_out, groups: as in torch
        kernel, stride: of frequency and time
        dilation: over time
        frequency, time: rows and frames of padding before and after; where the last window over
            time would not be full, as much padding more
        causal: that further padding comes at the end, else (FunCodec's habit) at the beginning
        padding: what the padding holds
        activation: of the input
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: Pair,
        stride: Pair = (1, 1),
        dilation: int = 1,
        groups: int = 1,
        frequency: Pair = (0, 0),
        time: Pair = (0, 0),
        causal: bool = False,
        padding: Padding = "reflect",
        activation: Activation = NONE,
    ) -> None:
        weight = torch.empty(channels_out, kernel[0] * channels_in // groups, kernel[1])
        super().__init__(weight, channels_in, channels_out, activation)
        self.kernel, self.stride, self.dilation, self.groups = kernel, stride, dilation, groups
        self.frequency, self.time, self.causal, self.padding = frequency, time, causal, padding
        self._packed = Packed(ops.conv1d_pack, groups)

    def kernel_form(self, weight: Tensor) -> Tensor:
        return weight.transpose(1, 2).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F', T', C_out] of a map [B, F, T, C_in]."""
        if self.kernel == self.stride == (1, 1):
            return self._convolve(x.flatten(1, 2)).unflatten(1, x.shape[1:3])
        if len(x) > 1:  # the rows that windows share are views of one map only
            return torch.cat([self(row[None]) for row in x])
        extra = -x.shape[2] % self.stride[1]
        before, after = self.time
        time = (before, after + extra) if self.causal else (before + extra, after)
        padded = pad_map(x, self.frequency, time, self.padding)
        windows = padded.unfold(2, self.kernel[0], self.stride[0])  # [B, T, F', C, k]
        return self._convolve(merged(windows.permute(0, 2, 1, 4, 3), self.groups))[None]

    def _convolve(self, x: Tensor) -> Tensor:
        """[rows, T', C_out] of [rows, T, k * C_in]."""
        y: Tensor = ops.conv1d(
            x.transpose(1, 2),
            self.weight,
            self.bias,
            None,
            self._alpha(self.kernel[0], self.groups),
            None,
            self._packed.get(self.weight),
            self.stride[1],
            self.dilation,
            self.groups,
            self.activation,
            self.slope,
        )
        return y.transpose(1, 2)


class ConvTranspose2d(_Convolution2d):
    """Transposed convolution of activation(x), with a kernel of twice the stride, then cut.

    Args:
        channels_in, channels_out, groups: as in torch
        stride: of frequency and time
        frequency, time: rows and frames dropped at both ends of torch's full result
        activation: of the input
        norm: applied to the full result before it is cut
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: Pair,
        groups: int = 1,
        frequency: Pair = (0, 0),
        time: Pair = (0, 0),
        activation: Activation = NONE,
        norm: GroupNorm | None = None,
    ) -> None:
        weight = torch.empty(2 * channels_in, stride[0] * channels_out // groups, 2 * stride[1])
        super().__init__(weight, channels_in, channels_out, activation)
        self.stride, self.groups, self.norm = stride, groups, norm
        self.frequency, self.time = frequency, time
        self._packed = Packed(ops.conv_transpose1d_pack, stride[1], groups)

    def kernel_form(self, weight: Tensor) -> Tensor:
        """Row q of the result's groups of ``stride`` rows comes of the input's rows q - 1 and q."""
        taps = weight.unflatten(2, (2, -1)).flip(2).unflatten(0, (self.groups, -1))
        return taps.permute(0, 3, 1, 4, 2, 5).flatten(0, 2).flatten(1, 2).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """[B, F', T', C_out] of a map [B, F, T, C_in]."""
        if len(x) > 1:
            return torch.cat([self(row[None]) for row in x])
        padded = pad_map(x, (1, 1), (1, 1), "zero")
        windows = merged(padded.unfold(2, 2, 1).permute(0, 2, 1, 4, 3), self.groups)
        rows, bias = self.stride[0], self.bias.view(self.groups, 1, -1)
        y: Tensor = ops.conv_transpose1d(
            windows.transpose(1, 2),
            self.weight,
            bias.expand(-1, rows, -1).flatten(),
            self._alpha(2, self.groups),
            None,
            self._packed.get(self.weight),
            self.stride[1],
            self.groups,
            self.activation,
            self.slope,
        )
        y = y.transpose(1, 2).unflatten(2, (self.groups, rows, -1))  # [F + 1, T', g, rows, C / g]
        y = y.permute(0, 3, 1, 2, 4).flatten(3).flatten(0, 1)[None]
        y = y if self.norm is None else norm_map(self.norm, y)
        (low, high), (first, last) = self.frequency, self.time
        return y[:, low : y.shape[1] - high, first : y.shape[2] - last]


def norm_map(norm: GroupNorm, x: Tensor) -> Tensor:
    """A map [B, F, T, C], normalised over all its values, each channel then scaled and shifted."""
    y: Tensor = norm(x.flatten(1, 2).transpose(1, 2))
    return y.transpose(1, 2).unflatten(1, x.shape[1:3])


def pad_map(x: Tensor, frequency: Pair, time: Pair, padding: Padding) -> Tensor:
    """[B, T', F', C], padded on both sides of both axes, of a map [B, F, T, C]: time comes first,
    so that neighbouring rows of a frame lie side by side.
    """
    channels = x.shape[3]
    y = pad(x.transpose(1, 2).flatten(2), *time, padding).unflatten(2, (-1, channels))
    y = pad(y.flatten(0, 1).flatten(2), *frequency, padding)
    return y.unflatten(0, (len(x), -1))


def merged(windows: Tensor, groups: int) -> Tensor:
    """[F', T, k * C] of windows [1, F', T, k, C], group by group; one group needs no copy."""
    return windows[0].unflatten(3, (groups, -1)).transpose(2, 3).flatten(2)
