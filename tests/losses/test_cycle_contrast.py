"""Part-aware cycle contrast against loops over patches, and what must hold whatever the patches are."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmreid_jax.errors import UserError
from mmreid_jax.losses.cycle_contrast import MODES, QUERIES, SCOPES, CycleContrastOptions, cycle_contrast, find, health
from mmreid_jax.losses.vectors import l2_normalise

COMBINATIONS = list(itertools.product(MODES, SCOPES, SCOPES, (False, True)))


def patches(images=3, stripes=4, size=5, seed=0, scale=1.0):
    """Visible and infrared patches [B, S, D]."""
    return tuple(jnp.asarray(scale * np.random.default_rng(seed).normal(size=(2, images, stripes, size))))


def unit(x):
    return x / max(np.sqrt(np.sum(x**2)), 1e-12)


def softmax(logits):
    shares = np.exp(np.asarray(logits) - np.max(logits))
    return shares / shares.sum()


def members(n, total, stripes, scope):
    """The patches that patch n has to do with: all, or those of its image."""
    return [k for k in range(total) if scope == "batch" or k // stripes == n // stripes]


def naive(own, other, options, stripes):
    """(loss, self weight, entropy) of the queries of one modality, patch by patch; own and other [N, D]."""
    total = len(own)
    own, other = [unit(x) for x in own], [unit(x) for x in other]
    retrieval = options.retrieval_temperature or options.temperature

    def neighbour(query, candidates, left_out=None):
        near = [k for k in candidates[1] if k != left_out]
        weights = softmax([query @ candidates[0][k] / retrieval for k in near])
        found = unit(sum(w * candidates[0][k] for w, k in zip(weights, near, strict=True)))
        return found, dict(zip(near, weights, strict=True))

    across, within, selves, entropies = [], [], [], []
    for n in range(total):
        near = members(n, total, stripes, options.candidate_scope)
        a, weights = neighbour(own[n], (other, near))
        across.append(a)
        entropies.append(-sum(w * np.log(w) for w in weights.values()))
        if options.mode == "cycle_back":
            within.append(own[n])
            continue
        start = own[n] if options.mode == "parallel" else a
        b, weights = neighbour(start, (own, near), n if options.exclude_self else None)
        within.append(b)
        selves.append(weights.get(n, 0.0))
    losses = []
    for n in range(total):
        near = members(n, total, stripes, options.negative_scope)
        there = softmax([across[n] @ within[k] / options.temperature for k in near])[near.index(n)]
        back = softmax([within[n] @ across[k] / options.temperature for k in near])[near.index(n)]
        if options.mode == "cycle_back":
            losses.append(-np.log(there))
            selves.append(there)
        else:
            losses.append(-(np.log(there) + np.log(back)) / 2)
    return np.mean(losses), np.mean(selves), np.mean(entropies)


@pytest.mark.parametrize(("mode", "candidates", "negatives", "exclude_self"), COMBINATIONS)
def test_against_loops_over_patches(mode, candidates, negatives, exclude_self, x64):
    options = CycleContrastOptions(
        mode=mode,
        candidate_scope=candidates,
        negative_scope=negatives,
        exclude_self=exclude_self,
        temperature=0.3,
        retrieval_temperature=0.2,
    )
    visible, infrared = patches()
    loss, details = cycle_contrast(visible, infrared, options)
    flat = [np.asarray(x).reshape(-1, x.shape[-1]) for x in (visible, infrared)]
    both = np.array([naive(*flat, options, 4), naive(*flat[::-1], options, 4)])
    np.testing.assert_allclose([details["visible_query"], details["infrared_query"]], both[:, 0], rtol=1e-11)
    watched = [loss, details["self_weight"], details["attention_entropy"]]
    np.testing.assert_allclose(watched, both.mean(axis=0), rtol=1e-11, atol=1e-15)
    if exclude_self and mode != "cycle_back":
        assert float(details["self_weight"]) == 0.0


def test_the_total_is_of_the_queries_asked_for(x64):
    visible, infrared = patches()
    losses = {query: cycle_contrast(visible, infrared, CycleContrastOptions(query=query))[0] for query in QUERIES}
    _, details = cycle_contrast(visible, infrared)
    assert losses["visible"] == details["visible_query"] != details["infrared_query"] == losses["infrared"]
    np.testing.assert_allclose(losses["both"], (losses["visible"] + losses["infrared"]) / 2, rtol=1e-14)
    swapped, _ = cycle_contrast(infrared, visible, CycleContrastOptions(query="visible"))
    np.testing.assert_allclose(swapped, losses["infrared"], rtol=1e-14)


@pytest.mark.parametrize("mode", MODES)
def test_lengths_and_the_order_of_images_do_not_matter(mode, x64):
    visible, infrared = patches()
    lengths = np.random.default_rng(1).uniform(0.1, 10, (2, 3, 4, 1))
    options, shuffled = CycleContrastOptions(mode=mode), np.array([2, 0, 1])
    expected, _ = cycle_contrast(visible, infrared, options)
    actual, _ = cycle_contrast(visible * lengths[0], (infrared * lengths[1])[shuffled], options)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("scope", "unknown"), [("batch", 12), ("pair", 4)])
def test_patches_that_cannot_be_told_apart_have_the_loss_of_a_guess(mode, scope, unknown):
    same = jnp.ones((3, 4, 5))
    loss, details = cycle_contrast(same, same, CycleContrastOptions(mode=mode, negative_scope=scope))
    np.testing.assert_allclose(loss, np.log(unknown), rtol=1e-5)
    np.testing.assert_allclose(details["attention_entropy"], np.log(12), rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_is_low_where_every_patch_has_a_counterpart(mode):
    same = jnp.eye(12).reshape(3, 4, 12)
    loss, details = cycle_contrast(same, same, CycleContrastOptions(mode=mode))
    assert float(loss) < 1e-3
    assert float(details["self_weight"]) > 0.999
    apart, _ = cycle_contrast(same, jnp.roll(same, 1, axis=0), CycleContrastOptions(mode=mode, candidate_scope="pair"))
    assert float(apart) > 0.5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("scope", SCOPES)
def test_zero_patches_have_finite_gradients(mode, exclude_self, scope):
    visible, infrared = (jnp.asarray(x, jnp.float32) for x in patches())
    visible, infrared = visible.at[0, 1].set(0.0), infrared.at[2].set(0.0)
    options = CycleContrastOptions(mode=mode, exclude_self=exclude_self, candidate_scope=scope)
    objective = jax.value_and_grad(lambda v, t: cycle_contrast(v, t, options)[0], (0, 1))
    loss, gradients = jax.jit(objective)(visible, infrared)
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_half_precision_is_computed_in_float32():
    visible, infrared = (jnp.asarray(x, jnp.bfloat16) for x in patches())
    loss, details = jax.jit(cycle_contrast)(visible, infrared)
    wide, _ = cycle_contrast(visible.astype(jnp.float32), infrared.astype(jnp.float32))
    assert {value.dtype for value in (loss, *details.values())} == {jnp.dtype("float32")}
    np.testing.assert_allclose(loss, wide, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_candidates_without_gradient(mode, x64):
    """With the candidates held fixed the loss of visible queries has no gradient by infrared patches."""
    visible, infrared = patches()
    expected = cycle_contrast(visible, infrared, CycleContrastOptions(mode, query="visible"))[0]
    for held in (False, True):
        options = CycleContrastOptions(mode, query="visible", stop_gradient=held)
        objective = jax.jit(jax.value_and_grad(lambda v, t, o=options: cycle_contrast(v, t, o)[0], (0, 1)))
        loss, (of_visible, of_infrared) = objective(visible, infrared)
        np.testing.assert_allclose(loss, expected, rtol=1e-12)
        assert np.asarray(of_visible).any()
        assert np.asarray(of_infrared).any() != held


def test_a_patch_never_finds_itself_where_it_is_excluded(x64):
    visible, infrared = (l2_normalise(x) for x in patches())
    for scope in SCOPES:
        found = find(visible, infrared, CycleContrastOptions(exclude_self=True, candidate_scope=scope))
        assert not np.diagonal(found.attention_within, axis1=1, axis2=2).any()
        np.testing.assert_allclose(found.attention_within.sum(axis=-1), 1.0)
        assert np.diagonal(found.attention_across, axis1=1, axis2=2).all()


def test_numbers_of_health(x64):
    visible, infrared = patches(20, 6, 4)
    found = {name: float(value) for name, value in jax.jit(health)(visible, infrared).items()}
    flat = [np.array([unit(x) for x in np.asarray(p).reshape(-1, 4)]) for p in (visible, infrared)]
    np.testing.assert_allclose(found["modality_cosine"], np.mean(flat[0] @ flat[1].T), rtol=1e-10)
    for name, rows in zip(("visible", "infrared"), flat, strict=True):
        values = np.linalg.eigvalsh(np.cov(rows.T, bias=True))
        np.testing.assert_allclose(found[f"std_{name}"], rows.std(axis=0).mean(), rtol=1e-10)
        np.testing.assert_allclose(found[f"effective_rank_{name}"], values.sum() ** 2 / (values**2).sum(), rtol=1e-6)
        assert 3.0 < found[f"effective_rank_{name}"] < 4.0


def test_health_of_collapsed_patches():
    same = jnp.tile(jnp.asarray(np.random.default_rng(2).normal(size=16), jnp.float32), (8, 6, 1))
    line = same.at[::2].multiply(-1.0)
    found = health(same, line)
    np.testing.assert_allclose(found["std_visible"], 0.0, atol=1e-6)
    np.testing.assert_allclose(found["effective_rank_visible"], 0.0, atol=1e-3)
    np.testing.assert_allclose(found["effective_rank_infrared"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(health(same, same)["modality_cosine"], 1.0, rtol=1e-5)


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("mode", MODES)
def test_eight_devices_are_one_device(mode, scope, x64):
    """A loss that saw the patches of its own device alone would differ with candidates from the batch."""
    assert len(jax.devices()) >= 8
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:8]), ("data",)), PartitionSpec("data"))
    options = CycleContrastOptions(mode=mode, candidate_scope=scope, exclude_self=True)
    run = jax.value_and_grad(lambda v, t: cycle_contrast(v, t, options), (0, 1), has_aux=True)
    batch = patches(8, 3, 6)
    plain, spread = run(*batch), jax.jit(run)(*jax.device_put(batch, sharding))
    for one, eight in zip(jax.tree.leaves(plain), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"mode": "round"}, "cl_mode is 'round'; choose one of parallel"),
        ({"candidate_scope": "all"}, "candidate_scope is 'all'"),
        ({"negative_scope": "all"}, "negative_scope is 'all'"),
        ({"query": "rgb"}, "cl_query is 'rgb'"),
        ({"temperature": 0.0}, "cl_temperature is 0.0; it must be above 0"),
        ({"retrieval_temperature": -1.0}, "retrieval_temperature is -1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, key):
    with pytest.raises(UserError, match=f"config.loss.{key}"):
        CycleContrastOptions(**options)


def test_patches_that_do_not_fit_are_refused():
    visible, infrared = patches()
    with pytest.raises(UserError, match="of one shape"):
        cycle_contrast(visible, infrared[:2])
    with pytest.raises(UserError, match="without candidates"):
        cycle_contrast(visible[:, :1], infrared[:, :1], CycleContrastOptions(exclude_self=True, candidate_scope="pair"))
