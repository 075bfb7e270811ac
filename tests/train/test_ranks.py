"""Two processes: equal codebooks on both, and what one process with both batches would have."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.distributed as dist

from . import two_ranks

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch without gloo")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each rank left."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, two_ranks.__file__]
    ranks = [subprocess.Popen([*command, str(rank), str(folder)]) for rank in range(2)]
    try:
        assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_codebooks_stay_equal_on_both_ranks(both: list[Any]) -> None:
    first, second = both[0]["trained"], both[1]["trained"]
    assert first["inited"].all()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_two_ranks_learn_what_one_would(both: list[Any]) -> None:
    alone = two_ranks.quantizer(two_ranks.WITHOUT_CHANCE, seed=7)
    alone(torch.cat([two_ranks.latents(rank, 0) for rank in range(2)]), 2)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(both[0]["one_step"][name], value, msg=name)


def test_the_balancer_takes_the_mean_norm_of_all_items(both: list[Any]) -> None:
    grads = [two_ranks.gradients(two_ranks.latents(rank, 0)) for rank in range(2)]
    norms = [torch.cat(g).flatten(1).norm(dim=1).mean() for g in zip(*grads, strict=True)]
    for rank in range(2):
        want = grads[rank][0] * 0.25 / norms[0] + grads[rank][1] * 0.75 / norms[1]
        torch.testing.assert_close(both[rank]["balanced"], want)
