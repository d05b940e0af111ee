"""Reads pickles without ever running what they ask for.

Python's own `pickle` looks up any function that a stream names and calls it. This reader interprets the opcodes itself
and knows only a table of names given by the caller. An object of any other name becomes an inert `Placeholder`, so that
the weights beside it can be read; names that only an attack uses are `Refused`. It also never sets attributes, never
hashes nested keys (whose cost can grow exponentially) and never recurses, and every opcode draws from a `Budget`: a
hostile stream can do no more than be refused. Opcodes: PEP 307, PEP 3154, PEP 574 and the module ``pickletools`` of the
standard library.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmreid_jax.convert.budget import Budget
from mmreid_jax.errors import printable


class Refused(Exception):
    """The stream asks for something that may not be built; the argument is its name."""


class Damaged(Exception):
    """The stream makes no sense; the argument says where."""


@dataclasses.dataclass(frozen=True)
class Broken:
    """A value that is damaged; an error as soon as it gets a name in a dictionary."""

    why: str


@dataclasses.dataclass(frozen=True)
class Unsupported:
    """A sound value of a kind that is not read, such as a sparse tensor; an error only where it is asked for."""

    what: str


class Placeholder:
    """An object, or the class or function that makes it, of a name that is not known; nothing of it is run.

    Attributes:
      name: "module.name".
      items: its entries, if it is filled like a dictionary.
      is_module: whether its attributes are those of PyTorch's modules.
    """

    __slots__ = ("is_module", "items", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.items: dict[Any, Any] = {}
        self.is_module = name.startswith("torch.nn.modules.")

    def take_attributes(self, state: Any) -> None:
        """Looks at what would become its attributes; they are not kept."""
        if isinstance(state, dict) and "_parameters" in state and "_modules" in state:
            self.is_module = True


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


# Names that start programs, run text as code, or open files, and that no checkpoint holds: a stream with one of them is
# refused as a whole, however good the weights beside it, because its owner should know.
_ATTACKS = frozenset(
    ("os", "posix", "nt", "subprocess", "_posixsubprocess", "sys", "pty", "shutil", "importlib", "runpy", "codeop")
) | {"ctypes", "webbrowser", "popen2"}
_ATTACKING_BUILTINS = frozenset(
    ["eval", "exec", "execfile", "compile", "__import__", "open", "input", "breakpoint", "exit", "quit"]
)
_BUILTINS = ("builtins", "__builtin__")

_MARK = object()
# Longer numbers, names and lines of text are in no checkpoint.
_LONGEST_NUMBER, _LONGEST_NAME, _USUAL_LINE, _LONGEST_LINE = 255, 512, 128, 1 << 16
_MOST_ARGUMENTS = 64
# Keys that are numbers stay below the modulus of Python's hash, so that they cannot be made to collide.
_LARGEST_KEY = 1 << 60
# The faults that nonsense in a stream provokes in the handlers below.
_FAULTS = (LookupError, ValueError, TypeError, ArithmeticError, struct.error, AttributeError)


def load(
    data: Any,
    start: int,
    names: Mapping[str, Name],
    budget: Budget,
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Reads one pickle.

    Args:
      data: bytes or another buffer, such as a memory map.
      start: where in it the pickle starts.
      names: "module.name" -> what that may be.
      budget: of the file.
      persistent: reference to an object outside of the pickle -> the object; None: such references are refused.

    Returns:
      The object (numbers, strings, lists, tuples, dicts, sets, what `names` builds, and a `Placeholder` for anything
      else) and the position behind it.

    Raises:
      Refused: the stream names what only an attack does.
      Damaged: the stream is cut short or no pickle.
      Excessive: it costs more than the budget.
    """
    reader = _Reader(data, start, names, budget, persistent)
    try:
        return reader.run(), reader.at
    except _FAULTS as error:
        raise Damaged(f"nonsense at byte {reader.at}") from error


def _key(key: Any) -> Any:
    """A key as it is hashed: what is no text and no plain number is replaced, because its hash may cost anything."""
    kind = type(key)
    if kind in (str, bytes, bool, type(None), float, Placeholder, Name):
        return key
    if kind is int:
        return key if -_LARGEST_KEY < key < _LARGEST_KEY else Placeholder("a large number")
    if isinstance(key, np.generic):
        value = key.item()
        return _key(value) if type(value) in (str, bytes, bool, int, float) else Placeholder("a number")
    if kind in (tuple, complex, frozenset, np.ndarray, Unsupported):
        return Placeholder(kind.__name__)
    raise TypeError("a key that is no number and no text")


