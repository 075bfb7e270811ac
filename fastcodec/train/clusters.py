"""Clusters of row vectors: sums per cluster, random rows, k-means; every process's rows count.

encodec/quantization/core_vq.py@0e2d0aed has k-means; it starts from one process's rows only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec import ops
from fastcodec.train import ranks


def tally(rows: Tensor, clusters: Tensor, n_clusters: int) -> tuple[Tensor, Tensor]:
    """Rows per cluster [N], as a float, and their sums [N, D]; always added in the same order.

    Args:
        rows: [M, D] float
        clusters: [M] int64, each row's; those of N are not counted
    """
    sizes = torch.bincount(clusters, minlength=n_clusters + 1)
    in_order = rows[clusters.argsort(stable=True)]
    sums = torch.segment_reduce(in_order, "sum", lengths=sizes, axis=0)
    return sizes[:n_clusters].to(rows.dtype), sums[:n_clusters]


def draw(count: int, size: int, generator: torch.Generator | None) -> Tensor:
    """[size] numbers below ``count`` at random, each once where there are enough."""
    if count >= size:
        return torch.randperm(count, generator=generator)[:size]
    return torch.randint(count, (size,), generator=generator)


def sample(rows: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """[size, D] of the first process's rows [M, D], by ``draw``."""
    chosen = draw(len(rows), size, generator)
    return ranks.of_first(rows[chosen.to(rows.device)])


def nearest(rows: Tensor, words: Tensor) -> Tensor:
    """[M] the nearest of words [N, D] to each of rows [M, D], as the quantizer chooses it."""
    codes: Tensor = ops.rvq_encode(rows.T[None], words[None])
    return codes[0, 0]


def kmeans(
    rows: Tensor,
    n_clusters: int,
    iterations: int,
    generator: torch.Generator | None,
    resample: bool = False,
) -> tuple[Tensor, Tensor]:
    """Means [N, D] and the number of rows [N] of each, after Lloyd's iterations from random rows.

    An empty cluster keeps its mean, or takes a random row (``resample``).
    """
    means = sample(rows, n_clusters, generator)
    sizes = means.new_zeros(n_clusters)
    for _ in range(iterations):
        sizes, sums = tally(rows, nearest(rows, means), n_clusters)
        sizes, sums = ranks.add_up(sizes), ranks.add_up(sums)
        others = sample(rows, n_clusters, generator) if resample else means
        means = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], others)
    return means, sizes
