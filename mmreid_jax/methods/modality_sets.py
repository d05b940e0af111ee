"""Comparing images of which different modalities are at hand: any set of modalities as query against any as gallery.

A method gives every modality a feature by itself: a *shared* one, that is comparable between modalities, and perhaps a
*specific* one, that is comparable within its modality alone. Which of them stand side by side in a comparison is said
here, by their names; what they are is the method's business.

Where `mmreid_jax.methods.base.Comparison` names a feature, names joined by `TOGETHER` are features side by side.

Reference: Feng et al. 2025 (MDReID), whose code compares features in this way.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, runtime_checkable
from typing import Protocol as Interface

from mmreid_jax.errors import UserError
from mmreid_jax.methods.base import TOGETHER, Comparison, DataFacts

Modalities = tuple[str, ...]
MATCHING = ("by_name", "as_released")
"""How `chunks` finds the specific features that are compared."""


@runtime_checkable
class ComparesSets(Interface):
    """A method that compares images of which different modalities are at hand.

    Attributes:
      apart: its features of fewer modalities are made of those of each, so that an absent one has no part in them.
    """

    apart: bool

    def between(self, query: Modalities, gallery: Modalities) -> Comparison:
        """How queries of which some modalities are at hand are compared with a gallery of others.

        Raises:
          UserError: a modality is not there, or they cannot be compared.
        """
        ...


class ComparesWhole:
    """The part of a method whose features of any modalities are comparable as they are; see `ComparesSets`."""

    apart = False
    config: Any
    facts: DataFacts

    def comparisons(self) -> list[Comparison]:
        """One comparison: all modalities against all modalities, or those that the config names."""
        return [usual(self, self.facts.modalities, self.config.eval)]

    def between(self, query: Modalities, gallery: Modalities) -> Comparison:
        """Of equal modalities the whole feature, with zeros for the others; else the features of the modalities."""
        options = self.config.eval
        return compare(query, gallery, self.facts.modalities, whole=options.feature, matching=options.matching)


def usual(method: ComparesSets, modalities: Sequence[str], options: Any) -> Comparison:
    """The comparison that ``config.eval.query_modalities`` and ``gallery_modalities`` ask for, empty ones for all.

    Raises:
      UserError: see `ComparesSets.between`.
    """
    return method.between(
        *(_checked(options[key] or modalities, modalities, key) for key in ("query_modalities", "gallery_modalities"))
    )


def _checked(given: Sequence[str], modalities: Sequence[str], key: str) -> Modalities:
    if any(name not in modalities for name in given) or len(set(given)) != len(given):
        raise UserError(
            f"config.eval.{key} is {', '.join(map(str, given))}; name one or more of {', '.join(modalities)}, each once"
        )
    return tuple(given)


def compare(
    query: Modalities,
    gallery: Modalities,
    modalities: Sequence[str],
    *,
    whole: str,
    specific: str = "",
    shared: str = "",
    apart: bool = False,
    matching: str = "by_name",
) -> Comparison:
    """The comparison of two sets of modalities.

    Args:
      query: modalities of the queries.
      gallery: likewise.
      modalities: all, in order.
      whole: the feature of images of which all are at hand.
      specific: see `chunks`.
      shared: see `chunks`.
      apart: `whole` is made of what the modalities give by themselves, so that of fewer their own features remain;
        else, of equal sets, it is `whole` with zeros in place of the others.
      matching: one of `MATCHING`.
    """
    every = tuple(modalities)
    if set(query) == set(gallery) == set(every):
        return Comparison("all modalities", whole, every, every)
    if tuple(query) == tuple(gallery) and not apart:
        return Comparison(name_of(query, gallery), whole, tuple(query), tuple(gallery))
    sides = chunks(query, gallery, modalities, specific=specific, shared=shared, as_released=matching == "as_released")
    features = [TOGETHER.join(side) for side in sides]
    return Comparison(name_of(query, gallery), features[0], tuple(query), tuple(gallery), features[1])


def subsets(modalities: Sequence[str]) -> list[Modalities]:
    """All sets of one or more modalities, the large ones first, each in the given order."""
    sizes = range(len(modalities), 0, -1)
    return [chosen for size in sizes for chosen in itertools.combinations(modalities, size)]


def pairs(modalities: Sequence[str]) -> list[tuple[Modalities, Modalities]]:
    """All pairs of sets (query, gallery): of three modalities 49."""
    sets = subsets(modalities)
    return list(itertools.product(sets, sets))


def name_of(query: Sequence[str], gallery: Sequence[str]) -> str:
    """``NIR+TIR to RGB``."""
    return " to ".join("+".join(name.upper() for name in side) for side in (query, gallery))


def chunks(
    query: Sequence[str],
    gallery: Sequence[str],
    modalities: Sequence[str],
    *,
    specific: str,
    shared: str,
    as_released: bool = False,
) -> tuple[list[str], list[str]]:
    """Names of the features that stand side by side for queries and for the gallery.

    Of equal sets all specific and all shared features. Else the specific ones of the modalities that both have, each
    against that of the same modality; then the shared ones, first those of the modalities that both have, then the
    others in order; the side with fewer repeats its last one.

    Args:
      query: modalities of the queries, in any order.
      gallery: likewise.
      modalities: all, in order.
      specific: what the name of a specific feature begins with; empty: there are none.
      shared: what that of a shared feature begins with.
      as_released: the rule of MDReID's code instead. It matches specific features by their place in the lists that it
        is given, so that the order of `query` and `gallery` has a say: (nir, tir) against (nir, rgb) is told apart from
        (nir, tir) against (rgb, nir), and compares the former's specific NIR with the latter's specific RGB.

    Returns:
      Two lists of equal length, of names such as ``specific_nir``.

    Raises:
      UserError: `as_released` and the released code ends with an error.
    """
    sides = [[name for name in modalities if name in side] for side in (query, gallery)]
    if sides[0] == sides[1] and (not as_released or tuple(query) == tuple(gallery)):
        alike = [specific + name for name in sides[0] if specific] + [shared + name for name in sides[0]]
        return alike, list(alike)
    if as_released:
        chosen = _released_specific(query, gallery, sides)
    else:
        both = [name for name in sides[0] if name in sides[1]]
        chosen = [both, both]
        sides = [[*both, *(name for name in side if name not in both)] for side in sides]
    longest = max(map(len, sides))
    made = []
    for alone, side in zip(chosen, sides, strict=True):
        of_shared = [*side, *[side[-1]] * (longest - len(side))]
        made.append([specific + name for name in alone if specific] + [shared + name for name in of_shared])
    return made[0], made[1]


def _released_specific(query: Sequence[str], gallery: Sequence[str], sides: Sequence[Sequence[str]]) -> list[list[str]]:
    """Modalities whose specific features are compared as released: those at the places at which the lists agree.

    Lists of one element are broadcast, as arrays are. A side holds its features in the order of all modalities,
    whatever the order of its list.
    """
    if len(query) != len(gallery) and 1 not in (len(query), len(gallery)):
        raise UserError(f"the released code cannot compare {name_of(query, gallery)}; leave out as_released")
    longest = max(len(query), len(gallery))
    spread = [list(side) * longest if len(side) == 1 else list(side) for side in (query, gallery)]
    places = [place for place, (a, b) in enumerate(zip(*spread, strict=True)) if a == b]
    if any(place >= len(side) for place in places for side in sides):
        raise UserError(f"the released code ends with an error for {name_of(query, gallery)}; leave out as_released")
    return [[side[place] for place in places] for side in sides]
