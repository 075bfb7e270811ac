"""Imports the published implementations, which ask for more than their nets need."""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

from torch import nn
from torch.nn.utils import parametrize

from benchmarks.machine import package
from benchmarks.runner import Absent

# Package -> (its name on PyPI, what it imports for training, files and losses only).
PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "dac": (
        "descript-audio-codec",
        (
            "torchaudio", "torch.utils.tensorboard", "argbind", "ffmpy", "flatten_dict",
            "importlib_resources", "randomname",
        ),
    ),
    "encodec": ("encodec", ("torchaudio",)),
    "funcodec": ("funcodec", ("torchaudio", "typeguard", "librosa", "librosa.filters")),
    "moshi": ("moshi", ("sentencepiece",)),
    "snac": ("snac", ()),
    "speechtokenizer": ("speechtokenizer", ("speechtokenizer.trainer",)),
    "transformers": ("transformers", ()),
}  # fmt: skip


def published(module: str) -> ModuleType:
    """A module of a package of ``PACKAGES``, stand-ins in the place of what it does not need.

    Raises:
        Absent: it is not installed
    """
    head = module.partition(".")[0]
    pypi, unneeded = PACKAGES[head]
    before = {name: sys.modules.get(name) for name in unneeded}
    if module not in sys.modules:
        sys.modules.update({name: MagicMock(name=name) for name in unneeded})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"{error}; pip install --no-deps {pypi}, or make bench") from error
    finally:
        for name, real in before.items():
            sys.modules.pop(name, None)
            if real is not None:
                sys.modules[name] = real


def version_of(head: str) -> str:
    """``"name version"`` of a package of ``PACKAGES``, as PyPI calls it."""
    return package(PACKAGES[head][0])


def quietly(make: Any, *args: Any, **kwargs: Any) -> Any:
    """``make(...)`` in evaluation mode, without weight norm, and without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = make(*args, **kwargs)
    fold_weight_norm(net)
    return net.eval().requires_grad_(False)


def fold_weight_norm(net: nn.Module) -> None:
    """Multiply weight norm out, in either of torch's forms: a peer need not do it at every call."""
    for layer in net.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")
        elif hasattr(layer, "weight_g"):
            nn.utils.remove_weight_norm(layer)
