"""The losses by hand, beside upstream's own where it is installed, and their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastcodec.train.adversarial import (
    FEATURES,
    GANS,
    Features,
    Gan,
    discriminator_loss,
    feature_loss,
    generator_loss,
    gradient_penalty,
    held_back,
)
from fastcodec.train.discriminators import Judgement, build, load_weights

from .. import oracles

pytestmark = pytest.mark.usefixtures("one_thread")


def judged(*scores: list[float], maps: tuple[tuple[list[float], ...], ...] = ()) -> list[Judgement]:
    """Discriminators that said this; the maps of each, where they matter."""
    maps = maps or ((),) * len(scores)
    return [
        Judgement(torch.tensor(score), [torch.tensor(m) for m in own])
        for score, own in zip(scores, maps, strict=True)
    ]


REAL, FAKE = judged([2.0, 0.5], [-1.0]), judged([0.0, -3.0], [3.0])


@pytest.mark.parametrize(
    ("kind", "generator", "discriminator"),
    [
        ("hinge", (1.5 - 3) / 2, ((0.25 + 0.5) + (2 + 4)) / 2),
        ("clipped_hinge", (2.5 + 0) / 2, ((0.25 + 0.5) + (2 + 4)) / 2),
        ("least_squares", 8.5 + 4, (0.625 + 4.5) + (4 + 9)),
        (Gan("hinge", average=False), 1.5 - 3, (0.25 + 0.5) + (2 + 4)),
        (Gan("least_squares", average=True), 6.25, 18.125 / 2),
    ],
)
def test_adversarial_losses_by_hand(
    kind: str | Gan, generator: float, discriminator: float
) -> None:
    assert float(generator_loss(FAKE, kind)) == pytest.approx(generator)
    assert float(discriminator_loss(REAL, FAKE, kind)) == pytest.approx(discriminator)


def test_soundstream_weighs_the_spectrum_like_all_scales() -> None:
    """Three scales whose losses are 2, 0 and 4, and the complex spectrum's of 3."""
    real = judged([1.0], [1.0], [1.0], [1.0])
    fake = judged([1.0], [-1.0], [3.0], [2.0])
    assert float(discriminator_loss(real, fake, "soundstream")) == pytest.approx(2 + 3)
    assert float(generator_loss(fake, "soundstream")) == pytest.approx(-(1 - 1 + 3 + 2) / 4)
    with pytest.raises(ValueError, match=r"families \(3, 1\) are of 4 discriminators, got 2"):
        discriminator_loss(REAL, FAKE, "soundstream")


# Means of |fake - real|: 1, 3 and 2; of |real|: 2, 1 and 4. The first discriminator has two maps.
REAL_MAPS = judged([0.0], [0.0], maps=(([2.0, -2.0], [1.0]), ([4.0],)))
FAKE_MAPS = judged([0.0], [0.0], maps=(([3.0, -1.0], [-2.0]), ([2.0],)))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("absolute", 1 + 3 + 2),
        ("normalised", (2 + 2) / 2),
        ("relative", ((0.5 + 3) / 2 + 0.5) / 2),
        ("audiocraft", (2 + 2) / 2),
        ("encodec", ((0.5 + 3) / 2 + 0.5) / 2),
        ("hificodec", 2 * (1 + 3 + 2)),
        ("speechtokenizer", 2 * (1 + 3 + 2)),
        ("funcodec", (1 + 3 + 2) / 3),
        ("soundstream", (1 + 3 + 2) / 3),
        (Features("maps", relative=True, factor=3), 0.5 + 3 + 0.5),
    ],
)
def test_feature_losses_by_hand(kind: str | Features, expected: float) -> None:
    assert float(feature_loss(REAL_MAPS, FAKE_MAPS, kind)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["dac", "audiodec"])
def test_feature_losses_that_leave_the_score_out(kind: str) -> None:
    real = judged([0.0], maps=(([1.0], [5.0], [9.0]),))
    fake = judged([0.0], maps=(([3.0], [4.0], [0.0]),))
    assert float(feature_loss(real, fake, kind)) == pytest.approx(2 + 1)


