"""Upstream's names of a net's parameters, written where the net is built.

A builder tags each layer with the path that upstream's checkpoint uses; ``load_tagged`` reads a
checkpoint by these names. A parameter that upstream keeps in several entries (the layers of an
LSTM, the codebooks of a quantizer) is their stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastcodec.io.checkpoints import load_strict
from fastcodec.layers.quantize import Quantizer

Layer = TypeVar("Layer", bound=nn.Module)


def tag(layer: Layer, path: str) -> Layer:
    """The layer, with its path in upstream's checkpoint; ``{}`` in it counts stacked entries."""
    layer.upstream_path = path  # type: ignore[assignment]
    return layer


def upstream_names(net: nn.Module) -> dict[str, list[str]]:
    """Our name of every parameter -> upstream's names, several where ours is their stack.

    An entry of a layer without a tag keeps its own name.
    """
    names: dict[str, list[str]] = {}
    for prefix, layer in net.named_modules():
        path = getattr(layer, "upstream_path", None)
        if path is None:
            continue
        for own in layer.state_dict(keep_vars=True):
            if "." in own:
                continue  # belongs to a layer inside this one, which has its own tag
            theirs = _stack(layer, path, own)
            names[f"{prefix}.{own}"] = [_single(layer, path, own)] if theirs is None else theirs
    return {own: names.get(own, [own]) for own in net.state_dict(keep_vars=True)}


def tagged_state(net: nn.Module) -> dict[str, Tensor]:
    """The entries of a net under upstream's names, as ``load_tagged`` reads them back."""
    own_state = net.state_dict()
    state: dict[str, Tensor] = {}
    for own, theirs in upstream_names(net).items():
        values = own_state[own].unbind() if _stacked(net, own) else [own_state[own]]
        state.update(zip(theirs, values, strict=True))
    return state


def _stack(layer: nn.Module, path: str, own: str) -> list[str] | None:
    """Upstream's entries that a parameter is the stack of, where the layer says that it is one."""
    stacked_names = getattr(layer, "stacked_names", None)
    names: list[str] | None = stacked_names(path, own) if stacked_names else None
    return names


def _single(layer: nn.Module, path: str, own: str) -> str:
    """Upstream's name of a parameter; a quantizer's path is that of its only buffer."""
    return path if isinstance(layer, Quantizer) else f"{path}.{own}"


class _Flat(nn.Module):
    """Upstream's entries as buffers, so that a checkpoint can be compared with them strictly."""

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        super().__init__()
        self.entries = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        return self.entries

    def load_state_dict(self, state: Mapping[str, Tensor], *args: object, **kwargs: object) -> None:  # type: ignore[override]
        self.entries = dict(state)


def load_tagged(
    net: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    spell: Callable[[str], str] = lambda name: name,
) -> None:
    """Copy a checkpoint, weight norm already folded, into a tagged net.

    Linear layers [C', C] become the convolutions of kernel 1 that they are here, and the alpha
    [1, C, 1] of a snake becomes [C].

    Args:
        net: built with ``tag``
        state: upstream's entries
        what: path or preset, for the message
        spell: from the tags' names to those of the layout that the checkpoint uses

    Raises:
        WeightsError: lists every missing, unexpected and misshapen entry in upstream's spelling
    """
    names = {own: [spell(n) for n in theirs] for own, theirs in upstream_names(net).items()}
    own_state = net.state_dict()
    shapes = {
        name: own_state[own].shape[1:] if _stacked(net, own) else own_state[own].shape
        for own, theirs in names.items()
        for name in theirs
    }
    flat = _Flat(shapes)
    load_strict(
        flat, {name: _fitted(value, shapes.get(name)) for name, value in state.items()}, what
    )
    with torch.no_grad():
        for own, theirs in names.items():
            entries = [flat.entries[name].to(own_state[own].dtype) for name in theirs]
            own_state[own].copy_(torch.stack(entries) if _stacked(net, own) else entries[0])


def snake_first(name: str) -> str:
    """The name where the snake of a convolution is the module before it, and counts as one."""
    snake = re.fullmatch(r"(.*)\.(\d+)(\.conv|\.convtr)*\.alpha", name)
    return f"{snake[1]}.{int(snake[2]) - 1}.alpha" if snake else name


def _fitted(value: Tensor, shape: torch.Size | None) -> Tensor:
    if shape is not None and value.ndim == 2 and len(shape) == 3 and shape[2] == 1:
        return value[..., None]
    if shape is not None and value.ndim == 3 and len(shape) == 1 and value.shape[::2] == (1, 1):
        return value[0, :, 0]
    return value


def _stacked(net: nn.Module, own: str) -> bool:
    prefix, _, name = own.rpartition(".")
    layer = net.get_submodule(prefix)
    path = getattr(layer, "upstream_path", None)
    return path is not None and _stack(layer, path, name) is not None
