"""Int8 layers with the arithmetic of XNNPACK, on which LiteRT runs quantised nets.

Source: google/XNNPACK@75db3c0 src/microparams-init.c, src/qs8-vlrelu, src/qs8-vadd,
src/f32-qs8-vcvt, src/operators/convolution-nhwc.c. An activation is kept centred, the stored value
minus its zero point, as an integer in float32: padding is zero as upstream's, and sums of products
are exact in any order while they stay below 2^24, which a layer checks when it is built. So the
convolutions are those of the float nets, on any backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.errors import WeightsError
from fastcodec.layers.conv import Conv1d
from fastcodec.layers.overlap import OverlapAdd
from fastcodec.layers.packed import Packed
from fastcodec.layers.streaming import Held, StreamingModule

_EXACT = 1 << 24  # integers up to here are exact in float32


@dataclass(frozen=True)
class Scale:
    """real = scale * centred value; the stored int8 value is the centred one plus zero_point."""

    scale: float
    zero_point: int

    @property
    def low(self) -> int:
        """Smallest centred value."""
        return -128 - self.zero_point

    @property
    def high(self) -> int:
        """Largest centred value."""
        return 127 - self.zero_point


def _ratio(a: Scale, b: Scale) -> float:
    """a / b, rounded to float32 as upstream has it."""
    return float(np.float32(a.scale) / np.float32(b.scale))


class Pointwise(StreamingModule):
    """A layer without state."""

    def apply_to(self, x: Tensor) -> Tensor:
        """The result of x, frame by frame."""
        raise NotImplementedError

    def push(self, x: Tensor, state: Any, final: bool = False) -> Tensor:
        return self.apply_to(x)


class Quantize(Pointwise):
    """Centred integers of real numbers: round half to even, saturate."""

    def __init__(self, to: Scale) -> None:
        super().__init__()
        self.inverse = float(np.float32(1) / np.float32(to.scale))
        self.low, self.high = to.low, to.high

    def apply_to(self, x: Tensor) -> Tensor:
        return (x * self.inverse).round_().clamp_(self.low, self.high)


class Dequantize(Pointwise):
    """Real numbers of centred integers."""

    def __init__(self, source: Scale) -> None:
        super().__init__()
        self.scale = source.scale

    def apply_to(self, x: Tensor) -> Tensor:
        return x * self.scale


class LeakyRelu(Pointwise):
    """Leaky ReLU with multipliers of 8 fractional bits, ties rounded up."""

    def __init__(self, source: Scale, to: Scale, slope: float) -> None:
        super().__init__()
        positive = np.float32(_ratio(source, to))
        self.positive = float(np.rint(np.float32(256) * positive))
        self.negative = float(np.rint(np.float32(256) * (positive * np.float32(slope))))
        if not (1 <= self.negative <= self.positive <= 1 << 15):
            raise WeightsError(
                f"int8 leaky ReLU: scales {source.scale} and {to.scale} are too far apart"
            )
        self.source_scale, self.output_scale = source, to

    def apply_to(self, x: Tensor) -> Tensor:
        y = torch.where(x > 0, x * self.positive, x * self.negative)
        low, high = self.output_scale.low, self.output_scale.high
        return y.div_(256).add_(0.5).floor_().clamp_(low, high)


class Add(nn.Module):
    """a + b with multipliers of 21 bits, ties rounded up."""

    def __init__(self, a: Scale, b: Scale, to: Scale) -> None:
        super().__init__()
        ratios = _ratio(a, to), _ratio(b, to)
        if not all(2**-10 <= ratio < 2**8 for ratio in ratios):
            raise WeightsError(
                f"int8 sum: scales {a.scale}, {b.scale} and {to.scale} are too far apart"
            )
        shift = 20 - (math.frexp(max(ratios))[1] - 1)
        self.a, self.b = (float(np.rint(math.ldexp(ratio, shift))) for ratio in ratios)
        self.unit = math.ldexp(1.0, -shift)
        self.output_scale = to

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        # 21 + 8 bits and a carry: exact in float64.
        total = a.double().mul_(self.a).add_(b, alpha=self.b)
        low, high = self.output_scale.low, self.output_scale.high
        return total.mul_(self.unit).add_(0.5).floor_().clamp_(low, high).float()


class Requantize(nn.Module):
    """Sums of products -> centred integers: times a multiplier, round half to even, saturate.

    Args:
        source: of the convolution's input
        weight_scale: [C_out] float32
        to: of the output, one for all channels or one for each group of them
    """

    multiplier: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, source: Scale, weight_scale: Tensor, to: Sequence[Scale]) -> None:
        super().__init__()
        size = len(weight_scale) // len(to)

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32).repeat_interleave(size)[:, None]

        products = torch.tensor(source.scale, dtype=torch.float32) * weight_scale[:, None]
        multiplier = products / column([scale.scale for scale in to])
        self.register_buffer("multiplier", multiplier, persistent=False)
        self.register_buffer("low", column([scale.low for scale in to]), persistent=False)
        self.register_buffer("high", column([scale.high for scale in to]), persistent=False)

    def forward(self, sums: Tensor) -> Tensor:
        return torch.clamp((sums * self.multiplier).round_(), self.low, self.high)


class Int8Conv1d(Conv1d):
    """A causal convolution of centred integers.

    Args:
        weight: [C_out, C_in / groups, k] integers in float32
        bias: [C_out] likewise
        weight_scale: [C_out] float32
        source, to: of the input and the output
        stride, dilation, groups: as in torch
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        weight_scale: Tensor,
        source: Scale,
        to: Scale,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        c_out, channels, kernel = weight.shape
        left = (kernel - 1) * dilation + 1 - stride
        super().__init__(channels * groups, c_out, kernel, stride, dilation, groups, left=left)
        _check_exact(weight.abs().sum(dim=(1, 2)), bias, source)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.requantize = Requantize(source, weight_scale, [to])
        self.output_scale = to

    def _convolve(self, x: Tensor, held: Held | None) -> Tensor:
        assert held is None  # what is added must be rescaled: see ``Add``
        y: Tensor = self.requantize(super()._convolve(x, None))
        return y


