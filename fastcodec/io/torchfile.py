"""torch.save files from strangers: read without executing them, sizes checked before allocating.

Two formats exist: a zip archive with a pickle and one stored entry a tensor storage (torch 1.6 on),
and before it four pickles in a row followed by the raw storages. Source: torch/serialization.py.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import torch

from fastcodec.errors import WeightsError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DEEPEST = 100  # levels of tuples
_LEGACY_PICKLES = 5  # magic number, protocol, system info, object, keys of its storages


def read(path: str | os.PathLike[str]) -> Any:
    """What was saved: tensors (on the CPU), numbers, strings and plain containers of them.

    Raises:
        WeightsError: not a torch file, truncated or corrupted, sizes that do not fit the file, or
            a pickle that asks for anything but tensors; nothing of it has been executed
    """
    path = Path(path)
    _check_sizes(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise WeightsError(
            f"{path}: refused: the pickle in it asks for code or objects"
            f"{f' ({found[1]})' if found else ''}, not only for tensors, numbers, strings and "
            f"containers. Nothing of it was executed. If you trust its source, open it yourself "
            f"and save the state dict as safetensors"
        ) from error
    except Exception as error:  # torch's readers raise nearly every type on corrupted bytes
        raise _broken(path, error) from error


def _check_sizes(path: Path) -> None:
    """Refuses a file whose archive entries or tensors claim more than the file has."""
    size_bytes = path.stat().st_size
    try:
        claimed = _claimed_by_archive(path) if zipfile.is_zipfile(path) else _claimed_before(path)
    except WeightsError:
        raise
    except Exception as error:  # zipfile and pickletools do the same
        raise _broken(path, error) from error
    if claimed > size_bytes:
        raise WeightsError(
            f"{path}: claims {min(claimed, 1 << 64)} values or bytes but has {size_bytes} bytes; "
            f"it is truncated, corrupted, or was compressed by something else than torch.save"
        )


def _claimed_by_archive(path: Path) -> int:
    """The unpacked size of a zip file, or the largest storage its pickle claims if that is more."""
    with zipfile.ZipFile(path) as archive:
        unpacked_bytes = sum(entry.file_size for entry in archive.infolist())
        if unpacked_bytes > path.stat().st_size:  # torch never compresses: not safe to look into
            return unpacked_bytes
        pickles = [archive.read(n) for n in archive.namelist() if n.endswith("data.pkl")]
    claims = chain.from_iterable(_storage_sizes(io.BytesIO(content)) for content in pickles)
    return max(claims, default=0)


def _claimed_before(path: Path) -> int:
    """The largest storage claimed by a file of the format before torch 1.6."""
    if path.stat().st_size == 0:
        raise WeightsError(f"{path}: is empty")
    # A map, because its read() never allocates more than there is, whatever length is asked for.
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        content = cast(IO[bytes], mapped)
        if (0x80, _LEGACY_MAGIC) != (mapped[0], _first_integer(content)):
            raise WeightsError(
                f"{path}: is no torch checkpoint. If it is a bare pickle: those are never opened, "
                f"because they can run code; save its tensors as safetensors"
            )
        content.seek(0)
        parts = [list(_storage_sizes(content)) for _ in range(_LEGACY_PICKLES)]
    return max(chain.from_iterable(parts), default=0)


def _first_integer(content: IO[bytes]) -> int | None:
    """The first integer in a pickle that is not its protocol number, or None."""
    try:
        ops = ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(content))
        return next((arg for name, arg in ops if name != "PROTO" and isinstance(arg, int)), None)
    except ValueError:
        return None


def _storage_sizes(content: IO[bytes]) -> Iterator[int]:
    """Elements in each storage that a pickle refers to; the pickle is scanned, not executed.

    torch's persistent id is ("storage", type, key, device, numel), so the number is the last
    integer pushed before the id is taken up. An element has one byte at least.
    """
    numel, nesting = 0, _Nesting()
    for opcode, argument, _ in pickletools.genops(content):
        nesting.step(opcode, argument)
        if opcode.name.startswith(("BININT", "LONG", "INT")):
            numel = int(argument or 0)
        elif opcode.name in ("PERSID", "BINPERSID"):
            yield numel


class _Nesting:
    """How deep tuples lie in one another on a pickle's stack: Python's hash of them has no bound,
    and one of a million levels as the key of a dict ends the process.
    """

    def __init__(self) -> None:
        self.stack: list[int] = []  # levels of each object
        self.marks: list[int] = []
        self.memo: dict[Any, int] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name, taken = opcode.name, len(opcode.stack_before)
        if pickletools.markobject in opcode.stack_before:
            below = opcode.stack_before.index(pickletools.markobject)
            taken = len(self.stack) - self.marks.pop() + below
        begin = max(0, len(self.stack) - taken)
        levels = max(self.stack[begin:], default=0) + name.startswith("TUPLE")
        if levels > _DEEPEST:
            raise ValueError(f"tuples of more than {_DEEPEST} levels")
        del self.stack[begin:]
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo.get(argument, 0))
        else:
            self.stack += [levels] * len(opcode.stack_after)
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            key = len(self.memo) if argument is None else argument
            self.memo[key] = self.stack[-1] if self.stack else 0


def _broken(path: Path, error: Exception) -> WeightsError:
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    return WeightsError(f"{path}: not an intact torch checkpoint: {first_line}")
