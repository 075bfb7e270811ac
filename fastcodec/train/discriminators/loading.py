"""Upstream's checkpoints of discriminators."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fastcodec.io.checkpoints import Source, State, load_strict, read_state, rename
from fastcodec.train.discriminators.judgement import Judges, Panel
from fastcodec.train.discriminators.norms import respelled


def load_weights(
    net: nn.Module, weights: Source, what: str = "the discriminator's weights"
) -> None:
    """Copy upstream's weights into a net from ``build``; both spellings of weight norm are read.

    A net of one discriminator also takes entries without ``discriminators.0.`` before them.

    Args:
        net: of the same kind and options as upstream's
        weights: a file, or a mapping of names to tensors
        what: is loaded, for the message

    Raises:
        WeightsError: lists every missing, unexpected and misshapen entry
    """
    load_strict(net, _ours(net, read_state(weights)), what)


def _ours(net: nn.Module, state: Mapping[str, Tensor]) -> State:
    """The entries by our names."""
    if isinstance(net, Panel):
        entries = dict(state)
        ours: State = {}
        for name, member in net.members.items():
            own = [key for key in entries if key.startswith(f"{name}.")]
            part = {key.removeprefix(f"{name}."): entries.pop(key) for key in own}
            ours |= {f"members.{name}.{key}": value for key, value in _ours(member, part).items()}
        return ours | entries
    if not isinstance(net, Judges):
        raise ValueError(f"load_weights: expected a net from build, got {type(net).__name__}")
    prefix = "discriminators."
    if len(net.discriminators) == 1 and not any(key.startswith(prefix) for key in state):
        state = {f"{prefix}0.{key}": value for key, value in state.items()}
    return respelled(rename(state, net.rules))
