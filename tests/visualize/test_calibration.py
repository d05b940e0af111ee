"""Thresholds by hand and by what they promise."""

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import calibration


def test_threshold_by_hand():
    genuine, impostor = np.array([0.1, 0.2, 0.5, 0.9]), np.array([0.3, 0.4, 0.6, 0.7, 0.8])
    none = calibration.threshold_for(genuine, impostor, 0.1)  # not even one of five impostors is allowed
    assert (none.distance, none.false_rate, none.true_rate) == (0.2, 0.0, 0.5)
    one = calibration.threshold_for(genuine, impostor, 0.2)
    assert (one.distance, one.false_rate, one.true_rate) == (0.3, 0.2, 0.5)
    two = calibration.threshold_for(genuine, impostor, 0.4)
    assert (two.distance, two.false_rate, two.true_rate) == (0.5, 0.4, 0.75)
    assert two.resolution == 0.2


def test_threshold_where_impostors_are_nearest_or_tie():
    nothing = calibration.threshold_for(np.array([0.5]), np.array([0.1, 0.2]), 0.1)
    assert (nothing.distance, nothing.false_rate, nothing.true_rate) == (-np.inf, 0.0, 0.0)
    tied = calibration.threshold_for(np.array([0.1, 0.4]), np.array([0.3, 0.3, 0.3, 0.5]), 0.25)
    assert (tied.distance, tied.false_rate) == (0.1, 0.0), "accepting one of three equal impostors would accept all"


@pytest.mark.parametrize("target", [0.001, 0.01, 0.3])
def test_threshold_is_the_largest_that_keeps_the_promise(target):
    rng = np.random.default_rng(5)
    genuine, impostor = np.sort(rng.normal(0.5, 0.2, 300)), np.sort(np.round(rng.normal(1.0, 0.2, 900), 2))
    found = calibration.threshold_for(genuine, impostor, target)
    assert np.mean(impostor <= found.distance) == found.false_rate <= target
    assert np.mean(genuine <= found.distance) == found.true_rate
    beyond = np.concatenate([genuine, impostor])
    following = beyond[beyond > found.distance].min()
    assert np.mean(impostor <= following) > target


def test_calibrate_gathers_the_pairs_that_count(case):
    found = calibration.calibrate(case.distances, case.query, case.gallery, case.ignore, false_search_rate=0.5)
    np.testing.assert_allclose(found.genuine, [0.2, 0.4, 0.9], rtol=1e-6)
    assert len(found.impostor) == 24 - 3 - 2
    np.testing.assert_allclose(found.nearest_genuine, [0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(found.nearest_impostor, [0.1, 0.1, 0.1, 0.5], rtol=1e-6)
    assert found.per_search.false_rate <= 0.5


def test_equal_error_rate_by_hand():
    # At distance 0.5 one of four impostors is accepted and one of four genuine pairs refused.
    genuine, impostor = np.array([0.1, 0.2, 0.5, 0.9]), np.array([0.4, 0.6, 0.7, 0.8])
    assert calibration._equal_error_rate(genuine, impostor) == 0.25
    assert calibration._equal_error_rate(genuine, impostor + 9) == 0.0


def test_sentences_say_when_the_data_are_too_few(case):
    few = calibration.calibrate(case.distances, case.query, case.gallery, case.ignore)
    text = " ".join(few.sentences())
    assert "of 19 pairs of different identities" in text
    assert np.isinf(few.per_pair.distance)
    assert "Per pair: where no distance is accepted, 0.0 % of" in text
    assert "too few for the per-pair target: the smallest rate they can show is 5.3 %" in text
    assert "too few for the per-search target" in text
    enough = calibration.calibrate(
        case.distances, case.query, case.gallery, case.ignore, false_match_rate=0.2, false_search_rate=0.5
    )
    assert "too few" not in " ".join(enough.sentences())


def test_bad_input_is_refused(case):
    with pytest.raises(UserError, match="false_match_rate is 0"):
        calibration.calibrate(case.distances, case.query, case.gallery, false_match_rate=0)
    with pytest.raises(UserError, match="no pair of the same identity"):
        calibration.calibrate(
            case.distances[3:], type(case.query)(*(v[3:] for v in vars(case.query).values())), case.gallery
        )
    with pytest.raises(UserError, match="no pair of different identities"):
        calibration.calibrate(
            case.distances, case.query, case.gallery, case.query.identity[:, None] != case.gallery.identity[None]
        )


def test_picture_shows_both_histograms(case, pixels):
    found = calibration.calibrate(case.distances, case.query, case.gallery, case.ignore, false_search_rate=0.5)
    picture = calibration.calibration_picture(found)
    image = pixels(picture.png).astype(int)
    green, red = image[..., 1] - image[..., 0] > 30, image[..., 0] - image[..., 1] > 30
    assert green.sum() > 500
    assert red.sum() > 500
    assert "Equal error rate" in picture.alt
