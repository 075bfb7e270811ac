"""Where bytes come from and go to: a path, bytes, or an open binary file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, TypeAlias

from fastcodec.io.atomic import replacing

Source: TypeAlias = "bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO"
Target: TypeAlias = "str | os.PathLike[str] | BinaryIO"


def read_all(source: Source) -> bytes:
    """All bytes of ``source``; of an open file, those from its position on."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (str, os.PathLike)):
        return Path(source).read_bytes()
    return source.read()


def write_all(target: Target, data: bytes) -> None:
    """Writes ``data``; a file named by its path appears whole or not at all."""
    if isinstance(target, (str, os.PathLike)):
        with replacing(target) as temporary:
            temporary.write_bytes(data)
    else:
        target.write(data)
