"""Files for other programs make the features of the live model, for every method and every way to ask it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from mmreid_jax.errors import UserError
from mmreid_jax.export import checking, files
from mmreid_jax.export.network import IMAGENET, Contract, Network
from mmreid_jax.methods import base
from mmreid_jax.model import Model
from tests.export import models

CASES = [(name, *case) for name, cases in models.EVERY.items() for case in cases]


def network(name, modalities="", feature="", contract=None):
    chosen = (modalities,) if modalities else ()
    return Network(models.extractor(name), chosen, feature, contract)


def test_every_method_is_exported():
    assert set(models.EVERY) == set(base.names())


@pytest.mark.slow_cases(
    "caj-nir-",
    "deen-nir-",
    "deen-rgb-pool",
    "demo_moe--",
    "demo_moe-rgb-",
    "ieee--",
    "mdreid--",
    "tvi_lfm-nir-fusion",
    "tvi_lfm-nir-mer",
    "tvi_lfm-nir-text",
)
@pytest.mark.parametrize(("name", "modalities", "feature"), CASES)
def test_onnx_makes_the_features_of_the_live_model(name, modalities, feature, tmp_path):
    exported = network(name, modalities, feature)
    difference = files.write_onnx(exported, tmp_path / "model.onnx", 200)
    assert difference.largest < checking.LARGEST_DIFFERENCE
    assert difference.images == 200
    # Untrained networks see noise alike; what is compared must not be one point.
    live = exported.live(checking.samples(exported, 20))
    assert np.linalg.norm(live - live.mean(axis=0), axis=1).min() > 100 * difference.largest
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [each.name for each in session.get_inputs()] == list(exported.inputs)
    assert all(each.shape[0] == "batch" for each in session.get_inputs())
    assert session.get_outputs()[0].shape == ["batch", exported.dimension]


@pytest.mark.slow_cases("caj-nir-", "deen-nir-", "demo_moe--", "ieee--", "tvi_lfm-nir-fusion", "tvi_lfm-nir-text")
@pytest.mark.parametrize(("name", "modalities", "feature"), CASES[::2])
def test_stablehlo_makes_the_features_of_the_live_model(name, modalities, feature, tmp_path):
    exported = network(name, modalities, feature)
    difference = files.write_stablehlo(exported, tmp_path / "model.stablehlo", 40)
    assert difference.largest < checking.LARGEST_DIFFERENCE
    described = json.loads((tmp_path / "model.json").read_text())
    assert list(described["inputs"]) == list(exported.inputs)
    assert described["platforms"] == ["cpu", "cuda"]


@pytest.mark.slow(short=True)
def test_stablehlo_needs_jax_alone(tmp_path):
    exported = network("agw", "nir")
    files.write_stablehlo(exported, tmp_path / "model.stablehlo", 4)
    given = checking.samples(exported, 3)
    np.save(tmp_path / "images.npy", given["nir"])
    code = (
        "import sys\nsys.modules['mmreid_jax'] = sys.modules['flax'] = None\n"
        "import pathlib, jax, numpy as np\n"
        "program = jax.export.deserialize(bytearray(pathlib.Path('model.stablehlo').read_bytes()))\n"
        "np.save('features.npy', program.call(np.load('images.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", f"import jax.export\n{code}"], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), exported.live(given), atol=1e-5)


@pytest.mark.parametrize(("pixels", "size"), [("uint8", ()), ("imagenet", ()), ("unit", (48, 48)), ("uint8", (20, 40))])
def test_preprocessing_is_inside(pixels, size, tmp_path):
    exported = network("htt", "rgb", contract=Contract(pixels, size, "images"))
    assert files.write_onnx(exported, tmp_path / "model.onnx", 40).largest < checking.LARGEST_DIFFERENCE
    shape, dtype = exported.inputs["images"]
    assert shape == (3, *(size or (32, 16)))
    assert dtype == (np.uint8 if pixels == "uint8" else np.float32)


@pytest.mark.slow(short=True)
def test_the_file_and_the_public_model_agree_on_image_files(tmp_path):
    """By another way than the check at export: files, decoded, resized and embedded as the library does it."""
    extractor = models.extractor("agw")
    rng = np.random.default_rng(0)
    pixels = np.asarray(
        [np.asarray(Image.fromarray(rng.integers(0, 256, (8, 4, 3), np.uint8)).resize((16, 32))) for _ in range(6)]
    )
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    live = Model(extractor).embed({"nir": sorted(tmp_path.glob("*.png"))})
    for kind, scaled in (
        ("uint8", pixels),
        ("unit", np.float32(pixels / 255)),
        ("imagenet", np.float32((pixels / 255 - IMAGENET["mean"]) / IMAGENET["std"])),
    ):
        out = tmp_path / f"{kind}.onnx"
        files.write_onnx(Network(extractor, ("nir",), "", Contract(kind)), out, 4)
        session = onnxruntime.InferenceSession(out)
        (made,) = session.run(None, {"nir": scaled.transpose(0, 3, 1, 2)})
        np.testing.assert_allclose(made, live, atol=2e-5)


def test_a_file_says_what_it_is(tmp_path):
    files.write_onnx(network("htt"), tmp_path / "model.onnx", 4)
    model = onnx.load(tmp_path / "model.onnx")
    facts = {each.key: each.value for each in model.metadata_props}
    assert facts["method"] == "htt"
    assert facts["modalities"] == "rgb,nir,tir"
    assert (facts["input_size"], facts["dimension"], facts["normalised"]) == ("32x16", "96", "L2")
    assert facts["library"].startswith("mmreid_jax ")
    assert (model.producer_name, model.opset_import[0].version) == ("mmreid_jax", 17)


def test_a_wrong_graph_is_not_written(tmp_path, monkeypatch):
    exported = network("agw", "nir")
    live = exported.live
    monkeypatch.setattr(exported, "live", lambda inputs: np.roll(live(inputs), 1, axis=1))
    for write, name in ((files.write_onnx, "model.onnx"), (files.write_stablehlo, "model.stablehlo")):
        with pytest.raises(UserError, match="differs from the live model"):
            write(exported, tmp_path / name, 8)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.onnx")
    files.write_onnx(network("agw", "nir"), path, 4)
    assert path.is_file()


def test_a_program_without_its_description_is_not_left(tmp_path, monkeypatch):
    """Whose the program is stands in the description: alone it would look like somebody else's."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    exported = network("agw", "nir")
    with monkeypatch.context() as patch:
        patch.setattr(files.json, "dumps", full)
        with pytest.raises(OSError):
            files.write_stablehlo(exported, tmp_path / "m.stablehlo", 4)
    assert not list(tmp_path.iterdir())
    files.write_stablehlo(exported, tmp_path / "m.stablehlo", 4)
    (tmp_path / "m.stablehlo").unlink()
    files.check_targets("stablehlo", tmp_path / "m.stablehlo", overwrite=True)


