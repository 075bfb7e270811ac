"""``rvq_decode_factorised``: latents of the codes of ``rvq_encode_factorised``."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import op, time_major
from fastcodec.ops.conv1d import conv1d


def _fake(codes: Tensor, codebooks: Tensor, out_weight: Tensor, out_bias: Tensor) -> Tensor:
    return time_major(codebooks, codes.shape[0], out_weight.shape[1], codes.shape[2])


@op(fake=_fake, trainable=True, decided_by=1)
def rvq_decode_factorised(
    codes: Tensor, codebooks: Tensor, out_weight: Tensor, out_bias: Tensor
) -> Tensor:
    """[B, D, T], time-major: the sum over the levels of their words, projected back.

    In the levels' order, starting from zero; each is what ``conv1d`` gives, bit for bit in the
    native kernel where d and D exceed 2.

    Args:
        codes: [B, K, T] int64, 0 .. N - 1, or -1 for a level that adds nothing
        codebooks: [K' >= K, N, d] float
        out_weight, out_bias: [K', D, d], [K', D]
    """
    batch, _, frames = codes.shape
    total = codebooks.new_zeros(batch, frames, out_weight.shape[1]).transpose(1, 2)
    if frames == 0:  # torch's convolutions refuse it
        return total
    for row, words, weight, bias in zip(
        codes.unbind(1), codebooks, out_weight, out_bias, strict=False
    ):
        chosen = words[row.clamp(min=0)].transpose(1, 2)
        y = conv1d.reference(chosen, weight[..., None], bias)
        total = total + y * (row >= 0)[:, None]
    return total


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)

    def made(codes: Tensor, k: int, n: int, d: int, c: int) -> tuple[object, ...]:
        books, weight, bias = (torch.randn(s, generator=g) for s in ((k, n, d), (k, c, d), (k, c)))
        return codes, books, weight, bias

    return [
        made(torch.randint(-1, 64, (2, 3, 30), generator=g), 3, 64, 8, 40),
        made(torch.randint(0, 17, (1, 2, 7), generator=g), 3, 17, 5, 33),
        made(torch.randint(0, 16, (3, 9, 2), generator=g).transpose(1, 2), 2, 16, 3, 16),
    ]


rvq_decode_factorised.examples = _examples
