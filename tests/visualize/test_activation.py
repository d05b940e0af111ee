"""Activation maps: by hand, against a loop over pixels, and as pictures."""

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import activation, report
from tests.visualize.html_reader import Reader


def maps_of(*shape, seed=0):
    return np.abs(np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def slow_heat(maps, height, width):
    """One sample at a time, one pixel at a time."""
    results = []
    for sample in maps.astype(np.float64):
        small = (sample**2).sum(-1)
        small /= np.sqrt((small**2).sum())
        large = np.zeros((height, width))
        for y, x in np.ndindex(height, width):
            places = []
            for position, old, new in ((y, small.shape[0], height), (x, small.shape[1], width)):
                place = min(max((position + 0.5) * old / new - 0.5, 0), old - 1)
                low = int(place)
                places.append((low, min(low + 1, old - 1), place - low))
            (top, bottom, down), (left, right, across) = places
            upper = (1 - across) * small[top, left] + across * small[top, right]
            lower = (1 - across) * small[bottom, left] + across * small[bottom, right]
            large[y, x] = (1 - down) * upper + down * lower
        results.append(np.floor(255 * (large - large.min()) / (large.max() - large.min() + 1e-12)))
    return np.stack(results)


def test_energy_by_hand():
    maps = np.arange(12.0).reshape(1, 2, 2, 3)
    squares = np.array([[5, 50], [149, 302]])
    np.testing.assert_allclose(activation.energy(maps)[0], squares / np.sqrt((squares**2).sum()))
    assert not activation.energy(np.zeros((2, 3, 3, 4))).any()


def test_energy_keeps_its_type_and_survives_half_precision():
    assert activation.energy(np.ones((1, 2, 2, 3))).dtype == np.float64
    large = np.full((1, 2, 2, 3), 6e4, np.float16)
    large[0, 0, 0] = 0
    found = activation.energy(large)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], [[0, 3**-0.5], [3**-0.5, 3**-0.5]], rtol=1e-6)


@pytest.mark.parametrize("size", [(32, 16), (33, 19), (4, 2), (3, 5)])
def test_heat_is_that_of_a_loop(size):
    maps = maps_of(3, 5, 3, 7)
    found = activation.heat(maps, size)
    assert found.dtype == np.uint8
    assert np.abs(found - slow_heat(maps, *size)).max() <= 1
    assert found.min(axis=(1, 2)).tolist() == [0, 0, 0]
    assert found.max(axis=(1, 2)).min() >= 254


def test_heat_of_one_position_or_of_no_contrast_is_cold():
    assert not activation.heat(maps_of(2, 1, 1, 4), (8, 4)).any()
    assert not activation.heat(np.full((2, 3, 5, 4), 0.3, np.float32), (11, 7)).any()


def test_a_sample_does_not_depend_on_its_batch():
    maps = maps_of(4, 6, 3, 5)
    alone = np.concatenate([activation.heat(sample[None], (24, 12)) for sample in maps])
    np.testing.assert_array_equal(activation.heat(maps, (24, 12)), alone)


def test_bad_maps_are_refused():
    with pytest.raises(UserError, match="rows, columns"):
        activation.energy(np.ones((2, 3, 4)))
    with pytest.raises(UserError, match="finite"):
        activation.heat(np.full((1, 2, 2, 1), np.nan), (4, 4))


def test_jet_goes_from_blue_to_red():
    found = activation.jet(np.array([0, 64, 128, 191, 255], np.uint8))
    wanted = [[0, 0, 128], [0, 128, 255], [130, 255, 126], [255, 128, 0], [128, 0, 0]]
    assert np.abs(found.astype(int) - wanted).max() <= 1


def example(names=("rgb", "tir")):
    image = np.full((64, 32, 3), 100, np.uint8)
    maps = np.zeros((4, 2, 3), np.float32)
    maps[0, 0] = 2.0
    return activation.ActivationExample({name: image for name in names}, {"rgb": maps}, "identity 5, camera 1")


def test_panels_are_image_map_and_both():
    image, color, both = example().panels()["rgb"]
    assert (image == 100).all()
    # The hottest place is level 254: the reference divides by a little more than the spread and rounds down.
    np.testing.assert_array_equal(color[0, 0], [132, 0, 0])
    np.testing.assert_array_equal(color[-1, -1], [0, 0, 128])
    np.testing.assert_array_equal(both[0, 0], [122, 30, 30])
    np.testing.assert_array_equal(both[-1, -1], [30, 30, 120])
    assert example().panels()["tir"][1:] == (None, None)


def test_picture_shows_three_panels_with_gaps_of_ten_pixels(pixels):
    found = pixels(activation.activation_picture([example(("rgb",))], title="Maps", caption="c").png).astype(int)
    row = (found != 255).any(axis=-1)[-60]
    starts = np.flatnonzero(np.diff(row.astype(int)))
    widths = np.diff(starts)
    assert len(widths) == 5, "three panels and two gaps"
    assert widths[1] == widths[3] == 10
    assert widths[0] == widths[2] == widths[4]
    with pytest.raises(UserError, match="no activation map"):
        activation.activation_picture([])


def test_the_report_shows_them_under_their_own_heading(tmp_path):
    page = report.HtmlReport("Alone", activation=[example()], activation_note=activation.NOTE)
    read = Reader(report.write_report(tmp_path / "report.html", page).read_text())
    assert len(read.all("section")) == 1
    alts = [tag["alt"] for tag in read.all("img")]
    label = "identity 5, camera 1"
    assert alts == [
        f"{label}, rgb",
        f"{label}, rgb, activation map",
        f"{label}, rgb, image under its activation map",
        f"{label}, tir",
    ]
    assert "Activation maps" in read.text
    assert (tmp_path / "figures" / "activation.png").exists()
