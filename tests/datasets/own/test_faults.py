"""Faults: gathered, a line for each kind."""

from mmreid_jax.datasets.own.faults import Faults, FaultyData


def test_a_line_for_each_kind_with_three_examples_and_a_count():
    faults = Faults()
    assert not faults
    faults.add("files are not there", [])
    assert not faults
    faults.add("files are not there", ["a", "b", "c", "d"])
    faults.add("rows have no identity", "line 7")
    faults.add("files are not there", "e\n")
    assert faults.lines == ["5 files are not there: a, b, c ...", "1 rows have no identity: line 7"]


def test_the_error_says_all_of_it_and_no_name_can_break_its_line():
    faults = Faults()
    faults.add("files are not there", "e\nvil\x1b[2J")
    error = FaultyData("DIR", faults)
    assert error.summary == "DIR has a kind of fault, and nothing was written; mend what is listed"
    assert str(error) == f"{error.summary}: 1 files are not there: e\\nvil\\x1b[2J"
    faults.add("others", "x")
    assert "has 2 kinds of faults" in str(FaultyData("DIR", faults))
