"""``rvq_decode``: the sum of the code words that a residual vector quantizer's codes name."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import op, time_major


def _fake(codes: Tensor, codebooks: Tensor) -> Tensor:
    return time_major(codebooks, codes.shape[0], codebooks.shape[2], codes.shape[2])


@op(fake=_fake, trainable=True, decided_by=1)
def rvq_decode(codes: Tensor, codebooks: Tensor) -> Tensor:
    """[B, D, T], time-major: the sum over the stages, in their order, starting from zero.

    Args:
        codes: [B, K, T] int64, 0 .. N - 1, or -1 for a stage that adds nothing
        codebooks: [K' >= K, N, D] float
    """
    total = torch.zeros((), dtype=codebooks.dtype, device=codebooks.device)
    for stage, words in zip(codes.unbind(1), codebooks, strict=False):
        total = total + words[stage.clamp(min=0)] * (stage >= 0)[..., None]
    return total.transpose(1, 2)


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)
    books = torch.randn(4, 64, 32, generator=g)
    return [
        (torch.randint(-1, 64, (2, 4, 30), generator=g), books),
        (torch.randint(0, 64, (1, 3, 7), generator=g), books),
        (torch.randint(0, 64, (3, 9, 2), generator=g).transpose(1, 2), books),
    ]


rvq_decode.examples = _examples