class Int8OverlapAdd(OverlapAdd):
    """``OverlapAdd`` whose convolution is of centred integers; its result is made real first.

    Args:
        weight: [C_in, C_out / groups, k] integers in float32
        bias: [C_out] likewise
        weight_scale: [C_out] float32
        source: of the input
        to: of each group's output
        carried_bias: [C_out] float, the real bias
        stride, frame: as for ``OverlapAdd``
    """

    scales: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        weight_scale: Tensor,
        source: Scale,
        to: Sequence[Scale],
        carried_bias: Tensor,
        stride: int,
        frame: int,
    ) -> None:
        super().__init__(weight.shape[2], stride, frame, carried_bias)
        sums = weight.abs().sum(dim=2).view(len(to), -1, weight.shape[1]).sum(dim=1).flatten()
        _check_exact(sums, bias, source)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.groups = len(to)
        self.requantize = Requantize(source, weight_scale, to)
        scales = torch.tensor([scale.scale for scale in to], dtype=torch.float32)
        scales = scales.repeat_interleave(weight.shape[1])[:, None]
        self.register_buffer("scales", scales, persistent=False)
        self._packed = Packed(ops.conv_transpose1d_pack, stride, self.groups)

    def whole(self, x: Tensor) -> Tensor:
        beyond = self.kernel // self.stride - 1
        sums = ops.conv_transpose1d(
            F.pad(x, (beyond, beyond)),
            self.weight,
            self.bias,
            None,
            None,
            self._packed.get(self.weight),
            self.stride,
            self.groups,
            ops.ACTIVATIONS["none"],
            0.0,
        )
        y: Tensor = self.requantize(sums)
        return y.mul_(self.scales)


def _check_exact(weight_sums: Tensor, bias: Tensor, source: Scale) -> None:
    """Refuse a layer whose sums could leave the integers that float32 holds.

    Args:
        weight_sums: [C_out] sum of the weights' magnitudes
        bias: [C_out]
        source: of the input
    """
    largest = weight_sums.double() * max(-source.low, source.high) + bias.double().abs()
    if float(largest.max()) >= _EXACT:
        raise WeightsError(
            f"int8 layer: sums of products may reach {float(largest.max()):.0f}, expected below "
            f"{_EXACT}, up to which float32 is exact"
        )
