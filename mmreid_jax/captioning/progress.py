"""Texts as they are made, kept beside the file that they will become, so that an interrupted run loses nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from mmreid_jax.captioning import text_files
from mmreid_jax.errors import UserError
from mmreid_jax.paths import parse_json

Item = TypeVar("Item")


class Journal:
    """A file of one JSON line per text, of which a killed run leaves whole lines and perhaps a part of the last one.

    Attributes:
      path: the file; it exists from the first line on until `finish`.
      done: key -> text of all lines.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Opens the journal, going on with one that is there.

        Args:
          path: the file.
          settings: what the texts depend on; they may not change before the work is finished.

        Raises:
          UserError: the journal was begun with other settings, is damaged, or cannot be written.
        """
        self.path = path
        self.done: dict[str, str] = {}
        wanted = json.loads(json.dumps(settings))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            self._file.seek(0)
            stored = self._file.read()
            whole = stored.rfind(b"\n") + 1
            self._file.truncate(whole)
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror}); choose another --out") from None
        lines = stored[:whole].decode("utf-8", errors="replace").splitlines()
        try:
            begun, *entries = [parse_json(line) for line in lines] or [wanted]
            self.done = {key: text for key, text in entries}
        except (ValueError, TypeError):
            self._file.close()
            raise UserError(f"{path} is damaged; delete it to begin anew") from None
        if begun != wanted:
            self._file.close()
            changed = ", ".join(key for key in {**begun, **wanted} if begun.get(key) != wanted.get(key))
            raise UserError(
                f"{path} was begun with another {changed}; go on with the same settings, or delete it to begin anew"
            )
        if not lines:
            self._append([wanted])

    def add(self, texts: Mapping[str, str]) -> None:
        """Keeps texts; they are on the disk when this returns."""
        self._append([[key, text] for key, text in texts.items()])
        self.done.update(texts)

    def finish(self) -> None:
        """Deletes the journal: what it held is written elsewhere."""
        self._file.close()
        self.path.unlink()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _append(self, lines: Sequence[Any]) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        try:
            while text:
                text = text[self._file.write(text) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self.path} ({error.strerror}); what was made before is kept") from None


def journal_of(out: Path, settings: Mapping[str, Any]) -> Journal:
    """The journal beside the file (or folder of files) `out`."""
    return Journal(_beside(out), settings)


def must_be_new_or_begun(out: Path) -> None:
    """Raises UserError if `out` is there already, and no journal says that a run was writing it."""
    if not _beside(out).exists():
        text_files.must_be_new(out)


def _beside(out: Path) -> Path:
    return out.with_name(out.name + ".progress")


def groups(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Neighbours in groups of `size`, the last perhaps smaller."""
    return (items[start : start + size] for start in range(0, len(items), size))
