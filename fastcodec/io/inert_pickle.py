"""What a pickle holds, read without running it.

A small interpreter of the instructions (of protocol 2 and later) that numbers, text, containers and
arrays need. Nothing is imported or called: a call stays a ``Call``, a record of what the pickle
wanted, from which the caller takes what it knows.
Source of the instructions: CPython's Lib/pickletools.py.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastcodec.errors import FormatError

_INTEGER_BITS = 64  # printing a long number takes quadratic time
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_MAX_INSTRUCTIONS = 10_000  # one byte of a file can ask for an object of a hundred


class Name(str):
    """A global that a pickle refers to, as ``module.name``."""


@dataclass(eq=False)
class Call:
    """``function(*args)``, and the state that was to be set on the result (None: none was)."""

    function: Name
    args: tuple[Any, ...]
    state: Any = None


@dataclass
class _Machine:
    """The stack; what lies under the marks; what the pickle wants to use again."""

    stack: list[Any] = field(default_factory=list)
    below: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self, count: int) -> tuple[Any, ...]:
        if count > len(self.stack):
            raise FormatError("a pickle takes more from its stack than there is")
        taken = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return taken

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise FormatError(f"a pickle adds to a {kind.__name__} where none is")
        return self.stack[-1]

    def since_mark(self) -> tuple[Any, ...]:
        if not self.below:
            raise FormatError("a pickle goes back to a mark that it has not set")
        taken, self.stack = self.stack, self.below.pop()
        return tuple(taken)


def read(data: bytes) -> Any:
    """The object: numbers, text, bytes, containers, and ``Name`` and ``Call`` for all else.

    Raises:
        FormatError: truncated, corrupted, followed by more, instructions not needed for data, or
            more than 10 000 of them
    """
    machine, stream = _Machine(), io.BytesIO(data)
    try:
        for _ in range(_MAX_INSTRUCTIONS):
            name, argument = _instruction(stream)
            if name == "STOP":
                break
            _step(machine, name, argument)
        else:
            raise FormatError(f"a pickle has more than {_MAX_INSTRUCTIONS} instructions")
    except FormatError:
        raise
    except (ValueError, OverflowError) as error:
        raise FormatError(f"a pickle is corrupted: {str(error)[:200]}") from error
    if stream.tell() != len(data) or len(machine.stack) != 1 or machine.below:
        raise FormatError(f"a pickle ends at byte {stream.tell()} of {len(data)}, or lacks a value")
    return machine.stack[0]


def _instruction(stream: io.BytesIO) -> tuple[str, Any]:
    """The next one and its argument, which is never longer than what there is."""
    code = stream.read(1).decode("latin1")
    opcode = _OPCODES.get(code)
    name = opcode.name if opcode else f"instruction {code!r}"
    if opcode is None or name not in _KNOWN:
        raise FormatError(f"a pickle of plain data has no {name}")
    if name == "GLOBAL":  # pickletools would warn of backslashes in it
        return name, f"{_line(stream)}.{_line(stream)}"
    return name, opcode.arg.reader(stream) if opcode.arg else None


def _line(stream: io.BytesIO) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise FormatError("a pickle ends in the name of a global")
    return line[:-1].decode("ascii")


def _step(machine: _Machine, name: str, argument: Any) -> None:
    if name in _PUSHED:
        if isinstance(argument, int) and argument.bit_length() > _INTEGER_BITS:
            raise FormatError(f"a pickle holds a number of {argument.bit_length()} bits")
        machine.stack.append(argument)
    elif name in _CONSTANTS:
        machine.stack.append(_CONSTANTS[name]())
    elif name in _STEPS:
        _STEPS[name](machine, argument)


def _reduce(machine: _Machine, argument: None) -> None:
    function, args = machine.pop(2)
    if not isinstance(function, Name) or not isinstance(args, tuple):
        raise FormatError("a pickle calls what is no global")
    machine.stack.append(Call(function, args))


def _build(machine: _Machine, argument: None) -> None:
    (state,) = machine.pop(1)
    call: Call = machine.top(Call)
    if call.state is not None:
        raise FormatError("a pickle sets a state twice")
    call.state = state


def _global(machine: _Machine, argument: str) -> None:
    machine.stack.append(Name(argument))


def _stack_global(machine: _Machine, argument: None) -> None:
    module, name = machine.pop(2)
    if type(module) is not str or type(name) is not str:
        raise FormatError("a pickle names a global by what is no text")
    machine.stack.append(Name(f"{module}.{name}"))


def _put(machine: _Machine, argument: int | None) -> None:
    machine.memo[len(machine.memo) if argument is None else argument] = machine.top(object)


def _get(machine: _Machine, argument: int) -> None:
    if argument not in machine.memo:
        raise FormatError("a pickle uses again what it has not kept")
    machine.stack.append(machine.memo[argument])


def _mark(machine: _Machine, argument: None) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _tuple(machine: _Machine, argument: None) -> None:
    values = machine.since_mark()  # which puts another stack in place
    machine.stack.append(values)


def _append(machine: _Machine, values: tuple[Any, ...]) -> None:
    machine.top(list).extend(values)


def _set(machine: _Machine, values: tuple[Any, ...]) -> None:
    keys, into = values[::2], machine.top(dict)
    # Text only: its hashes are random, those of numbers could be chosen to collide.
    if len(values) % 2 or not all(type(key) is str for key in keys):
        raise FormatError("a pickle has a dict with keys that are no text")
    into.update(zip(keys, values[1::2], strict=True))


_PUSHED = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE",
    "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _mark,
    "TUPLE": _tuple,
    "TUPLE1": lambda m, _: m.stack.append(m.pop(1)),
    "TUPLE2": lambda m, _: m.stack.append(m.pop(2)),
    "TUPLE3": lambda m, _: m.stack.append(m.pop(3)),
    "APPEND": lambda m, _: _append(m, m.pop(1)),
    "APPENDS": lambda m, _: _append(m, m.since_mark()),
    "SETITEM": lambda m, _: _set(m, m.pop(2)),
    "SETITEMS": lambda m, _: _set(m, m.since_mark()),
    **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _get),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
}
_KNOWN = _PUSHED | _CONSTANTS.keys() | _STEPS.keys() | {"PROTO", "FRAME", "STOP"}
