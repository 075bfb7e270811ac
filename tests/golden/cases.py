"""The cases of the golden vectors: manifest entries, arrays, and weights made from names."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .compare import Reference

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("FASTCODEC_SHARED", ROOT.parent / "shared"))
GOLDEN = Path(os.environ.get("FASTCODEC_GOLDEN", SHARED / "golden"))
KINDS = {"codec": "codecs", "lm": "lms"}  # what a test is called -> the folder


@dataclass(frozen=True)
class Case:
    """One entry of a manifest.

    Args:
        kind: ``"codec"`` or ``"lm"``
        name: the entry's key; nothing is read out of it but the name of the arrays' file
        entry: the manifest's values
        folder: where the manifest is; the filler lies above it
        manifest: what all its cases share: state-dict tables, the default tolerance
    """

    kind: str
    name: str
    entry: Mapping[str, Any]
    folder: Path
    manifest: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def id(self) -> str:
        """What the test of this case is called."""
        return f"{self.kind}-{self.name}"

    @property
    def upstream(self) -> str:
        """Whose implementation it is, and of which part."""
        upstream = self.entry["upstream"]
        part = f" ({upstream['class']})" if "class" in upstream else ""
        return f"{upstream['name']}{part}"

    @property
    def config(self) -> Mapping[str, Any]:
        """Constructor arguments and settings, as the manifest gives them."""
        config: Mapping[str, Any] = self.entry["config"]
        return config

    @property
    def tolerance(self) -> float:
        """Of float arrays, relative to their rms."""
        return float(self.entry.get("tolerance", self.manifest["default_tolerance"]))

    @functools.cached_property
    def arrays(self) -> dict[str, Reference]:
        """The stored arrays by name, checked against what the manifest says of them."""
        with np.load(self.folder / f"{self.name}.npz", allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
        return {n: _reference(n, e, stored) for n, e in self.entry["arrays"].items()}

    def wav(self) -> Tensor:
        """The input signal, [1, C, S] float32."""
        pcm = self.arrays["input"].full
        return torch.from_numpy(pcm.astype(np.float32) / 32768)[None]

    def states(self) -> list[dict[str, Tensor]]:
        """The checkpoints of the case's modules, by upstream's keys."""
        filler, arguments = self.folder.parent / "fill.py", tuple(self.entry["fill"].items())
        states = []
        for part in self.entry["states"]:
            table, prefix = self.manifest["state_dicts"][part["table"]], part["prefix"]
            values = {
                key: _filled(filler, prefix + key, tuple(shape), dtype, arguments)
                for key, shape, dtype, *constant in table
                if not constant
            }
            states.append({key: torch.from_numpy(value) for key, value in values.items()})
        return states


def _reference(name: str, entry: Mapping[str, Any], stored: Mapping[str, Any]) -> Reference:
    if entry["stored"] == "full":
        parts = {"full": stored[name]}
        assert list(parts["full"].shape) == entry["shape"], name
    else:
        parts = {part: stored[f"{name}__{part}"] for part in ("every", "head")}
    assert all(part.dtype == entry["dtype"] for part in parts.values()), name
    if "crc32" in entry:
        assert zlib.crc32(parts["full"].tobytes()) == entry["crc32"], name
    return Reference(name, entry, parts)


@functools.lru_cache(maxsize=512)  # about one model: the next case is often of the same one
def _filled(
    filler: Path,
    key: str,
    shape: tuple[int, ...],
    dtype: str,
    arguments: tuple[tuple[str, float], ...],
) -> NDArray[Any]:
    value: NDArray[Any] = _module(filler).fill(key, shape, dtype, **dict(arguments))
    return value


@functools.cache
def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_fill", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def all_cases(golden: Path = GOLDEN) -> Iterator[Case]:
    """Every case of every manifest that is there."""
    for kind, folder in KINDS.items():
        path = golden / folder / "manifest.json"
        if not path.is_file():
            continue
        manifest = json.loads(path.read_text(encoding="utf-8"))
        entries = manifest.get("cases", manifest)  # the LMs' manifest is the table of cases itself
        for name, entry in entries.items():
            yield Case(kind, name, entry, path.parent, manifest if "cases" in manifest else {})