def test_features_that_are_no_numbers_are_said_to_be_so(monkeypatch):
    exported = network("agw", "nir")
    live = exported.live
    with pytest.raises(UserError, match="the file makes features that are no finite numbers, of 8 of 8"):
        checking.compare(exported, lambda inputs: live(inputs) * np.nan, 8, "the file")
    monkeypatch.setattr(exported, "live", lambda inputs: live(inputs) * np.nan)
    with pytest.raises(UserError, match="the model itself makes features that are no finite numbers"):
        checking.compare(exported, live, 8, "the file")


def test_foreign_files_stay(tmp_path):
    foreign = tmp_path / "model.onnx"
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph, producer_name="another"), foreign)
    (tmp_path / "noise.onnx").write_bytes(b"\xff" * 64)
    (tmp_path / "model.stablehlo").write_bytes(b"somebody's")
    for name, kind in (("model.onnx", "onnx"), ("noise.onnx", "onnx"), ("model.stablehlo", "stablehlo")):
        with pytest.raises(UserError, match="not overwritten"):
            files.check_targets(kind, tmp_path / name, overwrite=True)
    files.write_onnx(network("agw", "nir"), tmp_path / "ours.onnx", 4)
    files.check_targets("onnx", tmp_path / "ours.onnx", overwrite=True)
    with pytest.raises(UserError, match="--overwrite"):
        files.check_targets("onnx", tmp_path / "ours.onnx", overwrite=False)


def test_what_onnx_needs_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'mmreid_jax\[onnx\]'"):
        files.need_onnx()
