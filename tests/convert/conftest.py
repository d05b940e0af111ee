"""Fixtures that several files of this folder share."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.convert import known
from mmreid_jax.convert import layout as layouts
from tests.commands.test_convert import vit_entries
from tests.convert.opcodes import legacy_file, zip_file
from tests.convert.states import DEPTH, WIDTH


@pytest.fixture
def small():
    """Entries of a small ViT."""
    rng = np.random.default_rng(0)
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 5, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 4, 4),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for block in range(DEPTH):
        for name, out, into in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", 2 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 2 * WIDTH),
        ):
            shapes[f"blocks.{block}.{name}.weight"] = (out, into)
            shapes[f"blocks.{block}.{name}.bias"] = (out,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{block}.{name}.weight"] = shapes[f"blocks.{block}.{name}.bias"] = (WIDTH,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def archive(tmp_path):
    """Writes a zip checkpoint of a pickle and its storages."""
    return lambda *content, **options: zip_file(tmp_path / "made.pth", *content, **options)


@pytest.fixture
def legacy(tmp_path):
    """Writes a legacy stream."""
    return lambda *content, **options: legacy_file(tmp_path / "made.t", *content, **options)


@pytest.fixture
def plain(tmp_path):
    """Writes bytes as they are."""

    def write(raw, called="made.bin"):
        path = tmp_path / called
        path.write_bytes(raw)
        return path

    return write


@pytest.fixture(scope="module")
def vit_variables():
    """Our variables of the entries of `vit_entries`."""
    return layouts.import_state(known.named("vit"), vit_entries())[0]
