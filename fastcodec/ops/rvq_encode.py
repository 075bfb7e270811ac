"""``rvq_encode``: the codes of a residual vector quantizer, all stages in one call."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import declare_schema, op


def _fake(x: Tensor, codebooks: Tensor, packed: Tensor | None = None) -> Tensor:
    return x.new_empty(x.shape[0], codebooks.shape[0], x.shape[2], dtype=torch.int64)


@op(fake=_fake)
def rvq_encode(x: Tensor, codebooks: Tensor, packed: Tensor | None = None) -> Tensor:
    """Codes [B, K, T] int64: per stage the nearest code word of what the stages before left over.

    Nearest in squared Euclidean distance, the lowest number where two are equal; the residual is
    reduced by the chosen word (SoundStream, arXiv:2107.03312, algorithm 1).

    Args:
        x: [B, D, T] float
        codebooks: [K, N, D] float
        packed: what ``rvq_encode_pack`` gave for these codebooks, or for more of the same quantizer
    """
    residual = x.transpose(1, 2)
    codes = []
    for words in codebooks:
        score = residual @ words.T - 0.5 * words.square().sum(1)
        codes.append(score.max(dim=-1).indices)  # the first of equal maxima
        residual = residual - words[codes[-1]]
    return torch.stack(codes, dim=1)


def rvq_encode_pack(codebooks: Tensor) -> Tensor:
    """The CPU kernels' own copy of the codebooks: an opaque vector for ``rvq_encode(packed=)``."""
    packed: Tensor = torch.ops.fastcodec.rvq_encode_pack(codebooks)
    return packed


def _fake_pack(codebooks: Tensor) -> Tensor:
    return codebooks.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int32)


declare_schema(rvq_encode_pack, _fake_pack)


CUDA_FEATURES = 496  # words of which fit the shared memory of every GPU (csrc/cuda/plan.cpp)


def _cuda_why_not(x: Tensor, codebooks: Tensor, packed: Tensor | None = None) -> str | None:
    if packed is not None:
        return "packed codebooks are for the CPU"
    if codebooks.shape[2] > CUDA_FEATURES:
        return f"it takes up to {CUDA_FEATURES} features, got {codebooks.shape[2]}"
    return None


rvq_encode.cuda_why_not = _cuda_why_not


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)

    def r(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    return [
        (r(2, 32, 30), r(4, 64, 32), None),
        (r(1, 5, 101), r(3, 17, 5), None),
        (r(3, 64, 1), r(46, 16, 64), None),
    ]


rvq_encode.examples = _examples
