"""A GPU that is not there: tensors that say they are on ``cuda`` and are computed on the CPU.

What a GPU would refuse is refused: an operation on tensors of several devices, a GPU's tensor as an
array, and inside ``capturing`` whatever makes the host wait. All else has its values, so that nets
whose way depends on them run through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CPU = torch.device("cpu")
_aten = torch.ops.aten
_MOVES = (_aten._to_copy.default, _aten.copy_.default)
# What tells the host a value, or makes a size of values.
_WAITS = (
    _aten._local_scalar_dense.default,
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten.equal.default,
    _aten._unique2.default,
    _aten.repeat_interleave.Tensor,
)


class OnGpu(Tensor):
    """A tensor of the pretended GPU; ``here``: its values."""

    here: Tensor
    gpu: torch.device

    @staticmethod
    def __new__(cls, here: Tensor, gpu: torch.device) -> OnGpu:
        shell = torch.empty_strided(here.shape, here.stride(), dtype=here.dtype, device="meta")
        # To C++ it is on "meta": in a build without CUDA it cannot be anywhere else.
        self: OnGpu = Tensor._make_subclass(cls, shell, False)
        self.here, self.gpu = here, gpu
        return self

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.gpu

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def untyped_storage(self) -> Any:
        return self.here.untyped_storage()

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(self._moved(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(self._moved(index), value)

    def _moved(self, index: Any) -> Any:
        """Lists of numbers as a tensor here, which torch would put on "meta"."""
        if isinstance(index, tuple):
            return tuple(self._moved(part) for part in index)
        return torch.tensor(index).to(self.gpu) if isinstance(index, list) else index

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda tensor to numpy; use Tensor.cpu() first")

    def __array__(self, *args: Any) -> Any:
        raise TypeError("can't convert cuda tensor to numpy; use Tensor.cpu() first")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return memo.setdefault(id(self), self.clone())

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a pretended GPU's tensor outside of PretendGpu()")


class _Current:
    """``torch.cuda.device``: which GPU is the current one."""

    index = 0

    def __init__(self, device: Any) -> None:
        self.wanted = torch.device(device).index or 0

    def __enter__(self) -> None:
        self.before, _Current.index = _Current.index, self.wanted

    def __exit__(self, *error: Any) -> None:
        _Current.index = self.before


class PretendGpu(TorchDispatchMode):
    """Inside it ``device="cuda"`` works as if torch had a GPU, or two."""

    def __init__(self) -> None:
        # Of the kind of torch's own fake tensors: for these it does not ask for a real GPU.
        super().__init__()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        self._capturing = False
        self._patches, self._depth = ExitStack(), 0

    def __enter__(self) -> PretendGpu:
        if self._depth == 0:
            self._patches.enter_context(mock.patch.object(torch.cuda, "device", _Current))
            current = mock.patch.object(torch.cuda, "current_device", lambda: _Current.index)
            self._patches.enter_context(current)
        self._depth += 1
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._depth -= 1
        if self._depth == 0:
            self._patches.close()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """As while a CUDA graph is captured: the host may neither wait nor hand over memory."""
        self._capturing = True
        try:
            yield
        finally:
            self._capturing = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if _is_composite(func):  # below autograd, nobody has taken it apart yet
            with self:
                return func.decompose(*args, **kwargs)
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        gpus = {t.device for t in tensors if t.device.type == "cuda"}
        hosted = any(t.device.type == "cpu" and t.ndim for t in tensors)
        if func not in _MOVES and (len(gpus) > 1 or (gpus and hosted)):
            places = [f"{list(t.shape)} on {t.device}" for t in tensors]
            raise RuntimeError(f"{func}: expected all tensors on one device, got {places}")
        target = self._target(func, args, kwargs, gpus)
        if self._capturing:
            self._refuse(func, args, target, gpus)
        if kwargs.get("device") is not None:
            kwargs["device"] = CPU
        found = func(*tree_map(_here, args), **tree_map(_here, kwargs))
        if target.type != "cuda":
            return found
        if not func._schema.returns:
            return None
        if func._schema.name.endswith("_"):
            return args[0]
        return tree_map(lambda v: OnGpu(v, target) if isinstance(v, Tensor) else v, found)

    def _target(self, func: Any, args: Any, kwargs: Any, gpus: set[torch.device]) -> torch.device:
        """Where the result of a call is."""
        asked = kwargs.get("device")
        if func is _aten.copy_.default:
            return args[0].device
        if asked is not None and torch.device(asked).type != "meta":
            asked = torch.device(asked)
            return torch.device("cuda", 0) if asked == torch.device("cuda") else asked
        return next(iter(gpus), CPU)

    def _refuse(self, func: Any, args: Any, target: torch.device, gpus: set[torch.device]) -> None:
        by_mask = func in (_aten.index.Tensor, _aten.index_put_.default) and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        crosses = func in _MOVES and len({t.device for t in args if isinstance(t, Tensor)}) > 1
        if func is _aten._to_copy.default:
            crosses = args[0].device != target
        if (gpus or crosses) and (func in _WAITS or by_mask or crosses):
            raise RuntimeError(f"{func}: the host would wait, which a graph cannot hold")


def _here(value: Any) -> Any:
    return value.here if isinstance(value, OnGpu) else value


def _is_composite(func: Any) -> bool:
    key = "CompositeImplicitAutograd"
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)
