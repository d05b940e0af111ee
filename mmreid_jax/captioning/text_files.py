"""Files of texts, whoever wrote them: dictionaries {path: {"description": text, ...}} (JSON) and arrays of texts (npy).

They are the forms of TVI-LFM's files; which of them a data set has, and under which names, `mmreid_jax.data.captions`
knows.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.paths import read_bytes, read_json

CAPTION, REPHRASED = "description", "aug_description"


def read(path: Path) -> dict[str, dict[str, str]]:
    """What a file says of each key: its fields by name; the rows of an array are keys "0", "1", ... with one field.

    Raises:
      UserError: the file is missing or damaged, or holds something else.
    """
    try:
        if path.suffix == ".npy":
            rows = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
            if rows.ndim != 1 or rows.dtype.kind != "U":
                raise ValueError("it is no list of texts")
            return {str(row): {CAPTION: text} for row, text in enumerate(rows.tolist())}
        content = read_json(path)
        entries = content.values() if isinstance(content, dict) else [None]
        if not all(isinstance(entry, dict) and isinstance(entry.get(CAPTION), str) for entry in entries):
            raise ValueError(f'it is no dictionary of paths with a "{CAPTION}" each')
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; give a file of captions (.json or .npy)") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is not a file of captions ({error}); give a .json or .npy of captions") from None
    return content


def write(path: Path, texts: Mapping[str, Mapping[str, str]]) -> None:
    """Writes what `read` reads, in the form that the suffix names; complete or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as stream:
            if path.suffix == ".npy":
                np.save(stream, np.array([fields[CAPTION] for fields in texts.values()], np.str_), allow_pickle=False)
            else:
                # A byte of a name that is not UTF-8 becomes what JSON itself writes for it.
                stream.write(json.dumps(texts, indent=1, ensure_ascii=False).encode(errors="backslashreplace"))
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}); choose another --out") from None
    finally:
        unfinished.unlink(missing_ok=True)


def rephrased_name(path: Path) -> Path:
    """Where the rephrasings of a file of captions go: ``caption_llm_dict_...`` beside ``caption_dict_...``."""
    for plain, other in (("caption_dict_", "caption_llm_dict_"), ("train_text_", "train_llm_text_")):
        if path.name.startswith(plain):
            return path.with_name(other + path.name.removeprefix(plain))
    return path.with_name(f"{path.stem}_llm{path.suffix}")


def changed(
    texts: Mapping[str, Mapping[str, str]], change: Callable[[str], str], fields: Sequence[str]
) -> tuple[dict[str, dict[str, str]], int]:
    """The texts with `change` applied to some fields, and how many of them it changed."""
    result: dict[str, dict[str, str]] = {}
    count = 0
    for key, entry in texts.items():
        result[key] = {name: change(text) if name in fields else text for name, text in entry.items()}
        count += sum(result[key][name] != text for name, text in entry.items())
    return result, count


def must_be_new(path: Path) -> None:
    """Raises UserError if there is something at `path` already."""
    if path.exists():
        raise UserError(f"{path} is there already; delete it or choose another --out")
