"""The builders of the visible-infrared data sets: lists, order, class indices, and what is wrong with a copy."""

import codecs
import collections
import csv
import gzip
import json
import os
import shutil
import sys
from importlib import resources

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.data import captions
from mmreid_jax.datasets import catalogue, disk, drawing
from mmreid_jax.datasets.prepare import prepare, summary
from mmreid_jax.errors import UserError
from mmreid_jax.testing import goldens
from tests.datasets import trees

# split -> (file, identity, camera, label, modality) in record order, worked out by hand from the tree.
EXPECTED = {
    "sysu_mm01": {
        "train": [
            ("cam2/0002/0001.jpg", 2, 1, 0, "rgb"),
            ("cam1/0004/0001.jpg", 4, 0, 1, "rgb"),
            ("cam1/0004/0002.jpg", 4, 0, 1, "rgb"),
            ("cam4/0011/0003.jpg", 11, 3, 2, "rgb"),
            ("cam5/0011/0007.jpg", 11, 4, 2, "rgb"),
            ("cam6/0002/0001.jpg", 2, 5, 0, "nir"),
            ("cam3/0004/0001.jpg", 4, 2, 1, "nir"),
            ("cam3/0004/0002.jpg", 4, 2, 1, "nir"),
            ("cam3/0011/0009.jpg", 11, 2, 2, "nir"),
            ("cam6/0011/0001.jpg", 11, 5, 2, "nir"),
        ],
        "query": [
            ("cam3/0006/0001.jpg", 6, 2, -1, "nir"),
            ("cam6/0006/0001.jpg", 6, 5, -1, "nir"),
            ("cam6/0010/0001.jpg", 10, 5, -1, "nir"),
            ("cam6/0010/0002.jpg", 10, 5, -1, "nir"),
        ],
        "gallery": [
            ("cam1/0006/0001.jpg", 6, 0, -1, "rgb"),
            ("cam2/0006/0002.jpg", 6, 1, -1, "rgb"),
            ("cam4/0010/0001.jpg", 10, 3, -1, "rgb"),
        ],
    },
    "regdb": {
        "train": [
            ("Visible/400/male_back_v_40000_400.bmp", 400, 0, 0, "rgb"),
            ("Visible/400/male_back_v_40002_400.bmp", 400, 0, 0, "rgb"),
            ("Visible/7/male_back_v_00700_7.bmp", 7, 0, 1, "rgb"),
            ("Visible/7/male_back_v_00702_7.bmp", 7, 0, 1, "rgb"),
            ("Thermal/400/male_back_t_40000_400.bmp", 400, 1, 0, "tir"),
            ("Thermal/400/male_back_t_40002_400.bmp", 400, 1, 0, "tir"),
            ("Thermal/7/male_back_t_00700_7.bmp", 7, 1, 1, "tir"),
            ("Thermal/7/male_back_t_00702_7.bmp", 7, 1, 1, "tir"),
        ],
        "query": [
            ("Visible/12/male_back_v_01200_12.bmp", 12, 0, -1, "rgb"),
            ("Visible/12/male_back_v_01202_12.bmp", 12, 0, -1, "rgb"),
            ("Visible/1/male_back_v_00100_1.bmp", 1, 0, -1, "rgb"),
            ("Visible/1/male_back_v_00102_1.bmp", 1, 0, -1, "rgb"),
        ],
        "gallery": [
            ("Thermal/12/male_back_t_01200_12.bmp", 12, 1, -1, "tir"),
            ("Thermal/12/male_back_t_01202_12.bmp", 12, 1, -1, "tir"),
            ("Thermal/1/male_back_t_00100_1.bmp", 1, 1, -1, "tir"),
            ("Thermal/1/male_back_t_00102_1.bmp", 1, 1, -1, "tir"),
        ],
    },
    "llcm": {
        "train": [
            ("vis/0250/0250_c03_s200519_f1_vis.jpg", 250, 2, 0, "rgb"),
            ("vis/0250/0250_c04_s200520_f2_vis.jpg", 250, 3, 0, "rgb"),
            ("vis/0012/0012_c09_s200519_f10_vis.jpg", 12, 8, 1, "rgb"),
            ("nir/0250/0250_c06_s195701_f3_nir.jpg", 250, 5, 0, "nir"),
            ("nir/0250/0250_c01_s195701_f2_nir.jpg", 250, 0, 0, "nir"),
            ("nir/0012/0012_c08_s200519_f11_nir.jpg", 12, 7, 1, "nir"),
        ],
        "query": [
            ("test_nir/cam2/0003/0003_c02_s183650_f20_nir.jpg", 3, 1, -1, "nir"),
            ("test_nir/cam9/0003/0003_c09_s183650_f20_nir.jpg", 3, 8, -1, "nir"),
            ("test_nir/cam6/0891/0891_c06_s183650_f20_nir.jpg", 891, 5, -1, "nir"),
        ],
        "gallery": [
            ("test_vis/cam1/0003/0003_c01_s181957_f7_vis.jpg", 3, 0, -1, "rgb"),
            # Files are sorted as text, as the references sort them.
            ("test_vis/cam5/0891/0891_c05_s181957_f10_vis.jpg", 891, 4, -1, "rgb"),
            ("test_vis/cam5/0891/0891_c05_s181957_f9_vis.jpg", 891, 4, -1, "rgb"),
        ],
    },
}


