"""EnCodec's balancer (its golden vectors are in tests/golden)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastcodec.train.balancer import Balancer

from ..nets import signal


def losses(y: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
    return {"small": y.abs().mean(), "large": scale * y.square().mean()}


def balanced(balancer: Balancer, scale: float = 1.0, seed: int = 0) -> Tensor:
    y = signal(3, 1, 20, seed=seed).requires_grad_()
    return balancer.gradient(losses(y, scale), y)


def test_the_size_of_a_loss_does_not_matter() -> None:
    plain, scaled = (balanced(Balancer({"small": 1, "large": 2}), s) for s in (1, 1e6))
    torch.testing.assert_close(plain, scaled)


def test_without_rescaling_it_is_the_weighted_sum() -> None:
    y = signal(3, 1, 20).requires_grad_()
    weighted = y.abs().mean() + 2 * y.square().mean()
    (want,) = torch.autograd.grad(weighted, y)
    torch.testing.assert_close(balanced(Balancer({"small": 1, "large": 2}, rescale=False)), want)


@pytest.mark.parametrize("per_item", [True, False])
def test_one_loss_has_the_whole_norm(per_item: bool) -> None:
    y = signal(3, 1, 20).requires_grad_()
    balancer = Balancer({"a": 7, "absent": 1}, total_norm=2.0, per_item=per_item)
    grad = balancer.gradient({"a": y.square().mean()}, y)
    norm = grad.flatten(1).norm(dim=1).mean() if per_item else grad.norm()
    assert norm.item() == pytest.approx(2.0)


def test_backward_reaches_what_is_before_the_output() -> None:
    weight = torch.ones(()).requires_grad_()
    y = weight * signal(3, 1, 20)
    Balancer({"small": 1, "large": 2}).backward(losses(y), y)
    want = (balanced(Balancer({"small": 1, "large": 2})) * signal(3, 1, 20)).sum()
    torch.testing.assert_close(weight.grad, want)


def test_its_state_is_what_a_resumed_training_needs() -> None:
    whole, half = (Balancer({"small": 1, "large": 2}, ema_decay=0.9) for _ in range(2))
    want = [balanced(whole, seed=seed) for seed in range(4)]
    for seed in range(2):
        balanced(half, seed=seed)
    resumed = Balancer({"small": 1, "large": 2}, ema_decay=0.9)
    resumed.load_state_dict(half.state_dict())
    assert all(torch.equal(balanced(resumed, seed=seed), want[seed]) for seed in (2, 3))


def test_a_loss_without_weight() -> None:
    with pytest.raises(ValueError, match="large has no weight; there are small"):
        balanced(Balancer({"small": 1}))
