"""Comparison with the public counts and names."""

import json
import re

import numpy as np
import pytest

from mmreid_jax.data import catalogue, verify
from mmreid_jax.data.records import Records, View
from mmreid_jax.errors import UserError
from mmreid_jax.prepare import prepare
from tests.builders import trees


class NoImages:
    """A source without images, for tables made of names alone."""

    drawn = False

    def __len__(self):
        return 0

    def encoded(self, indices):
        raise AssertionError("verification must not read images")


def table(dataset, split, names):
    """Records with the labels that the builder reads off `names`."""
    parse = catalogue.builder_class(dataset).LAYOUT.labels
    labels = [parse(name.rsplit(".", 1)[0]) for name in names]
    identity, camera, scene = (np.array(column, np.int32) for column in zip(*labels, strict=True))
    rows = np.arange(len(names))
    return Records(
        f"{dataset}/{split}", identity, camera, scene, np.array(names), {"rgb": View("rgb")}, NoImages(), rows
    )


def public_copy(dataset, **query):
    """A complete copy of a data set with a public list, its query as given."""
    names = {split: sorted(files) for split, files in verify.public_names(dataset).items()}
    files = {"train": names["train"], "query": query.get("query", names["test"]), "gallery": names["test"]}
    return {split: table(dataset, split, listed) for split, listed in files.items()}


def msvr310_query():
    """The public test names of vehicles with several scenes: as many as the query has."""
    names = sorted(verify.public_names("msvr310")["test"])
    scenes = {}
    for name in names:
        scenes.setdefault(name[:4], set()).add(name[6:9])
    return [name for name in names if len(scenes[name[:4]]) > 1]


def complete_copies():
    return {
        "rgbnt201": public_copy("rgbnt201"),
        "rgbnt100": public_copy("rgbnt100", query=sorted(verify.public_names("rgbnt100")["test"])[::5]),
        "msvr310": public_copy("msvr310", query=msvr310_query()),
    }


@pytest.mark.parametrize("dataset", ["rgbnt201", "rgbnt100", "msvr310"])
def test_a_complete_copy_is_complete(dataset):
    report = verify.check(dataset, complete_copies()[dataset])
    assert report.verdict == "complete"
    assert str(report).startswith(f"{dataset}: complete")


def test_msvr310_query_identities_are_shown_not_asserted():
    copy = complete_copies()["msvr310"]
    assert "not verified: query has 52 identities, the literature says 52" in str(verify.check("msvr310", copy))
    fewer = copy["query"].identity.copy()
    fewer[:] = fewer[0]
    object.__setattr__(copy["query"], "identity", fewer)
    report = verify.check("msvr310", copy)
    assert report.verdict == "complete"
    assert "query has 1 identities, the literature says 52" in str(report)


def test_missing_samples_are_counted_and_named():
    copy = complete_copies()["rgbnt201"]
    keep = np.setdiff1d(np.arange(len(copy["train"])), np.arange(0, 700, 100))
    gone = [copy["train"].file[i] for i in range(0, 700, 100)]
    copy["train"] = copy["train"].select(keep)
    report = verify.check("rgbnt201", copy)
    assert report.verdict == "incomplete"
    assert f"train lacks 7 of 3951 samples ({', '.join(gone[:5])} and 2 more)" in str(report)
    assert "query" not in str(report)
    assert report.splits[0].missing == tuple(gone)


def test_a_short_query_without_a_list_is_counted():
    copy = complete_copies()["rgbnt100"]
    copy["query"] = copy["query"].select(np.arange(1700))
    assert "rgbnt100: incomplete: query has only 1700 of 1715 samples" in str(verify.check("rgbnt100", copy))


def test_samples_that_are_not_public_are_named():
    copy = complete_copies()["rgbnt201"]
    names = [*copy["gallery"].file.tolist(), "000258_cam2_0_99.jpg"]
    copy["gallery"] = table("rgbnt201", "gallery", names)
    report = verify.check("rgbnt201", copy)
    assert report.verdict == "different"
    assert "gallery has 1 samples that are not public ones (000258_cam2_0_99.jpg)" in str(report)


def test_wrong_identities_are_seen_even_if_the_names_are_right():
    copy = complete_copies()["rgbnt201"]
    merged = copy["train"].identity.copy()
    first, second = np.unique(merged)[:2]
    merged[merged == first] = second
    object.__setattr__(copy["train"], "identity", merged)
    assert "train has 170 identities instead of 171" in str(verify.check("rgbnt201", copy))


@pytest.mark.parametrize("dataset", ["rgbn300", "market1501_mm"])
def test_counts_without_a_public_list_are_never_asserted(dataset, tmp_path):
    trees.write(dataset, tmp_path / "raw")
    report = verify.check(dataset, tmp_path / "raw")
    assert report.verdict == "not verified"
    assert str(report).startswith(f"{dataset}: not verified: train has ")
    assert "incomplete" not in str(report)
    assert re.search(r"the literature says (150|751)", str(report))


@pytest.mark.parametrize("dataset", ["rgbnt201", "rgbnt100", "msvr310"])
def test_a_folder_and_its_records_give_the_same_report(dataset, tmp_path):
    trees.write(dataset, tmp_path / "raw")
    prepared = prepare(dataset, tmp_path / "raw", tmp_path / "data")
    assert verify.check(dataset, tmp_path / "raw") == prepared.report
    assert prepared.report.verdict == "incomplete"


@pytest.mark.parametrize("dataset", catalogue.datasets())
def test_drawn_data_are_exempt(dataset, tmp_path):
    trees.write(dataset, tmp_path / "raw")
    folder = tmp_path / "raw" / catalogue.builder_class(dataset).LAYOUT.folder
    (folder / "drawn.json").write_text(json.dumps({"seed": 0}))
    for report in (
        verify.check(dataset, tmp_path / "raw"),
        prepare(dataset, tmp_path / "raw", tmp_path / "data").report,
    ):
        assert report.verdict == "drawn"
        assert str(report) == f"{dataset}: drawn data, not compared with the public data set"


def test_a_broken_marker_is_an_error(tmp_path):
    root = trees.write("rgbnt201", tmp_path)
    (root / "drawn.json").write_text("{")
    with pytest.raises(UserError, match=r"drawn.json is not valid JSON"):
        verify.check("rgbnt201", tmp_path)


def test_every_data_set_has_an_entry_for_each_split():
    assert {name: tuple(known) for name, known in verify.KNOWN.items()} == {
        name: catalogue.splits(name) for name in catalogue.datasets()
    }
