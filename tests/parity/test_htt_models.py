"""HTT's networks, training steps and test-time training against numbers of the authors' code.

Every case file of the suite ``htt`` that holds a ``state_dict`` is run, in float32 and in float64. What a case is
follows from its contents; weights enter through the conversion code that a user's checkpoint takes.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import observers
import precisions
import pytest

from configs import htt_rgbnt201
from mmreid_jax.convert import layout as layouts
from mmreid_jax.convert import vit
from mmreid_jax.methods import base
from mmreid_jax.models.vit import SIZES, VisionTransformer
from mmreid_jax.testing import goldens
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

CASES = [path for path in goldens.cases("htt") if "state_dict" in goldens.load(path).json]
MODALITIES = ("rgb", "nir", "tir")
# Steps after the first of a ResNet with batch normalisation are ill conditioned (README of the suite).
FLOAT64, FLOAT64_RESNET_LATER = 1e-9, 1e-6


def kind_of(case: dict) -> str:
    """What a case asks for, from what it holds."""
    names = [name for name, _ in case["state_dict"]]
    if "optimizer" in case:
        return "train" if "labels" in case else "adapt"
    if "bottleneck.weight" in names:
        return "evaluate"
    if "cls_token" in names:
        return "pretrained"
    raise AssertionError(f"case of unknown kind: {sorted(case)}")


class Run:
    """A case set up in one precision."""

    def __init__(self, path, dtype):
        self.golden = goldens.load(path)
        self.case = self.golden.json
        self.dtype = dtype
        self.recipe = goldens.recipe()
        self.names = {name: tuple(shape) for name, shape in self.case["state_dict"]}
        self.is_resnet = "base.conv1.weight" in self.names
        self.entries = self.recipe.state_dict(self.case["seed"], self.case["state_dict"])

    def images(self, specs):
        """The inputs of the case as NHWC images by modality."""
        out = {}
        for modality, spec in zip(MODALITIES, specs, strict=False):
            pixels = self.recipe.array(self.case["seed"], spec["key"], spec.get("raw_shape", spec["shape"]))
            pixels = pixels * np.float32(spec["scale"])
            if "raw_shape" in spec:
                factors = [whole // raw for whole, raw in zip(spec["shape"], spec["raw_shape"], strict=True)]
                for axis in (2, 3):
                    pixels = np.repeat(pixels, factors[axis], axis=axis)
            out[modality] = jnp.asarray(np.moveaxis(pixels, 1, -1), self.dtype)
        return out

    def method(self, batch, **optim):
        """The method of the case, built from the released experiment's config."""
        overrides = self.case.get("overrides", {})
        config = htt_rgbnt201.get_config()
        config.model.backbone = "resnet50" if self.is_resnet else "vit_base"
        config.model.drop_path = overrides.get("MODEL__DROP_PATH", 0.0)
        config.model.last_stride = overrides.get("LAST_STRIDE", 1)
        config.model.stride = (overrides.get("MODEL__STRIDE_SIZE") or [0])[0]
        config.model.side_camera = overrides.get("MODEL__SIE_CAMERA", False)
        config.model.side_view = overrides.get("MODEL__SIE_VIEW", False)
        config.model.side_weight = overrides.get("MODEL__SIE_COE", 3.0)
        config.data.image_size = next(iter(batch.values())).shape[1:3]
        for name, value in optim.items():
            setattr(config.optim, name, value)
            setattr(config.mtt.optim, name, value)
        if "labels" in self.case:
            config.train.identities_per_batch = len(set(self.case["labels"]))
        classes = self.names["classifier.weight"][0]
        facts = base.DataFacts(classes, self.case.get("camera_num", 0), self.case.get("view_num", 0), tuple(batch))
        return base.build(config, facts)

    def layout(self, method):
        return method.convert_layouts()["htt"]

    def variables(self, method):
        """The weights of the case in our trees; what the network has no use for stays in `unused` as it was."""
        like = jax.eval_shape(method.init, jax.random.key(0))
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, self.cast_type(x.dtype)), like)
        loaded, report = layouts.import_state(self.layout(method), self.entries, like)
        self.unused = {name: np.asarray(self.entries[name]) for name in report.dropped}
        # Copies: memory that numpy shares cannot be given to the next state.
        return jax.tree.map(lambda x: jnp.array(x, self.cast_type(x.dtype)), loaded)

    def cast_type(self, dtype):
        return self.dtype if jnp.issubdtype(dtype, jnp.floating) else dtype

    def labels(self, name, count):
        given = self.case.get(name)
        return jnp.asarray(given if given is not None else [0] * count, jnp.int32)

    def compare(self, outputs):
        """Compares every stored number of this precision; a number that nothing computes is a failure."""
        wide = self.dtype == jnp.float64
        wanted = [key for key in self.golden.arrays if key.endswith("__f64") == wide]
        assert wanted
        for stored in wanted:
            key = stored.removesuffix("__f64")
            assert key in outputs, f"nothing computes {key}"
            actual, expected = np.asarray(outputs[key]), self.golden.arrays[stored]
            assert actual.shape == expected.shape, key
            if expected.dtype.kind in "iu" or not expected.size:
                np.testing.assert_array_equal(actual, expected, err_msg=key)
                continue
            scale = max(float(np.abs(expected).max()), 1e-30)
            if wide:
                later = self.is_resnet and not key.startswith(("step0/", "grad0", "delta1", "bn1/"))
                tolerance = (FLOAT64_RESNET_LATER if later and "optimizer" in self.case else FLOAT64) * scale
            elif key in self.case["noise"]:
                tolerance = self.case["noise"][key]["recommended_atol"]
            else:
                tolerance = 1e-5 * scale
            error = float(np.abs(actual.astype(np.float64) - expected).max())
            assert error <= tolerance, f"{key}: error {error:.3g}, allowed {tolerance:.3g}, scale {scale:.3g}"


