"""Folders of one's own images: which modality they are of."""

import os

import pytest

from mmreid_jax.data import listing
from mmreid_jax.datasets import folder
from mmreid_jax.errors import UserError
from tests.data.noise_records import encoded_noise


@pytest.fixture
def tree(tmp_path):
    for place, names in {"VIS": ("a", "b"), "ir": ("a", "b", "c"), "own": ("d",)}.items():
        (tmp_path / place).mkdir()
        for name in names:
            (tmp_path / place / f"{name}.jpg").write_bytes(encoded_noise(1))
    return tmp_path


@pytest.mark.parametrize(
    ("place", "modality", "seen", "files"),
    [
        ("VIS", None, "rgb", 2),
        ("ir", None, "nir", 3),
        ("own", "rgb", "rgb", 1),
        ("own", "nir", "nir", 1),
        ("own", "infrared", "nir", 1),
        ("own", "visible", "rgb", 1),
        ("ir", "rgb", "rgb", 3),
        (".", "nir", "nir", 3),
        (".", "rgb", "rgb", 2),
    ],
)
def test_the_modality_of_a_folder(tree, place, modality, seen, files):
    table, absent = folder.open_folder(tree / place, ("rgb", "nir"), modality, one=True)
    assert {seen, *absent} == {"rgb", "nir"}
    assert len(absent) == 1
    assert len(table) == len(table.encoded(range(files))) == files


@pytest.mark.parametrize(
    ("name", "modalities", "seen"),
    [
        ("thermal", ("rgb", "tir"), "tir"),
        ("my_thermal_photos", ("rgb", "tir"), "tir"),
        ("ir", ("rgb", "tir"), "tir"),
        ("Infrared", ("rgb", "nir"), "nir"),
        ("query-RGB", ("rgb", "nir"), "rgb"),
        ("visible", ("rgb", "nir", "tir"), "rgb"),
        ("TIR", ("rgb", "nir", "tir"), "tir"),
    ],
)
def test_a_folders_name_says_what_its_images_are(tmp_path, name, modalities, seen, caplog):
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.png").write_bytes(encoded_noise(1, kind="PNG"))
    for one in {True, len(modalities) > 2}:
        _, absent = folder.open_folder(tmp_path / name, modalities, one=one)
        assert set(modalities) - set(absent) == {seen}
    assert not caplog.records


def test_one_folder_for_each_modality(tmp_path):
    for name in ("visible", "thermal"):
        (tmp_path / name).mkdir()
        for image in "ab":
            (tmp_path / name / f"{image}.png").write_bytes(encoded_noise(len(name), kind="PNG"))
    table, absent = folder.open_folder(tmp_path, ("rgb", "nir", "tir"))
    assert (len(table), absent) == (2, ("nir",))
    rgb, _, tir = (table.of_modality(name).encoded([0])[0] for name in ("rgb", "nir", "tir"))
    assert rgb["rgb"] == encoded_noise(7, kind="PNG")
    assert tir["tir"] == encoded_noise(7, kind="PNG")
    (tmp_path / "ti").mkdir()
    with pytest.raises(UserError, match=r"holds thermal and ti, both of modality tir"):
        folder.open_folder(tmp_path, ("rgb", "nir", "tir"))


def test_a_network_for_each_modality_cannot_tell(tree, caplog):
    for _ in range(2):
        with pytest.raises(UserError, match=r"nothing says which modality .*own are of.*name it with --query_modality"):
            folder.open_folder(tree / "own", ("rgb", "nir"), one=True, flag="--query_modality")
    (tree / "own").rename(tree / "rgb_and_ir")
    with pytest.raises(UserError, match="nothing says which modality"):
        folder.open_folder(tree / "rgb_and_ir", ("rgb", "nir"), one=True)
    (tree / "rgb_and_ir").rename(tree / "thermal")
    with pytest.raises(UserError, match=r"by its name .* holds tir images, but the model sees rgb, nir"):
        folder.open_folder(tree / "thermal", ("rgb", "nir"), one=True)
    table, absent = folder.open_folder(tree / "thermal", ("rgb", "nir"), "nir", one=True)
    assert (len(table), absent) == (1, ("rgb",))


def test_a_network_for_all_modalities_says_what_it_takes_them_for(tree, caplog):
    _, absent = folder.open_folder(tree / "own", ("rgb", "nir", "tir"))
    assert absent == ("nir", "tir")
    assert "own: taken for rgb images, as nothing says what they are; --modality does" in caplog.text


@pytest.fixture
def mixed(tmp_path):
    """A folder of everything that may be found among images."""
    place = tmp_path / "rgb"
    place.mkdir()
    for name, kind in (("a.JPG", "JPEG"), ("b.tif", "TIFF"), ("c.WebP", "WEBP"), ("d.bmp", "BMP"), ("e.TIFF", "TIFF")):
        (place / name).write_bytes(encoded_noise(len(name), kind=kind))
    os.link(place / "a.JPG", os.fsencode(place) + b"/caf\xe9.jpg")
    (place / "linked.png").symlink_to(place / "d.bmp")
    (place / "zero.jpg").touch()
    (place / "._a.JPG").write_bytes(b"apple")
    (place / "cut.jpg").write_bytes(encoded_noise(1)[:-30])
    (place / "text.png").write_text("hello")
    (place / "folder.jpg").mkdir()
    (place / "dangling.png").symlink_to("nowhere")
    (place / "circle.png").symlink_to("circle.png")
    (place / "photo.HEIC").write_bytes(b"ftypheic")
    (place / "notes.txt").write_text("no image")
    (place / ".DS_Store").write_bytes(b"no image")
    os.mkfifo(place / "pipe.png")
    return place


