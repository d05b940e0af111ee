"""Records of prepared data: labels, views, the label cache, and reading from several processes."""

import multiprocessing
import pickle

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.data.records import View
from mmreid_jax.datasets import catalogue
from mmreid_jax.datasets.prepare import prepare
from mmreid_jax.errors import UserError
from tests.datasets import trees


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """All data sets, prepared from tiny trees."""
    folder = tmp_path_factory.mktemp("catalogue")
    for dataset in datasets.names():
        trees.write(dataset, folder / "raw")
        prepare(dataset, folder / "raw", folder / "data")
    return folder / "data"


def image_bytes(data_dir, dataset, split, file):
    """Bytes on disk of the images of a sample."""
    folders = datasets.get(dataset).folders
    root = data_dir.parent / "raw" / trees.FOLDERS[dataset]
    single = datasets.get(dataset).single
    paths = [root / file] if single else trees.places(dataset, root, folders.splits[split], file)
    return dict(zip(folders.images, (path.read_bytes() for path in paths), strict=True))


def labels_of(dataset, file):
    """Identity, camera and scene as the file says them."""
    parts = file.split("/")
    if dataset == "sysu_mm01":
        return int(parts[1]), int(parts[0][3:]) - 1, 0
    return datasets.get(dataset).folders.labels(parts[-1].rpartition(".")[0])


@pytest.mark.parametrize("dataset", datasets.names())
@pytest.mark.parametrize("split", ["train", "query", "gallery"])
def test_every_row_of_the_table_is_the_sample_it_names(dataset, split, data_dir):
    records = catalogue.load(dataset, split, data_dir)
    assert records.name == f"{dataset}/{split}"
    assert len(records) == len(records.rows) > 0
    assert records.identity.dtype == records.camera.dtype == records.scene.dtype == np.int32
    rows = zip(records.file, records.identity, records.camera, records.scene, strict=True)
    assert all(labels_of(dataset, file) == (identity, camera, scene) for file, identity, camera, scene in rows)
    order = np.random.default_rng(0).permutation(len(records))
    encoded = records.encoded(order)
    assert encoded == [image_bytes(data_dir, dataset, split, records.file[i]) for i in order]
    assert sorted({view.image for view in records.views.values()}) == sorted(encoded[0])


def test_views_of_the_folder_stored_sets(data_dir):
    for dataset in ("rgbnt201", "msvr310", "market1501_mm"):
        views = catalogue.load(dataset, "train", data_dir).views
        assert list(views.items()) == [("rgb", View("rgb")), ("nir", View("nir")), ("tir", View("tir"))]


def test_views_of_rgbnt100(data_dir):
    rgb, nir = View("composite", (0, 256)), View("composite", (256, 512))
    thermal = catalogue.load("rgbnt100", "train", data_dir).views
    reference = catalogue.load("rgbnt100", "train", data_dir, composite="reference").views
    assert list(thermal.items()) == [("rgb", rgb), ("nir", nir), ("tir", View("composite", (512, 768)))]
    assert list(reference.items()) == [("rgb", rgb), ("nir", nir), ("tir", View("composite", (256, 768)))]


def test_views_of_rgbn300(data_dir):
    rgb, nir = View("composite", (0, 256)), View("composite", (256, 512))
    assert list(catalogue.load("rgbn300", "train", data_dir).views.items()) == [("rgb", rgb), ("nir", nir)]
    reference = catalogue.load("rgbn300", "train", data_dir, composite="reference").views
    assert list(reference.items()) == [("rgb", rgb), ("nir", nir), ("tir", nir)]


