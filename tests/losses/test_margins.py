"""3M and CIM against loops over identities, samples and modalities."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.losses import margins

# Of one length, so that the compiled losses serve all of them.
BATCHES = {
    "sorted": [4, 4, 1, 1, 7, 7, 7],
    "unsorted": [4, 1, 7, 1, 4, 7, 1],
    "unequal": [4, 1, 4, 4, 9, 1, 4],
    "alone": [3, 2, 5, 0, 1, 8, 4],
    "one identity": [6, 6, 6, 6, 6, 6, 6],
}
STATIC = ("distance", "grouping", "num_identities")
THREE = jax.jit(margins.three_modal_margin_loss, static_argnames=STATIC)
CROSS = jax.jit(margins.cross_identity_margin_loss, static_argnames=STATIC)
SLOPES = {loss: jax.jit(jax.grad(loss)) for loss in (THREE, CROSS)}


def distance_between(x, y, distance):
    if distance == "l1":
        return np.abs(x - y).mean()
    if distance == "l2":
        return np.square(x - y).sum()
    return x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-8)


def unit(features):
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def naive_three_modal(features, groups, margin, distance):
    total = 0.0
    for group in groups:
        centers = [feature[group].mean(axis=0) for feature in unit(features)]
        total += max(abs(margin - distance_between(a, b, distance)) for a, b in itertools.combinations(centers, 2))
    return total


def naive_cross_identity(features, groups, margin, distance):
    features, values = unit(features), []
    for u, v in itertools.combinations(groups, 2):
        candidates = [
            abs(margin - distance_between(features[a, i], features[b, j], distance))
            for i, j, a, b in itertools.product(u, v, range(len(features)), range(len(features)))
        ]
        values.append(max(candidates))
    return np.mean(values) if values else 0.0


def groups_of(labels):
    return [np.flatnonzero(np.equal(labels, label)) for label in dict.fromkeys(labels)]


def random_features(modalities, batch, dimension=12, seed=0):
    return np.random.default_rng([seed, modalities, batch]).standard_normal((modalities, batch, dimension))


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
class TestByLabel:
    @pytest.mark.parametrize(("margin", "distance"), [(1.0, "l2"), (0.2, "l1"), (0.1, "cos")])
    def test_three_modal_matches_naive_loop(self, labels, modalities, margin, distance, x64):
        features = random_features(modalities, len(labels))
        expected = naive_three_modal(features, groups_of(labels), margin, distance)
        actual = THREE(features, jnp.asarray(labels), margin=margin, distance=distance)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)

    @pytest.mark.parametrize(("margin", "distance"), [(0.5, "l1"), (0.25, "l1"), (1.5, "l2"), (0.1, "cos")])
    def test_cross_identity_matches_naive_loop(self, labels, modalities, margin, distance, x64):
        features = random_features(modalities, len(labels))
        expected = naive_cross_identity(features, groups_of(labels), margin, distance)
        actual = CROSS(features, jnp.asarray(labels), margin=margin, distance=distance)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)

    @pytest.mark.parametrize("loss", [THREE, CROSS], ids=["3m", "cim"])
    def test_gradient_is_that_of_the_value(self, labels, modalities, loss, x64):
        features, labels = random_features(modalities, len(labels)), jnp.asarray(labels)
        direction = random_features(modalities, len(labels), seed=1)
        numeric = (loss(features + 1e-6 * direction, labels) - loss(features - 1e-6 * direction, labels)) / 2e-6
        actual = np.sum(direction * np.asarray(SLOPES[loss](features, labels)))
        np.testing.assert_allclose(actual, numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["three_modal_margin_loss", "cross_identity_margin_loss"])
def test_jit_equals_eager(name, x64):
    features, labels = random_features(3, 7), jnp.asarray(BATCHES["unsorted"])
    loss = getattr(margins, name)
    np.testing.assert_allclose(jax.jit(loss)(features, labels), loss(features, labels), rtol=1e-13)


class TestPositional:
    @pytest.mark.parametrize(("batch", "count"), [(6, 3), (5, 2), (7, 4), (4, 1), (3, 3)])
    def test_matches_naive_chunks(self, batch, count, x64):
        features, length = random_features(3, batch), -(-batch // count)
        chunks = [np.arange(start, min(start + length, batch)) for start in range(0, batch, length)]
        options = {"grouping": "positional", "num_identities": count}
        np.testing.assert_allclose(
            THREE(features, **options), naive_three_modal(features, chunks, 1.0, "l2"), rtol=1e-12
        )
        if count > 1 and len(chunks[-1]) >= batch // count:
            compared = [chunk[: batch // count] for chunk in chunks]
            expected = naive_cross_identity(features, compared, 0.5, "l1")
            np.testing.assert_allclose(CROSS(features, **options), expected, rtol=1e-12)

    @pytest.mark.parametrize("loss", [THREE, CROSS])
    @pytest.mark.parametrize(("identities", "each"), [(8, 4), (5, 1)])
    def test_equals_by_label_on_sorted_batches(self, loss, identities, each, x64):
        labels = np.repeat(np.random.default_rng(1).permutation(50)[:identities], each)
        features = jnp.asarray(random_features(3, len(labels)))
        both = jax.jit(jax.value_and_grad(loss), static_argnames=STATIC)
        expected, expected_gradient = both(features, grouping="positional", num_identities=identities)
        actual, gradient = both(features, jnp.asarray(labels))
        np.testing.assert_allclose(actual, expected, rtol=1e-13)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-11, atol=1e-15)

    @pytest.mark.parametrize(
        ("loss", "batch", "count", "reason"),
        [
            (THREE, 7, 5, "chunks"),
            (THREE, 9, 4, "chunks"),
            (CROSS, 7, 5, "chunks"),
            (CROSS, 7, 3, "last chunk"),
            (CROSS, 4, 1, "no pair of identities"),
            (THREE, 4, None, "num_identities"),
            (CROSS, 4, 5, "num_identities"),
        ],
    )
    def test_refuses_where_the_reference_fails(self, loss, batch, count, reason):
        with pytest.raises(UserError, match=reason):
            loss(random_features(3, batch), grouping="positional", num_identities=count)


def test_by_hand(x64):
    # Two identities of one sample in two modalities, unit vectors along the axes of the plane.
    right, up, left = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
    features = jnp.asarray([[right, up], [up, left]])
    labels = jnp.asarray([0, 1])
    assert THREE(features, labels) == abs(1 - 2) + abs(1 - 2)
    # Mean absolute differences: right-up 1, right-left 1, up-up 0, up-left 1; the closest pair is the copy.
    assert CROSS(features, labels) == 0.5
    assert CROSS(features, labels, margin=0.1) == 0.9


@pytest.mark.parametrize("loss", [THREE, CROSS])
def test_lists_stacks_and_lengths_are_equal(loss, x64):
    features, labels = random_features(3, 7), jnp.asarray(BATCHES["unsorted"])
    expected = loss(features, labels)
    np.testing.assert_allclose(loss([jnp.asarray(x) for x in features], labels), expected, rtol=1e-14)
    np.testing.assert_allclose(loss(0.01 * features, labels), expected, rtol=1e-12)


def test_first_of_equal_pairs_receives_the_whole_gradient(x64):
    # All modalities and samples coincide inside an identity, so every pair is a hardest one.
    features = jnp.broadcast_to(jnp.asarray([[1.0, 0.2], [1.0, 0.2], [0.3, 1.0], [0.3, 1.0]]), (3, 4, 2))
    gradient = SLOPES[CROSS](features, jnp.asarray([0, 0, 1, 1]))
    touched = [tuple(map(int, index)) for index in np.argwhere(np.any(gradient != 0, axis=-1))]
    assert touched == [(0, 0), (0, 2)]


def test_first_of_equal_modality_pairs_receives_the_whole_gradient(x64):
    # Neighbouring modalities are at a right angle, squared distance 2; the third pair coincides and is less far off.
    features = jnp.asarray([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]])
    gradient = SLOPES[THREE](features, jnp.asarray([0]), margin=0.5)
    assert np.any(gradient != 0, axis=-1)[:, 0].tolist() == [True, True, False]


@pytest.mark.parametrize("loss", [THREE, CROSS])
@pytest.mark.parametrize("distance", ["l1", "l2", "cos"])
def test_gradient_is_finite_on_copies_and_zeros(loss, distance):
    features = jnp.ones((3, 4, 8)).at[:, 2:].set(0.0)
    gradient = jax.jit(jax.grad(loss), static_argnames=STATIC)(features, jnp.asarray([0, 0, 1, 1]), distance=distance)
    assert np.all(np.isfinite(gradient))


def test_many_pairs_in_portions_equal_all_at_once(monkeypatch, x64):
    features, labels = jnp.asarray(random_features(3, 12)), jnp.asarray(np.arange(12) % 5)

    def both():
        return jax.jit(jax.value_and_grad(lambda x: margins.cross_identity_margin_loss(x, labels)))(features)

    expected = both()
    monkeypatch.setattr(margins, "_PAIRS_AT_A_TIME", 7)
    actual = both()
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-13)
    np.testing.assert_allclose(actual[1], expected[1], rtol=1e-12, atol=1e-16)


def test_cross_identity_stores_no_cube_of_differences():
    batch, dimension = 64, 768
    features = jax.ShapeDtypeStruct((3, batch, dimension), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    compiled = jax.jit(jax.value_and_grad(CROSS)).lower(features, labels).compile()
    differences = (3 * batch) ** 2 * dimension * 4
    assert compiled.memory_analysis().temp_size_in_bytes < differences / 2


def test_half_precision_is_compared_in_float32():
    features, labels = random_features(3, 7), jnp.asarray(BATCHES["unequal"])
    half = jnp.asarray(features, jnp.bfloat16)
    for loss in (THREE, CROSS):
        value = loss(half, labels)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, loss(half.astype(jnp.float32), labels), rtol=1e-6)


@pytest.mark.parametrize(
    ("features", "labels", "options", "reason"),
    [
        (np.zeros((1, 4, 8)), np.zeros(4, int), {}, "two or more modalities"),
        ([np.zeros((4, 8)), np.zeros((4, 6))], np.zeros(4, int), {}, "same shape"),
        (np.zeros((2, 4, 8)), None, {}, "one label for each of the 4 samples"),
        (np.zeros((2, 4, 8)), np.zeros(3, int), {}, "one label for each of the 4 samples"),
        (np.zeros((2, 4, 8)), np.zeros(4, int), {"distance": "l3"}, "unknown distance"),
        (np.zeros((2, 4, 8)), np.zeros(4, int), {"grouping": "sorted"}, "unknown grouping"),
    ],
)
@pytest.mark.parametrize("loss", [THREE, CROSS])
def test_wrong_input_is_named(loss, features, labels, options, reason):
    with pytest.raises(UserError, match=reason):
        loss(features, labels, **options)