def dictionary(pairs: Any, budget: Budget) -> dict[Any, Any]:
    """A dictionary of a list of pairs, or of a dictionary."""
    budget.pay(112 * len(pairs), len(pairs))
    if isinstance(pairs, dict):
        return dict(pairs)
    out: dict[Any, Any] = {}
    for key, value in pairs:
        _put(out, key, value)
    return out


def _put(target: dict[Any, Any], key: Any, value: Any) -> None:
    if isinstance(value, Broken):
        raise Damaged(f"{printable(key)}: {value.why}")
    target[_key(key)] = value


def members(kind: Callable[[Any], Any], budget: Budget) -> Callable[..., Any]:
    """A maker of sets."""

    def make(items: Any = ()) -> Any:
        budget.pay(216 + 112 * len(items), len(items))
        return kind([_key(item) for item in items])

    return make


class _Reader:
    """The pickle machine: a stack, a memo, and a position in the data."""

    def __init__(
        self,
        data: Any,
        start: int,
        names: Mapping[str, Name],
        budget: Budget,
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.data = memoryview(data)
        self.at = start
        self.names = names
        self.budget = budget
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        data, budget = self.data, self.budget
        while True:
            if self.at >= len(data):
                raise Damaged(f"it ends at byte {len(data)}, in the middle of its description")
            opcode = data[self.at]
            self.at += 1
            if opcode == _STOP:
                value = self.stack.pop()
                return value.value if isinstance(value, Shell) else value
            handler = _HANDLERS.get(opcode)
            if handler is None:
                if opcode not in _REFUSED:
                    raise ValueError("unknown opcode")
                raise Refused(f"the pickle opcode {_REFUSED[opcode]}")
            budget.pay(_COSTS[opcode])
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
        raw = self.take(self.number(form))
        self.budget.pay(len(raw))
        return bytes(raw)

    def text(self, form: str, encoding: str = "utf-8") -> str:
        raw = self.take(self.number(form))
        # A character beyond the first 65,536 makes all of a text four bytes wide.
        self.budget.pay(4 * len(raw))
        return str(raw, encoding, "surrogatepass" if encoding == "utf-8" else "strict")

    def line(self) -> str:
        for reach in (_USUAL_LINE, _LONGEST_LINE):
            raw = bytes(self.data[self.at : self.at + reach])
            length = raw.find(b"\n")
            if length >= 0:
                self.at += length + 1
                self.budget.pay(4 * length)
                return raw[:length].decode("utf-8")
        raise Damaged(f"it ends at byte {len(self.data)}, or a line of text has no end")

    # Stack and memo.

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def remember(self, index: int) -> None:
        if not 0 <= index < 1 << 32:
            raise ValueError("a place in the memo that is none")
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        value = self.memo[index]
        # What was filled since replaces its shell.
        self.push(value.value if isinstance(value, Shell) and value.value is not None else value)

    # Containers.

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            self.budget.pay(16 * len(items))
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise TypeError("items for what is no list")

    def assign(self, items: list[Any]) -> None:
        target = self.stack[-1]
        target = target.items if isinstance(target, Placeholder) else target
        if type(target) is not dict or len(items) % 2:
            raise TypeError("entries for what is no dictionary")
        self.budget.pay(60 * len(items), len(items))
        for key, value in zip(items[::2], items[1::2], strict=True):
            _put(target, key, value)

    def gather(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, set):
            self.budget.pay(112 * len(items), len(items))
            target.update(map(_key, items))
        elif not isinstance(target, Placeholder):
            raise TypeError("members for what is no set")

    # Names and calls.

    def name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        if len(module) + len(name) > _LONGEST_NAME:
            raise Damaged(f"a name of {len(module) + len(name):,} characters")
        full = f"{module}.{name}"
        if full in self.names:
            self.push(self.names[full])
            return
        first = module.partition(".")[0]
        if first in _ATTACKS or (first in _BUILTINS and name.partition(".")[0] in _ATTACKING_BUILTINS):
            raise Refused(full)
        self.push(Placeholder(full))

    def call(self, function: Any, arguments: Any) -> None:
        if not isinstance(arguments, tuple):
            raise TypeError("arguments that are none")
        if isinstance(function, Placeholder):
            self.push(Placeholder(function.name))
            return
        if not isinstance(function, Name):
            raise TypeError("a call of what is no function")
        if function.call is None:
            raise Refused(f"a call of {function.name}")
        if len(arguments) > _MOST_ARGUMENTS:
            raise TypeError("a call with arguments without end")
        self.push(function.call(*arguments))

    def reduce(self) -> None:
        arguments = self.stack.pop()
        self.call(self.stack.pop(), arguments)

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Shell):
            target.value = target.fill(state)
            self.stack[-1] = target.value
        elif isinstance(target, Placeholder):
            target.take_attributes(state)
        elif not (type(target) is dict and isinstance(state, dict)) and not isinstance(target, Unsupported):
            raise Refused(f"attributes for a {type(target).__name__}")
        # Attributes of a dictionary (PyTorch's version notes, `_metadata`) are of no use here.

    def reference(self) -> None:
        key = self.stack.pop()
        if self.persistent is None:
            raise Refused("an object outside of the file")
        self.push(self.persistent(key))


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError("a number without end")
    return int(text)


