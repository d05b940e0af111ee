"""Files of texts: names, and what holds no captions."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.captioning import text_files
from mmreid_jax.errors import UserError


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
