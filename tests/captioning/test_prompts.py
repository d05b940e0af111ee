"""Prompts of a language model, and what of its answer counts."""

from __future__ import annotations

from mmreid_jax.captioning import prompts, rephrasing
from mmreid_jax.captioning.progress import journal_of
from tests.captioning.stubs import Stub


def test_prompt_is_that_of_vicuna():
    assert prompts.rephrase("A man.") == (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions. "
        "USER: A man.rephrase the person's description above using similar words. Answer: ASSISTANT:"
    )


def test_an_answer_is_what_follows_the_prompt(tmp_path):
    stub = Stub()
    with journal_of(tmp_path / "out.json", {}) as journal:
        found = rephrasing.rephrase(stub.model, {"a": "a man", "b": "a man"}, journal, seed=2)
    assert found == {"a": "other2000006 words", "b": "other2000007 words"}
