"""Comparison with the public counts and names."""

import json
import re

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.data.records import Records, View
from mmreid_jax.datasets import drawing, verify
from mmreid_jax.datasets.prepare import prepare
from mmreid_jax.errors import UserError
from tests.datasets import trees


class NoImages:
    """A source without images, for tables made of names alone."""

    drawn = False

    def __len__(self):
        return 0

    def encoded(self, indices):
        raise AssertionError("verification must not read images")


def table(dataset, split, names):
    """Records with the labels that the builder reads off `names`."""
    parse = datasets.get(dataset).folders.labels
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


SINGLE = ("sysu_mm01", "regdb/trial_1", "regdb/trial_4", "llcm")


def single_copy(dataset):
    """Tables of the true files of a visible-infrared data set, as its full drawing names them."""
    base = dataset.partition("/")[0]
    layout, samples = drawing.of(base), drawing.plan(dataset, full=True)
    copy = {}
    for split in ("train", "query", "gallery"):
        # Of the two places of an LLCM test image the second is read.
        inside = [(list(layout.paths(s))[-1], s.identity) for s in samples if split in s.splits]
        files, identity = zip(*inside, strict=True)
        columns = (np.array(identity, np.int32), *np.zeros((2, len(files)), np.int32), np.array(files))
        copy[split] = Records(f"{dataset}/{split}", *columns, {"rgb": View("image")}, NoImages(), np.arange(len(files)))
    return copy


@pytest.mark.parametrize("dataset", SINGLE)
def test_a_complete_visible_infrared_copy_is_complete(dataset):
    report = verify.check(dataset, single_copy(dataset))
    assert str(report) == f"{dataset}: complete"
    assert [split.samples for split in report.splits] == {
        "sysu_mm01": [34167, 3803, 6775],
        "llcm": [30921, 7166, 8680],
    }.get(dataset, [4120, 2060, 2060])


def test_a_missing_image_of_sysu_is_named_by_its_folder():
    copy = single_copy("sysu_mm01")
    assert copy["query"].file[0] == "cam3/0006/0001.jpg"
    count = int(np.sum([file.startswith("cam3/0006/") for file in copy["query"].file]))
    copy["query"] = copy["query"].select(np.arange(1, 3803))
    report = verify.check("sysu_mm01", copy)
    assert str(report) == f"sysu_mm01: incomplete: query lacks 1 of 3803 samples (cam3/0006 image {count})"


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("regdb/trial_4", "Visible/"), ("llcm", "_vis.jpg")],
)
def test_a_missing_visible_image_is_named(dataset, name):
    copy = single_copy(dataset)
    lost = next(i for i, file in enumerate(copy["train"].file) if name in file)
    file = copy["train"].file[lost].rpartition("/")[2]
    copy["train"] = copy["train"].select(np.delete(np.arange(len(copy["train"])), lost))
    report = verify.check(dataset, copy)
    assert report.verdict == "incomplete"
    assert f"train lacks 1 of {len(copy['train']) + 1} samples (" in str(report)
    assert file in str(report)


def test_another_trial_of_regdb_is_different_data():
    assert verify.check("regdb/trial_3", single_copy("regdb/trial_4")).verdict == "incomplete"


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


@pytest.mark.parametrize("dataset", ["rgbnt201", "rgbnt100", "msvr310", *trees.SINGLE])
def test_a_folder_and_its_records_give_the_same_report(dataset, tmp_path):
    trees.write(dataset, tmp_path / "raw")
    prepared = prepare(dataset, tmp_path / "raw", tmp_path / "data")
    assert verify.check(dataset, tmp_path / "raw") == prepared.report
    assert prepared.report.verdict == "incomplete"


@pytest.mark.parametrize("dataset", datasets.names())
def test_drawn_data_are_exempt(dataset, tmp_path):
    trees.write(dataset, tmp_path / "raw")
    folder = tmp_path / "raw" / datasets.get(dataset).folders.folder
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
    for dataset in datasets.names():
        for name in (dataset, *datasets.parts(dataset)):
            assert tuple(datasets.get(name).published) == datasets.get(name).splits
