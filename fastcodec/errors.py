"""The library's own errors. A bad argument is a plain ``ValueError``."""

import reprlib
from collections.abc import Iterable

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxlevel = 3


class BackendError(RuntimeError):
    """A backend that was asked for by name cannot serve the call; the message says why."""


class WeightsError(ValueError):
    """A checkpoint does not fit the model, or may not be read; every offending key is listed."""


class FormatError(ValueError):
    """A file or packet is truncated, corrupted or not of the expected format."""


def shown(value: object) -> str:
    """A stranger's value for a message, which it can neither make long nor break."""
    try:
        return _SHORT.repr(value)
    except (ValueError, RecursionError):  # numbers of more than 4300 digits
        return f"a {type(value).__name__} too large to show"


def listed(names: Iterable[object]) -> str:
    """Names that a file may have made of anything, in order, for a message."""
    words = sorted(name[:200] if isinstance(name, str) else shown(name) for name in names)
    return ", ".join(words[:20]) + (", …" if len(words) > 20 else "")
