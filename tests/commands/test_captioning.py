"""The commands that caption, fine-tune and rephrase."""

from __future__ import annotations

import json
import sys

import pytest

from mmreid_jax.commands import captioning as command
from mmreid_jax.errors import UserError
from tests.captioning.stubs import folder_of


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
