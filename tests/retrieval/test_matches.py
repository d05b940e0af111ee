"""Matches on the disk."""

from __future__ import annotations

import csv

import numpy as np

from mmreid_jax.retrieval.matches import write_table


def test_a_row_for_every_match_of_every_query(tmp_path):
    order, distances = np.array([[2, 0], [1, 2]]), np.array([[0.25, 1], [0, 0.5]])
    write_table(tmp_path / "m.csv", ["a, b", "c"], np.array(["x", "y", "z"]), order, distances)
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["query", "rank", "match", "distance"],
        ["a, b", "1", "z", "0.250000"],
        ["a, b", "2", "x", "1.000000"],
        ["c", "1", "y", "0.000000"],
        ["c", "2", "z", "0.500000"],
    ]


def test_no_distance_is_below_nothing(tmp_path):
    """Rounding makes squared distances a little negative."""
    write_table(tmp_path / "m.csv", ["a"], np.array(["x", "y"]), np.array([[0, 1]]), np.array([[-1e-3, -0.0]]))
    assert (tmp_path / "m.csv").read_text().split()[1:] == ["a,1,x,0.000000", "a,2,y,0.000000"]
