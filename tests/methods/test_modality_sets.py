"""Which features stand side by side when sets of modalities are compared."""

from __future__ import annotations

import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.methods import modality_sets

NAMES = ("rgb", "nir", "tir")
OPTIONS = {"modalities": NAMES, "specific": "p_", "shared": "s_"}


def letters(query, gallery, **options):
    """Chunks in short: ``N sN sT`` for the specific and the shared ones."""
    words = {"r": "rgb", "n": "nir", "t": "tir"}
    sides = modality_sets.chunks([words[x] for x in query], [words[x] for x in gallery], **{**OPTIONS, **options})
    short = {f"{kind}_{name}": ("s" if kind == "s" else "") + name[0].upper() for kind in "ps" for name in NAMES}
    return " | ".join(" ".join(short[chunk] for chunk in side) for side in sides)


@pytest.mark.parametrize(
    ("query", "gallery", "expected"),
    [
        ("rnt", "rnt", "R N T sR sN sT | R N T sR sN sT"),
        ("r", "r", "R sR | R sR"),
        ("r", "t", "sR | sT"),
        ("nt", "rt", "T sT sN | T sT sR"),
        # Of equal modalities, in whatever order they are named.
        ("nt", "nr", "N sN sT | N sN sR"),
        ("nt", "rn", "N sN sT | N sN sR"),
        ("nt", "tn", "N T sN sT | N T sN sT"),
        ("nt", "r", "sN sT | sR sR"),
        ("r", "rnt", "R sR sR sR | R sR sN sT"),
        ("rnt", "nt", "N T sN sT sR | N T sN sT sT"),
    ],
)
def test_by_name(query, gallery, expected):
    assert letters(query, gallery) == expected


@pytest.mark.parametrize(
    ("query", "gallery", "expected"),
    [
        ("nt", "nr", "N sN sT | R sR sN"),
        ("rn", "tn", "N sR sN | T sN sT"),
        ("rt", "nt", "T sR sT | T sN sT"),
        ("t", "rn", "sT sT | sR sN"),
        ("nt", "nt", "N T sN sT | N T sN sT"),
    ],
)
def test_as_released(query, gallery, expected):
    assert letters(query, gallery, as_released=True) == expected


@pytest.mark.parametrize(("query", "gallery"), [("t", "rt"), ("rn", "rnt")])
def test_what_the_released_code_cannot_compare(query, gallery):
    with pytest.raises(UserError, match="leave out as_released"):
        letters(query, gallery, as_released=True)


def test_sides_are_of_one_length_and_common_modalities_face_each_other():
    for query, gallery in modality_sets.pairs(NAMES):
        left, right = modality_sets.chunks(query, gallery, **OPTIONS)
        assert len(left) == len(right)
        assert [a for a in left if a.startswith("p_")] == [b for b in right if b.startswith("p_")]
        both = set(query) & set(gallery)
        assert {(a, b) for a, b in zip(left, right, strict=True) if a == b and a.startswith("s_")} == {
            (f"s_{name}", f"s_{name}") for name in both
        }


def test_without_specific_features_the_shared_ones_are_compared():
    sides = modality_sets.chunks(("rgb", "tir"), ("tir",), NAMES, specific="", shared="")
    assert sides == (["tir", "rgb"], ["tir", "tir"])


def test_all_pairs_and_their_names():
    pairs = modality_sets.pairs(NAMES)
    assert len(pairs) == len(set(pairs)) == 49
    assert pairs[0] == (NAMES, NAMES)
    assert modality_sets.name_of(("nir", "tir"), ("rgb",)) == "NIR+TIR to RGB"
