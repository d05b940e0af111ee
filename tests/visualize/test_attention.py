"""Attention rollout by hand and by its properties; maps laid over images."""

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import attention


def softmax(logits):
    exponent = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponent / exponent.sum(axis=-1, keepdims=True)


def random_attention(*shape, seed=0):
    return softmax(3 * np.random.default_rng(seed).normal(size=shape))


def test_rollout_of_two_tokens_by_hand():
    # Two layers, one head: B1 = (A1 + I) / 2 = [[3/4, 1/4], [1/2, 1/2]], B2 = [[1/2, 1/2], [0, 1]], R = B2 B1.
    first, second = [[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]
    rolled = attention.rollout(np.array([[first], [second]]))
    np.testing.assert_allclose(rolled, [[0.625, 0.375], [0.5, 0.5]])


def test_mean_and_max_over_heads_by_hand():
    heads = np.array([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]]])
    # Mean row 0 is (.5, .5), with the residual (1.5, .5) / 2. Max row 0 is (1, 1), with the residual (2, 1) / 3.
    np.testing.assert_allclose(attention.rollout(heads, heads="mean")[0], [0.75, 0.25])
    np.testing.assert_allclose(attention.rollout(heads, heads="max")[0], [2 / 3, 1 / 3])


def test_discard_by_hand_keeps_the_class_token_to_itself():
    layer = np.array([[[[0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.7, 0.25, 0.05]]]])
    # A third of nine entries go: 0.05, (0.1 is the class token's own and stays) and 0.2.
    rolled = attention.rollout(layer, discard=1 / 3)
    np.testing.assert_allclose(rolled[0], np.array([1.1, 0.6, 0.3]) / 2.0)
    np.testing.assert_allclose(rolled[1], np.array([0.0, 1.5, 0.3]) / 1.8)
    np.testing.assert_allclose(rolled[2], np.array([0.7, 0.25, 1.0]) / 1.95)


@pytest.mark.parametrize("heads", ["mean", "max"])
@pytest.mark.parametrize("discard", [0.0, 0.5, 0.95])
def test_rows_sum_to_one(heads, discard):
    rolled = attention.rollout(random_attention(2, 4, 3, 9, 9), heads=heads, discard=discard)
    assert rolled.shape == (2, 9, 9)
    np.testing.assert_allclose(rolled.sum(axis=-1), 1)
    assert (rolled >= 0).all()


def test_uniform_attention_gives_a_uniform_map():
    tokens = 1 + 4 * 2
    rolled = attention.rollout(np.full((3, 2, tokens, tokens), 1 / tokens))
    found = attention.class_token_map(rolled, (4, 2))
    np.testing.assert_allclose(found, np.full((4, 2), found[0, 0]))


def test_identity_attention_stays_where_it_is():
    rolled = attention.rollout(np.broadcast_to(np.eye(5), (6, 2, 5, 5)))
    np.testing.assert_allclose(rolled, np.eye(5))


def test_batch_equals_single_samples_and_matches_naive_product():
    batch = random_attention(3, 4, 2, 7, 7)
    rolled = attention.rollout(batch)
    for sample, expected in zip(batch, rolled, strict=True):
        product = np.eye(7)
        for layer in sample:
            product = (0.5 * layer.mean(axis=0) + 0.5 * np.eye(7)) @ product
        np.testing.assert_allclose(attention.rollout(sample), product)
        np.testing.assert_allclose(expected, product)


def test_dtype_stays_float64_and_low_precision_becomes_float32():
    assert attention.rollout(random_attention(2, 2, 4, 4)).dtype == np.float64
    assert attention.rollout(random_attention(2, 2, 4, 4).astype(np.float16)).dtype == np.float32


def test_class_token_map_is_row_major():
    rolled = np.zeros((7, 7))
    rolled[0] = np.arange(7)
    np.testing.assert_array_equal(attention.class_token_map(rolled, (3, 2)), [[1, 2], [3, 4], [5, 6]])
    with pytest.raises(UserError, match="7 tokens are not one class token and a grid of 2 x 2"):
        attention.class_token_map(rolled, (2, 2))


def test_bad_input_is_refused():
    for array, options, message in (
        (np.ones((2, 3, 4)), {}, "must be"),
        (np.ones((1, 1, 3, 4)), {}, "must be"),
        (np.ones((1, 1, 3, 3)), {"heads": "min"}, "'min'"),
        (np.ones((1, 1, 3, 3)), {"discard": 1.0}, "below 1"),
    ):
        with pytest.raises(UserError, match=message):
            attention.rollout(array, **options)


def test_upsample_is_bilinear_with_centres_aligned():
    # Centres of 2 cells stretched to 4 pixels lie at 1/4 and 3/4: the outer pixels repeat, the inner ones mix 3 : 1.
    found = attention.upsample(np.array([[0.0, 4.0]]), 1, 4)
    np.testing.assert_allclose(found, [[0, 1, 3, 4]])


def test_overlay_is_hot_where_the_map_is_hot():
    image = np.full((40, 20, 3), 128, np.uint8)
    heat = np.zeros((4, 2))
    heat[0, 0] = 1.0
    found = attention.overlay(image, heat).astype(int)
    assert found.shape == image.shape
    cold, hot = found[-1, -1], found[0, 0]
    np.testing.assert_array_equal(cold, [96, 96, 96])  # 0.75 of the grey, without colour
    assert hot[0] > 200
    assert hot[0] - hot[2] > 50


@pytest.mark.parametrize("value", [0.0, 0.3, -1e9])
def test_overlay_of_a_map_without_contrast_is_cold(value):
    image = np.full((10, 10, 3), 200, np.uint8)
    np.testing.assert_array_equal(attention.overlay(image, np.full((3, 3), value)), np.full((10, 10, 3), 150))


def test_overlay_refuses_what_is_no_map():
    image = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(UserError, match="finite"):
        attention.overlay(image, np.array([[np.nan, 1.0]]))
    with pytest.raises(UserError, match="uint8"):
        attention.overlay(image.astype(float), np.ones((2, 2)))


def test_picture_puts_images_beside_their_maps(pixels):
    image = np.full((32, 16, 3), 60, np.uint8)
    heat = np.eye(4, 2)
    example = attention.AttentionExample({"rgb": image, "tir": image}, {"rgb": heat}, "identity 5, camera 1")
    one = pixels(attention.attention_picture([example]).png)
    two = pixels(attention.attention_picture([example, example]).png)
    assert two.shape[0] > 1.5 * one.shape[0]
    plain = (one == 60).all(axis=-1).sum()
    assert plain >= 2 * 208 * 100, "the plain image of both modalities is shown"
    assert (one == 240).all(axis=-1).sum() >= 208 * 100, "the place of the absent map is empty"
    assert (one[..., 0].astype(int) - one[..., 2] > 100).any(), "the map is in colour"
    with pytest.raises(UserError, match="no attention map"):
        attention.attention_picture([])
