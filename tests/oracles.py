"""The published implementations that tests run beside fastcodec; one that does not import fails."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def encodec(module: str = "encodec") -> ModuleType:
    """A module of encodec 0.1.1 (PyPI).

    It imports torchaudio, which it needs for reading files only, and whose extension does not load
    without CUDA: an empty module stands in for it during the import.
    """
    if "encodec" not in sys.modules and "torchaudio" not in sys.modules:
        sys.modules["torchaudio"] = ModuleType("torchaudio")
        try:
            importlib.import_module("encodec")
        finally:
            del sys.modules["torchaudio"]
    return importlib.import_module(module)


def transformers() -> ModuleType:
    """transformers, of which only EncodecModel is used."""
    return importlib.import_module("transformers")
