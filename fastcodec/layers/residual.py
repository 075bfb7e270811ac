"""A residual unit of two convolutions, which a GPU does in one kernel where it has one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastcodec import ops
from fastcodec.layers.conv import Conv1d
from fastcodec.layers.streaming import Residual, ResidualState, StreamingModule


class ResidualUnit(Residual):
    """x + second(first(x)), by ``ops.residual_unit`` where a GPU kernel serves.

    The state is the same either way, so that a stream may change from one to the other.

    Args:
        first: the convolution with a window
        second: the one of single frames
        skip: of the skip path, a layer that only drops frames at the beginning
        centre: the frame of the first convolution's window that its result is added to; its own
            padding on the left where None
    """

    def __init__(
        self,
        first: Conv1d,
        second: Conv1d,
        skip: StreamingModule | None = None,
        centre: int | None = None,
    ) -> None:
        super().__init__([first, second], skip)
        self.centre = first.left if centre is None else centre

    def push(self, x: Tensor, state: ResidualState, final: bool = False) -> Tensor:
        if not self._may_fuse(x):
            return super().push(x, state, final)
        first = self._convolutions()[0]
        state.held.add(self.skip.push(x, state.skip, final) if self.skip else x)
        window = first.window(x, state.body[0], final)
        if window is None:
            return x[..., :0]
        state.held.take(window.shape[2] - first.span + 1)
        y: Tensor = ops.residual_unit(*self._arguments(window))
        return y

    lower = Residual.lower

    def _convolutions(self) -> tuple[Conv1d, Conv1d]:
        first, second = self.body
        assert isinstance(first, Conv1d) and isinstance(second, Conv1d)
        return first, second

    def _may_fuse(self, x: Tensor) -> bool:
        """Whether a kernel serves: one of the GPU, or the one that ``use_backend`` asks for."""
        forced = ops.forced_backend()
        if not x.is_cuda and forced != "triton":
            return False
        first, second = self._convolutions()
        plain = type(first) is type(second) is Conv1d  # a subclass may convolve in its own way
        shaped = first.stride == 1 and not first.pointwise and second.pointwise
        shared = ("activation", "slope", "precision")
        alike = all(getattr(first, name) == getattr(second, name) for name in shared)
        if not (plain and shaped and alike and second.groups == 1):
            return False
        args = self._arguments(x)
        backends = ("cuda", "triton") if forced is None else (forced,)
        return any(
            backend != "reference" and ops.residual_unit.why_not(backend, args) is None
            for backend in backends
        )

    def _arguments(self, x: Tensor) -> tuple[Any, ...]:
        first, second = self._convolutions()
        return (
            x,
            first.weight,
            first.bias,
            first.alpha,
            second.weight,
            second.bias,
            second.alpha,
            first.dilation,
            first.groups,
            self.centre,
            first.activation,
            first.slope,
            first.precision,
        )