@pytest.mark.parametrize(
    ("dataset", "infrared", "query"),
    [("sysu_mm01", "nir", "nir"), ("llcm", "nir", "nir"), ("regdb", "tir", "rgb"), ("rgbnt201_c", "tir", "rgb")],
)
def test_tables_of_visible_infrared_sets(dataset, infrared, query, data_dir):
    both = {"rgb": View("image"), infrared: View("image")}
    assert list(datasets.get(dataset).views().items()) == list(both.items())
    train = catalogue.load(dataset, "train", data_dir)
    assert list(train.views.items()) == list(both.items())
    assert train.label.dtype == np.int32
    np.testing.assert_array_equal(train.class_index(), train.label)
    assert sorted(set(train.label)) == list(range(len(train.identities)))
    # Visible images come first.
    changes = np.flatnonzero(train.modality[1:] != train.modality[:-1])
    assert [train.modality[0], train.modality[-1], len(changes)] == ["rgb", infrared, 1]
    for name in both:
        part = train.of_modality(name)
        assert part.modality is None
        assert list(part.views) == [name]
        assert len(part.identities) == len(train.identities)
    gallery = infrared if query == "rgb" else "rgb"
    for split, name in (("query", query), ("gallery", gallery)):
        table = catalogue.load(dataset, split, data_dir)
        assert (table.label, table.modality) == (None, None)
        assert table.views == {name: View("image")}


def test_regdb_alone_is_its_first_trial(data_dir):
    assert datasets.parts("regdb") == tuple(f"regdb/trial_{trial}" for trial in range(1, 11))
    assert datasets.parts("llcm") == ()
    assert catalogue.prepared_dir("regdb", data_dir) == catalogue.prepared_dir("regdb/trial_1", data_dir)
    first = catalogue.load("regdb/trial_1", "train", data_dir)
    assert first.name == "regdb/trial_1/train"
    assert first.file.tolist() == catalogue.load("regdb", "train", data_dir).file.tolist()
    with pytest.raises(UserError, match=r"regdb/trial_2 is not prepared in .* --dataset regdb/trial_2 --manual_dir"):
        catalogue.load("regdb/trial_2", "train", data_dir)


def test_rgbnt201_query_and_gallery_are_all_of_test(data_dir):
    query, gallery = (catalogue.load("rgbnt201", split, data_dir) for split in ("query", "gallery"))
    assert query.file.tolist() == gallery.file.tolist() == sorted(trees.NAMES["rgbnt201"]["test"])
    assert query.encoded(range(3)) == gallery.encoded(range(3))


def test_junk_is_left_out_and_distractors_stay(data_dir):
    gallery = catalogue.load("market1501_mm", "gallery", data_dir)
    assert gallery.identity.tolist() == [0, 1]
    assert gallery.rows.tolist() == [1, 2]
    assert len(gallery.source) == 3


def test_the_label_cache_is_used_and_belongs_to_its_data(data_dir, monkeypatch):
    first = catalogue.load("msvr310", "gallery", data_dir)

    def no_scan(source, columns):
        raise AssertionError("the cache was not used")

    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "_scan", no_scan)
        again = catalogue.load("msvr310", "gallery", data_dir)
        for column in ("identity", "camera", "scene", "file", "rows"):
            np.testing.assert_array_equal(getattr(again, column), getattr(first, column))
            assert getattr(again, column).dtype == getattr(first, column).dtype
    # A table that belongs to other data is not believed.
    cached = catalogue.prepared_dir("msvr310", data_dir) / "labels-gallery.npz"
    with np.load(cached) as table:
        columns = dict(table)
    columns["column_identity"] = columns["column_identity"] + 1
    np.savez(cached, **{**columns, "fingerprint": "another"})
    np.testing.assert_array_equal(catalogue.load("msvr310", "gallery", data_dir).identity, first.identity)
    with np.load(cached) as table:
        np.testing.assert_array_equal(table["column_identity"], first.identity)


def test_the_label_cache_of_single_images_has_all_columns(data_dir, monkeypatch):
    first = catalogue.load("llcm", "train", data_dir)

    def no_scan(source, columns):
        raise AssertionError("the cache was not used")

    monkeypatch.setattr(catalogue, "_scan", no_scan)
    again = catalogue.load("llcm", "train", data_dir)
    for column in ("identity", "camera", "scene", "file", "rows", "label", "modality"):
        np.testing.assert_array_equal(getattr(again, column), getattr(first, column))
        assert getattr(again, column).dtype == getattr(first, column).dtype


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"no zip at all"])
def test_a_broken_label_cache_is_written_again(content, data_dir):
    cached = catalogue.prepared_dir("msvr310", data_dir) / "labels-train.npz"
    cached.write_bytes(content)
    assert catalogue.load("msvr310", "train", data_dir).identity.tolist() == [1, 1, 140]
    with np.load(cached) as table:
        assert table["column_identity"].tolist() == [1, 1, 140]


