"""Loads the native libraries, or keeps the reason why one cannot serve.

A library registers implementations of ops whose schemas ``fastcodec.ops`` declares. It calls
through torch's stable ABI, which does not check signatures, so the schemas that it was written for
are compared with the declared ones before anything is called.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from pathlib import Path

import torch
from torch._C import parse_schema

_FOLDER = Path(__file__).parent


class Library:
    """One native library: the ops that it implements, or why it serves none."""

    def __init__(self, file_name: str, how_to_build: str) -> None:
        self.path = _FOLDER / file_name
        self.how_to_build = how_to_build
        self.ops: frozenset[str] = frozenset()
        self.why_not: str | None = "not loaded yet"

    def load(self, declared: dict[str, str]) -> ctypes.CDLL | None:
        """Load it and compare its schemas with ``declared`` (op name -> schema)."""
        if not self.path.exists():
            self.why_not = f"{self.path.name} is not built: {self.how_to_build}"
            return None
        try:
            torch.ops.load_library(str(self.path))
            library = ctypes.CDLL(str(self.path))
        except OSError as error:  # built for another machine or torch: the reason is kept
            self.why_not = f"{self.path.name} does not load: {error}"
            return None
        library.fastcodec_schemas.restype = ctypes.c_char_p
        schemas = library.fastcodec_schemas().decode()
        self.why_not = schema_drift(schemas, declared)
        self.ops = frozenset(line.split("(", 1)[0] for line in schemas.splitlines())
        return library


def schema_drift(native: str, declared: dict[str, str]) -> str | None:
    """The first difference between a library's schemas (a line each) and the declared ones."""
    for line in native.splitlines():
        here = declared.get(line.split("(", 1)[0], "nothing() -> ()")
        if parse_schema(line) != parse_schema(here):
            return (
                f"the library is not of this version: it implements\n  {line}\nwhere Python "
                f"declares\n  {here}\nBuild it again: pip install -e ."
            )
    return None


cpu = Library("libfastcodec_cpu.so", "`pip install -e .` in the repository, or install the wheel")
cuda = Library("libfastcodec_cuda.so", "FASTCODEC_CUDA=1 `pip install -e .`, with nvcc at hand")
cpu_isa: str | None = None  # "avx512_bf16", "avx512" or "avx2" when the CPU kernels run


def load(declared: dict[str, str]) -> None:
    """Load both libraries; warns once where the CPU's cannot serve and nobody switched it off."""
    global cpu_isa
    library = cpu.load(declared)
    if library is not None and cpu.why_not is None:
        for function in (library.fastcodec_isa, library.fastcodec_isa_why_not):
            function.restype = ctypes.c_char_p
        if (name := library.fastcodec_isa()) is None:
            cpu.why_not = library.fastcodec_isa_why_not().decode()
        else:
            cpu_isa = name.decode()
    threads = os.environ.get("FASTCODEC_THREADS", "1")
    if not threads.isdecimal() or int(threads) < 1:
        warnings.warn(
            f"FASTCODEC_THREADS must be a number from 1 on, got {threads!r}: torch's number of "
            f"threads is taken",
            RuntimeWarning,
            stacklevel=2,
        )
    if torch.version.cuda is None:
        cuda.why_not = "this torch is built without CUDA"
    else:
        cuda.load(declared)
    if cpu.why_not and os.environ.get("FASTCODEC_ISA") != "reference":
        warnings.warn(
            f"fastcodec runs on its plain-torch reference, slower and without invariant codes, "
            f"because {cpu.why_not}",
            RuntimeWarning,
            stacklevel=2,
        )
