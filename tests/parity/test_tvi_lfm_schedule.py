"""Learning rates and parameter groups of TVI-LFM's four settings against the authors' code, tensor by tensor."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tvi_lfm_runs

from configs import tvi_base_llcm, tvi_base_regdb, tvi_base_sysu, tvi_llcm, tvi_regdb, tvi_sysu
from mmreid_jax.convert import layout as layouts
from mmreid_jax.methods import base
from mmreid_jax.testing import goldens
from mmreid_jax.training import optimizers

CASES = [path for path in goldens.cases("tvi_lfm") if "settings" in goldens.load(path).json]
SETTINGS = [(path, name) for path in CASES for name in goldens.load(path).json["settings"]]
EXPERIMENTS = {
    "base_sysu_llcm": (tvi_base_sysu, tvi_base_llcm),
    "base_regdb": (tvi_base_regdb,),
    "text_sysu_llcm": (tvi_sysu, tvi_llcm),
    "text_regdb": (tvi_regdb,),
}
# What a released file holds and no gradient reaches: rates of their own do nothing.
IDLE = ("base_model.visual.", "backup_", "logit_scale")
TEXT = ("base_model.transformer.", "base_model.token_embedding.", "base_model.ln_final.")
TEXT += ("base_model.positional_embedding", "base_model.text_projection")


@pytest.mark.parametrize(("path", "setting"), [pytest.param(*both, id=both[1]) for both in SETTINGS])
def test_setting(path, setting):
    golden = goldens.load(path)
    chosen = golden.json["settings"][setting]
    config = tvi_lfm_runs.config_of(chosen["args"])
    for module in EXPERIMENTS.get(setting, ()):
        published = module.get_config()
        for section in ("optim", "groups"):
            unread = () if published.model.stage == "text" else ("text_lr", "text_bias_weight_decay")
            for key in set(published[section]) - set(unread):
                assert published[section][key] == config[section][key], f"{module.__name__}: {section}.{key}"
    method = base.build(config, base.DataFacts(chosen["args"]["pid_num"], 4, 1, ("rgb", "nir")))
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    groups = optimizers.OptimizerOptions.of(config.optim).groups(method.groups())
    assigned = jax.tree.leaves(optimizers.assign(groups, shapes["params"]))
    leaves, structure = jax.tree.flatten(shapes["params"])
    numbers = [np.broadcast_to(np.int16(i), leaf.shape) for i, leaf in enumerate(leaves)]
    stats = jax.tree.map(lambda x: np.broadcast_to(np.int16(0), x.shape), shapes["batch_stats"])
    tree = {"params": jax.tree.unflatten(structure, numbers), "batch_stats": stats}
    exported = layouts.export_state(method.convert_layouts()["tvi_lfm"], tree)
    epochs = config.optim.epochs
    ends = np.arange(1, epochs + 1)
    for name, rate, decay in chosen["groups_name_baselr_wd"]:
        if name not in exported or name == "logit_scale":
            assert name.startswith(IDLE if config.model.stage == "text" else (*TEXT, "logit_scale")), name
            continue
        group = assigned[int(exported[name].reshape(-1)[0])]
        if group.frozen:
            assert name.startswith(IDLE), name
            continue
        own = config.optim.weight_decay if group.weight_decay is None else group.weight_decay
        assert (config.optim.lr * group.lr_factor, own) == pytest.approx((rate, decay), rel=1e-12), name
        expected = golden.arrays[f"{setting}/lr_base_{rate}"]
        assert len(expected) == epochs
        table = optimizers.rate(config.optim, ends, group.lr_factor)
        if name.endswith("classifier.weight") or name.endswith("ln_final.weight"):
            np.testing.assert_allclose([float(table(e)) for e in range(epochs)], expected, rtol=1e-6)
    timetable = optimizers.schedules.table(optimizers.OptimizerOptions.of(config.optim).timetable, 1.0, epochs)
    np.testing.assert_allclose(timetable, golden.arrays[f"{setting}/multiplier"], rtol=1e-12)
    for rate in chosen["base_lrs"]:
        rates = optimizers.schedules.table(optimizers.OptimizerOptions.of(config.optim).timetable, rate, epochs)
        np.testing.assert_allclose(rates, golden.arrays[f"{setting}/lr_base_{rate}"], rtol=1e-12)
