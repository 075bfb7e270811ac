"""Loads the native CPU library, or keeps the reason why it cannot serve.

The library registers implementations of ops whose schemas ``fastcodec.ops`` declares. It calls
through torch's stable ABI, which does not check signatures, so the schemas that it was written for
are compared with the declared ones before anything is called.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch
from torch._C import parse_schema

LIBRARY = Path(__file__).with_name("libfastcodec_cpu.so")

_why_not: str | None = "not loaded yet"
_isa: str | None = None


def load(declared: dict[str, str]) -> None:
    """Load the CPU library and compare its schemas with ``declared`` (op name -> schema)."""
    global _why_not, _isa
    if not LIBRARY.exists():
        _why_not = "not built: run `pip install -e .` in the repository, or install the wheel"
        return
    try:
        torch.ops.load_library(str(LIBRARY))
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:  # a library built for another torch or machine: say so, do not hide it
        _why_not = f"{LIBRARY.name} does not load: {error}"
        return
    for function in (library.fastcodec_schemas, library.fastcodec_isa, library.fastcodec_isa_why_not):
        function.restype = ctypes.c_char_p
    _why_not = _schema_drift(library.fastcodec_schemas().decode(), declared)
    if _why_not is None and (isa := library.fastcodec_isa()) is None:
        _why_not = library.fastcodec_isa_why_not().decode()
    elif _why_not is None:
        _isa = isa.decode()


def _schema_drift(native: str, declared: dict[str, str]) -> str | None:
    for line in native.splitlines():
        name = line.split("(", 1)[0]
        if parse_schema(line) != parse_schema(declared.get(name, "none()->()")):
            return (
                f"{LIBRARY.name} is not of this version: it implements\n  {line}\nwhere Python "
                f"declares\n  {declared.get(name)}\nBuild it again: `pip install -e .`"
            )
    return None


def cpu_why_not() -> str | None:
    """Why the ``cpu`` backend cannot run here, or None where it can."""
    return _why_not


def cpu_isa() -> str | None:
    """The instruction set in use: ``avx512``, ``avx2``, or None. ``FASTCODEC_ISA`` overrides it."""
    return _isa


def requested_reference() -> bool:
    """Whether the user switched the native kernels off, so that their absence is no surprise."""
    return os.environ.get("FASTCODEC_ISA") == "reference"
