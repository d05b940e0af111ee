"""Kinds of values of a config: what fits, and what a message says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmreid_jax.settings.kinds import Choice, Number, Pair, Several, Switch, Text, Whole


class TestKinds:
    @pytest.mark.parametrize(
        ("kind", "good", "bad"),
        [
            (Switch(False), [True, False], [0, 1, "True", None]),
            (Whole(0, 0, 5), [0, 5, np.int64(3)], [-1, 6, 2.0, True, "2", None, 10**400]),
            (Number(0, 0, below=1), [0, 0.5, np.float32(0.25)], [1, -1e-9, math.nan, math.inf, "0", True, None]),
            (Number(1, above=0), [1e-9, 7], [0, -1, -math.inf]),
            (Choice("a", ("a", "b")), ["a", "b"], ["", "c", 1, ("a",), None]),
            (Text(""), ["", "a b/ü"], ["a\nb", "\0", 3, None]),
            (Several((), Whole(0, 1), counts=(2,)), [(1, 2), [3, 3]], [(1,), (1, 0), 5, "ab", (1, 2.5), None]),
            (Several((), Whole(0, 1), ascending=True), [(), (1, 2)], [(2, 1), (1, 1)]),
            (Several((), Text(""), distinct=True), [("a", "b")], [("a", "a")]),
            (Pair((), (Text(""), Number(0, 0, 1))), [("a", 0.5), ["a", 1]], [("a", 2), ("a",), (1, "a")]),
        ],
    )
    def test_fits(self, kind, good, bad):
        for value in good:
            assert kind(value) == "", value
        for value in bad:
            assert kind(value), value

    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            (Whole(0, 1, 9), "a whole number from 1 to 9"),
            (Whole(0, 1), "a whole number of at least 1"),
            (Number(0, 0, below=1), "a number of at least 0 and below 1"),
            (Number(0, above=0), "a number above 0"),
            (Number(0), "a number"),
            (Number(0, most=3), "a number at most 3"),
        ],
    )
    def test_words(self, kind, words):
        assert kind.describe() == words
