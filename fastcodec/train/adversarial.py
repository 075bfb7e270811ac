"""What generator and discriminators are trained on: adversarial losses and feature matching.

Each takes the judgements of the discriminators, and a kind: how scores or feature maps become one
number. A codec's name is a kind, too: the form that its upstream uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fastcodec.train.discriminators import Judgement


@dataclass(frozen=True)
class Gan:
    """A form of the adversarial losses; D is a score, the means run over all its values.

    Args:
        loss: ``"hinge"``: -D(fake) against (1 - D(real))+ and (1 + D(fake))+;
            ``"clipped_hinge"``: the same for the discriminators, (1 - D(fake))+ for the generator;
            ``"least_squares"``: (1 - D(fake))^2 against (1 - D(real))^2 and D(fake)^2
        average: over the discriminators, which are added otherwise
        families: sizes of groups of neighbouring discriminators: for the discriminators' own loss,
            the averages of the groups are added
    """

    loss: str
    average: bool
    families: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _one_of("Gan.loss", self.loss, ("hinge", "clipped_hinge", "least_squares"))


@dataclass(frozen=True)
class Features:
    """A form of feature matching: the mean of |fake - real| of each map, put together.

    Args:
        over: ``"sum"`` of all maps; ``"maps"``: their average; ``"discriminators"``: the average of
            the discriminators' own averages, which differs where their numbers of maps do
        relative: each map's is divided by its mean of |real|
        last: the last map of each discriminator counts; with those that list their score there,
            upstreams disagree
        factor: times all
    """

    over: str
    relative: bool = False
    last: bool = True
    factor: float = 1.0

    def __post_init__(self) -> None:
        _one_of("Features.over", self.over, ("sum", "maps", "discriminators"))


def _one_of(what: str, given: str, known: Iterable[str]) -> None:
    if given not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {given!r}")


GANS = {
    "hinge": Gan("hinge", average=True),
    "clipped_hinge": Gan("clipped_hinge", average=True),
    "least_squares": Gan("least_squares", average=False),
    # Défossez et al. 2022, equation 1 and §3.4
    "encodec": Gan("clipped_hinge", average=True),
    # audiocraft/adversarial/losses.py@bf705222
    "audiocraft": Gan("hinge", average=True),
    # academicodec/models/encodec/loss.py@b6ac1347, for each family; it averages the families
    "academicodec": Gan("clipped_hinge", average=True),
    # funcodec/models/codec_basic.py@3435d870
    "funcodec": Gan("clipped_hinge", average=True),
    # audiolm_pytorch/soundstream.py 2.4.0: three scales, and the complex spectrum as much as they
    "soundstream": Gan("hinge", average=True, families=(3, 1)),
    # dac/nn/loss.py@c7cfc5d2; AudioDec config/autoencoder/*.yaml@e451e625;
    # academicodec/models/hificodec/models.py@b6ac1347; speechtokenizer/trainer/loss.py@30c96fb3
    **dict.fromkeys(
        ("dac", "audiodec", "hificodec", "speechtokenizer"), Gan("least_squares", average=False)
    ),
}

FEATURES = {
    "absolute": Features("sum"),
    "normalised": Features("discriminators"),
    "relative": Features("discriminators", relative=True),
    "encodec": Features("discriminators", relative=True),
    "academicodec": Features("discriminators", relative=True),
    # It also adds up the means of |real|, but divides by the number of maps.
    "audiocraft": Features("discriminators"),
    "funcodec": Features("maps"),
    "soundstream": Features("maps"),
    "dac": Features("sum", last=False),
    "audiodec": Features("sum", last=False),
    "hificodec": Features("sum", factor=2),
    "speechtokenizer": Features("sum", factor=2),
}


def generator_loss(fake: Sequence[Judgement], kind: str | Gan) -> Tensor:
    """How far the discriminators are from taking decoded audio for real: a scalar.

    Args:
        fake: what they say of the decoded audio
        kind: a key of ``GANS``, or a form of one's own
    """
    gan = _form(kind, GANS, "generator_loss")
    scores = [judgement.score for judgement in fake]
    if gan.loss == "hinge":
        losses = [-score.mean() for score in scores]
    elif gan.loss == "clipped_hinge":
        losses = [F.relu(1 - score).mean() for score in scores]
    else:
        losses = [(1 - score).square().mean() for score in scores]
    return _together(losses, gan.average)


def discriminator_loss(
    real: Sequence[Judgement], fake: Sequence[Judgement], kind: str | Gan
) -> Tensor:
    """How far the discriminators are from telling real and decoded audio apart: a scalar.

    Args:
        real: what they say of the real audio
        fake: what they say of the decoded audio, which the caller has detached from the decoder
        kind: a key of ``GANS``, or a form of one's own
    """
    gan = _form(kind, GANS, "discriminator_loss")
    losses = []
    for (true, _), (made, _) in zip(real, fake, strict=True):
        if gan.loss == "least_squares":
            losses.append((1 - true).square().mean() + made.square().mean())
        else:
            losses.append(F.relu(1 - true).mean() + F.relu(1 + made).mean())
    if not gan.families:
        return _together(losses, gan.average)
    if sum(gan.families) != len(losses):
        raise ValueError(
            f"discriminator_loss: the families {gan.families} are of {sum(gan.families)} "
            f"discriminators, got {len(losses)}"
        )
    parts = torch.stack(losses).split(gan.families)
    return _together([part.mean() for part in parts], average=False)


def feature_loss(
    real: Sequence[Judgement], fake: Sequence[Judgement], kind: str | Features
) -> Tensor:
    """How far the feature maps of decoded audio are from those of the real audio: a scalar.

    No gradient flows into the maps of the real audio.

    Args:
        real: what the discriminators say of the real audio
        fake: what they say of the decoded audio
        kind: a key of ``FEATURES``, or a form of one's own
    """
    form = _form(kind, FEATURES, "feature_loss")
    losses: list[list[Tensor]] = []
    for (_, true), (_, made) in zip(real, fake, strict=True):
        pairs = list(zip(true, made, strict=True))
        losses.append(
            [_distance(*pair, form.relative) for pair in pairs[: None if form.last else -1]]
        )
    if form.over == "discriminators":
        total = _together([_together(own, average=True) for own in losses], average=True)
    else:
        total = _together([loss for own in losses for loss in own], form.over == "maps")
    return total * form.factor


def gradient_penalty(wave: Tensor, loss: Tensor, weight: float = 10.0) -> Tensor:
    """Keeps a discriminator's slope near one: the batch's mean of (|d loss / d wave| - 1)^2.

    Gulrajani et al. 2017 (arXiv 1704.00028), taken as in audiolm-pytorch 2.4.0 soundstream.py.

    Args:
        wave: [B, C, S] real audio that requires its gradient
        loss: what a discriminator's judgement of it came to
        weight: times all
    """
    (slopes,) = torch.autograd.grad(loss, wave, torch.ones_like(loss), create_graph=True)
    norms = torch.linalg.vector_norm(slopes.flatten(1), dim=1)
    return weight * (norms - 1).square().mean()


def held_back(loss: Tensor, generators: Tensor | float) -> Tensor:
    """The discriminators' loss while it is above the generator's, or zero: they wait for it.

    funcodec/models/codec_basic.py@3435d870.
    """
    return loss * (loss > generators)


Form = TypeVar("Form", Gan, Features)


def _form(kind: str | Form, known: Mapping[str, Form], where: str) -> Form:
    if not isinstance(kind, str):
        return kind
    _one_of(f"{where}: kind", kind, known)
    return known[kind]


def _distance(real: Tensor, fake: Tensor, relative: bool) -> Tensor:
    """Mean of |fake - real|, which are complex with one discriminator."""
    real = real.detach()
    difference = (fake - real).abs().mean()
    return difference / real.abs().mean() if relative else difference


def _together(losses: Sequence[Tensor], average: bool) -> Tensor:
    stacked = torch.stack(list(losses))
    return stacked.mean() if average else stacked.sum()
