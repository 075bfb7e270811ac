"""fastcodec's own codes file: ``Codes`` as safetensors, with the rest as metadata.

Tensors ``tokens`` [B, K, T] (int16, or int32 where a codebook is larger), ``n_samples`` [B] int64
and, if there is one, ``scale`` [B, segments] float32; metadata ``format``, ``version``, ``codec``,
``frame_rate_hz`` and, where the codes have them, ``hop``, ``segment`` and ``hold`` ("4 2 1"). Any
safetensors reader opens it.

The container (8 bytes of length, JSON, data) is written and read here, not by the package
safetensors, which orders the metadata at random: the same codes are to give the same bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcodec.codes import ABSENT, Codes
from fastcodec.errors import FormatError
from fastcodec.io.source import Source, Target, read_all, write_all

_FORMAT = "fastcodec.codes"
_VERSION = "1"
_DTYPES = {
    "n_samples": {"I64": "<i8"},
    "scale": {"F32": "<f4"},
    "tokens": {"I16": "<i2", "I32": "<i4", "I64": "<i8"},
}
_COUNTS = ("hop", "segment")
_RANKS = {"n_samples": 1, "scale": 2, "tokens": 3}
_MAX_HEADER_BYTES = 1 << 16


def save_codes(codes: Codes, target: Target | None = None) -> bytes:
    """The bytes of the file, also written to ``target`` (path or open binary file) if given."""
    tokens = codes.tokens.cpu().numpy()
    small = not tokens.size or tokens.max() < 1 << 15
    # By falling alignment: every tensor begins at a multiple of its own.
    arrays = {"n_samples": ("I64", codes.n_samples.cpu().numpy())}
    if codes.scale is not None:
        arrays["scale"] = ("F32", codes.scale.detach().cpu().numpy())
    arrays["tokens"] = ("I16" if small else "I32", tokens)

    header: dict[str, Any] = {
        "__metadata__": {
            "format": _FORMAT,
            "version": _VERSION,
            "codec": codes.codec,
            "frame_rate_hz": repr(float(codes.frame_rate_hz)),
            **{name: str(value) for name in _COUNTS if (value := getattr(codes, name))},
            **({"hold": " ".join(map(str, codes.hold))} if codes.hold else {}),
        }
    }
    body = b""
    for name, (dtype, array) in arrays.items():
        raw = array.astype(_DTYPES[name][dtype]).tobytes()
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = len(text).to_bytes(8, "little") + text + body
    if target is not None:
        write_all(target, data)
    return data


def load_codes(source: Source) -> Codes:
    """The codes of a file written by ``save_codes``.

    Args:
        source: path, bytes or open binary file

    Raises:
        FormatError: it is truncated, corrupted or another kind of file
    """
    header, body = _split(read_all(source))
    metadata = _read_metadata(header.pop("__metadata__", None))
    if not {"tokens", "n_samples"} <= header.keys() <= _DTYPES.keys():
        raise FormatError(
            f"codes file: expected the tensors tokens, n_samples and maybe scale, got "
            f"{sorted(header)}"
        )
    arrays = {name: _read_array(name, entry, body) for name, entry in header.items()}
    if sum(array.nbytes for array in arrays.values()) != len(body):
        raise FormatError(f"codes file: {len(body)} bytes of data, the header describes others")
    _check(arrays)
    scale, hold = arrays.get("scale"), metadata["hold"]
    if hold is not None and len(hold) != arrays["tokens"].shape[1]:
        raise FormatError(f"codes file: hold must be of every codebook, got {list(hold)}")
    return Codes(
        tokens=torch.from_numpy(arrays["tokens"].astype(np.int64)),
        n_samples=torch.from_numpy(arrays["n_samples"].astype(np.int64)),
        **metadata,
        scale=None if scale is None else torch.from_numpy(scale.astype(np.float32)),
    )


def _split(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """The header's JSON object, and the data after it."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, _MAX_HEADER_BYTES):
        raise FormatError(f"codes file: a header of {size} bytes in a file of {len(data)}")
    try:
        header = json.loads(data[8 : 8 + size].decode())
    # RecursionError: brackets nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise FormatError(f"codes file: the header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise FormatError("codes file: the header is no JSON object")
    return header, memoryview(data)[8 + size :]