def _text_number(reader: _Reader) -> None:
    text = reader.line()
    reader.push({"00": False, "01": True}[text] if text in ("00", "01") else _integer(text))


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


def _long(reader: _Reader, form: str) -> None:
    length = reader.number(form)
    if length > _LONGEST_NUMBER:
        raise ValueError("a number without end")
    reader.push(int.from_bytes(reader.take(length), "little", signed=True))


def _dictionary(reader: _Reader) -> None:
    items = reader.pop_to_mark()
    reader.push({})
    reader.assign(items)


def _frozen(reader: _Reader) -> None:
    items = reader.pop_to_mark()
    reader.push(members(frozenset, reader.budget)(items))


def _stack_global(reader: _Reader) -> None:
    name, module = reader.stack.pop(), reader.stack.pop()
    reader.name(module, name)


# The oldest ways to make an object; no checkpoint uses them for what may be built, so they give placeholders.


def _instance(reader: _Reader) -> None:
    reader.name(reader.line(), reader.line())
    function = reader.stack.pop()
    reader.pop_to_mark()
    _make(reader, function)


def _object(reader: _Reader) -> None:
    items = reader.pop_to_mark()
    _make(reader, items[0])


def _with_keywords(reader: _Reader) -> None:
    _, _, function = (reader.stack.pop() for _ in range(3))
    _make(reader, function)


def _make(reader: _Reader, function: Any) -> None:
    if not isinstance(function, Name | Placeholder):
        raise TypeError("a call of what is no function")
    reader.push(Placeholder(function.name))


_STOP = ord(".")
# What no checkpoint uses, and what would need objects from elsewhere.
_REFUSED = {
    ord("P"): "PERSID",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
}
# Bytes of memory that an opcode takes beside those of the text and the entries that it reads.
_COSTS = [40] * 256
for _opcodes, _cost in ((b"}d(]l", 64), (b"pqr\x94", 104), (b"c\x93", 120), (b"R\x81\x92oibQ", 208), (b"\x8f", 216)):
    for _opcode in _opcodes:
        _COSTS[_opcode] = _cost
_HANDLERS: dict[int, Callable[[_Reader], Any]] = {
    opcode: handler
    for key, handler in {
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
        b"\x8a": lambda r: _long(r, "B"),
        b"\x8b": lambda r: _long(r, "i"),
        b"I": _text_number,
        b"L": lambda r: r.push(_integer(r.line().removesuffix("L"))),
        b"F": lambda r: r.push(float(r.line())),
        b"G": lambda r: r.push(struct.unpack(">d", r.take(8))[0]),
        # Text and bytes. Python 2 made no difference: latin-1 keeps names and bytes alike.
        b"S": _text_string,
        b"T": lambda r: r.push(r.text("i", "latin-1")),
        b"U": lambda r: r.push(r.text("B", "latin-1")),
        b"V": lambda r: r.push(r.line().encode("latin-1").decode("raw_unicode_escape")),
        b"X": lambda r: r.push(r.text("I")),
        b"\x8c": lambda r: r.push(r.text("B")),
        b"\x8d": lambda r: r.push(r.text("Q")),
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
        b"\x91": _frozen,
        # Stack and memo.
        b"0": lambda r: r.stack.pop(),
        b"1": lambda r: r.pop_to_mark(),
        b"2": lambda r: r.push(r.stack[-1]),
        b"p": lambda r: r.remember(_integer(r.line())),
        b"q": lambda r: r.remember(r.number("B")),
        b"r": lambda r: r.remember(r.number("I")),
        b"\x94": lambda r: r.remember(len(r.memo)),
        b"g": lambda r: r.recall(_integer(r.line())),
        b"h": lambda r: r.recall(r.number("B")),
        b"j": lambda r: r.recall(r.number("I")),
        # Names, calls, states, outside references.
        b"c": lambda r: r.name(r.line(), r.line()),
        b"\x93": _stack_global,
        b"i": _instance,
        b"o": _object,
        b"R": _Reader.reduce,
        b"\x81": _Reader.reduce,
        b"\x92": _with_keywords,
        b"b": _Reader.build,
        b"Q": _Reader.reference,
    }.items()
    for opcode in key
}
