"""What the processes of a distributed training share; alone, nothing happens."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def several() -> bool:
    """Whether there are other processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def add_up(x: Tensor) -> Tensor:
    """The sum of every process's x, equal on all of them; into x."""
    if several():
        dist.all_reduce(x)
    return x


def of_first(x: Tensor) -> Tensor:
    """The first process's x, whose shape is every process's; into x."""
    if several():
        dist.broadcast(x, src=0)
    return x