def listed(dataset, root, split="train"):
    return disk.list_samples(datasets.get(dataset).folders, root, split)


@pytest.mark.parametrize("dataset", trees.SINGLE)
def test_records_hold_labels_and_files_byte_for_byte(dataset, tmp_path):
    import tensorflow_datasets as tfds

    # Nothing may be read off the folders above the data set: references split paths at "cam".
    root = trees.write(dataset, tmp_path / "webcam1" / "cam3" / "0042")
    prepared = prepare(dataset, root.parent, tmp_path / "data")
    builder = tfds.builder_from_directory(prepared.directory)
    for split, expected in EXPECTED[dataset].items():
        rows = list(builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}))
        texts = [(row["file"].decode(), row["modality"].decode()) for row in rows]
        numbers = [(row["identity"], row["camera"], row["label"]) for row in rows]
        assert [(file, *three, kind) for (file, kind), three in zip(texts, numbers, strict=True)] == expected
        assert {row["scene"] for row in rows} == {0}
        assert [row["image"] for row in rows] == [(root / file).read_bytes() for file, *_ in expected]
        assert builder.as_data_source(split)[0]["image"].shape == (32, 16, 3)
    assert "tensorflow" not in sys.modules


def with_text(dataset, root, rephrased=True, captioner="Blip"):
    """Writes captions of all images that the expected records name."""
    said = [
        captions.Captioned(
            captions.Image(file, identity, kind),
            f"{captioner} sees {file}",
            f"Someone sees {file}." if rephrased else "",
            split == "train",
        )
        for split, rows in EXPECTED[dataset].items()
        for file, identity, _, _, kind in rows
    ]
    captions.write(root, captioner, datasets.get(dataset).captions, said)
    return {entry.image: entry for entry in said}


