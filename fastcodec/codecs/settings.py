"""Constructor arguments that upstream keeps beside its weights, checked before a net is built."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from fastcodec.errors import WeightsError, listed, shown
from fastcodec.layers.conv import Padding

LARGEST = 1 << 24  # of numbers, and LONGEST of lists and text: a file may claim anything
LONGEST = 256

Config = TypeVar("Config")

# torch's pad_mode -> ours.
PADDING: dict[str, Padding] = {"reflect": "reflect", "constant": "zero", "replicate": "replicate"}
# Said by every config.json of transformers, and nothing of the net.
TRANSFORMERS_UNUSED = {
    "model_type", "architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path",
}  # fmt: skip


def made(kind: Callable[..., Config], *args: Any, **values: Any) -> Config:
    """A configuration of values that come from a file.

    Raises:
        WeightsError: no model can have these values
    """
    try:
        return kind(*args, **values)
    except ValueError as error:
        raise WeightsError(str(error)) from error


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
    if unknown := given.keys() - defaults.keys():
        raise WeightsError(f"{what}: unknown settings: {listed(unknown)}")
    out = dict(defaults)
    for name, value in given.items():
        if value is None and (name in nullable or defaults[name] is None):
            out[name] = None
        else:
            out[name] = _of_kind(f"{what}: {name}", value, defaults[name])
    return out


def _of_kind(what: str, value: object, default: object) -> object:
    if isinstance(default, bool | str):
        if type(value) is type(default) and not (isinstance(value, str) and len(value) > LONGEST):
            return value
        raise WeightsError(f"{what} must be of type {type(default).__name__}, got {shown(value)}")
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= LONGEST:
            raise WeightsError(
                f"{what} must be a list of whole numbers, at most {LONGEST}, got {shown(value)}"
            )
        return tuple(_whole(what, entry) for entry in value)
    if isinstance(default, float):
        if type(value) in (int, float) and -LARGEST <= value <= LARGEST:  # type: ignore[operator]
            return float(value)  # type: ignore[arg-type]
        raise WeightsError(f"{what} must be a number, at most {LARGEST}, got {shown(value)}")
    return _whole(what, value)


def _whole(what: str, value: object) -> int:
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise WeightsError(
            f"{what} must be a positive whole number, at most {LARGEST}, got {shown(value)}"
        )
    return value
