"""The embedding picture: which rows, where the points lie, and colours that colour-blind readers can tell apart."""

import itertools

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import embedding, style

# Linear RGB as red-, green- and blue-blind persons see it: Machado et al. 2009, severity 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(color, vision):
    """CIE L*a*b* (D65) of a colour ``#rrggbb`` as seen with that vision."""
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    xyz = xyz / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK], ids=lambda theme: theme.name)
@pytest.mark.parametrize("vision", VISION)
def test_colors_stay_apart_for_everybody(theme, vision):
    colors = [lab(color, vision) for color in embedding.COLORS[theme.name]]
    assert len(colors) >= 8
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(colors, 2)]
    assert min(apart) > 25
    assert min(np.linalg.norm(color - lab(theme.paper, vision)) for color in colors) > 25


def clusters(people=4, each=6, width=8, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(people, width))
    return np.repeat(centers, each, axis=0) + noise * rng.normal(size=(people * each, width))


def test_rows_of_spread_identities():
    identity = np.repeat([2, 5, 9, 11, 40], [3, 1, 30, 4, 4])
    rows = embedding.spread_of_identities(identity, 3, per_identity=4)
    assert np.unique(identity[rows]).tolist() in ([2, 9, 40], [2, 11, 40])
    assert (np.unique(identity[rows], return_counts=True)[1] <= 4).all()
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, embedding.spread_of_identities(identity, 3, per_identity=4))
    every = embedding.spread_of_identities(identity, 99)
    assert np.unique(identity[every]).tolist() == [2, 9, 11, 40], "a single sample has nothing to be compared with"
    assert len(embedding.spread_of_identities(np.arange(5), 3)) == 3
    assert not len(embedding.spread_of_identities(np.array([], int), 3))


def test_points_of_a_cluster_lie_together_and_the_seed_fixes_them():
    rows = clusters()
    points = embedding.project(rows)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    of = np.repeat(np.arange(4), 6)
    np.testing.assert_array_equal(of[apart.argmin(axis=1)], of)
    np.testing.assert_array_equal(points, embedding.project(rows))
    # Only directions count: a rescaled feature stays in its place.
    scales = np.random.default_rng(1).uniform(0.1, 10, (len(rows), 1))
    np.testing.assert_allclose(embedding.project(rows * scales), points, rtol=1e-3, atol=1e-2 * np.abs(points).max())


@pytest.mark.parametrize("count", [4, 5, 9])
def test_few_points_are_no_problem(count):
    points = embedding.project(np.random.default_rng(0).normal(size=(count, 3)))
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()


def test_a_collapsed_network_gives_one_point():
    np.testing.assert_array_equal(embedding.project(np.ones((12, 4))), np.zeros((12, 2)))


def test_scaling_is_by_group():
    points = np.array([[0.0, 5.0], [2.0, 9.0], [1.0, 7.0], [100.0, -3.0], [300.0, -3.0]])
    found = embedding.scaled(points, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(found, [[0, 0], [1, 1], [0.5, 0.5], [0, 0.5], [1, 0.5]])


def test_bad_features_are_refused():
    for features, message in (
        (np.ones((3, 4)), "at least 4"),
        (np.ones((9, 1)), "at least 4"),
        (np.full((9, 4), np.nan), "NaN"),
    ):
        with pytest.raises(UserError, match=message):
            embedding.project(features)
    with pytest.raises(UserError, match="different lengths"):
        embedding.embedding_picture({"rgb": np.ones((4, 2)), "nir": np.ones((4, 3))}, {})
    with pytest.raises(UserError, match="no feature"):
        embedding.embedding_picture({}, {})


@pytest.mark.parametrize("modalities", [("rgb",), ("rgb", "nir", "tir")])
def test_picture_has_a_color_for_every_identity_and_one_legend(pixels, modalities):
    identity = np.repeat([3, 17, 44, 301], 6)
    features = {name: clusters(seed=seed) for seed, name in enumerate(modalities)}
    picture = embedding.embedding_picture(features, dict.fromkeys(modalities, identity))
    image = pixels(picture.png)
    for color in embedding.COLORS["light"][:4]:
        value = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert (image == value).all(axis=-1).sum() > 200, color
    assert "4 identities in " + ", ".join(modalities) in picture.alt
    assert picture.svg_light != picture.svg_dark


def test_more_identities_than_the_palette_has_colors(pixels):
    identity = np.repeat(np.arange(12), 2)
    picture = embedding.embedding_picture({"rgb": clusters(12, 2)}, {"rgb": identity}, scale=True)
    assert np.ptp(pixels(picture.png)) > 200
