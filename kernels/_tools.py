"""What the Triton kernels share: launching, and the list of what is compiled without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.library import wrap_triton

INT32_MOST = 2**31 - 1
MEDIUM = 2  # of fastcodec.ops.PRECISIONS: products of bfloat16


def launcher(kernel: Any) -> Any:
    """A jitted kernel in the form whose launches torch.compile can see, while it looks."""
    return wrap_triton(kernel)


@dataclass(frozen=True)
class Offline:
    """A kernel at its real block sizes, for the compiler alone (``_offline.py``).

    Args:
        kernel: jitted
        types: argument -> Triton type, such as ``*fp32`` or ``i32``
        constants: constexpr argument -> value
        options: num_warps, num_stages
        aligned: arguments known to be multiples of 16, as the launcher would find
    """

    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    options: Mapping[str, int] = field(default_factory=lambda: {"num_warps": 4})
    aligned: tuple[str, ...] = ()


def only_float32(*tensors: Tensor) -> str | None:
    """Why not, where these are not float32 tensors of one device."""
    kinds = {t.dtype for t in tensors}
    if kinds != {torch.float32}:
        return f"it takes float32 tensors, got {kinds}"
    devices = {t.device for t in tensors}
    return None if len(devices) == 1 else f"it takes tensors of one device, got {devices}"