class TestText:
    @pytest.mark.parametrize("dataset", trees.SINGLE)
    def test_records_carry_what_is_said(self, dataset, tmp_path):
        said = with_text(dataset, trees.write(dataset, tmp_path / "raw"))
        prepared = prepare(dataset, tmp_path / "raw", tmp_path / "data")
        assert "with the texts of Blip" in summary(prepared)
        for split, expected in EXPECTED[dataset].items():
            table = catalogue.load(dataset, split, tmp_path / "data", text=captions.TextOptions())
            plain = catalogue.load(dataset, split, tmp_path / "data")
            assert plain.captions is None
            np.testing.assert_array_equal(plain.file, table.file)
            entries = [said[captions.Image(file, identity, kind)] for file, identity, _, _, kind in expected]
            if split == "train":
                assert table.captions["caption"].tolist() == [entry.caption for entry in entries]
                assert table.captions["rephrased"].tolist() == [entry.rephrased for entry in entries]
            elif table.modalities == ("rgb",):
                assert table.captions is None
            else:
                assert list(table.captions) == ["rgb", *table.modalities]
                assert table.captions[table.modalities[0]].tolist() == [entry.caption for entry in entries]
                # A visible caption of the true identity, drawn once.
                for text, identity in zip(table.captions["rgb"], table.identity, strict=True):
                    allowed = [e.caption for i, e in said.items() if (i.identity, i.modality) == (identity, "rgb")]
                    assert text in allowed
                again = catalogue.load(dataset, split, tmp_path / "data", text=captions.TextOptions())
                assert again.captions["rgb"].tolist() == table.captions["rgb"].tolist()

    def test_the_reference_draws_among_the_captions_of_the_file(self, tmp_path):
        root = trees.write("llcm", tmp_path / "raw")
        with_text("llcm", root)
        path = root / "Text" / "Blip_RGB" / "id_caption_map_Blip_RGB.json"
        people = {"3": [f"three {i}" for i in range(9)], "891": [f"other {i}" for i in range(5)]}
        path.write_text(json.dumps(people))
        prepare("llcm", tmp_path / "raw", tmp_path / "data")
        options = captions.TextOptions(draw="reference", seed=5)
        table = catalogue.load("llcm", "query", tmp_path / "data", text=options)
        stream = np.random.RandomState(5)
        assert table.captions["rgb"].tolist() == [stream.choice(people[str(i)]) for i in table.identity]

    def test_captions_that_came_later_are_added(self, tmp_path):
        root = trees.write("regdb", tmp_path / "raw")
        prepare("regdb", tmp_path / "raw", tmp_path / "data")
        with pytest.raises(UserError, match=r"prepared in .* without the texts of captioner 'Blip';.*--force"):
            catalogue.load("regdb", "train", tmp_path / "data", text=captions.TextOptions())
        with_text("regdb", root)
        assert prepare("regdb", tmp_path / "raw", tmp_path / "data").fresh
        assert not prepare("regdb", tmp_path / "raw", tmp_path / "data").fresh
        assert catalogue.load("regdb", "train", tmp_path / "data", text=captions.TextOptions()).captions

    @pytest.mark.parametrize("change", ["changed", "gone"])
    def test_other_captions_are_never_taken_for_the_prepared_ones(self, change, tmp_path):
        root = trees.write("llcm", tmp_path / "raw")
        with_text("llcm", root)
        prepare("llcm", tmp_path / "raw", tmp_path / "data")
        if change == "gone":
            shutil.rmtree(root / "Text")
        else:
            path = root / "Text" / "Blip_IR" / "caption_dict_Blip_IR.json"
            path.write_text(path.read_text().replace("sees", "saw"))
        with pytest.raises(UserError, match=r"with the texts of Blip as they were then.*--force"):
            prepare("llcm", tmp_path / "raw", tmp_path / "data")
        prepare("llcm", tmp_path / "raw", tmp_path / "data", force=True)
        if change == "changed":
            table = catalogue.load("llcm", "query", tmp_path / "data", text=captions.TextOptions())
            assert all("saw" in text for text in table.captions["nir"])

    def test_captioners(self, tmp_path):
        root = trees.write("llcm", tmp_path / "raw")
        with pytest.raises(UserError, match=r"no texts of captioner 'GIT' in .*\(it has no texts at all\)"):
            prepare("llcm", tmp_path / "raw", tmp_path / "data", captioner="GIT")
        with_text("llcm", root, captioner="GIT")
        # Nobody asked for this one.
        assert prepare("llcm", tmp_path / "raw", tmp_path / "data").fresh
        with pytest.raises(UserError, match="without the texts of captioner 'GIT'"):
            catalogue.load("llcm", "train", tmp_path / "data", text=captions.TextOptions("GIT"))
        with pytest.raises(UserError, match="it has texts of GIT"):
            prepare("llcm", tmp_path / "raw", tmp_path / "data", captioner="Blip")
        assert prepare("llcm", tmp_path / "raw", tmp_path / "data", captioner="GIT").fresh
        assert not prepare("llcm", tmp_path / "raw", tmp_path / "data").fresh
        table = catalogue.load("llcm", "train", tmp_path / "data", text=captions.TextOptions("GIT"))
        assert all(text.startswith("GIT sees") for text in table.captions["caption"])
        with pytest.raises(UserError, match=r"captioner 'Blip', but with those of GIT; .* --captioner Blip --force"):
            catalogue.load("llcm", "train", tmp_path / "data", text=captions.TextOptions())

    def test_captions_without_rephrasings(self, tmp_path):
        with_text("sysu_mm01", trees.write("sysu_mm01", tmp_path / "raw"), rephrased=False)
        prepare("sysu_mm01", tmp_path / "raw", tmp_path / "data")
        with pytest.raises(UserError, match=r"10 of 10 training captions .* have no rephrasing"):
            catalogue.load("sysu_mm01", "train", tmp_path / "data", text=captions.TextOptions())
        table = catalogue.load("sysu_mm01", "train", tmp_path / "data", text=captions.TextOptions(rephrased=0))
        assert set(table.captions["rephrased"]) == {""}

    def test_a_damaged_file_leaves_nothing(self, tmp_path):
        root = trees.write("sysu_mm01", tmp_path / "raw")
        with_text("sysu_mm01", root)
        np.save(root / "Text" / "Blip_IR" / "train_text_Blip_IR.npy", np.array(["too few"]))
        with pytest.raises(UserError, match="1 rows for 5 training images"):
            prepare("sysu_mm01", tmp_path / "raw", tmp_path / "data")
        assert not catalogue.is_prepared("sysu_mm01", tmp_path / "data")
        assert [path.name for path in (tmp_path / "data" / "sysu_mm01").iterdir()] == [".lock"]

    def test_the_table_of_texts_is_a_convenience(self, tmp_path):
        with_text("llcm", trees.write("llcm", tmp_path / "raw"))
        directory = prepare("llcm", tmp_path / "raw", tmp_path / "data").directory
        fresh = catalogue.load("llcm", "query", tmp_path / "data", text=captions.TextOptions()).captions
        for content in ("", "{}", '{"fingerprint": 0}'):
            (directory / "text-query.json").write_text(content)
            found = catalogue.load("llcm", "query", tmp_path / "data", text=captions.TextOptions()).captions
            assert {name: texts.tolist() for name, texts in found.items()} == {
                name: texts.tolist() for name, texts in fresh.items()
            }


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


