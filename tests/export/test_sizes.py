"""Numbers that grow with the batch, from two traces."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax.export import sizes
from mmreid_jax.export.sizes import Growing

FIRST, SECOND = sizes.TRACED


@pytest.mark.parametrize(("per_sample", "fixed"), [(1, 0), (3, 0), (2, 5), (1, -1)])
def test_a_growing_size_is_read_off_two_traces(per_sample, fixed):
    assert sizes.of(per_sample * FIRST + fixed, per_sample * SECOND + fixed) == Growing(per_sample, fixed)


def test_others_are_fixed_or_refused():
    assert sizes.of(129, 129) == 129
    with pytest.raises(sizes.Differs):
        sizes.of(10, 11)


def test_parameters_of_operations():
    assert sizes.merged((0, (FIRST, 3)), (0, (SECOND, 3))) == (0, (Growing(1, 0), 3))
    assert sizes.merged("SAME", "SAME") == "SAME"
    assert sizes.merged(True, True) is True
    assert np.isnan(sizes.merged(np.nan, float("nan")))
    for one, other in (("a", "b"), (1.5, 2.5), ((1,), (1, 2)), (True, False)):
        with pytest.raises(sizes.Differs):
            sizes.merged(one, other)


def test_shapes_and_products():
    assert sizes.shape((FIRST, 4), (SECOND, 4)) == (Growing(1, 0), 4)
    assert sizes.times(2, 3, Growing(1, 0)) == Growing(6, 0)
    assert sizes.times() == 1
    assert sizes.fixed((2, 3)) == (2, 3)
    with pytest.raises(sizes.Differs):
        sizes.times(Growing(1, 0), Growing(1, 0))
    with pytest.raises(sizes.Differs):
        sizes.fixed((2, Growing(1, 0)))
    with pytest.raises(sizes.Differs):
        sizes.shape((1,), (1, 2))
