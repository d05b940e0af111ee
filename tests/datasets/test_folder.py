"""Folders of one's own images: which modality they are of."""

import pytest

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
        ("own", None, "rgb", 1),
        ("own", "nir", "nir", 1),
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


def test_what_cannot_be_told_is_named(tree):
    with pytest.raises(UserError, match=r"holds rgb and nir, but this model sees one modality at a time"):
        folder.open_folder(tree, ("rgb", "nir"), one=True)
    with pytest.raises(UserError, match="must hold the same file names"):
        folder.open_folder(tree, ("rgb", "nir"))
    with pytest.raises(UserError, match=r"does not know the modality 'sonar'; it sees rgb, nir"):
        folder.open_folder(tree / "own", ("rgb", "nir"), "sonar")
    with pytest.raises(UserError, match="there is no folder"):
        folder.open_folder(tree / "nothing", ("rgb",))
