"""The page of a search: names, distances, the threshold, and its limits."""

import dataclasses

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import search_page
from tests.visualize.html_reader import Reader

RESULTS = search_page.SearchResults(
    indices=np.array([[2, 0, 1], [1, 0, 2]]),
    distances=np.array([[0.2, 0.5, 0.9], [0.7, 0.8, 0.9]]),
    gallery=["shop/a<b>.jpg", "shop/b.jpg", "gate/c.jpg"],
    threshold=0.6,
)


def images(side, row):
    return {"rgb": np.full((40, 20, 3), 50 + 20 * row, np.uint8)}


def write(tmp_path, **options):
    path = search_page.write_search_page(
        tmp_path / "found.html", ["q/one.jpg", "q/two.jpg"], RESULTS, images, **options
    )
    return Reader(path.read_text())


def test_page_names_queries_matches_and_distances(tmp_path):
    read = write(tmp_path, title="Who & where", summary="Seen today.")
    text = " ".join(read.text)
    for said in (
        "Who & where",
        "Seen today.",
        "q/one.jpg",
        "q/two.jpg",
        "a<b>",
        "0.200",
        "0.900",
        "2 queries against 3",
    ):
        assert said in text, said
    assert all(tag["src"].startswith("data:image/jpeg") for tag in read.all("img"))
    assert [tag["title"] for tag in read.all("div") if "sample" in tag.get("class", "")][:2] == [
        "q/one.jpg",
        "gate/c.jpg",
    ]


def test_threshold_divides_the_matches(tmp_path):
    read = write(tmp_path)
    samples = [tag["class"] for tag in read.all("div") if "sample" in tag.get("class", "")]
    assert samples == [
        *("sample query", "sample unknown", "sample unknown", "sample unknown beyond"),
        *("sample query", "sample unknown beyond", "sample unknown beyond", "sample unknown beyond"),
    ]
    text = " ".join(read.text)
    assert "2 within the threshold of 0.6" in text
    assert "Nobody in the gallery matches" in text


def test_all_shown_within_the_threshold_is_only_a_lower_bound(tmp_path):
    results = dataclasses.replace(RESULTS, indices=RESULTS.indices[:, :2], distances=RESULTS.distances[:, :2])
    path = search_page.write_search_page(tmp_path, ["one", "two"], results, images)
    assert path == tmp_path / "search.html"
    assert "At least 2 within the threshold" in path.read_text()


def test_without_threshold_nothing_is_faded(tmp_path):
    results = dataclasses.replace(RESULTS, threshold=None)
    text = search_page.write_search_page(tmp_path, ["one", "two"], results, images).read_text()
    assert "class='limit'" not in text
    assert "beyond'" not in text
    assert "threshold of" not in text


def test_pictures_are_written_beside_the_page(tmp_path, pixels):
    write(tmp_path)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["found_001.png"]
    image = pixels((tmp_path / "figures" / "found_001.png").read_bytes())
    assert (image == 90).all(axis=-1).sum() > 1000, "the nearest match of the first query is shown as it is"


def test_limits_are_kept_and_told(tmp_path):
    read = write(tmp_path, top=1, most_queries=1)
    assert len(read.all("img")) == 2
    assert "The first 1 queries are shown." in " ".join(read.text)


def test_bad_results_are_refused(tmp_path):
    with pytest.raises(UserError, match="no query"):
        search_page.write_search_page(tmp_path, [], RESULTS, images)
    with pytest.raises(UserError, match="one row a query: 3 queries"):
        search_page.write_search_page(tmp_path, ["a", "b", "c"], RESULTS, images)
    outside = dataclasses.replace(RESULTS, indices=RESULTS.indices + 1)
    with pytest.raises(UserError, match="outside 0 to 2"):
        search_page.write_search_page(tmp_path, ["a", "b"], outside, images)
