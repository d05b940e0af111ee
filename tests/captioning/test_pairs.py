"""Pairs of images and captions to learn from."""

from __future__ import annotations

import numpy as np

from mmreid_jax.captioning import captioner, pairs, pictures, text_files
from mmreid_jax.commands import captioning as command
from tests.datasets import trees


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