GOOD = {"a.JPG", "b.tif", "c.WebP", "d.bmp", "e.TIFF", "caf\udce9.jpg", "linked.png"}
BAD = {
    "zero.jpg": "the file is empty",
    "._a.JPG": "a hidden file",
    "folder.jpg": "a folder",
    "dangling.png": "a link to nothing",
    "circle.png": "symbolic links",
    "photo.HEIC": "not read",
    "pipe.png": "pipe",
    "cut.jpg": "",
    "text.png": "no image of a known format",
}


class TestBrokenImages:
    def test_what_cannot_be_used_is_left_out_and_named(self, mixed):
        listed, _ = folder.open_folder(mixed, ("rgb",))
        table = folder.checked(listed, threads=2)
        assert set(table.file.tolist()) == GOOD
        assert table.left_out.keys() == BAD.keys()
        assert all(BAD[name] in why for name, why in table.left_out.items())
        assert len(table.encoded(range(len(table)))) == len(GOOD)

    def test_or_refused_and_named(self, mixed):
        listed, _ = folder.open_folder(mixed, ("rgb",))
        with pytest.raises(UserError, match=r"9 files in .*rgb cannot be used: .*zero\.jpg.*--broken skip"):
            folder.checked(listed, "stop")

    def test_a_sample_needs_all_its_images(self, mixed):
        other = mixed.parent / "nir"
        other.mkdir()
        for name in ("a.JPG", "b.tif", "c.WebP", "d.bmp", "e.TIFF", "linked.png", "zero.jpg", "cut.jpg", "text.png"):
            (other / name).write_bytes(encoded_noise(3))
        os.link(other / "a.JPG", os.fsencode(other) + b"/caf\xe9.jpg")
        (other / "b.tif").write_bytes(b"")
        (other / "c.WebP").write_bytes(b"RIFF")
        listed, _ = folder.open_folder(mixed.parent, ("rgb", "nir"))
        table = folder.checked(listed)
        assert set(table.file.tolist()) == GOOD - {"b.tif", "c.WebP"}
        assert table.left_out["b.tif"] == "the file is empty"
        assert "c.WebP" in table.left_out

    def test_nothing_but_broken_ones(self, tmp_path):
        (tmp_path / "a.png").write_text("hello")
        listed, _ = folder.open_folder(tmp_path, ("rgb",))
        with pytest.raises(UserError, match=r"no image in .* can be used: a\.png \(it is no image of a known format\)"):
            folder.checked(listed)
        (tmp_path / "a.png").write_bytes(b"")
        with pytest.raises(UserError, match=r"no image in .* can be used: a\.png \(the file is empty\)"):
            folder.checked(listed)
        (tmp_path / "a.png").unlink()
        (tmp_path / "a.png").symlink_to("nowhere")
        with pytest.raises(UserError, match=r"holds no image that can be used; a\.png \(a link to nothing\)"):
            folder.open_folder(tmp_path, ("rgb",))

    def test_a_file_that_becomes_a_pipe_is_not_waited_for(self, mixed):
        listed, _ = folder.open_folder(mixed, ("rgb",))
        (mixed / "d.bmp").unlink()
        os.mkfifo(mixed / "d.bmp")
        table = folder.checked(listed)
        assert set(table.file.tolist()) == GOOD - {"d.bmp", "linked.png"}
        assert "pipe" in table.left_out["d.bmp"]

    def test_a_folder_that_may_not_be_read(self, mixed, monkeypatch):
        def refuse(place):
            raise PermissionError(13, "Permission denied", str(place))

        # As root may read everything.
        monkeypatch.setattr(listing.os, "scandir", refuse)
        with pytest.raises(UserError, match=r"the folder .*rgb cannot be read \(permission denied\)"):
            folder.open_folder(mixed, ("rgb",), "rgb")


def test_listing_at_any_depth(mixed):
    (mixed / "below" / "deeper").mkdir(parents=True)
    (mixed / "below" / "deeper" / "x.png").write_bytes(encoded_noise(1, kind="PNG"))
    (mixed / "below" / "up").symlink_to(mixed)  # a circle of folders
    found = listing.list_images(mixed, below=True)
    readable = GOOD | {"cut.jpg", "text.png", "zero.jpg", "below/deeper/x.png"}
    assert set(found.files) == readable
    assert set(found.unusable) == BAD.keys() - {"cut.jpg", "text.png", "zero.jpg"}
    assert set(listing.list_images(mixed).files) == readable - {"below/deeper/x.png"}


def test_what_cannot_be_told_is_named(tree):
    with pytest.raises(UserError, match=r"holds rgb and nir, but this model sees one modality at a time"):
        folder.open_folder(tree, ("rgb", "nir"), one=True)
    with pytest.raises(UserError, match="must hold the same file names"):
        folder.open_folder(tree, ("rgb", "nir"))
    with pytest.raises(UserError, match=r"does not know the modality 'sonar'; it sees rgb, nir"):
        folder.open_folder(tree / "own", ("rgb", "nir"), "sonar")
    with pytest.raises(UserError, match="there is no folder"):
        folder.open_folder(tree / "nothing", ("rgb",))


def test_names_of_ones_own_data_say_nothing_wherever_the_data_are(tmp_path):
    (tmp_path / "000001_cam1_0_00.jpg").write_bytes(encoded_noise(1))
    table, _ = folder.open_folder(tmp_path, ("rgb",))
    assert folder.with_labels(table, "rgbnt201").identity.tolist() == [1]
    assert folder.with_labels(table, "own:nowhere") is None
