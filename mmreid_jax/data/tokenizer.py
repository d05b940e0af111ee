"""CLIP's tokenizer: text -> numbers of the pieces that byte-pair encoding cuts it into.

Text is mended and lower-cased, split into words, single digits and runs of signs, and each of these is merged from
its UTF-8 bytes by the 48,894 merges that lie beside this module (``clip/bpe_merges.txt.gz``, licence beside it), so
that nothing is fetched. The numbers are those of OpenAI's tokenizer. It mends text with the package `ftfy`, which is
used here where it is installed; without it the same is done here, but that text which was decoded in a wrong encoding
is recognised by a simpler rule. ASCII text is the same either way.

Reference: Radford et al. 2021 (CLIP), file ``clip/simple_tokenizer.py`` of OpenAI's code; Sennrich et al. 2016 (BPE).
"""

from __future__ import annotations

import functools
import gzip
import html
import itertools
import logging
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from importlib import resources

import numpy as np

LENGTH = 77
"""Tokens per text that CLIP's networks take."""
VOCABULARY = 49408
START, END = "<|startoftext|>", "<|endoftext|>"
MASK = "<|mask|>"
"""A third special token of the TVI-LFM code, in the place of the last merge; part of the vocabulary on request."""

_WORD_END = "</w>"
_log = logging.getLogger(__name__)
# Matched against a shadow of the text (`_shadow`), where letters are a-z, digits and other numerals 0-9.
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+"


def tokenize(texts: Sequence[str], length: int = LENGTH, mask: bool = False) -> np.ndarray:
    """Token numbers of texts, as CLIP's text networks take them.

    Args:
      texts: N strings; empty ones are allowed.
      length: tokens per text. A longer text is cut, and its last token is the end mark.
      mask: `MASK` is a token of its own, as in the TVI-LFM code.

    Returns:
      int32 [N, length]: start mark, tokens, end mark, zeros.
    """
    start, end = _vocabulary(mask)[START], _vocabulary(mask)[END]
    out = np.zeros((len(texts), length), np.int32)
    for row, text in zip(out, texts, strict=True):
        numbers = (start, *_encode(text, mask), end)
        row[: len(numbers)] = numbers[:length]
        if len(numbers) > length:
            row[-1] = end
    return out


def encode(text: str, mask: bool = False) -> list[int]:
    """Token numbers of one text, without start and end marks; special tokens written out in the text are kept."""
    return list(_encode(text, mask))


@functools.lru_cache(65536)
def _encode(text: str, mask: bool) -> tuple[int, ...]:
    numbers = _vocabulary(mask)
    return tuple(numbers[part] for piece in pieces(clean(text), mask) for part in _merged(piece, mask))


# ----------------------------------------------------------------------------------------------------- vocabulary


