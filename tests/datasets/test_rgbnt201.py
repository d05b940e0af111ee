"""RGBNT201: the published counts, from the public names."""

from collections import Counter

from tests.datasets.lists import true_labels


def test_true_counts():
    train, test = true_labels("rgbnt201", "train"), true_labels("rgbnt201", "test")
    assert (len(train), len({label.identity for label in train})) == (3951, 171)
    assert (len(test), len({label.identity for label in test})) == (836, 30)
    assert not {label.identity for label in train} & {label.identity for label in test}
    assert Counter(label.camera for label in train) == {0: 2592, 1: 1142, 2: 88, 3: 129}
    assert Counter(label.camera for label in test) == {0: 365, 1: 471}
    assert {label.scene for label in train} == {0, 1}
    assert {label.scene for label in test} == {0}
