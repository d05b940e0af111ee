"""Checkpoints written without PyTorch: read back by this program, and by PyTorch where it is installed."""

from __future__ import annotations

import io
import pickletools
import zipfile

import ml_dtypes
import numpy as np
import pytest

from mmreid_jax.convert import torch_file, torch_writer
from mmreid_jax.errors import UserError

TYPES = ["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool", "complex64", "complex128"]
WRAPPERS = [(None, "bare"), ({"epoch": 0}, "net"), ({"epoch": 40}, "state_dict")]


def entries():
    """Arrays of every type, of no axes, without elements, and with strides of their own."""
    rng = np.random.default_rng(0)
    made = {f"of.{name}": (4 * rng.normal(size=(3, 4))).astype(name) for name in TYPES}
    made["of.bfloat16"] = rng.normal(size=(2, 3)).astype(ml_dtypes.bfloat16)
    made["count"] = np.array(7, np.int64)
    made["empty"] = np.zeros((2, 0, 3), np.float32)
    made["turned"] = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
    made["big endian"] = np.arange(3, dtype=">f4")
    return made


def written(path, wrapper, key, arrays=None):
    with path.open("wb") as file:
        torch_writer.write_torch(file, entries() if arrays is None else arrays, wrapper, key)
    return path


@pytest.mark.parametrize(("wrapper", "key"), WRAPPERS)
def test_comes_back(tmp_path, wrapper, key):
    path = written(tmp_path / "w.pth", wrapper, key)
    found = torch_file.state_dict(path)
    assert found.under == (None if wrapper is None else key)
    assert list(found.entries) == list(entries())
    for name, value in entries().items():
        expected = value.astype(np.float32) if value.dtype.name in ("bfloat16", "float32") else value
        assert found.entries[name].dtype == expected.dtype, name
        np.testing.assert_array_equal(found.entries[name], expected, name)
    if wrapper is not None:
        assert torch_file.read(path)["epoch"] == wrapper["epoch"]
    assert torch_writer.is_ours(path)


def test_records_are_aligned_and_plain(tmp_path):
    with zipfile.ZipFile(written(tmp_path / "w.pth", None, "")) as archive:
        for info in archive.infolist():
            assert (info.header_offset + 30 + len(info.filename) + len(info.extra)) % 64 == 0
            assert info.compress_type == zipfile.ZIP_STORED
        out = io.StringIO()
        pickletools.dis(archive.read("archive/data.pkl"), out)
    named = {line.split("'")[1] for line in out.getvalue().splitlines() if "GLOBAL" in line}
    assert {name for name in named if not name.endswith("Storage")} == {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
    }


def test_the_same_weights_give_the_same_bytes(tmp_path):
    assert written(tmp_path / "a", None, "").read_bytes() == written(tmp_path / "b", None, "").read_bytes()


def test_types_that_pytorch_lacks(tmp_path):
    with pytest.raises(UserError, match=r"w is uint32, which a \.pth file cannot hold; export to \.safetensors"):
        written(tmp_path / "w.pth", None, "", {"w": np.zeros(3, np.uint32)})


def test_files_of_others_are_none_of_ours(tmp_path):
    (tmp_path / "w").write_bytes(b"words")
    assert not torch_writer.is_ours(tmp_path / "w")
    assert not torch_writer.is_ours(tmp_path / "nowhere")
    np.savez(tmp_path / "w.npz", a=np.ones(3))
    assert not torch_writer.is_ours(tmp_path / "w.npz")


@pytest.mark.pytorch
class TestInPyTorch:
    @pytest.mark.parametrize("options", [{}, {"mmap": True}])
    @pytest.mark.parametrize(("wrapper", "key"), WRAPPERS)
    def test_loads(self, tmp_path, wrapper, key, options):
        import torch

        content = torch.load(
            written(tmp_path / "w.pth", wrapper, key), weights_only=True, map_location="cpu", **options
        )
        if wrapper is not None:
            assert content["epoch"] == wrapper["epoch"]
            content = content[key]
        assert list(content) == list(entries())
        for name, value in entries().items():
            found = content[name].float() if content[name].dtype == torch.bfloat16 else content[name]
            np.testing.assert_array_equal(found.numpy(), value.astype(found.numpy().dtype), name)

    def test_a_strict_module_takes_it(self, tmp_path):
        import torch

        module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2))
        arrays = {name: value.numpy() + 1 for name, value in module.state_dict().items()}
        path = written(tmp_path / "w.t", {"epoch": 0}, "net", arrays)
        module.load_state_dict(torch.load(path, weights_only=True)["net"])
        for name, value in module.state_dict().items():
            np.testing.assert_array_equal(value.numpy(), arrays[name])

    @pytest.mark.parametrize("layout", ["agw", "ieee", "vit"])
    def test_export_command(self, tmp_path, layout):
        """Each family in the wrapper of its authors."""
        import torch

        from mmreid_jax.commands import convert as command
        from mmreid_jax.convert import known
        from tests.commands.test_convert import vit_entries

        command.write_pytorch(str(tmp_path / "in.pth"), vit_entries(), "bare", ())
        command.main(["--layout", "vit", "--source", str(tmp_path / "in.pth"), "--out", str(tmp_path / "vit")])
        key, beside = known.WRAPPED.get(layout, ("bare", ()))
        more = [] if layout == "vit" else ["--wrapper", key]
        out = tmp_path / "out.pth"
        command.main(["--export", "--source", str(tmp_path / "vit"), "--out", str(out), *more])
        content = torch.load(out, weights_only=True)
        assert set(content) == (set(vit_entries()) if layout == "vit" else {key, *beside})
        state = content if layout == "vit" else content[key]
        for name, value in vit_entries().items():
            np.testing.assert_array_equal(state[name].numpy(), value)
