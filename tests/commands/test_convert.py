"""The command and the directories that it makes: there and back, and what goes wrong on the way."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmreid_jax import convert, errors
from mmreid_jax.commands import convert as command
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert import store, vit
from mmreid_jax.errors import UserError
from mmreid_jax.training import checkpoints

WIDTH, PATCH, SIDE, BLOCKS = 4, 2, 3, 2


def vit_entries():
    rng = np.random.default_rng(0)
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + SIDE * SIDE, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
    }
    for block in range(BLOCKS):
        for name, out, into in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 2, 1), ("mlp.fc2", 1, 2)):
            shapes[f"blocks.{block}.{name}.weight"] = (out * WIDTH, into * WIDTH)
            shapes[f"blocks.{block}.{name}.bias"] = (out * WIDTH,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{block}.{name}.weight"] = shapes[f"blocks.{block}.{name}.bias"] = (WIDTH,)
    shapes["norm.weight"] = shapes["norm.bias"] = (WIDTH,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def htt_entries():
    entries = {f"base.{name}": value for name, value in vit_entries().items()}
    entries["base.fc.weight"] = np.ones((1000, WIDTH), np.float32)
    entries["base.fc.bias"] = np.ones(1000, np.float32)
    entries["classifier.weight"] = np.ones((5, 3 * WIDTH), np.float32)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        entries[f"bottleneck.{leaf}"] = np.full(3 * WIDTH, 2, np.float32)
    entries["bottleneck.num_batches_tracked"] = np.array(4, np.int64)
    return entries


@pytest.fixture
def source(tmp_path):
    """An ImageNet ViT as a safetensors file."""
    save_file({**vit_entries(), "head.weight": np.ones((9, WIDTH), np.float32)}, tmp_path / "vit.safetensors")
    return str(tmp_path / "vit.safetensors")


@pytest.fixture
def converted(source, tmp_path):
    command.main(["--layout", "vit", "--source", source, "--out", str(tmp_path / "vit")])
    return tmp_path / "vit"


def same_bits(actual, expected):
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


class TestConvert:
    def test_accounts_are_printed_and_kept(self, source, tmp_path, capsys):
        converted = tmp_path / "weights" / "vit"
        command.main(["--layout", "vit", "--source", source, "--out", str(converted)])
        printed = capsys.readouterr().out
        assert "layout vit, 31 keys" in printed
        assert "head.weight: ImageNet classifier" in printed
        assert f"wrote {converted}" in printed
        meta = json.loads((converted / "meta.json").read_text())
        assert meta["layout"] == "vit"
        assert meta["source"] == "vit.safetensors"
        assert list(meta["dropped"]) == ["head.weight"]
        assert meta["arrays"]["params/pos_embed"] == "float32 [1, 10, 4]"

    def test_directory_is_the_file(self, converted, source):
        from_directory, meta = store.load(converted)
        from_file, _ = convert.open_weights(source, "vit")
        jax.tree.map(same_bits, from_directory, from_file)
        assert set(meta["arrays"]) == set(layouts.flatten(from_file))

    def test_there_and_back(self, tmp_path, capsys):
        save_file({f"module.{name}": value for name, value in htt_entries().items()}, tmp_path / "a.safetensors")
        command.main(["--layout", "htt", "--source", str(tmp_path / "a.safetensors"), "--out", str(tmp_path / "htt")])
        command.main(["--export", "--source", str(tmp_path / "htt"), "--out", str(tmp_path / "b.safetensors")])
        back = load_file(tmp_path / "b.safetensors")
        assert set(back) == set(htt_entries())
        for name, value in htt_entries().items():
            same_bits(back[name], np.zeros_like(value) if name.startswith("base.fc.") else value)
        assert "layout htt" in capsys.readouterr().out

    def test_convert_twice_gives_the_same(self, converted, tmp_path):
        command.main(["--layout", "vit", "--source", str(converted), "--out", str(tmp_path / "again")])
        jax.tree.map(same_bits, store.load(tmp_path / "again")[0], store.load(converted)[0])

    @pytest.mark.parametrize(
        ("size", "stride", "rows"),
        [("8x4", None, 4 * 2), ("4x8", None, 2 * 4), ("8x4", "1", 7 * 3), ("6", "1x4", 5 * 2)],
    )
    @pytest.mark.parametrize("directory", [False, True])
    def test_position_table_is_resized(self, source, converted, tmp_path, size, stride, rows, directory):
        arguments = ["--layout", "vit", "--source", str(converted) if directory else source, "--size", size]
        arguments += ["--stride", stride] if stride else []
        command.main([*arguments, "--out", str(tmp_path / "resized")])
        table = store.load(tmp_path / "resized")[0]["params"]["pos_embed"]
        assert table.shape == (1, 1 + rows, WIDTH)

    def test_list(self, source, converted, capsys):
        capsys.readouterr()
        command.main(["--list", "--source", source])
        of_file = capsys.readouterr().out
        command.main(["--list", "--source", str(converted)])
        of_directory = capsys.readouterr().out
        assert "blocks.1.attn.qkv.weight   float32   [12, 4]" in of_file
        assert "31 arrays" in of_file
        assert "params/blocks/attn/qkv/kernel" in of_directory
        assert "[2, 4, 12]" in of_directory

    def test_trained_run_is_exported(self, tmp_path):
        variables, _ = layouts.import_state(vit.layout(), vit_entries())
        state = {"params": variables["params"], "batch_stats": {}, "step": np.array(3)}
        with checkpoints.Checkpoints(tmp_path / "run") as run:
            run.save(3, jax.tree.map(jax.numpy.asarray, state), {})
        out = str(tmp_path / "w.safetensors")
        command.main(["--export", "--layout", "vit", "--source", str(tmp_path / "run"), "--out", out])
        for name, value in load_file(out).items():
            same_bits(value, vit_entries()[name])
        with pytest.raises(UserError, match="does not say what it holds; give --layout"):
            command.main(["--export", "--source", str(tmp_path / "run"), "--out", str(tmp_path / "more.safetensors")])

    def test_a_run_knows_its_layout(self, tmp_path, capsys):
        variables, _ = layouts.import_state(command.known.named("htt"), htt_entries())
        state = {**variables, "step": np.array(3)}
        with checkpoints.Checkpoints(tmp_path / "run") as run:
            run.save(3, jax.tree.map(jax.numpy.asarray, state), {"config": {"method": "htt", "model": {}}})
        out = tmp_path / "w.pth"
        command.main(["--export", "--source", str(tmp_path / "run"), "--out", str(out)])
        assert "layout htt" in capsys.readouterr().out
        found = convert.open_weights(out, "htt")[0]
        jax.tree.map(np.testing.assert_array_equal, found, variables)

    def test_as_a_program(self, source, tmp_path):
        run = [sys.executable, "-m", "mmreid_jax", "convert", "--layout", "resnet50", "--source", source]
        done = subprocess.run(
            [*run, "--out", str(tmp_path / "no")],
            cwd=pathlib.Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
        assert "looks like a timm ViT of 2 blocks, width 4" in done.stderr
        assert not (tmp_path / "no").exists()


class TestBadArguments:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--layout", "vit"], "--out is missing"),
            (["--out", "x"], "--layout is missing"),
            (["--layout", "vti", "--out", "x"], "perhaps 'vit' is meant"),
            (["--layout", "resnet50", "--out", "x", "--size", "8x4"], "--size is for ViTs"),
            (["--layout", "vit", "--out", "x", "--stride", "1"], "--stride needs --size"),
            (["--layout", "vit", "--out", "x", "--size", "8x1"], "smaller than a patch of 2x2"),
            (["--layout", "vit", "--out", "x", "--size", "99999x8"], "at most 4096 pixels a side"),
            (["--export", "--out", "x.safetensors"], "is no directory"),
        ],
    )
    def test_one_line(self, source, tmp_path, monkeypatch, arguments, words, capsys):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as stopped:
            errors.run_command(command.main, ["--source", source, *arguments])
        assert stopped.value.code == 2
        printed = capsys.readouterr().err
        assert words in printed
        assert len(printed.splitlines()) == 1
        assert not (tmp_path / "x").exists()

    @pytest.mark.parametrize("size", ["0x4", "8x", "x", "8x4x2", "-8x4", "big"])
    def test_size(self, source, size, capsys):
        with pytest.raises(SystemExit):
            command.main(["--layout", "vit", "--source", source, "--out", "x", f"--size={size}"])
        assert "256x128" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["w", "w.npz", "w.pth.gz", "w.safetensors.index.json"])
    def test_export_writes_two_formats(self, converted, tmp_path, name):
        with pytest.raises(UserError, match=r"must end with \.safetensors, or for a PyTorch file with \.pth"):
            command.main(["--export", "--source", str(converted), "--out", str(tmp_path / name)])

    def test_out_exists(self, source, converted):
        with pytest.raises(UserError, match="exists already"):
            command.main(["--layout", "vit", "--source", source, "--out", str(converted)])
        command.main(["--layout", "vit", "--source", source, "--out", str(converted), "--overwrite"])
        assert store.load(converted)[1]["layout"] == "vit"

    def test_overwrites_converted_directories_alone(self, source, tmp_path):
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "chapter1").write_text("words")
        with pytest.raises(UserError, match="no converted directory and is not overwritten"):
            command.main(["--layout", "vit", "--source", source, "--out", str(tmp_path / "thesis"), "--overwrite"])
        assert (tmp_path / "thesis" / "chapter1").exists()


class TestStore:
    def test_types_survive(self, tmp_path):
        values = {
            "f64": np.array([np.pi, 1e-300]),
            "f16": np.ones(2, np.float16),
            "bf16": np.ones((2, 3), ml_dtypes.bfloat16),
            "i32": np.array(7, np.int32),
        }
        variables = {"params": values}
        store.save(tmp_path / "d", variables, store.meta_of(layouts.ImportReport("vit", "x"), "vit", variables))
        found, _ = store.load(tmp_path / "d")
        jax.tree.map(same_bits, found, variables)

    @pytest.mark.parametrize("broken", ["orbax", "meta"])
    def test_failure_leaves_nothing(self, tmp_path, monkeypatch, broken):
        import orbax.checkpoint as ocp

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        target = {"orbax": (ocp.StandardCheckpointer, "save"), "meta": (pathlib.Path, "write_text")}[broken]
        monkeypatch.setattr(*target, full)
        with pytest.raises(UserError, match="No space left on device"):
            store.save(tmp_path / "d", {"params": {"w": np.ones(2)}}, {"layout": "vit", "arrays": {}})
        assert list(tmp_path.iterdir()) == []

    def test_failed_overwrite_leaves_the_old(self, converted, monkeypatch):
        import orbax.checkpoint as ocp

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(ocp.StandardCheckpointer, "save", full)
            with pytest.raises(UserError, match="No space"):
                store.save(converted, {"params": {}}, {}, overwrite=True)
        assert store.load(converted)[1]["layout"] == "vit"

    def test_damaged(self, converted):
        for path in (converted / "variables").rglob("*"):
            if path.is_file() and path.stat().st_size > 100:
                path.write_bytes(path.read_bytes()[:50])
        with pytest.raises(UserError, match=r"is damaged .*convert the weights again") as error:
            store.load(converted)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("meta", ["", "[]", "{}", '{"layout": "vit"}', "\x00"])
    def test_meta_that_is_none(self, converted, meta):
        (converted / "meta.json").write_text(meta)
        with pytest.raises(UserError, match=r"meta\.json"):
            store.load(converted)

    def test_no_such_directory(self, tmp_path):
        with pytest.raises(UserError, match="no directory of converted weights"):
            store.load(tmp_path / "nowhere")

    def test_training_loads_it(self, converted, source):
        found, meta = checkpoints.load_variables(converted)
        assert meta["layout"] == "vit"
        jax.tree.map(same_bits, found, convert.open_weights(source, "vit")[0])


class TestOpenWeights:
    @pytest.fixture(params=["file", "directory"])
    def either(self, request, source, converted):
        return source if request.param == "file" else str(converted)

    def test_fits_a_model(self, either):
        like, _ = layouts.import_state(vit.layout((4, 2)), vit_entries())
        like["params"]["sie_embed"] = np.ones((3, 1, WIDTH), np.float32)
        found, report = convert.open_weights(either, vit.layout((4, 2)), like)
        assert found["params"]["pos_embed"].shape == (1, 9, WIDTH)
        assert list(report.kept) == ["params/sie_embed"]
        assert any("resized" in note for note in report.notes)

    def test_without_a_grid_the_table_must_fit(self, either):
        like, _ = layouts.import_state(vit.layout((4, 2)), vit_entries())
        with pytest.raises(UserError, match=r"pos_embed: \[1, 10, 4\] in the file, \[1, 9, 4\] in the model"):
            convert.open_weights(either, "vit", like)

    def test_other_family(self, either):
        with pytest.raises(UserError, match=r"does not fit the layout 'htt'.*timm ViT"):
            convert.open_weights(either, "htt")

    def test_keep_drop_and_dtype(self, either):
        like, _ = layouts.import_state(vit.layout(), vit_entries())
        like = jax.tree.map(np.zeros_like, like)
        found, _ = convert.open_weights(either, "vit", like, keep=["params/norm/*"], floating=np.float64)
        assert not found["params"]["norm"]["scale"].any()
        assert found["params"]["cls_token"].dtype == np.float64


class TestPositionsOfStandingImages:
    """A table of 16x8 places, as networks have that were trained on 256x128 images."""

    @pytest.fixture
    def standing(self, tmp_path):
        table = np.random.default_rng(1).normal(size=(1, 1 + 16 * 8, WIDTH)).astype(np.float32)
        save_file({**vit_entries(), "pos_embed": table}, tmp_path / "standing.safetensors")
        return str(tmp_path / "standing.safetensors"), table

    def test_for_images_of_that_size_it_is_taken_as_it_is(self, standing, tmp_path, capsys):
        source, table = standing
        command.main(["--layout", "vit", "--source", source, "--out", str(tmp_path / "out"), "--size", "32x16"])
        found = store.load(str(tmp_path / "out"))[0]["params"]["pos_embed"]
        np.testing.assert_array_equal(found, table)
        assert "resized" not in capsys.readouterr().out

    def test_for_other_images_one_line_says_why_not(self, standing, tmp_path, capsys):
        source, _ = standing
        arguments = ["--layout", "vit", "--source", source, "--out", str(tmp_path / "out"), "--size", "36x18"]
        with pytest.raises(SystemExit):
            errors.run_command(command.main, arguments)
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
        assert "has 128 rows, which form no square grid" in line
        assert "images of the size that they were trained on" in line
        assert not (tmp_path / "out").exists()
