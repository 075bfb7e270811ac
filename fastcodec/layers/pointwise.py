"""An activation as a layer of its own: after the last convolution, which no other takes in."""

from __future__ import annotations

from torch import Tensor

from fastcodec import ops
from fastcodec.layers.plan import Plan
from fastcodec.layers.streaming import StreamingModule


class Pointwise(StreamingModule):
    """An activation of every value.

    Args:
        kind: a key of ``ops.ACTIVATIONS`` without parameters
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def push(self, x: Tensor, state: None, final: bool = False) -> Tensor:
        return ops.activation(x, ops.ACTIVATIONS[self.kind])

    def lower(self, plan: Plan, held: int = 0) -> bool:
        return not held and plan.activate(ops.ACTIVATIONS[self.kind])
