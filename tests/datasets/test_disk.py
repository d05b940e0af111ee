"""Every builder on a tiny tree in its true layout, and its parser on the true names.

What is special about visible-infrared folders is in test_single_builders, about one data set in the file of its name.
"""

import importlib
import pathlib
import shutil
import sys

import pytest

from mmreid_jax import datasets
from mmreid_jax.datasets import catalogue, disk
from mmreid_jax.datasets.prepare import prepare
from mmreid_jax.errors import UserError
from tests.datasets import trees

DATASETS = datasets.names()
ALIGNED = [dataset for dataset in DATASETS if not datasets.get(dataset).single]

# split -> (file, identity, camera, scene) in record order, worked out by hand from the names.
EXPECTED = {
    "rgbnt201": {
        "train": [
            ("000009_cam1_0_01.jpg", 9, 0, 0),
            ("000009_cam3_1_00.jpg", 9, 2, 1),
            ("000010_cam4_2_00.jpg", 10, 3, 2),
            ("000328_cam2_0_12.jpg", 328, 1, 0),
        ],
        "query": [
            ("000258_cam1_0_00.jpg", 258, 0, 0),
            ("000258_cam2_0_01.jpg", 258, 1, 0),
            ("000299_cam2_0_11.jpg", 299, 1, 0),
        ],
        "gallery": [
            ("000258_cam1_0_00.jpg", 258, 0, 0),
            ("000258_cam2_0_01.jpg", 258, 1, 0),
            ("000299_cam2_0_11.jpg", 299, 1, 0),
        ],
    },
    "rgbnt100": {
        "train": [
            ("0501_c0001_000.jpg", 501, 0, 0),
            ("0501_c0002_001.jpg", 501, 1, 0),
            ("0502_c0008_000.jpg", 502, 7, 0),
        ],
        "query": [("0003_c0001_000.jpg", 3, 0, 0)],
        "gallery": [
            ("0003_c0001_000.jpg", 3, 0, 0),
            ("0003_c0004_001.jpg", 3, 3, 0),
            ("0010_c0002_000.jpg", 10, 1, 0),
        ],
    },
    "msvr310": {
        "train": [
            ("0001_s002_v0_000.jpg", 1, 0, 2),
            ("0001_s030_v7_001.jpg", 1, 7, 30),
            ("0140_s016_v5_004.jpg", 140, 5, 16),
        ],
        "query": [("0331_s000_v6_003.jpg", 331, 6, 0)],
        "gallery": [
            ("0002_s002_v0_000.jpg", 2, 0, 2),
            ("0331_s000_v6_003.jpg", 331, 6, 0),
            ("0331_s011_v2_000.jpg", 331, 2, 11),
        ],
    },
    "market1501_mm": {
        "train": [("0002_c1s1_000451_03.jpg", 2, 0, 3), ("0007_c3s3_077419_12.jpg", 7, 2, 2)],
        "query": [("0001_c1s1_001051_00.jpg", 1, 0, 0)],
        "gallery": [
            ("-1_c2s1_000401_03.jpg", -1, 1, 3),
            ("0000_c1s1_000151_01.jpg", 0, 0, 1),
            ("0001_c6s4_001051_02.jpg", 1, 5, 2),
        ],
    },
}
EXPECTED["rgbn300"] = EXPECTED["rgbnt100"]


@pytest.mark.parametrize("dataset", ALIGNED)
def test_records_hold_labels_and_files_byte_for_byte(dataset, tmp_path):
    import tensorflow_datasets as tfds

    root = trees.write(dataset, tmp_path / "raw")
    prepared = prepare(dataset, tmp_path / "raw", tmp_path / "data")
    folders = datasets.get(dataset).folders
    builder = tfds.builder_from_directory(prepared.directory)
    assert set(builder.info.splits) == {"train", "query", "gallery"}
    for split, expected in EXPECTED[dataset].items():
        decoders = {image: tfds.decode.SkipDecoding() for image in folders.images}
        rows = list(builder.as_data_source(split, decoders=decoders))
        found = [(row["file"].decode(), row["identity"], row["camera"], row["scene"]) for row in rows]
        assert found == expected
        for row in rows:
            paths = trees.places(dataset, root, folders.splits[split], row["file"].decode())
            assert [row[image] for image in folders.images] == [path.read_bytes() for path in paths]
    assert "tensorflow" not in sys.modules


def test_images_decode_with_tfds_alone(tmp_path):
    import tensorflow_datasets as tfds

    trees.write("rgbnt100", tmp_path / "raw")
    prepared = prepare("rgbnt100", tmp_path / "raw", tmp_path / "data")
    row = tfds.builder_from_directory(prepared.directory).as_data_source("train")[0]
    assert row["composite"].shape == (8, 768, 3)


def test_a_builder_works_through_tfds_itself(tmp_path):
    import tensorflow_datasets as tfds

    from tfds_builders.msvr310.msvr310_dataset_builder import Builder

    trees.write("msvr310", tmp_path / "raw")
    builder = Builder(data_dir=tmp_path / "data", file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "raw"))
    assert builder.name == "msvr310"
    assert catalogue.load("msvr310", "train", tmp_path / "data").identities.tolist() == [1, 140]


@pytest.mark.parametrize("dataset", DATASETS)
def test_manual_dir_may_be_the_folder_itself(dataset, tmp_path):
    root = trees.write(dataset, tmp_path)
    folders = datasets.get(dataset).folders
    for given in (tmp_path, tmp_path / folders.folder, root):
        assert disk.find_root(folders, given) == root


