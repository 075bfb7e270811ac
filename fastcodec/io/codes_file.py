"""fastcodec's own codes file: ``Codes`` as safetensors, with the rest as metadata.

Tensors ``tokens`` [B, K, T] (int16, or int32 where a codebook is larger), ``n_samples`` [B] int64
and, if there is one, ``scale`` [B, segments] float32; metadata ``format``, ``version``, ``codec``,
``frame_rate_hz``. Any safetensors reader opens it.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastcodec.codes import ABSENT, Codes
from fastcodec.errors import FormatError
from fastcodec.io.source import Source, Target, read_all, write_all
from fastcodec.optional import require

_FORMAT = "fastcodec.codes"
_VERSION = "1"
_DTYPES = {
    "tokens": {"I16": "<i2", "I32": "<i4", "I64": "<i8"},
    "n_samples": {"I64": "<i8"},
    "scale": {"F32": "<f4"},
}
_RANKS = {"tokens": 3, "n_samples": 1, "scale": 2}
_MAX_HEADER_BYTES = 1 << 16


def save_codes(codes: Codes, target: Target | None = None) -> bytes:
    """The bytes of the file, also written to ``target`` (path or open binary file) if given."""
    safetensors = require("safetensors.numpy", "weights", "writing a codes file")
    tokens = codes.tokens.cpu().numpy()
    small = not tokens.size or tokens.max() < 1 << 15
    arrays = {
        "tokens": tokens.astype(np.int16 if small else np.int32),
        "n_samples": codes.n_samples.cpu().numpy(),
    }
    if codes.scale is not None:
        arrays["scale"] = codes.scale.detach().float().cpu().contiguous().numpy()
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "codec": codes.codec,
        "frame_rate_hz": repr(float(codes.frame_rate_hz)),
    }
    data: bytes = safetensors.save(arrays, metadata=metadata)
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
    safetensors = require("safetensors", "weights", "reading a codes file")
    data = read_all(source)
    codec, frame_rate_hz = _read_metadata(data)
    try:
        found = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError as error:
        raise FormatError(f"codes file: no safetensors: {error}") from error
    unknown = found.keys() - _DTYPES.keys()
    if unknown or not {"tokens", "n_samples"} <= found.keys():
        raise FormatError(
            f"codes file: expected the tensors tokens, n_samples and maybe scale, got "
            f"{sorted(found)}"
        )
    arrays = {name: _array(name, tensor) for name, tensor in found.items()}
    _check(arrays)
    scale = arrays.get("scale")
    return Codes(
        tokens=torch.from_numpy(arrays["tokens"].astype(np.int64)),
        frame_rate_hz=frame_rate_hz,
        n_samples=torch.from_numpy(arrays["n_samples"].astype(np.int64)),
        codec=codec,
        scale=None if scale is None else torch.from_numpy(scale.astype(np.float32)),
    )


def _read_metadata(data: bytes) -> tuple[str, float]:
    """Preset name and frame rate, from the JSON that a safetensors file begins with."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, _MAX_HEADER_BYTES):
        raise FormatError(f"codes file: a header of {size} bytes in a file of {len(data)}")
    try:
        metadata = json.loads(data[8 : 8 + size].decode())["__metadata__"]
        kind, version = metadata["format"], metadata["version"]
        codec, frame_rate_hz = metadata["codec"], float(metadata["frame_rate_hz"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"codes file: the header lacks what save_codes writes: {error}") from error
    if kind != _FORMAT or version != _VERSION:
        raise FormatError(f"codes file: expected {_FORMAT} {_VERSION}, got {kind!r} {version!r}")
    if not isinstance(codec, str) or not (math.isfinite(frame_rate_hz) and frame_rate_hz > 0):
        raise FormatError(f"codes file: impossible codec {codec!r} or rate {frame_rate_hz} Hz")
    return codec, frame_rate_hz


def _array(name: str, tensor: dict[str, Any]) -> NDArray[Any]:
    """The tensor, still a view of the file's bytes."""
    dtype, shape = tensor["dtype"], tensor["shape"]
    if dtype not in _DTYPES[name] or len(shape) != _RANKS[name]:
        raise FormatError(
            f"codes file: {name} must have {_RANKS[name]} axes of {sorted(_DTYPES[name])}, "
            f"got {shape} {dtype}"
        )
    # A tensor without elements may claim any size along its other axes.
    if max(shape) > max(1, len(tensor["data"])):
        raise FormatError(f"codes file: {name} of shape {shape} in {len(tensor['data'])} bytes")
    return np.frombuffer(tensor["data"], _DTYPES[name][dtype]).reshape(shape)


def _check(arrays: dict[str, NDArray[Any]]) -> None:
    tokens, n_samples = arrays["tokens"], arrays["n_samples"]
    scale = arrays.get("scale")
    if n_samples.shape != tokens.shape[:1] or (
        scale is not None and scale.shape[:1] != tokens.shape[:1]
    ):
        raise FormatError(
            f"codes file: tokens are of {tokens.shape[0]} signals, n_samples of "
            f"{n_samples.shape[0]}; scale, if there, must have as many rows"
        )
    if tokens.size and tokens.min() < ABSENT:
        raise FormatError(f"codes file: tokens must be {ABSENT} or more, got {tokens.min()}")
    if n_samples.size and n_samples.min() < 0:
        raise FormatError(f"codes file: n_samples must not be negative, got {n_samples.min()}")
    if scale is not None and not np.isfinite(scale).all():
        raise FormatError("codes file: scale holds values that are not finite")
