"""Plain description of a ``.tflite`` file: subgraphs, tensors with their constants, operators.

Source: tensorflow/lite/schema/schema.fbs (file identifier ``TFL3``), read with the generated
classes of the PyPI package ``tflite``. Nothing is executed. Constants are views of the bytes that
were read, so a file can never make the reader allocate more than its own size.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastcodec.errors import FormatError
from fastcodec.optional import require

# Far above any codec (Lyra's graphs have 1126 tensors at most) and low enough that a hostile file,
# whose tables all point to one place, is refused before it costs time or memory.
_MAX_BYTES = 1 << 28
_MAX_TENSORS = 1 << 14
_MAX_LINKS = 1 << 16
_MAX_TEXT_BYTES = 1 << 20
_MAX_RANK = 8

_DTYPES = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "INT8": "i1",
    "UINT8": "u1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "BOOL": "?",
}
_OPTIONS = {
    "CONV_2D": (
        "Conv2DOptions",
        "Padding StrideH StrideW DilationHFactor DilationWFactor FusedActivationFunction",
    ),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        "Padding StrideH StrideW DilationHFactor DilationWFactor DepthMultiplier "
        "FusedActivationFunction",
    ),
    "TRANSPOSE_CONV": (
        "TransposeConvOptions",
        "Padding StrideH StrideW FusedActivationFunction",
    ),
    "LEAKY_RELU": ("LeakyReluOptions", "Alpha"),
    "ADD": ("AddOptions", "FusedActivationFunction"),
    "SUB": ("SubOptions", "FusedActivationFunction"),
    "CONCATENATION": ("ConcatenationOptions", "Axis FusedActivationFunction"),
    "SPLIT": ("SplitOptions", "NumSplits"),
    "GATHER": ("GatherOptions", "Axis BatchDims"),
}
# Inputs that an operator must have, and outputs.
_ARITY = {
    "CONV_2D": (2, 1),
    "DEPTHWISE_CONV_2D": (2, 1),
    "TRANSPOSE_CONV": (3, 1),
    "LEAKY_RELU": (1, 1),
    "ADD": (2, 1),
    "SUB": (2, 1),
    "GATHER": (2, 1),
    "STRIDED_SLICE": (4, 1),
}
# What the flatbuffers runtime raises when an offset leads outside the bytes.
_BAD_BYTES = (
    struct.error,
    IndexError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
)


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point), one scale a tensor or one a channel of ``axis``."""

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int


@dataclass(frozen=True)
class Tensor:
    """One tensor; ``data`` is None unless the file holds its values, ``quantization`` likewise."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None
    quantization: Quantization | None


@dataclass(frozen=True)
class Operator:
    """One operator: schema name (``CONV_2D``), tensor numbers (-1: absent input), options."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, float]


