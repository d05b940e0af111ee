"""Captioning without a model: files, resume, prompts, colours, data sets, errors. No PyTorch is needed."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.captioning import captioner, colours, pairs, pictures, prompts, rephrasing, text_files
from mmreid_jax.captioning.progress import journal_of
from mmreid_jax.commands import captioning as command
from mmreid_jax.data import captions
from mmreid_jax.datasets import prepare
from mmreid_jax.errors import UserError
from tests.datasets import trees


class Killed(BaseException):
    """What ends a run without asking."""


def folder_of(root, names=("b/2.png", "a.jpg", "b/1.png")):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 4, 3), 40 * number + 10, np.uint8)).save(root / name)
    return root


def brightness(images):
    return [f"a picture of {int(np.asarray(image).mean())}" for image in images]


def test_colours_are_removed_where_a_caption_names_them():
    said = "A man in a dark jacket, with blue jeans and white-soled shoes. His bag is half-black and half-white."
    assert colours.strip_colours(said) == "A man in a jacket, with jeans and soled shoes. His bag is."
    assert colours.strip_colours("a man with a backpack") == "a man with a backpack"
    assert colours.strip_colours("a violet hat", ("violet",)) == "a hat"


def test_prompt_is_that_of_vicuna():
    assert prompts.rephrase("A man.") == (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        "USER: A man.rephrase the person's description above using similar words. Answer: ASSISTANT:"
    )


class Stub:
    """A chat model of words: answers with the last word of the prompt and its seed."""

    calls = 0

    @property
    def model(self):
        return rephrasing.ChatModel(str.split, self.generate, " ".join)

    def generate(self, ids, seed):
        self.calls += 1
        return [*ids, "", f"other{seed}", "words", ""]


def test_an_answer_is_what_follows_the_prompt(tmp_path):
    stub = Stub()
    with journal_of(tmp_path / "out.json", {}) as journal:
        found = rephrasing.rephrase(stub.model, {"a": "a man", "b": "a man"}, journal, seed=2)
    assert found == {"a": "other2000006 words", "b": "other2000007 words"}


def test_interrupted_rephrasing_gives_the_same_texts_and_asks_for_none_twice(tmp_path):
    stub, said = Stub(), {key: f"man {key}" for key in "abcd"}

    def kill(text):
        if stub.calls == 3:
            raise Killed
        return text

    with pytest.raises(Killed), journal_of(tmp_path / "out.json", {}) as journal:
        rephrasing.rephrase(stub.model, said, journal, change=kill)
    with journal_of(tmp_path / "out.json", {}) as journal:
        assert list(journal.done) == ["a", "b"]
        found = rephrasing.rephrase(stub.model, said, journal)
    assert stub.calls == 5
    assert found == {key: f"other{i} words" for i, key in enumerate("abcd")}


def test_without_an_answer_the_caption_stays(tmp_path):
    silent = rephrasing.ChatModel(str.split, lambda ids, seed: ids, " ".join)
    with journal_of(tmp_path / "out.json", {}) as journal:
        found = rephrasing.rephrase(silent, {"a": "a red man"}, journal, change=colours.strip_colours)
    assert found == {"a": "a man"}


def test_interrupted_captioning_goes_on_where_it_stopped(tmp_path):
    found, seen = pictures.of_folder(folder_of(tmp_path / "images")), []

    def describe(images):
        if len(seen) == 2:
            raise Killed
        seen.extend(images)
        return brightness(images)

    out = tmp_path / "out.json"
    with pytest.raises(Killed), journal_of(out, {"model": "m"}) as journal:
        captioner.caption(describe, found, journal, 1)
    with (tmp_path / "out.json.progress").open("a") as file:
        file.write('["b/2.png", "half a li')  # what a killed process may leave
    moved = []
    with journal_of(out, {"model": "m"}) as journal:
        said = captioner.caption(brightness, found, journal, 8, moved.append)
    assert moved == [2, 1]
    assert list(said) == ["a.jpg", "b/1.png", "b/2.png"]
    whole = captioner.caption(brightness, found, journal_of(tmp_path / "other.json", {}), 2)
    assert said == whole


def test_a_broken_image_is_named_and_what_was_made_stays(tmp_path):
    root = folder_of(tmp_path / "images")
    (root / "b/1.png").write_bytes(b"no image")
    with journal_of(tmp_path / "out.json", {}) as journal:
        with pytest.raises(UserError, match=r"b/1\.png cannot be read"):
            captioner.caption(brightness, pictures.of_folder(root), journal, 1)
        assert list(journal.done) == ["a.jpg"]


def test_a_journal_belongs_to_its_settings(tmp_path):
    with journal_of(tmp_path / "out.json", {"model": "one", "length": 50}) as journal:
        journal.add({"a": "ä\nb"})
    with pytest.raises(UserError, match="begun with another model; go on"):
        journal_of(tmp_path / "out.json", {"model": "two", "length": 50})
    with journal_of(tmp_path / "out.json", {"model": "one", "length": 50}) as journal:
        assert journal.done == {"a": "ä\nb"}
        journal.finish()
    assert not list(tmp_path.iterdir())
    for damage in ("no json\n", '{"model": "one"}\n7\n'):
        (tmp_path / "out.json.progress").write_text(damage)
        with pytest.raises(UserError, match="is damaged; delete it"):
            journal_of(tmp_path / "out.json", {"model": "one"})


@pytest.mark.parametrize("dataset", trees.SINGLE)
@pytest.mark.parametrize("modality", ["rgb", "ir"])
def test_texts_of_a_data_set_are_read_by_its_builder(dataset, modality, tmp_path, monkeypatch):
    root = trees.write_single(dataset, tmp_path / "set")
    monkeypatch.setattr(captioner, "Captioner", lambda *_: lambda images, length: brightness(images))
    for each in dict.fromkeys((modality, "rgb")):
        command.main(["caption", "--model", "m", "--dataset", dataset, "--root", str(root), "--modality", each])
    found = pictures.of_data_set(dataset, root, modality)
    assert found.modality == ("rgb" if modality == "rgb" else {"regdb": "tir"}.get(dataset, "nir"))
    assert len(set(found.files)) == len(found)
    assert not list(root.rglob("*.progress"))
    for split, wanted in (("train", True), ("query", False)):
        rows = np.flatnonzero(found.training == wanted)
        images = [captions.Image(found.files[row], int(found.identity[row]), found.modality) for row in rows]
        assert images
        texts = captions.read(root, "Blip", split, images)
        assert [text.caption for text in texts] == brightness([found.image(row) for row in rows])
        assert all(set(text.visible) for text in texts) == (split == "query" and modality == "ir")
    with pytest.raises(UserError, match="there already"):
        command.main(["caption", "--model", "m", "--dataset", dataset, "--root", str(root)])


def test_prepared_records_give_the_same_captions(tmp_path, monkeypatch):
    root = trees.write_single("llcm", tmp_path / "set")
    prepare.prepare("llcm", root, tmp_path / "data")
    monkeypatch.setattr(captioner, "Captioner", lambda *_: lambda images, length: brightness(images))
    command.main(["caption", "--model", "m", "--dataset", "llcm", "--root", str(root)])
    flags = ["--data_dir", str(tmp_path / "data"), "--text_root", str(tmp_path / "texts")]
    command.main(["caption", "--model", "m", "--dataset", "llcm", *flags])
    for path in captions.paths(root, "Blip", "rgb").values():
        other = tmp_path / "texts" / path.relative_to(root)
        assert path.exists() == other.exists()
        assert not path.exists() or path.read_bytes() == other.read_bytes()


def test_infrared_images_get_captions_of_their_own_identity():
    infrared, visible = np.array([3, 9, 1, 3, 3, 3]), np.array([1, 3, 2, 3])
    said = ["a red man", "a blue woman", "a dog", "a dark hat, black,"]
    rows, texts = pairs.infrared_captions(infrared, visible, said)
    assert rows.tolist() == [0, 2, 3, 4, 5]
    assert texts[1] == "a man"
    assert {texts[i] for i in (0, 2, 3, 4)} <= {"a woman", "a hat,"}
    drawn = [pairs.infrared_captions(np.full(40, 3), visible, said, seed)[1] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 2


def test_pairs_of_a_data_set(tmp_path, monkeypatch):
    root = trees.write_single("sysu_mm01", tmp_path / "set")
    monkeypatch.setattr(captioner, "Captioner", lambda *_: lambda images, length: ["a man in red shoes"] * len(images))
    flags = ["--dataset", "sysu_mm01", "--root", str(root)]
    command.main(["caption", "--model", "m", *flags])
    command.main(["pairs", *flags, "--out", str(tmp_path / "pairs.json")])
    found = pictures.of_data_set("sysu_mm01", root, "ir")
    trained = [file for file, training in zip(found.files, found.training, strict=True) if training]
    made = text_files.read(tmp_path / "pairs.json")
    assert list(made) == trained
    assert {entry["description"] for entry in made.values()} == {"a man in shoes"}


@pytest.mark.parametrize("name", ["caption_llm_dict_Blip_IR.json", "train_llm_text_Blip_IR.npy"])
def test_colours_are_removed_from_files(name, tmp_path):
    said = {"0": {"description": "a red hat"}, "1": {"description": "a hat"}}
    if name.endswith("json"):
        said["0"]["aug_description"] = "one red hat"
    text_files.write(tmp_path / name, said)
    out = tmp_path / f"stripped{name[-5:]}" if name.endswith("json") else tmp_path / "stripped.npy"
    command.main(["strip_colours", str(tmp_path / name), "--out", str(out)])
    assert text_files.read(out) == {key: {k: v.replace("red ", "") for k, v in e.items()} for key, e in said.items()}
    if name.endswith("json"):
        command.main(
            ["strip_colours", str(tmp_path / name), "--out", str(tmp_path / "x.json"), "--fields", "aug_description"]
        )
        assert text_files.read(tmp_path / "x.json")["0"] == {"description": "a red hat", "aug_description": "one hat"}


def test_names_of_rephrasings(tmp_path):
    for own, other in (
        ("caption_dict_Blip_IR.json", "caption_llm_dict_Blip_IR.json"),
        ("train_text_Blip_RGB.npy", "train_llm_text_Blip_RGB.npy"),
        ("mine.json", "mine_llm.json"),
    ):
        assert text_files.rephrased_name(tmp_path / own) == tmp_path / other


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"{", "not a file of captions"), (b"[1]", "no dictionary"), (b'{"a": "b"}', "no dictionary"), (None, "no file")],
)
def test_a_file_that_holds_no_captions_is_named(content, said, tmp_path):
    path = tmp_path / "captions.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        text_files.read(path)
    array = tmp_path / "captions.npy"
    np.save(array, np.arange(3))
    with pytest.raises(UserError, match="no list of texts"):
        text_files.read(array)


def flags_of(name, tmp_path):
    (tmp_path / "model").mkdir(exist_ok=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    folder_of(tmp_path / "images")
    (tmp_path / "said.json").write_text(json.dumps({"a.jpg": {"description": "a man"}}))
    return {
        "caption": ["--images", str(tmp_path / "images"), "--out", str(tmp_path / "out.json")],
        "finetune": [
            *("--images", str(tmp_path / "images"), "--captions", str(tmp_path / "said.json")),
            *("--out", str(tmp_path / "out")),
        ],
        "rephrase": ["--captions", str(tmp_path / "said.json")],
    }[name]


@pytest.mark.parametrize("name", ["caption", "finetune", "rephrase"])
def test_what_is_not_installed_or_not_there_is_said(name, tmp_path, monkeypatch):
    flags = flags_of(name, tmp_path)
    with pytest.raises(UserError, match=r"there is no folder .*nowhere; give the folder of a model"):
        command.main([name, "--model", str(tmp_path / "nowhere"), *flags])
    with pytest.raises(UserError, match=r"images holds no config\.json"):
        command.main([name, "--model", str(tmp_path / "images"), *flags])
    for absent in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, "torch", sys.modules["math"])
        monkeypatch.setitem(sys.modules, absent, None)
        with pytest.raises(UserError, match=rf"{absent} is not installed.*pip install -e '\.\[caption\]'"):
            command.main([name, "--model", str(tmp_path / "model"), *flags])
    assert not list(tmp_path.glob("*.progress"))


def test_flags_that_do_not_belong_together_are_refused(tmp_path):
    flags_of("caption", tmp_path)
    images, out = ["--images", str(tmp_path / "images")], ["--out", str(tmp_path / "out.json")]
    for flags, said in (
        (images, "--out"),
        ([*images, *out, "--dataset", "regdb"], "name the images"),
        (["--dataset", "regdb"], "--root, or the folder of prepared"),
        (["--dataset", "regdb", "--data_dir", str(tmp_path)], "--text_root"),
        (["--dataset", "rgbnt201", "--root", str(tmp_path)], "no visible-infrared data set"),
        (["--images", str(tmp_path / "model"), *out], "holds no image"),
    ):
        with pytest.raises(UserError, match=said):
            command.main(["caption", "--model", str(tmp_path / "model"), *flags])
    (tmp_path / "said.json").write_text(json.dumps({"gone.jpg": {"description": "a man"}}))
    with pytest.raises(UserError, match=r"1 are not below .*images, such as gone\.jpg"):
        command.main(["finetune", "--model", "m", *images, "--captions", str(tmp_path / "said.json"), "--out", "x"])
    with pytest.raises(UserError, match=r"must end in \.json"):
        command.main(["rephrase", "--model", "m", "--captions", str(tmp_path / "said.json"), "--out", "x.npy"])


def test_texts_of_other_data_sets_have_no_place():
    with pytest.raises(UserError, match=r"texts of 'rgbnt201' have no place.*llcm, regdb, sysu_mm01"):
        pictures.text_form("rgbnt201")
