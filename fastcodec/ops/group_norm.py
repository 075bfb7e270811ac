"""``group_norm``: normalisation over all channels and frames of a signal (one group)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcodec.ops._op import op, time_major


@op(fake=lambda x, weight, bias, epsilon=1e-5: time_major(x, *x.shape), trainable=True)
def group_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias, statistics over channels and frames.

    Args:
        x: [B, C, T] float
        weight, bias: [C] float
    """
    return F.group_norm(x, 1, weight, bias, epsilon)


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)
    parameters = (torch.rand(12, generator=g), torch.randn(12, generator=g))
    return [
        (torch.randn(2, 12, 700, generator=g), *parameters, 1e-5),
        (torch.randn(1, 12, 1, generator=g), *parameters, 1e-5),
    ]


group_norm.examples = _examples
