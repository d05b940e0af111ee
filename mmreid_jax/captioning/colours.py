"""Removal of colour words: who looks at an infrared image cannot know colours, yet language models name some.

TVI-LFM (NeurIPS 2024) removes 73 words from infrared captions by plain replacement, word after word in a fixed order.
Replacement knows no word boundaries, so that some words are mangled (``c-`` inside another word, ", red" before
"redder"): its published texts are so, and so are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

# The order matters: what an earlier colour leaves of a phrase a later one may find. Order and spelling are TVI-LFM's.
COLOURS: tuple[str, ...] = (
    *("sky blue", "sky-blue", "sky-colored", "sea blue", "sea-blue", "sky", "sea", "maroon", "multicolored", "gray"),
    *("black", "redish", "blueish", "brown", "lime", "golden", "nude", "purplish", "teal", "magenta", "tan", "grassy"),
    *("red", "brownish", "yellow", "olive", "metallic", "orange", "aqua", "kaki", "bluish", "purple", "grayish"),
    *("beige", "pinkish", "cream", "auburn", "bleached", "straw", "orangish", "brunette", "white", "yellowish", "blue"),
    *("reddish", "green", "coral", "greenish", "blond", "taupe", "pink", "grey", "colorful", "neutral", "transparent"),
    *("gold", "greyish", "whitish", "orangey", "salmon", "dark", "blonde", "burgundy", "khaki", "silver", "navy"),
    *("neon", "pastel", "pastel-colored", "peach", "leaf", "leafy", "leaf-colored"),
)


def strip_colours(text: str, colours: Sequence[str] = COLOURS) -> str:
    """A text without colour words; replacement is case-sensitive.

    Args:
      text: a caption.
      colours: the words, in the order in which they are removed.
    """
    for colour in colours:
        for old, new in _replacements(colour, colours):
            text = text.replace(old, new)
    return text


def _replacements(colour: str, colours: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What is replaced by what for one colour, in order."""
    for other in colours:
        yield f" half-{colour} and half-{other} ", " "
        yield f" half-{colour} and half-{other}.", "."
        yield f" {colour} and {other},", ""
    yield f" half-{colour} ", ""
    yield f" half-{colour}", ""
    yield f" half-{colour}.", "."
    yield f" {colour}-colored", ""
    yield f"{colour}-", ""
    yield f", {colour}", ""
    yield f" {colour},", ""
    yield f" {colour}.", "."
    yield f" {colour} ", " "
