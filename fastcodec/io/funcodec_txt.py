"""FunCodec's codecs.txt: one signal a line, its key and its codes as JSON, ``[[[…] a codebook]]``.

The outermost list is of segments and always of one (funcodec/bin/codec_inference.py@3435d870); the
level, the length and the model are not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from fastcodec.errors import FormatError
from fastcodec.io.source import Source, Target, read_all, write_all

_LARGEST = 1 << 16  # of a token


def write_codecs_txt(codes: Mapping[str, Tensor], target: Target | None = None) -> bytes:
    """The bytes of the file, also written to ``target`` (path or open binary file) if given.

    Args:
        codes: key without spaces -> tokens [K, T] int64

    Raises:
        ValueError: a key with white space, or tokens of another shape
    """
    lines = []
    for key, tokens in codes.items():
        if not key or key.split() != [key]:
            raise ValueError(f"codecs.txt: a key must be a word without white space, got {key!r}")
        if tokens.ndim != 2 or tokens.dtype != torch.int64 or not tokens.numel():
            raise ValueError(
                f"codecs.txt: tokens must be [K, T] int64, got {list(tokens.shape)} {tokens.dtype}"
            )
        if int(tokens.min()) < 0 or int(tokens.max()) >= _LARGEST:
            raise ValueError(f"codecs.txt: tokens of {key} must be 0 to {_LARGEST - 1}")
        lines.append(f"{key} {json.dumps([tokens.tolist()])}\n")
    data = "".join(lines).encode()
    if target is not None:
        write_all(target, data)
    return data


def read_codecs_txt(source: Source) -> dict[str, Tensor]:
    """Key -> tokens [K, T] int64 of every line.

    Args:
        source: path, bytes or open binary file

    Raises:
        FormatError: it is truncated, corrupted or another kind of file
    """
    try:
        text = read_all(source).decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"codecs.txt: not a text file: {error}") from error
    codes: dict[str, Tensor] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        key, _, rest = line.strip().partition(" ")
        if key in codes:
            raise FormatError(f"codecs.txt: line {number}: the key {key!r} is there twice")
        codes[key] = _tokens(rest, f"codecs.txt: line {number}")
    if not codes:
        raise FormatError("codecs.txt: there is no line in it")
    return codes


def _tokens(text: str, where: str) -> Tensor:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # brackets nested thousands deep
        raise FormatError(f"{where}: a key and JSON expected: {str(error):.200}") from error
    segments = _is_list(values) and _is_list(values[0]) and isinstance(values[0][0], list)
    rows = values[0] if segments and len(values) == 1 else values
    lengths = {len(row) if _is_list(row) else 0 for row in rows} if _is_list(rows) else {0}
    if len(lengths) != 1 or 0 in lengths:
        raise FormatError(f"{where}: lists of equally many tokens expected, one a codebook")
    for token in (token for row in rows for token in row):
        if type(token) is not int or not 0 <= token < _LARGEST:
            raise FormatError(f"{where}: a token 0 to {_LARGEST - 1} expected, got {token!r:.40}")
    return torch.tensor(rows, dtype=torch.int64)


def _is_list(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0
