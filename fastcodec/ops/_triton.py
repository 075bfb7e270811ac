"""Triton kernels as a backend: ``kernels/<op>.py`` is imported when its op is first called for.

The file defines a function of the op's name and arguments, and may define ``why_not(*arguments)``,
which says what it cannot do. Triton itself is imported there, never by ``import fastcodec``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FOLDER = Path(__file__).parents[1] / "kernels"


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on the CPU, as tests do."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def why_absent(name: str) -> str | None:
    """Why there is no kernel of this op, or nothing to run it, or None."""
    if not (_FOLDER / f"{name}.py").exists():
        return f"there is no triton kernel of {name} yet"
    if find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    if not interpreted() and not torch.cuda.is_available():
        return "there is no NVIDIA GPU (TRITON_INTERPRET=1 runs the kernels in Python, for tests)"
    return None


def why_not(name: str, args: Sequence[Any], x: Tensor) -> str | None:
    """Why the kernel cannot serve this call, or None. x: the argument that decides."""
    if (reason := why_absent(name)) is not None:
        return reason
    device = "cpu" if interpreted() else "cuda"
    if x.device.type != device:
        return f"it takes tensors on {device}, got {x.device}"
    return _refusal(name)(*args)


@cache
def kernel(name: str) -> Callable[..., Any]:
    """The function of an op's Triton kernel, which torch.compile and graph capture see through."""
    function: Callable[..., Any] = getattr(_module(name), name)
    # The same launches as one operator each, which torch.compile can look into.
    traced = torch.library.triton_op(f"fastcodec_triton::{name}", function, mutates_args=())

    def call(*args: Any) -> Any:
        return traced(*args) if torch.compiler.is_compiling() else function(*args)

    return call


def _module(name: str) -> Any:
    return import_module(f"fastcodec.kernels.{name}")


@cache
def _refusal(name: str) -> Callable[..., str | None]:
    found: Callable[..., str | None] | None = getattr(_module(name), "why_not", None)
    return found or _float32_only


def _float32_only(*args: Any) -> str | None:
    others = {a.dtype for a in args if isinstance(a, Tensor) and a.is_floating_point()}
    return None if others <= {torch.float32} else f"it takes float32 tensors, got {others}"
