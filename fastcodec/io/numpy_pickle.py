"""NumPy's arrays and numbers in what ``inert_pickle`` found; sizes are checked before allocating.

The module that NumPy's pickles name was renamed in version 2; both spellings are read.
Source: numpy/_core/src/multiarray/methods.c (array_reduce, array_setstate), descriptor.c.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastcodec.errors import FormatError
from fastcodec.io.inert_pickle import Call, Name

_MULTIARRAY = ("numpy.core.multiarray.", "numpy._core.multiarray.")
_NUMERIC = ("numpy.core.numeric.", "numpy._core.numeric.")
_DTYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "b1")


def unwrapped(value: Any) -> Any:
    """What a pickled 0-dimensional array of objects holds."""
    state = _state(value)
    content = state[4]
    is_object = isinstance(state[2], Call) and state[2].args[:1] in (("O8",), ("O4",), ("O",))
    if state[1] != () or not is_object or not isinstance(content, list) or len(content) != 1:
        raise FormatError("expected an array that is one object")
    return content[0]


def _state(value: Any) -> tuple[Any, ...]:
    """(version, shape, dtype, Fortran order, content) of a pickled array."""
    names = [f"{module}_reconstruct" for module in _MULTIARRAY]
    if not isinstance(value, Call) or value.function not in names:
        raise FormatError(f"expected an array, got {shown(value)}")
    state = value.state
    if value.args[:1] != (Name("numpy.ndarray"),) or not isinstance(state, tuple):
        raise FormatError("an array without its content")
    if len(state) != 5 or type(state[1]) is not tuple:
        raise FormatError("an array whose content is not described")
    return state


def array(value: Any) -> NDArray[Any]:
    """A pickled array or number as an array, a copy of the file's bytes."""
    if isinstance(value, int | float):
        return np.asarray(value)
    if isinstance(value, Call) and value.function in [f"{m}_frombuffer" for m in _NUMERIC]:
        if len(value.args) != 4:
            raise FormatError("an array whose content is not described")
        raw, dtype, shape, order = value.args
        return _shaped(raw, dtype, shape, order == "F")
    if isinstance(value, Call) and value.function in [f"{m}scalar" for m in _MULTIARRAY]:
        if len(value.args) != 2:
            raise FormatError("a number that is not described")
        return _shaped(value.args[1], value.args[0], (), False)
    _, shape, dtype, fortran, raw = _state(value)
    return _shaped(raw, dtype, shape, fortran is True)


def plain(value: Any) -> Any:
    """A number that may be NumPy's, as Python's; anything else is left to be refused."""
    if isinstance(value, Call):
        got = array(value)
        return got.item() if got.shape == () else got.shape
    return value if isinstance(value, int | float) else shown(value)


def _shaped(raw: Any, dtype: Any, shape: Any, fortran: bool) -> NDArray[Any]:
    kind = _dtype(dtype)
    if isinstance(raw, Call) and raw.function == "_codecs.encode" and raw.args[1:] == ("latin1",):
        raw = _latin1(raw.args[0])
    if not isinstance(raw, bytes | bytearray) or not raw:
        raise FormatError(f"an array's content must be bytes, got {shown(raw)}")
    sizes = shape if type(shape) is tuple else (None,)
    if not all(type(size) is int and size >= 0 for size in sizes) or len(sizes) > 8:
        raise FormatError("an array's shape must be whole numbers")
    if math.prod(sizes) * kind.itemsize != len(raw):
        raise FormatError(f"an array {list(sizes)} of {kind} in {len(raw)} bytes")
    flat = np.frombuffer(raw, kind)
    return flat.reshape(sizes, order="F" if fortran else "C").astype(kind.newbyteorder("="))


def _latin1(text: Any) -> bytes:
    """The bytes that protocol 2, which has none, writes as text."""
    try:
        return str.encode(text, "latin1")
    except (TypeError, UnicodeEncodeError) as error:
        raise FormatError("an array whose content is no bytes") from error


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, Call) or value.function != "numpy.dtype" or not value.args:
        raise FormatError(f"expected the kind of an array's values, got {shown(value)}")
    name, state = value.args[0], value.state
    # The state is (version, byte order, ...).
    described = isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=")
    if name not in _DTYPES or not (described or state is None):
        raise FormatError(f"an array of {shown(name)}; expected one of {', '.join(_DTYPES)}")
    order = ">" if state is not None and state[1] == ">" else "<"
    return np.dtype(name).newbyteorder(order)


def shown(value: Any) -> str:
    """A value for a message, which it cannot make long."""
    if isinstance(value, Call):
        return f"a call of {value.function[:80]}"
    return repr(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"
