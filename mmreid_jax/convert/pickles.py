"""Reads pickles without ever running what they ask for.

Python's own `pickle` looks up any function that a stream names and calls it. This reader interprets the opcodes itself
and knows only a table of names given by the caller; everything else is `Refused`. It also never sets attributes, never
hashes nested keys (whose cost can grow exponentially) and never recurses, so that a hostile stream can do no more than
be refused. Opcodes: PEP 307, PEP 3154, PEP 574 and the module ``pickletools`` of the standard library.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


class Refused(Exception):
    """The stream asks for something that may not be built; the argument is its name."""


class Damaged(Exception):
    """The stream makes no sense; the argument says where."""


@dataclasses.dataclass(frozen=True)
class Broken:
    """A value that could not be built; an error as soon as it gets a name in a dictionary."""

    why: str


@dataclasses.dataclass(frozen=True)
class Name:
    """What a stream may name: a function to call with the arguments in the stream, or (`call` None) a mere marker."""

    name: str
    call: Callable[..., Any] | None = None


class Shell:
    """An object that the stream first creates and then fills (BUILD)."""

    value: Any = None

    def fill(self, state: Any) -> Any:
        """Takes the state in and returns the finished object, which later references get."""
        raise NotImplementedError


_MARK = object()
_SCALARS = (str, bytes, int, float, bool, type(None), np.generic)
_LONGEST_KEY = 16
# The faults that nonsense in a stream provokes in the handlers below.
_FAULTS = (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error, AttributeError)


def load(
    data: Any,
    start: int,
    names: Mapping[str, Name],
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Reads one pickle.

    Args:
      data: bytes or another buffer, such as a memory map.
      start: where in it the pickle starts.
      names: "module.name" -> what that may be.
      persistent: reference to an object outside of the pickle -> the object; None: such references are refused.

    Returns:
      The object (numbers, strings, lists, tuples, dicts, sets and what `names` builds) and the position behind it.

    Raises:
      Refused: the stream names anything else.
      Damaged: the stream is cut short or no pickle.
    """
    reader = _Reader(data, start, names, persistent)
    try:
        return reader.run(), reader.at
    except _FAULTS as error:
        raise Damaged(f"nonsense at byte {reader.at}") from error


def _check_key(key: Any) -> None:
    flat = key if isinstance(key, tuple) and len(key) <= _LONGEST_KEY else (key,)
    if not all(isinstance(part, _SCALARS) for part in flat):
        raise TypeError("a key that is no number and no text")


def dictionary(pairs: Any) -> dict[Any, Any]:
    """A dictionary of a list of pairs, or of a dictionary, with keys that may be hashed."""
    if isinstance(pairs, dict):
        return dict(pairs)
    out = {}
    for key, value in pairs:
        _check_key(key)
        if isinstance(value, Broken):
            raise Damaged(f"{key}: {value.why}")
        out[key] = value
    return out


