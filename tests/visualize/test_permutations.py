"""Stripes put in order and out of it, soft neighbours against a loop, and what the pictures of both must show."""

import json
import math

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import permutations, style
from mmreid_jax.visualize.permutations import Neighbour, NeighbourExample, OrderExample

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(60, 100, (48, 24, 3)).astype(np.uint8)


def of_color(picture, color):
    """The number of pixels of exactly this colour."""
    return int((picture == np.array(color)).all(axis=-1).sum())


def test_a_shuffled_image_shows_the_stripe_that_its_order_names():
    order = np.array([2, 0, 3, 1])
    found = permutations.shuffled(PHOTO, order)
    for place, stripe in enumerate(order):
        np.testing.assert_array_equal(found[12 * place : 12 * (place + 1)], PHOTO[12 * stripe : 12 * (stripe + 1)])
    with pytest.raises(UserError, match="48 rows cannot be cut into 5 stripes"):
        permutations.shuffled(PHOTO, np.arange(5))


@pytest.mark.parametrize("stripes", [2, 3, 6])
def test_an_order_told_right_puts_the_image_together_again(stripes):
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(stripes)
        standing = permutations.put_together(order, order)
        np.testing.assert_array_equal(standing, np.arange(stripes))
        np.testing.assert_array_equal(permutations.shuffled(PHOTO, standing), PHOTO)


def test_an_order_told_wrong_by_hand():
    # Place 0 shows stripe 2 and is taken for stripe 0, so stripe 2 ends at the top; place 2 shows 0 and is taken for 1.
    order, assigned = np.array([2, 1, 0]), np.array([0, 2, 1])
    np.testing.assert_array_equal(permutations.put_together(order, assigned), [2, 0, 1])
    assert OrderExample(PHOTO, order, assigned, np.eye(3)).wrong == 3


def test_what_is_put_together_wrong_is_as_much_as_is_assigned_wrong():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        order, assigned = rng.permutation(6), rng.permutation(6)
        misplaced = np.sum(permutations.put_together(order, assigned) != np.arange(6))
        assert misplaced == OrderExample(PHOTO, order, assigned, np.eye(6)).wrong


def orders_image(pixels, order, assigned, predicted=None, **options):
    order, assigned = np.array(order), np.array(assigned)
    predicted = np.eye(len(order))[assigned] if predicted is None else predicted
    example = OrderExample(PHOTO, order, assigned, predicted, "RGB a.jpg")
    return pixels(permutations.orders_picture([example], **options).png)


def test_only_stripes_in_the_wrong_place_are_marked_as_wrong(pixels):
    right = orders_image(pixels, [2, 0, 1, 3], [2, 0, 1, 3])
    two = orders_image(pixels, [2, 0, 1, 3], [0, 2, 1, 3])
    four = orders_image(pixels, [2, 0, 1, 3], [0, 2, 3, 1])
    assert of_color(right, style.WRONG) == 0
    assert of_color(two, style.WRONG) > 1000
    assert of_color(four, style.WRONG) == pytest.approx(2 * of_color(two, style.WRONG), rel=0.1)
    assert of_color(right, style.RIGHT) > of_color(two, style.RIGHT) > 100
    # The badges of wrong stripes are no plain squares: a sign stands in them, for who cannot tell the colours.
    rows, columns = np.nonzero((two == np.array(style.WRONG)).all(axis=-1))
    edge = columns.max()
    badge = two[rows[columns == edge].min() :, edge - 15 : edge + 1][:16]
    assert 20 < of_color(badge, (255, 255, 255)) + np.sum(badge.min(axis=-1) > 150) < 200


