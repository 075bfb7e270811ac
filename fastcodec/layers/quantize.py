"""Residual vector quantizers.

All of them: ``encode`` latents [B, D, T] to codes [B, K, T] int64 and ``decode`` back, always in
float32, whatever the precision of the net around them: near ties decide codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.layers.conv import Conv1d
from fastcodec.layers.packed import Packed
from fastcodec.ops.rvq_encode_factorised import unit


class Quantizer(nn.Module):
    """K codebooks of N words over latents of D features, and ``hold``: see ``Codes``."""

    n_codebooks: int
    codebook_size: int
    hold: tuple[int, ...] | None = None

    def encode(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        """Codes [B, n_codebooks, T] int64 of latents [B, D, T]; all codebooks where None."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """Latents [B, D, T] of codes [B, K, T] int64, -1 standing for nothing."""
        raise NotImplementedError


class ResidualQuantizer(Quantizer):
    """K codebooks of N words, each quantising what the ones before left over."""

    codebooks: Tensor

    def __init__(self, n_codebooks: int, codebook_size: int, dimension: int) -> None:
        super().__init__()
        self.n_codebooks, self.codebook_size = n_codebooks, codebook_size
        self.register_buffer("codebooks", torch.randn(n_codebooks, codebook_size, dimension))
        self._packed = Packed(ops.rvq_encode_pack)

    def stacked_names(self, path: str, own: str) -> list[str] | None:
        """Upstream's entries that ``codebooks`` is the stack of; None where it is one entry."""
        return [path.format(i) for i in range(self.n_codebooks)] if "{}" in path else None

    def encode(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        packed = self._packed.get(self.codebooks)
        return ops.rvq_encode(x.float(), self.codebooks[:n_codebooks], packed)

    def decode(self, codes: Tensor) -> Tensor:
        return ops.rvq_decode(codes, self.codebooks)


class FactorisedLevel(nn.Module):
    """One level of DAC's quantizer: nearest in angle, among words of few features.

    Args:
        dimension: D of the latents
        codebook_size: N
        codebook_dimension: of the words
    """

    def __init__(self, dimension: int, codebook_size: int, codebook_dimension: int) -> None:
        super().__init__()
        self.in_proj = Conv1d(dimension, codebook_dimension, 1)
        self.out_proj = Conv1d(codebook_dimension, dimension, 1)
        self.codebook = nn.Parameter(torch.randn(codebook_size, codebook_dimension))
        self._unit: tuple[tuple[int, int], Tensor] | None = None
        self._packed = Packed(ops.rvq_encode_pack)
        self._stack = Stack()

    def quantise(self, x: Tensor) -> Tensor:
        """Codes [B, T] of latents [B, D, T]: those of ``encode(project(x))``, in one call."""
        parts = self._stack.get([self])
        packed = self._stack.packed(parts)
        codes: Tensor = ops.rvq_encode_factorised(x, *parts, packed)
        return codes[:, 0]

    def project(self, x: Tensor) -> Tensor:
        """x [B, D, T] in the words' space, [B, codebook_dimension, T]."""
        return self.in_proj(x)

    def encode(self, projected: Tensor) -> Tensor:
        """Codes [B, T] of projected latents."""
        words = self._unit_words()
        codes: Tensor = ops.rvq_encode(unit(projected), words[None], self._packed.get(words[None]))
        return codes[:, 0]

    def decode(self, codes: Tensor) -> Tensor:
        """[B, D, T] of codes [B, T]; zeros for -1."""
        words = self.codebook[codes.clamp(min=0)].transpose(1, 2)
        y: Tensor = self.out_proj(words)
        # A GPU is not asked whether there are any: the host would wait for it.
        some_absent = codes.device.type == "cuda" or bool((codes < 0).any())
        return y * (codes >= 0)[:, None] if some_absent else y

    def parameters_in_order(self) -> tuple[Tensor, ...]:
        """Those of ``Stacked``."""
        into, back = self.in_proj, self.out_proj
        assert into.bias is not None and back.bias is not None
        return (into.weight[..., 0], into.bias, self.codebook, back.weight[..., 0], back.bias)

    def _unit_words(self) -> Tensor:
        words = self.codebook
        key = (words.data_ptr(), words._version)
        if self._unit is None or self._unit[0] != key or self._unit[1].device != words.device:
            self._unit = key, unit(words.detach()[..., None])[..., 0]
        return self._unit[1]


class Stacked(NamedTuple):
    """Parameters of levels, [K, ...] each, as ``ops.rvq_encode_factorised`` takes them."""

    in_weight: Tensor
    in_bias: Tensor
    codebooks: Tensor
    out_weight: Tensor
    out_bias: Tensor

    def first(self, count: int | None) -> Stacked:
        """Those of the first levels."""
        return Stacked(*(part[:count] for part in self))


class Stack:
    """Keeps the parameters of some levels stacked until one of them changes.

    Where a gradient is wanted, or a parameter does not tell when it changes, they are stacked at
    every call.
    """

    def __init__(self) -> None:
        self._packed = Packed(ops.rvq_encode_factorised_pack)
        self._key: tuple[tuple[int, int], ...] = ()
        self._kept: Stacked | None = None

    def get(self, levels: Sequence[FactorisedLevel]) -> Stacked:
        """The parameters of these levels, the same ones at every call."""
        rows = [level.parameters_in_order() for level in levels]
        every = [parameter for row in rows for parameter in row]
        live = torch.is_grad_enabled() and any(p.requires_grad for p in every)
        if live or any(p.is_inference() for p in every):
            return _stacked(rows)
        key = tuple((p.data_ptr(), p._version) for p in every)
        if self._kept is None or key != self._key:
            with torch.inference_mode(False), torch.no_grad():
                self._kept = _stacked(rows)
            # One of its own: the new codebooks may lie where the old ones did.
            self._key, self._packed = key, Packed(ops.rvq_encode_factorised_pack)
        return self._kept

    def packed(self, parts: Stacked) -> Tensor | None:
        """The kernels' copy of what ``get`` gave; None where the op is to make its own."""
        return self._packed.get(parts.codebooks) if parts is self._kept else None

    def __reduce__(self) -> tuple[Any, ...]:  # a copy or a pickle of a layer makes its own
        return Stack, ()


def _stacked(rows: Sequence[Sequence[Tensor]]) -> Stacked:
    return Stacked(*(torch.stack(column) for column in zip(*rows, strict=True)))


class FactorisedQuantizer(Quantizer):
    """Residual quantizer of DAC: each level projects, takes the nearest unit word, projects back.

    descript-audio-codec/dac/nn/quantize.py@c7cfc5d2
    """

    def __init__(
        self, n_codebooks: int, codebook_size: int, codebook_dimension: int, dimension: int
    ) -> None:
        super().__init__()
        self.n_codebooks, self.codebook_size = n_codebooks, codebook_size
        self.levels = nn.ModuleList(
            FactorisedLevel(dimension, codebook_size, codebook_dimension)
            for _ in range(n_codebooks)
        )
        self._stack = Stack()

    def encode(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        parts = self._stack.get(self._first(None))
        packed = self._stack.packed(parts)
        return ops.rvq_encode_factorised(x.float(), *parts.first(n_codebooks), packed)

    def decode(self, codes: Tensor) -> Tensor:
        parts = self._stack.get(self._first(None))
        return ops.rvq_decode_factorised(codes, parts.codebooks, parts.out_weight, parts.out_bias)

    def _first(self, count: int | None) -> list[FactorisedLevel]:
        return cast(list[FactorisedLevel], list(self.levels)[:count])


class GroupedResidualQuantizer(Quantizer):
    """HiFi-Codec's: groups of neighbouring features, each with a residual quantizer of its own.

    Codebooks are numbered level by level, and within a level group by group
    (academicodec/models/hificodec/models.py@b6ac1347).

    Args:
        levels, groups: their product is the number of codebooks
        codebook_size: N
        dimension: D of the latents
    """

    def __init__(self, levels: int, groups: int, codebook_size: int, dimension: int) -> None:
        super().__init__()
        if dimension % groups:
            raise ValueError(
                f"GroupedResidualQuantizer: {dimension} features do not make {groups} groups"
            )
        self.n_codebooks, self.codebook_size = levels * groups, codebook_size
        self.groups = nn.ModuleList(
            ResidualQuantizer(levels, codebook_size, dimension // groups) for _ in range(groups)
        )

    def encode(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        count, step = n_codebooks or self.n_codebooks, len(self.groups)
        codes = torch.empty(len(x), count, x.shape[2], dtype=torch.int64, device=x.device)
        parts = x.chunk(step, dim=1)
        for g, (group, part) in enumerate(zip(self._groups()[:count], parts, strict=False)):
            codes[:, g::step] = group.encode(part, len(range(g, count, step)))
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        parts: list[Tensor] = []
        for g, group in enumerate(self._groups()):
            rows = codes[:, g :: len(self.groups)]
            parts.append(group.decode(rows) if rows.shape[1] else torch.zeros_like(parts[0]))
        return torch.cat([part.transpose(1, 2) for part in parts], dim=2).transpose(1, 2)

    def _groups(self) -> list[ResidualQuantizer]:
        return cast(list[ResidualQuantizer], list(self.groups))


class MultiRateQuantizer(FactorisedQuantizer):
    """SNAC's: a level sees the mean of some frames of what is left, and its word serves them all.

    Codes are at the finest rate, those of the coarse levels repeated (snac/vq.py@f49016a4).

    Args:
        hold: frames that a code of each level covers
        codebook_size, codebook_dimension, dimension: as for ``FactorisedQuantizer``
    """

    hold: tuple[int, ...]

    def __init__(
        self, hold: tuple[int, ...], codebook_size: int, codebook_dimension: int, dimension: int
    ) -> None:
        super().__init__(len(hold), codebook_size, codebook_dimension, dimension)
        self.hold = hold

    def encode(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        batch, dimension, frames = x.shape
        if frames % (group := math.lcm(*self.hold)):
            raise ValueError(
                f"MultiRateQuantizer.encode: the number of frames must be a multiple of {group}, "
                f"got {frames}"
            )
        residual, codes = x.float().mT, []
        for level, hold in zip(self._first(n_codebooks), self.hold, strict=False):
            groups = residual.reshape(batch, frames // hold, hold, dimension)
            total = groups[:, :, 0]
            for i in range(1, hold):  # one after the other: a mean adds in an order of its own
                total = total + groups[:, :, i]
            code = level.quantise((total / hold).mT)
            residual = (groups - level.decode(code).mT[:, :, None]).reshape(x.mT.shape)
            codes.append(code.repeat_interleave(hold, dim=1))
        return torch.stack(codes, dim=1)

    def from_ragged(self, codes: Sequence[Tensor]) -> Tensor:
        """[B, K, T] of the codes [B, T / hold] of each level, as snac's own package gives them."""
        rows = [c.repeat_interleave(hold, dim=1) for c, hold in zip(codes, self.hold, strict=False)]
        return torch.stack(rows, dim=1)


class SplitQuantizer(Quantizer):
    """Two residual quantizers over the same latents, each between projections; a sum of both.

    Mimi's: the second does not see what the first left over (moshi quantization/vq.py@e6a55d27).

    Args:
        n_first: codebooks of the first part; those of the second follow them
        n_codebooks, codebook_size: in all, and N
        codebook_dimension: of the words
        dimension: D of the latents
    """

    def __init__(
        self,
        n_first: int,
        n_codebooks: int,
        codebook_size: int,
        codebook_dimension: int,
        dimension: int,
    ) -> None:
        super().__init__()
        self.n_first, self.n_codebooks, self.codebook_size = n_first, n_codebooks, codebook_size
        self.first, self.rest = (
            ProjectedQuantizer(count, codebook_size, codebook_dimension, dimension)
            for count in (n_first, n_codebooks - n_first)
        )

    def encode(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        count = n_codebooks or self.n_codebooks
        codes = self.first.encode(x, min(count, self.n_first))
        if count <= self.n_first:
            return codes
        return torch.cat([codes, self.rest.encode(x, count - self.n_first)], dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        first, rest = codes[:, : self.n_first], codes[:, self.n_first :]
        y = self.first.decode(first)
        return y + self.rest.decode(rest) if rest.shape[1] else y


class ProjectedQuantizer(Quantizer):
    """A residual quantizer in a space of its own, with linear maps to it and back."""

    def __init__(
        self, n_codebooks: int, codebook_size: int, codebook_dimension: int, dimension: int
    ) -> None:
        super().__init__()
        self.n_codebooks, self.codebook_size = n_codebooks, codebook_size
        self.in_proj = Conv1d(dimension, codebook_dimension, 1, bias=False)
        self.residual = ResidualQuantizer(n_codebooks, codebook_size, codebook_dimension)
        self.out_proj = Conv1d(codebook_dimension, dimension, 1, bias=False)

    def encode(self, x: Tensor, n_codebooks: int | None = None) -> Tensor:
        return self.residual.encode(self.in_proj(x.float()), n_codebooks)

    def decode(self, codes: Tensor) -> Tensor:
        return self.out_proj(self.residual.decode(codes))
