"""The page in a real browser."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest

from mmreid_jax.serving import app
from tests.serving import galleries

pytestmark = pytest.mark.serve
FACTS = {"model": "agw on <b>sysu</b>", "gallery": "rgb", "threshold": 0.02}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    import uvicorn

    searcher = galleries.searcher(tmp_path_factory.mktemp("gallery") / "rgb")
    made = app.application(searcher, FACTS, ["127.0.0.1"], 100_000)
    server = uvicorn.Server(uvicorn.Config(made, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(address):
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1100, "height": 900})
        opened.set_default_timeout(60_000)
        told = []
        opened.on("pageerror", lambda error: told.append(str(error)))
        opened.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        opened.goto(address)
        opened.wait_for_selector("#cameras input")
        yield opened
        if folder := os.environ.get("MMREID_PICTURES"):
            opened.screenshot(path=f"{folder}/{os.environ['PYTEST_CURRENT_TEST'].split('::')[1].split(' ')[0]}.png")
        browser.close()
        assert not told


def until(holds, seconds=60):
    """Waits from here: the page's rules forbid it to evaluate text, which Playwright's own waiting would."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def ask(page, image):
    page.set_input_files("#file", {"name": "query.png", "mimeType": "image/png", "buffer": image})
    page.click("button[type=submit]")
    until(lambda: not page.inner_text("#status").startswith("Searching"))


def test_an_image_is_searched_and_the_slider_judges(page):
    ask(page, galleries.encoded(galleries.person(1, 9)))
    items = page.locator("#matches li")
    assert items.count() == 5
    first = items.nth(0).inner_text()
    assert "1. 0001_c" in first
    assert "rgb, camera" in first
    # The slider ends where the matches do.
    furthest = float(items.nth(4).get_attribute("data-distance"))
    assert furthest <= float(page.get_attribute("#threshold", "max")) < furthest + 0.011
    assert not page.is_visible("#unmeasured")
    widths = "() => [...document.querySelectorAll('#matches img')].map((each) => each.naturalWidth)"
    until(lambda: page.evaluate(widths) == [128] * 5)
    distances = [float(items.nth(i).get_attribute("data-distance")) for i in range(5)]
    between = (distances[1] + distances[2]) / 2
    page.evaluate(
        "limit => { const slider = document.getElementById('threshold'); slider.step = 'any'; slider.value = limit;"
        " slider.dispatchEvent(new Event('input')); }",
        between,
    )
    assert page.locator("#matches li.same").count() == 2
    assert page.inner_text("#status") == "2 of 5 within the distance"
    page.evaluate(
        "() => { const slider = document.getElementById('threshold'); slider.value = 0;"
        " slider.dispatchEvent(new Event('input')); }"
    )
    assert page.inner_text("#status") == "Nobody within the distance"


def test_names_are_text(page):
    assert "agw on <b>sysu</b>" in page.inner_text("#about")
    ask(page, galleries.encoded(galleries.person(4, 9)))
    assert "<img src=x onerror=alert(1)>.png" in page.locator("#matches li").nth(0).inner_text()
    assert page.locator("#matches img").count() == 5


def test_cameras(page):
    page.uncheck("#cameras input[value='1']")
    ask(page, galleries.encoded(galleries.person(1, 9)))
    assert page.locator("#matches li").count() == 3
    assert "0001_c2.png" in page.locator("#matches li").nth(0).inner_text()
    page.uncheck("#cameras input[value='2']")
    page.click("button[type=submit]")
    assert page.inner_text("#status") == "Choose a camera"
    page.click("#clear")
    assert page.locator("#matches li").count() == 0
    assert page.is_checked("#cameras input[value='2']")
    assert not page.is_visible("#preview")


def test_what_is_wrong_is_said(page):
    page.click("button[type=submit]")
    assert page.inner_text("#status") == "Drop an image or write a text first"
    ask(page, b"no image")
    assert "query image" in page.inner_text("#status")
    ask(page, bytes(200_000))
    assert "MB" in page.inner_text("#status")
    assert not page.is_visible("#text_field")
