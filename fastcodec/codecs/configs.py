"""Configurations as JSON and back, every value checked against the type of its field."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from fastcodec.codecs.settings import LARGEST, LONGEST
from fastcodec.errors import WeightsError, listed, shown


def to_json(config: Any) -> dict[str, Any]:
    """A config dataclass as plain values."""
    return asdict(config)


def from_json(kind: type, values: object, what: str) -> Any:
    """The config dataclass ``kind`` from plain values.

    Raises:
        WeightsError: an unknown or missing field, or a value of another type
    """
    if not isinstance(values, Mapping):
        raise WeightsError(f"{what}: expected an object with fields, got {shown(values)}")
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}
    if unknown := values.keys() - known.keys():
        raise WeightsError(f"{what}: unknown fields: {listed(unknown)}")
    required = {n for n, f in known.items() if f.default is f.default_factory is MISSING}
    if missing := sorted(required - values.keys()):
        raise WeightsError(f"{what}: missing fields: {', '.join(missing)}")
    checked = {name: _typed(hints[name], v, f"{what}.{name}") for name, v in values.items()}
    try:
        return kind(**checked)
    except ValueError as error:
        raise WeightsError(f"{what}: {error}") from error


def _typed(hint: Any, value: Any, what: str) -> Any:
    """The value as its field's type has it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = [a for a in arguments if a is not type(None)]
        return _typed(inner[0], value, what) if len(inner) == 1 else _first(inner, value, what)
    if origin is Literal:
        good = value in arguments
    elif origin is tuple:
        good = isinstance(value, list | tuple) and len(value) <= LONGEST
        if good and arguments[-1] is Ellipsis:
            return tuple(_typed(arguments[0], v, what) for v in value)
        if good and len(value) == len(arguments):
            return tuple(_typed(a, v, what) for a, v in zip(arguments, value, strict=True))
        good = False
    elif is_dataclass(hint):
        return from_json(hint, value, what)  # type: ignore[arg-type]
    elif hint is float and type(value) in (int, float) and -LARGEST <= value <= LARGEST:
        return float(value)
    elif hint is int:
        good = type(value) is int and -LARGEST <= value <= LARGEST
    else:
        good = type(value) is hint and hint is not float and not _long(value)
    if not good:
        raise WeightsError(
            f"{what}: expected {getattr(hint, '__name__', hint)}, got {shown(value)}"
        )
    return value


def _long(value: object) -> bool:
    return isinstance(value, str) and len(value) > LONGEST


def _first(hints: list[Any], value: Any, what: str) -> Any:
    """The value as the first of several types that takes it."""
    for hint in hints:
        try:
            return _typed(hint, value, what)
        except WeightsError:
            continue
    raise WeightsError(f"{what}: expected one of {hints}, got {shown(value)}")
