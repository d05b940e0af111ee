"""Cases of TVI-LFM set up with the program's own method and checkpoint reader, and how they are compared."""

from __future__ import annotations

import math
import re

import described
import jax
import jax.numpy as jnp
import numpy as np

from configs.systems import tvi_lfm
from mmreid_jax.convert import layout as layouts
from mmreid_jax.methods import base
from mmreid_jax.testing import goldens

# float64: scalars to this part of themselves, outputs of a network to that part of the largest value (at least 1),
# gradients, parameters and statistics to the last part of the root mean square.
SCALAR64, OUTPUT64, GRADIENT64 = 1e-6, 1e-6, 1e-5
# float32: ten times the noise of one run is allowed, and at least this part of the largest value.
LEAST32 = 1e-4
# The Euclidean norm of the error of a network's gradient may be this part of its own: ReLUs whose sign float32 turns
# over are others on every machine. float64 is the judge.
GRADIENT32 = 0.05


def sliced(value, count):
    """The slice that a file stores of an array: every so many-th value, about `count` of them."""
    flat = np.asarray(value).reshape(-1)
    return flat[:: math.ceil(flat.size / count)].copy()


def check(key, actual, expected, case, dtype, loose=LEAST32, before=None):
    """Asserts that a quantity differs from the stored one by no more than its tolerance.

    Args:
      key: of the file.
      actual: computed here.
      expected: stored.
      case: json of the file.
      dtype: of the run.
      loose: float32: part of its own norm by which a gradient or a later parameter may be off.
      before: of a parameter after some steps: what it was before them; then its move counts.
    """
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{key}: {actual.shape}, {expected.shape}"
    if expected.dtype.kind in "iu":
        np.testing.assert_array_equal(actual, expected, err_msg=key)
        return
    expected = expected.astype(np.float64)
    error = actual.astype(np.float64) - expected
    assert np.isfinite(error).all(), f"{key} is not finite"
    far, scale = float(np.abs(error).max()), float(np.abs(expected).max())
    learnt = any(part.startswith(("grad", "param", "stat")) for part in key.split("/"))
    if jnp.dtype(dtype) == jnp.float64:
        allowed = OUTPUT64 * max(1.0, scale)
        if expected.ndim == 0:
            allowed = SCALAR64 * scale
        elif learnt:
            allowed = GRADIENT64 * float(np.sqrt(np.mean(expected**2)))
        assert far <= allowed, f"{key}: error {far:.3g}, allowed {allowed:.3g}, scale {scale:.3g}"
        return
    noise = case["noise_float32_vs_float64"].get(key, {}).get("max_abs_gap", 0.0)
    allowed = max(10 * noise if math.isfinite(noise) else 0.0, LEAST32 * scale)
    moved = expected if before is None else expected - before
    norm, whole = float(np.linalg.norm(error)), float(np.linalg.norm(moved))
    fine = far <= allowed or (learnt and norm <= loose * whole)
    assert fine, f"{key}: error {far:.3g}, allowed {allowed:.3g}; norm of the error {norm:.3g} of {whole:.3g}"


MODALITIES = {"rgb": "rgb", "nir": "ir"}
"""Of our batches -> as in the files."""
# What the authors' options are where a case does not say.
DEFAULTS = {
    "training_mode": "RGB_IR",
    "joint_mode": "uni",
    "Feat_Filter": False,
    "Fix_Visual": False,
    "fusion_way": "add",
    "uni_BN": False,
    "loss_names": "id,wrt",
    "lr_visual": 3.5e-4,
    "lr_txt": 1e-5,
    "text_weight_decay_bias": 0.0,
}
IGNORED = {"dataset", "pid_num", "epoch_for_lr", "steps", "batch_per_modality", "amp", "mode", "image", "pooling"}
IGNORED |= {"pretrain_choice", "prj_output_dim", "text_weight_decay"}
TERMS = {
    "id": "ce",
    "wrt": "triplet",
    "id_woir": "ce_without_ir",
    "wrt_woir": "triplet_without_ir",
    "orth": "orthogonality",
    "orth2": "orthogonality_sum",
    "I2T_Regular": "i2t_regular",
    "T2I_Regular": "t2i_regular",
}
"""Name of a loss in the authors' code -> ours."""


def config_of(options):
    """The experiment that the authors' options describe."""
    given = {**DEFAULTS, **{name: value for name, value in options.items() if name not in IGNORED}}
    assert set(given) == set(DEFAULTS), f"nothing is known of {set(given) - set(DEFAULTS)}"
    with_text = given["training_mode"] == "RGB_IR_Text"
    config = tvi_lfm.tvi_lfm_text() if with_text else tvi_lfm.tvi_lfm()
    config.optim.lr = given["lr_visual"]
    config.groups.text_lr = given["lr_txt"]
    config.groups.text_bias_weight_decay = given["text_weight_decay_bias"]
    config.model.fusion = "filter" if given["Feat_Filter"] else given["fusion_way"]
    config.model.freeze_visual = "code" if given["Fix_Visual"] else "none"
    config.model.separate_norms = given["uni_BN"]
    config.loss.joint = {"uni": True, "ir_crossfusion": False}[given["joint_mode"]]
    names = [name for name in given["loss_names"].split(",")]
    assert {"id", "wrt"} <= set(names)
    for name in set(names) - {"id", "wrt"}:
        config.loss[f"{TERMS[name]}_weight"] = 1.0
    return config


