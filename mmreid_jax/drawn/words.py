"""Captions of drawn people and vehicles as captioning models write them: short, in several phrasings, often incomplete.

A captioner notices some of what there is to see in one picture (`notice`), and puts it into words (`caption`); a
language model says the same in other words (`rephrase`). What can be seen depends on the modality: a near-infrared
picture has no colours and a thermal one no patterns either. As real ones do, the models do not quite admit it: they
guess the colour of some garment, mostly wrongly, and more often so when they rephrase.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

VISIBLE, THERMAL = "rgb", "tir"

COLOUR_WORDS: Mapping[str, Sequence[str]] = {
    "black": ("black",),
    "grey": ("grey", "gray"),
    "white": ("white",),
    "navy": ("navy", "dark blue"),
    "blue": ("blue",),
    "red": ("red",),
    "green": ("green",),
    "beige": ("beige", "tan"),
    "brown": ("brown",),
    "purple": ("purple",),
    "yellow": ("yellow",),
    "blond": ("blond", "blonde"),
    "silver": ("silver",),
}
"""Colour -> how captions may name it."""

_GUESSED = ("black", "white", "grey", "blue", "red", "green", "brown")
_NOUNS: Mapping[str, Sequence[str]] = {
    "t-shirt": ("t-shirt", "tee shirt"),
    "shirt": ("shirt", "long sleeve shirt"),
    "jacket": ("jacket",),
    "hoodie": ("hoodie", "hooded sweatshirt"),
    "coat": ("coat", "long coat"),
    "trousers": ("pants", "trousers"),
    "shorts": ("shorts", "short pants"),
    "skirt": ("skirt",),
    "sneakers": ("sneakers", "sport shoes"),
    "boots": ("boots",),
    "shoes": ("shoes",),
    "backpack": ("backpack", "bag on the back"),
    "shoulder bag": ("shoulder bag",),
    "handbag": ("handbag", "purse"),
    "cap": ("cap", "baseball cap"),
    "beanie": ("beanie", "knit hat"),
}
_PAIRS = ("trousers", "shorts", "sneakers", "boots", "shoes")
_PATTERNS = {"stripes": ("striped",), "checks": ("checkered", "plaid"), "print": ("printed", "graphic")}
_WHO = {"man": ("man", "male person", "guy"), "woman": ("woman", "female person", "lady")}
_HAIR = {"short": "short", "bob": "chin length", "long": "long", "bun": "tied up"}
_BODIES: Mapping[str, Sequence[str]] = {
    "sedan": ("sedan", "car"),
    "hatchback": ("hatchback", "small car"),
    "estate": ("estate car", "station wagon"),
    "suv": ("SUV",),
    "minivan": ("minivan",),
    "van": ("van",),
    "pickup": ("pickup truck",),
    "truck": ("truck",),
}
_ROOFS = {
    "rack": "a roof rack",
    "sunroof": "a sunroof",
    "taxi sign": "a taxi sign on its roof",
    "dark roof": "a dark roof",
}
_DECALS = {
    "side stripe": "a stripe along its side",
    "door logo": "a logo on its door",
    "lower band": "a band above its sills",
    "hood stripes": "stripes on its hood",
}
_MISNAMED, _UNNAMED = 0.04, 0.08
_GUESSES, _REPHRASED_GUESSES = 0.12, 0.3


@dataclasses.dataclass(frozen=True)
class Piece:
    """Something worn or carried: its kind, how it is patterned and coloured, each "" if nothing is said of it."""

    kind: str
    pattern: str = ""
    colour: str = ""


@dataclasses.dataclass(frozen=True)
class Notice:
    """What a captioner notices in a picture of a person.

    Attributes:
      sex: ``man`` or ``woman``.
      upper, lower: garments.
      shoes, bag, hat: likewise, None if not noticed.
      hair: length, "" if not noticed.
      hair_colour: "" if not noticed.
      glasses: noticed.
    """

    sex: str
    upper: Piece
    lower: Piece
    shoes: Piece | None = None
    bag: Piece | None = None
    hat: Piece | None = None
    hair: str = ""
    hair_colour: str = ""
    glasses: bool = False


def notice(looks: Mapping[str, str], modality: str, random: np.random.Generator) -> Notice:
    """What a captioner notices of a person in a picture of one modality.

    Args:
      looks: what there is to see, as `attributes.describe` says it.
      modality: ``rgb``, ``nir`` or ``tir``.
      random: source of what is overlooked or mistaken.
    """

    def piece(part: str, kind: str) -> Piece:
        # Every choice is drawn whether it matters or not, so that one modality's words do not shift another's.
        noticed, mistaken, unnamed, guessed = random.random(4)
        wrong = _one(_GUESSED, random)
        colour = ""
        if modality == VISIBLE:
            true = looks[f"{part} colour"]
            colour = "" if unnamed < _UNNAMED else wrong if mistaken < _MISNAMED else true
        elif guessed < _GUESSES:
            colour = wrong
        pattern = looks.get(f"{part} pattern", "plain")
        seen = pattern in _PATTERNS and modality != THERMAL and noticed < 0.85
        return Piece(kind, pattern if seen else "", colour)

    upper, lower = piece("upper", looks["upper"]), piece("lower", looks["lower"])
    shoes, bag, hat = piece("shoe", looks["shoes"]), piece("bag", looks["bag"]), piece("hat", looks["hat"])
    # Which of the small things are noticed in this picture.
    foot, carried, head, hair, eyes = random.random(5)
    style = _HAIR.get(looks["hair"], "") if hair < 0.3 else ""
    return Notice(
        looks["sex"],
        upper,
        lower,
        shoes if foot < 0.4 else None,
        bag if looks["bag"] != "none" and carried < 0.85 else None,
        hat if looks["hat"] != "none" and head < 0.8 else None,
        style,
        looks["hair colour"] if style and modality == VISIBLE else "",
        looks["glasses"] == "yes" and eyes < 0.5,
    )


def caption(seen: Notice, random: np.random.Generator) -> str:
    """The caption of a picture, as image captioning models write it."""
    who = _one(_WHO[seen.sex][:1] * 4 + _WHO[seen.sex], random)
    upper, lower = _noun(seen.upper, random), _noun(seen.lower, random)
    wearing = _one(("wearing", "in", "dressed in"), random)
    doing = _one(("", "", "walking ", "standing ", "walking down the street "), random)
    opening = _one(("a ", "a ", "there is a ", "an image of a "), random)
    more = [*_worn(seen, random), *_carried(seen, random)]
    tail = f" with {_listed(more)}" if more else ""
    return f"{opening}{who} {doing}{wearing} {upper} and {lower}{tail}"


def rephrase(seen: Notice, modality: str, random: np.random.Generator) -> str:
    """The same in the words of a language model, which likes to add a colour where the picture showed none."""
    if modality != VISIBLE:
        upper, lower = (_coloured(piece, random) for piece in (seen.upper, seen.lower))
        seen = dataclasses.replace(seen, upper=upper, lower=lower)
    who = _one(_WHO[seen.sex], random)
    upper_noun, lower_noun = _noun(seen.upper, random), _noun(seen.lower, random)
    worn, carried = _worn(seen, random), _carried(seen, random)
    form = int(random.integers(3))
    if form == 0:
        start = f"The person in the picture is a {who} clad in {upper_noun} paired with {lower_noun}"
    elif form == 1:
        start = f"A {who} can be seen sporting {upper_noun} together with {lower_noun}"
    else:
        start = f"The individual, a {who}, has on {upper_noun} as well as {lower_noun}"
    features = f", and is recognised by {_listed(worn)}" if worn else ""
    luggage = f", carrying {_listed(carried)}" if carried else ""
    return f"{start}{features}{luggage}."


def vehicle_caption(looks: Mapping[str, str], modality: str, random: np.random.Generator) -> str:
    """The caption of a picture of a vehicle.

    Args:
      looks: what there is to see, as `attributes.describe` says it.
      modality: ``rgb``, ``nir`` or ``tir``.
      random: source of what is overlooked or mistaken.
    """
    mistaken, unnamed, guessed, roof, decal = random.random(5)
    wrong = _one(_GUESSED, random)
    if modality == VISIBLE:
        colour = "" if unnamed < _UNNAMED else wrong if mistaken < _MISNAMED else looks["colour"]
    else:
        colour = wrong if guessed < _GUESSES else ""
    named = [_one(COLOUR_WORDS[colour], random)] if colour else []
    vehicle = " ".join([*named, _one(_BODIES[looks["body"]], random)])
    opening = _one(("The vehicle is", "This is", "The image shows"), random)
    # What is painted on is as warm as what it is painted on.
    details = [
        _ROOFS.get(looks["roof"], "") if roof < 0.7 else "",
        _DECALS.get(looks["decal"], "") if decal < 0.8 and modality != THERMAL else "",
    ]
    more = [detail for detail in details if detail]
    article = "an" if vehicle.startswith(("estate", "SUV")) else "a"
    return f"{opening} {article} {vehicle}{f' with {_listed(more)}' if more else ''}."


def _coloured(piece: Piece, random: np.random.Generator) -> Piece:
    guessed, colour = random.random() < _REPHRASED_GUESSES, _one(_GUESSED, random)
    return dataclasses.replace(piece, colour=colour) if guessed and not piece.colour else piece


def _worn(seen: Notice, random: np.random.Generator) -> list[str]:
    colour = _one(COLOUR_WORDS[seen.hair_colour], random) if seen.hair_colour else ""
    hair = " ".join(word for word in (seen.hair, colour) if word)
    parts = [f"{hair} hair" if hair else "", "glasses" if seen.glasses else ""]
    parts += [_noun(piece, random) for piece in (seen.hat, seen.shoes) if piece]
    return [part for part in parts if part]


def _carried(seen: Notice, random: np.random.Generator) -> list[str]:
    return [_noun(seen.bag, random)] if seen.bag else []


def _noun(piece: Piece, random: np.random.Generator) -> str:
    """Such as ``a red striped t-shirt``, ``black pants``."""
    words = [
        _one(COLOUR_WORDS[piece.colour], random) if piece.colour else "",
        _one(_PATTERNS[piece.pattern], random) if piece.pattern else "",
        _one(_NOUNS[piece.kind], random),
    ]
    return " ".join([*([] if piece.kind in _PAIRS else ["a"]), *(word for word in words if word)])


def _one(words: Sequence[str], random: np.random.Generator) -> str:
    return words[int(random.integers(len(words)))]


def _listed(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
