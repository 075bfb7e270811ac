"""``rvq_encode_factorised``: codes of a residual quantizer that searches projections."""

from __future__ import annotations

import torch
from torch import Tensor

from fastcodec.ops._op import declare_schema, op, packed_vector
from fastcodec.ops.conv1d import conv1d
from fastcodec.ops.rvq_encode import rvq_encode


def unit(x: Tensor) -> Tensor:
    """x [B, C, T] scaled to unit length over C, summed in order (torch: by shape); no less than
    1e-12 is divided by, as in ``torch.nn.functional.normalize``.
    """
    square = x[:, 0] * x[:, 0]
    for c in range(1, x.shape[1]):
        square = square + x[:, c] * x[:, c]
    return x / square.sqrt().clamp(min=1e-12)[:, None]


def _fake(
    x: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    codebooks: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    packed: Tensor | None = None,
) -> Tensor:
    return x.new_empty(x.shape[0], codebooks.shape[0], x.shape[2], dtype=torch.int64)


@op(fake=_fake)
def rvq_encode_factorised(
    x: Tensor,
    in_weight: Tensor,
    in_bias: Tensor,
    codebooks: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    packed: Tensor | None = None,
) -> Tensor:
    """Codes [B, K, T] int64: per level the word nearest in angle to the projected residual.

    Each level projects the residual to d features, takes among the words at unit length the one
    nearest to the projection at unit length (the lowest number where two are equal), and subtracts
    the word, as it is, projected back (descript-audio-codec/dac/nn/quantize.py@c7cfc5d2). The
    native kernel gives the codes of ``conv1d``, ``unit``, ``rvq_encode`` and ``conv1d`` one after
    the other, bit for bit, where d and D exceed 2.

    Args:
        x: [B, D, T] float
        in_weight, in_bias: [K, d, D], [K, d] the projections
        codebooks: [K, N, d] float
        out_weight, out_bias: [K, D, d], [K, D] the projections back
        packed: what ``rvq_encode_factorised_pack`` gave for these codebooks, or for more of the
            same quantizer
    """
    if x.shape[2] == 0:  # torch's convolutions refuse it
        return _fake(x, in_weight, in_bias, codebooks, out_weight, out_bias)
    residual, codes = x, []
    for level, words in enumerate(codebooks):
        projected = conv1d.reference(residual, in_weight[level, ..., None], in_bias[level])
        units = unit(words[..., None])[..., 0]
        codes.append(rvq_encode.reference(unit(projected), units[None])[:, 0])
        chosen = words[codes[-1]].transpose(1, 2)
        y = conv1d.reference(chosen, out_weight[level, ..., None], out_bias[level])
        residual = residual - y
    return torch.stack(codes, dim=1)


def rvq_encode_factorised_pack(codebooks: Tensor) -> Tensor:
    """The kernels' own copy of the codebooks, an opaque vector for ``packed``."""
    packed: Tensor = torch.ops.fastcodec.rvq_encode_factorised_pack(codebooks)
    return packed


declare_schema(rvq_encode_factorised_pack, packed_vector)


def _examples() -> list[tuple[object, ...]]:
    g = torch.Generator().manual_seed(0)

    def made(batch: int, c: int, frames: int, k: int, n: int, d: int) -> tuple[object, ...]:
        shapes = ((batch, c, frames), (k, d, c), (k, d), (k, n, d), (k, c, d), (k, c))
        return (*(torch.randn(shape, generator=g) for shape in shapes), None)

    return [made(2, 64, 30, 3, 64, 8), made(1, 33, 41, 2, 17, 5), made(3, 16, 1, 4, 16, 3)]


rvq_encode_factorised.examples = _examples
