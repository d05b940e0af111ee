"""Text files of visible-infrared data: what is read is what is written, and what is wrong with them is said."""

import json
import pickle

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.data import captions
from mmreid_jax.data.captions import Captioned, Image, TextOptions
from mmreid_jax.errors import UserError

IMAGES = {
    "sysu_mm01": {
        "train": [
            Image("cam1/0002/0001.jpg", 2, "rgb"),
            Image("cam2/0002/0001.jpg", 2, "rgb"),
            Image("cam1/0011/0003.jpg", 11, "rgb"),
            Image("cam3/0002/0001.jpg", 2, "nir"),
            Image("cam6/0011/0001.jpg", 11, "nir"),
        ],
        "query": [Image("cam3/0006/0001.jpg", 6, "nir"), Image("cam6/0006/0009.jpg", 6, "nir")],
        "gallery": [Image("cam1/0006/0001.jpg", 6, "rgb"), Image("cam4/0006/0002.jpg", 6, "rgb")],
    },
    "regdb/trial_2": {
        "train": [Image("Visible/7/a_v_1_7.bmp", 7, "rgb"), Image("Thermal/7/a_t_1_7.bmp", 7, "tir")],
        "query": [Image("Visible/12/a_v_1_12.bmp", 12, "rgb"), Image("Visible/12/a_v_2_12.bmp", 12, "rgb")],
        "gallery": [Image("Thermal/12/a_t_1_12.bmp", 12, "tir"), Image("Thermal/12/a_t_2_12.bmp", 12, "tir")],
    },
    "llcm": {
        "train": [Image("vis/0250/v1.jpg", 250, "rgb"), Image("nir/0250/n1.jpg", 250, "nir")],
        "query": [Image("test_nir/cam2/0003/n7.jpg", 3, "nir"), Image("test_nir/cam9/0003/n8.jpg", 3, "nir")],
        "gallery": [Image("test_vis/cam1/0003/v7.jpg", 3, "rgb"), Image("test_vis/cam4/0003/v8.jpg", 3, "rgb")],
    },
}
DATASETS = list(IMAGES)


def said(image):
    return f"a person in {image.file}"


def written(root, dataset, rephrased=True, captioner="Blip"):
    entries = [
        Captioned(image, said(image), f"Someone in {image.file}." if rephrased else "", split == "train")
        for split, images in IMAGES[dataset].items()
        for image in images
    ]
    # Arrays are in the order of training whatever the order of the entries.
    return captions.write(root, captioner, datasets.get(dataset).captions, entries[::-1])


@pytest.fixture
def root(tmp_path):
    written(tmp_path, "llcm")
    return tmp_path


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("rephrased", [True, False])
def test_what_is_written_is_read(dataset, rephrased, tmp_path):
    paths = written(tmp_path, dataset, rephrased)
    assert sorted(paths) == sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert any(path.endswith(".npy") for path in paths) == (dataset == "sysu_mm01")
    assert any("llm" in path for path in paths) == rephrased
    for split, images in IMAGES[dataset].items():
        found = captions.read(tmp_path, "Blip", split, images)
        assert [text.caption for text in found] == [said(image) for image in images]
        expected = [f"Someone in {image.file}." if rephrased and split == "train" else "" for image in images]
        assert [text.rephrased for text in found] == expected
        for text, image in zip(found, images, strict=True):
            visible = {
                said(other) for part in IMAGES[dataset].values() for other in part if other[1:] == (image[1], "rgb")
            }
            tested = split != "train" and image.modality != "rgb"
            assert set(text.visible) == (visible if tested else set())


