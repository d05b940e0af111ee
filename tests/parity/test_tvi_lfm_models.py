"""TVI-LFM's networks and training steps of both stages against numbers of the authors' code.

Every case of the suite ``tvi_lfm`` that holds a ``state_dict`` is run, in float32 and in float64. Weights enter through
the conversion code that a user's checkpoint takes, captions as the tokens of the file.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import observers
import precisions
import pytest
import tvi_lfm_runs

from mmreid_jax.testing import goldens
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

FILES = {path: goldens.load(path) for path in goldens.cases("tvi_lfm")}
NETWORKS = {path: golden.json for path, golden in FILES.items() if "state_dict" in golden.json}
EVALUATIONS = [path for path, case in NETWORKS.items() if case["config"].get("mode") == "eval"]
STEPS = [path for path, case in NETWORKS.items() if "steps" in case["config"]]
VARIANTS = [(path, name) for path, case in NETWORKS.items() for name in case.get("variants", {})]


def test_every_network_is_run():
    assert set(NETWORKS) == {*EVALUATIONS, *STEPS, *(path for path, _ in VARIANTS)}


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(EVALUATIONS, lambda *_: True)))
def test_evaluation(path, dtype, x64):
    golden = FILES[path]
    outputs = {}
    for form, options in (("sff", {"Feat_Filter": True}), ("add", {})):
        config = tvi_lfm_runs.config_of({"training_mode": "RGB_IR_Text", **options})
        run = tvi_lfm_runs.Run(golden, dtype, config)
        method, variables = run.method, run.variables()
        tokens = {ours: jnp.asarray(golden.arrays[f"tokens/{its}"]) for ours, its in tvi_lfm_runs.MODALITIES.items()}
        count = len(tokens["rgb"])
        images = {ours: run.images(f"img_{theirs}", count) for ours, theirs in tvi_lfm_runs.MODALITIES.items()}

        def inside(variables, images, tokens, method=method, count=count):
            params, stats = variables["params"], variables["batch_stats"]
            streams = {"visible": images["rgb"], "infrared": images["nir"]}
            maps, _ = method.trunk(params["backbone"], stats["backbone"], streams, False)
            pooled, texts = method.pooled(params, maps), method.read(params, tokens)
            fusion = method.fuse(pooled[count:], texts)
            logits = method.head(params, stats, {"fusion": fusion}, False)[1]["fusion"]
            return {
                "maps": jnp.moveaxis(maps, -1, 1),
                "rgb": pooled[:count],
                "ir": pooled[count:],
                "text_rgb": texts["rgb"],
                "text_ir": texts["nir"],
                "fusion": fusion,
                "logits": logits,
            }

        seen = jax.jit(inside)(variables, images, tokens)
        found = jax.jit(method.embed)(variables, {"images": images, "tokens": tokens})
        # One modality alone, as in evaluation, gives the same.
        alone = jax.jit(method.embed)(variables, {"images": {"nir": images["nir"]}, "tokens": tokens})
        np.testing.assert_allclose(alone["fusion_nir"], found["fusion_nir"], atol=1e-5)
        gallery = found["joint_rgb"]
        maps = {"rgb": seen["maps"][:count], "ir": seen["maps"][count:]}
        outputs.update({f"featmap/{name}": tvi_lfm_runs.sliced(own, 4096) for name, own in maps.items()})
        outputs["featmap_shape"] = np.array(maps["rgb"].shape)
        outputs.update({f"raw/{name}": seen[name] for name in ("rgb", "ir", "text_rgb", "text_ir")})
        outputs.update(
            {"embed/rgb": gallery, f"raw/fusion_{form}": seen["fusion"], f"logits/fusion_{form}": seen["logits"]}
        )
        names = {"ir": "ir", "text": "text", f"fusion_{form}": "fusion", f"mer_{form}": "mer"}
        for theirs, ours in names.items():
            outputs[f"embed/{theirs}"] = found[f"{ours}_nir"]
            outputs[f"similarity/{theirs}"] = found[f"{ours}_nir"] @ gallery.T
        precisions.forget()
    for key, expected in golden.arrays.items():
        if not key.startswith("tokens/"):
            assert key in outputs, f"nothing computes {key}"
            tvi_lfm_runs.check(key, outputs[key], expected, golden.json, dtype)


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(STEPS, lambda *_: True)))
def test_training(path, dtype, x64):
    golden = FILES[path]
    case, options = golden.json, golden.json["config"]
    run = tvi_lfm_runs.Run(golden, dtype, tvi_lfm_runs.config_of(options))
    method, epoch = run.method, options["epoch_for_lr"]
    wide = run.dtype == jnp.float64
    # In float32 random weights drift apart after the first step.
    count = options["steps"] if wide else 1
    ends = np.array([0] * epoch + [1000] * (method.config.optim.epochs - epoch))
    variables = run.variables()
    optimizer = observers.recording(method.optimizer(variables["params"], ends))
    state = states.create(variables, optimizer)
    del variables
    step = jax.jit(steps.train_step(run.observed(), optimizer, seed=0), donate_argnums=0)
    outputs = {}
    for number in range(count):
        state, report = step(state, run.batch(number, f"_{number}"))
        report = jax.tree.map(np.asarray, report)
        losses = run.losses(report, case["labels"])
        outputs.update({f"step{number}/{name}": value for name, value in losses.items()})
        if number == 0:
            outputs["step0/feats"] = tvi_lfm_runs.sliced(report["feats"], 8192)
            outputs["step0/feats_shape"] = np.array(report["feats"].shape)
            outputs["step0/scores"] = tvi_lfm_runs.sliced(report["scores"], 4096)
            outputs["step0/total_grad_norm"] = report["norm_gradient"]
            gradient = run.export(state.opt_state[1], state.batch_stats)
            keep_gradients(outputs, gradient, golden, 512)
            if "tokens/rgb_0" in golden.arrays:
                table, tokens = gradient["base_model.token_embedding.weight"], golden.arrays["tokens/rgb_0"]
                outputs["grad/token_embedding[sot]"] = table[tokens[0, 0]]
                outputs["grad/token_embedding[rgb0_token1]"] = table[tokens[0, 1]]
            del gradient
        exported = run.export(state.params, state.batch_stats)
        for key in golden.arrays:
            kind, _, name = key.partition("/")
            if kind in (f"param_after{number + 1}", f"stat_after{number + 1}"):
                outputs[key] = tvi_lfm_runs.sliced(exported[name], 512)
    start = run.entries
    moved = {name for name, own in exported.items() if not np.array_equal(own.astype(start[name].dtype), start[name])}
    learning = tuple(case["params_with_grad_prefixes"])
    for name in exported:
        if not observers.is_buffer(name):
            assert (name in moved) == name.startswith(learning), (
                f"{name} {'moved' if name in moved else 'did not move'}"
            )
        elif not name.startswith("backup"):
            assert name in moved, f"{name} did not move"
    counted = [value for name, value in exported.items() if name.endswith("num_batches_tracked")]
    assert sum(int(value) == count for value in counted) == case["num_batches_tracked_nonzero_count"]
    for key, expected in golden.arrays.items():
        later = key.startswith(("param_after", "stat_after", "step1", "step2")) and not key.startswith("stat_after1")
        if key.startswith("tokens/") or (later and not wide):
            continue
        assert key in outputs, f"nothing computes {key}"
        tvi_lfm_runs.check(key, outputs[key], expected, case, dtype, tvi_lfm_runs.GRADIENT32)
    precisions.forget()


@pytest.mark.parametrize("variant", sorted({name for _, name in VARIANTS}))
@pytest.mark.parametrize(
    ("path", "dtype"), list(precisions.runs(sorted({path for path, _ in VARIANTS}), lambda *_: True))
)
def test_variant(path, dtype, variant, x64):
    golden = FILES[path]
    if variant in golden.json["variants"]:
        check_variant(golden, dtype, variant)
        precisions.forget()


def check_variant(golden, dtype, variant):
    case, chosen = golden.json, golden.json["variants"][variant]
    listed = case["state_dict"]
    if "classifier_state_dict" in chosen:
        kept = [entry for entry in listed if not entry[0].startswith("classifier.")]
        listed = [*kept, *chosen["classifier_state_dict"]]
    config = tvi_lfm_runs.config_of({**case["config"], **chosen["config"]})
    run = tvi_lfm_runs.Run(golden, dtype, config, listed)
    variables, batch = run.variables(), run.batch(0)
    loss = run.observed()

    def objective(params, variables, batch):
        total, (terms, _, _) = loss({**variables, "params": params}, batch, jax.random.key(0), 0, {})
        return total, {**terms, "loss": total}

    gradient, report = jax.jit(jax.grad(objective, has_aux=True))(variables["params"], variables, batch)
    outputs = {f"{variant}/{name}": value for name, value in run.losses(report, case["labels"]).items()}
    exported = run.export(gradient, variables["batch_stats"])
    found = {}
    keep_gradients(found, exported, golden, 256, f"{variant}/")
    outputs.update({f"{variant}/{name}": value for name, value in found.items()})
    visual = {
        n for n, g in exported.items() if n.startswith("base_model.visual.") and not observers.is_buffer(n) and g.any()
    }
    assert visual == set(chosen["visual_params_with_grad"])
    for key, expected in golden.arrays.items():
        if key.startswith(f"{variant}/"):
            assert key in outputs, f"nothing computes {key}"
            tvi_lfm_runs.check(key, outputs[key], expected, case, dtype, tvi_lfm_runs.GRADIENT32)


def keep_gradients(outputs, gradient, golden, count, prefix=""):
    """Puts the slices and norms of those gradients into `outputs` that a file holds under `prefix`."""
    for key in golden.arrays:
        kind, _, name = key.removeprefix(prefix).partition("/")
        if key.startswith(prefix) and name in gradient:
            if kind == "grad":
                outputs[f"grad/{name}"] = tvi_lfm_runs.sliced(gradient[name], count)
            elif kind == "gradnorm":
                outputs[f"gradnorm/{name}"] = np.linalg.norm(gradient[name].astype(np.float64))
