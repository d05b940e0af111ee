"""Words of colour, taken out of captions and of files."""

from __future__ import annotations

import pytest

from mmreid_jax.captioning import colours, text_files
from mmreid_jax.commands import captioning as command


def test_colours_are_removed_where_a_caption_names_them():
    said = "A man in a dark jacket, with blue jeans and white-soled shoes. His bag is half-black and half-white."
    assert colours.strip_colours(said) == "A man in a jacket, with jeans and soled shoes. His bag is."
    assert colours.strip_colours("a man with a backpack") == "a man with a backpack"
    assert colours.strip_colours("a violet hat", ("violet",)) == "a hat"


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
