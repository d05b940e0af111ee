"""What is wrong with a tree or table of images, gathered: all of it is said at once, a line for each kind."""

from __future__ import annotations

from collections.abc import Iterable

from mmreid_jax.errors import UserError, printable

SHOWN = 3
"""Examples of a kind of fault."""


class Faults:
    """Kinds of faults, each with the places where it was found."""

    def __init__(self) -> None:
        """None yet."""
        self._places: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._places)

    def add(self, kind: str, places: str | Iterable[str]) -> None:
        """Notes where a kind of fault was found; a place may be followed by the reason in brackets.

        Args:
          kind: what is wrong, as in ``names do not have the form PATTERN``.
          places: file, row or identity, or several of them.
        """
        given = [places] if isinstance(places, str) else list(places)
        if given:
            self._places.setdefault(kind, []).extend(given)

    @property
    def lines(self) -> list[str]:
        """A line for each kind: how many, what, three examples."""
        return [
            f"{len(places)} {kind}: {', '.join(printable(place) for place in places[:SHOWN])}"
            + (" ..." if len(places) > SHOWN else "")
            for kind, places in self._places.items()
        ]


class FaultyData(UserError):
    """A tree or table that cannot be prepared.

    Attributes:
      lines: see `Faults.lines`.
      summary: the message without them.
    """

    def __init__(self, where: str, faults: Faults) -> None:
        """Of what was read at `where`."""
        self.lines = faults.lines
        kinds = "a kind of fault" if len(self.lines) == 1 else f"{len(self.lines)} kinds of faults"
        self.summary = f"{where} has {kinds}, and nothing was written; mend what is listed"
        super().__init__(f"{self.summary}: {'; '.join(self.lines)}")
