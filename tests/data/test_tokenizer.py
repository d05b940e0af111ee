"""CLIP's tokenizer: the rules that its numbers follow; OpenAI's numbers are in ``tests/parity``."""
# ruff: noqa: RUF001

from __future__ import annotations

import logging
import sys
import types

import numpy as np
import pytest

from mmreid_jax.data import tokenizer

START, END = 49406, 49407


def test_marks_and_padding():
    rows = tokenizer.tokenize(["", "a man"])
    assert rows.dtype == np.int32
    assert rows.shape == (2, 77)
    np.testing.assert_array_equal(rows[0, :3], [START, END, 0])
    np.testing.assert_array_equal(rows[1, :5], [START, *tokenizer.encode("a man"), END, 0])
    assert not rows[1, 5:].any()
    assert tokenizer.tokenize([]).shape == (0, 77)


@pytest.mark.parametrize("words", [74, 75, 76, 200])
def test_long_texts_end_with_the_mark(words):
    text = " ".join(["red"] * words)
    row = tokenizer.tokenize([text])[0]
    (red,) = tokenizer.encode("red")
    kept = min(words, 75)
    np.testing.assert_array_equal(row[: kept + 2], [START, *[red] * kept, END])
    assert row.argmax() == kept + 1


def test_length_is_free():
    np.testing.assert_array_equal(tokenizer.tokenize(["a man walks"], 3)[0, [0, 2]], [START, END])


def test_case_and_white_space_do_not_count():
    assert tokenizer.encode("A  Man\n\twalks ") == tokenizer.encode("a man walks")


def test_pieces():
    assert list(tokenizer.pieces("she's 10 t-shirts, i'll...")) == [
        *("she", "'s", "1", "0", "t", "-", "shirts", ",", "i", "'ll", "...")
    ]
    # Numerals that are no digits, letters of other alphabets, marks, and the long s of a contraction.
    assert list(tokenizer.pieces("ab½x ⅻ жён. e̱'ſ")) == [*("ab", "½", "x", "ⅻ", "жён", ".", "e", "̱'", "ſ")]
    assert list(tokenizer.pieces("it'ſ")) == ["it", "'ſ"]


def test_special_tokens_written_out():
    assert tokenizer.encode("a<|endoftext|>b") == [*tokenizer.encode("a"), END, *tokenizer.encode("b")]
    assert tokenizer.encode("<|mask|>", mask=True) == [49405]
    assert 49405 not in tokenizer.encode("<|mask|>")


def test_word_of_the_last_merge_is_cut_where_the_mask_has_its_number():
    """TVI-LFM's tokenizer ends with an error here."""
    assert tokenizer.encode("jekyll") == [49405]
    assert len(tokenizer.encode("jekyll", mask=True)) == 2


def test_every_part_reads_as_its_text():
    text = "a man with a half-sleeved t-shirt, 2 bags & café"
    letters = {letter: byte for byte, letter in enumerate(tokenizer._letters())}
    parts = {number: part for part, number in tokenizer._vocabulary(False).items()}
    joined = "".join(parts[number] for number in tokenizer.encode(text))
    words = [bytes(letters[letter] for letter in word).decode() for word in joined.split("</w>")]
    assert "".join(words) == text.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("schÃ¶n â€œquotedâ€\x9d", 'schön "quoted"'),
        ("sch\u00c3\u0192\u00c2\u00b6n", "schön"),
        ("‘it’s’ – “so”", "'it's' – \"so\""),
        ("ﬁne ﬅ ŉ Ǆ", "fine ſt 'n DŽ"),
        ("ＡＢ１　ｱ", "AB1 ア"),
        ("e\u0301", "é"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("\033[36;44mblue\033[0m\ufeff\0", "blue"),
        ("Tom &amp;amp; Jerry &EACUTE; &#39; &notanentity;", "Tom & Jerry É ' &notanentity;"),
        ("<b>&amp;</b>\n&amp;", "<b>&amp;</b>\n&amp;"),
        ("caf\u00e9 \u00c3 caf\u00e9s", "café Ã cafés"),
        ("it\x92s", "it's"),
        ("\ud83d\ude00 \ud800", "\U0001f600 \ufffd"),
    ],
)
def test_mending(text, mended):
    assert tokenizer.mend(text) == mended


def test_one_warning_without_ftfy(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    tokenizer._mender.cache_clear()
    tokenizer._encode.cache_clear()
    with caplog.at_level(logging.WARNING):
        tokenizer.tokenize(["ascii", "naïve", "café"])
    assert len(caplog.records) == 1
    assert "ftfy" in caplog.text
    tokenizer._mender.cache_clear()


def test_ftfy_mends_where_it_is_installed(monkeypatch):
    installed = types.ModuleType("ftfy")
    installed.fix_text = lambda text: text.replace("ï", "i")
    monkeypatch.setitem(sys.modules, "ftfy", installed)
    tokenizer._mender.cache_clear()
    tokenizer._encode.cache_clear()
    assert tokenizer.encode("naïve") == tokenizer.encode("naive")
    tokenizer._mender.cache_clear()
    tokenizer._encode.cache_clear()