def _read_metadata(metadata: object) -> dict[str, Any]:
    """What ``Codes`` says besides its tensors."""
    keys = ("format", "version", "codec", "frame_rate_hz")
    if not isinstance(metadata, Mapping) or not all(isinstance(metadata.get(k), str) for k in keys):
        raise FormatError(f"codes file: the metadata must be text for {', '.join(keys)}")
    if (metadata["format"], metadata["version"]) != (_FORMAT, _VERSION):
        raise FormatError(
            f"codes file: expected {_FORMAT} {_VERSION}, got {metadata['format']!r} "
            f"{metadata['version']!r}"
        )
    try:
        frame_rate_hz = float(metadata["frame_rate_hz"])
    except ValueError:
        frame_rate_hz = math.nan
    if not (math.isfinite(frame_rate_hz) and frame_rate_hz > 0):
        raise FormatError(f"codes file: impossible frame rate {metadata['frame_rate_hz']!r} Hz")
    counts = {name: _counts(name, metadata.get(name), 1) for name in _COUNTS}
    return {
        "codec": str(metadata["codec"]),
        "frame_rate_hz": frame_rate_hz,
        "hold": _counts("hold", metadata.get("hold")),
        **{name: value and value[0] for name, value in counts.items()},
    }


def _counts(name: str, text: object, count: int | None = None) -> tuple[int, ...] | None:
    """Positive numbers written as text, or None where there are none."""
    if text is None:
        return None
    words = text.split(" ") if isinstance(text, str) else []
    good = all(re.fullmatch(r"[1-9][0-9]{0,8}", word) for word in words)
    if not words or not good or len(words) != (count or len(words)):
        raise FormatError(f"codes file: {name} must be positive whole numbers, got {text!r}")
    return tuple(map(int, words))


def _read_array(name: str, entry: object, body: memoryview) -> NDArray[Any]:
    """The tensor, a view of the file's bytes."""
    if not isinstance(entry, Mapping):
        raise FormatError(f"codes file: {name} is not described")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _DTYPES[name]:
        raise FormatError(f"codes file: {name} must be of {sorted(_DTYPES[name])}, got {dtype!r}")
    shape, (begin, end) = _sizes(name, shape, _RANKS[name]), _sizes(name, offsets, 2)
    file_dtype = np.dtype(_DTYPES[name][dtype])
    if not begin <= end <= len(body) or math.prod(shape) * file_dtype.itemsize != end - begin:
        raise FormatError(
            f"codes file: {name} {shape} at bytes {begin} to {end} of {len(body)} is impossible"
        )
    return np.frombuffer(body[begin:end], file_dtype).reshape(shape)


def _sizes(name: str, values: object, count: int) -> list[int]:
    # 2^31: a tensor without elements may claim any size along its other axes.
    if (
        not isinstance(values, list)
        or len(values) != count
        or not all(type(value) is int and 0 <= value < 1 << 31 for value in values)
    ):
        raise FormatError(f"codes file: {name} must have {count} sizes, got {values!r}")
    return values


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    tokens, n_samples, scale = arrays["tokens"], arrays["n_samples"], arrays.get("scale")
    rows = {array.shape[0] for array in arrays.values()}
    if len(rows) != 1:
        raise FormatError(f"codes file: the tensors must have as many rows, got {sorted(rows)}")
    if tokens.size and tokens.min() < ABSENT:
        raise FormatError(f"codes file: tokens must be {ABSENT} or more, got {tokens.min()}")
    if n_samples.size and n_samples.min() < 0:
        raise FormatError(f"codes file: n_samples must not be negative, got {n_samples.min()}")
    if scale is not None and not np.isfinite(scale).all():
        raise FormatError("codes file: scale holds values that are not finite")
