"""Part of a split by a list of its files."""

import numpy as np
import pytest

from mmreid_jax.datasets import subset
from mmreid_jax.errors import UserError
from tests.data.noise_records import noise_records


@pytest.fixture
def records(tmp_path):
    return noise_records(tmp_path / "images", counts=(4, 2, 3))


def test_a_folder_with_folders_of_modalities(records, tmp_path):
    chosen = records.file[[7, 1, 2]]
    for modality in ("RGB", "NI"):
        (tmp_path / "part" / modality).mkdir(parents=True)
        for name in chosen:
            (tmp_path / "part" / modality / name).touch()
    (tmp_path / "part" / "notes.txt").touch()
    part = subset.listed(records, tmp_path / "part")
    np.testing.assert_array_equal(part.file, records.file[[1, 2, 7]])
    np.testing.assert_array_equal(part.identity, records.identity[[1, 2, 7]])
    assert part.name == f"{records.name}, 3 of 9 samples"
    assert part.class_index().tolist() == [0, 0, 1]


def test_a_text_file_with_paths_and_labels(records, tmp_path):
    lines = [f"train/RGB/{records.file[0]} 3", "", str(records.file[8])]
    for encoding in ("utf-8-sig", "utf-8"):
        (tmp_path / "list.txt").write_text("\n".join(lines), encoding=encoding)
        assert len(subset.listed(records, tmp_path / "list.txt")) == 2
    np.testing.assert_array_equal(subset.listed(records, tmp_path / "list.txt").file, records.file[[0, 8]])


def test_what_cannot_be_a_part(records, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="names no image"):
        subset.listed(records, tmp_path / "empty")
    with pytest.raises(UserError, match="neither a folder nor a list"):
        subset.listed(records, tmp_path / "absent")
    (tmp_path / "list.txt").write_text(f"{records.file[0]}\nother.jpg\n")
    with pytest.raises(UserError, match=r"1 of 2 files listed by .* are not in noise/train, such as other.jpg"):
        subset.listed(records, tmp_path / "list.txt")