def test_labels_load_where_nothing_can_be_written(data_dir, monkeypatch):
    cached = catalogue.prepared_dir("msvr310", data_dir) / "labels-query.npz"
    cached.unlink(missing_ok=True)

    def refuse(*arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr(np, "savez_compressed", refuse)
    assert catalogue.load("msvr310", "query", data_dir).identity.tolist() == [331]


def read(pickled, indices, results):
    """Body of a worker process."""
    results.put(pickle.loads(pickled).encoded(indices))


def test_records_pickle_into_worker_processes(data_dir):
    """Into spawned ones: a fork of a process in which JAX runs threads may hang, and the pipeline forks none."""
    records = catalogue.load("rgbnt201", "train", data_dir)
    here = records.encoded([3, 1])  # the reader is open when the records travel
    pickled = pickle.dumps(records)
    assert len(pickled) < 10_000
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    worker = context.Process(target=read, args=(pickled, [3, 1], results))
    worker.start()
    assert results.get(timeout=120) == here
    worker.join()


def test_missing_preparation_gives_the_command(tmp_path):
    with pytest.raises(UserError) as caught:
        catalogue.load("rgbnt100", "train", tmp_path)
    expected = f"python -m mmreid_jax prepare --dataset rgbnt100 --manual_dir DIR --data_dir {tmp_path}"
    assert expected in str(caught.value)
    assert "python -m mmreid_jax synthesize --dataset rgbnt100 --out DIR" in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "split", "options", "message"),
    [
        ("rgbnt202", "train", {}, "did you mean rgbnt201"),
        ("regdb/trial_11", "train", {}, r"it is one of regdb/trial_1 \.\.\. regdb/trial_10"),
        ("regdb/", "train", {}, "no data set 'regdb/'"),
        ("llcm/trial_1", "train", {}, "llcm has no parts"),
        ("sysu", "train", {}, "did you mean sysu_mm01"),
        ("rgbnt201", "val", {}, "no split 'val'; it has train, query, gallery"),
        ("rgbnt100", "train", {"composite": "tir"}, "rgbnt100_third is 'tir'; it must be one of thermal, reference"),
        ("rgbn300", "train", {"composite": "thermal"}, "rgbn300_third is 'thermal'; it must be one of two, reference"),
    ],
)
def test_wrong_arguments_are_explained(dataset, split, options, message, data_dir):
    with pytest.raises(UserError, match=message):
        catalogue.load(dataset, split, data_dir, **options)


@pytest.mark.parametrize("lost", ["dataset_info.json", "source.json", "rgbnt201-train.array_record-00000-of-00001"])
def test_damaged_records_are_an_error_with_a_remedy(lost, tmp_path):
    trees.write("rgbnt201", tmp_path / "raw")
    directory = prepare("rgbnt201", tmp_path / "raw", tmp_path / "data").directory
    (directory / lost).unlink()
    with pytest.raises(UserError, match="--force"):
        catalogue.load("rgbnt201", "train", tmp_path / "data").encoded([0])
    prepare("rgbnt201", tmp_path / "raw", tmp_path / "data", force=True)
    assert len(catalogue.load("rgbnt201", "train", tmp_path / "data").encoded([0])) == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_truncated_records_are_an_error_with_a_remedy(share, tmp_path):
    names = [f"{i:06d}_cam1_0_00.jpg" for i in range(1, 200)]
    trees.write("rgbnt201", tmp_path / "raw", {"train_171": names, "test": names[:3]})
    directory = prepare("rgbnt201", tmp_path / "raw", tmp_path / "data").directory
    (shard,) = directory.glob("rgbnt201-train.array_record*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"are damaged .*--force"):
        catalogue.load("rgbnt201", "train", tmp_path / "data").encoded([0, 150])


def test_origin_of_prepared_data(data_dir):
    origin = catalogue.source_of("rgbnt201", data_dir)
    assert origin["files"] == 3 * 7
    assert origin["drawn"] is None
    assert catalogue.source_of("rgbnt201", data_dir / "elsewhere") is None
