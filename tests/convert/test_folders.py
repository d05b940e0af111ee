"""Folders and indices of Hugging Face: which files hold the weights, and indices that lie."""

from __future__ import annotations

import json

import pytest
from safetensors.numpy import save_file

from mmreid_jax.commands import convert as command
from mmreid_jax.convert import folders, store, torch_file
from tests.commands.test_convert import vit_entries
from tests.convert.foreign import pytorch, refused, same, under


@pytest.fixture
def sharded(tmp_path):
    """A folder with two shards and their index."""
    entries = vit_entries()
    names = list(entries)
    files = {"model-00001-of-00002.safetensors": names[:13], "model-00002-of-00002.safetensors": names[13:]}
    folder = tmp_path / "hub"
    folder.mkdir()
    for file, some in files.items():
        save_file({key: entries[key] for key in some}, folder / file)
    table = {key: file for file, some in files.items() for key in some}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": table})
    )
    (folder / "config.json").write_text("{}")
    return folder


def test_shards(sharded, vit_variables):
    for path in (sharded, sharded / "model.safetensors.index.json"):
        same(store.open_weights(path, "vit")[0], vit_variables)
    assert len(torch_file.read(sharded)) == len(vit_entries())


@pytest.mark.parametrize("file", folders.WHOLE)
def test_folders(tmp_path, vit_variables, file):
    (tmp_path / "hub").mkdir()
    write = command.write_safetensors if file.endswith(".safetensors") else lambda path, made: pytorch(path, made)
    write(str(tmp_path / "hub" / file), under("vit."))
    same(store.open_weights(tmp_path / "hub", "vit")[0], vit_variables)
    command.main(["--layout", "vit", "--source", str(tmp_path / "hub"), "--out", str(tmp_path / "out")])
    same(store.load(tmp_path / "out")[0], vit_variables)
    command.main(["--list", "--source", str(tmp_path / "hub")])


def test_pytorch_shards(tmp_path, vit_variables):
    entries, table = vit_entries(), {}
    for number_, key in enumerate(entries):
        table[key] = f"pytorch_model-{number_ % 3}.bin"
    for file in set(table.values()):
        pytorch(tmp_path / file, {key: value for key, value in entries.items() if table[key] == file})
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    same(store.open_weights(tmp_path, "vit")[0], vit_variables)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"w": "absent.safetensors"}, "names absent.safetensors, which is not beside it; fetch all files"),
        ({"w": "../secret.safetensors"}, "no weight file beside it"),
        ({"w": "/etc/passwd"}, "no weight file beside it"),
        ({"w": ".."}, "no weight file beside it"),
        ({"w": ""}, "no weight file beside it"),
        ({"w": "a\0b"}, "no weight file beside it"),
        ({"w": "model.safetensors.index.json"}, "no weight file beside it"),
        ({"w": "x" * 300}, "no weight file beside it"),
        ({"w": 3}, "is no index of sharded weights"),
        ({}, "is no index of sharded weights"),
        ([], "is no index of sharded weights"),
        (None, "is no index of sharded weights"),
        ({"nothing": "model-00001-of-00002.safetensors"}, "lacks nothing, which model.safetensors.index.json says"),
    ],
)
def test_indices_that_lie(sharded, table, words):
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    refused(words, torch_file.state_dict, sharded)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, "\udcff".encode("utf-8", "surrogateescape")])
def test_indices_that_are_none(sharded, content):
    raw = content if isinstance(content, bytes) else content.encode()
    (sharded / "model.safetensors.index.json").write_bytes(raw)
    refused("is no index of sharded weights", torch_file.state_dict, sharded)


def test_a_folder_without_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    refused("is a directory without weights", torch_file.state_dict, tmp_path)
    refused("no directory of converted weights", store.open_weights, tmp_path, "vit")
