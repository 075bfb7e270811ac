"""Arithmetic of a net, counted from its layers."""

from __future__ import annotations

from torch import nn

from fastcodec.layers.conv import Conv1d, ConvTranspose1d
from fastcodec.layers.lstm import Lstm
from fastcodec.layers.norm import GroupNorm
from fastcodec.layers.streaming import Residual, Sequential


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
    if isinstance(layer, Residual):
        paths = [*layer.body, *([layer.skip] if layer.skip is not None else [])]
        return sum(net_flops(inner, frames) for inner in paths)
    if isinstance(layer, Conv1d):
        return 2 * layer.weight.numel() * frames * layer.rate
    if isinstance(layer, ConvTranspose1d):
        return 2 * layer.weight.numel() * frames
    if isinstance(layer, Lstm):
        return 2 * (layer.weight_ih.numel() + layer.weight_hh.numel()) * frames
    if isinstance(layer, GroupNorm):
        return 0.0
    raise TypeError(f"net_flops: no count for {type(layer).__name__}")


def parameter_bytes(net: nn.Module) -> int:
    """Memory of a net's parameters."""
    return sum(p.numel() * p.element_size() for p in net.parameters())
