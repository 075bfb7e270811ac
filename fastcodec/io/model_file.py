"""Our own weights file: a codec's entries as safetensors, with the codec's spec as metadata.

Metadata ``format`` "fastcodec.codec", ``version`` "1" and ``spec``: JSON of ``family``, ``name``
and ``config``. Any safetensors reader opens it; the entries bear upstream's names, weight norm
folded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fastcodec.errors import WeightsError
from fastcodec.io.atomic import replacing
from fastcodec.io.checkpoints import State
from fastcodec.optional import require

_FORMAT, _VERSION = "fastcodec.codec", "1"


@dataclass(frozen=True)
class Spec:
    """What a net is built from: a family's module name, a preset's name, and its config as JSON."""

    family: str
    name: str
    config: Mapping[str, Any]


def write(path: str | os.PathLike[str], spec: Spec, state: Mapping[str, Tensor]) -> None:
    """Write the file, whole or not at all."""
    save = require("safetensors.torch", "weights", "writing a weights file").save
    text = json.dumps({"family": spec.family, "name": spec.name, "config": spec.config})
    metadata = {"format": _FORMAT, "version": _VERSION, "spec": text}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))  # its save_file makes files of mode 0600


def read(path: str | os.PathLike[str]) -> tuple[Spec, State] | None:
    """The spec and the entries of a file that ``write`` made; None for anything else.

    Raises:
        WeightsError: not an intact safetensors file, or a spec that makes no sense
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return None
    safetensors = require("safetensors", "weights", f"reading {path.name}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            spec = _spec(path, file.metadata() or {})
            return None if spec is None else (spec, {k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError, OSError) as error:
        raise WeightsError(f"{path}: not an intact safetensors file: {error}") from error


def _spec(path: Path, metadata: Mapping[str, str]) -> Spec | None:
    if metadata.get("format") != _FORMAT:
        return None
    if metadata.get("version") != _VERSION:
        raise WeightsError(
            f"{path}: expected {_FORMAT} {_VERSION}, got version {metadata.get('version')!r}; a "
            f"newer fastcodec may read it"
        )
    try:
        spec = json.loads(metadata.get("spec", ""))
        family, name, config = (spec[key] for key in ("family", "name", "config"))
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise WeightsError(f"{path}: its spec is not intact: {error}") from error
    if not (isinstance(family, str) and isinstance(name, str) and isinstance(config, dict)):
        raise WeightsError(f"{path}: its spec must hold family, name and config, got {spec!r:.200}")
    return Spec(family, name, config)
