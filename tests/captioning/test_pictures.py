"""Images of a data set that are captioned, and where their texts go."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.captioning import captioner, pictures
from mmreid_jax.commands import captioning as command
from mmreid_jax.data import captions
from mmreid_jax.datasets import prepare
from mmreid_jax.errors import UserError
from tests.captioning.stubs import brightness
from tests.datasets import trees


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


def test_texts_of_other_data_sets_have_no_place():
    with pytest.raises(UserError, match=r"texts of 'rgbnt201' have no place.*llcm, regdb, sysu_mm01"):
        pictures.text_form("rgbnt201")
