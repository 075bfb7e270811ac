"""Arithmetic of a net, counted from its layers."""

from __future__ import annotations

from torch import nn

from fastcodec.codecs.audiodec import Primed
from fastcodec.codecs.hificodec import NormalisedSum
from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.local_attention import WindowAttention
from fastcodec.layers.lstm import BiLstm, Lstm
from fastcodec.layers.noise import NoiseBlock
from fastcodec.layers.norm import GroupNorm, LayerNorm
from fastcodec.layers.overlap import FloatOverlapAdd
from fastcodec.layers.pointwise import Pointwise
from fastcodec.layers.quantize import (
    FactorisedQuantizer,
    GroupedResidualQuantizer,
    MultiRateQuantizer,
    ProjectedQuantizer,
    ResidualQuantizer,
    SplitQuantizer,
)
from fastcodec.layers.streaming import PadTo, Regroup, Residual, Sequential, Sum
from fastcodec.layers.transformer import Transformer

FREE = (GroupNorm, LayerNorm, Pointwise, PadTo, Regroup)


def net_flops(layer: nn.Module, frames: float) -> float:
    """Floating-point operations of the matrix products for ``frames`` input frames.

    Activations, sums and normalisation are left out: the count is what a floor must hold.
    """
    if isinstance(layer, Sequential):
        total = 0.0
        for inner in layer.layers:
            total += net_flops(inner, frames)
            frames *= getattr(inner, "rate", 1)
        return total
    if isinstance(layer, Primed):
        return net_flops(layer.net, frames)
    if isinstance(layer, Residual):
        paths = [*layer.body, *([layer.skip] if layer.skip is not None else [])]
        return sum(net_flops(inner, frames) for inner in paths)
    if isinstance(layer, Sum | NormalisedSum):
        return sum(net_flops(inner, frames) for inner in layer.branches)
    if isinstance(layer, Conv1d):
        return 2 * layer.weight.numel() * frames * layer.rate
    if isinstance(layer, ConvTranspose1d | FloatOverlapAdd):
        return 2 * layer.weight.numel() * frames
    if isinstance(layer, Lstm | BiLstm):
        matrices = [w for name, w in layer.named_parameters() if "weight" in name]
        return 2 * sum(w.numel() for w in matrices) * frames
    if isinstance(layer, Transformer):
        seen = frames / 2 if layer.context is None else min(frames / 2, layer.context)
        return _attention_flops(layer, frames, seen)
    if isinstance(layer, WindowAttention):
        return _attention_flops(layer, frames, min(frames, layer.multiple))
    if isinstance(layer, NoiseBlock):
        return 2 * sum(p.numel() for p in layer.parameters() if p.ndim > 1) * frames
    if isinstance(layer, FREE):
        return 0.0
    raise TypeError(f"net_flops: no count for {type(layer).__name__}")


def _attention_flops(layer: nn.Module, frames: float, seen: float) -> float:
    """Linear maps, and the products with the keys and values of ``seen`` frames."""
    linear = [m for m in layer.modules() if isinstance(m, Conv1d)]
    outputs = [m.weight.shape[1] for name, m in layer.named_modules() if name.endswith("_out")]
    outputs += [m.weight.shape[1] for name, m in layer.named_modules() if name.endswith("out_proj")]
    return frames * (2 * sum(m.weight.numel() for m in linear) + 4 * seen * sum(outputs))


def quantizer_flops(quantizer: nn.Module, frames: float, count: int, decode: bool) -> float:
    """Of the search in ``count`` codebooks, or of the maps behind the words."""
    if isinstance(quantizer, ResidualQuantizer):
        return 0.0 if decode else 2 * frames * quantizer.codebooks[:count].numel()
    if isinstance(quantizer, GroupedResidualQuantizer):
        each = count // len(quantizer.groups)
        return sum(quantizer_flops(g, frames, each, decode) for g in quantizer.groups)
    if isinstance(quantizer, ProjectedQuantizer):
        outward = 2 * quantizer.out_proj.weight.numel() * frames
        inward = 2 * quantizer.in_proj.weight.numel() * frames
        return (
            outward
            if decode
            else inward + quantizer_flops(quantizer.residual, frames, count, decode)
        )
    if isinstance(quantizer, SplitQuantizer):
        rest = max(0, count - quantizer.n_first)
        return quantizer_flops(quantizer.first, frames, count - rest, decode) + (
            quantizer_flops(quantizer.rest, frames, rest, decode) if rest else 0.0
        )
    if isinstance(quantizer, FactorisedQuantizer):
        multi = isinstance(quantizer, MultiRateQuantizer)
        hold = quantizer.hold if multi else (1,) * count
        total = 0.0
        for level, every in zip(list(quantizer.levels)[:count], hold, strict=False):
            out, inward = level.out_proj.weight.numel(), level.in_proj.weight.numel()
            encode = inward + level.codebook.numel() + out
            total += 2 * frames / every * (out if decode else encode)
        return total
    raise TypeError(f"quantizer_flops: no count for {type(quantizer).__name__}")


def quantizer_bytes(quantizer: nn.Module, count: int) -> int:
    """Memory of the first ``count`` codebooks, and of the maps around all of them."""
    share = count / quantizer.n_codebooks
    books = sum(b.numel() for name, b in quantizer.named_buffers() if "codebooks" in name)
    return parameter_bytes(quantizer) + round(4 * books * share)


def parameter_bytes(net: nn.Module) -> int:
    """Memory of a net's parameters."""
    return sum(p.numel() * p.element_size() for p in net.parameters())
