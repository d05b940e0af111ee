"""Searches as the page asks for them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.errors import UserError
from mmreid_jax.model import Model
from mmreid_jax.serving import searching
from tests.serving import galleries


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    return galleries.searcher(tmp_path_factory.mktemp("gallery") / "rgb")


def test_matches_are_those_of_the_model(searcher):
    query = galleries.person(1, 9)
    found = searcher.search(galleries.encoded(query), "rgb")
    assert {found[0].name, found[1].name} == {"0001_c1.png", "0001_c2.png"}
    assert [each.distance for each in found] == sorted(each.distance for each in found)
    model = Model(searcher._extractor)
    rows = model.embed({"rgb": [query, galleries.person(1, 0)]})
    same = next(each for each in found if each.name == "0001_c1.png")
    assert same.distance == pytest.approx(np.square(rows[0] - rows[1]).sum(), abs=1e-5)


def test_cameras_limit_what_is_searched(searcher):
    found = searcher.search(galleries.encoded(galleries.person(1, 9)), "rgb", cameras=["2"])
    assert {each.camera for each in found} == {"2"}
    assert found[0].name == "0001_c2.png"
    assert searcher.cameras == ["1", "2"]
    with pytest.raises(UserError, match="no camera 7; it has 1, 2"):
        searcher.search(galleries.encoded(galleries.person(1)), "rgb", cameras=["7"])


def test_words_find_people(tmp_path):
    searcher = galleries.searcher(tmp_path / "rgb", "tvi_lfm")
    assert searcher.reads_text
    assert searcher.modalities == ("nir",)
    words = searcher.search(b"", "nir", "a man in a red jacket")
    both = searcher.search(galleries.encoded(galleries.person(2)), "nir", "a man in a red jacket")
    image = searcher.search(galleries.encoded(galleries.person(2)), "nir")
    assert len(words) == len(both) == len(image) == 5
    assert len({tuple(round(each.distance, 4) for each in found) for found in (words, both, image)}) == 3


def test_pictures(searcher):
    picture = Image.open(io.BytesIO(searcher.picture(2)))
    assert (picture.format, picture.size) == ("JPEG", (128, 256))
    for row in (-1, 5):
        with pytest.raises(UserError, match="no row"):
            searcher.picture(row)


@pytest.mark.parametrize(
    ("image", "modality", "text", "message"),
    [
        (b"", "rgb", "  ", "drop an image"),
        (b"no image", "rgb", "", "cannot be decoded|cannot be read|no image"),
        (b"", "rgb", "a man", "reads no text"),
        ("image", "uv", "", "not by uv"),
    ],
)
def test_mistakes_are_a_line(image, modality, text, message, searcher):
    image = galleries.encoded(galleries.person(1)) if image == "image" else image
    with pytest.raises(UserError, match=message):
        searcher.search(image, modality, text)


def test_an_image_that_claims_too_many_pixels_is_not_unfolded(searcher):
    header = bytearray(galleries.encoded(np.zeros((1, 1, 3), np.uint8)))
    header[16:24] = (60000).to_bytes(4, "big") * 2
    with pytest.raises(UserError):
        searcher.search(bytes(header), "rgb")


def test_the_threshold_is_the_measured_one(searcher, tmp_path):
    assert searcher.threshold(tmp_path, "best") is None
    stored = searching.thresholds.Threshold(
        0.7, ("rgb",), ("rgb",), 0.1, 0.1, (0.0, 0.2), 0.5, (0.4, 0.6), 9, 9, "own:x", "own", "best"
    )
    searching.thresholds.write(tmp_path, [stored])
    assert searcher.threshold(tmp_path, "best") == 0.7
    assert searcher.threshold(tmp_path, "last") is None
