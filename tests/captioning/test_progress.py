"""The journal of a long captioning, which goes on where it stopped."""

from __future__ import annotations

import pytest

from mmreid_jax.captioning import captioner, pictures
from mmreid_jax.captioning.progress import journal_of
from mmreid_jax.errors import UserError
from tests.captioning.stubs import Killed, brightness, folder_of


def test_interrupted_captioning_goes_on_where_it_stopped(tmp_path):
    found, seen = pictures.of_folder(folder_of(tmp_path / "images")), []

    def describe(images):
        if len(seen) == 2:
            raise Killed
        seen.extend(images)
        return brightness(images)

    out = tmp_path / "out.json"
    with pytest.raises(Killed), journal_of(out, {"model": "m"}) as journal:
        captioner.caption(describe, found, journal, 1)
    with (tmp_path / "out.json.progress").open("a") as file:
        file.write('["b/2.png", "half a li')  # what a killed process may leave
    moved = []
    with journal_of(out, {"model": "m"}) as journal:
        said = captioner.caption(brightness, found, journal, 8, moved.append)
    assert moved == [2, 1]
    assert list(said) == ["a.jpg", "b/1.png", "b/2.png"]
    whole = captioner.caption(brightness, found, journal_of(tmp_path / "other.json", {}), 2)
    assert said == whole


def test_a_broken_image_is_named_and_what_was_made_stays(tmp_path):
    root = folder_of(tmp_path / "images")
    (root / "b/1.png").write_bytes(b"no image")
    with journal_of(tmp_path / "out.json", {}) as journal:
        with pytest.raises(UserError, match=r"b/1\.png cannot be read"):
            captioner.caption(brightness, pictures.of_folder(root), journal, 1)
        assert list(journal.done) == ["a.jpg"]


def test_a_journal_belongs_to_its_settings(tmp_path):
    with journal_of(tmp_path / "out.json", {"model": "one", "length": 50}) as journal:
        journal.add({"a": "ä\nb"})
    with pytest.raises(UserError, match="begun with another model; go on"):
        journal_of(tmp_path / "out.json", {"model": "two", "length": 50})
    with journal_of(tmp_path / "out.json", {"model": "one", "length": 50}) as journal:
        assert journal.done == {"a": "ä\nb"}
        journal.finish()
    assert not list(tmp_path.iterdir())
    for damage in ("no json\n", '{"model": "one"}\n7\n'):
        (tmp_path / "out.json.progress").write_text(damage)
        with pytest.raises(UserError, match="is damaged; delete it"):
            journal_of(tmp_path / "out.json", {"model": "one"})
