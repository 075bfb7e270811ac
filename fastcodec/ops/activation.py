"""``activation``: an elementwise activation as an op of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import op
from fastcodec.ops.conv1d import ACTIVATIONS, activate


@op(fake=lambda x, kind, slope=0.0: torch.empty_like(x), trainable=True)
def activation(x: Tensor, kind: int, slope: float = 0.0) -> Tensor:
    """The activation of every value, in the layout of x.

    Unlike torch's own, the native one rounds a value alike wherever it stands.

    Args:
        x: [B, C, T] float
        kind: one of ``ACTIVATIONS`` but "snake", which is an op of its own
        slope: of leaky ReLU for negative x
    """
    if kind not in ACTIVATIONS.values() or kind == ACTIVATIONS["snake"]:
        raise ValueError(f"activation: expected a kind of ACTIVATIONS but snake, got {kind}")
    y = activate(x, kind, None, None, slope)
    return y.clone() if y is x else y


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)
    kinds = [kind for name, kind in ACTIVATIONS.items() if name != "snake"]
    x = 3 * torch.randn(2, 21, 19, generator=g)
    rows = 3 * torch.randn(1, 3, 70, generator=g).transpose(1, 2)
    return [*((x, kind, 0.1) for kind in kinds), *((rows, kind, 0.3) for kind in kinds[1::2])]


activation.examples = _examples