class Run:
    """A case with a network, set up in one precision.

    Args:
      golden: the case.
      dtype: of parameters and images.
      config: of the experiment, see `config_of`.
      entries: list [[name, shape], ...] of the ``state_dict``; None: that of the case.
    """

    def __init__(self, golden, dtype, config, entries=None):
        self.golden, self.case, self.dtype = golden, golden.json, jnp.dtype(dtype)
        self.recipe, options = goldens.recipe(), golden.json["config"]
        # The same numbers in less memory, which large images in float64 need where gradients reach the visual network.
        config.model.remat = config.model.stage == "base"
        # "img_ir": recipe.array(..., (4, 3, 288, 144))
        sizes = re.findall(r"\(\w+, 3, (\d+), (\d+)\)", described.text_of(self.case["inputs"]))
        (self.image_hw,) = {(int(height), int(width)) for height, width in sizes}
        config.data.image_size = self.image_hw
        self.method = base.build(config, base.DataFacts(options["pid_num"], 4, 1, tuple(MODALITIES)))
        self.layout = self.method.convert_layouts()["tvi_lfm"]
        self.entries = dict(self.recipe.state_dict(self.case["seed"], entries or self.case["state_dict"]))
        for name, value in self.case["overrides"].items():
            if name in self.entries:
                self.entries[name] = np.asarray(value, np.float32).reshape(self.entries[name].shape)
        live = {"backup_pool.": "base_model.visual.GEM.", "backup_classifier.": "classifier."}
        if getattr(self.method, "fixed", False):
            for prefix, source in live.items():
                copies = {prefix + n[len(source) :]: v for n, v in self.entries.items() if n.startswith(source)}
                self.entries.update(copies)

    def variables(self):
        """The weights of the case in our trees."""
        like = jax.eval_shape(self.method.init, jax.random.key(0))
        cast = lambda t: self.dtype if jnp.issubdtype(t, jnp.floating) else t  # noqa: E731
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, cast(x.dtype)), like)
        loaded, report = layouts.import_state(self.layout, self.entries, like)
        assert set(report.used) | set(report.dropped) == set(self.entries)
        # Copies: memory that numpy shares cannot be given to the next state.
        return jax.tree.map(jnp.array, loaded)

    def export(self, params, batch_stats):
        """Trees of the method under the names and in the layout of PyTorch."""
        return layouts.export_state(
            self.layout, jax.tree.map(np.asarray, {"params": params, "batch_stats": batch_stats})
        )

    def images(self, key, count):
        """The images under a key, NHWC."""
        drawn = self.recipe.array(self.case["seed"], key, (count, 3, *self.image_hw))
        return jnp.asarray(np.moveaxis(drawn, 1, -1), self.dtype)

    def batch(self, step, tokens=""):
        """The batch of a step; `tokens` is what the keys of its captions end with."""
        labels = self.case["labels"]
        names = {"rgb": "img_rgb_ori", "rgb_2": "img_rgb_aug", "nir": "img_ir"}
        found = {
            "images": {ours: self.images(f"{theirs}_{step}", len(labels)) for ours, theirs in names.items()},
            "identity": jnp.asarray(labels, jnp.int32),
        }
        if "tokens/rgb" + tokens in self.golden.arrays:
            found["tokens"] = {
                ours: jnp.asarray(self.golden.arrays[f"tokens/{theirs}{tokens}"]) for ours, theirs in MODALITIES.items()
            }
        return found

    def observed(self):
        """The method's loss on images as they are drawn, which also reports the classifier's input and output."""
        method = self.method

        def as_drawn(batch, key):
            images = batch["images"]
            return {"visible": jnp.concatenate([images["rgb"], images["rgb_2"]]), "infrared": images["nir"]}

        def loss(variables, batch, key, step, memory):
            seen = {}

            def objective(features, logits, identities):
                seen["feats"] = jnp.concatenate(list(features.values()))
                seen["scores"] = jnp.concatenate(list(logits.values()))
                return type(method).objective(method, features, logits, identities)

            method.training_images, method.objective = as_drawn, objective
            total, (terms, stats, memory) = method.loss(variables, batch, key, step, memory)
            return total, ({**terms, **seen}, stats, memory)

        return loss

    def losses(self, report, labels):
        """What a step reports under the names of the authors' code."""
        joint = self.case_prefix
        found = {}
        for theirs, ours in TERMS.items():
            if ours in report:
                found[f"{theirs}_loss" if theirs.endswith("Regular") else f"{joint}{theirs}_loss"] = report[ours]
        scores = np.asarray(report["scores"])
        right = scores.argmax(-1) == np.tile(labels, len(scores) // len(labels))
        return {**found, "acc": np.mean(right), "total": report["loss"]}

    @property
    def case_prefix(self):
        """What stands before the names of losses: all of the joint learning's have it."""
        config = self.method.config
        return "uni_" if config.model.stage == "text" and config.loss.joint else ""
