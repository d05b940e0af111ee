"""Records of visible-infrared data sets: labels, files byte for byte, and texts; texts of aligned images."""

import json
import shutil
import sys

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.data import aligned_captions, captions
from mmreid_jax.datasets import catalogue, disk
from mmreid_jax.datasets.prepare import prepare, summary
from mmreid_jax.errors import UserError
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


ALIGNED = ("rgbnt201", "rgbnt100", "msvr310")


def with_captions(dataset, root):
    """Writes IDEA's files for all samples of a tree, and returns part -> modality -> name -> caption."""
    folders = datasets.get(dataset).folders
    texts = {}
    for split in ("train", "gallery"):
        names = [sample.file for sample in disk.list_samples(folders, root, split)]
        texts["train" if split == "train" else "test"] = {
            modality: {name: f"{modality} of {name}" for name in names} for modality in ("rgb", "nir", "tir")
        }
    aligned_captions.write(root, texts)
    return texts


class TestAlignedText:
    OPTIONS = captions.TextOptions("QwenVL")

    @pytest.mark.parametrize("dataset", ALIGNED)
    def test_records_carry_a_caption_of_each_modality(self, dataset, tmp_path):
        texts = with_captions(dataset, trees.write(dataset, tmp_path / "raw"))
        said = summary(prepare(dataset, tmp_path / "raw", tmp_path / "data"))
        assert "with the texts of QwenVL\ncaptions of rgb: train" in said
        assert said.count("0 without, 0 unknown") == 6
        # Once from the records, then from the small file beside them.
        for _ in range(2):
            for split in ("train", "query", "gallery"):
                table = catalogue.load(dataset, split, tmp_path / "data", text=self.OPTIONS)
                part = texts["train" if split == "train" else "test"]
                assert list(table.captions) == ["rgb", "nir", "tir"]
                for modality, column in table.captions.items():
                    assert column.tolist() == [part[modality][name] for name in table.file]
                assert catalogue.load(dataset, split, tmp_path / "data").captions is None

    def test_images_without_a_caption_are_said_and_stay(self, tmp_path):
        root = trees.write("rgbnt201", tmp_path / "raw")
        with_captions("rgbnt201", root)
        path = root / "text" / "train_NI.json"
        first, second, *others = json.loads(path.read_text())
        path.write_text(json.dumps([{**first, "item": "nobody.jpg"}, second, *others]))
        said = summary(prepare("rgbnt201", tmp_path / "raw", tmp_path / "data"))
        assert "captions of nir: train 3 of 4 images, 1 without, 1 unknown; test 3 of 3" in said
        table = catalogue.load("rgbnt201", "train", tmp_path / "data", text=self.OPTIONS)
        assert [not text for text in table.captions["nir"]] == [name == first["item"] for name in table.file]

    def test_captions_that_came_later_are_added_and_changed_ones_refused(self, tmp_path):
        root = trees.write("msvr310", tmp_path / "raw")
        prepare("msvr310", tmp_path / "raw", tmp_path / "data")
        with pytest.raises(UserError, match="without the texts of captioner 'QwenVL'"):
            catalogue.load("msvr310", "train", tmp_path / "data", text=self.OPTIONS)
        with_captions("msvr310", root)
        assert prepare("msvr310", tmp_path / "raw", tmp_path / "data").fresh
        assert not prepare("msvr310", tmp_path / "raw", tmp_path / "data").fresh
        path = root / "text" / "test_TI.json"
        path.write_text(path.read_text().replace("tir of", "heat of"))
        with pytest.raises(UserError, match=r"as they were then, not with those now in .*MSVR310/text;.*--force"):
            prepare("msvr310", tmp_path / "raw", tmp_path / "data")

    def test_nobody_else_is_looked_for(self, tmp_path):
        with_captions("rgbnt201", trees.write("rgbnt201", tmp_path / "raw"))
        with pytest.raises(
            UserError, match=r"captioner 'Blip' in .*/text \(it has texts of QwenVL\); put train_RGB.json"
        ):
            prepare("rgbnt201", tmp_path / "raw", tmp_path / "data", captioner="Blip")

    def test_a_data_set_without_captions_does_not_read_a_folder_of_that_name(self, tmp_path):
        (trees.write("rgbn300", tmp_path / "raw") / "text").mkdir()
        (tmp_path / "raw" / "RGBN300" / "rgbir" / "text" / "train_RGB.json").write_text("[]")
        assert "texts of" not in summary(prepare("rgbn300", tmp_path / "raw", tmp_path / "data"))