@pytest.mark.parametrize(
    ("dataset", "lost"),
    [
        ("sysu_mm01", "cam4"),
        ("sysu_mm01", "exp/val_id.txt"),
        ("regdb", "Thermal"),
        ("regdb", "idx/test_thermal_1.txt"),
        ("llcm", "nir"),
        ("llcm", "test_vis"),
        ("llcm", "idx/test_id.txt"),
    ],
)
def test_what_is_missing_is_named_with_the_way_out(dataset, lost, tmp_path):
    root = trees.write(dataset, tmp_path)
    if (root / lost).is_dir():
        shutil.rmtree(root / lost)
    else:
        (root / lost).unlink()
    with pytest.raises(UserError) as caught:
        prepare(dataset, tmp_path, tmp_path / "data")
    layout, message = datasets.get(dataset).folders, str(caught.value)
    assert f"{trees.FOLDERS[dataset]}/{lost}. Expected tree: {layout.tree}. {layout.source}" in message
    assert f"python -m mmreid_jax synthesize --dataset {layout.name} --out DIR" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("dataset", "split", "lost"),
    [
        ("regdb", "train", "Thermal/7/male_back_t_00702_7.bmp"),
        ("regdb", "query", "Visible/12/male_back_v_01200_12.bmp"),
        ("llcm", "train", "vis/0012/0012_c09_s200519_f10_vis.jpg"),
    ],
)
def test_a_listed_file_that_is_not_there_is_named(dataset, split, lost, tmp_path):
    root = trees.write(dataset, tmp_path)
    (root / lost).unlink()
    with pytest.raises(UserError, match=rf"1 of \d files of the list idx/.* are not in .*{lost}; complete the copy"):
        listed(dataset, root, split)


def test_missing_test_copies_of_llcm_are_counted_and_named(tmp_path):
    root = trees.write("llcm", tmp_path)
    (root / "test_nir/cam9/0003/0003_c09_s183650_f20_nir.jpg").unlink()
    with pytest.raises(UserError, match=r"test_nir holds only 2 of the 3 images .*0003_c09_s183650_f20_nir\.jpg"):
        listed("llcm", root, "query")


def test_sysu_identities_without_one_modality_are_named(tmp_path):
    root = trees.write("sysu_mm01", tmp_path)
    shutil.rmtree(root / "cam6" / "0002")
    with pytest.raises(UserError, match=r"1 of 3 identities .* for train have no image in cam1.* or .*cam6: 0002"):
        listed("sysu_mm01", root)
    shutil.rmtree(root / "cam4" / "0010")
    assert {sample.labels.identity for sample in listed("sysu_mm01", root, "gallery")} == {6}
    shutil.rmtree(root / "cam6" / "0010")
    with pytest.raises(UserError, match=r"1 of 2 identities .* for query .*: 0010; complete the copy"):
        listed("sysu_mm01", root, "query")


