"""The reader of checkpoint files on files made by hand, most of them hostile or damaged.

Pickles are written opcode by opcode, so that every trick can be tried and no PyTorch is needed.
"""

from __future__ import annotations

import pytest

from mmreid_jax.convert import torch_file
from mmreid_jax.errors import UserError
from tests.convert.checks import refused
from tests.convert.opcodes import (
    EMPTY_DICT,
    MARK,
    SETITEMS,
    dict_of,
    number,
    tensor,
    text,
)


class TestNoCheckpoint:
    @pytest.mark.parametrize(
        ("raw", "words"),
        [
            (b"<!doctype html>", "a web page: the download failed"),
            (b"  \n<html>", "a web page"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
            (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
            (b"\x1f\x8b\x08", "a gzip archive"),
            (b"just words", r"it has 10 bytes and starts with b'just words'"),
            (b"\x80", "not a checkpoint|damaged"),
            (b"\x00" * 257 + b"ustar" + b"\x00" * 250, "a tar archive"),
        ],
    )
    def test_says_what_it_looks_like(self, plain, raw, words):
        refused(plain(raw), words)

    def test_missing(self, tmp_path):
        refused(tmp_path / "nowhere.pth", "there is no file")

    def test_directory(self, tmp_path):
        refused(tmp_path, "is a directory")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (number(3), "it is a int"),
            (EMPTY_DICT, "an empty dictionary"),
            (tensor(), r"one array of shape \[4\]"),
            (dict_of(a=number(1), b=text("c")), "a dictionary with the keys a, b"),
        ],
    )
    def test_no_weights(self, archive, content, words):
        refused(archive(content), words)


class TestFinding:
    @pytest.mark.parametrize("key", torch_file.WRAPPERS)
    def test_usual_keys(self, archive, key):
        found = torch_file.state_dict(archive(dict_of(**{key: dict_of(w=tensor()), "cmc": tensor()})))
        assert found.under == key
        assert list(found.entries) == ["w"]

    def test_nested(self, archive):
        found = torch_file.state_dict(archive(dict_of(model=dict_of(state_dict=dict_of(w=tensor())))))
        assert found.under == "model.state_dict"

    def test_only_candidate(self, archive):
        assert torch_file.state_dict(archive(dict_of(mine=dict_of(w=tensor()), epoch=number(1)))).under == "mine"

    def test_several_candidates(self, archive):
        path = archive(dict_of(a=dict_of(w=tensor()), b=dict_of(w=tensor(offset=1, size=(3,)))))
        refused(path, r"several state_dicts \(a, b\)")
        assert torch_file.state_dict(path, under="b").entries["w"].shape == (3,)
        with pytest.raises(UserError, match="nothing under 'c'; its keys are a, b"):
            torch_file.state_dict(path, under="c")

    def test_second_copy_is_mentioned(self, archive):
        found = torch_file.state_dict(archive(dict_of(model=dict_of(w=tensor()), ema=dict_of(w=tensor()))))
        assert found.notes == ["read 'model'; the file also holds ema"]

    def test_prefixes(self, archive):
        inside = {"module._orig_mod.a": tensor(), "module._orig_mod.b": tensor()}
        found = torch_file.state_dict(archive(dict_of(**inside)))
        assert list(found.entries) == ["a", "b"]
        assert len(found.notes) == 2

    def test_prefix_of_some_only_is_a_name(self, archive):
        inside = {"module.a": tensor(), "b": tensor()}
        assert set(torch_file.state_dict(archive(dict_of(**inside))).entries) == set(inside)

    def test_what_is_no_tensor_is_passed_over(self, archive):
        found = torch_file.state_dict(archive(dict_of(w=tensor(), epoch=number(3))))
        assert list(found.entries) == ["w"]
        assert found.notes == ["passed over, as no tensors: epoch"]

    def test_dictionary_that_holds_itself(self, archive):
        content = EMPTY_DICT + b"q\x00" + MARK + text("w") + tensor() + text("model") + b"h\x00" + SETITEMS
        assert "w" in torch_file.state_dict(archive(content)).entries
