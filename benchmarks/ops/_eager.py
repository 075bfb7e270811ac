"""What the files here share: the peer is torch eager, in the layout that suits it best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import package
from benchmarks.runner import Peer


def generator() -> Callable[..., Tensor]:
    """A function that draws normal tensors, the same ones in every run."""
    source = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=source)


def time_major(x: Tensor) -> Tensor:
    """The [B, C, T] tensor with channels adjacent in memory, our kernels' layout."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def eager(variants: Mapping[str, Callable[[], Any]]) -> list[Peer]:
    """Torch as the only peer."""
    return [Peer(f"{package('torch')} eager", variants)]


def n_bytes(*tensors: Tensor) -> int:
    """Memory of the tensors, each counted once."""
    return sum(t.numel() * t.element_size() for t in tensors)
