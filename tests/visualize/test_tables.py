"""Score tables in plain text and markdown."""

import math

from mmreid_jax.visualize import tables

TABLE = tables.ScoreTable(
    {
        "untrained": {"mAP": 0.081, "R1": 0.0625},
        "trained": {"mAP": (0.69, 0.004), "R1": 0.7},
        "adapted": {"mAP": 0.6904, "R1": math.nan, "R5": None},
    },
    title="Scores",
    note="One seed.",
)


def test_percent():
    assert tables.percent(0.6914) == "69.1"
    assert tables.percent(1) == "100.0"
    assert tables.percent((0.6914, 0.0042)) == "69.1 ± 0.4"
    assert tables.percent(None) == tables.percent(math.nan) == "\u2013"


def test_columns_without_scores_are_left_out_and_ties_after_rounding_are_both_best():
    assert TABLE.columns_with_scores == ("mAP", "R1")
    assert TABLE.best("mAP") == {"trained", "adapted"}
    assert TABLE.best("R1") == {"trained"}
    assert tables.ScoreTable({"alone": {"mAP": 0.5}}).best("mAP") == set()
    assert tables.ScoreTable(TABLE.rows, mark_best=False).best("mAP") == set()


def test_text_table_is_aligned():
    assert tables.text_table(TABLE).split("\n") == [
        "Scores",
        "                  mAP      R1",
        "-------------------------------",
        "untrained         8.1     6.2",
        "trained    69.0 ± 0.4 *  70.0 *",
        "adapted          69.0 *     \u2013",
        "One seed.",
    ]
