import dataclasses
import errno
import os
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmreid_jax.data import image_store, images
from mmreid_jax.errors import UserError
from tests.data.noise_records import damage, encoded_noise, noise_records

SIZE = (32, 16)
GIB = 1.0


@pytest.fixture
def records(tmp_path):
    return noise_records(tmp_path / "images", counts=(3, 5, 4))


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


def decoded(records, **options):
    return images.DecodedImages(records, **{"size": SIZE, "interpolation": "bicubic", **options})


def folders(cache):
    return {path.name for path in Path(cache).iterdir() if path.is_dir()}


@pytest.mark.parametrize("threads", [1, 3])
def test_equals_decoding_on_the_fly_bit_for_bit(records, cache, threads):
    fly = decoded(records)
    stored = image_store.open_pixels(fly, folder=cache, limit_gib=GIB, threads=threads)
    assert isinstance(stored, image_store.ImageStore)
    rows = np.array([11, 0, 0, 7, 3])
    for ours, theirs in zip(stored.read(rows), fly.read(rows), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert stored.read(rows)[0].shape == (5, 3, *SIZE, 3)


def test_is_built_once(records, cache, monkeypatch):
    image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    monkeypatch.setattr(image_store, "_build", lambda *_: pytest.fail("built again"))
    again = image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    np.testing.assert_array_equal(again.read(np.arange(12))[0], decoded(records).read(np.arange(12))[0])


def test_survives_pickling_as_a_path(records, cache):
    stored = image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    sent = pickle.dumps(stored)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).read(np.arange(12))[0], stored.read(np.arange(12))[0])


def test_what_is_read_can_be_changed_without_touching_the_store(records, cache):
    stored = image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    first = stored.read(np.array([0]))[0]
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(stored.read(np.array([0]))[0], kept)


def test_other_content_is_another_store(records, cache, tmp_path):
    others = [
        decoded(records),
        decoded(records, size=(16, 16)),
        decoded(records, interpolation="bilinear"),
        decoded(records, broken="skip"),
        decoded(records.select([1, 0, 2])),
        decoded(records.select(np.arange(12), name="noise/other")),
        decoded(noise_records(tmp_path / "again", counts=(3, 5, 4), seed=1)),
        decoded(dataclasses.replace(records, value_range=(0.0, 4095.0))),
    ]
    for other in others:
        stored = image_store.open_pixels(other, folder=cache, limit_gib=GIB)
        rows = np.arange(len(other.records))
        np.testing.assert_array_equal(stored.read(rows)[0], other.read(rows)[0])
    assert len(folders(cache)) == len(others)


def test_is_not_used_when_switched_off_or_too_large(records, cache):
    fly = decoded(records)
    assert image_store.open_pixels(fly, folder="", limit_gib=GIB) is fly
    size = 12 * 3 * 32 * 16 * 3
    assert image_store.open_pixels(fly, folder=cache, limit_gib=(size - 1) / 2**30) is fly
    assert isinstance(image_store.open_pixels(fly, folder=cache, limit_gib=size / 2**30), image_store.ImageStore)


class TestNoSpace:
    def check(self, records, cache, caplog, message):
        fly = decoded(records)
        assert image_store.open_pixels(fly, folder=cache, limit_gib=GIB) is fly
        assert len(caplog.records) == 1
        assert message in caplog.text
        assert not folders(cache)

    def test_known_beforehand(self, records, cache, caplog, monkeypatch):
        monkeypatch.setattr(image_store.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
        self.check(records, cache, caplog, "GiB free")

    def test_while_writing(self, records, cache, caplog, monkeypatch):
        # The kernel refuses to let a file grow beyond 20,000 bytes: the same path as a full disk.
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            self.check(records, cache, caplog, f"[Errno {errno.EFBIG}]")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def test_folder_that_cannot_be_made(self, records, tmp_path, caplog):
        (tmp_path / "file").write_text("in the way")
        fly = decoded(records)
        assert image_store.open_pixels(fly, folder=str(tmp_path / "file" / "cache"), limit_gib=GIB) is fly
        assert "decoded whenever they are read" in caplog.text


def test_a_build_that_was_interrupted_leaves_no_store(records, cache, monkeypatch):
    fly = decoded(records)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", interrupted)
        with pytest.raises(KeyboardInterrupt):
            image_store.open_pixels(fly, folder=cache, limit_gib=GIB)
    assert not folders(cache)
    stored = image_store.open_pixels(fly, folder=cache, limit_gib=GIB)
    np.testing.assert_array_equal(stored.read(np.arange(12))[0], fly.read(np.arange(12))[0])


def test_appears_complete_and_at_once(records, cache, monkeypatch):
    seen, rename = [], Path.rename

    def watched(self, target):
        seen.append((target.exists(), {path.name for path in self.iterdir()}))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    assert seen == [(False, {"images.npy", "table.npz"})]


def test_a_damaged_store_is_named(records, cache, tmp_path):
    stored = image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    (stored.folder / "images.npy").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"damaged.*delete that folder"):
        image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)


