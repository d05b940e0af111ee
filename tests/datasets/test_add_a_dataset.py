"""The page docs/add_a_dataset.md, followed to the letter: a visible-infrared set outside of the package."""

from __future__ import annotations

import json
import pathlib
import re

import numpy as np
import pytest

from mmreid_jax import datasets, train
from mmreid_jax.commands import prepare
from mmreid_jax.datasets import catalogue
from mmreid_jax.errors import UserError
from tests.datasets import trees

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "add_a_dataset.md"


def page_module():
    """The file that the page tells to write."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return block


def module(folder, monkeypatch, text, name="my_package"):
    """A package beside the program with one data set in it."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("")
    (folder / name / "x310.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return f"{name}.x310"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A tiny X310."""
    folder = tmp_path_factory.mktemp("x310")
    for part, people in (("train", (7, 3, 12, 5)), ("test", (1, 2, 4))):
        for person in people:
            for camera, place in ((1, "vis"), (2, "vis"), (3, "nir"), (4, "nir")):
                for frame in (1, 2):
                    trees.write_image(
                        folder / "X310" / part / place / f"{person:04d}_c{camera}_{frame:04d}.jpg", (16, 32)
                    )
    return folder


def test_the_page_is_enough(tmp_path, monkeypatch, images, capsys):
    name = module(tmp_path, monkeypatch, page_module())
    prepare.main(["--dataset", name, "--manual_dir", str(images), "--data_dir", str(tmp_path / "data")])
    printed = capsys.readouterr().out
    assert f"{name}: not verified: train has 4 identities, the literature says 210" in printed
    table = catalogue.load(name, "train", tmp_path / "data")
    assert len(table) == 32
    assert sorted(set(table.label.tolist())) == [0, 1, 2, 3]
    query, gallery = (catalogue.load(name, split, tmp_path / "data") for split in ("query", "gallery"))
    assert (query.modalities, gallery.modalities) == (("nir",), ("rgb",))
    protocol = datasets.get(name).protocols[0]
    assert protocol.name == "x310_ir_to_vis"
    assert len(protocol.galleries(gallery)) == 10
    assert datasets.protocol("x310_ir_to_vis", name) == protocol
    with pytest.raises(UserError, match="unknown protocol 'x310_ir_to_vis'"):
        datasets.protocol("x310_ir_to_vis")
    np.testing.assert_array_equal(np.unique(gallery.camera), [0, 1])


@pytest.mark.slow
def test_its_data_can_be_trained_on(tmp_path, monkeypatch, images, tiny_run):
    name = module(tmp_path, monkeypatch, page_module(), "other_package")
    config = tiny_run(
        "agw",
        data__dataset=name,
        data__drawn=False,
        data__manual_dir=str(images),
        data__data_dir=str(tmp_path / "data"),
    )
    train.main(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert {row["comparison"] for row in rows} == {"fc nir to rgb", "pool nir to rgb"}
    assert all(row["protocol"].startswith("x310_ir_to_vis v1") for row in rows)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"protocols=\(\n.*?\n    \),\n\)", "protocols=(),\n)", "names no protocol"),
        ('"gallery": Known()', '"galery": Known()', "publishes numbers of galery, which it does not have"),
        ('    name="x310",\n    description', '    name="x31",\n    description', "calls itself 'x31'"),
        ("DATASET = Dataset", "DATA = Dataset", "defines no DATASET"),
        ("Known(unverified=(None, 210))", 'Known(9, 4, "train")', "names a public list of train, but there is none"),
    ],
)
def test_what_is_not_said_is_an_error_before_anything_is_written(old, new, message, tmp_path, monkeypatch, images):
    text, count = re.subn(old if "\\n" in old else re.escape(old), new, page_module(), flags=re.DOTALL)
    assert count == 1
    name = module(tmp_path, monkeypatch, text, f"package_{abs(hash(message))}")
    with pytest.raises(UserError, match=message):
        prepare.main(["--dataset", name, "--manual_dir", str(images), "--data_dir", str(tmp_path / "data")])
    left = [path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.name != ".lock"]
    assert not left


def test_a_module_that_is_not_there_is_named():
    with pytest.raises(UserError, match=r"there is no module no_such_package .*PYTHONPATH"):
        datasets.get("no_such_package.x310")
    with pytest.raises(UserError, match="did you mean rgbnt201"):
        datasets.get("rgbnt_201")
