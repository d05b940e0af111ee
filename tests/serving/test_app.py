"""The routes of the page, by requests."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mmreid_jax.commands import serve
from mmreid_jax.errors import UserError
from mmreid_jax.serving import app
from tests.serving import galleries

FACTS = {"model": "agw on <b>sysu</b>", "gallery": "rgb", "threshold": 0.5}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    from starlette.testclient import TestClient

    searcher = galleries.searcher(tmp_path_factory.mktemp("gallery") / "rgb")
    return TestClient(app.application(searcher, FACTS, ["127.0.0.1"], 100_000), base_url="http://127.0.0.1")


@pytest.mark.serve
def test_pages_and_facts(client):
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert client.get("/facts").json() == {
        **FACTS,
        "samples": 5,
        "cameras": ["1", "2"],
        "modalities": ["rgb", "nir"],
        "reads_text": False,
        "largest": 100_000,
    }
    for path in ("/app.py", "/..%2Fapp.py", "/page%2Fpage.js"):
        assert client.get(path).status_code == 404


@pytest.mark.serve
def test_a_search(client):
    image = galleries.encoded(galleries.person(1, 9))
    matches = client.post("/search?modality=rgb", content=image).json()["matches"]
    assert {matches[0]["name"], matches[1]["name"]} == {"0001_c1.png", "0001_c2.png"}
    some = client.post("/search?modality=rgb&camera=2", content=image).json()["matches"]
    assert {each["camera"] for each in some} == {"2"}
    picture = client.get(f"/picture/{matches[0]['row']}")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content[:2] == b"\xff\xd8"


@pytest.mark.serve
def test_what_is_wrong_is_a_line(client):
    image = galleries.encoded(galleries.person(1))
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    cases = [
        ("/search?modality=rgb", galleries.encoded(noise), 413, "MB"),
        ("/search?modality=rgb", b"no image", 400, "query image"),
        ("/search?modality=rgb", b"", 400, "drop an image"),
        ("/search?modality=rgb&camera=x", image, 400, "camera x"),
        (f"/search?modality=rgb&text={'a' * 2000}", b"", 400, "letters"),
    ]
    for path, content, status, words in cases:
        answer = client.post(path, content=content)
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert client.get("/picture/99").status_code == 404
    # It is asked by a request that no link makes.
    assert client.get("/search").status_code == 404
    # A name that somebody else has made to point here.
    assert client.get("/facts", headers={"host": "elsewhere.example"}).status_code == 400


def test_what_serve_needs_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(UserError, match=r"pip install 'mmreid_jax\[serve\]'"):
        serve.main(["--checkpoint", "x", "--gallery", "y"])
    assert serve._parser().parse_args(["--checkpoint", "x", "--gallery", "y"]).host == "127.0.0.1"


def test_cameras_are_read_off_the_names(tmp_path):
    records = galleries.searcher(tmp_path / "rgb")._records.select([0, 1, 2])
    assert serve.cameras_of(records, "own:shop", "") == []
    assert serve.cameras_of(records, "own:shop", "{identity}_c{camera}") == ["1", "2", "1"]
    for pattern, message in (
        ("{identity}_c{index}", "no {camera}"),
        ("{identity}x{camera}", "0001_c1.png is not named"),
    ):
        with pytest.raises(UserError, match=message):
            serve.cameras_of(records, "own:shop", pattern)