@pytest.mark.parametrize("row", range(12))
def test_no_image_is_too_few_to_count(records, cache, row):
    """Each of all images counts, also one that is replaced by another of the same size at the same time."""
    path = records.source.folders["nir"] / str(records.file[row])
    state = path.stat()
    first = image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    other = encoded_noise([7, row], quality=60)
    path.write_bytes(other[:-2] + bytes(state.st_size - len(other)) + other[-2:])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    again = image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    rows = np.arange(12)
    np.testing.assert_array_equal(again.read(rows)[0], decoded(records).read(rows)[0])
    assert np.flatnonzero((again.read(rows)[0] != first.read(rows)[0]).any(axis=(1, 2, 3, 4))).tolist() == [row]


def test_a_broken_file_that_was_fetched_again_is_read(records, cache):
    whole = (records.source.folders["nir"] / str(records.file[3])).read_bytes()
    path = damage(records, 3)
    assert image_store.open_pixels(decoded(records, broken="skip"), folder=cache, limit_gib=GIB).broken_rows == [3]
    path.write_bytes(whole)
    again = image_store.open_pixels(decoded(records, broken="skip"), folder=cache, limit_gib=GIB)
    assert again.broken_rows == []
    np.testing.assert_array_equal(again.read(np.array([3]))[0], decoded(records).read(np.array([3]))[0])


@pytest.mark.parametrize("place", [0.0, 0.31, 0.99])
def test_a_flipped_bit_is_noticed(records, cache, place):
    stored = image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    file = stored.folder / "images.npy"
    content = bytearray(file.read_bytes())
    row = int(place * 12)
    content[128 + int(place * (len(content) - 128))] ^= 4
    file.write_bytes(content)
    again = image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
    again.read(np.setdiff1d(np.arange(12), [row]))
    for read in (lambda: again.read(np.array([0, row])), lambda: again.whole(2)):
        with pytest.raises(UserError, match=rf"damaged \(the pixels of row {row} are not .*delete that folder"):
            read()


@pytest.mark.parametrize("name", ["images.npy", "table.npz"])
def test_no_single_bit_of_a_store_is_trusted(records, cache, name):
    """A bit anywhere changes nothing, or is an error."""
    fly = decoded(records)
    stored = image_store.open_pixels(fly, folder=cache, limit_gib=GIB)
    whole = (stored.folder / name).read_bytes()
    expected = fly.read(np.arange(12))
    for place in np.random.default_rng(0).integers(0, min(len(whole), 400), 60):
        (stored.folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = image_store.open_pixels(fly, folder=cache, limit_gib=GIB).read(np.arange(12))
        except UserError as error:
            said = str(error)
        else:
            said = "damaged, or" * all(map(np.array_equal, found, expected))
        assert "damaged" in said


class Counted:
    """A source that says by its stamp whether something changed, and counts what is read."""

    def __init__(self, source):
        self.source, self.mark, self.read = source, "first", 0

    def __len__(self):
        return len(self.source)

    def stamp(self):
        return self.mark

    def encoded(self, indices):
        self.read += len(indices)
        return self.source.encoded(indices)


def test_bytes_are_read_through_once_while_the_source_says_that_nothing_changed(records, cache):
    source = Counted(records.source)
    table = dataclasses.replace(records, source=source)
    first = image_store.open_pixels(decoded(table), folder=cache, limit_gib=GIB)
    assert source.read == 2 * 12  # looked at, then decoded
    assert image_store.open_pixels(decoded(table), folder=cache, limit_gib=GIB).folder == first.folder
    assert source.read == 2 * 12
    # Moved or touched, but the same bytes: the store stays.
    source.mark = "second"
    assert image_store.open_pixels(decoded(table), folder=cache, limit_gib=GIB).folder == first.folder
    assert source.read == 3 * 12
    # A damaged note is not believed.
    for note in Path(cache).glob("content-*"):
        note.write_text("nonsense")
    assert image_store.open_pixels(decoded(table), folder=cache, limit_gib=GIB).folder == first.folder


class TestBrokenImages:
    def test_error_stops_the_build_and_names_the_file(self, records, cache):
        damage(records, 4)
        with pytest.raises(images.BrokenImage, match=r"'nir' of 0004\.jpg of noise/train"):
            image_store.open_pixels(decoded(records), folder=cache, limit_gib=GIB)
        assert not folders(cache)

    def test_skip_marks_and_reports_them(self, records, cache, caplog):
        damage(records, 4)
        damage(records, 9, "rgb")
        stored = image_store.open_pixels(decoded(records, broken="skip"), folder=cache, limit_gib=GIB)
        pixels, readable = stored.read(np.arange(12))
        assert np.flatnonzero(~readable).tolist() == stored.broken_rows == [4, 9]
        assert not pixels[[4, 9]].any()
        assert "2 of 12 samples of noise/train cannot be read and are replaced: 0004.jpg, 0009.jpg" in caplog.text
