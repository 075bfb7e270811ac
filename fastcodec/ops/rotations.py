"""``rotations``: cosines and sines of rotary positions (Su et al. 2021, arXiv:2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import declare_schema


def rotations(frequency: Tensor, position: int, frames: int) -> Tensor:
    """[T, D / 2, 2]: cosine and sine of position * frequency for T positions from ``position`` on.

    The native one alone: a push inside ``push_plan`` takes the same, so that both turn alike. The
    angle is rounded to float32, its cosine and sine are rounded from float64.

    Args:
        frequency: [D / 2] float32, radians a frame
        position: of the first frame
        frames: T
    """
    y: Tensor = torch.ops.fastcodec.rotations.default(frequency, position, frames)
    return y


declare_schema(
    rotations,
    lambda frequency, position, frames: frequency.new_empty(frames, frequency.shape[0], 2),
)
