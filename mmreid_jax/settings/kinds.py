"""What a value of a config may be: its type, its range, and what runs had that were made before its key existed.

A kind is called with a value and answers what the value must be, as the end of a sentence ("a number from 0 to 1"), or
"" where it is that. Numbers are finite: NaN compares as neither too small nor too large, so it is refused here and
nowhere else. Lists stand for tuples, which JSON turns into them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from mmreid_jax.errors import UserError

_LONGEST = 60  # letters of a value in a message


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
      absent: what a run did that was made before this key existed; it stays when the default of the configs moves.
    """

    absent: Any

    def __call__(self, value: Any) -> str:
        """What `value` must be; "" where it is."""
        return "" if self.fits(value) else self.describe()

    def fits(self, value: Any) -> bool:
        """Whether a value is of this kind."""
        raise NotImplementedError

    def describe(self) -> str:
        """What it must be, in words."""
        raise NotImplementedError


class Switch(Kind):
    """True or False."""

    def fits(self, value: Any) -> bool:
        """Whether it is a Boolean."""
        return isinstance(value, bool)

    def describe(self) -> str:
        """In words."""
        return "True or False"


@dataclasses.dataclass(frozen=True)
class Number(Kind):
    """A finite number.

    Attributes:
      least: the smallest one.
      most: the largest one.
      below: what it must stay below, where the end itself is excluded.
      above: what it must lie above, likewise.
    """

    least: float = -math.inf
    most: float = math.inf
    below: float = math.inf
    above: float = -math.inf

    def fits(self, value: Any) -> bool:
        """Whether it is a finite number within the range."""
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        return math.isfinite(number) and self.least <= number <= self.most and self.above < number < self.below

    def describe(self) -> str:
        """In words."""
        return f"a number{self.range()}"

    def range(self) -> str:
        """The range, after the name of what it is of."""
        lower = f" of at least {self.least:g}" if self.least > -math.inf else ""
        lower = f" above {self.above:g}" if self.above > -math.inf else lower
        upper = f" at most {self.most:g}" if self.most < math.inf else ""
        upper = f" below {self.below:g}" if self.below < math.inf else upper
        if lower and upper and " at" in lower + upper and "above" not in lower and "below" not in upper:
            return f" from {self.least:g} to {self.most:g}"
        return f"{lower}{' and' if lower and upper else ''}{upper}"


class Whole(Number):
    """A whole number."""

    def fits(self, value: Any) -> bool:
        """Whether it is a whole number within the range."""
        return isinstance(value, numbers.Integral) and super().fits(value)

    def describe(self) -> str:
        """In words."""
        return f"a whole number{self.range()}"


@dataclasses.dataclass(frozen=True)
class Choice(Kind):
    """One of some names.

    Attributes:
      choices: the names.
    """

    choices: tuple[str, ...]

    def fits(self, value: Any) -> bool:
        """Whether it is one of them."""
        return isinstance(value, str) and value in self.choices

    def describe(self) -> str:
        """In words."""
        return f"one of {', '.join(name or repr(name) for name in self.choices)}"


class Text(Kind):
    """A name or a path, empty for none."""

    def fits(self, value: Any) -> bool:
        """Whether it is text that can be a name or a path."""
        return isinstance(value, str) and value.isprintable()

    def describe(self) -> str:
        """In words."""
        return "text without line breaks"


@dataclasses.dataclass(frozen=True)
class Several(Kind):
    """A tuple of values of one kind.

    Attributes:
      each: kind of every element; its own `absent` is not used.
      counts: how many there may be; empty for any number.
      distinct: whether none may come twice.
      ascending: whether they must ascend.
    """

    each: Kind
    counts: tuple[int, ...] = ()
    distinct: bool = False
    ascending: bool = False

    def fits(self, value: Any) -> bool:
        """Whether it is a tuple of such values."""
        if not isinstance(value, list | tuple) or (self.counts and len(value) not in self.counts):
            return False
        if not all(self.each.fits(element) for element in value):
            return False
        ordered = not self.ascending or all(first < second for first, second in itertools.pairwise(value))
        return ordered and not (self.distinct and len(set(map(_frozen, value))) < len(value))

    def describe(self) -> str:
        """In words."""
        count = f" of {' or '.join(map(str, self.counts))}" if self.counts else ""
        order = ", in ascending order" if self.ascending else ", none of them twice" if self.distinct else ""
        return f"a tuple{count}, every element {self.each.describe()}{order}"


@dataclasses.dataclass(frozen=True)
class Pair(Kind):
    """A tuple of two values.

    Attributes:
      kinds: those of the two.
    """

    kinds: tuple[Kind, Kind]

    def fits(self, value: Any) -> bool:
        """Whether it is a tuple of two such values."""
        if not isinstance(value, list | tuple) or len(value) != 2:
            return False
        return all(kind.fits(element) for kind, element in zip(self.kinds, value, strict=True))

    def describe(self) -> str:
        """In words."""
        return f"a pair of {' and '.join(kind.describe() for kind in self.kinds)}"


class Section(Mapping[str, Kind]):
    """The keys of a section of a config by name, each with its kind.

    Attributes:
      optional: keys that a config may have beside those that it must have.
    """

    def __init__(self, kinds: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> None:
        """Of keys that every such section has, and of optional ones."""
        self._kinds = {**kinds, **(optional or {})}
        self.optional = frozenset(optional or ())

    def __getitem__(self, key: str) -> Kind:
        """The kind of a key."""
        return self._kinds[key]

    def __iter__(self) -> Any:
        """Goes through the keys."""
        return iter(self._kinds)

    def __len__(self) -> int:
        """Number of keys."""
        return len(self._kinds)

    def __or__(self, other: Mapping[str, Kind]) -> Section:
        """This section with some keys more, or of another kind."""
        kept = {key: kind for key, kind in self.items() if key in self.optional and key not in other}
        return Section({**{key: kind for key, kind in self.items() if key not in kept}, **other}, kept)

    def check(self, section: Mapping[str, Any], where: str) -> None:
        """Raises a `UserError` for the first value that is not of its kind.

        Args:
          section: of a config.
          where: its dotted name, for the message.
        """
        for key, kind in self.items():
            if key in section and (wanted := kind(section[key])):
                raise UserError(
                    f"config.{where}{'.' if where else ''}{key} is {shown(section[key])}; it must be {wanted}"
                )

    def missing(self, section: Mapping[str, Any]) -> dict[str, Any]:
        """Keys that a section lacks, with what runs did that were made before these existed."""
        return {key: kind.absent for key, kind in self.items() if key not in section and key not in self.optional}


def shown(value: Any) -> str:
    """A value for a message, whatever it is: one line that is not too long."""
    text = " ".join(ascii(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _frozen(value: Any) -> Any:
    """A value that can be hashed."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def names(absent: Sequence[str] = (), distinct: bool = True) -> Several:
    """A tuple of names."""
    return Several(tuple(absent), Text(""), distinct=distinct)


def share(absent: float) -> Number:
    """A probability or share."""
    return Number(absent, 0, 1)
