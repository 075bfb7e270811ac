"""Published training code that the tests run beside fastcodec's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

from .. import oracles


def speechtokenizer_losses() -> ModuleType:
    """The losses of SpeechTokenizer's trainer, with a stand-in for torchaudio."""
    folder = Path(str(oracles.speechtokenizer().__file__)).parent
    spec = importlib.util.spec_from_file_location("losses", folder / "trainer" / "loss.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get("torchaudio")
    sys.modules["torchaudio"] = MagicMock(name="torchaudio")
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["torchaudio"]
        if before is not None:
            sys.modules["torchaudio"] = before
    return module
