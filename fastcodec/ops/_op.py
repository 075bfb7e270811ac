"""The one dispatch rule: an op is its reference, a torch schema, and the backends that serve it.

``@op(...)`` declares the torch operator ``fastcodec::<name>`` with the schema of the reference's
signature. A call takes the first backend that is there and accepts the arguments, in the order of
``BACKENDS``, else the reference; with a backend forced by name it takes that one or raises
``BackendError``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.library import infer_schema

from fastcodec import _native
from fastcodec.errors import BackendError
from fastcodec.ops import _triton

BACKENDS = ("cpu", "cuda", "triton", "reference")
LIBRARY = torch.library.Library("fastcodec", "DEF")

_LIBRARIES = {"cpu": _native.cpu, "cuda": _native.cuda}
_ops: dict[str, Op] = {}
_schemas: dict[str, str] = {}
_forced: str | None = None


class Op:
    """An operator of the library; calling it dispatches. See the reference for its meaning."""

    def __init__(self, reference: Callable[..., Any], decided_by: int) -> None:
        self.name = reference.__name__
        self.reference = reference
        self.__doc__ = reference.__doc__
        self.examples: Callable[[], Sequence[tuple[Any, ...]]] = tuple
        # The Triton kernel with the op's autograd formula; None where codes come out.
        self.trained: type[torch.autograd.Function] | None = None
        # What the CUDA kernel cannot do: arguments -> the reason, or None.
        self.cuda_why_not: Callable[..., str | None] | None = None
        self._decided_by = decided_by
        self._defaults = [p.default for p in signature(reference).parameters.values()]
        self._native = getattr(torch.ops.fastcodec, self.name).default

    def __call__(self, *args: Any) -> Any:
        if _forced is None:
            x = args[self._decided_by]
            if x.device.type == "cuda":
                return self._on_gpu(x, args)
            library = _LIBRARIES.get(x.device.type)
            serves = library is not None and library.why_not is None and self.name in library.ops
            return (
                self._native(*args)
                if serves and x.dtype is torch.float32
                else self.reference(*args)
            )
        if _forced == "reference":
            return self.reference(*args)
        if (reason := self.why_not(_forced, args)) is not None:
            raise BackendError(f"{self.name}: backend '{_forced}' was asked for, but {reason}")
        run = self._by_triton if _forced == "triton" else self._by_library
        return _on_its_gpu(args[self._decided_by], run, args)

    def _on_gpu(self, x: Tensor, args: tuple[Any, ...]) -> Any:
        if self.why_not("cuda", args) is None:
            return _on_its_gpu(x, self._by_library, args)
        if _triton.why_not(self.name, args, x) is None:
            return _on_its_gpu(x, self._by_triton, args)
        return _on_its_gpu(x, self._by_torch, args)

    def _by_library(self, args: tuple[Any, ...]) -> Any:
        return self._native(*args)

    def _by_torch(self, args: tuple[Any, ...]) -> Any:
        """The reference on a GPU, where torch may round float32 to TF32 or to autocast's type."""
        if torch.compiler.is_compiling():
            return self.reference(*args)
        with torch._C._DisableAutocast(), _ieee_float32():
            return self.reference(*args)

    def _by_triton(self, args: tuple[Any, ...]) -> Any:
        if self.trained is not None and torch.is_grad_enabled():
            if any(isinstance(a, Tensor) and a.requires_grad for a in args):
                return self.trained.apply(*args, *self._defaults[len(args) :])
        return _triton.kernel(self.name)(*args)

    def why_not(self, backend: str, args: Sequence[Any] | None = None) -> str | None:
        """Why ``backend`` cannot serve this op (with these arguments), or None where it can."""
        if backend == "reference":
            return None
        if backend == "triton":
            absent = _triton.why_absent(self.name)
            if absent is not None or args is None:
                return absent
            return _triton.why_not(self.name, args, args[self._decided_by])
        library = _LIBRARIES.get(backend)
        if library is not None and library.why_not is not None:
            return library.why_not
        if library is None or self.name not in library.ops:
            return f"there is no {backend} kernel of {self.name} yet"
        if args is None:
            return None
        x = args[self._decided_by]
        if x.device.type != backend or x.dtype is not torch.float32:
            return f"it takes float32 tensors on {backend}, got {x.dtype} on {x.device}"
        if backend == "cuda" and self.cuda_why_not is not None:
            return self.cuda_why_not(*args)
        return None

    def report(self) -> list[tuple[str, str | None]]:
        """(backend, None or why not) in the order in which a call tries them."""
        return [(backend, self.why_not(backend)) for backend in BACKENDS]


def _on_its_gpu(x: Tensor, run: Callable[[tuple[Any, ...]], Any], args: tuple[Any, ...]) -> Any:
    """``run(args)`` with x's GPU as the current one, on which kernels are launched."""
    if x.device.type != "cuda" or torch.compiler.is_compiling():  # Dynamo sees no guard through
        return run(args)
    if x.device.index == torch.cuda.current_device():
        return run(args)
    with torch.cuda.device(x.device):
        return run(args)


