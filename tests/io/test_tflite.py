"""The .tflite reader: what it reads, and that bad bytes give ``FormatError`` and nothing else."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

flatbuffers = pytest.importorskip("flatbuffers")
tflite = pytest.importorskip("tflite")

from fastcodec.errors import FormatError  # noqa: E402
from fastcodec.io.tflite import parse_tflite, read_tflite  # noqa: E402

LIMIT_BYTES = 100 << 20
MUTATIONS = 6000
LYRA = ("soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite")


def test_reads_tensors_and_operators() -> None:
    (graph,) = parse_tflite(small_model())
    assert (graph.name, graph.inputs, graph.outputs) == ("main", (0,), (3,))
    image, weight, bias, result = graph.tensors
    assert (image.name, image.shape, image.dtype) == ("image", (1, 8, 1, 2), "INT8")
    assert image.data is None and image.quantization is not None
    assert image.quantization.scale.tolist() == [0.5]
    assert image.quantization.zero_point.tolist() == [-3]
    assert weight.data is not None and weight.quantization is not None
    np.testing.assert_array_equal(weight.data, WEIGHT)
    assert weight.quantization.scale.tolist() == [1.0, 2.0, 4.0, 8.0]
    assert weight.quantization.axis == 0
    np.testing.assert_array_equal(graph.constant(2), BIAS)
    assert graph.constant(0) is None and graph.constant(-1) is None
    assert result.quantization is None
    (conv,) = graph.operators
    assert (conv.name, conv.inputs, conv.outputs) == ("CONV_2D", (0, 1, 2), (3,))
    assert (conv.options["StrideH"], conv.options["StrideW"]) == (2, 1)


def test_reads_lyra(shared: Path) -> None:
    folder = shared / "data" / "lyra_v2" / "int8"
    encoder, quantizer, decoder = (read_tflite(folder / name) for name in LYRA)
    assert [graph.name for graph in encoder] == ["main", "NoOp"]
    assert [graph.name for graph in quantizer] == ["decode", "encode"]
    for graph, n_int8, n_float in ((encoder[0], 337_408, 320_192), (decoder[0], 444_672, 214_913)):
        weights = [t.data for t in graph.tensors if t.data is not None and t.data.ndim == 4]
        assert sum(w.size for w in weights if w.dtype == np.int8) == n_int8
        assert sum(w.size for w in weights if w.dtype == np.float32) <= n_float


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x00" * 64, b"RIFF" * 20, b"PK\x03\x04TFL3"])
def test_other_bytes(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_tflite(data)


def test_the_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.tflite"
    path.write_bytes(small_model()[:100])
    with pytest.raises(FormatError, match="cut.tflite"):
        read_tflite(path)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"weight_bytes": bytes(23)}, "cannot have 23 bytes"),
        ({"weight_shape": [4, 3, 1, -2]}, "sizes >= 0"),
        ({"weight_shape": [1] * 9}, "at most 8"),
        ({"scales": [1.0, 2.0]}, "do not fit"),
        ({"scales": [1.0, 2.0, 4.0, float("nan")]}, "finite and positive"),
        ({"scales": [1.0, 2.0, 4.0, -1.0]}, "finite and positive"),
        ({"inputs": [0, 9, 2]}, "tensor number"),
        ({"inputs": [0]}, "lacks inputs"),
        ({"inputs": [-1, 1, 2]}, "lacks inputs"),
        ({"buffer": 7}, "buffer 7"),
        ({"opcode": 5}, "operator code 5"),
        ({"options_type": "AddOptions"}, "no Conv2DOptions"),
    ],
)
def test_refuses(change: dict[str, object], what: str) -> None:
    with pytest.raises(FormatError, match=what):
        parse_tflite(small_model(**change))


def test_every_truncation_of_a_small_file() -> None:
    data = small_model()
    for size in range(len(data)):
        _must_not_crash(data[:size])


def test_mutations_of_a_small_file() -> None:
    rng, data = random.Random(1), small_model()
    tracemalloc.start()
    try:
        for _ in range(MUTATIONS):
            _must_not_crash(_mutated(rng, data))
        assert tracemalloc.get_traced_memory()[1] < LIMIT_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", LYRA)
def test_mutations_of_lyra(shared: Path, name: str) -> None:
    rng = random.Random(2)
    data = (shared / "data" / "lyra_v2" / "int8" / name).read_bytes()
    constants = _largest_run_of_constants(data)
    tracemalloc.start()
    try:
        for _ in range(20):
            _must_not_crash(_mutated(rng, data, constants))
        assert tracemalloc.get_traced_memory()[1] < LIMIT_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "bomb", [lambda: _many_tensors_of_one_table(1 << 20), lambda: _many_long_names(4096)]
)
def test_small_files_that_describe_large_ones(bomb: Callable[[], bytes]) -> None:
    with pytest.raises(FormatError):
        parse_tflite(bomb())


WEIGHT = np.arange(24, dtype=np.int8).reshape(4, 3, 1, 2)
WORDS = (b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80")
BIAS = np.array([1, -2, 3, -4], dtype="<i4")


def small_model(
    weight_bytes: bytes = WEIGHT.tobytes(),
    weight_shape: list[int] = [4, 3, 1, 2],  # noqa: B006 (never written to)
    scales: list[float] = [1.0, 2.0, 4.0, 8.0],  # noqa: B006
    inputs: list[int] = [0, 1, 2],  # noqa: B006
    buffer: int = 1,
    opcode: int = 0,
    options_type: str = "Conv2DOptions",
) -> bytes:
    """One int8 convolution; the arguments spoil it."""
    b = flatbuffers.Builder(1024)
    constants = (b"", weight_bytes, BIAS.tobytes())
    buffers = [_table(b, "Buffer", Data=b.CreateByteVector(raw)) for raw in constants]
    tensors = [
        _tensor(b, "image", [1, 8, 1, 2], "INT8", 0, [0.5], [-3]),
        _tensor(b, "weight", weight_shape, "INT8", buffer, scales, [0] * len(scales)),
        _tensor(b, "bias", [4], "INT32", 2, [], []),
        _tensor(b, "result", [1, 3, 1, 4], "INT8", 0, [], []),
    ]
    options = _table(b, "Conv2DOptions", StrideH=2, StrideW=1, Padding=1)
    operator = _table(
        b,
        "Operator",
        OpcodeIndex=opcode,
        Inputs=_ints(b, inputs),
        Outputs=_ints(b, [3]),
        BuiltinOptionsType=getattr(tflite.BuiltinOptions, options_type),
        BuiltinOptions=options,
    )
    conv = tflite.BuiltinOperator.CONV_2D
    code = _table(b, "OperatorCode", DeprecatedBuiltinCode=conv, BuiltinCode=conv)
    return _model(b, buffers, tensors, [operator], [code])


def _model(
    b: flatbuffers.Builder,
    buffers: list[int],
    tensors: list[int],
    operators: list[int],
    codes: list[int],
) -> bytes:
    graph = _table(
        b,
        "SubGraph",
        Name=b.CreateString("main"),
        Tensors=_offsets(b, tensors),
        Operators=_offsets(b, operators),
        Inputs=_ints(b, [0]),
        Outputs=_ints(b, [3]),
    )
    parts = {"Buffers": buffers, "Subgraphs": [graph], "OperatorCodes": codes}
    vectors = {name: _offsets(b, offsets) for name, offsets in parts.items()}
    b.Finish(_table(b, "Model", Version=3, **vectors), file_identifier=b"TFL3")
    return bytes(b.Output())


def _tensor(
    b: flatbuffers.Builder,
    name: str,
    shape: list[int],
    dtype: str,
    buffer: int,
    scales: list[float],
    zero_points: list[int],
) -> int:
    quantization = _table(
        b,
        "QuantizationParameters",
        Scale=b.CreateNumpyVector(np.array(scales, dtype="<f4")),
        ZeroPoint=b.CreateNumpyVector(np.array(zero_points, dtype="<i8")),
    )
    return _table(
        b,
        "Tensor",
        Name=b.CreateString(name),
        Shape=_ints(b, shape),
        Type=getattr(tflite.TensorType, dtype),
        Buffer=buffer,
        Quantization=quantization,
    )


def _table(b: flatbuffers.Builder, kind: str, **fields: int) -> int:
    """The offset of a table, by the builder functions that ``tflite`` generates."""
    module = __import__(f"tflite.{kind}", fromlist=[kind])
    getattr(module, f"{kind}Start")(b)
    for name, value in fields.items():
        getattr(module, f"{kind}Add{name}")(b, value)
    return int(getattr(module, f"{kind}End")(b))


def _ints(b: flatbuffers.Builder, values: list[int]) -> int:
    return int(b.CreateNumpyVector(np.array(values, dtype="<i4")))


def _offsets(b: flatbuffers.Builder, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _many_tensors_of_one_table(count: int) -> bytes:
    b = flatbuffers.Builder(1024)
    buffers = [_table(b, "Buffer")]
    tensor = _tensor(b, "x", [1], "INT8", 0, [1.0], [0])
    return _model(b, buffers, [tensor] * count, [], [])


def _many_long_names(count: int) -> bytes:
    b = flatbuffers.Builder(1024)
    buffers = [_table(b, "Buffer")]
    tensor = _tensor(b, "x" * 100_000, [1], "INT8", 0, [1.0], [0])
    return _model(b, buffers, [tensor] * count, [], [])


def _must_not_crash(data: bytes) -> None:
    try:
        parse_tflite(data)
    except FormatError:
        pass


def _mutated(rng: random.Random, data: bytes, spared: range = range(0)) -> bytes:
    """Damage outside ``spared``: bits, words of extreme values, a cut, an insertion."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out))
        while at in spared:
            at = rng.randrange(len(out))
        kind = rng.randrange(5)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            word = rng.choice(
                (b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80")
            )
            out[at : at + 4] = word
        elif kind == 2:
            out[at] = rng.randrange(256)
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif len(out) > 16:
            del out[at : at + rng.choice((1, 4, len(out)))]
        out = out or bytearray(b"\x00")
    return bytes(out)


def _largest_run_of_constants(data: bytes) -> range:
    """Where the file holds the constants: damage there changes numbers only."""
    (graph, *_) = parse_tflite(data)
    base = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    spans = [
        (t.data.__array_interface__["data"][0] - base, t.data.nbytes)
        for t in graph.tensors
        if t.data is not None and t.data.nbytes > 1000
    ]
    return range(min(at for at, _ in spans), max(at + size for at, size in spans))
