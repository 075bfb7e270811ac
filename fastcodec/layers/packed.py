"""The native kernels' own copy of a layer's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastcodec import _native
from fastcodec.ops import forced_backend


class Packed:
    """Makes the packed copy when it is first needed and again when a parameter has changed.

    Args:
        pack: an op's packing function, such as ``ops.conv1d_pack``
        arguments: its arguments after the parameters, but for a convolution's precision
    """

    def __init__(self, pack: Callable[..., Tensor], *arguments: int) -> None:
        self._pack = pack
        self._arguments = arguments
        self._key: tuple[object, ...] = ()
        self._copy: Tensor | None = None

    def get(self, *parameters: Tensor, precision: int | None = None) -> Tensor | None:
        """The packed copy of these parameters, or None where the CPU kernels do not serve them.

        Args:
            precision: one of ``ops.PRECISIONS``, of a convolution; None: the op knows none
        """
        first = parameters[0]
        if _native.cpu.why_not is not None or first.device.type != "cpu":
            return None
        if forced_backend() not in (None, "cpu") or first.dtype is not torch.float32:
            return None
        if first.is_inference():
            return None  # does not tell when it changes: the op packs it at every call
        key = (precision, *((p.data_ptr(), p._version) for p in parameters))
        if key != self._key:
            last = () if precision is None else (precision,)
            self._copy = self._pack(*(p.detach() for p in parameters), *self._arguments, *last)
            self._key = key
        return self._copy

    def __reduce__(self) -> tuple[Any, ...]:  # a copy or a pickle of a layer makes its own
        return Packed, (self._pack, *self._arguments)
