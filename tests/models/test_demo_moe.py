"""DeMo's layers against slow, obvious forms, and sets of modalities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.models import demo_moe


def noise(variables, seed=1):
    """Variables of noise, so that no bias is zero."""
    rng = np.random.default_rng(seed)

    def fill(path, x):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        drawn = jnp.asarray(rng.normal(size=x.shape))
        return jnp.abs(drawn) + 0.5 if path[-1].key == "var" else drawn

    return jax.tree_util.tree_map_with_path(fill, variables)


def test_subsets_come_by_size():
    assert ["".join(each) for each in demo_moe.subsets("rnt")] == ["r", "n", "t", "rn", "rt", "nt", "rnt"]


def test_a_learned_query_is_an_ordinary_attention(x64):
    """Every token projected to keys and values, head by head."""
    rng, width, heads = np.random.default_rng(0), 8, 2
    blocks = [jnp.asarray(rng.normal(size=(3, length, width))) for length in (4, 1, 6)]
    layer = demo_moe.LearnedQuery(heads)
    variables = noise(layer.init(jax.random.key(0), blocks, False))
    params = jax.tree.map(np.asarray, variables["params"])
    tokens = np.concatenate([np.asarray(x) for x in blocks], axis=1)
    queries = params["query"] @ params["kernel"][:, :width] + params["bias"][:width]
    keys, values = (
        tokens @ params["kernel"][:, part] + params["bias"][part]
        for part in (slice(width, 2 * width), slice(2 * width, None))
    )
    expected = np.zeros((3, width))
    for sample in range(3):
        for head in range(heads):
            part = slice(head * width // heads, (head + 1) * width // heads)
            scores = keys[sample, :, part] @ queries[part] / np.sqrt(width // heads)
            weights = np.exp(scores - scores.max())
            expected[sample, part] = weights / weights.sum() @ values[sample, :, part]
    expected = expected @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(layer.apply(variables, blocks, False), expected, rtol=1e-10)


def test_dropout_changes_training_alone_and_keeps_the_mean(x64):
    blocks = [jax.random.normal(jax.random.key(1), (1, 20, 8))]
    layer = demo_moe.LearnedQuery(2, dropout=0.5)
    variables = noise(layer.init(jax.random.key(0), blocks, False))
    kept = layer.apply(variables, blocks, False)
    # Of these draws the mean, because everything after the weights is linear.
    draw = jax.vmap(lambda key: layer.apply(variables, blocks, True, rngs={"dropout": key}))
    drawn = draw(jax.random.split(jax.random.key(2), 4000))
    assert float(jnp.abs(drawn[0] - kept).max()) > 0.1
    np.testing.assert_allclose(drawn.mean(0), kept, atol=5 * float(drawn.std(0).max()) / np.sqrt(4000))


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_mixture_weighs_every_head_of_every_feature(heads, x64):
    width, kinds = 8, 3
    x = jax.random.normal(jax.random.key(1), (5, kinds, width))
    layer = demo_moe.HeadwiseMixture(heads)
    variables = noise(layer.init(jax.random.key(0), x, False))
    params, stats = (jax.tree.map(np.asarray, variables[name]) for name in ("params", "batch_stats"))
    out, gates = layer.apply(variables, x, False)
    np.testing.assert_allclose(gates.sum(-1), 1, rtol=1e-12)
    depth = width // heads

    def normed(y, tree, running):
        return (y - running["mean"]) / np.sqrt(running["var"] + 1e-5) * tree["scale"] + tree["bias"]

    for head in range(heads):
        for kind in range(kinds):
            expert, running = (jax.tree.map(lambda a, h=head, k=kind: a[h, k], t["experts"]) for t in (params, stats))
            part = slice(head * depth, (head + 1) * depth)
            hidden = np.asarray(x[:, kind, part]) @ expert["project"]["kernel"] + expert["project"]["bias"]
            answer = normed(hidden / (1 + np.exp(-1.702 * hidden)), expert["norm"], running["norm"])
            np.testing.assert_allclose(out[:, kind, part], np.asarray(gates)[:, head, kind, None] * answer, rtol=1e-9)


@pytest.mark.slow(short=True)
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, {"features", "queries", "gates", "mixture"}),
        ({"fusion": "queries"}, {"features", "queries", "mixture"}),
        ({"fusion": "none", "global_local": False}, {"features"}),
    ],
)
def test_parts_that_are_left_out_leave_no_parameters(options, names):
    tokens = jax.random.normal(jax.random.key(1), (2, 3, 5, 16))
    network = demo_moe.DecoupledMixture(("rgb", "nir"), heads=2, **options)
    variables = network.init(jax.random.key(0), tokens, False)
    out = network.apply(variables, tokens, False)
    assert set(out) == names
    assert ("mixture" in variables.get("params", {})) == ("gates" in names)
    if names == {"features"}:
        assert not variables
        np.testing.assert_array_equal(out["features"], tokens[:, :, 0])
