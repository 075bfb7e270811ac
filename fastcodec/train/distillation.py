"""Semantic distillation: the first codebook learns to say what a speech model's features say.

SpeechTokenizer (arXiv:2308.16692, section 3.2; speechtokenizer/trainer/loss.py@30c96fb3) and Mimi
(arXiv:2410.00037, section 3.3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
Teacher = Callable[[Tensor], Tensor]


def d_axis(student: Tensor, teacher: Tensor) -> Tensor:
    """-log sigmoid of the cosine between each feature's course over time, of both [B, D, T]."""
    return -F.logsigmoid(F.cosine_similarity(student, teacher, dim=2)).mean()


def t_axis(student: Tensor, teacher: Tensor, similarity: float = 1.0) -> Tensor:
    """Mean absolute difference, and -log sigmoid of each frame's cosine, of both [B, D, T].

    Args:
        similarity: weight of the latter
    """
    cosine = F.cosine_similarity(student, teacher, dim=1)
    return F.l1_loss(student, teacher) - similarity * F.logsigmoid(cosine).mean()


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - the cosine of each frame, the mean of them, of both [B, D, T]."""
    return 1 - F.cosine_similarity(student, teacher, dim=1).mean()


LOSSES: dict[str, Loss] = {"d_axis": d_axis, "t_axis": t_axis, "cosine": cosine}


class Distillation(nn.Module):
    """Compares projected first-codebook latents with a teacher's features.

    Args:
        dimension, teacher_dimension: features of the latents and of the teacher's
        loss: SpeechTokenizer's ``"d_axis"`` or ``"t_axis"``, or Mimi's ``"cosine"``
        teacher: target audio [B, C, S] -> features [B, teacher_dimension, T], run without
            gradient; where None, features are given in each call. No part of the state dict
        every: teacher frames per latent frame; each mean is over twice as many (Mimi: 4)
    """

    def __init__(
        self,
        dimension: int,
        teacher_dimension: int,
        loss: Literal["d_axis", "t_axis", "cosine"] = "d_axis",
        teacher: Teacher | None = None,
        every: int = 1,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"Distillation: expected a loss of {', '.join(LOSSES)}, got {loss!r}")
        self.transform = nn.Linear(dimension, teacher_dimension)
        self.loss, self.every = LOSSES[loss], every
        self._teacher = (teacher,)  # in a tuple, so that a module's parameters are not found

    def forward(self, first: Tensor, teacher: Tensor) -> Tensor:
        """The loss, over the frames that both have.

        Args:
            first: [B, dimension, T], see ``Quantized.first``
            teacher: what the teacher takes, or [B, teacher_dimension, T'] where there is none
        """
        (model,) = self._teacher
        if model is not None:
            with torch.no_grad():
                teacher = model(teacher)
        if self.every > 1:
            teacher = F.avg_pool1d(
                teacher, 2 * self.every, self.every, self.every // 2, count_include_pad=False
            )
        student = self.transform(first.transpose(1, 2)).transpose(1, 2)
        if teacher.shape[:2] != student.shape[:2]:
            raise ValueError(
                f"Distillation: expected teacher features [{student.shape[0]}, "
                f"{student.shape[1]}, T], got {list(teacher.shape)}"
            )
        frames = min(student.shape[2], teacher.shape[2])
        return self.loss(student[..., :frames], teacher[..., :frames])