@pytest.mark.parametrize("text", ["", "\n", "1;2;3", "one,two", "1,2,-3"])
@pytest.mark.parametrize(("dataset", "name"), [("sysu_mm01", "exp/test_id.txt"), ("llcm", "idx/test_id.txt")])
def test_a_damaged_list_of_identities_is_an_error(dataset, name, text, tmp_path):
    root = trees.write(dataset, tmp_path)
    (root / name).write_text(text)
    with pytest.raises(UserError, match=f"{name} must begin with a line of comma-separated identities"):
        listed(dataset, root, "query")


def test_sysu_lists_that_share_identities_are_an_error(tmp_path):
    root = trees.write("sysu_mm01", tmp_path)
    (root / "exp/test_id.txt").write_text("6,4")
    with pytest.raises(UserError, match=r"1 identities of .*test_id\.txt are also in .*\(4\)"):
        listed("sysu_mm01", root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Visible/7/male_back_v_00700_7.bmp", "entry 1 of .* not a file and a label"),
        ("Visible/7/male_back_v_00700_7.bmp x", "entry 1 of .* not a file and a label"),
        ("Thermal/7/male_back_t_00700_7.bmp 0", "is not Visible/<identity>/<name>.bmp"),
        ("Visible/7/male_back_v_00700_7.bmp 5", "disagree on the class of an identity: identity 7 has"),
        ("Visible/7/male_back_v_00700_7.bmp 1", "have no rgb image"),
        ("Visible/12/male_back_v_01200_12.bmp 1", "disagree on the class of an identity: 3 identities share 2"),
    ],
)
def test_a_damaged_list_of_images_is_an_error(line, message, tmp_path):
    root = trees.write("regdb", tmp_path)
    (root / "idx/train_visible_1.txt").write_text(line + "\n")
    with pytest.raises(UserError, match=message):
        listed("regdb", root)


def test_a_name_of_another_form_in_a_list_of_llcm_is_an_error(tmp_path):
    root = trees.write("llcm", tmp_path)
    trees.write_image(root / "vis/0250/0251_c03_s200519_f1_vis.jpg", (16, 32))
    (root / "idx/train_vis.txt").write_text("vis/0250/0251_c03_s200519_f1_vis.jpg 0\n")
    with pytest.raises(UserError, match=r"which is not vis/PPPP/PPPP_cCC_sTTTTTT_fFFFF_vis\.jpg"):
        listed("llcm", root)


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


@pytest.mark.parametrize("dataset", ["regdb", "llcm"])
def test_other_lists_are_other_data(dataset, tmp_path):
    root = trees.write(dataset, tmp_path / "raw")
    prepare(dataset, tmp_path / "raw", tmp_path / "data")
    for path in root.glob("idx/train_*.txt"):
        path.write_text("\n".join(line[:-1] + str(1 - int(line[-1])) for line in path.read_text().splitlines()))
    with pytest.raises(UserError, match=r"prepared in .* from other files .*--force"):
        prepare(dataset, tmp_path / "raw", tmp_path / "data")
    assert prepare(dataset, tmp_path / "raw", tmp_path / "data", force=True).fresh
    assert catalogue.load(dataset, "train", tmp_path / "data").label[0] == 1


# True names


def manifest(name):
    table = resources.files("mmreid_jax.datasets.manifests") / f"{name}.csv.gz"
    return list(csv.DictReader(gzip.decompress(table.read_bytes()).decode().splitlines()))


@pytest.fixture
def true_tree(tmp_path, monkeypatch):
    """Data set -> its folder as it seems to the builder: all true names, though only the lists are written."""

    def tree(dataset):
        layout = drawing.layout(dataset)
        samples = drawing.plan(dataset, full=True)
        folders = collections.defaultdict(list)
        for sample in samples:
            for path in layout.paths(sample):
                folder, _, name = path.rpartition("/")
                folders[str(tmp_path / folder)].append(name)
        monkeypatch.setattr(disk, "names_in", lambda folder: sorted(folders.get(str(folder), ())))
        for path, text in layout.lists(samples).items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return tree


