"""The builders of the visible-infrared data sets: lists, order, class indices, and what is wrong with a copy."""

import shutil

import pytest

from mmreid_jax import datasets
from mmreid_jax.datasets import catalogue
from mmreid_jax.datasets.prepare import prepare
from mmreid_jax.errors import UserError
from tests.datasets import trees
from tests.datasets.lists import listed, reference_trees


@pytest.mark.parametrize(
    ("dataset", "lost"),
    [
        ("sysu_mm01", "cam4"),
        ("sysu_mm01", "exp/val_id.txt"),
        ("regdb", "Thermal"),
        ("regdb", "idx/test_thermal_1.txt"),
        ("llcm", "nir"),
        ("llcm", "test_vis"),
        ("llcm", "idx/test_id.txt"),
    ],
)
def test_what_is_missing_is_named_with_the_way_out(dataset, lost, tmp_path):
    root = trees.write(dataset, tmp_path)
    if (root / lost).is_dir():
        shutil.rmtree(root / lost)
    else:
        (root / lost).unlink()
    with pytest.raises(UserError) as caught:
        prepare(dataset, tmp_path, tmp_path / "data")
    layout, message = datasets.get(dataset).folders, str(caught.value)
    assert f"{trees.FOLDERS[dataset]}/{lost}. Expected tree: {layout.tree}. {layout.source}" in message
    assert f"python -m mmreid_jax synthesize --dataset {layout.name} --out DIR" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("dataset", "split", "lost"),
    [
        ("regdb", "train", "Thermal/7/male_back_t_00702_7.bmp"),
        ("regdb", "query", "Visible/12/male_back_v_01200_12.bmp"),
        ("llcm", "train", "vis/0012/0012_c09_s200519_f10_vis.jpg"),
    ],
)
def test_a_listed_file_that_is_not_there_is_named(dataset, split, lost, tmp_path):
    root = trees.write(dataset, tmp_path)
    (root / lost).unlink()
    with pytest.raises(UserError, match=rf"1 of \d files of the list idx/.* are not in .*{lost}; complete the copy"):
        listed(dataset, root, split)


@pytest.mark.parametrize("text", ["", "\n", "1;2;3", "one,two", "1,2,-3"])
@pytest.mark.parametrize(("dataset", "name"), [("sysu_mm01", "exp/test_id.txt"), ("llcm", "idx/test_id.txt")])
def test_a_damaged_list_of_identities_is_an_error(dataset, name, text, tmp_path):
    root = trees.write(dataset, tmp_path)
    (root / name).write_text(text)
    with pytest.raises(UserError, match=f"{name} must begin with a line of comma-separated identities"):
        listed(dataset, root, "query")


@pytest.mark.parametrize("dataset", ["regdb", "llcm"])
def test_other_lists_are_other_data(dataset, tmp_path):
    root = trees.write(dataset, tmp_path / "raw")
    prepare(dataset, tmp_path / "raw", tmp_path / "data")
    for path in root.glob("idx/train_*.txt"):
        path.write_text("\n".join(line[:-1] + str(1 - int(line[-1])) for line in path.read_text().splitlines()))
    with pytest.raises(UserError, match=r"prepared in .* from other files .*--force"):
        prepare(dataset, tmp_path / "raw", tmp_path / "data")
    assert prepare(dataset, tmp_path / "raw", tmp_path / "data", force=True).fresh
    assert catalogue.load(dataset, "train", tmp_path / "data").label[0] == 1


@pytest.mark.parametrize("case", reference_trees(), ids=lambda case: case.name)
@pytest.mark.parametrize(
    ("dataset", "split", "key"),
    [
        ("sysu_mm01", "query", "sysu/query/all"),
        ("llcm", "query", "llcm/query/nir"),
        ("llcm", "gallery", "llcm/query/vis"),
    ],
)
def test_rows_lie_in_the_order_of_the_reference(case, dataset, split, key, tmp_path):
    part = case.json[dataset.partition("_")[0]]
    texts = {name: "1" for name in ("exp/train_id.txt", "exp/val_id.txt")} | {
        f"idx/{name}.txt": "" for name in ("train_vis", "train_nir", "test_vis", "test_nir")
    }
    texts |= {name: text for name, text in part.items() if name.endswith(".txt")}
    for name, text in [*texts.items(), *dict.fromkeys(part["files"], "").items()]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    samples = listed(dataset, tmp_path, split)
    assert [sample.file for sample in samples] == [part["files"][i] for i in case.arrays[key]]
    if f"{key}_pids" in case.arrays:
        assert [sample.labels.identity for sample in samples] == case.arrays[f"{key}_pids"].tolist()
        assert [sample.labels.camera + 1 for sample in samples] == case.arrays[f"{key}_cams"].tolist()