@pytest.mark.parametrize("dataset", ["rgbnt100", "rgbn300"])
def test_rgbir_folder_may_be_absent(dataset, tmp_path):
    root = trees.write(dataset, tmp_path)
    folders = datasets.get(dataset).folders
    for part in list(root.iterdir()):
        part.rename(root.parent / part.name)
    root.rmdir()
    assert disk.find_root(folders, tmp_path) == tmp_path / folders.folder
    assert len(disk.list_samples(folders, tmp_path / folders.folder, "gallery")) == 3


@pytest.mark.parametrize("dataset", ALIGNED)
def test_missing_folder_is_named_with_the_way_out(dataset, tmp_path):
    root = trees.write(dataset, tmp_path)
    folders = datasets.get(dataset).folders
    absent = root / folders.splits["query"]
    shutil.rmtree(absent)
    with pytest.raises(UserError) as caught:
        prepare(dataset, tmp_path, tmp_path / "data")
    message = str(caught.value)
    assert str(absent.relative_to(tmp_path)) in message
    assert str(root.relative_to(tmp_path) / folders.splits["train"]) not in message.split("Expected tree")[0]
    assert folders.tree in message
    assert folders.source in message
    assert f"python -m mmreid_jax synthesize --dataset {dataset} --out DIR" in message
    assert "--config.data.drawn=True" in message
    assert "\n" not in message


def test_missing_modality_folder_is_named(tmp_path):
    root = trees.write("rgbnt201", tmp_path)
    shutil.rmtree(root / "train_171" / "TI")
    with pytest.raises(UserError, match="RGBNT201/train_171/TI"):
        prepare("rgbnt201", tmp_path, tmp_path / "data")


def test_manual_dir_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a folder"):
        prepare("rgbnt201", tmp_path / "nowhere", tmp_path / "data")


@pytest.mark.parametrize("dataset", ["rgbnt201", "msvr310", "market1501_mm"])
@pytest.mark.parametrize("modality", [0, 1, 2])
def test_missing_counterpart_is_named(dataset, modality, tmp_path):
    root = trees.write(dataset, tmp_path)
    folders = datasets.get(dataset).folders
    folder = folders.splits["train"]
    name = trees.NAMES[dataset][folder][0]
    trees.places(dataset, root, folder, name)[modality].unlink()
    with pytest.raises(UserError) as caught:
        disk.list_samples(folders, root, "train")
    total = len(trees.NAMES[dataset][folder])
    assert f"1 of {total} samples" in str(caught.value)
    assert f"no {list(folders.images)[modality]} image" in str(caught.value)
    assert name in str(caught.value)


def test_many_missing_counterparts_are_counted(tmp_path):
    names = [f"000001_cam1_0_{i:02d}.jpg" for i in range(12)]
    root = trees.write("rgbnt201", tmp_path, {"train_171": names, "test": names})
    for name in names[1:]:
        (root / "test" / "NI" / name).unlink()
    with pytest.raises(UserError, match=r"11 of 12 samples .* no nir image .*_01\.jpg.*_05\.jpg and 6 more"):
        disk.list_samples(datasets.get("rgbnt201").folders, root, "query")


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("rgbnt201", "9_camera1_0_00.jpg"),
        ("rgbnt201", "000009_cam0_0_00.jpg"),
        ("rgbnt100", "0501-c0001-000.jpg"),
        ("rgbnt100", "0501_c0009_000.jpg"),
        ("rgbnt100", "-1_c0001_000.jpg"),
        ("rgbn300", "0601_c0001_000.jpg"),
        ("msvr310", "0002_s002_v8_000.jpg"),
        ("market1501_mm", "0002_c7s1_000451_03.jpg"),
    ],
)
def test_wrong_names_are_named(dataset, name, tmp_path):
    folders = datasets.get(dataset).folders
    folder = folders.splits["train"]
    root = trees.write(dataset, tmp_path, {folder: [*trees.NAMES[dataset][folder], name]})
    with pytest.raises(UserError) as caught:
        disk.list_samples(folders, root, "train")
    assert name in str(caught.value)
    assert folders.file_form in str(caught.value)
    assert trees.NAMES[dataset][folder][0] not in str(caught.value)


def test_labels_come_from_the_base_name_alone(tmp_path):
    parent = tmp_path / "0042_c3" / "000001_cam9_7"
    root = trees.write("rgbnt100", parent)
    samples = disk.list_samples(datasets.get("rgbnt100").folders, root, "train")
    assert [sample.labels for sample in samples] == [(501, 0, 0), (501, 1, 0), (502, 7, 0)]


def test_files_that_are_not_images_are_ignored(tmp_path):
    root = trees.write("rgbnt201", tmp_path)
    for name in ("Thumbs.db", "._000009_cam3_1_00.jpg", ".DS_Store"):
        (root / "train_171" / "RGB" / name).write_bytes(b"x")
    assert len(disk.list_samples(datasets.get("rgbnt201").folders, root, "train")) == 4


def test_empty_split_is_an_error(tmp_path):
    root = trees.write("rgbnt100", tmp_path)
    for path in (root / "query").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"no images in .*query"):
        prepare("rgbnt100", tmp_path, tmp_path / "data")


@pytest.mark.parametrize("dataset", DATASETS)
def test_readme_says_what_a_user_needs(dataset):
    builder = importlib.import_module(f"tfds_builders.{dataset}.{dataset}_dataset_builder").Builder
    assert builder.name == dataset
    described = datasets.get(dataset)
    text = (pathlib.Path(importlib.import_module(builder.__module__).__file__).parent / "README.md").read_text()
    for heading in ("How to obtain it", "Expected tree", "Counts", "Prepare", "Citation", "Release notes"):
        assert f"## {heading}" in text
    assert described.citation in text
    assert str(builder.VERSION) in text
    assert set(builder.RELEASE_NOTES) == {str(builder.VERSION)}
