"""CAJ: what the network sees in training, its divergence, its mirrored features, and what it takes from AGW."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import agw_llcm, agw_regdb, agw_sysu, caj_llcm, caj_regdb, caj_sysu
from mmreid_jax.errors import UserError
from mmreid_jax.losses import distillation, identity
from mmreid_jax.testing import tiny


def images_seen(seed=0):
    config, method = tiny.method("caj")
    batch = tiny.batch(config)
    return batch, method.training_images(batch, jax.random.key(seed))


def is_grey(image):
    return bool(np.ptp(np.asarray(image), axis=-1).max() < 1e-6)


def test_visible_images_enter_twice_the_second_time_in_one_channel():
    batch, seen = images_seen()
    count = len(batch["identity"])
    assert [len(x) for x in seen.values()] == [2 * count, count]
    np.testing.assert_array_equal(seen["visible"][:count], batch["images"]["rgb"])
    for shown, given in zip(seen["visible"][count:], batch["images"]["rgb_2"], strict=True):
        assert is_grey(shown)
        assert any(np.array_equal(shown[..., 0], given[..., channel]) for channel in range(3))
    grey = [is_grey(image) for image in seen["infrared"]]
    assert any(grey)
    for shown, given in zip(seen["infrared"], batch["images"]["nir"], strict=True):
        assert is_grey(shown) or np.array_equal(shown, given)


def test_every_step_draws_anew():
    (_, one), (_, same), (_, other) = images_seen(1), images_seen(1), images_seen(2)
    for stream in one:
        np.testing.assert_array_equal(one[stream], same[stream])
        assert not np.array_equal(one[stream], other[stream])


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_loss_is_the_weighted_sum_of_its_terms(weight, x64):
    config, method = tiny.method("caj", loss__kl_weight=weight)
    batch = tiny.batch(config)
    count = len(batch["identity"])
    labels = np.tile(batch["identity"], 3)
    rng = np.random.default_rng(1)
    pooled, logits = jnp.asarray(rng.normal(size=(3 * count, 5))), jnp.asarray(rng.normal(size=(3 * count, 8)))
    method.forward = lambda *_: ({"pool": pooled, "logits": logits}, {})
    total, (terms, _, _) = method.loss({}, batch, jax.random.key(0), 0, {})
    assert terms["ce"] == pytest.approx(float(identity.cross_entropy(logits, labels)))
    expected = terms["ce"] + terms["triplet"]
    assert ("kl" in terms) == bool(weight)
    if weight:
        divergence = distillation.softened_divergence(logits[:count], logits[2 * count :])
        assert terms["kl"] == pytest.approx(float(divergence))
        expected += weight * divergence
    assert total == pytest.approx(float(expected))
    right = np.asarray(logits.argmax(-1)) == labels
    assert terms["accuracy_rgb"] == pytest.approx(right[: 2 * count].mean())
    assert terms["accuracy_nir"] == pytest.approx(right[2 * count :].mean())


def test_a_mirrored_image_has_the_same_feature():
    config, method = tiny.method("caj")
    variables, batch = jax.jit(method.init)(jax.random.key(0)), tiny.batch(config)
    mirrored = {**batch, "images": {name: images[:, :, ::-1] for name, images in batch["images"].items()}}
    embed = jax.jit(method.embed)
    found, expected = embed(variables, mirrored), embed(variables, batch)
    assert set(found) == {"fc_rgb", "fc_nir", "pool_rgb", "pool_nir"}
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(value, axis=1), 1.0, rtol=1e-5)
    _, plain = tiny.method("caj", eval__mirror=False)
    once = jax.jit(plain.embed)(variables, batch)
    assert not np.allclose(once["pool_rgb"], expected["pool_rgb"], atol=1e-4)


@pytest.mark.parametrize(("caj", "agw"), [(caj_sysu, agw_sysu), (caj_regdb, agw_regdb), (caj_llcm, agw_llcm)])
def test_it_trains_agw_s_network(caj, agw):
    one, other = caj.get_config(), agw.get_config()
    assert one.model == other.model
    assert one.data.dataset == other.data.dataset
    assert (one.optim.epochs, other.optim.epochs) == (100, 81)


def test_it_wants_the_second_view_of_visible_images():
    for views in ((), ("nir",), ("rgb", "nir")):
        with pytest.raises(UserError, match="second_views"):
            tiny.method("caj", data__second_views=views)
