"""Places that the pages name are there."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ["docs/mapping.md", "docs/add_a_method.md", "docs/add_a_dataset.md", "docs/architecture.md", "CONTRIBUTING.md"]
# Invented by the pages, or of other code bases.
ELSEWHERE = re.compile(
    r"NAME|x310|my_package|^model/|^loss/|^utils/|^datasets/RGBNT|^attention\.py$|^test\.py$|_sysu\.py$"
)


def places(page):
    """(file, names in it) of a page: what stands in backticks as ``file.py`` or ``file.py: name``."""
    text = (ROOT / page).read_text()
    for line in text.splitlines():
        # In tables of other code bases the first column is theirs.
        cells = line.split("|")[2:] if page.endswith("mapping.md") and line.startswith("|") else [line]
        for cell in cells:
            for match in re.finditer(r"`([\w/{},]+\.py)(?:: (\w+))?`", cell):
                yield match[1], match[2]


@pytest.mark.parametrize("page", PAGES)
def test_files_and_names_are_there(page):
    found = list(places(page))
    assert found
    for file, name in found:
        if ELSEWHERE.search(file) or "{" in file:
            continue
        candidates = [ROOT / folder / file for folder in ("", "mmreid_jax", "configs")]
        there = [path for path in candidates if path.is_file()]
        assert there, f"{page} names {file}, which is not there"
        if name:
            assert re.search(rf"\b{name}\b", there[0].read_text()), f"{page} names {name} of {file}, which is not there"


def test_links_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"
