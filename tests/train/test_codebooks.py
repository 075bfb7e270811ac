"""Codebooks in training: known steps, upstream's rules, chance, dropout, gradients."""

from __future__ import annotations

import io
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor

from fastcodec import use_backend
from fastcodec.layers.quantize import (
    FactorisedLevel,
    FactorisedQuantizer,
    MultiRateQuantizer,
    ResidualQuantizer,
)
from fastcodec.train import clusters
from fastcodec.train.codebooks import (
    OPTIONS,
    CodebookOptions,
    TrainedFactorised,
    TrainedQuantizer,
    perplexity,
)
from fastcodec.train.quantized import drawn_numbers, estimate

from .. import oracles
from ..nets import generator

pytestmark = pytest.mark.usefixtures("one_thread")

NO_CHANCE = CodebookOptions(kmeans_iterations=0, restart_below=0.0)


def latents(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def made(options: CodebookOptions, *sizes: int, seed: int = 0) -> TrainedQuantizer:
    """In training mode, with random words; sizes: codebooks, their size, dimension."""
    quantizer = ResidualQuantizer(*sizes)
    quantizer.codebooks.copy_(latents(*sizes, seed=seed))
    return TrainedQuantizer(quantizer, options, generator(seed))


def state_after(trained: TrainedQuantizer, steps: range) -> dict[str, Tensor]:
    for step in steps:
        trained(latents(2, 4, 30, seed=step))
    return {name: value.clone() for name, value in trained.state_dict().items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def test_a_step_of_the_moving_averages_by_hand() -> None:
    """Two words on a line, 0 and 10; the latents 1, 2 and 9; decay 0.5 from one use each."""
    trained = made(replace(NO_CHANCE, decay=0.5, epsilon=0.0), 1, 2, 1)
    trained.quantizer.codebooks.copy_(torch.tensor([[[0.0], [10.0]]]))
    got = trained(torch.tensor([[[1.0, 2.0, 9.0]]]))
    assert got.latent.tolist() == [[[0.0, 0.0, 10.0]]]  # of the words before the step
    assert got.codes.tolist() == [[[0, 0, 1]]]
    assert got.commitment == pytest.approx((1 + 4 + 1) / 3)
    assert trained.cluster_size.tolist() == [[1.5, 1.0]]
    assert trained.embed_avg.flatten().tolist() == [1.5, 9.5]
    assert trained.quantizer.codebooks.flatten().tolist() == [1.0, 9.5]


def test_evaluation_changes_nothing_and_agrees_with_the_quantizer() -> None:
    trained = made(OPTIONS["mimi"], 3, 16, 4)
    state_after(trained, range(4))
    trained.eval()
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    x = latents(2, 4, 20)
    got = trained(x)
    assert torch.equal(got.codes, trained.quantizer.encode(x))
    torch.testing.assert_close(got.latent, trained.quantizer.decode(got.codes))
    torch.testing.assert_close(got.first, trained.quantizer.decode(got.codes[:, :1]))
    assert_equal(before, trained.state_dict())


def test_kmeans_finds_what_is_there() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    rows = centres.repeat(20, 1) + 0.1 * latents(60, 2)
    with mock.patch.object(clusters, "draw", lambda *_: torch.tensor([0, 1, 2])):
        means, sizes = clusters.kmeans(rows, 3, 5, None)
    assert sizes.tolist() == [20, 20, 20]
    torch.testing.assert_close(means, rows.view(20, 3, 2).mean(0))


@pytest.mark.parametrize("resample", [False, True])
def test_an_empty_cluster(resample: bool) -> None:
    rows = torch.tensor([[0.0], [0.0], [4.0]])
    starts = iter([[0, 1, 2], [2, 2, 2]])  # two equal means: the second gets no row
    with mock.patch.object(clusters, "draw", lambda *_: torch.tensor(next(starts))):
        means, sizes = clusters.kmeans(rows, 3, 1, None, resample)
    assert sizes.tolist() == [2, 0, 1]
    assert means.flatten().tolist() == [0.0, 4.0 if resample else 0.0, 4.0]


def test_codebooks_start_one_batch_after_the_other_and_are_not_used_before() -> None:
    trained = made(CodebookOptions(), 3, 4, 4)
    for step in range(4):
        got = trained(latents(2, 4, 30, seed=step))
        ready = min(step + 1, 3)
        assert trained.inited.tolist() == [i < ready for i in range(3)]
        assert (got.codes >= 0).all(2).tolist() == [[i < ready for i in range(3)]] * 2
        assert (got.commitments[ready:] == 0).all()
    assert made(CodebookOptions(all_at_once=True), 3, 4, 4)(latents(2, 4, 30)).codes.min() == 0


def restarted(**options: object) -> tuple[TrainedQuantizer, Tensor]:
    """A quantizer one of whose words is far from every latent, after some steps."""
    chosen = replace(NO_CHANCE, restart_below=0.5, **options)  # type: ignore[arg-type]
    trained = made(chosen, 1, 4, 2)
    trained.quantizer.codebooks[0, 3] = 1000.0
    x = latents(1, 2, 40)
    for _ in range(200):
        got = trained(x)
    return trained, got.codes


def test_a_dead_code_is_restarted_and_used() -> None:
    trained, codes = restarted()
    assert set(codes.unique().tolist()) == {0, 1, 2, 3}
    assert trained.quantizer.codebooks.abs().max() < 10


def test_a_restart_that_is_undone_does_nothing() -> None:
    trained, codes = restarted(restart_undone=True)
    assert 3 not in codes
    assert trained.quantizer.codebooks[0, 3].min() > 900


def test_sums_after_kmeans() -> None:
    right, wrong = (
        made(CodebookOptions(kmeans_iterations=9, means_for_sums=flag, decay=1.0), 1, 4, 4)
        for flag in (False, True)
    )
    for trained in (right, wrong):
        trained(latents(2, 4, 30))
    means = clusters.kmeans(latents(2, 4, 30).mT.flatten(0, 1), 4, 9, generator(0))[0]
    torch.testing.assert_close(right.quantizer.codebooks[0], means)
    assert wrong.quantizer.codebooks.abs().max() < 0.5 * means.abs().max()


def test_upstream_peculiarities_are_off() -> None:
    options = CodebookOptions()
    assert not (
        options.all_at_once
        or options.means_for_sums
        or options.restart_undone
        or options.first_commits_alone
    )


@pytest.mark.parametrize("alone", [False, True])
def test_gradient_of_the_commitment(alone: bool) -> None:
    trained = made(replace(NO_CHANCE, first_commits_alone=alone), 2, 8, 4)
    x = latents(1, 4, 10).requires_grad_()
    (further,) = torch.autograd.grad(trained(x).commitments[1], x, allow_unused=True)
    assert (further is None or not further.any()) == alone


def test_mimi_rules_step_by_step() -> None:
    """Against moshi's own codebook, k-means and restarts taking the first rows instead of any."""
    upstream = oracles.moshi("moshi.quantization.core_vq")
    theirs = upstream.EuclideanCodebook(4, 16, decay=0.5, check_unused_every=3).train()
    options = replace(OPTIONS["mimi"], decay=0.5, restart_every=3, dropout=0.0)
    ours, restarts = made(options, 1, 16, 4), 0.0
    with (
        mock.patch.object(upstream, "_sample_vectors", lambda rows, size: rows[:size]),
        mock.patch.object(clusters, "sample", lambda rows, size, _: rows[:size]),
    ):
        for step in range(12):
            x = latents(2, 4, 30, seed=step) * (1 if step < 3 else 0.2)  # some codes die
            want, got = theirs(x.mT), ours(x)
            restarts += want.metrics["rvq_expired"].item()
            assert torch.equal(got.codes[:, 0], want.codes)
            torch.testing.assert_close(ours.cluster_size[0], theirs.cluster_usage)
            torch.testing.assert_close(ours.embed_avg[0], theirs.embedding_sum)
            torch.testing.assert_close(ours.quantizer.codebooks[0], theirs.embedding)
    assert restarts


def test_the_same_generator_gives_the_same_bits_and_a_resumed_training_goes_on() -> None:
    options = CodebookOptions(dropout=0.5, restart_below=0.5, restart_every=2)
    whole = state_after(made(options, 3, 16, 4), range(8))
    assert_equal(whole, state_after(made(options, 3, 16, 4), range(8)))
    assert not torch.equal(
        whole["quantizer.codebooks"],
        state_after(made(options, 3, 16, 4, seed=1), range(8))["quantizer.codebooks"],
    )
    half = made(options, 3, 16, 4)
    state_after(half, range(5))
    torch.save({"net": half.state_dict(), "chance": half.generator.get_state()}, f := io.BytesIO())
    f.seek(0)
    loaded, resumed = torch.load(f, weights_only=True), made(options, 3, 16, 4, seed=5)
    resumed.load_state_dict(loaded["net"])
    resumed.generator.set_state(loaded["chance"])
    assert_equal(whole, state_after(resumed, range(5, 8)))


def test_lower_precision_around_does_not_reach_the_quantizer() -> None:
    x = latents(2, 4, 30)
    plain = made(NO_CHANCE, 3, 16, 4)
    mixed = made(NO_CHANCE, 3, 16, 4)
    want = plain(x)
    with use_backend("reference"), torch.autocast("cpu", torch.bfloat16):
        got = mixed(x)
    assert got.latent.dtype is torch.float32
    assert torch.equal(got.codes, want.codes)
    torch.testing.assert_close(mixed.quantizer.codebooks, plain.quantizer.codebooks)


def test_dropout_draws() -> None:
    def numbers(**options: object) -> list[int]:
        chosen = CodebookOptions(**options)  # type: ignore[arg-type]
        return drawn_numbers(chosen, 1000, 8, generator(0)).tolist()

    assert numbers() == [8] * 1000
    items = numbers(dropout=0.5)
    assert set(items[:500]) == set(range(1, 9))
    assert items[500:] == [8] * 500
    assert set(numbers(dropout=1.0, dropout_to=(2, 4, 16))) == {2, 4}
    batches = [
        set(drawn_numbers(OPTIONS["encodec"], 3, 8, generator(seed)).tolist()) for seed in range(40)
    ]
    assert all(len(batch) == 1 for batch in batches)
    assert set.union(*batches) == {2, 4, 8}


def test_items_with_fewer_codebooks() -> None:
    trained = made(NO_CHANCE, 3, 16, 4).train()
    before = trained.quantizer.codebooks.clone()
    x, numbers = latents(3, 4, 10), torch.tensor([1, 2, 1])
    got = trained(x, numbers)
    assert ((got.codes >= 0).all(2).sum(1) == numbers).all()
    assert torch.equal(trained.quantizer.codebooks[2], before[2]), "nobody used it"
    trained.quantizer.codebooks.copy_(before)
    for item, number in enumerate(numbers.tolist()):
        own = trained.eval()(x[item : item + 1], number)
        torch.testing.assert_close(got.latent[item], own.latent[0])
    assert got.commitments[2] == 0


@pytest.mark.parametrize("wrong", [-1, 4, torch.tensor([1, 2, 3])])
def test_numbers_that_there_are_not(wrong: int | Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected 0 \.\. 3 for 2 items"):
        made(NO_CHANCE, 3, 16, 4)(latents(2, 4, 10), wrong)


def test_straight_through_passes_the_gradient_once() -> None:
    x, weight = latents(2, 4, 10).requires_grad_(), latents(2, 4, 10, seed=1)
    (made(NO_CHANCE, 3, 16, 4)(x).latent * weight).sum().backward()
    assert torch.equal(x.grad, weight)


def test_rotation_turns_the_gradient_as_the_latent() -> None:
    """In the plane, where the rotation and the scaling can be written as one complex factor."""
    x = latents(1, 2, 5, dtype=torch.float64).requires_grad_()
    words = latents(1, 2, 5, seed=1, dtype=torch.float64)
    y = estimate(x, words, "rotation")
    torch.testing.assert_close(y, words)
    y.backward(weight := latents(1, 2, 5, seed=2, dtype=torch.float64))

    def number(v: Tensor) -> Tensor:
        return torch.complex(v[:, 0], v[:, 1])

    factor = (number(words) / number(x)).detach()
    torch.testing.assert_close(number(x.grad), number(weight) * factor.conj())


@pytest.mark.parametrize("quirk", [False, True])
def test_commitment_gradcheck(quirk: bool) -> None:
    trained = made(replace(NO_CHANCE, first_commits_alone=quirk), 2, 8, 4).double().eval()
    x = latents(1, 4, 5, dtype=torch.float64).requires_grad_()

    def loss(x: Tensor) -> Tensor:
        return trained(x).commitments[: 1 if quirk else 2]  # the second is cut off on purpose

    assert torch.autograd.gradcheck(loss, (x,))


def test_factorised_gradcheck() -> None:
    """Of what no estimate stands in for: the first level's losses, and the words and projections'
    part in the output.
    """
    trained = TrainedFactorised(FactorisedQuantizer(1, 8, 3, 4)).double()
    (level,) = trained.quantizer.levels
    assert isinstance(level, FactorisedLevel)
    x = latents(1, 4, 5, dtype=torch.float64).requires_grad_()
    weights = [level.in_proj.weight, level.in_proj.bias]
    assert torch.autograd.gradcheck(lambda x, *_: trained(x).commitment, (x, *weights))
    assert torch.autograd.gradcheck(lambda _: trained(x).codebook, (level.codebook,))
    assert torch.autograd.gradcheck(
        lambda *_: trained(x.detach()).latent, (level.out_proj.weight, level.out_proj.bias)
    )


def test_factorised_agrees_with_the_quantizer() -> None:
    for quantizer in (FactorisedQuantizer(3, 16, 3, 4), MultiRateQuantizer((4, 2, 1), 16, 3, 4)):
        trained, x = TrainedFactorised(quantizer), latents(2, 4, 8)
        got = trained(x)
        assert torch.equal(got.codes, quantizer.encode(x))
        torch.testing.assert_close(got.latent, quantizer.decode(got.codes), rtol=1e-5, atol=1e-5)
        assert got.commitment.item() == pytest.approx(got.commitments.sum().item())


def test_factorised_rotation_keeps_the_output() -> None:
    quantizer, x = FactorisedQuantizer(2, 16, 3, 4), latents(2, 4, 8).requires_grad_()
    grads = []
    for gradient in ("straight_through", "rotation"):
        got = TrainedFactorised(quantizer, CodebookOptions(gradient=gradient))(x)  # type: ignore[arg-type]
        torch.testing.assert_close(got.latent, quantizer.decode(got.codes), rtol=1e-4, atol=1e-5)
        grads += torch.autograd.grad(got.latent.square().sum(), x)
    assert not torch.allclose(*grads, rtol=0.01)


def test_perplexity() -> None:
    codes = torch.tensor([[[0, 1, 2, 3], [5, 5, 5, 5], [0, 0, 1, 1], [-1, -1, 7, 7]]])
    assert perplexity(codes, 8).tolist() == pytest.approx([4, 1, 2, 1])
