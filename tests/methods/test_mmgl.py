"""MMGL's pre-training: blind to labels, its options, and where its trunk goes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.losses import permutation
from mmreid_jax.testing import tiny
from tests.methods.variants import KEY, mmgl_variant


@pytest.mark.slow(short=True)
def test_labels_change_no_bit():
    config, method, variables = mmgl_variant()
    batch = tiny.batch(config)
    labelled = {name: batch[name] + 5 for name in ("identity", "camera", "scene")}
    run = jax.jit(lambda batch: method.loss(variables, batch, KEY, jnp.asarray(0), {}))
    for one, other in zip(*(jax.tree.leaves(run(b)) for b in (batch, {**batch, **labelled})), strict=True):
        np.testing.assert_array_equal(one, other)
    method.loss(variables, {"images": batch["images"]}, KEY, jnp.asarray(0), {})


def test_labels_are_refused():
    with pytest.raises(UserError, match=r"config.data.labels is True"):
        tiny.method("mmgl", data__labels=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__stripes": 5}, "32 rows cannot be cut into 5 stripes"),
        ({"model__stripes": 1}, "config.model.stripes is 1; choose from 2"),
        ({"model__stripe_gap": 4}, "stripe_gap is 4, but stripes are 8 rows high"),
        ({"model__proj_head": "mlp"}, "config.model.proj_head is 'mlp'"),
        ({"loss__perm_reduction": "max"}, "config.loss.perm_reduction is 'max'"),
        ({"loss__cl_mode": "cycle"}, "config.loss.cl_mode"),
        ({"loss__perm_weight": 0.0, "loss__cl_weight": 0.0}, "nothing to learn"),
        ({"eval__feature": "fc"}, "config.eval.feature is 'fc'"),
    ],
)
def test_what_cannot_be_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        tiny.method("mmgl", **changes)


def test_a_pair_shares_its_order_and_pairs_differ():
    _, method, _ = mmgl_variant()
    orders = method.orders(KEY, 64)
    np.testing.assert_array_equal(*orders.values())
    assert len(np.unique(orders["visible"], axis=0)) > 10
    _, method, _ = mmgl_variant(model__shared_in_pair=False)
    assert not np.array_equal(*method.orders(KEY, 64).values())


def test_all_orders_are_drawn():
    _, method, _ = mmgl_variant(model__stripes=4)
    seen = np.unique(method.orders(KEY, 2000)["visible"], axis=0)
    assert len(seen) == permutation.count(4)


@pytest.mark.slow
def test_a_branch_of_no_weight_does_not_exist():
    for weight, branch in (("loss__perm_weight", "order"), ("loss__cl_weight", "projections")):
        config, method, variables = mmgl_variant(**{weight: 0.0})
        assert set(variables["params"]) == {"backbone", "order", "projections"} - {branch}
        total, (terms, *_) = method.loss(variables, tiny.batch(config), KEY, jnp.asarray(0), {})
        term = "pcc" if branch == "order" else "perm"
        weight = config.loss.cl_weight if branch == "order" else 1.0
        np.testing.assert_allclose(total, weight * terms[term], rtol=1e-6)


@pytest.mark.slow
def test_contrast_begins_when_told():
    config, method, variables = mmgl_variant(loss__cl_start=3)
    totals = {}
    for step in (2, 3):
        totals[step], (terms, *_) = method.loss(variables, tiny.batch(config), KEY, jnp.asarray(step), {})
    np.testing.assert_allclose(totals[2], terms["perm"], rtol=1e-6)
    np.testing.assert_allclose(totals[3], terms["perm"] + config.loss.cl_weight * terms["pcc"], rtol=1e-6)


@pytest.mark.slow(short=True)
def test_noise_is_averaged_over_samples_and_depends_on_the_key():
    config, method, variables = mmgl_variant(loss__sinkhorn_noise=1.0, loss__sinkhorn_samples=3)
    found = [
        float(method.loss(variables, tiny.batch(config), jax.random.key(k), jnp.asarray(0), {})[1][0]["perm"])
        for k in (1, 2, 1)
    ]
    assert found[0] == found[2] != found[1]


@pytest.mark.slow
def test_examination_depends_on_the_index_of_an_image_alone():
    config, method, variables = mmgl_variant()
    images = {"rgb": tiny.batch(config)["images"]["rgb"]}
    index = np.arange(len(images["rgb"]), dtype=np.int32)
    whole = method.examine(variables, {"images": images, "index": index})
    assert {name.rsplit("_", 1)[0] for name in whole} == {"exact", "stripe", "row", "gap", "mixed"}
    assert all(((value >= 0) & (value <= 1)).all() and len(value) == len(index) for value in whole.values())
    part = method.examine(variables, {"images": {"rgb": images["rgb"][5:9]}, "index": index[5:9]})
    for name in ("exact_rgb", "stripe_rgb", "row_rgb", "gap_rgb"):
        np.testing.assert_array_equal(part[name], whole[name][5:9])


@pytest.mark.slow(short=True)
def test_explanation_shows_what_examination_counts():
    config, method, variables = mmgl_variant()
    images, index = tiny.batch(config)["images"], np.arange(16, dtype=np.int32)
    for name in ("rgb", "nir"):
        batch = {"images": {name: images[name]}, "index": index}
        shown, counted = method.explain(variables, batch), method.examine(variables, batch)
        right = (np.asarray(shown["orders"]) == shown["assigned"]).all(1)
        np.testing.assert_array_equal(counted[f"exact_{name}"], right)
        np.testing.assert_allclose(np.linalg.norm(shown["patches"], axis=-1), 1, atol=1e-5)
