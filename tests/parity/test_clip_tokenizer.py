"""Token numbers of texts against OpenAI's and TVI-LFM's: every case of the suite ``clip`` that holds texts."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.data import tokenizer
from mmreid_jax.testing import goldens

FILES = [path for path in goldens.cases("clip") if "sot" in goldens.load(path).json]


@pytest.fixture(params=["as installed", "without ftfy"])
def ftfy(request, monkeypatch):
    """With the package ftfy where it is installed, and without it."""
    tokenizer._encode.cache_clear()
    if request.param == "without ftfy":
        monkeypatch.setattr(tokenizer, "_mender", lambda: tokenizer.mend)
    yield
    tokenizer._encode.cache_clear()


def padded(numbers, length):
    return np.array([*numbers, *[0] * (length - len(numbers))], np.int32)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_constants(path):
    about = goldens.load(path).json
    assert about["context_length"] == tokenizer.LENGTH
    assert about["vocab_size"] == len(tokenizer._vocabulary(False)) == tokenizer.VOCABULARY
    for mask in (False, True):
        numbers = tokenizer._vocabulary(mask)
        assert (numbers[tokenizer.START], numbers[tokenizer.END]) == (about["sot"], about["eot"])
        assert len(set(numbers.values())) == len(numbers) == about["vocab_size"]
    assert tokenizer._vocabulary(True)[tokenizer.MASK] == about["mask_id_tvi"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_numbers(path, ftfy):
    about = goldens.load(path).json
    for mask, column in ((False, "openai"), (True, "tvi")):
        # Where the authors' tokenizer fails there is no number to compare with.
        cases = [case for case in about["cases"] if column in case]
        assert cases
        found = tokenizer.tokenize([case["text"] for case in cases], about["context_length"], mask)
        for case, row in zip(cases, found, strict=True):
            np.testing.assert_array_equal(row, padded(case[column], about["context_length"]), err_msg=case["text"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_untruncated_length(path, ftfy):
    for case in goldens.load(path).json["cases"]:
        if "tvi_untruncated_length" in case:
            assert len(tokenizer.encode(case["text"], mask=True)) + 2 == case["tvi_untruncated_length"], case["text"]
