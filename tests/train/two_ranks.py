"""A process of two that train a quantizer together: ``two_ranks.py RANK FOLDER``.

Leaves in ``rank<RANK>.pt`` a quantizer's state after a k-means start and some steps with restarts
and dropout (``trained``), another's after one step from given codebooks (``one_step``), and the
gradient that the balancer gives (``balanced``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from fastcodec.layers.quantize import ResidualQuantizer
from fastcodec.train.balancer import Balancer
from fastcodec.train.codebooks import CodebookOptions, TrainedQuantizer

WITHOUT_CHANCE = CodebookOptions(kmeans_iterations=0, restart_below=0.0)
SIZES = (2, 8, 4)  # codebooks, their size, dimension


def latents(rank: int, step: int) -> Tensor:
    """[B, D, T] of a rank: they have unequally many items."""
    return torch.randn(2 + rank, SIZES[2], 10, generator=seeded(100 * rank + step))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantizer(options: CodebookOptions, seed: int) -> TrainedQuantizer:
    books = ResidualQuantizer(*SIZES)
    books.codebooks.copy_(torch.randn(SIZES, generator=seeded(seed)))
    return TrainedQuantizer(books, options, seeded(seed))


def gradients(y: Tensor) -> list[Tensor]:
    """Of two losses at an output [B, D, T]."""
    y = y.clone().requires_grad_()
    return [torch.autograd.grad(loss, y)[0] for loss in (y.abs().mean(), y.square().mean())]


def balanced(y: Tensor) -> Tensor:
    """What the balancer makes of the same losses, with weights 1 and 3."""
    y = y.clone().requires_grad_()
    balancer = Balancer({"a": 1.0, "b": 3.0})
    return balancer.gradient({"a": y.abs().mean(), "b": y.square().mean()}, y)


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder / 'meet'}", rank=rank, world_size=2)
    # What the ranks draw differs, and so do the words they have before the start.
    options = CodebookOptions(kmeans_iterations=5, restart_below=0.5, restart_every=2, dropout=0.9)
    trained = quantizer(options, seed=rank)
    for step in range(7):
        trained(latents(rank, step))
    one = quantizer(WITHOUT_CHANCE, seed=7)
    one(latents(rank, 0), 2)
    found = {
        "trained": trained.state_dict(),
        "one_step": one.state_dict(),
        "balanced": balanced(latents(rank, 0)),
    }
    torch.save(found, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
