"""Constructor arguments that upstream keeps beside its weights, checked before a net is built."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fastcodec.errors import WeightsError


def checked(
    what: str, given: Mapping[str, Any], defaults: Mapping[str, Any], nullable: Collection[str] = ()
) -> dict[str, Any]:
    """The given settings over the defaults, each of its default's kind.

    Args:
        what: whose settings these are, for the message
        given: names to values, as JSON or a pickle gave them
        defaults: upstream's; a whole number or a tuple of them stands for positive ones, None for
            an optional positive number
        nullable: settings that may be None though their default is not

    Raises:
        WeightsError: an unknown name, or a value of another kind
    """
    if unknown := sorted(map(str, given.keys() - defaults.keys())):
        raise WeightsError(f"{what}: unknown settings: {', '.join(unknown)}")
    out = dict(defaults)
    for name, value in given.items():
        if value is None and (name in nullable or defaults[name] is None):
            out[name] = None
        else:
            out[name] = _of_kind(f"{what}: {name}", value, defaults[name])
    return out


def _of_kind(what: str, value: object, default: object) -> object:
    if isinstance(default, bool | str):
        if isinstance(value, type(default)):
            return value
        raise WeightsError(f"{what} must be of type {type(default).__name__}, got {value!r}")
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not value:
            raise WeightsError(f"{what} must be a list of whole numbers, got {value!r}")
        return tuple(_whole(what, entry) for entry in value)
    if isinstance(default, float):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        raise WeightsError(f"{what} must be a number, got {value!r}")
    return _whole(what, value)


def _whole(what: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WeightsError(f"{what} must be a positive whole number, got {value!r}")
    return value
