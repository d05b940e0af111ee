"""Rephrasing: interrupted, and without an answer."""

from __future__ import annotations

import pytest

from mmreid_jax.captioning import colours, rephrasing
from mmreid_jax.captioning.progress import journal_of
from tests.captioning.stubs import Killed, Stub


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
