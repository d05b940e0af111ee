"""Charts are drawn from the numbers they are given, in both themes, and refuse what they cannot draw."""

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import curves, style

ENTRIES = [
    {"run": "train", "kind": "train", "step": s, "epoch": 1, "images_per_second": 90.0, "loss": 5 / s, "ce": 4 / s}
    | {"learning_rate": 0.1 * s, "accuracy": 0.5, "norm_gradient": 3.0}
    for s in range(1, 9)
] + [{"run": "train", "kind": "eval", "step": 8, "epoch": 1, "mAP": 0.4, "R1": 0.5, "R5": 0.8, "skipped": 3}]


def check(picture, pixels, colors):
    """The picture is a PNG with the named series colours of the light theme, and an SVG for either theme."""
    image = pixels(picture.png)
    assert min(image.shape[:2]) > 200
    for position in range(colors):
        wanted = tuple(int(style.LIGHT.color(position)[k : k + 2], 16) for k in (1, 3, 5))
        assert (image == wanted).all(axis=-1).sum() > 30, f"series {position} is drawn"
    for svg, theme in ((picture.svg_light, style.LIGHT), (picture.svg_dark, style.DARK)):
        assert theme.paper in svg.decode()
        assert theme.color(0) in svg.decode()
    assert picture.alt


def test_cmc_curves(pixels):
    picture = curves.cmc_curves({"before": np.array([0.5, 0.75, 1.0]), "after": np.array([0.625, 0.8, 1.0])})
    check(picture, pixels, colors=2)
    assert "before: rank 1 50.00 %; after: rank 1 62.50 %" in picture.alt
    assert curves.cmc_curves({"one rank": np.array([0.5])}).png
    with pytest.raises(UserError, match="no CMC curve"):
        curves.cmc_curves({})


def test_training_curves_sort_numbers_into_panels(pixels):
    picture = curves.training_curves(ENTRIES)
    check(picture, pixels, colors=2)
    assert picture.alt == (
        "Training curves. Loss terms: loss, ce; Learning rate: learning rate; "
        "Accuracy on the training batches: accuracy; "
        "Norms: norm gradient; Scores on the test set: mAP, R1."
    )


def test_training_curves_of_part_of_a_log():
    only_scores = curves.training_curves(ENTRIES[-1:])
    assert only_scores.alt == "Training curves. Scores on the test set: mAP, R1."
    broken = curves.training_curves([{"step": 1, "loss": None, "ce": float("nan"), "triplet": 0.0}])
    assert broken.alt == "Training curves. Loss terms: triplet."
    assert curves.training_curves([{"epoch": 1, "loss/identity": 0.5}]).alt.endswith("Loss terms: identity.")
    with pytest.raises(UserError, match="no loss, learning rate or score"):
        curves.training_curves([{"step": 1, "note": "text"}])


def test_the_only_entry_of_a_log_can_be_seen(pixels):
    check(curves.training_curves([{"step": 5, "loss": 3.0}]), pixels, colors=1)


def test_long_series_are_thinned_to_means():
    values = np.stack([np.arange(30000.0), np.ones(30000)], axis=1)
    thin = curves._thinned(values)
    assert len(thin) == 300
    np.testing.assert_allclose(thin[0], [49.5, 1.0])
    assert curves._thinned(values[:200]) is not None
    np.testing.assert_array_equal(curves._thinned(values[:200]), values[:200])


def test_before_after_bars(pixels):
    picture = curves.before_after_bars({"mAP": 0.5, "R1": (0.6, 0.01), "R5": 0.7}, {"mAP": 0.6, "R1": 0.55})
    check(picture, pixels, colors=2)
    assert picture.alt == "Before and after: mAP 50.0 → 60.0 %; R1 60.0 → 55.0 %."
    with pytest.raises(UserError, match="none of the scores"):
        curves.before_after_bars({"mAP": 0.5}, {"R1": 0.5})


def test_missing_modality_bars(pixels):
    rows = {"all modalities": {"mAP": 0.7, "R1": 0.72}, "without rgb": {"mAP": 0.5, "R1": (0.55, 0.02)}}
    picture = curves.missing_modality_bars(rows)
    check(picture, pixels, colors=2)
    assert "without rgb: mAP 50.0 %, R1 55.0 %" in picture.alt
    with pytest.raises(UserError, match="'only tir' lack 'R1'"):
        curves.missing_modality_bars(rows | {"only tir": {"mAP": 0.1}})
    with pytest.raises(UserError, match="no evaluation"):
        curves.missing_modality_bars({})


def test_bar_lengths_follow_the_scores(pixels):
    picture = curves.before_after_bars({"mAP": 0.2}, {"mAP": 0.8})
    image = pixels(picture.png)
    heights = []
    for position in (0, 1):
        wanted = [int(style.LIGHT.color(position)[k : k + 2], 16) for k in (1, 3, 5)]
        columns = (image == wanted).all(axis=-1).sum(axis=0)
        heights.append(np.median(columns[columns > 0]))  # the legend adds to a few columns only
    assert heights[1] / heights[0] == pytest.approx(4, rel=0.05)


def test_trial_spread(pixels):
    picture = curves.trial_spread({"mAP": [0.25, 0.5, 0.75], "R1": np.array([0.4])})
    check(picture, pixels, colors=2)
    assert "mAP 50.0, 25.0 to 75.0 %; R1 40.0, 40.0 to 40.0 %" in picture.alt
    assert "50.0 ± 25.0" in picture.svg_light.decode()
    with pytest.raises(UserError, match="no trials to draw"):
        curves.trial_spread({"mAP": []})


def test_equal_input_gives_equal_files():
    one, again = (curves.cmc_curves({"run": np.array([0.5, 1.0])}) for _ in range(2))
    assert one == again


def test_callers_settings_are_left_alone():
    import matplotlib

    before = dict(matplotlib.rcParams)
    curves.cmc_curves({"run": np.array([0.5, 1.0])})
    assert dict(matplotlib.rcParams) == before


def test_picture_is_written_and_failure_is_a_sentence(tmp_path):
    picture = curves.cmc_curves({"run": np.array([0.5, 1.0])}, name="mine")
    assert picture.write(tmp_path / "figures").read_bytes() == picture.png
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["mine.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*mine\.png"):
        picture.write(tmp_path / "file" / "figures")
