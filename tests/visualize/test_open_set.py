"""The picture of a search's rates."""

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize.open_set import open_set_picture

CURVE = np.array([[0.1, 0.0, 0.2, 0.8], [0.3, 0.0, 0.5, 0.4], [0.5, 0.25, 0.6, 0.2], [0.9, 1.0, 0.7, 0.0]])


@pytest.mark.parametrize(
    ("threshold", "said"),
    [(0.3, "0.0% false alarms, 50.0% found first"), (0.6, "25.0% false alarms"), (0.0, "search. ")],
)
def test_it_says_what_it_marks(threshold, said):
    picture = open_set_picture(CURVE, threshold, name="t")
    assert said in picture.alt
    assert picture.name == "t"
    assert picture.png.startswith(b"\x89PNG")


def test_no_false_alarm_at_all_can_be_drawn():
    assert open_set_picture(CURVE[:2], 0.3).png


def test_there_must_be_something_to_draw():
    with pytest.raises(UserError, match="no point"):
        open_set_picture(np.zeros((0, 4)), 0.1)