@pytest.mark.parametrize("prefix", ["", "datasets/llcm/", "/home/someone/data/LLCM/", "C:\\data\\"])
def test_paths_may_begin_with_any_root(prefix, root):
    path = root / "Text" / "Blip_IR" / "caption_dict_Blip_IR.json"
    known = {key.removeprefix("datasets/llcm/"): value for key, value in json.loads(path.read_text()).items()}
    separator = "\\" if "\\" in prefix else "/"
    path.write_text(json.dumps({prefix + key.replace("/", separator): value for key, value in known.items()}))
    images = IMAGES["llcm"]["query"]
    assert [t.caption for t in captions.read(root, "Blip", "query", images)] == [said(image) for image in images]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("test_nir/cam2/0003/0001.jpg", "nir/0003/0001.jpg"),
        ("datasets/llcm/test_vis/cam9/0003/a.jpg", "vis/0003/a.jpg"),
        ("datasets/llcm/nir/0003/a.jpg", "nir/0003/a.jpg"),
        ("cam3/0006/0001.jpg", "cam3/0006/0001.jpg"),
        (r"D:\sets\Thermal\1\x.bmp", "Thermal/1/x.bmp"),
    ],
)
def test_keys(path, key):
    assert captions.key_of(path) == key


def test_visible_captions_keep_the_order_of_the_file(root):
    path = root / "Text" / "Blip_RGB" / "id_caption_map_Blip_RGB.json"
    people = json.loads(path.read_text())
    path.write_text(json.dumps(people | {"3": ["z", "a", "m"]}))
    assert captions.read(root, "Blip", "query", IMAGES["llcm"]["query"])[0].visible == ("z", "a", "m")


def test_captioners(root):
    assert captions.captioners(root) == ("Blip",)
    written(root, "llcm", captioner="My_GIT")
    assert captions.captioners(root) == ("Blip", "My_GIT")
    assert captions.captioners(root / "nowhere") == ()
    assert captions.read(root, "My_GIT", "train", IMAGES["llcm"]["train"]) == captions.read(
        root, "Blip", "train", IMAGES["llcm"]["train"]
    )


def test_the_fingerprint_is_that_of_the_texts(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    written(other, "llcm")
    one = captions.fingerprint(root, "Blip", ("rgb", "nir"))
    assert captions.fingerprint(other, "Blip", ("rgb", "nir")) == one
    path = other / "Text" / "Blip_IR" / "caption_dict_Blip_IR.json"
    path.write_text(path.read_text().replace("person", "parson"))
    assert captions.fingerprint(other, "Blip", ("rgb", "nir")) != one


def spoil(root, name, content):
    path = root / "Text" / name
    if content is None:
        path.unlink()
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("split", "name", "content", "message"),
    [
        ("query", "Blip_IR/caption_dict_Blip_IR.json", None, "caption_dict_Blip_IR.json is missing"),
        ("query", "Blip_RGB/id_caption_map_Blip_RGB.json", None, "id_caption_map_Blip_RGB.json is missing"),
        ("query", "Blip_IR/caption_dict_Blip_IR.json", b'{"a/b/c', "is damaged"),
        ("query", "Blip_IR/caption_dict_Blip_IR.json", b"\xff\xfe", "is damaged"),
        ("query", "Blip_IR/caption_dict_Blip_IR.json", b"[]", "holds no dictionary"),
        ("query", "Blip_IR/caption_dict_Blip_IR.json", b"{}", r"no caption of 2 of 2 images \(test_nir/cam2"),
        ("query", "Blip_IR/caption_dict_Blip_IR.json", b'{"a/b/c": "x"}', "'a/b/c' is not a path with a description"),
        ("query", "Blip_IR/caption_dict_Blip_IR.json", b'{"c": {"description": "x"}}', "'c' is not a path"),
        ("query", "Blip_IR/caption_dict_Blip_IR.json", b'{"a/b/c": {"description": 1}}', "is not a text"),
        (
            "query",
            "Blip_IR/caption_dict_Blip_IR.json",
            b'{"x/a/b/c": {"description": "one"}, "y/a/b/c": {"description": "other"}}',
            "describes a/b/c twice",
        ),
        ("query", "Blip_RGB/id_caption_map_Blip_RGB.json", b'{"3": []}', "'3' is not an identity with a list"),
        ("query", "Blip_RGB/id_caption_map_Blip_RGB.json", b'{"x": ["a"]}', "'x' is not an identity with a list"),
        ("query", "Blip_RGB/id_caption_map_Blip_RGB.json", b'{"4": ["a"]}', r"no visible captions of 1 .*\(3\)"),
        ("train", "Blip_IR/caption_llm_dict_Blip_IR.json", b'{"a/b/c": {"description": "x"}}', "aug_description"),
    ],
)
def test_what_is_wrong_is_said(split, name, content, message, root):
    spoil(root, name, content)
    with pytest.raises(UserError, match=message):
        captions.read(root, "Blip", split, IMAGES["llcm"][split])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("Blip_RGB/train_text_Blip_RGB.npy", np.array(["a", "b"]), "2 rows for 3 training images"),
        ("Blip_IR/train_llm_text_Blip_IR.npy", np.array(["a"]), "1 rows for 2 training images"),
        ("Blip_RGB/train_text_Blip_RGB.npy", np.array([1, 2, 3]), "not a list of texts"),
        ("Blip_RGB/train_text_Blip_RGB.npy", np.array(["a", None, "b"], object), "is damaged"),
        ("Blip_RGB/train_text_Blip_RGB.npy", b"\x93NUMPY\x01", "is damaged"),
        ("Blip_RGB/train_text_Blip_RGB.npy", b"", "is damaged"),
        ("Blip_RGB/train_text_label_Blip_RGB.npy", np.array(["0002", "0011", "0002"]), "row 1 is of identity '0011'"),
        ("Blip_RGB/train_text_Blip_RGB.npy", None, "no captions of 3 of 3|no caption of 3 of 3"),
    ],
)
def test_what_is_wrong_with_arrays_is_said(name, content, message, tmp_path):
    written(tmp_path, "sysu_mm01")
    spoil(tmp_path, name, content)
    if content is None:  # then the dictionary is asked, which need not know training images
        spoil(tmp_path, "Blip_RGB/caption_dict_Blip_RGB.json", b"{}")
    with pytest.raises(UserError, match=message):
        captions.read(tmp_path, "Blip", "train", IMAGES["sysu_mm01"]["train"])


