"""Captioning, fine-tuning and rephrasing with tiny models of PyTorch (marker ``captioning``)."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from mmreid_jax.captioning import captioner, pictures, prompts, rephrasing, text_files
from mmreid_jax.captioning.progress import journal_of
from mmreid_jax.commands import captioning as command
from mmreid_jax.errors import UserError
from tests.captioning import models

pytestmark = pytest.mark.captioning


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blip")
    models.save_blip(folder)
    return folder


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    models.save_chat(folder)
    return folder


@pytest.fixture
def images(tmp_path):
    """A folder of six images in two colours, and a caption for each of them."""
    root = tmp_path / "images"
    root.mkdir()
    said = {}
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 60, (40, 20, 3), np.uint8)
        pixels[..., 0 if i % 2 else 2] += 180
        Image.fromarray(pixels).save(root / f"{i}.png")
        said[f"{i}.png"] = {"description": f"a man in a {'red' if i % 2 else 'blue'} jacket"}
    (tmp_path / "pairs.json").write_text(json.dumps(said))
    return root


def test_a_folder_is_captioned_the_same_in_any_batches(blip, images, tmp_path):
    found = []
    for batch in ("1", "4"):
        out = tmp_path / f"{batch}.json"
        flags = ["--batch_size", batch, "--device", "cpu", "--length", "12"]
        command.main(["caption", "--model", str(blip), "--images", str(images), "--out", str(out), *flags])
        found.append(json.loads(out.read_text()))
    assert found[0] == found[1]
    assert list(found[0]) == [f"{i}.png" for i in range(6)]
    words = {word.strip(".,") for entry in found[0].values() for word in entry["description"].split()}
    assert words <= {"", *models.WORDS}
    assert not words & {"[DEC]", "[SEP]", "[PAD]"}


def test_fine_tuning_learns_the_captions(blip, images, tmp_path, capsys):
    flags = ["--captions", str(tmp_path / "pairs.json"), "--images", str(images), "--device", "cpu"]
    flags += ["--out", str(tmp_path / "tuned"), "--epochs", "40", "--batch_size", "3", "--rate", "5e-3"]
    command.main(["finetune", "--model", str(blip), *flags])
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(losses) == 40
    assert losses[-1] < 0.2 * losses[0]
    assert not (tmp_path / "tuned.progress").exists()
    said = captioner.Captioner(tmp_path / "tuned", device="cpu")([Image.open(images / f"{i}.png") for i in (0, 1)])
    assert said == ["a man in a blue jacket", "a man in a red jacket"]


def test_interrupted_fine_tuning_ends_where_the_whole_one_does(blip, images, tmp_path, monkeypatch):
    found, texts = pictures.of_folder(images), ["a red shirt"] * 6
    whole = captioner.Captioner(blip, device="cpu")
    losses = captioner.finetune(whole, found, texts, tmp_path / "whole", captioner.Training(epochs=3, batch_size=4))

    class Killed(Exception):
        pass

    def kill(epoch, loss):
        if epoch == 2:
            raise Killed

    options = captioner.Training(epochs=3, batch_size=4)
    with pytest.raises(Killed):
        captioner.finetune(captioner.Captioner(blip, device="cpu"), found, texts, tmp_path / "cut", options, kill)
    assert not (tmp_path / "cut").exists()
    other = captioner.Training(epochs=3, batch_size=2)
    with pytest.raises(UserError, match="another batch_size"):
        captioner.finetune(captioner.Captioner(blip, device="cpu"), found, texts, tmp_path / "cut", other)
    again = captioner.Captioner(blip, device="cpu")
    assert captioner.finetune(again, found, texts, tmp_path / "cut", options) == losses[2:]
    for name, value in whole.model.state_dict().items():
        assert bool((value == again.model.state_dict()[name]).all()), name


def test_rephrasing_adds_what_the_model_says_after_the_prompt(chat, tmp_path):
    model = rephrasing.load(chat, "cpu", new_tokens=8)
    prompt = prompts.rephrase("a man in a jacket")
    ids = model.encode(prompt)
    assert model.decode(ids) == prompt
    answer = model.generate(ids, 3)
    assert list(answer[: len(ids)]) == list(ids)
    assert 0 < len(answer) - len(ids) <= 8
    assert model.complete(prompt, 3) == model.complete(prompt, 3) == model.decode(answer[len(ids) :]).strip()
    assert len({model.complete(prompt, seed) for seed in range(4)}) > 1
    greedy = rephrasing.load(chat, "cpu", temperature=0, new_tokens=8)
    assert len({greedy.complete(prompt, seed) for seed in range(3)}) == 1


def test_the_command_rephrases_a_file(chat, tmp_path):
    source = tmp_path / "caption_dict_Blip_IR.json"
    text_files.write(source, {"a": {"description": "a man"}, "b": {"description": "a woman"}})
    command.main(["rephrase", "--model", str(chat), "--captions", str(source), "--device", "cpu", "--new_tokens", "5"])
    found = text_files.read(tmp_path / "caption_llm_dict_Blip_IR.json")
    assert {key: entry["description"] for key, entry in found.items()} == {"a": "a man", "b": "a woman"}
    assert all(entry["aug_description"] for entry in found.values())


def test_folders_that_hold_no_model_are_one_sentence(blip, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot read the processor"):
        captioner.Captioner(tmp_path, device="cpu")
    with pytest.raises(UserError, match="cannot read the model"):
        captioner.Captioner(tmp_path, processor=blip, device="cpu")
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        rephrasing.load(tmp_path, "cpu")


def test_a_journal_of_one_model_is_not_continued_with_another(blip, images, tmp_path):
    out = tmp_path / "out.json"
    with journal_of(out, {"model": "another", "length": 50, "images": str(images)}) as journal:
        journal.add({"0.png": "x"})
    flags = ["--device", "cpu", "--images", str(images), "--out", str(out)]
    with pytest.raises(UserError, match="begun with another model"):
        command.main(["caption", "--model", str(blip), *flags])