def test_true_counts_of_sysu(true_tree):
    root = true_tree("sysu_mm01")
    train, query, gallery = (listed("sysu_mm01", root, split) for split in ("train", "query", "gallery"))
    assert collections.Counter(sample.modality for sample in train) == {"rgb": 22258, "nir": 11909}
    per_camera = collections.Counter(sample.labels.camera for sample in train)
    assert [per_camera[camera] for camera in range(6)] == [4721, 5753, 7909, 5811, 5973, 4000]
    assert len(disk.read_identities(root / "exp" / "train_id.txt")) == 296
    assert len(disk.read_identities(root / "exp" / "val_id.txt")) == 99
    # The arrays that the references train on: images of class 0, then 1, ..., in the order of the identities.
    public = manifest("sysu_train_counts")
    for modality, column in (("rgb", "n_rgb"), ("nir", "n_ir")):
        rows = [sample for sample in train if sample.modality == modality]
        labels = np.repeat(np.arange(395), [int(row[column]) for row in public])
        assert [sample.label for sample in rows] == labels.tolist()
        assert [sample.labels.identity for sample in rows] == [int(public[label]["original_id"]) for label in labels]
    assert collections.Counter(sample.labels.camera for sample in query) == {2: 1883, 5: 1920}
    assert len(gallery) == 6775
    assert [len({s.labels.identity for s in gallery if s.labels.camera == c}) for c in (0, 1, 3, 4)] == [56, 56, 94, 95]
    assert query[0].labels.identity == 6


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


def test_true_counts_of_llcm(true_tree):
    root = true_tree("llcm")
    train, query, gallery = (listed("llcm", root, split) for split in ("train", "query", "gallery"))
    rows = [row for part in ("train_vis", "train_nir") for row in manifest("llcm") if row["list"] == part]
    assert [(sample.file, sample.label) for sample in train] == [(row["file"], int(row["label"])) for row in rows]
    assert collections.Counter(sample.modality for sample in train) == {"rgb": 16946, "nir": 13975}
    assert len({sample.label for sample in train}) == 713
    assert (len(query), len(gallery)) == (7166, 8680)
    infrared, visible = (collections.Counter(s.labels.camera for s in table) for table in (query, gallery))
    assert [visible[camera] for camera in range(9)] == [139, 12, 2773, 3063, 1994, 18, 345, 252, 84]
    assert [infrared[camera] for camera in range(9)] == [19, 47, 0, 58, 2119, 4276, 217, 311, 119]
    folders = [{(s.labels.identity, s.labels.camera) for s in table} for table in (query, gallery)]
    assert [len(found) for found in folders] == [619, 484]


# The order of the authors' code


def reference_trees():
    """Golden cases that list a folder and what the authors' readers made of it."""
    cases = [goldens.load(path) for path in goldens.cases("vi_protocols")]
    return [case for case in cases if "files" in case.json.get("sysu", {}) and "files" in case.json.get("llcm", {})]


@pytest.mark.parametrize("case", reference_trees(), ids=lambda case: case.name)
@pytest.mark.parametrize(
    ("dataset", "split", "key"),
    [
        ("sysu_mm01", "query", "sysu/query/all"),
        ("llcm", "query", "llcm/query/nir"),
        ("llcm", "gallery", "llcm/query/vis"),
    ],
)
def test_rows_lie_in_the_order_of_the_reference(case, dataset, split, key, tmp_path):
    part = case.json[dataset.partition("_")[0]]
    texts = {name: "1" for name in ("exp/train_id.txt", "exp/val_id.txt")} | {
        f"idx/{name}.txt": "" for name in ("train_vis", "train_nir", "test_vis", "test_nir")
    }
    texts |= {name: text for name, text in part.items() if name.endswith(".txt")}
    for name, text in [*texts.items(), *dict.fromkeys(part["files"], "").items()]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    samples = listed(dataset, tmp_path, split)
    assert [sample.file for sample in samples] == [part["files"][i] for i in case.arrays[key]]
    if f"{key}_pids" in case.arrays:
        assert [sample.labels.identity for sample in samples] == case.arrays[f"{key}_pids"].tolist()
        assert [sample.labels.camera + 1 for sample in samples] == case.arrays[f"{key}_cams"].tolist()


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
