"""MSVR310: the published counts, from the public names, and the time spans that its protocol needs."""

import pytest

from tests.datasets.lists import true_labels


@pytest.mark.parametrize(("split", "samples"), [("train", 1032), ("test", 1055)])
def test_true_counts(split, samples):
    labels = true_labels("msvr310", split)
    assert (len(labels), len({label.identity for label in labels})) == (samples, 155)
    assert {label.camera for label in labels} == set(range(8))


def test_most_identities_of_the_test_are_seen_in_one_time_span_alone():
    scenes: dict[int, set[int]] = {}
    for label in true_labels("msvr310", "test"):
        scenes.setdefault(label.identity, set()).add(label.scene)
    assert sum(len(seen) == 1 for seen in scenes.values()) == 103
