"""Every loss term of TVI-LFM alone, with its gradients, against numbers of the authors' code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tvi_lfm_runs

from mmreid_jax.losses import identity, text, weighted_triplet
from mmreid_jax.models.heads import BNNeck
from mmreid_jax.testing import goldens

CASES = [path for path in goldens.cases("tvi_lfm") if "D" in goldens.load(path).json.get("config", {})]


def terms(case, seed, labels, dtype):
    """Name of a term -> (function of features, the names of these features, factor on them)."""
    options = case["config"]
    width, classes, scale = options["D"], options["num_classes"], options["logit_scale"]
    parameter = lambda name, shape: jnp.asarray(goldens.recipe().parameter(seed, f"classifier.{name}", shape), dtype)  # noqa: E731
    params = {
        "bottleneck": {"scale": parameter("BN.weight", (width,)), "bias": parameter("BN.bias", (width,))},
        "classifier": {"kernel": parameter("classifier.weight", (classes, width)).T},
    }
    zero, one = jnp.zeros(width, dtype), jnp.ones(width, dtype)
    stats = {"bottleneck": {"mean": zero, "var": one, "count": jnp.zeros((), jnp.int32)}}

    def classified(x):
        variables = {"params": params, "batch_stats": stats}
        (_, logits), _ = BNNeck(classes).apply(variables, x, True, mutable=["batch_stats"])
        return identity.cross_entropy(logits, labels)

    triplet = lambda x, **o: weighted_triplet.weighted_triplet(x, labels, **o)[0]  # noqa: E731
    found = {
        # Computed on features of the first scale, though its name holds none.
        "wrt_local": (lambda x, y: triplet(x, others=y), ("feats", "feats2"), options["scales"][0]),
        "id": (classified, ("feats",), 1.0),
        "orth": (lambda r, t, f: text.orthogonality(r, t - f)[0], ("ir", "text", "filter"), 1.0),
        "orth2": (lambda r, t, f: text.orthogonality(r, t - f)[1], ("ir", "text", "filter"), 1.0),
        "L_i2t": (lambda r, t: text.image_to_text(r, t, scale), ("ir", "text"), 1.0),
        "L_t2i_sum": (lambda r, t: text.text_to_image(r, t, labels, scale), ("ir", "text"), 1.0),
    }
    for name, learner, teacher in (("I2T_Regular", "ir", "text"), ("T2I_Regular", "text", "ir")):
        # What teaches and is not differentiated stands fixed.
        fixed = jnp.asarray(goldens.recipe().array(seed, teacher, (len(labels), width)), dtype)
        found[name] = (lambda x, u, f=fixed: text.similarity_transfer(x, f, u, scale), (learner, "fusion"), 1.0)
    for factor in options["scales"]:
        for name, normalize in (("wrt", False), ("wrt_normalized", True)):
            found[f"{name}/scale{factor}"] = (lambda x, n=normalize: triplet(x, normalize=n), ("feats",), factor)
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path, dtype, x64):
    golden = goldens.load(path)
    case, seed, labels = golden.json, golden.json["seed"], jnp.asarray(golden.json["labels"])
    outputs = {}
    for name, (function, keys, factor) in terms(case, seed, labels, dtype).items():
        drawn = [goldens.recipe().array(seed, key, (len(labels), case["config"]["D"])) for key in keys]
        given = [jnp.asarray(x * np.float32(factor), dtype) for x in drawn]
        value, gradients = jax.value_and_grad(function, argnums=tuple(range(len(given))))(*given)
        outputs[name] = value
        for key, gradient in zip(keys, gradients, strict=True):
            outputs[f"{name}/grad/{key}"] = tvi_lfm_runs.sliced(gradient, 2048)
            outputs[f"{name}/gradnorm/{key}"] = np.linalg.norm(np.asarray(gradient, np.float64))
    for key, expected in golden.arrays.items():
        assert key in outputs, f"nothing computes {key}"
        tvi_lfm_runs.check(key, outputs[key], expected, case, dtype)
