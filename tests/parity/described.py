"""Settings and shapes of a case from the words of its json, which tests must not know by heart."""

from __future__ import annotations

import re
from typing import Any


def text_of(words: Any) -> str:
    """All words in a part of a json, one after the other."""
    if isinstance(words, dict):
        return "\n".join(f"{key}: {text_of(value)}" for key, value in words.items())
    if isinstance(words, list):
        return "\n".join(map(text_of, words))
    return str(words)


def shape(words: Any, key: str, **sizes: int) -> tuple[int, ...]:
    """The shape of an input as in ``recipe.array(seed,'key',[6, 40])`` or ``array(seed,"key",(6,2n,C))``.

    Args:
      words: of the json, where they stand anywhere.
      key: of the recipe.
      sizes: what letters stand for.
    """
    found = re.search(re.escape(key) + r"""['"],\s*[\[(]([^\])]*)[\])]""", text_of(words))
    assert found, f"no shape of {key} in {words}"
    entries = [entry.strip() for entry in found[1].split(",") if entry.strip()]
    parts = [re.fullmatch(r"(\d*)\s*\*?\s*([A-Za-z]\w*)?", entry) for entry in entries]
    assert all(parts), f"{key}: {found[1]}"
    return tuple(int(part[1] or 1) * (sizes[part[2]] if part[2] else 1) for part in parts)


def number(words: Any, pattern: str, otherwise: float | None = None) -> float:
    """The number that a pattern finds in the words of a json; `otherwise` where it finds none."""
    found = re.search(pattern, text_of(words))
    assert found or otherwise is not None, f"no {pattern} in {words}"
    return float(found[1]) if found else float(otherwise)


def named(name: str, known: Any) -> list[str]:
    """What a name may stand for: the longest known names that it holds, else all, one of which must then fit."""
    held = [one for one in known if one in name]
    longest = max(map(len, held), default=0)
    return [one for one in held if len(one) == longest] or list(known)
