"""Patterns of names, and words for modalities and splits."""

import pytest

from mmreid_jax.datasets.own import naming
from mmreid_jax.errors import UserError


@pytest.mark.parametrize(
    ("pattern", "path", "said"),
    [
        (naming.MARKET, "0002_c1s1_000451_03", {"identity": "0002", "camera": "1", "scene": "1"}),
        (naming.MARKET, "-1_c6s3_000451_03", {"identity": "-1", "camera": "6", "scene": "3"}),
        (naming.MARKET, "0002_cam1_03", None),
        ("{identity}_{camera}_{index}", "anna_maria_front_17", {"identity": "anna_maria", "camera": "front"}),
        ("{identity}/c{camera}_{any}", "a/b/12/c3_x_y", {"identity": "12", "camera": "3"}),
        ("{identity}/c{camera}_{any}", "c3_x", None),
        ("{identity}_{modality}", "12_nir", {"identity": "12", "modality": "nir"}),
        ("{split}-{identity}.{any}", "train-7.", {"split": "train", "identity": "7"}),
        ("p{identity}", "x7", None),
    ],
)
def test_what_a_name_says(pattern, path, said):
    assert naming.groups_of(pattern, path) == said


def test_signs_of_regular_expressions_stand_for_themselves():
    assert naming.groups_of("({identity})+", "(7)+") == {"identity": "7"}
    assert naming.groups_of("({identity})+", "77") is None


def test_a_real_name_of_every_form_is_read_as_its_data_set_reads_it():
    """The default pattern against the parser of Market-1501's own names."""
    from mmreid_jax import datasets

    for stem in ("0002_c1s1_000451_03", "1501_c6s4_001051_02", "0000_c3s2_000151_01"):
        labels = datasets.get("market1501_mm").folders.labels(stem)
        said = naming.groups_of(naming.MARKET, stem)
        assert (int(said["identity"]), int(said["camera"]) - 1) == labels[:2]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{person}_{camera}", r"a group \{person\}"),
        ("{identity}_{identity}", "twice"),
        ("{index}_{any}", "no group"),
        ("names", "no group"),
    ],
)
def test_a_pattern_that_is_none(pattern, message):
    with pytest.raises(UserError, match=message):
        naming.groups_of(pattern, "1_2")


def test_images_of_one_sample_have_equal_paths_without_the_modality():
    pattern = "{identity}_{modality}_{index}"
    both = {naming.without_modality(pattern, f"run/12_{name}_03") for name in ("rgb", "nir")}
    assert both == {"run/12__03"}
    assert naming.without_modality("{identity}_{index}", "12_03") == "12_03"
    assert naming.without_modality(pattern, "x") == "x"


def test_words_of_modalities():
    assert [naming.modality_of(word) for word in ("RGB", "visible", "IR", "thermal", "ni", "t", "anna", "")] == [
        *("rgb", "rgb", "nir", "tir", "nir", "", "", "")
    ]
