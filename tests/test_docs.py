"""Places that the pages name are there."""

from __future__ import annotations

import functools
import importlib
import pathlib
import re

import jax
import numpy as np
import pytest

from mmreid_jax import methods
from mmreid_jax.commands import complexity
from mmreid_jax.experiment import facts_of, normalization
from mmreid_jax.methods import base
from mmreid_jax.training import state, step

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    "docs/methods.md",
    "docs/mapping.md",
    "docs/add_a_method.md",
    "docs/add_a_dataset.md",
    "docs/architecture.md",
    "CONTRIBUTING.md",
]
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


def sizes():
    """Config -> what docs/methods.md says of it: millions of parameters, G of embedding, samples, G of a step."""
    rows = re.findall(
        r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \| ([\d,.]+) \|", _page("docs/methods.md"), re.MULTILINE
    )
    return {name: [float(number.replace(",", "")) for number in numbers] for name, *numbers in rows}


def _page(name):
    return (ROOT / name).read_text()


@functools.cache
def built(name):
    """Config, facts and method of an experiment, and the shapes of its variables."""
    config = importlib.import_module(f"configs.{name}").get_config()
    facts, _ = facts_of(config)
    method = base.build(config, facts)
    return config, facts, method, base.shapes(method)


@pytest.mark.parametrize("name", sizes())
def test_parameters_on_the_page_that_compares_methods(name):
    config, _, _, variables = built(name)
    parameters, _, samples, _ = sizes()[name]
    assert sum(complexity.parameters(variables["params"]).values()) / 1e6 == pytest.approx(parameters, abs=0.005)
    assert config.train.identities_per_batch * config.train.images_per_identity == samples


def test_every_method_is_on_the_page_that_compares_them():
    modules = pathlib.Path(methods.__file__).parent.glob("*.py")
    known = {path.stem for path in modules if re.search(r"^def build\(", path.read_text(), re.MULTILINE)} - {"base"}
    assert {built(name)[0].method for name in sizes()} == known
    assert known


@pytest.mark.slow
@pytest.mark.parametrize("name", sizes())
def test_costs_on_the_page_that_compares_methods(name):
    config, facts, method, variables = built(name)
    _, embedding, samples, whole = sizes()[name]
    images = normalization(config.data)
    embed = step.embed_step(method.embed, images)
    found = complexity.multiply_adds(embed, variables, complexity.example_batch(config, facts, 1))
    assert found / 1e9 == pytest.approx(embedding, abs=0.0005)
    ends = np.arange(1, config.optim.epochs + 1)
    optimizer = method.optimizer(variables["params"], ends)
    begin = jax.eval_shape(lambda fresh: state.create(fresh, optimizer, base.start_memory(method, ends)), variables)
    train = step.train_step(method.loss, optimizer, seed=0, normalization=images)
    batch = complexity.example_batch(config, facts, int(samples), training=True)
    assert complexity.multiply_adds(train, begin, batch) / 1e9 == pytest.approx(whole, abs=0.05)
