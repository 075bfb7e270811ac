"""The golden vectors: settings and weights come from the manifest, never from a case's name."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FASTCODEC_SHARED", ROOT.parent / "shared"))
GOLDEN = Path(os.environ.get("FASTCODEC_GOLDEN", SHARED / "golden"))


class Golden:
    """The codec cases of one set of vectors."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "codecs/manifest.json").read_text())
        spec = importlib.util.spec_from_file_location("golden_fill", folder / "fill.py")
        assert spec is not None and spec.loader is not None
        self._fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._fill)
        self._folder = folder
        self._tables = manifest["state_dicts"]
        self.cases: dict[str, dict[str, Any]] = manifest["cases"]

    def with_array(self, name: str) -> list[str]:
        """The cases that hold the array ``name`` in full."""
        return [
            case
            for case, entry in self.cases.items()
            if entry["arrays"].get(name, {}).get("stored") == "full"
        ]

    @functools.lru_cache(maxsize=4)  # noqa: B019 (one object a test run)
    def arrays(self, case: str) -> dict[str, np.ndarray]:
        """The arrays of a case."""
        with np.load(self._folder / "codecs" / f"{case}.npz", allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    @functools.lru_cache(maxsize=2)  # noqa: B019
    def state(self, case: str, prefix: str) -> dict[str, np.ndarray]:
        """The weights of the part of a case that is filled under ``prefix``."""
        entry = self.cases[case]
        table = next(part["table"] for part in entry["states"] if part["prefix"] == prefix)
        return {
            key: self._fill.fill(prefix + key, shape, dtype, **entry["fill"])
            for key, shape, dtype, *constant in self._tables[table]
            if not constant
        }


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The golden vectors, or the reason why they cannot be compared with."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden vectors: {GOLDEN} is not there (FASTCODEC_GOLDEN)")
    return Golden(GOLDEN)