@contextmanager
def _ieee_float32() -> Iterator[None]:
    """No TF32 in torch's own products, whatever the program has set."""
    cudnn: Any = torch.backends.cudnn
    kinds: list[Any] = [cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul]
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def op(
    *,
    fake: Callable[..., Any],
    trainable: bool = False,
    decided_by: int = 0,
    native_vjp: Callable[..., tuple[Tensor | None, ...] | None] | None = None,
) -> Callable[[Callable[..., Any]], Op]:
    """Declare an op from its reference.

    Args:
        fake: shapes and strides of the result, for tracing
        trainable: give it an autograd formula: the reference is run again in the backward pass
        decided_by: position of the tensor whose device and dtype choose the backend
        native_vjp: (inputs, *gradients of the outputs) -> gradients of the inputs without the
            reference, or None where it cannot
    """

    def declare(reference: Callable[..., Any]) -> Op:
        name = declare_schema(reference, fake)
        _ops[name] = Op(reference, decided_by)
        if trainable:
            backward, setup_context = _vjp_of(reference, native_vjp)
            _ops[name].trained = _trained(name, setup_context, backward)
            torch.library.register_autograd(
                f"fastcodec::{name}", backward, setup_context=setup_context, lib=LIBRARY
            )
        return _ops[name]

    return declare


def declare_schema(
    signature: Callable[..., Any], fake: Callable[..., Any], mutates: Sequence[str] = ()
) -> str:
    """Declare ``fastcodec::<name>`` with the signature of a function and its fake.

    Args:
        mutates: the tensors among its arguments that a call changes
    """
    name = signature.__name__
    schema = name + infer_schema(signature, mutates_args=mutates)
    LIBRARY.define(schema)
    torch.library.register_fake(f"fastcodec::{name}", fake, lib=LIBRARY)
    _schemas[name] = schema
    return name


def serves_native(name: str, x: Tensor) -> bool:
    """Whether a call of the native operator ``fastcodec::<name>`` decided by x is in order."""
    library = _LIBRARIES.get(x.device.type)
    return (
        library is not None
        and library.why_not is None
        and name in library.ops
        and x.dtype is torch.float32
        and _forced in (None, x.device.type)
    )


def triton_kernel(name: str, x: Tensor, *args: Any) -> Callable[..., Any] | None:
    """The Triton kernel of ``kernels/<name>.py`` where a call decided by x is to take it."""
    wanted = _forced == "triton" or (_forced is None and x.device.type == "cuda")
    return _triton.kernel(name) if wanted and _triton.why_not(name, args, x) is None else None


def _vjp_of(
    reference: Callable[..., Any], native: Callable[..., tuple[Tensor | None, ...] | None] | None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Backward and context functions that differentiate the reference at the saved inputs."""

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.is_tensor = [isinstance(value, Tensor) for value in inputs]
        ctx.constants = [None if isinstance(value, Tensor) else value for value in inputs]
        ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))

    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = iter(ctx.saved_tensors)
        args = [
            next(saved) if is_tensor else c
            for is_tensor, c in zip(ctx.is_tensor, ctx.constants, strict=True)
        ]
        if native is not None and (gradients := native(args, *grads)) is not None:
            return gradients
        wanted = [i for i, needs in enumerate(ctx.needs_input_grad) if needs]
        with torch.enable_grad():
            for i in wanted:
                args[i] = args[i].detach().requires_grad_()
            outputs = reference(*args)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        found = torch.autograd.grad(outputs, [args[i] for i in wanted], grads, allow_unused=True)
        by_input = dict(zip(wanted, found, strict=True))
        return tuple(by_input.get(i) for i in range(len(args)))

    return backward, setup_context


def _trained(
    name: str, setup: Callable[..., None], vjp: Callable[..., tuple[Tensor | None, ...]]
) -> type[torch.autograd.Function]:
    """The Triton kernel with a backward."""

    class Trained(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> Any:
            return _triton.kernel(name)(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            setup(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            return vjp(ctx, *grads)

    return Trained


def time_major(x: Tensor, batch: int, channels: int, frames: int) -> Tensor:
    """An uninitialised [B, C, T] tensor with channels adjacent in memory, for fakes."""
    return x.new_empty(batch, frames, channels).transpose(1, 2)


def packed_vector(weight: Tensor) -> Tensor:
    """A vector whose size only the kernels know, for the fakes of packing ops."""
    return weight.new_empty(torch.library.get_ctx().new_dynamic_size())


def registry() -> list[Op]:
    """Every op, by name."""
    return [_ops[name] for name in sorted(_ops)]


class use_backend:
    """Serve every op by one backend until changed, or inside a ``with`` block.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"triton"``, ``"reference"``, or None to choose by itself.
            The environment variable ``FASTCODEC_BACKEND`` sets the start value.

    Raises:
        ValueError: for another name
        BackendError: at the first call that this backend cannot serve
    """

    def __init__(self, name: str | None) -> None:
        global _forced
        if name is not None and name not in BACKENDS:
            raise ValueError(
                f"use_backend: expected one of {', '.join(BACKENDS)} or None, got {name!r}"
            )
        self._before = _forced
        _forced = name

    def __enter__(self) -> use_backend:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _forced
        _forced = self._before


def forced_backend() -> str | None:
    """The backend every op must use, or None."""
    return _forced


def connect() -> None:
    """Load the native library (once all ops are declared) and read ``FASTCODEC_BACKEND``."""
    _native.load(_schemas)
    use_backend(os.environ.get("FASTCODEC_BACKEND") or None)
