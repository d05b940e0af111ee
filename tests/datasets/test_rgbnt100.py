"""RGBNT100: the published counts, from the public names."""

import pytest

from tests.datasets.lists import true_labels


@pytest.mark.parametrize(("split", "samples"), [("train", 8675), ("test", 8575)])
def test_true_counts(split, samples):
    labels = true_labels("rgbnt100", split)
    assert (len(labels), len({label.identity for label in labels})) == (samples, 50)
    assert {label.camera for label in labels} == set(range(8))
