"""The routes of the page, by requests."""

from __future__ import annotations

import asyncio
import socket
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


@pytest.mark.serve
def test_what_breaks_off_or_never_ends(client):
    """Neither a number of any length nor somebody who goes away is an error of the server."""
    for row in ("9" * 5000, "9" * 30, "-1", "x", "१"):
        assert client.get(f"/picture/{row}").status_code == 404
    image = galleries.encoded(galleries.person(1, 9))
    answer = client.post(f"/search?modality={'<b>' * 3000}", content=image)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) < 200

    async def gone():
        messages = [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}]

        async def receive():
            return messages.pop(0)

        async def send(message):
            del message

        scope = {"type": "http", "method": "POST", "path": "/search", "query_string": b"modality=rgb"}
        scope |= {"headers": [(b"host", b"127.0.0.1")], "http_version": "1.1", "app": client.app}
        await client.app(scope, receive, send)

    asyncio.run(gone())


@pytest.mark.serve
def test_an_address_of_numbers_is_no_name_of_another(client):
    from starlette.testclient import TestClient

    made = TestClient(client.app, base_url="http://127.0.0.1")
    assert made.get("/facts", headers={"host": "[::1]:8000"}).status_code == 400
    own = TestClient(app.application(Nothing(), FACTS, ["::1"]), base_url="http://127.0.0.1")
    assert own.get("/facts", headers={"host": "[::1]:8000"}).status_code == 200
    assert own.get("/facts", headers={"host": "elsewhere.example"}).status_code == 400


class Nothing:
    cameras, modalities, reads_text = (), ("rgb",), False

    def __len__(self):
        return 0


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 99999, "from 1 to 65535"),
        ("127.0.0.1", 0, "from 1 to 65535"),
        ("203.0.113.7", 8000, "cannot listen"),
        ("no.such.host.invalid", 8000, "cannot listen"),
        ("a" * 300, 8000, "cannot listen"),
    ],
)
def test_an_address_that_cannot_be_served_is_said_before_the_work(host, port, words):
    with pytest.raises(UserError, match=words):
        serve._check_address(host, port)


def test_a_port_that_somebody_listens_to():
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(UserError, match="address already in use"):
        serve._check_address("127.0.0.1", other.getsockname()[1])


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