def test_complex_maps_are_compared_by_magnitude() -> None:
    real = [Judgement(torch.zeros(1), [torch.tensor([0j, 1j])])]
    fake = [Judgement(torch.zeros(1), [torch.tensor([3 + 4j, 1j])])]
    assert float(feature_loss(real, fake, "soundstream")) == pytest.approx(2.5)


def _random(seed: int) -> list[Judgement]:
    draw = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_()

    return [Judgement(values(2, 3), [values(2, 3, 4), values(2, 5)]) for _ in range(4)]


@pytest.mark.parametrize("kind", GANS)
def test_gradients_of_adversarial_losses(kind: str) -> None:
    real, fake = _random(1), _random(2)
    scores = [judgement.score for judgement in (*real, *fake)]

    def losses(*scores: Tensor) -> tuple[Tensor, Tensor]:
        says = [Judgement(score, []) for score in scores]
        return generator_loss(says[4:], kind), discriminator_loss(says[:4], says[4:], kind)

    assert torch.autograd.gradcheck(losses, scores)


@pytest.mark.parametrize("kind", FEATURES)
def test_gradients_of_feature_losses(kind: str) -> None:
    real, fake = _random(1), _random(2)

    def loss(*maps: Tensor) -> Tensor:
        says = [Judgement(torch.zeros(()), list(maps[i : i + 2])) for i in range(0, 8, 2)]
        return feature_loss(real, says, kind)

    assert torch.autograd.gradcheck(loss, [m for judgement in fake for m in judgement.features])
    feature_loss(real, fake, kind).backward()
    assert all(m.grad is None for judgement in real for m in judgement.features)


def test_gradient_penalty() -> None:
    """Slopes of length 3 and 4 around the batch's two signals: 10 times the mean of 4 and 9."""
    wave = torch.zeros(2, 1, 4, requires_grad=True)
    slopes = torch.tensor([[[3.0, 0, 0, 0]], [[0, 0, -4.0, 0]]])
    penalty = gradient_penalty(wave, (wave * slopes).sum())
    assert float(penalty) == pytest.approx(10 * (4 + 9) / 2)


def test_discriminators_wait_for_the_generator() -> None:
    loss = torch.tensor(2.0)
    assert [float(held_back(loss, other)) for other in (1.9, 2.0, torch.tensor(3.0))] == [2, 0, 0]


def test_kinds_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="generator_loss: kind must be one of hinge, .*'lsgan'"):
        generator_loss(FAKE, "lsgan")
    with pytest.raises(ValueError, match="feature_loss: kind must be one of absolute"):
        feature_loss(REAL, FAKE, "hinge")
    with pytest.raises(ValueError, match="Gan.loss must be one of hinge, clipped_hinge"):
        Gan("wasserstein", average=True)
    with pytest.raises(ValueError, match="Features.over must be one of sum"):
        Features("layers")
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        discriminator_loss(REAL, FAKE[:1], "hinge")


def test_beside_dac() -> None:
    """Its losses of a small set of its discriminators."""
    signal = oracles.descript("audiotools").AudioSignal
    upstream = oracles.descript("dac.model.discriminator").Discriminator
    theirs = upstream(periods=[2], fft_sizes=[512])
    net = build("dac", periods=[2], windows=[512])
    load_weights(net, theirs.state_dict())
    draw = torch.Generator().manual_seed(1)
    real, fake = (0.3 * torch.randn(2, 1, 900, generator=draw) for _ in range(2))
    loss = oracles.descript("dac.nn.loss").GANLoss(theirs)
    sound = {"fake": signal(fake, 44100), "real": signal(real, 44100)}
    says = net(real), net(fake)
    torch.testing.assert_close(discriminator_loss(*says, "dac"), loss.discriminator_loss(**sound))
    torch.testing.assert_close(
        (generator_loss(says[1], "dac"), feature_loss(*says, "dac")), loss.generator_loss(**sound)
    )
