"""``Loadable``: a net that takes published checkpoints by their own keys."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fastcodec.codecs.keys import load_tagged
from fastcodec.errors import WeightsError
from fastcodec.io import checkpoints, model_file
from fastcodec.io.checkpoints import State

Weights = str | os.PathLike[str] | Mapping[str, Any]


class Loadable(nn.Module):
    """The steps of loading; a family overrides what is its own of those after ``load_weights``."""

    name: str
    weights_at: str = ""
    training_only: re.Pattern[str] | None = None  # entries of a checkpoint that are left out

    def load_weights(self, weights: Weights | None) -> None:
        """Load a published checkpoint by its own keys, weight norm folded, or a converted one.

        Args:
            weights: path, mapping of upstream's names to tensors, or None for the published one

        Raises:
            WeightsError: unreadable, unsafe, or not of this codec: every entry that differs
        """
        converted = None if isinstance(weights, Mapping | None) else model_file.read(weights)
        if converted is None:
            self._load_published(weights)
        else:
            load_tagged(self, converted[1], str(weights))

    def _load_published(self, weights: Weights | None) -> None:
        source = self._from_hub() if weights is None else weights
        given = isinstance(source, Mapping)
        what = f"the mapping given for {self.name}" if given else str(source)
        state = self._adapt(checkpoints.fold_weight_norm(self.read(source)))
        if (unused := self.training_only) is not None:
            state = {name: value for name, value in state.items() if not unused.search(name)}
        load_tagged(self, state, what, self._layout(state))

    def read(self, source: Weights) -> State:
        """The entries of a checkpoint, or of the one in a folder such as transformers writes."""
        if not isinstance(source, Mapping) and os.path.isdir(source):
            source = checkpoints.in_folder(source)
        return checkpoints.read_state(source)

    def _adapt(self, state: State) -> State:
        """The entries as upstream's package has them, where a layout differs not only in names."""
        return state

    def _layout(self, state: State) -> Callable[[str], str]:
        """How the checkpoint spells the names of the tags."""
        return str

    def _from_hub(self) -> str | os.PathLike[str]:
        raise WeightsError(
            f"{self.name}: its weights cannot be downloaded from here "
            f"({self.weights_at or 'none are published'}); give the path of a checkpoint as weights"
        )
