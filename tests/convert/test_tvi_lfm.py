"""TVI-LFM's name map: every entry accounted for, files of both stages both ways, with and without copies."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from mmreid_jax.convert import known, tvi_lfm
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert.identify import looks_like
from mmreid_jax.errors import UserError
from mmreid_jax.testing import goldens, tiny

BASE_ENTRIES = 481


def of_goldens():
    """Names and shapes of every network in the golden files, each list once, with sides of at most two."""
    found = {}
    for path in goldens.cases("tvi_lfm"):
        listed = goldens.load(path).json.get("state_dict", [])
        small = tuple((name, tuple(min(side, 2) for side in shape)) for name, shape in listed)
        if small:
            found.setdefault(small, path.stem)
    return [pytest.param(names, id=stem) for names, stem in found.items()]


@pytest.mark.parametrize("names", of_goldens())
def test_the_authors_files_are_read_whole_and_written_for_strict_loaders(names):
    entries = dict(goldens.recipe().state_dict(1, names))
    entries["logit_scale"] = np.float32(tvi_lfm.LOGIT_SCALE)
    copies = any(name.startswith("backup_") for name in entries)
    assert len(entries) == BASE_ENTRIES + (7 if copies else 0)
    variables, report = layouts.import_state(known.named("tvi_lfm"), entries)
    assert set(report.dropped) == {"logit_scale"}
    assert ("backup" in variables["params"]) == copies
    exported = layouts.export_state(known.named("tvi_lfm"), variables)
    assert set(exported) == set(entries)
    for name, value in entries.items():
        assert exported[name].dtype == value.dtype
        assert exported[name].tobytes() == value.tobytes(), name
    assert looks_like({name: value.shape for name, value in entries.items()}).startswith("a TVI-LFM network")


@pytest.mark.parametrize(("text", "backup", "apart", "scale"), itertools.product((False, True), repeat=4))
def test_every_tree_comes_back(text, backup, apart, scale):
    if not text and (backup or apart or scale):
        return
    options = {
        "model__freeze_visual": "code" if backup else "none",
        "model__separate_norms": apart,
        "loss__i2t_regular_weight": float(scale),
    }
    base = {"model__stage": "base", "eval__feature": "fc", "data__text": False}
    _, method = tiny.method("tvi_lfm", **(options if text else base))
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape) * 10, x.dtype), shapes)
    layout = method.convert_layouts()["tvi_lfm"]
    exported = layouts.export_state(layout, variables)
    again, report = layouts.import_state(layout, exported, variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    assert not report.kept
    assert ("logit_scale" in report.used) == scale
    # The base stage writes no text tower: it has none.
    assert any(name.startswith("base_model.transformer.") for name in exported) == text


def test_a_base_file_has_no_text_for_the_base_stage_and_all_of_it_for_the_text_stage():
    _, text = tiny.method("tvi_lfm", model__freeze_visual="none")
    _, base = tiny.method("tvi_lfm", model__stage="base", eval__feature="fc", data__text=False)
    zeros = lambda method: jax.tree.map(  # noqa: E731
        lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(method.init, jax.random.key(0))
    )
    entries = layouts.export_state(text.convert_layouts()["tvi_lfm"], zeros(text))
    _, report = layouts.import_state(base.convert_layouts()["tvi_lfm"], entries, zeros(base))
    reasons = {name: why for name, why in report.dropped.items() if name != "logit_scale"}
    assert set(reasons.values()) == {"the text tower, which this stage does not use"}
    assert set(report.used) | set(report.dropped) == set(entries)
    del entries["base_model.visual.GEM.p"]
    with pytest.raises(UserError, match=r"base_model\.visual\.GEM\.p"):
        layouts.import_state(base.convert_layouts()["tvi_lfm"], entries, zeros(base))
