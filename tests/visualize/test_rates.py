"""The picture of a learning-rate range test."""

import numpy as np

from mmreid_jax.visualize import rates, style


def columns_of(image, color):
    """Columns of the picture that hold a long upright line of a colour."""
    value = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.flatnonzero((image == value).all(axis=-1).sum(axis=0) > 100)


def test_marks_stand_where_their_rates_are(pixels):
    tested = np.geomspace(1e-4, 1, 60)
    smooth = 3 - np.exp(-np.square(np.log10(tested) + 2))
    losses = smooth + 0.05 * np.random.default_rng(0).normal(size=60)
    picture = rates.range_picture(tested, losses, smooth, suggested=1e-3, diverged=1e-1, configured=5.0)
    image = pixels(picture.png)
    green, red = (columns_of(image, style.LIGHT.color(place)).mean() for place in (2, 4))
    middle = (green + red) / 2
    bare = pixels(rates.range_picture(tested, losses, smooth, suggested=1e-2, configured=5.0).png)
    assert green < red
    assert abs(columns_of(bare, style.LIGHT.color(2)).mean() - middle) < 3, "a logarithmic axis"
    assert not len(columns_of(bare, style.LIGHT.color(4)))
    assert "falls fastest: 1.0e-03; diverges: 1.0e-01" in picture.alt


def test_a_curve_without_marks_is_drawn(pixels):
    tested = np.geomspace(1e-4, 1, 20)
    picture = rates.range_picture(tested, np.ones(20), np.ones(20))
    assert np.ptp(pixels(picture.png)) > 200
    assert "no rate stands out" in picture.alt
