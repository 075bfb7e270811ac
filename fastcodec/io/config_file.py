"""The config.json or config.yaml that upstream keeps beside its weights, read without objects."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from fastcodec.errors import WeightsError
from fastcodec.optional import require

_MAX_BYTES = 1 << 18  # no config is as long, and YAML is slow
_DEEPEST = 32  # levels of containers; upstream's have 4
_MOST = 20_000  # values, those that aliases repeat counted each time


def read(path: str | os.PathLike[str]) -> Any:
    """What is in the file: containers, text, numbers.

    Raises:
        WeightsError: too long for a config, not JSON or YAML, or YAML that means more than it
            holds, by aliases of aliases
    """
    path = Path(path)
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise WeightsError(f"{path}: expected at most {_MAX_BYTES} bytes of a config, got {size}")
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".json":
        return _yaml(path, text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: is no JSON: {error}") from error


def _yaml(path: Path, text: str) -> Any:
    yaml = require("yaml", "weights", f"reading {path.name}")

    class Plain(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        depth = count = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            before, is_alias = self.count, self.check_event(yaml.AliasEvent)
            self.depth += 1
            self.count += 1
            if self.depth <= _DEEPEST and self.count <= _MOST:
                node = super().compose_node(parent, index)
                if is_alias:  # one of a value that holds it is without end
                    self.count += getattr(node, "count", _MOST)
                else:
                    node.count = self.count - before
            if self.depth > _DEEPEST or self.count > _MOST:
                raise WeightsError(
                    f"{path}: expected a config of at most {_DEEPEST} levels and {_MOST} values"
                )
            self.depth -= 1
            return node

    try:
        return yaml.load(text, Loader=Plain)  # noqa: S506 (a SafeLoader)
    except WeightsError:
        raise
    except Exception as error:  # yaml raises nearly every type on values that are none of its tag
        raise WeightsError(f"{path}: is no YAML: {str(error):.200}") from error
