"""Quantizers made of residual ones, in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastcodec.layers.quantize import (
    GroupedResidualQuantizer,
    Quantizer,
    ResidualQuantizer,
    SplitQuantizer,
)
from fastcodec.train.codebooks import OPTIONS, CodebookOptions, TrainedQuantizer
from fastcodec.train.composed import TrainedGroups, TrainedSplit

from ..nets import generator

pytestmark = pytest.mark.usefixtures("one_thread")

NO_CHANCE = CodebookOptions(kmeans_iterations=0, restart_below=0.0)
MAKERS: dict[str, Callable[[CodebookOptions], tuple[Quantizer, Any]]] = {
    "groups": lambda options: both(GroupedResidualQuantizer(2, 3, 8, 6), TrainedGroups, options),
    "split": lambda options: both(SplitQuantizer(1, 4, 8, 3, 6), TrainedSplit, options),
}


def both(quantizer: Any, trained: Any, options: CodebookOptions) -> tuple[Quantizer, Any]:
    return quantizer, trained(quantizer, options, generator(0))


def latents(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


@pytest.mark.parametrize("name", MAKERS)
def test_agrees_with_the_quantizer(name: str) -> None:
    quantizer, trained = MAKERS[name](NO_CHANCE)
    x = latents(2, 6, 10)
    for count in range(1, quantizer.n_codebooks + 1):
        got = trained.eval()(x, count)
        codes = quantizer.encode(x, count)
        assert torch.equal(got.codes[:, :count], codes)
        assert (got.codes[:, count:] == -1).all()
        torch.testing.assert_close(got.latent, quantizer.decode(codes), rtol=1e-4, atol=1e-5)
    assert got.commitment.item() == pytest.approx(got.commitments.mean().item())


@pytest.mark.parametrize("name", MAKERS)
def test_every_codebook_learns(name: str) -> None:
    quantizer, trained = MAKERS[name](CodebookOptions(dropout=0.5))
    far, errors = latents(4, 6, 50) + 3, []
    for _ in range(60):
        got = trained(far, quantizer.n_codebooks if len(errors) % 2 else None)
        errors.append((got.latent - far).square().mean().item())
    assert all(bool(part.inited.all()) for part in trained.parts)
    if name == "groups":  # the split one's projections are not trained here
        assert errors[-1] < 0.2 * far.square().mean().item()


def test_hificodec_words_learn_by_gradient() -> None:
    """Two words on a line, 0 and 10, that stand for 1, 2 and 9."""
    quantizer = ResidualQuantizer(1, 2, 1)
    quantizer.codebooks.copy_(torch.tensor([[[0.0], [10.0]]]))
    trained = TrainedQuantizer(quantizer, OPTIONS["hificodec"])
    assert isinstance(quantizer.codebooks, nn.Parameter)
    x = torch.tensor([[[1.0, 2.0, 9.0]]]).requires_grad_()
    got = trained(x)
    assert got.codebook.item() == got.commitment.item() == pytest.approx(2)
    (words,) = torch.autograd.grad(got.codebook, quantizer.codebooks, retain_graph=True)
    assert words.flatten().tolist() == pytest.approx([-2, 2 / 3])  # 2 / 3 * the sum of differences
    (moved,) = torch.autograd.grad(got.commitment, x)
    assert moved.flatten().tolist() == pytest.approx([2 / 3, 4 / 3, -2 / 3])
    assert quantizer.codebooks.flatten().tolist() == [0, 10]
    assert list(quantizer.state_dict()) == ["codebooks"]


def test_items_without_a_part_pass_no_gradient_through_it() -> None:
    _, trained = MAKERS["groups"](NO_CHANCE)
    x = latents(2, 6, 10).requires_grad_()
    trained(x, torch.tensor([1, 6])).latent.sum().backward()
    assert x.grad is not None
    assert x.grad[0, :2].eq(1).all() and x.grad[0, 2:].eq(0).all() and x.grad[1].eq(1).all()
