"""Colour removal against TVI-LFM's own."""

from __future__ import annotations

import pytest

from mmreid_jax.captioning import colours
from mmreid_jax.testing import goldens

GOLDENS = [
    pytest.param(golden, id=golden.name)
    for golden in map(goldens.load, goldens.cases("tvi_lfm"))
    if "colours" in golden.json
]


@pytest.mark.parametrize("golden", GOLDENS)
def test_texts_after_removal(golden):
    for before, after in golden.json["cases"]:
        assert colours.strip_colours(before, golden.json["colours"]) == after, before


@pytest.mark.parametrize("golden", GOLDENS)
def test_the_list_is_the_published_one(golden):
    assert list(colours.COLOURS) == golden.json["colours"]
