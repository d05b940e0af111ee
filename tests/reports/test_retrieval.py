"""What a run's report says of its own accord, beside the pictures that `tests/visualize` looks at."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mmreid_jax.data.records import Records, View
from mmreid_jax.reports import retrieval
from mmreid_jax.visualize import ranked_lists
from mmreid_jax.visualize.images import cell_size, fit


def table(captions):
    count = 3
    zeros = np.zeros(count, np.int32)
    files = np.array([f"{row}.jpg" for row in range(count)])
    identity = np.arange(count, dtype=np.int32)
    views = {"nir": View("image")}
    return Records("q", identity, zeros, zeros, files, views, None, np.arange(count), captions=captions)


def lists():
    query = ranked_lists.RankedSample({}, 1, 0)
    return [ranked_lists.RankedList(query, (), row, gallery_size=5) for row in (2, 0)]


def test_lists_tell_the_captions_of_their_own_query():
    captions = {"rgb": np.array(["red", "green", "blue"], object), "nir": np.array(["a", "b", "c"], object)}
    told = retrieval.with_captions(lists(), table(captions))
    assert [item.comment for item in told] == ["RGB: blue; NIR: c.", "RGB: red; NIR: a."]
    assert [dataclasses.replace(item, comment="") for item in told] == lists()
    assert retrieval.with_captions(lists(), table(None)) == lists()


def test_sentences_keep_one_full_stop_and_silence_none():
    captions = {"rgb": np.array(["A car.", "x", ""], object), "nir": np.array(["Off.", "y", ""], object)}
    assert [item.comment for item in retrieval.with_captions(lists(), table(captions))] == ["", "RGB: A car; NIR: Off."]


def test_what_went_wrong_stands_behind_the_captions():
    (first, _) = lists()
    (said,) = ranked_lists.with_failure_sentences([dataclasses.replace(first, comment="RGB: red.")])
    assert said.comment == "RGB: red. The gallery holds no right match that counts for this query."


@pytest.mark.parametrize("same", [True, False])
def test_a_sample_of_many_lists_is_decoded_once(monkeypatch, same):
    rng = np.random.default_rng(0)
    query, gallery = table(None), table(None)
    if same:
        gallery = query
    sizes = {"rgb": (256, 128, 3), "nir": (60, 90, 3)}
    pictures = {name: rng.integers(0, 255, size, np.uint8) for name, size in sizes.items()}
    asked = []

    def getter(*sides):
        assert sides == (query, gallery)
        return lambda side, row: asked.append((side, row)) or pictures

    monkeypatch.setattr(retrieval, "image_getter", getter)
    small = retrieval.thumbnail_getter(query, gallery)
    for _ in range(3):
        shown = [small(side, row) for side in ("query", "gallery") for row in (0, 1)]
    assert asked == [("gallery", 0), ("gallery", 1)] if same else len(asked) == 4
    for name, image in shown[0].items():
        cell = cell_size([pictures[name]], retrieval.THUMBNAILS.area, retrieval.THUMBNAILS.longest)
        np.testing.assert_array_equal(image, fit(pictures[name], *cell))
        np.testing.assert_array_equal(fit(image, *cell), image)


def test_every_list_is_on_a_page_and_every_image_lies_there_once(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (4, 16, 8, 3), np.uint8)

    def lists(rows):
        def sample(row):
            return ranked_lists.RankedSample({"rgb": pictures[row % 4]}, row % 4, 0, f"<{row}>.jpg")

        match = ranked_lists.Match(sample(1), 1, 0.5, True)
        return [ranked_lists.RankedList(sample(row), (match,), row, gallery_size=1) for row in rows]

    pages = retrieval.write_every_list(tmp_path, lists, np.arange(60), "HTT on rgbnt201 (drawn data)")
    assert [path.name for path in pages] == ["0001.html", "0002.html", "0003.html"]
    assert len(list((tmp_path / "images").iterdir())) == 4
    text = "".join(path.read_text() for path in pages)
    assert all(f"&lt;{row}&gt;.jpg" in text for row in range(60))
    assert "<title>HTT on rgbnt201 (drawn data): ranked lists, page 1 of 3</title>" in pages[0].read_text()
    assert "Queries 51 to 60 of 60" in pages[2].read_text()
    assert text.count("loading='lazy'") == 120
    assert "data:image/jpeg" not in text
    assert len(text) < 60 * 4000 + 3 * 40000