@dataclass(frozen=True)
class Subgraph:
    """One subgraph; operators are in execution order."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def constant(self, index: int) -> np.ndarray | None:
        """The values of tensor ``index`` where the file holds them, else None (also for -1)."""
        return self.tensors[index].data if index >= 0 else None


def read_tflite(path: str | Path) -> tuple[Subgraph, ...]:
    """The subgraphs of the file at ``path``.

    Raises:
        FormatError: not a .tflite file, truncated, corrupted or too large
        OSError: the file cannot be read
        ImportError: the packages of the extra ``lyra`` are missing
    """
    path = Path(path)
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise FormatError(f"{path}: expected at most {_MAX_BYTES} bytes, got {size}")
    try:
        return parse_tflite(path.read_bytes())
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error.__cause__


def parse_tflite(data: bytes) -> tuple[Subgraph, ...]:
    """The subgraphs of a .tflite file given as bytes; the constants are views of ``data``.

    Raises:
        FormatError: not a .tflite file, truncated or corrupted
        ImportError: the packages of the extra ``lyra`` are missing
    """
    schema = require("tflite", "lyra", "reading .tflite files")
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise FormatError(f"not a .tflite file: bytes 4:8 must be TFL3, got {data[4:8]!r}")
    try:
        model = schema.Model.GetRootAs(data)
        return _Reader(schema, model, len(data)).subgraphs()
    except FormatError:
        raise
    except _BAD_BYTES as error:
        raise FormatError(f".tflite file is truncated or corrupted: {error}") from error


class _Reader:
    """Walks one model; every count is checked against what the file could hold before a loop."""

    def __init__(self, schema: Any, model: Any, size: int) -> None:
        self._schema = schema
        self._model = model
        self._size = size
        self._links = 0
        self._text_bytes = 0
        self._names = _constant_names(schema.BuiltinOperator)
        self._types = _constant_names(schema.TensorType)

    def subgraphs(self) -> tuple[Subgraph, ...]:
        count = self._count(self._model.SubgraphsLength(), "subgraphs")
        return tuple(self._subgraph(self._model.Subgraphs(i)) for i in range(count))

    def _count(self, count: int, what: str, unit_bytes: int = 4) -> int:
        """``count`` when the file can hold that many, and all vectors so far, in its bytes."""
        self._links += count
        if count * unit_bytes > self._size or self._links > _MAX_LINKS:
            raise FormatError(f"{count} {what} do not fit in a file of {self._size} bytes")
        return count

    def _subgraph(self, graph: Any) -> Subgraph:
        n_tensors = self._count(graph.TensorsLength(), "tensors")
        if n_tensors > _MAX_TENSORS:
            raise FormatError(f"expected at most {_MAX_TENSORS} tensors, got {n_tensors}")
        tensors = tuple(self._tensor(graph.Tensors(i)) for i in range(n_tensors))
        n_operators = self._count(graph.OperatorsLength(), "operators")
        return Subgraph(
            name=self._text(graph.Name()),
            tensors=tensors,
            operators=tuple(
                self._operator(graph.Operators(i), n_tensors) for i in range(n_operators)
            ),
            inputs=self._indices(graph.InputsLength(), graph.InputsAsNumpy(), n_tensors),
            outputs=self._indices(graph.OutputsLength(), graph.OutputsAsNumpy(), n_tensors),
        )

    def _tensor(self, tensor: Any) -> Tensor:
        rank = self._count(tensor.ShapeLength(), "dimensions")
        shape = tuple(tensor.ShapeAsNumpy().tolist()) if rank else ()
        if rank > _MAX_RANK or any(size < 0 for size in shape):
            raise FormatError(f"tensor shape must have at most {_MAX_RANK} sizes >= 0: {shape}")
        if tensor.Sparsity() is not None:
            raise FormatError("sparse tensors are not supported")
        dtype = self._types[tensor.Type()]
        return Tensor(
            name=self._text(tensor.Name()),
            shape=shape,
            dtype=dtype,
            data=self._data(tensor.Buffer(), dtype, shape),
            quantization=self._quantization(tensor.Quantization(), shape),
        )

    def _data(self, buffer: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray | None:
        if not 0 <= buffer < self._model.BuffersLength():
            raise FormatError(f"tensor refers to buffer {buffer}, which the file does not have")
        table = self._model.Buffers(buffer)
        if table.Offset() > 1:
            raise FormatError("constants outside the flatbuffer are not supported")
        if not table.DataLength():
            return None
        if dtype not in _DTYPES:
            raise FormatError(f"constants of type {dtype} are not supported")
        raw, kind = table.DataAsNumpy(), np.dtype(_DTYPES[dtype])
        if raw.size != math.prod(shape) * kind.itemsize:
            raise FormatError(f"a constant {dtype} {list(shape)} cannot have {raw.size} bytes")
        values: np.ndarray = raw.view(kind).reshape(shape)
        return values

    def _quantization(self, table: Any, shape: tuple[int, ...]) -> Quantization | None:
        if table is None or not table.ScaleLength():
            return None
        self._count(table.ScaleLength(), "scales")
        scale = table.ScaleAsNumpy()
        zero_point = table.ZeroPointAsNumpy() if table.ZeroPointLength() else np.zeros(1, "<i8")
        axis = table.QuantizedDimension()
        if scale.size > 1 and not (0 <= axis < len(shape) and scale.size == shape[axis]):
            raise FormatError(f"{scale.size} scales along axis {axis} do not fit shape {shape}")
        if zero_point.size not in (1, scale.size):
            raise FormatError(f"expected {scale.size} zero points, got {zero_point.size}")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise FormatError("quantisation scales must be finite and positive")
        return Quantization(scale, zero_point, axis)

    def _operator(self, operator: Any, n_tensors: int) -> Operator:
        if not 0 <= operator.OpcodeIndex() < self._model.OperatorCodesLength():
            raise FormatError(f"operator code {operator.OpcodeIndex()} is not in the file")
        opcode = self._model.OperatorCodes(operator.OpcodeIndex())
        # Codes below 127 are kept in the older field for readers of that age.
        name = self._names[max(opcode.BuiltinCode(), opcode.DeprecatedBuiltinCode())]
        inputs = self._indices(operator.InputsLength(), operator.InputsAsNumpy(), n_tensors)
        outputs = self._indices(operator.OutputsLength(), operator.OutputsAsNumpy(), n_tensors)
        n_inputs, n_outputs = _ARITY.get(name, (0, 0))
        needed = inputs[:n_inputs] + outputs[:n_outputs]
        if len(needed) < n_inputs + n_outputs or min(needed, default=0) < 0:
            raise FormatError(f"{name} lacks inputs or outputs: got {inputs} and {outputs}")
        return Operator(name, inputs, outputs, self._options(name, operator))

    def _options(self, name: str, operator: Any) -> dict[str, float]:
        if name not in _OPTIONS:
            return {}
        class_name, fields = _OPTIONS[name]
        table = operator.BuiltinOptions()
        kind = getattr(self._schema.BuiltinOptions, class_name)
        if table is None or operator.BuiltinOptionsType() != kind:
            raise FormatError(f"{name} has no {class_name}")
        options = getattr(self._schema, class_name)()
        options.Init(table.Bytes, table.Pos)
        return {field: getattr(options, field)() for field in fields.split()}

    def _text(self, raw: bytes | None) -> str:
        self._text_bytes += len(raw or b"")
        if self._text_bytes > _MAX_TEXT_BYTES:
            raise FormatError(f"expected at most {_MAX_TEXT_BYTES} bytes of names")
        return (raw or b"").decode("utf-8", errors="replace")

    def _indices(self, count: int, values: Any, n_tensors: int) -> tuple[int, ...]:
        # The generated accessor gives 0 instead of an array where the vector is absent.
        indices = tuple(values.tolist()) if self._count(count, "links") else ()
        if any(not -1 <= index < n_tensors for index in indices):
            raise FormatError(f"a tensor number is not in [-1, {n_tensors})")
        return indices


def _constant_names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}
