"""The whole way from a folder or table to records, by the command."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mmreid_jax.commands import prepare
from mmreid_jax.data.captions import TextOptions
from mmreid_jax.datasets import catalogue
from mmreid_jax.errors import UserError
from tests.datasets.own import made

PATTERN = "{identity}/c{camera}_{index}"


def run(folder, data, *more):
    prepare.main(["--folder", str(folder), "--name", "shop", "--data_dir", str(data), *more])


def left(folder):
    """Files below a folder of data but for the lock."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.fixture
def crops(tmp_path):
    return made.write(tmp_path / "crops", [f"{p:03d}/c{c}_{s}.jpg" for p, c, s in made.people()])


def test_a_folder_of_crops_becomes_a_data_set(tmp_path, crops, capsys):
    run(crops, tmp_path / "data", "--pattern", PATTERN)
    printed = capsys.readouterr().out
    assert "own:shop: complete" in printed
    assert "rgb images; splits drawn by identity, 0.5 of them for the test, seed 0" in printed
    assert "protocol own v1: " in printed
    tables = {split: catalogue.load("own:shop", split, tmp_path / "data") for split in ("train", "query", "gallery")}
    assert {split: len(table) for split, table in tables.items()} == {"train": 12, "query": 6, "gallery": 6}
    train = tables["train"]
    for row in range(len(train)):
        (content,) = train.encoded([row])[0].values()
        assert content == (crops / train.file[row]).read_bytes()
        assert int(train.file[row][:3]) == train.identity[row]
        assert int(train.file[row][5]) == train.camera[row] + 1
    directory = catalogue.prepared_dir("own:shop", tmp_path / "data")
    assert {"own.json", catalogue.CARD, catalogue.SHEET} <= {path.name for path in directory.iterdir()}


def test_a_second_run_reuses_it_and_other_labels_do_not(tmp_path, crops, capsys):
    run(crops, tmp_path / "data", "--pattern", PATTERN)
    run(crops, tmp_path / "data", "--pattern", PATTERN)
    assert "already prepared" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"prepared in .* from other files .*--force"):
        run(crops, tmp_path / "data")
    with pytest.raises(UserError, match="--force"):
        run(crops, tmp_path / "data", "--pattern", PATTERN, "--seed", "5")
    run(crops, tmp_path / "data", "--force")
    assert "cameras are not known" in capsys.readouterr().out
    assert set(catalogue.load("own:shop", "train", tmp_path / "data").camera) == {0}


def test_aligned_pngs_of_two_spectra_and_of_16_bits(tmp_path, capsys):
    from PIL import Image

    folder = made.write(tmp_path / "pairs", [f"rgb/{p}/{s}.png" for p, _, s in made.people(5, 1, 3)])
    for path in (folder / "rgb").rglob("*.png"):
        thermal = folder / "thermal" / path.relative_to(folder / "rgb")
        thermal.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 16), 30000, np.uint16)).save(thermal)
    run(folder, tmp_path / "data")
    assert "2 aligned images of each sample (rgb, tir)" in capsys.readouterr().out
    table = catalogue.load("own:shop", "query", tmp_path / "data")
    assert table.modalities == ("rgb", "tir")
    stored = table.encoded([0])[0]
    assert stored["tir"] == (folder / "thermal" / str(table.file[0]).removeprefix("rgb/")).read_bytes()


def test_visible_and_infrared_that_are_not_aligned(tmp_path, capsys):
    names = [f"rgb/{p}/v{s}.jpg" for p, _, s in made.people(6, 1, 3)]
    names += [f"ir/{p}/n{s}.jpg" for p, _, s in made.people(6, 1, 2)]
    run(made.write(tmp_path / "two", names), tmp_path / "data")
    assert "protocol own_without_cameras_ir_to_vis v1: infrared searches visible" in capsys.readouterr().out
    train = catalogue.load("own:shop", "train", tmp_path / "data")
    assert sorted(set(train.modality.tolist())) == ["nir", "rgb"]
    assert catalogue.load("own:shop", "query", tmp_path / "data").modalities == ("nir",)


def test_a_table_with_names_and_splits(tmp_path, crops):
    rows = ["file,identity,camera,split"]
    for p, c, s in made.people():
        split = "train" if p < 4 else "query" if s == 0 else "gallery"
        rows.append(f"{p:03d}/c{c}_{s}.jpg,person {p},{'door' if c == 1 else 'window'},{split}")
    (crops / "people.csv").write_text("\n".join(rows))
    prepare.main(["--csv", str(crops / "people.csv"), "--name", "shop", "--data_dir", str(tmp_path / "data")])
    assert len(catalogue.load("own:shop", "query", tmp_path / "data")) == 6
    directory = catalogue.prepared_dir("own:shop", tmp_path / "data")
    assert json.loads((directory / "own.json").read_text())["cameras"] == ["door", "window"]
    assert (directory / catalogue.IDENTITIES).read_text().splitlines()[:2] == ["identity,name", "1,person 1"]
    # The table may lie elsewhere than the images.
    (crops / "people.csv").rename(tmp_path / "people.csv")
    run(crops, tmp_path / "other", "--csv", str(tmp_path / "people.csv"))