@functools.cache
def _letters() -> tuple[str, ...]:
    """A printable character for each of the 256 bytes: itself where it is one, else one beyond them."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return tuple(chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256))


@functools.cache
def _ranks(mask: bool) -> dict[tuple[str, str], int]:
    """Pairs of parts that are merged -> rank; lower ranks go first. The first line of the file is a header."""
    file = resources.files("mmreid_jax.data") / "clip" / "bpe_merges.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()[1:]
    if mask:
        # Its merged word would need the number that the mask has taken; in the authors' code it is an error.
        del lines[-1]
    pairs = (line.split(" ") for line in lines)
    return {(first, second): rank for rank, (first, second) in enumerate(pairs)}


@functools.cache
def _vocabulary(mask: bool) -> dict[str, int]:
    """Part of a word -> its number: bytes, bytes that end a word, merges by rank, special tokens."""
    # OpenAI's numbers go by the bytes that are their own characters, in order, and then by the others.
    single = sorted(_letters())
    merged = [first + second for first, second in _ranks(mask)]
    special = [MASK, START, END] if mask else [START, END]
    parts = [*single, *(letter + _WORD_END for letter in single), *merged, *special]
    return {part: number for number, part in enumerate(parts)}


# ------------------------------------------------------------------------------------------------------- splitting


def pieces(text: str, mask: bool = False) -> Iterator[str]:
    """Cuts cleaned text into special tokens, English contractions, words, single digits and runs of other signs."""
    special = "|".join(map(re.escape, (MASK, START, END) if mask else (START, END)))
    for match in re.finditer(f"{special}|{_PIECES}", _shadow(text)):
        yield text[match.start() : match.end()]


def _shadow(text: str) -> str:
    """The text, character by character, with ASCII signs in the place of others of the same kind."""
    return text if text.isascii() else "".join(map(_kind, text))


@functools.cache
def _kind(character: str) -> str:
    if character.isascii():
        return character
    # The long s equals an s to patterns that ignore the case, of which the contraction is one.
    if character == "\u017f":
        return "s"
    category = unicodedata.category(character)[0]
    return " " if character.isspace() else {"L": "a", "N": "0"}.get(category, ".")


@functools.lru_cache(65536)
def _merged(piece: str, mask: bool) -> tuple[str, ...]:
    """The parts of one piece: its bytes, merged pair by pair in the order of the ranks."""
    if piece in (START, END) or (mask and piece == MASK):
        return (piece,)
    ranks, letters = _ranks(mask), _letters()
    parts = [letters[byte] for byte in piece.encode("utf-8")]
    parts[-1] += _WORD_END
    while len(parts) > 1:
        best = min(itertools.pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        joined: list[str] = []
        place = 0
        while place < len(parts):
            together = tuple(parts[place : place + 2]) == best
            joined.append("".join(best) if together else parts[place])
            place += 2 if together else 1
        parts = joined
    return tuple(parts)


# -------------------------------------------------------------------------------------------------------- cleaning


def clean(text: str) -> str:
    """Mended text without HTML entities, in lower case, with single blanks between words."""
    fixed = html.unescape(html.unescape(_mend(text)))
    return re.sub(r"\s+", " ", fixed).strip().lower()


def _mend(text: str) -> str:
    return mend(text) if text.isascii() else _mender()(text)


@functools.cache
def _mender() -> Callable[[str], str]:
    """`ftfy.fix_text`; where it is not installed `mend`, after a warning."""
    try:
        from ftfy import fix_text
    except ImportError:
        _log.warning(
            "a text holds characters beyond ASCII, and the package ftfy, with which CLIP mends such text, is not "
            "installed: text decoded in a wrong encoding may give other tokens than CLIP's own"
        )
        return mend
    return fix_text


_ENTITY = re.compile(r"&#?[0-9A-Za-z]{1,24};")
_ESCAPE = re.compile("\033\\[[\\d;]*[a-zA-Z]")
_INVISIBLE = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]")
_BREAK = re.compile("\r\n?|[\x85\u2028\u2029]")
_LIGATURE = re.compile("[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\ufb00-\ufb06]")
_WIDE = re.compile("[\u3000\uff01-\uffef]")
_QUOTES = {**dict.fromkeys([0x02BC, *range(0x2018, 0x201C)], "'"), **dict.fromkeys(range(0x201C, 0x2020), '"')}
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_HALF = re.compile("[\ud800-\udfff]")
# What the bytes from 0x80 look like in Windows-1252 (-> the byte as a character); five of them stand for nothing.
_WINDOWS = {ord(bytes([byte]).decode("cp1252", "replace")): chr(byte) for byte in range(0x80, 0xA0)}
_WINDOWS.pop(0xFFFD)
_BYTES = re.compile("[\x80-\xff" + "".join(map(chr, _WINDOWS)) + "]{2,}")


def mend(text: str) -> str:
    """Mends text as `ftfy.fix_text` does by default, with a simpler rule for text decoded in a wrong encoding.

    That rule: a run of characters whose bytes in Windows-1252 or Latin-1 are UTF-8 was meant to be that.
    """
    lines, entities = [], True
    for line in re.findall("[^\n]*\n|[^\n]+", text):
        # Text with tags is HTML, where entities have their meaning.
        entities = entities and "<" not in line
        lines.append(_mend_line(line, entities))
    return "".join(lines)


def _mend_line(text: str, entities: bool) -> str:
    while True:
        before = text
        if entities:
            text = _ENTITY.sub(_entity, text)
        if not text.isascii():
            text = _mend_characters(text)
        text = _BREAK.sub("\n", text)
        text = _INVISIBLE.sub("", _ESCAPE.sub("", text))
        text = unicodedata.normalize("NFC", text)
        if text == before:
            return text


def _mend_characters(text: str) -> str:
    """What only text beyond ASCII has: wrong encodings, ligatures, wide forms, curled quotes, surrogates."""
    text = _BYTES.sub(_redecoded, text)
    text = re.sub("[\x80-\x9f]", lambda match: _windows(match[0]), text)
    text = _LIGATURE.sub(_plain, text)
    text = _WIDE.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = text.translate(_QUOTES)
    text = _PAIR.sub(lambda match: match[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
    return _HALF.sub("\ufffd", text)


def _entity(match: re.Match[str]) -> str:
    """What one HTML entity stands for; itself where that is not all of it."""
    meant = html.unescape(match[0])
    if ";" not in meant:
        return meant
    # Names in capitals are not of the standard, but in the world.
    meant = html.unescape(match[0].lower()) if match[0].isupper() else meant
    return match[0] if ";" in meant else meant.upper()


def _redecoded(match: re.Match[str]) -> str:
    try:
        return match[0].translate(_WINDOWS).encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return match[0]


def _windows(character: str) -> str:
    decoded = character.encode("latin-1").decode("cp1252", "replace")
    return character if decoded == "\ufffd" else decoded


def _plain(match: re.Match[str]) -> str:
    # Decomposed, the ligature of a long s would be one of a short s.
    return "\u017ft" if match[0] == "\ufb05" else unicodedata.normalize("NFKC", match[0])
