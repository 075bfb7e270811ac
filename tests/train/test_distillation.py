"""Semantic distillation: known values, teachers, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastcodec.train.distillation import LOSSES, Distillation, cosine, d_axis, t_axis

from ..nets import generator, signal
from .peers import speechtokenizer_losses

SIGMOID = -math.log(1 / (1 + math.exp(-1)))  # -log sigmoid of the cosine of equal directions


def test_equal_features() -> None:
    x = signal(2, 5, 7)
    assert d_axis(x, 3 * x).item() == pytest.approx(SIGMOID)
    assert t_axis(x, x).item() == pytest.approx(SIGMOID)
    assert t_axis(x, 3 * x, similarity=0).item() == pytest.approx(2 * x.abs().mean().item())
    assert cosine(x, 3 * x).item() == pytest.approx(0, abs=1e-6)
    assert cosine(x, -x).item() == pytest.approx(2)


def test_axes() -> None:
    """Two features over two frames: scaling a frame does not turn it, but its features' courses."""
    student = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])
    teacher = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    along = -math.log(1 / (1 + math.exp(-math.sqrt(0.5))))
    assert d_axis(student, teacher).item() == pytest.approx(along)
    assert t_axis(student, 2 * student).item() == pytest.approx(1 + SIGMOID)


def test_d_axis_as_speechtokenizer_has_it() -> None:
    """Its features are the last dimension; its other loss calls a function that torch lacks."""
    student, teacher = signal(2, 5, 7), signal(2, 5, 9, seed=1)
    want = speechtokenizer_losses().d_axis_distill_loss(student.mT, teacher.mT)
    torch.testing.assert_close(d_axis(student, teacher[..., :7]), want)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradcheck(name: str) -> None:
    distillation = Distillation(3, 5, name).double()  # type: ignore[arg-type]
    first = torch.randn(2, 3, 6, generator=generator(0), dtype=torch.float64).requires_grad_()
    teacher = torch.randn(2, 5, 4, generator=generator(1), dtype=torch.float64)
    weights = distillation.transform.weight
    assert torch.autograd.gradcheck(lambda x, _: distillation(x, teacher), (first, weights))


def test_a_callable_teacher_gets_the_audio_and_no_gradient() -> None:
    scale = torch.ones(()).requires_grad_()

    def teacher(wav: Tensor) -> Tensor:
        assert wav.shape == (2, 1, 60)
        return scale * wav.reshape(2, 10, 6).mT.repeat(1, 1, 1)

    given, called = Distillation(3, 6), Distillation(3, 6, teacher=teacher)
    called.load_state_dict(given.state_dict())
    wav, first = signal(2, 1, 60), signal(2, 3, 10, seed=1)
    loss = called(first, wav)
    assert loss == given(first, teacher(wav).detach())
    loss.backward()
    assert scale.grad is None


def test_a_module_as_teacher_is_not_trained_or_saved() -> None:
    distillation = Distillation(3, 6, teacher=torch.nn.Conv1d(1, 6, 1))
    assert set(distillation.state_dict()) == {"transform.weight", "transform.bias"}
    assert len(list(distillation.parameters())) == 2


def test_a_faster_teacher_is_averaged() -> None:
    """Mimi's: means over 8 frames of 50 Hz, 4 apart."""
    distillation, first = Distillation(3, 6, "cosine", every=4), signal(1, 3, 5)
    teacher = signal(1, 6, 20, seed=1)
    means = [teacher[..., max(0, 4 * t - 2) : 4 * t + 6].mean(2) for t in range(5)]
    plain = Distillation(3, 6, "cosine")
    plain.load_state_dict(distillation.state_dict())
    torch.testing.assert_close(distillation(first, teacher), plain(first, torch.stack(means, 2)))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="d_axis, t_axis, cosine, got 'l2'"):
        Distillation(3, 6, "l2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"expected teacher features \[2, 6, T\], got \[2, 5, 9\]"):
        Distillation(3, 6)(signal(2, 3, 9), signal(2, 5, 9))
