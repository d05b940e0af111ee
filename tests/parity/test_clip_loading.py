"""Resized tables and loaded weights against TVI-LFM's loader: the cases ``resize`` and ``load_*`` of ``clip``."""

from __future__ import annotations

import re

import clip_cases
import numpy as np
import precisions
import pytest

from mmreid_jax.convert import clip as clip_layout
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert.vit import resize_position_table
from mmreid_jax.models.vit import patch_grid
from mmreid_jax.testing import goldens

RESIZES = clip_cases.of_kind(lambda case: "vit_pos" in case.get("inputs", ()))
LOADS = clip_cases.of_kind(lambda case: "checkpoint" in case.get("inputs", ()))
HALF_ULP = 1e-3


def resized(name, table):
    """The table of the kind that the name of a stored array says, resized as it says."""
    if grid := re.fullmatch(r"vit_(\d+)x(\d+)", name):
        return resize_position_table(table("vit_pos")[None], (int(grid[1]), int(grid[2])))[0]
    if length := re.fullmatch(r"attnpool_(\d+)", name):
        return clip_layout.stretch(table("attnpool_pos"), int(length[1]))
    width = re.fullmatch(r"text_projection_(\d+)(_half)?", name)
    assert width, f"array of unknown kind: {name}"
    projection = table("text_projection")
    if width[2]:
        return clip_layout.stretch_projection(projection, int(width[1]))
    return clip_layout.stretch(projection.T, int(width[1])).T


@pytest.mark.parametrize("path", RESIZES, ids=lambda path: path.stem)
def test_resizing(path):
    golden = goldens.load(path)
    case = golden.json
    shapes = {
        key: tuple(map(int, re.search(r"\(([\d, ]+)\)", text)[1].split(","))) for key, text in case["inputs"].items()
    }
    table = lambda key: goldens.recipe().array(case["seed"], key, shapes[key])  # noqa: E731
    for name, expected in golden.arrays.items():
        found = resized(name, table)
        assert found.dtype == np.float32
        error = np.abs(clip_cases.cut(found, 8192).astype(np.float64) - expected)
        # Where both are rounded to float16, one step of it may lie between them.
        allowed = case["tolerance"]["all"] + (HALF_ULP * np.abs(expected) if name.endswith("_half") else 0.0)
        assert (error <= allowed).all(), f"{name}: error {error.max():.3g}"
        if name.endswith("_half"):
            assert (error == 0).mean() > 0.99, f"{name}: not rounded alike"


@pytest.mark.slow
@precisions.ONE_WORKER
@pytest.mark.parametrize("path", LOADS, ids=lambda path: path.stem)
def test_loading(path):
    golden = goldens.load(path)
    case, config = golden.json, golden.json["config"]
    entries = {name: as_published(value) for name, value in clip_cases.entries(case).items()}
    layout, names = loader(config, entries)
    variables, report = layouts.import_state(layout, entries, floating="float32")
    assert set(report.used) | set(report.dropped) == set(entries)
    loaded = layouts.export_state(layout, variables)
    for name, expected in golden.arrays.items():
        if name not in names and name.endswith("_.weight"):
            # The second stem starts as a copy of the first.
            name = name.replace("_.", ".")
        actual = clip_cases.cut(loaded[name], 4096)
        error = np.abs(actual - expected)
        ulp = HALF_ULP * np.abs(expected) if stretched(name, report) else 0.0
        assert actual.dtype == np.float32
        assert (error <= case["tolerance"]["all"] + ulp).all(), f"{name}: error {error.max():.3g}"


def as_published(value):
    return value.astype(np.float16) if value.dtype.kind == "f" else value


def stretched(name, report):
    return any(name.removeprefix("visual.") in note for note in report.notes)


def loader(config, entries):
    """The layout that does what the reference does for a config, and the names that it loads."""
    texts = clip_layout.text_layout(config["embed_dim"])
    rest = (layouts.Drop("logit_scale", "not part of the towers"),)
    if config["arch"] == "RN50_ORI":
        # The towers of images of these networks are ImageNet's.
        layout = clip_layout.text_only(config["embed_dim"])
    elif config["arch"] == "RN50":
        places = (config["image_size"][0] // 32) * (config["image_size"][1] // 32)
        images = clip_layout.resnet_layout(places, config["embed_dim"])
        layout = layouts.join("clip", texts, layouts.nest(images, "visual.", "visual/"), layouts.Layout("", (), rest))
    else:
        grid = patch_grid(tuple(config["image_size"]), entries["visual.conv1.weight"].shape[-1], config["stride"])
        images = clip_layout.vit_layout(grid)
        layout = layouts.join("clip", texts, layouts.nest(images, "visual.", "visual/"), layouts.Layout("", (), rest))
    return layout, set(entries)
