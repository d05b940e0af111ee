"""The table of recovered orders, and which images are examined."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.scoring import orders


class Table:
    """As many samples as asked for."""

    def __init__(self, rows):
        self.rows = np.arange(rows) if isinstance(rows, int) else rows

    def __len__(self):
        return len(self.rows)

    def select(self, rows):
        return Table(self.rows[rows])


@pytest.mark.parametrize(("most", "expected"), [(0, [0, 1, 2, 3, 4, 5, 6]), (7, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6])])
def test_examined_images_are_spread_over_the_table(most, expected):
    assert orders.spread(Table(7), most).rows.tolist() == expected


def test_a_line_for_every_row_and_modality():
    rows = [
        {"label": "untrained", "exact_rgb": 0.01, "stripe_rgb": 0.2},
        {"label": "trained", "exact_rgb": 0.5, "exact_nir": 1.0},
    ]
    lines = orders.describe(rows, ("rgb", "nir")).splitlines()
    assert lines[0].split() == ["exact", "stripe", "row", "gap", "mixed"]
    assert [line.split() for line in lines[1:]] == [
        ["untrained,", "rgb", "1.00", "20.00", "-", "-", "-"],
        ["trained,", "rgb", "50.00", "-", "-", "-", "-"],
        ["trained,", "nir", "100.00", "-", "-", "-", "-"],
    ]
    assert orders.describe([{"label": "trained"}], ("rgb", "nir")).startswith("no order is learnt")
