"""Our nets as plain torch modules over whole signals: a peer for codecs without a package.

The same layers as the published code has, in torch's own functions: no tiles, no kernels of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastcodec import ops
from fastcodec.codecs.audiodec import Primed
from fastcodec.codecs.hificodec import NormalisedSum
from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import GroupedResidualQuantizer, ResidualQuantizer
from fastcodec.layers.streaming import PadTo, Regroup, Residual, Sequential, Sum

_KINDS = {number: kind for kind, number in ops.ACTIVATIONS.items()}


def plain(layer: Any) -> nn.Module:
    """The layer in torch's functions, with the same parameters."""
    if isinstance(layer, Sequential):
        return nn.Sequential(*(plain(inner) for inner in layer.layers))
    if isinstance(layer, Primed):
        return plain(layer.net)
    if isinstance(layer, Regroup):
        return nn.Identity()
    for kind, make in _PLAIN.items():
        if isinstance(layer, kind):
            return make(layer)
    raise TypeError(f"plain: no torch form of {type(layer).__name__}")


class _Conv(nn.Module):
    def __init__(self, conv: Conv1d) -> None:
        super().__init__()
        if conv.fill_last or conv.padding == "reflect":
            raise TypeError("plain: no torch form of fill_last and reflect")
        self.weight, self.bias, self.activation = conv.weight, conv.bias, _activation(conv)
        self.pad, self.mode = (conv.left, conv.right), conv.padding
        self.numbers = (conv.stride, 0, conv.dilation, conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(x)
        if any(self.pad):
            x = F.pad(x, self.pad, "replicate" if self.mode == "replicate" else "constant")
        return F.conv1d(x, self.weight, self.bias, *self.numbers)


class _ConvTranspose(nn.Module):
    def __init__(self, conv: ConvTranspose1d) -> None:
        super().__init__()
        self.weight, self.bias, self.activation = conv.weight, conv.bias, _activation(conv)
        self.before = conv.context if conv.first == "replicate" else 0
        self.cut = (conv.cut_left + self.before * conv.stride, conv.cut_right)
        self.numbers = (conv.stride, 0, 0, conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(x)
        if self.before:
            x = F.pad(x, (self.before, 0), "replicate")
        y = F.conv_transpose1d(x, self.weight, self.bias, *self.numbers)
        return y[..., self.cut[0] : y.shape[2] - self.cut[1]]


class _Residual(nn.Module):
    def __init__(self, layer: Residual) -> None:
        super().__init__()
        self.body = nn.Sequential(*(plain(inner) for inner in layer.body))
        self.skip = nn.Identity() if layer.skip is None else plain(layer.skip)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.body(x)


class _Sum(nn.Module):
    def __init__(self, layer: Sum | NormalisedSum) -> None:
        super().__init__()
        self.branches = nn.ModuleList(plain(branch) for branch in layer.branches)
        normed = isinstance(layer, NormalisedSum)
        norms = [plain(norm) for norm in layer.norms] if normed else [nn.Identity()] * len(self)
        self.norms, self.divide = nn.ModuleList(norms), len(self) if normed else layer.divide

    def __len__(self) -> int:
        return len(self.branches)

    def forward(self, x: Tensor) -> Tensor:
        total: Any = 0
        for branch, norm in zip(self.branches, self.norms, strict=True):
            total = norm(total + branch(x))
        return total / self.divide


class _PadTo(nn.Module):
    def __init__(self, layer: PadTo) -> None:
        super().__init__()
        self.multiple = layer.multiple

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, -x.shape[2] % self.multiple))


class _Pointwise(nn.Module):
    def __init__(self, layer: Pointwise) -> None:
        super().__init__()
        self.run = _function(layer.kind, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def _group_norm(layer: GroupNorm) -> nn.Module:
    norm = nn.GroupNorm(layer.groups, len(layer.weight), layer.epsilon)
    norm.weight, norm.bias = layer.weight, layer.bias
    return norm


def _activation(conv: Any) -> Callable[[Tensor], Tensor]:
    return _function(_KINDS[conv.activation], conv.slope)


def _function(kind: str, slope: float) -> Callable[[Tensor], Tensor]:
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "none": lambda x: x,
        "elu": F.elu,
        "leaky_relu": lambda x: F.leaky_relu(x, slope),
        "tanh": torch.tanh,
    }
    return known[kind]


_PLAIN: dict[Any, Callable[[Any], nn.Module]] = {
    Conv1d: _Conv,
    ConvTranspose1d: _ConvTranspose,
    Residual: _Residual,
    Sum: _Sum,
    NormalisedSum: _Sum,
    PadTo: _PadTo,
    Pointwise: _Pointwise,
    GroupNorm: _group_norm,
}


class PlainCodec(nn.Module):
    """Encoder, quantizer and decoder of one of our codecs in plain torch."""

    def __init__(self, codec: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = plain(codec.encoder), plain(codec.decoder)
        grouped = isinstance(codec.quantizer, GroupedResidualQuantizer)
        groups: list[ResidualQuantizer] = list(codec.quantizer.groups) if grouped else []
        books = [g.codebooks for g in groups or [codec.quantizer]]
        self.books = nn.ParameterList(nn.Parameter(b, requires_grad=False) for b in books)

    def encode(self, wav: Tensor) -> Tensor:
        """Codes [B, K, T]; those of groups take turns."""
        parts = self.encoder(wav).mT.chunk(len(self.books), dim=2)
        codes = [_search(x, books) for x, books in zip(parts, self.books, strict=True)]
        return torch.stack(codes, dim=2).flatten(1, 2)

    def decode(self, codes: Tensor) -> Tensor:
        """wav [B, C, S]."""
        count, parts = len(self.books), []
        for g, books in enumerate(self.books):
            rows = codes[:, g::count].unbind(1)
            words = [F.embedding(c, b) for c, b in zip(rows, books, strict=True)]
            parts.append(torch.stack(words).sum(dim=0))
        return self.decoder(torch.cat(parts, dim=2).mT)


def _search(x: Tensor, books: Tensor) -> Tensor:
    """Codes [B, K, T] of x [B, T, D], as encodec's package searches."""
    codes = []
    for words in books:
        far = x.square().sum(2, keepdim=True) - 2 * x @ words.T + words.square().sum(1)
        codes.append(far.argmin(dim=2))
        x = x - F.embedding(codes[-1], words)
    return torch.stack(codes, dim=1)