def test_the_true_cells_of_the_matrix_are_framed_wherever_it_points(pixels):
    order = [1, 0, 2]
    sure = orders_image(pixels, order, order)
    unsure = orders_image(pixels, order, order, np.full((3, 3), 1 / 3))
    elsewhere = orders_image(pixels, [1, 2, 0], order)

    def cells(picture):
        """Which cells of the matrix are framed."""
        rows, columns = np.nonzero((picture == np.array(permutations.TRUE)).all(axis=-1))
        # Frames fill their cells, and those of three rows and columns span the whole matrix.
        top, left, step = rows.min(), columns.min(), (rows.max() + 1 - rows.min()) // 3
        middles = top + step * np.arange(3) + step // 2
        return [int((columns[rows == y].min() - left) // step) for y in middles]

    assert cells(sure) == cells(unsure) == order
    assert cells(elsewhere) == [1, 2, 0]
    assert of_color(sure, permutations.TRUE) == of_color(elsewhere, permutations.TRUE)


def test_a_surer_matrix_is_darker(pixels):
    order = np.array([1, 0, 2])
    dark = [
        (orders_image(pixels, order, order, share * np.eye(3)[order])[..., 0] < 60).sum() for share in (0.2, 0.6, 1.0)
    ]
    assert dark[0] < dark[2]
    assert dark[1] <= dark[2]


def test_every_example_has_a_row_and_equal_ones_give_equal_bytes():
    example = OrderExample(PHOTO, np.array([1, 0]), np.array([0, 1]), np.full((2, 2), 0.5), "RGB a.jpg")
    one, three = (permutations.orders_picture([example] * count, caption="Said.") for count in (1, 3))
    assert len(three.png) > len(one.png)
    assert three.png == permutations.orders_picture([example] * 3).png
    assert "0 of 3 whole orders are right" in three.alt
    assert three.caption == "Said."


def test_what_is_no_order_is_refused():
    good = {"image": PHOTO, "order": np.arange(3), "assigned": np.arange(3), "predicted": np.eye(3)}
    for change, message in (
        ({"assigned": np.array([0, 0, 1])}, r"assigned order \[0, 0, 1\] is not one of 3"),
        ({"order": np.array([1, 2, 3])}, r"the order \[1, 2, 3\] is not one of 3"),
        ({"predicted": np.eye(4)}, r"shape \[4, 4\]"),
        ({"predicted": np.full((3, 3), np.nan)}, "finite"),
        ({"image": PHOTO / 255}, "uint8"),
    ):
        with pytest.raises(UserError, match=message):
            permutations.orders_picture([OrderExample(**{**good, **change})])
    four = OrderExample(PHOTO, np.arange(4), np.arange(4), np.eye(4))
    with pytest.raises(UserError, match="not one of 3 stripes"):
        permutations.orders_picture([OrderExample(**good), four])
    with pytest.raises(UserError, match="no recovered order"):
        permutations.orders_picture([])


def test_soft_neighbours_are_a_loop():
    rng = np.random.default_rng(1)
    query, candidates = rng.normal(size=7), rng.normal(size=(11, 7)) * rng.uniform(0.1, 9, (11, 1))
    for temperature in (0.07, 1.0):
        powers = []
        for candidate in candidates:
            cosine = sum(a * b for a, b in zip(query, candidate, strict=True))
            cosine /= math.sqrt(sum(a * a for a in query)) * math.sqrt(sum(b * b for b in candidate))
            powers.append(math.exp(cosine / temperature))
        expected = [power / sum(powers) for power in powers]
        np.testing.assert_allclose(permutations.soft_neighbours(query, candidates, temperature), expected, rtol=1e-12)


def test_soft_neighbours_agree_with_those_of_the_loss():
    from mmreid_jax.losses import cycle_contrast

    rng = np.random.default_rng(2)
    query, candidates = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in rng.normal(size=(2, 6, 5)))
    _, expected = cycle_contrast.soft_neighbours(query[None], candidates[None], 0.07)
    for own, weights in zip(query, np.asarray(expected)[0], strict=True):
        np.testing.assert_allclose(permutations.soft_neighbours(own, candidates, 0.07), weights, rtol=1e-4)


def test_soft_neighbours_at_their_limits():
    one = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(permutations.soft_neighbours(one[0], one, 1e-4), [1, 0, 0])  # and no overflow
    np.testing.assert_allclose(permutations.soft_neighbours(one[2], one, 0.07), np.full(3, 1 / 3))
    for query, candidates, temperature, message in (
        (one, one, 1.0, r"not for \[3, 2\]"),
        (one[0], one[:0], 1.0, r"\[0, 2\]"),
        (one[0], np.eye(3), 1.0, r"\[3, 3\]"),
        (one[0], one, 0.0, "above 0"),
    ):
        with pytest.raises(UserError, match=message):
            permutations.soft_neighbours(query, candidates, temperature)


def test_more_weight_keeps_more_colour_and_a_thicker_frame(pixels):
    red = np.full((48, 24, 3), (220, 20, 20), np.uint8)

    def shown(weights):
        example = NeighbourExample(PHOTO, 0, {"NIR": [Neighbour(red, np.array(weights))]}, "RGB a.jpg", "itself 90 %")
        return pixels(permutations.neighbours_picture([example]).png)

    one, two = shown([0.5, 0.0, 0.0]), shown([0.5, 0.25, 0.0])
    assert 0 < of_color(one, (220, 20, 20)) < 168 * 84 / 3
    framed = [of_color(picture, permutations.TAKEN) for picture in (one, two)]
    assert framed[0] > 500
    # The frame of the stripe with half the weight is there, and thinner.
    assert 1.3 * framed[0] < framed[1] < 2 * framed[0]
    assert of_color(one, style.QUERY) > 500, "the query is framed in black"


def test_neighbours_of_every_search_are_drawn():
    some = [Neighbour(PHOTO, np.array([0.2, 0.1]))] * 3
    example = NeighbourExample(PHOTO, 1, {"NIR": some, "RGB": some})
    picture = permutations.neighbours_picture([example, example])
    assert picture.alt.startswith("Soft nearest neighbours of 2 stripes in NIR and in RGB: 12 images")
    assert picture.png == permutations.neighbours_picture([example, example]).png
    for examples, message in (
        ([], "no neighbour"),
        ([NeighbourExample(PHOTO, 2, {"NIR": some})], "stripe 2 is not one of 2"),
        ([NeighbourExample(PHOTO, 0, {"NIR": []})], "with an image at least"),
        ([example, NeighbourExample(PHOTO, 0, {"NIR": some})], "the same searches"),
    ):
        with pytest.raises(UserError, match=message):
            permutations.neighbours_picture(examples)


def log(epochs=4):
    """A run's log: evaluations before the first epoch and after each, two lines of training an epoch."""
    for epoch in range(epochs + 1):
        for part in range(2 if epoch else 0):
            share = (epoch - 0.5 + part / 2) / epochs
            yield {"kind": "train", "epoch": epoch, "step": 2 * epoch + part, "loss": 1.0, "exact_rgb": share}
            yield {"kind": "train", "epoch": epoch, "pcc_self_weight": share, "pcc_std_visible": 0.1}
        scores = {"exact_rgb": epoch / epochs, "exact_nir": 0.5 * epoch / epochs, "stripe_rgb": 0.5, "gap_rgb": 0.25}
        yield {"kind": "eval", "epoch": epoch, "step": 2 * epoch, "label": f"epoch {epoch}", **scores}


def test_accuracy_over_the_epochs():
    picture = permutations.accuracy_curves(list(log()), ("rgb", "nir"), 3)
    assert "whole order right, rgb: 0.0 → 100.0 %" in picture.alt
    assert "whole order right, nir: 0.0 → 50.0 %" in picture.alt
    assert "borders cut off, rgb: 25.0 → 25.0 %" in picture.alt
    assert picture.svg_dark is not None
    assert "Guessing gets 17 % of the whole orders, 33.3 % of stripes." in picture.alt
    with pytest.raises(UserError, match="no accuracy"):
        permutations.accuracy_curves([{"kind": "eval", "epoch": 1, "mAP": 0.5}], ("rgb",), 3)


def test_the_only_accuracy_of_a_log_can_be_seen():
    def picture(share):
        return permutations.accuracy_curves(
            [{"kind": "train", "epoch": 1, "step": 3, "exact_rgb": share}], ("rgb",), 3
        ).png

    assert picture(0.5) == picture(0.5)
    assert picture(0.5) != picture(0.8)


def test_the_level_of_guessing_is_that_of_all_orders():
    import itertools

    for stripes in (2, 3, 4):
        every = np.array(list(itertools.permutations(range(stripes))))
        right = every == np.arange(stripes)
        chance = permutations.chance_levels(stripes)
        assert chance["exact"] == pytest.approx(right.all(axis=1).mean())
        assert chance["stripe"] == chance["row"] == pytest.approx(right.mean())


def test_what_tells_of_collapse_is_drawn_by_quantity():
    entries = list(log())
    picture = permutations.watch_curves(entries, {"self_weight": (0.5, "half")})
    assert "Weight of a patch in its own retrieval: 0.9" in picture.alt
    assert "Spread of the patches (standard deviation), visible: 0.1 at the end" in picture.alt
    assert picture.alt.endswith("Line: half.")
    with pytest.raises(UserError, match="PCC was not trained"):
        permutations.watch_curves([json.loads('{"epoch": 1, "loss": 2.0, "pcc": 1.0}')])