def network_of(path):
    """Whether a case is of the ResNet or of the ViT."""
    return "resnet" if "base.conv1.weight" in dict(goldens.load(path).json["state_dict"]) else "vit"


def is_slow(path, dtype):
    """Steps take minutes; by default the networks are evaluated in float64."""
    return dtype == "float32" or kind_of(goldens.load(path).json) in ("train", "adapt")


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, is_slow, network_of)))
def test_case(path, dtype, x64):
    run = Run(path, jnp.dtype(dtype))
    {"evaluate": evaluate, "pretrained": pretrained, "train": train, "adapt": adapt}[kind_of(run.case)](run)
    precisions.forget()


def evaluate(run):
    images = run.images(run.case["inputs"])
    method = run.method(images)
    variables = run.variables(method)
    count = len(next(iter(images.values())))
    batch = {"images": images, "camera": run.labels("cam_label", count), "scene": run.labels("view_label", count)}
    features = jax.jit(method.embed)(variables, batch)
    # The reference's two-modality model returns the normalised feature under both names.
    before = features["after" if run.case.get("two_modality_model") else "before"]
    outputs = {"feat_after": features["after"], "feat_before": before}
    if run.is_resnet:
        network = {name: variables[name]["backbone"] for name in ("params", "batch_stats")}
        stages = jax.jit(lambda v, x: method.backbone.apply(v, x, False, return_stages=True))(network, images["rgb"])
        stem, maps = (np.moveaxis(np.asarray(stages[name]), -1, 1) for name in ("maxpool", "layer4"))
        outputs.update(stem_img1_slice=stem[0, :8, :16, :16], stem_shape=stem.shape, map_shape=maps.shape)
    run.compare(outputs)


def pretrained(run):
    images = run.images(run.case["inputs"])
    pixels = images["rgb"]
    network = VisionTransformer(SIZES["vit_base"], pixels.shape[1:3])
    like = jax.eval_shape(network.init, jax.random.key(0), pixels)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, run.dtype), like)
    loaded, _ = layouts.import_state(vit.layout(network.grid), run.entries, like)
    feature = jax.jit(network.apply)(loaded, pixels)
    width = run.golden.arrays["pos_embed_head"].shape[-1]
    run.compare({"base_feat": feature, "pos_embed_head": loaded["params"]["pos_embed"][0, :, :width]})


def export(run, method, params, batch_stats):
    """Trees of the method under the names and in the layout of PyTorch."""
    to_numpy = functools.partial(jax.tree.map, np.asarray)
    trees = {"params": to_numpy(params), "batch_stats": to_numpy(batch_stats)}
    # The reference has parameters that no step touches and that we do not create; an export fills them with zeros.
    return {**layouts.export_state(run.layout(method), trees), **run.unused}


