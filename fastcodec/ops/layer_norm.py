"""``layer_norm``: normalisation over the channels of each frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcodec.ops._op import op, time_major


@op(fake=lambda x, weight, bias, epsilon=1e-5: time_major(x, *x.shape), trainable=True)
def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias, statistics of a frame's channels.

    A frame's bits depend on the frame alone.

    Args:
        x: [B, C, T] float
        weight, bias: [C] float

    Returns:
        [B, C, T], time-major
    """
    return F.layer_norm(x.mT.contiguous(), weight.shape, weight, bias, epsilon).mT


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)
    parameters = (torch.rand(20, generator=g), torch.randn(20, generator=g))
    return [
        (torch.randn(2, 20, 9, generator=g), *parameters, 1e-5),
        (torch.randn(1, 20, 1, generator=g), *parameters, 1e-5),
    ]


layer_norm.examples = _examples
