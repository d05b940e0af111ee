"""Losses between images and texts against loops over pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.losses import text, weighted_triplet

N, D, SCALE = 6, 5, 3.0
LABELS = [0, 1, 0, 2, 1, 0]


def drawn(*names):
    return [np.random.default_rng(number).standard_normal((N, D)) for number, _ in enumerate(names)]


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def log_softmax(values):
    return values - np.log(np.exp(values).sum())


def test_orthogonality_counts_every_pair(x64):
    a, b = drawn("a", "b")
    found = [abs(cosine(x, y)) for x in a for y in b]
    mean, total = text.orthogonality(jnp.asarray(a), jnp.asarray(b))
    assert (float(mean), float(total)) == pytest.approx((np.mean(found), np.sum(found)), rel=1e-12)


def test_similarity_transfer_teaches_one_side(x64):
    learner, teacher, anchors = drawn("learner", "teacher", "anchors")
    rows = []
    for x, t in zip(learner, teacher, strict=True):
        target = np.exp(log_softmax(np.array([SCALE * cosine(t, u) for u in anchors])))
        rows.append(-np.sum(target * log_softmax(np.array([SCALE * cosine(x, u) for u in anchors]))))
    given = [jnp.asarray(x) for x in (learner, teacher, anchors)]
    value, gradients = jax.value_and_grad(text.similarity_transfer, argnums=(0, 1))(*given, SCALE)
    assert float(value) == pytest.approx(np.mean(rows), rel=1e-12)
    assert np.abs(gradients[0]).max() > 1e-3
    assert not np.asarray(gradients[1]).any()


def test_contrast_of_images_and_texts(x64):
    images, texts = drawn("images", "texts")
    scores = np.array([[SCALE * cosine(x, t) for t in texts] for x in images])
    own = np.mean([-log_softmax(row)[i] for i, row in enumerate(scores)]) / N
    given = jnp.asarray(images), jnp.asarray(texts)
    assert float(text.image_to_text(*given, SCALE)) == pytest.approx(own, rel=1e-12)


def test_texts_find_the_images_of_an_identity(x64):
    images, texts = drawn("images", "texts")
    columns = [log_softmax(np.array([SCALE * cosine(x, t) for x in images])) for t in texts]

    def own(labels, j):
        return [columns[j][i] for i in range(N) if labels[i] == labels[j]]

    given = jnp.asarray(images), jnp.asarray(texts)
    # Of equal counts it is a mean of means, in any order; else every pair counts alike, and every identity once.
    for labels in ([0, 0, 5, 5, 2, 2], [1, 0, 1, 0, 0, 1], [3, 1, 4, 0, 5, 9]):
        means = [np.mean(own(labels, j)) for j in range(N)]
        found = text.text_to_image(*given, jnp.asarray(labels), SCALE)
        assert float(found) == pytest.approx(-np.mean(means), rel=1e-12)
    for labels in (LABELS, [7, 7, 7, 7, 7, 7], [1, 1, 1, 1, 1, 0]):
        pairs = sum(sum(own(labels, j)) for j in range(N)) / N**2
        quotients = [-pairs / len(own(labels, j)) for j in range(N)]
        assert float(text.text_to_image(*given, jnp.asarray(labels), SCALE)) == pytest.approx(sum(quotients), rel=1e-12)


def test_weighted_triplet_between_two_sets_of_features(x64):
    """Where every feature is compared with a copy of all, only the distance from itself is another: 1e-6 there, too."""
    (features,) = drawn("features")
    given, labels = jnp.asarray(features), jnp.asarray(LABELS)
    within, _ = weighted_triplet.weighted_triplet(given, labels)
    between, _ = weighted_triplet.weighted_triplet(given, labels, others=given)
    assert float(between) == pytest.approx(float(within), rel=1e-6)
    far, _ = weighted_triplet.weighted_triplet(given, labels, others=given + 3.0)
    assert abs(float(far) - float(within)) > 1e-2
