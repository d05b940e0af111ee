"""Patterns of file names with named groups, ``{identity}_{camera}_{index}``; words for modalities and splits."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from mmreid_jax.datasets.folder import FOLDER_NAMES, INFRARED_NAMES
from mmreid_jax.errors import UserError

MARKET = "{identity}_c{camera}s{scene}_{index}_{any}"
"""The names of Market-1501, ``0002_c1s1_000451_03.jpg``."""
GROUPS: Mapping[str, str] = {
    "identity": r"[^/]+?",
    "camera": r"[^/_]+?",
    "scene": r"[^/_]+?",
    "modality": r"[^/_]+?",
    "split": r"[^/_]+?",
    "index": r"[^/_]+?",
    "any": r"[^/]*?",
}
"""Groups of a pattern, and what each matches; ``index`` and ``any`` say nothing."""
SPLITS: Mapping[str, str] = {
    "train": "train",
    "bounding_box_train": "train",
    "test": "test",
    "query": "query",
    "gallery": "gallery",
    "bounding_box_test": "gallery",
}
"""Word of a folder, name or table -> split; ``test`` is drawn into query and gallery. Market-1501's are among them."""
_MEANINGS = {word: name for name, words in FOLDER_NAMES.items() for word in words if len(word) > 1}
_MEANINGS |= dict.fromkeys(INFRARED_NAMES, "nir")


def modality_of(word: str) -> str:
    """The modality that a word stands for: ``rgb``, ``nir``, ``tir``; "" for none. ``ir`` is near infrared."""
    return _MEANINGS.get(word.lower(), "")


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression for the end of a path without suffix.

    Raises:
      UserError: it has an unknown group, one of them twice, or none that says anything.
    """
    parts = re.split(r"\{([^{}]*)\}", pattern)
    expression, used = "", []
    for position, part in enumerate(parts):
        if position % 2 == 0:
            expression += re.escape(part)
            continue
        if part not in GROUPS:
            raise UserError(f"the pattern {pattern!r} has a group {{{part}}}; there are {', '.join(GROUPS)}")
        if part in used:
            raise UserError(f"the pattern {pattern!r} has {{{part}}} twice; {{any}} stands for what says nothing")
        if part not in ("any", "index"):
            used.append(part)
        expression += f"(?P<{part}>{GROUPS[part]})" if part in used else f"(?:{GROUPS[part]})"
    if not used:
        raise UserError(f"the pattern {pattern!r} has no group such as {{identity}} or {{camera}}; write one")
    return re.compile(expression)


def groups_of(pattern: str, path: str) -> dict[str, str] | None:
    """What a pattern says of a path without suffix; None where the path does not end so.

    The pattern is compared with as many last parts of the path as it has itself.
    """
    found = _match(pattern, path)
    return None if found is None else found.groupdict()


def without_modality(pattern: str, path: str) -> str:
    """The path without what the group ``{modality}`` of the pattern matches: equal for images of one sample."""
    found = _match(pattern, path)
    if found is None or "modality" not in found.groupdict():
        return path
    head = path[: len(path) - len(found.string)]
    return head + found.string[: found.start("modality")] + found.string[found.end("modality") :]


def _match(pattern: str, path: str) -> re.Match[str] | None:
    ending = "/".join(path.split("/")[-(pattern.count("/") + 1) :])
    return compiled(pattern).fullmatch(ending)
