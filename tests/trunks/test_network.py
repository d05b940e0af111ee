"""The loss of trunks against loops."""

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.trunks import network, people

RANDOM = np.random.default_rng(0)


def test_contrast_is_that_of_a_loop():
    features, labels = RANDOM.normal(size=(9, 5)), np.array([0, 0, 0, 1, 1, 2, 2, 2, 3])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similar = unit @ unit.T / network.TEMPERATURE
    losses = []
    for i in range(9):
        others = [j for j in range(9) if j != i]
        whole = np.log(sum(np.exp(similar[i, j]) for j in others))
        own = [whole - similar[i, j] for j in others if labels[j] == labels[i]]
        losses.append(np.mean(own) if own else 0.0)
    np.testing.assert_allclose(network.contrast(jnp.array(features), jnp.array(labels)), np.mean(losses), rtol=1e-5)


def test_contrast_across_spectra_is_that_of_a_loop():
    labels, spectra = np.array([0, 0, 1, 1, 2]), 3
    features = RANDOM.normal(size=(spectra, len(labels), 4))
    hidden = np.zeros((spectra, len(labels)), bool)
    hidden[0, 1] = hidden[2, 2] = True
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    losses = []
    for m, n in np.ndindex(hidden.shape):
        others = [(k, j) for k, j in np.ndindex(hidden.shape) if k != m and j != n and not hidden[k, j]]
        similar = {other: unit[m, n] @ unit[other] / network.TEMPERATURE for other in others}
        whole = np.log(sum(np.exp(value) for value in similar.values()))
        own = [whole - value for (_, j), value in similar.items() if labels[j] == labels[n]]
        if own and not hidden[m, n]:
            losses.append(np.mean(own))
    assert len(losses) == 10
    found = network.contrast_across(jnp.array(features), jnp.array(labels), jnp.array(hidden))
    np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)


def test_answers_are_asked_where_the_spectrum_shows_them():
    modalities, night = ("rgb", "tir"), np.array([False, True, False])
    sizes = [len(known) for known in people.QUESTIONS.values()]
    logits = np.full((6, len(sizes), max(sizes)), -np.inf)
    for q, size in enumerate(sizes):
        logits[:, q, :size] = RANDOM.normal(size=(6, size))
    answers = np.array([[RANDOM.integers(-1, size) for size in sizes] for _ in range(3)])
    losses, rights, questions = [], [], 0
    for q, name in enumerate(people.QUESTIONS):
        asked = []
        for m, modality in enumerate(modalities):
            for n in range(3):
                hidden = modality not in people.ASKED[name] or (night[n] and name in people.BY_LIGHT)
                if not hidden and answers[n, q] != people.UNKNOWN:
                    values = logits[3 * m + n, q]
                    entropy = np.log(np.exp(values).sum()) - values[answers[n, q]]
                    asked.append((entropy, values.argmax() == answers[n, q]))
        questions += bool(set(people.ASKED[name]) & set(modalities))
        if asked:
            losses.append(np.mean([entropy for entropy, _ in asked]))
            rights.append(np.mean([right for _, right in asked]))
    found = network.answer_loss(jnp.array(logits), jnp.array(answers), jnp.array(night), modalities)
    np.testing.assert_allclose(found, (sum(losses) / questions, sum(rights) / questions), rtol=1e-5)


def test_spectra_are_stacked_and_normalised():
    images = RANDOM.integers(0, 256, (2, 4, 3, 5), dtype=np.uint8)
    out = np.asarray(network.spectra(jnp.array(images), ("rgb", "tir")))
    assert out.shape == (4, 4, 3, 3)
    np.testing.assert_allclose(out[1], (images[1, ..., :3] / 255 - network.MEAN) / network.STD, rtol=1e-5, atol=1e-6)
    thermal = (images[0, ..., 4:] / 255 - np.array(network.MEAN)) / network.STD
    np.testing.assert_allclose(out[2], thermal, rtol=1e-5, atol=1e-6)


def test_augmentation_moves_mirrors_and_covers():
    images = jnp.asarray(RANDOM.normal(1, 0.1, size=(64, 24, 12, 3)), jnp.float32)
    out = network.augment(images, jax.random.key(1))
    assert out.shape == images.shape
    np.testing.assert_array_equal(out, network.augment(images, jax.random.key(1)))
    covered = np.asarray((out == 0).all(-1)).mean((1, 2))
    assert 0.1 < (covered > 0.1).mean() < 0.95
    assert not np.array_equal(out, images)