def test_no_training_captions_at_all(root):
    spoil(root, "Blip_IR/caption_llm_dict_Blip_IR.json", None)
    found = captions.read(root, "Blip", "train", IMAGES["llcm"]["train"])
    assert [bool(text.rephrased) for text in found] == [True, False]
    spoil(root, "Blip_IR/caption_dict_Blip_IR.json", None)
    with pytest.raises(UserError, match=r"neither .*caption_llm_dict_Blip_IR.json nor .*caption_dict_Blip_IR.json"):
        captions.read(root, "Blip", "train", IMAGES["llcm"]["train"])


def test_nothing_is_ever_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    written(tmp_path, "sysu_mm01")
    spoil(tmp_path, "Blip_RGB/train_text_Blip_RGB.npy", pickle.dumps(Trap()))
    with pytest.raises(UserError, match="is damaged"):
        captions.read(tmp_path, "Blip", "train", IMAGES["sysu_mm01"]["train"])
    assert not (tmp_path / "sprung").exists()


class TestPicks:
    def test_a_pick_depends_on_seed_and_position_alone(self):
        counts = np.arange(1, 200)
        found = captions.picks(counts, "counter", 3)
        assert found.dtype == np.int64
        assert np.all((found >= 0) & (found < counts))
        np.testing.assert_array_equal(captions.picks(counts[:50], "counter", 3), found[:50])
        assert not np.array_equal(captions.picks(counts, "counter", 4), found)

    @pytest.mark.parametrize("draw", captions.DRAWS)
    def test_all_captions_are_equally_likely(self, draw):
        found = np.bincount(captions.picks([5] * 5000, draw, 1), minlength=5)
        assert np.all(np.abs(found - 1000) < 5 * np.sqrt(5000 * 0.2 * 0.8))

    def test_the_reference_s_draws_are_numpy_s(self):
        counts = [3, 7, 1, 10, 2, 5]
        np.random.seed(1)
        expected = [int(np.random.choice(np.arange(count))) for count in counts]
        assert captions.picks(counts, "reference", 1).tolist() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rephrased": 1.5}, "rephrased is 1.5"), ({"draw": "luck"}, "caption_draw is 'luck'"), ({"seed": -1}, "seed")],
)
def test_options_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        TextOptions(**options)
