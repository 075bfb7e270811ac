"""What the Triton kernels share: launching, and the list of what is compiled without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.library import wrap_triton

INT32_MOST = 2**31 - 1


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
