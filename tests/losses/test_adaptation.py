"""The loss of test-time training."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.losses import adaptation, margins

STATIC = ("grouping", "num_identities")
THREE = jax.jit(margins.three_modal_margin_loss, static_argnames=STATIC)
CROSS = jax.jit(margins.cross_identity_margin_loss, static_argnames=STATIC)
MTT = jax.jit(adaptation.mtt_loss, static_argnames="form")


def batch_of(guesses, modalities=3, dimension=10, classes=6):
    rng = np.random.default_rng([modalities, *guesses])
    logits = rng.standard_normal((len(guesses), classes))
    logits[np.arange(len(guesses)), guesses] = 9
    return jnp.asarray(rng.standard_normal((modalities, len(guesses), dimension))), jnp.asarray(logits)


@pytest.mark.parametrize("guesses", [[0, 1], [1, 1], [0, 1, 1, 0], [0, 0, 1, 1], [2, 0, 1, 3], [0, 1, 0, 2]])
@pytest.mark.parametrize("modalities", [2, 3])
def test_code_form_counts_distinct_guesses_and_cuts_evenly(guesses, modalities, x64):
    features, logits = batch_of(guesses, modalities)
    options = {"grouping": "positional", "num_identities": len(set(guesses)), "margin": 1.0}
    three = THREE(features, **options) if _possible(guesses) else None
    total, terms = MTT(features, logits)
    assert np.isfinite(total)
    np.testing.assert_allclose(total, terms["three_modal"] + terms["cross_identity"], rtol=1e-14)
    if three is not None:
        np.testing.assert_allclose(terms["three_modal"], three, rtol=1e-13)
    if guesses[0] == guesses[1]:
        assert terms["cross_identity"] == 0
    elif three is not None:
        cross = CROSS(features, **options)
        np.testing.assert_allclose(terms["cross_identity"], cross, rtol=1e-13)


def _possible(guesses):
    """Whether the authors' code can cut the batch into as many chunks as there are guesses."""
    batch, count = len(guesses), len(set(guesses))
    length = -(-batch // count)
    return -(-batch // length) == count


@pytest.mark.parametrize("guesses", [[0, 1], [1, 1], [0, 1, 1, 0], [2, 0, 1, 3, 2]])
def test_paper_form_matches_naive_loop(guesses, x64):
    features, logits = batch_of(guesses)
    labels = jnp.arange(2)
    three = sum(THREE(features[:, i : i + 1], labels[:1]) for i in range(len(guesses)))
    cross = sum(
        CROSS(features[:, np.array([i, j])], labels, margin=1.0)
        for i, j in itertools.combinations(range(len(guesses)), 2)
        if guesses[i] != guesses[j]
    )
    total, terms = MTT(features, logits, form="paper")
    np.testing.assert_allclose(terms["three_modal"], three / len(guesses), rtol=1e-13)
    np.testing.assert_allclose(terms["cross_identity"], cross / len(guesses), rtol=1e-13)
    np.testing.assert_allclose(total, (three + cross) / len(guesses), rtol=1e-13)


def test_paper_form_of_two_different_samples_is_half_the_code_form(x64):
    features, logits = batch_of([3, 0])
    code = jax.grad(lambda x: MTT(x, logits)[0])(features)
    paper = jax.grad(lambda x: MTT(x, logits, form="paper")[0])(features)
    np.testing.assert_allclose(code, 2 * paper, rtol=1e-12)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_one_compilation_serves_all_guesses_and_logits_get_no_gradient(form, x64):
    features, _ = batch_of([0, 1, 2, 3])
    compiled = jax.jit(jax.value_and_grad(lambda x, s: adaptation.mtt_loss(x, s, form=form)[0], argnums=(0, 1)))
    for guesses in ([0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 2, 2]):
        loss, (of_features, of_logits) = compiled(features, batch_of(guesses)[1])
        assert np.isfinite(loss)
        assert np.all(np.isfinite(of_features))
        assert not np.any(of_logits)
    assert compiled._cache_size() == 1


def test_wrong_input_is_named():
    features, logits = batch_of([0, 1])
    with pytest.raises(UserError, match="two or more samples"):
        adaptation.mtt_loss(features[:, :1], logits[:1])
    with pytest.raises(UserError, match="3 rows of logits"):
        adaptation.mtt_loss(features, jnp.zeros((3, 6)))
    with pytest.raises(UserError, match="unknown form 'other'"):
        adaptation.mtt_loss(features, logits, form="other")
