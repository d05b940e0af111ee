"""A trained model for other programs, by the command."""

from __future__ import annotations

import json

import jax
import numpy as np
import onnxruntime
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import mmreid_jax
from mmreid_jax.commands import export
from mmreid_jax.convert import shared
from mmreid_jax.errors import UserError, run_command
from mmreid_jax.testing import tiny
from mmreid_jax.training import checkpoints
from tests import limits
from tests.export import models

SCORES = {"mAP": 0.25, "rank-1": 0.5}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Workdirs of untrained models, of which one was scored."""
    made = {}
    for name in ("htt", "agw", "tvi_lfm"):
        config, method = tiny.method(name)
        made[name] = tmp_path_factory.mktemp(name)
        shapes = jax.eval_shape(method.init, jax.random.key(0))
        variables = jax.tree_util.tree_map_with_path(models.weights, shapes)
        checkpoints.keep_copy(made[name], variables, config, tiny.facts(name))
    with checkpoints.Checkpoints(made["agw"] / checkpoints.FOLDER) as store:
        store.rate(0, SCORES)
    return made


def run(runs, name, out, *flags):
    export.main(["--checkpoint", str(runs[name]), "--out", str(out), "--check", "8", *flags])


@pytest.mark.slow(short=True)
def test_onnx(runs, tmp_path, capsys):
    out = tmp_path / "new" / "model.onnx"
    run(runs, "htt", out, "--input", "uint8")
    printed = capsys.readouterr().out
    assert "input rgb: uint8 [batch, 3, 32, 16]" in printed
    assert "output features: float32 [batch, 96], after of length 1" in printed
    assert "largest difference from the live model" in printed
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 16, 3), np.uint8)
    given = dict(zip(("rgb", "nir", "tir"), pixels, strict=True))
    (made,) = onnxruntime.InferenceSession(out).run(
        None, {name: each.transpose(0, 3, 1, 2) for name, each in given.items()}
    )
    np.testing.assert_allclose(made, mmreid_jax.load(runs["htt"]).embed(given), atol=2e-5)
    with pytest.raises(UserError, match="--overwrite"):
        run(runs, "htt", out)
    run(runs, "htt", out, "--overwrite", "--modalities", "nir,rgb")
    assert [each.name for each in onnxruntime.InferenceSession(out).get_inputs()] == ["rgb", "nir"]


@pytest.mark.slow(short=True)
def test_absent_modalities_are_those_of_the_model(runs, tmp_path):
    run(runs, "htt", tmp_path / "model.onnx", "--modalities", "nir", "--input", "uint8")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), np.uint8)
    (made,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"nir": pixels.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(made, mmreid_jax.load(runs["htt"]).embed({"nir": pixels}), atol=2e-5)


@pytest.mark.slow(short=True)
def test_text(runs, tmp_path):
    run(runs, "tvi_lfm", tmp_path / "words.onnx", "--modalities", "nir", "--feature", "text")
    from mmreid_jax.data import tokenizer

    session = onnxruntime.InferenceSession(tmp_path / "words.onnx")
    assert [each.name for each in session.get_inputs()] == ["tokens_rgb"]
    words = "a man in a red jacket with a backpack"
    (made,) = session.run(None, {"tokens_rgb": np.asarray(tokenizer.tokenize([words]), np.int32)})
    model = mmreid_jax.load(runs["tvi_lfm"])
    pixels = np.zeros((1, 32, 16, 3), np.uint8)
    live = model.embed({"nir": pixels}, text={"rgb": [words], "nir": [""]}, feature="text_nir")
    np.testing.assert_allclose(made, live, atol=2e-5)


@pytest.mark.parametrize(
    ("flags", "name", "message"),
    [
        (["--for", "ultralytics", "--input", "uint8"], "m.onnx", "leave out --input"),
        (["--for", "ultralytics", "--input_size", "256x128"], "m.onnx", "squares"),
        (["--for", "boxmot"], "m.onnx", "osnet_x0_25_m.onnx"),
        (["--for", "boxmot"], "osnet_x0_25_clip.onnx", "no 'clip'"),
        (["--for", "boxmot", "--input_size", "64x64"], "osnet_x0_25.onnx", "resizes to 256x128"),
        (["--for", "ultralytics", "--format", "stablehlo"], "m.stablehlo", "is an ONNX file"),
        (["--for", "ultralytics", "--modalities", "rgb,nir"], "m.onnx", "hands over one image"),
        ([], "m.pb", "must end with .onnx"),
        (["--modalities", "uv"], "m.onnx", "sees no uv"),
        (["--feature", "best"], "m.onnx", "no feature 'best'"),
        (["--check", "1"], "m.onnx", "two samples"),
        (["--input_size", "9999x9999"], "m.onnx", "more than the 2 GiB that are used"),
        (["--check", "1000000"], "m.onnx", "choose a smaller --check"),
        (["--format", "safetensors", "--input", "uint8"], "m", "--input is for a graph"),
    ],
)
def test_mistakes_are_a_line(flags, name, message, runs, tmp_path):
    with pytest.raises(UserError, match=message):
        run(runs, "htt", tmp_path / name, *flags)
    assert not list(tmp_path.iterdir())


def test_one_modality_is_to_be_named(runs, tmp_path):
    with pytest.raises(UserError, match="one modality at a time"):
        run(runs, "agw", tmp_path / "m.onnx")


def test_the_size_that_boxmot_takes(tmp_path):
    assert export.boxmot_size(tmp_path / "osnet_x0_25_people.onnx") == (256, 128)
    assert export.boxmot_size(tmp_path / "osnet_x0_25_veri.onnx") == (256, 256)


def test_a_folder_to_pass_on_opens_again(runs, tmp_path, capsys):
    out = tmp_path / "shared"
    run(runs, "agw", out, "--format", "safetensors")
    assert "mmreid_jax.load(" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    before, after = mmreid_jax.load(runs["agw"]), mmreid_jax.load(out)
    assert repr(before) == repr(after)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), np.uint8)
    np.testing.assert_array_equal(before.embed({"nir": pixels}), after.embed({"nir": pixels}))
    facts = json.loads((out / "config.json").read_text())
    assert facts["scores"] == SCORES
    card = (out / "README.md").read_text()
    assert "| rank-1 | 50.0 |" in card
    assert "agw on sysu_mm01" in card
    assert "agreement" in card
    with safe_open(out / "model.safetensors", "numpy") as opened:
        assert all(name.split("/")[0] in ("params", "batch_stats") for name in opened.keys())  # noqa: SIM118
    # And once more, from itself.
    export.main(["--checkpoint", str(out), "--out", str(tmp_path / "again"), "--format", "safetensors"])
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_folder_of_somebody_else_stays(runs, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "thesis.txt").write_text("years of work")
    for flags in ([], ["--overwrite"]):
        with pytest.raises(UserError):
            run(runs, "agw", tmp_path / "shared", "--format", "safetensors", *flags)
    assert (tmp_path / "shared" / "thesis.txt").is_file()
    out = tmp_path / "ours"
    run(runs, "agw", out, "--format", "safetensors")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        run(runs, "agw", out, "--format", "safetensors", "--overwrite")
    (out / "notes.txt").unlink()
    run(runs, "agw", out, "--format", "safetensors", "--overwrite")


def test_a_damaged_folder_is_a_line(runs, tmp_path):
    out = tmp_path / "shared"
    run(runs, "agw", out, "--format", "safetensors")
    weights = (out / shared.WEIGHTS).read_bytes()
    (out / shared.WEIGHTS).write_bytes(weights[:-100])
    with pytest.raises(UserError):
        mmreid_jax.load(out)
    (out / shared.WEIGHTS).write_bytes(weights)
    (out / shared.CONFIG).write_text("{}")
    with pytest.raises(UserError):
        mmreid_jax.load(out)


@pytest.mark.parametrize(("kind", "name"), [("onnx", "m.onnx"), ("stablehlo", "m.stablehlo"), ("safetensors", "m")])
def test_a_full_disk_is_a_line_and_leaves_nothing(kind, name, runs, tmp_path, capsys):
    def main():
        with limits.files_of_at_most(5000):
            run(runs, "htt", tmp_path / name, "--format", kind)

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert stop.value.code == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert "ile too large" in line
    assert not list(tmp_path.iterdir())


TAMPERED = {
    "no sections": (("config",), None, "the config is None"),
    "another method": (("config", "method"), "../../etc", "unknown method"),
    "another kind": (("config", "data", "dataset"), 3, "config.data.dataset is 3"),
    "a section that is none": (("config", "model"), [1], "config.model is missing"),
    "no images": (("config", "eval", "batch_size"), 0, "config.eval.batch_size is 0"),
    "not a number": (("config", "data", "mean"), [float("nan")] * 3, "config.data.mean"),
    "another network": (("config", "model", "num_classes"), 10**6, "another number of identities"),
    "no modalities": (("facts", "modalities"), [None], "name no modalities"),
    "twice": (("facts", "modalities"), ["rgb", "rgb", "nir"], "name a modality twice"),
    "fewer": (("facts", "modalities"), ["rgb"], "is of another model"),
    "no facts": (("facts",), [], "name no modalities"),
    **{f"identities {value}": (("facts", "identities"), value, "identities") for value in (0, 1.5, True, "a", 10**30)},
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_folder_that_somebody_has_changed_is_a_line(case, runs, tmp_path):
    place, value, message = TAMPERED[case]
    out = tmp_path / "shared"
    run(runs, "htt", out, "--format", "safetensors")
    facts = json.loads((out / shared.CONFIG).read_text())
    *parents, last = place
    part = facts
    for parent in parents:
        part = part[parent]
    part[last] = value
    # One of a later version.
    facts["facts"] = {**facts["facts"], "later": 1} if isinstance(facts["facts"], dict) else facts["facts"]
    (out / shared.CONFIG).write_text(json.dumps(facts))
    with pytest.raises(UserError, match=message):
        mmreid_jax.load(out)


def test_keys_of_later_versions_are_left_out(runs, tmp_path):
    out = tmp_path / "shared"
    run(runs, "htt", out, "--format", "safetensors")
    facts = json.loads((out / shared.CONFIG).read_text())
    facts["facts"]["later"] = facts["config"]["model"]["later"] = 1
    (out / shared.CONFIG).write_text(json.dumps(facts))
    assert repr(mmreid_jax.load(out)) == repr(mmreid_jax.load(runs["htt"]))


@pytest.mark.parametrize("name", ["params", "params/backbone", "batch_stats/bottleneck/mean/below", "../x", "evil"])
def test_arrays_of_other_names_are_a_line(name, runs, tmp_path):
    out = tmp_path / "shared"
    run(runs, "htt", out, "--format", "safetensors")
    arrays = load_file(out / shared.WEIGHTS)
    save_file({**arrays, name: np.zeros(3, np.float32)}, out / shared.WEIGHTS)
    with pytest.raises(UserError, match=r"leads through an array|is not in the model"):
        mmreid_jax.load(out)
    arrays.pop("batch_stats/bottleneck/mean")
    save_file(arrays, out / shared.WEIGHTS)
    with pytest.raises(UserError, match=r"batch_stats/bottleneck/mean .* is not in the checkpoint"):
        mmreid_jax.load(out)


def test_a_search_takes_an_exported_folder(runs, tmp_path):
    from mmreid_jax.commands import extract

    out = tmp_path / "shared"
    run(runs, "agw", out, "--format", "safetensors")
    (tmp_path / "nir").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "nir" / f"{i}.png")
    extract.main(["--checkpoint", str(out), "--images", str(tmp_path / "nir"), "--out", str(tmp_path / "f.npz")])
    assert np.load(tmp_path / "f.npz")["features"].shape == (3, mmreid_jax.load(out).extractor.width)
