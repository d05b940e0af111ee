"""RegDB: ten trials, its lists, and the published counts."""

import codecs
import os

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.datasets import catalogue, disk
from mmreid_jax.datasets.prepare import prepare
from mmreid_jax.errors import UserError
from tests.datasets import trees
from tests.datasets.lists import listed, manifest, reference_trees


@pytest.mark.parametrize("trial", [1, 2, 10])
def test_regdb_trials_are_configs_with_records_of_their_own(trial, tmp_path):
    trees.write("regdb", tmp_path)
    prepared = prepare(f"regdb/trial_{trial}", tmp_path, tmp_path / "data")
    assert prepared.directory == tmp_path / "data" / "regdb" / f"trial_{trial}" / "1.0.0"
    assert catalogue.is_prepared("regdb", tmp_path / "data") == (trial == 1)
    table = catalogue.load(f"regdb/trial_{trial}", "train", tmp_path / "data")
    order = (400, 7) if trial % 2 else (1, 400)
    assert table.identity.tolist() == np.repeat(order * 2, 2).tolist()
    assert table.label.tolist() == np.repeat((0, 1) * 2, 2).tolist()


def test_a_regdb_trial_works_through_tfds_itself(tmp_path):
    import tensorflow_datasets as tfds

    from tfds_builders.regdb.regdb_dataset_builder import Builder

    trees.write("regdb", tmp_path / "raw")
    builder = Builder(data_dir=tmp_path / "data", config="trial_2", file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "raw"))
    assert catalogue.load("regdb/trial_2", "query", tmp_path / "data").identity.tolist() == [7, 7, 12, 12]


@pytest.mark.parametrize("trial", [1, 6, 10])
def test_true_counts_of_regdb(trial, true_tree):
    dataset = f"regdb/trial_{trial}"
    root = true_tree("regdb")
    train, query, gallery = (listed(dataset, root, split) for split in ("train", "query", "gallery"))
    assert len(train) == 4120
    assert len(query) == len(gallery) == 2060
    rows = [row for row in manifest("regdb_splits") if row["trial"] == str(trial)]
    classes = {int(row["id"]): int(row["label"]) for row in rows if row["split"] == "train"}
    assert sorted(classes.values()) == list(range(206))
    assert {(sample.labels.identity, sample.label) for sample in train} == set(classes.items())
    order = [int(row["id"]) for row in rows if row["split"] == "test"]
    for samples in (query, gallery):
        assert [sample.labels.identity for sample in samples] == np.repeat(order, 10).tolist()
    assert {sample.labels.identity for sample in train}.isdisjoint(order)


@pytest.mark.parametrize(
    ("case", "split"), [(c, s) for c in reference_trees() for s in c.json.get("regdb", ()) if s.startswith("train_")]
)
def test_regdb_lists_are_read_as_the_reference_reads_them(case, split, tmp_path):
    facts = case.json["regdb"]
    lines = facts[f"lines_{split.partition('_')[2]}"]
    for line in lines:
        (tmp_path / line.split()[0]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / line.split()[0]).touch()
    (tmp_path / "list.txt").write_text("\n".join(lines))
    files, labels = zip(*disk.listed_images(datasets.get("regdb").folders, tmp_path, "list.txt"), strict=True)
    assert list(files) == facts[split]["paths"]
    assert list(labels) == facts[split]["labels"]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_windows_lists_are_read_alike(mark, tmp_path):
    root = trees.write("regdb", tmp_path)
    before = listed("regdb", root)
    path = root / "idx/train_thermal_1.txt"
    path.write_bytes(mark + path.read_bytes().replace(b"\n", b"\r\n").replace(b"/", b"\\") + b"\r\n")
    assert listed("regdb", root) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_list_that_is_a_pipe_is_an_error(tmp_path):
    root = trees.write("regdb", tmp_path)
    (root / "idx/train_thermal_1.txt").unlink()
    os.mkfifo(root / "idx/train_thermal_1.txt")
    with pytest.raises(UserError, match=r"cannot read the list .*train_thermal_1\.txt \(no regular file, but a pipe"):
        listed("regdb", root)
