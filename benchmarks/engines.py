"""Ways to run a published net: torch eager and compiled, in float32 and bf16, and other engines.

What an engine cannot run is a reason in the row, never an error of ours.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Function = Callable[..., Tensor]  # of the tensors that are its input
MISSING = "not installed: pip install --no-deps -r requirements/peers.txt"


@dataclass(frozen=True)
class Published:
    """A published implementation with our weights.

    Args:
        name: with its version
        net: for an engine to take the weights from; the functions below run it
        encode: wav [B, C, S] -> codes [B, K, T]
        decode: codes [B, K, T], scale or None -> wav [B, C, S'], S' at least the signal's
        absent: why it cannot run here
        settings: to run it under, of ``SETTINGS``
        renew: forgets the last signal, where a result depends on the calls before it
    """

    name: str
    net: nn.Module | None = None
    encode: Function | None = None
    decode: Function | None = None
    absent: str | None = None
    settings: tuple[str, ...] = ("float32", "mkldnn.conv bf16", "autocast bf16")
    renew: Callable[[], None] | None = None


@contextmanager
def bf16_convolutions() -> Iterator[None]:
    """float32 tensors, whose convolutions oneDNN may compute in bf16."""
    before = torch.backends.mkldnn.conv.fp32_precision
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.backends.mkldnn.conv.fp32_precision = before


# Name -> what it runs under; the first is the only one in float32.
SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float32": contextlib.nullcontext,
    "mkldnn.conv bf16": bf16_convolutions,
    "autocast bf16": lambda: torch.autocast("cpu", torch.bfloat16),
}


def under(setting: str, run: Function) -> Function:
    """The function under a setting; what it gives is float32 again."""

    def call(*args: Tensor) -> Tensor:
        with SETTINGS[setting]():
            y = run(*args)
        return y.float() if y.is_floating_point() else y

    return call


def compiled(run: Function) -> Function:
    """By torch.compile, the weights as constants."""
    torch._logging.set_logs(all=logging.ERROR)
    torch._dynamo.reset()  # of another number of threads, which the code has in it
    return torch.compile(run, dynamic=False, options={"freezing": True})


class _Whole(nn.Module):
    """A function of a net as a module, which is what exporters take."""

    def __init__(self, net: nn.Module, run: Function) -> None:
        super().__init__()
        self.net, self.run = net, run

    def forward(self, *args: Tensor) -> Tensor:
        return self.run(*args)


class Exported:
    """One net as ONNX, of fixed sizes, under onnxruntime and OpenVINO.

    Raises (in ``path``):
        RuntimeError: torch.onnx exports it neither by torch.export nor by tracing
    """

    def __init__(self, net: nn.Module, run: Function, inputs: tuple[Tensor, ...]) -> None:
        self.whole, self.inputs = _Whole(net, run), inputs
        self._folder = tempfile.TemporaryDirectory(prefix="fastcodec-onnx-")
        self._path: Path | str | None = None

    def path(self) -> Path:
        """Of the .onnx file, made once."""
        if self._path is None:
            self._path = self._export()
        if isinstance(self._path, str):
            raise RuntimeError(self._path)
        return self._path

    def _export(self) -> Path | str:
        if not (find_spec("onnx") and find_spec("onnxscript")):
            return "onnx and onnxscript " + MISSING
        path, problems = Path(self._folder.name) / "net.onnx", []
        for dynamo in (True, False):
            try:
                with _silence(), torch.inference_mode(False), torch.no_grad():
                    inputs = tuple(x.clone() for x in self.inputs)
                    options = {"optimize": True} if dynamo else {"opset_version": 18}
                    torch.onnx.export(
                        self.whole, inputs, str(path), dynamo=dynamo, verbose=False, **options
                    )
                return path
            except Exception as error:
                problems.append(f"{type(error).__name__}: {_line(error)}")
        return "torch.onnx: " + " | ".join(problems)

    def onnxruntime(self) -> Function:
        """A session at torch's present number of threads."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(self.path()), options, providers=["CPUExecutionProvider"]
        )
        names = [x.name for x in session.get_inputs()]

        def run(*args: Tensor) -> Tensor:
            feed = {name: x.numpy() for name, x in zip(names, args, strict=True)}
            return torch.from_numpy(session.run(None, feed)[0])

        return run

    def openvino(self, precision: str) -> Function:
        """A compiled model in ``precision`` ("f32" or "bf16") at torch's number of threads."""
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = openvino.Core().compile_model(str(self.path()), "CPU", settings)

        def run(*args: Tensor) -> Tensor:
            return torch.from_numpy(model([x.numpy() for x in args])[0].copy())

        return run


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters print whole graphs."""
    sink, level = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _line(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else ""


# Package, the setting that its row names, how it is made of an export.
OTHER_ENGINES: tuple[tuple[str, str, Callable[[Exported], Function]], ...] = (
    ("onnxruntime", "float32", Exported.onnxruntime),
    ("openvino", "float32", lambda net: net.openvino("f32")),
    ("openvino", "bf16", lambda net: net.openvino("bf16")),
)