def record_step(run, method, outputs, state, number):
    """Parameters, their change and running statistics after `number` steps, cut as the case stores them."""
    for name, value in export(run, method, state.params, state.batch_stats).items():
        leaf = name.rsplit(".", 1)[-1]
        if leaf.startswith(("running_", "num_batches")):
            outputs[f"bn{number}/{name}"] = value.reshape(-1)[:512].copy() if value.ndim else value
            continue
        change = value.astype(np.float64) - np.asarray(run.entries[name], np.float64)
        outputs[f"param{number}/{name}"] = value.reshape(-1)[:512].copy()
        outputs[f"delta{number}/{name}"] = change.reshape(-1)[:512].copy()
        outputs[f"delta{number}_norm/{name}"] = np.linalg.norm(change)


def three_steps(run, method, loss, optimizer, variables, terms):
    """Runs the steps of a case with the program's own training step.

    Returns:
      Every number that a case may hold, and the variables at the end.
    """

    def observed(variables, batch, key, step, memory):
        total, (found, stats, memory) = loss(variables, batch, key, step, memory)
        features, _ = method.features(variables, batch, train=True)
        concatenated, _, logits, _ = method.head(variables, features, train=True)
        return total, ({**found, "feat": concatenated, "score": logits}, stats, memory)

    optimizer = observers.recording(optimizer)
    state = states.create(variables, optimizer)
    del variables
    # One program, whose memory is used again: a ViT-B in float64 leaves no room for copies.
    step = jax.jit(steps.train_step(observed, optimizer, seed=0), donate_argnums=0)
    outputs = {}
    for number, name in enumerate(sorted(name for name in run.case["inputs"] if name.startswith("step"))):
        images = run.images(run.case["inputs"][name])
        count = len(next(iter(images.values())))
        batch = {"images": images, "identity": run.labels("labels", count), "camera": jnp.zeros(count, jnp.int32)}
        state, metrics = step(state, batch)
        logits = np.asarray(metrics["score"])
        if number == 0:
            outputs.update({f"{name}/feat": metrics["feat"], f"{name}/score": logits})
            for key, value in export(run, method, state.opt_state[1], state.batch_stats).items():
                outputs[f"grad0/{key}"] = value.reshape(-1)[:512].copy()
                outputs[f"grad0_norm/{key}"] = np.linalg.norm(value.astype(np.float64))
        top = np.sort(logits, axis=1)
        outputs[f"{name}/pseudo_label"] = logits.argmax(1)
        outputs[f"{name}/score_top2_gap"] = top[:, -1] - top[:, -2]
        outputs.update({f"{name}/{term}": metrics[term] for term in terms})
        record_step(run, method, outputs, state, number + 1)
    return outputs, state.variables


def constant(options):
    """Config overrides for the constant learning rates of a case."""
    return dict(
        schedule="constant",
        warmup_epochs=0,
        lr=options["lr_weight"],
        bias_lr_factor=options["lr_bias"] / options["lr_weight"],
        momentum=options["momentum"],
        weight_decay=options["weight_decay"],
    )


def train(run):
    images = run.images(run.case["inputs"]["step0"])
    method = run.method(images, **constant(run.case["optimizer"]))
    variables = run.variables(method)
    optimizer = method.optimizer(variables["params"], np.array([1000]))
    terms = ("loss", "ce", "triplet", "mmm", "cim")
    outputs, _ = three_steps(run, method, method.loss, optimizer, variables, terms)
    run.compare(outputs)


def adapt(run):
    images = run.images(run.case["inputs"]["step0"])
    method = run.method(images, **constant(run.case["optimizer"]))
    images = run.images(run.case["inputs"]["eval"])
    count = len(next(iter(images.values())))
    shown = {"images": images, "camera": jnp.zeros(count, jnp.int32), "scene": jnp.zeros(count, jnp.int32)}
    embed = jax.jit(method.embed)
    variables = run.variables(method)
    before = embed(variables, shown)
    optimizer = method.adapt_optimizer(variables["params"], np.array([1000]))
    outputs, reached = three_steps(run, method, method.adapt_loss, optimizer, variables, ("loss", "mmm", "cim"))
    for label, features in (("eval_before", before), ("eval_after", embed(reached, shown))):
        outputs.update({f"{label}/feat_{name}": features[name] for name in ("after", "before")})
    run.compare(outputs)