def members(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    """A maker of sets of things that may be hashed."""

    def make(items: Any = ()) -> Any:
        for item in items:
            _check_key(item)
        return kind(items)

    return make


class _Reader:
    """The pickle machine: a stack, a memo, and a position in the data."""

    def __init__(
        self, data: Any, start: int, names: Mapping[str, Name], persistent: Callable[[Any], Any] | None
    ) -> None:
        self.data = memoryview(data)
        self.at = start
        self.names = names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            opcode = bytes(self.take(1))
            if opcode == b".":
                value = self.stack.pop()
                return value.value if isinstance(value, Shell) else value
            handler = _HANDLERS.get(opcode)
            if handler is None:
                if opcode not in _REFUSED:
                    raise ValueError("unknown opcode")
                raise Refused(f"the pickle opcode {_REFUSED[opcode]}")
            handler(self)

    # Reading.

    def take(self, count: int) -> memoryview:
        if count < 0 or self.at + count > len(self.data):
            raise Damaged(f"it ends at byte {len(self.data)}, in the middle of its description")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def sized(self, form: str) -> bytes:
        return bytes(self.take(self.number(form)))

    def line(self) -> str:
        start = self.at
        while self.take(1) != b"\n":
            pass
        return bytes(self.data[start : self.at - 1]).decode("utf-8")

    # Stack and memo.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        value = self.memo[index]
        # What was filled since replaces its shell.
        self.push(value.value if isinstance(value, Shell) and value.value is not None else value)

    # Containers.

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("items for what is no list")
        target.extend(items)

    def assign(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError("entries for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _check_key(key)
            if isinstance(value, Broken):
                raise Damaged(f"{key}: {value.why}")
            target[key] = value

    def gather(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, set):
            raise TypeError("members for what is no set")
        for item in items:
            _check_key(item)
            target.add(item)

    # Names and calls.

    def name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        full = f"{module}.{name}"
        if full not in self.names:
            raise Refused(full)
        self.push(self.names[full])

    def reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise TypeError("a call of what is no function")
        if function.call is None:
            raise Refused(f"a call of {function.name}")
        self.push(function.call(*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Shell):
            target.value = target.fill(state)
            self.stack[-1] = target.value
        elif not (type(target) is dict and isinstance(state, dict)):
            raise Refused(f"attributes for a {type(target).__name__}")
        # Attributes of a dictionary (PyTorch's version notes, `_metadata`) are of no use here.

    def reference(self) -> None:
        key = self.stack.pop()
        if self.persistent is None:
            raise Refused("an object outside of the file")
        self.push(self.persistent(key))


def _text_number(reader: _Reader) -> None:
    text = reader.line()
    reader.push({"00": False, "01": True}[text] if text in ("00", "01") else int(text))


def _text_string(reader: _Reader) -> None:
    text = reader.line().strip()
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "'\"":
        raise ValueError("a string without quotes")
    reader.push(text[1:-1].encode("latin-1").decode("unicode_escape"))


def _tuple(reader: _Reader, count: int) -> None:
    items = [reader.stack.pop() for _ in range(count)][::-1]
    if any(item is _MARK for item in items):
        raise ValueError("a mark inside a tuple")
    reader.push(tuple(items))


def _long(form: str) -> Callable[[_Reader], None]:
    return lambda r: r.push(int.from_bytes(r.sized(form), "little", signed=True))


def _dictionary(reader: _Reader) -> None:
    items = reader.pop_to_mark()
    reader.push({})
    reader.assign(items)


def _set(reader: _Reader, kind: type) -> None:
    items = reader.pop_to_mark()
    for item in items:
        _check_key(item)
    reader.push(kind(items))


def _stack_global(reader: _Reader) -> None:
    name, module = reader.stack.pop(), reader.stack.pop()
    reader.name(module, name)


def _instance(reader: _Reader) -> None:
    """The oldest way to make an object; no checkpoint uses it for what may be built."""
    module, name = reader.line(), reader.line()
    raise Refused(f"{module}.{name}")


# What no checkpoint uses, and what would need objects from elsewhere.
_REFUSED = {
    b"o": "OBJ",
    b"P": "PERSID",
    b"\x82": "EXT1",
    b"\x83": "EXT2",
    b"\x84": "EXT4",
    b"\x92": "NEWOBJ_EX",
    b"\x97": "NEXT_BUFFER",
    b"\x98": "READONLY_BUFFER",
}
_HANDLERS: dict[bytes, Callable[[_Reader], Any]] = {
    # Framing.
    b"\x80": lambda r: r.take(1),
    b"\x95": lambda r: r.take(8),
    # Constants and numbers.
    b"N": lambda r: r.push(None),
    b"\x88": lambda r: r.push(True),
    b"\x89": lambda r: r.push(False),
    b"K": lambda r: r.push(r.number("B")),
    b"M": lambda r: r.push(r.number("H")),
    b"J": lambda r: r.push(r.number("i")),
    b"\x8a": _long("B"),
    b"\x8b": _long("i"),
    b"I": _text_number,
    b"L": lambda r: r.push(int(r.line().removesuffix("L"))),
    b"F": lambda r: r.push(float(r.line())),
    b"G": lambda r: r.push(struct.unpack(">d", r.take(8))[0]),
    # Text and bytes. Python 2 made no difference: latin-1 keeps names and bytes alike.
    b"S": _text_string,
    b"T": lambda r: r.push(r.sized("i").decode("latin-1")),
    b"U": lambda r: r.push(r.sized("B").decode("latin-1")),
    b"V": lambda r: r.push(r.line().encode("latin-1").decode("raw_unicode_escape")),
    b"X": lambda r: r.push(r.sized("I").decode("utf-8", "surrogatepass")),
    b"\x8c": lambda r: r.push(r.sized("B").decode("utf-8", "surrogatepass")),
    b"\x8d": lambda r: r.push(r.sized("Q").decode("utf-8", "surrogatepass")),
    b"B": lambda r: r.push(r.sized("I")),
    b"C": lambda r: r.push(r.sized("B")),
    b"\x8e": lambda r: r.push(r.sized("Q")),
    b"\x96": lambda r: r.push(r.sized("Q")),
    # Containers.
    b"(": lambda r: r.push(_MARK),
    b")": lambda r: r.push(()),
    b"t": lambda r: r.push(tuple(r.pop_to_mark())),
    b"\x85": lambda r: _tuple(r, 1),
    b"\x86": lambda r: _tuple(r, 2),
    b"\x87": lambda r: _tuple(r, 3),
    b"]": lambda r: r.push([]),
    b"l": lambda r: r.push(r.pop_to_mark()),
    b"a": lambda r: r.extend([r.stack.pop()]),
    b"e": lambda r: r.extend(r.pop_to_mark()),
    b"}": lambda r: r.push({}),
    b"d": _dictionary,
    b"s": lambda r: r.assign([r.stack.pop(), r.stack.pop()][::-1]),
    b"u": lambda r: r.assign(r.pop_to_mark()),
    b"\x8f": lambda r: r.push(set()),
    b"\x90": lambda r: r.gather(r.pop_to_mark()),
    b"\x91": lambda r: _set(r, frozenset),
    # Stack and memo.
    b"0": lambda r: r.stack.pop(),
    b"1": lambda r: r.pop_to_mark(),
    b"2": lambda r: r.push(r.stack[-1]),
    b"p": lambda r: r.remember(int(r.line())),
    b"q": lambda r: r.remember(r.number("B")),
    b"r": lambda r: r.remember(r.number("I")),
    b"\x94": lambda r: r.remember(len(r.memo)),
    b"g": lambda r: r.recall(int(r.line())),
    b"h": lambda r: r.recall(r.number("B")),
    b"j": lambda r: r.recall(r.number("I")),
    # Names, calls, states, outside references.
    b"c": lambda r: r.name(r.line(), r.line()),
    b"\x93": _stack_global,
    b"i": _instance,
    b"R": _Reader.reduce,
    b"\x81": _Reader.reduce,
    b"b": _Reader.build,
    b"Q": _Reader.reference,
}
