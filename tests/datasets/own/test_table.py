"""Tables of images: columns, separators, and what is wrong in rows."""

import os

import pytest

from mmreid_jax.datasets.own import table
from mmreid_jax.datasets.own.faults import Faults
from mmreid_jax.errors import UserError
from tests.datasets.own import made


def read(root, text, names=("a.jpg", "b.jpg", "sub/c.png")):
    made.write(root, names)
    (root / "people.csv").write_text(text, encoding="utf-8")
    faults = Faults()
    return table.read(root / "people.csv", root, faults), faults


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_row_for_each_image(separator, tmp_path):
    text = (
        "\ufefffile, Identity,camera,time,modality,split\r\na.jpg,anna,front,3,ir,train\r\n\r\nsub/c.png,7,,,,query\r\n"
    )
    found, faults = read(tmp_path, text.replace(",", separator))
    assert not faults
    assert [(x.file, x.identity, x.camera, x.scene, x.modality, x.split) for x in found] == [
        ("a.jpg", "anna", "front", "3", "nir", "train"),
        ("sub/c.png", "7", "", "", "rgb", "query"),
    ]
    assert found[1].path == tmp_path / "sub" / "c.png"


def test_a_row_for_each_sample_or_a_column_that_pairs_rows(tmp_path):
    (first, second), _ = read(tmp_path, "identity,rgb,tir\n1,a.jpg,b.jpg\n")
    assert (first.modality, second.modality, first.key == second.key) == ("rgb", "tir", True)
    found, _ = read(tmp_path, "file,identity,modality,sample\na.jpg,1,rgb,s\nb.jpg,1,tir,s\nsub/c.png,1,rgb,t\n")
    assert [each.key for each in found] == ["s", "s", "t"]


def test_all_that_is_wrong_with_rows_is_said_at_once(tmp_path):
    rows = ["a.jpg,1,rgb,train", "a.jpg,1,rgb,train", "d.jpg,1,rgb,", ",2,rgb,", "b.jpg,,rgb,", "../x.jpg,1,rgb,"]
    rows += ["b.jpg,3,xray,", "sub/c.png,3,rgb,val", "", '"no, such.jpg",4,rgb,']
    _, faults = read(tmp_path, "\n".join(["file,identity,modality,split", *rows]))
    assert faults.lines == [
        "2 files are not there: d.jpg (line 4), no, such.jpg (line 11)",
        "1 rows name no file: line 5",
        "1 rows have no identity: line 6",
        f"1 files lie outside of {tmp_path} (--folder names another): ../x.jpg (line 7)",
        "1 rows have an unknown modality (known are rgb, nir, tir and their other words): line 8 (xray)",
        "1 rows have an unknown split (known are train, bounding_box_train, test, query, gallery, bounding_box_test): "
        "line 9",
        "1 files are named twice: a.jpg",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it needs identity"),
        ("file,person\na.jpg,1\n", "a column 'person'"),
        ("file\na.jpg\n", "it needs identity"),
        ("identity\n1\n", "it needs identity, and file"),
        ("file,rgb,identity\na.jpg,b.jpg,1\n", "it needs identity, and file or one"),
        ("file,identity\n", "has no row"),
    ],
)
def test_a_table_that_is_none(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_a_table_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        table.read(tmp_path / "none.csv", tmp_path, Faults())
    (tmp_path / "people.csv").write_bytes("file,identity\nä.jpg,1".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        table.read(tmp_path / "people.csv", tmp_path, Faults())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"file,identity\na.jpg,{'x' * 200_000}\n", "line 2, field larger than field limit"),
        (f"{'x' * 200_000},identity\n", "its first line, field larger"),
        ("file,identity,identity\na.jpg,1,2\n", "two columns 'identity'"),
    ],
)
def test_a_table_that_csv_cannot_be(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "people.csv")
    (tmp_path / "zeros.csv").symlink_to("/dev/zero")
    for name in ("people.csv", "zeros.csv"):
        with pytest.raises(UserError, match="it is no regular file"):
            table.read(tmp_path / name, tmp_path, Faults())
