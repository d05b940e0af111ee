"""Finds the weights that a layout means in a file that holds more, or holds them under other names.

Files keep a network inside of another one (``backbone.``, ``encoder_q.``), leave what wrapped it in the names
(``base.module.``), or hold several state_dicts. What the layout's rules accept whole is taken, if it is the only one;
nothing is guessed where two would do.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator

from mmreid_jax.convert.layout import ImportReport, Variables
from mmreid_jax.convert.torch_file import StateDict
from mmreid_jax.errors import UserError, printable

# Parts of names that wrappers of a module inside of a network leave.
WRAPPING = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# Prefixes have few parts, and a network under one has many names.
_DEEPEST, _FEWEST, _MOST = 4, 4, 64
_MOST_NAMES = 20_000

Import = Callable[[StateDict], tuple[Variables, ImportReport]]


def under_prefix(state: StateDict, prefix: str, source: str) -> StateDict:
    """The entries whose names begin with a prefix, without it.

    Args:
      state: all entries.
      prefix: with or without the dot at its end.
      source: what the entries are, for the message.

    Raises:
      UserError: no name begins with it.
    """
    names = [*state.entries, *state.unreadable]
    dotted = prefix if prefix.endswith(".") else f"{prefix}."
    prefix = dotted if any(name.startswith(dotted) for name in names) else prefix
    entries = {name[len(prefix) :]: value for name, value in state.entries.items() if name.startswith(prefix)}
    if not entries:
        beginnings = dict.fromkeys(name.partition(".")[0] for name in names)
        some = ", ".join(map(printable, list(beginnings)[:8]))
        raise UserError(f"{source}: no name begins with {printable(prefix)!r}; they begin with {some}")
    unreadable = {name[len(prefix) :]: what for name, what in state.unreadable.items() if name.startswith(prefix)}
    outside = len(names) - len(entries) - len(unreadable)
    note = f"read what is under {printable(prefix)!r}" + (f"; {outside} other keys are left out" if outside else "")
    return StateDict(entries, state.under, [*state.notes, note], unreadable)


def unwrapped(state: StateDict) -> StateDict | None:
    """The same entries without the parts of `WRAPPING` inside of their names; None: there are none, or two collide."""

    def short(name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in WRAPPING)

    entries = {short(name): value for name, value in state.entries.items()}
    unreadable = {short(name): what for name, what in state.unreadable.items()}
    if len(entries) < len(state.entries) or len(unreadable) < len(state.unreadable) or entries.keys() & unreadable:
        return None
    if entries.keys() == state.entries.keys():
        return None
    note = f"without the parts {', '.join(part for part in WRAPPING if _has_part(state, part))} of names"
    return StateDict(entries, state.under, [*state.notes, note], unreadable)


def _has_part(state: StateDict, part: str) -> bool:
    return any(part in name.split(".") for name in state.entries)


def import_fitting(states: list[StateDict], load: Import, source: str) -> tuple[StateDict, Variables, ImportReport]:
    """Imports the one state_dict, or part of one, that fits.

    Args:
      states: all that the file may mean.
      load: imports one, or raises `UserError`.
      source: what the entries are, for messages.

    Returns:
      What was imported, and what `load` made of it.

    Raises:
      UserError: nothing fits (the line is about the entries as they are), or several do.
    """
    fitting, failure = _try(states, load)
    if not fitting:
        shorter = [each for each in map(unwrapped, states) if each is not None]
        inner = ([part for state in some for part in _parts(state, source)] for some in (states, shorter))
        attempts = (_try(some, load)[0] for some in itertools.chain([shorter], inner))
        fitting = next(filter(None, attempts), [])
    if len(fitting) > 1:
        if len({state.under for state, _, _ in fitting}) > 1:
            names = ", ".join(printable(state.under) for state, _, _ in fitting)
            raise UserError(f"{source} holds several state_dicts that fit ({names}); name one with --under")
        notes = ", ".join(state.notes[-1].split("; ")[0].removeprefix("read what is under ") for state, _, _ in fitting)
        raise UserError(f"{source} holds several networks that fit, under {notes}; name one with --prefix")
    if fitting:
        return fitting[0]
    assert failure is not None
    if len(states) > 1:
        names = ", ".join(printable(state.under) for state in states)
        raise UserError(
            f"{source} holds several state_dicts ({names}), and none fits; name the one to read with --under: {failure}"
        )
    raise failure


def _try(
    states: list[StateDict], load: Import
) -> tuple[list[tuple[StateDict, Variables, ImportReport]], UserError | None]:
    """What fits, and the first failure."""
    fitting, first = [], None
    for state in states:
        try:
            fitting.append((state, *load(state)))
        except UserError as error:
            first = first or error
    return fitting, first


def _parts(state: StateDict, source: str) -> Iterator[StateDict]:
    """The entries under each prefix that many names share, the most frequent first."""
    if len(state.entries) > _MOST_NAMES:
        return
    counts: collections.Counter[str] = collections.Counter()
    for name in state.entries:
        at = -1
        for _ in range(_DEEPEST):
            at = name.find(".", at + 1)
            if at < 0:
                break
            counts[name[: at + 1]] += 1
    for prefix, count in counts.most_common(_MOST):
        if count >= _FEWEST:
            yield under_prefix(dataclasses.replace(state), prefix, source)