def test_captions_of_a_table_go_into_the_records(tmp_path):
    names = [(p, m, s) for p in range(1, 6) for m in ("rgb", "ir") for s in range(2)]
    folder = made.write(tmp_path / "two", [f"{m}_{p}_{s}.jpg" for p, m, s in names])
    rows = [f'{m}_{p}_{s}.jpg,{p},{m},"{m}, {p}, {s}"' for p, m, s in names]
    (folder / "t.csv").write_text("\n".join(["file,identity,modality,caption", *rows]))
    arguments = ["--csv", str(folder / "t.csv"), "--name", "shop", "--data_dir", str(tmp_path / "data")]
    prepare.main(arguments)
    text = TextOptions("own", rephrased=0.0)
    train = catalogue.load("own:shop", "train", tmp_path / "data", text=text)
    said = [f"{name.removesuffix('.jpg').replace('_', ', ')}" for name in train.file.tolist()]
    assert train.captions["caption"].tolist() == said
    query = catalogue.load("own:shop", "query", tmp_path / "data", text=text)
    for row in range(len(query)):
        assert query.captions["rgb"][row].startswith(f"rgb, {query.identity[row]}, ")
        assert query.captions["nir"][row].startswith(f"ir, {query.identity[row]}, ")
    (folder / "t.csv").write_text((folder / "t.csv").read_text().replace("ir, 1, 0", "someone else"))
    with pytest.raises(UserError, match="prepare again with --force"):
        prepare.main(arguments)


def test_all_faults_are_listed_at_once_and_nothing_is_written(tmp_path, crops, capsys):
    for number in range(5):
        (crops / "001" / f"c1_bad{number}.jpg").write_bytes(b"no image")
    (crops / "002" / "x.jpg").write_bytes((crops / "002" / "c1_0.jpg").read_bytes())
    (crops / "003" / "photo.heic").write_bytes(b"x")
    with pytest.raises(UserError, match="has 3 kinds of faults, and nothing was written") as caught:
        run(crops, tmp_path / "data", "--pattern", PATTERN)
    assert "\n" not in str(caught.value)
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert [line.split(":")[0] for line in lines] == [
        "1 files cannot be used",
        "1 names do not end in the form {identity}/c{camera}_{index} (--pattern names another)",
        "5 images cannot be used (--broken skip leaves them out)",
    ]
    assert lines[2].count("bad") == 3
    assert not left(tmp_path / "data")


def test_broken_images_are_left_out_when_asked(tmp_path, crops, capsys):
    (crops / "001" / "c1_0.jpg").write_bytes(b"no image")
    run(crops, tmp_path / "data", "--pattern", PATTERN, "--broken", "skip", "--seed", "1")
    assert "own:shop: incomplete" in capsys.readouterr().out
    tables = [catalogue.load("own:shop", split, tmp_path / "data") for split in ("train", "query", "gallery")]
    assert sum(map(len, tables)) == len(made.people()) - 1
    text = (catalogue.prepared_dir("own:shop", tmp_path / "data") / catalogue.CARD).read_text()
    assert all(f"| {len(table)} | " in text for table in tables)


def test_check_images_decodes_each(tmp_path, crops):
    whole = (crops / "001" / "c1_0.jpg").read_bytes()
    (crops / "001" / "c1_0.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="a kind of fault"):
        run(crops, tmp_path / "data", "--pattern", PATTERN, "--check_images")
    assert not left(tmp_path / "data")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the data set with --dataset"),
        (["--folder", "x"], "give the data set a name"),
        (["--folder", "x", "--name", "My shop"], "cannot name a data set"),
        (["--folder", "x", "--name", "shop"], "there is no folder"),
        (["--folder", "x", "--name", "shop", "--dataset", "rgbnt201"], "leave them out"),
        (["--dataset", "rgbnt201", "--pattern", "x"], "go with --folder"),
        (["--csv", "x", "--name", "shop", "--pattern", "x"], "leave one of them out"),
        (["--csv", "x.csv", "--name", "shop"], "cannot be read"),
    ],
)
def test_flags_that_do_not_go_together(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        prepare.main([*arguments, "--data_dir", str(tmp_path / "data")])
