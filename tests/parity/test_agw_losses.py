"""Losses of Base and AGW against numbers of the authors' code; every case of the suite ``agw`` with such losses."""

from __future__ import annotations

import agw_runs
import described
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses import identity, triplet, weighted_triplet
from mmreid_jax.testing import goldens

CASES = [path for path in goldens.cases("agw") if "feature_dim" in goldens.load(path).json]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path, dtype, x64):
    golden, recipe = goldens.load(path), goldens.recipe()
    case, outputs = golden.json, {}
    labels = jnp.asarray(case["labels"])
    logits, features = (
        recipe.array(case["seed"], name, described.shape(case["inputs"], name)) for name in ("logits", "features")
    )
    features = features.astype(dtype)
    # The rows of one identity stand together, K of them; where the file does not say K, as many as there are.
    together = int(np.argmax(np.append(np.diff(case["labels"]) != 0, True))) + 1
    per_identity = int(described.number(case.get("notes", ""), r"K=(\d+)", together))
    keys = agw_runs.keys_of(golden.arrays, dtype)
    for kind in {name.rsplit("/", 1)[0] for name in keys.values()}:
        loss, x = loss_of(kind, labels, features, logits, per_identity)
        (value, compared), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.asarray(x, dtype))
        outputs.update({f"{kind}/loss": value, f"{kind}/grad": gradient})
        if compared is not None:
            outputs[f"{kind}/correct"] = np.sum(np.asarray(compared[1]) >= np.asarray(compared[0]))
    for key, name in keys.items():
        agw_runs.check(key, outputs[name], golden.arrays[key], case["tolerances"].get(name), dtype)


def loss_of(kind, labels, features, logits, per_identity):
    """The loss that a key names, and what it is computed of."""
    family, _, variant = kind.partition("/")
    if family == "ce":
        return lambda x: (identity.cross_entropy(x, labels), None), logits
    margin = 0.3
    if variant.startswith("scale"):
        features = features * features.dtype.type(variant.removeprefix("scale"))
    elif variant.startswith("margin"):
        margin = float(variant.removeprefix("margin"))
    elif variant.startswith("duplicates_margin"):
        margin = float(variant.removeprefix("duplicates_margin"))
        features = features.copy()
        features[1], features[per_identity] = features[0], features[per_identity + 1]
    else:
        assert variant == "normalized", f"nothing computes {kind}"
    if family == "tri":
        return lambda x: triplet.batch_hard_triplet(x, labels, margin, share_ties=True), features
    assert family == "wrt", f"nothing computes {kind}"
    normalize = variant == "normalized"
    return lambda x: weighted_triplet.weighted_triplet(x, labels, normalize=normalize), features
