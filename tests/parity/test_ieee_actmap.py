"""Activation maps against torchreid's tool: energies, stretched maps, colours."""

import re

import numpy as np
import pytest

from mmreid_jax.testing import goldens
from mmreid_jax.visualize import activation

CASES = [golden for golden in map(goldens.load, goldens.cases("ieee")) if "jet_row0" in golden.json.get("keys", {})]


def steps(description):
    """The strides of the kept rows and columns, from the last ``[::a, ::b]`` of a key's description."""
    return tuple(slice(None, None, int(step)) for step in re.findall(r"\[::(\d+), ::(\d+)\]", description)[-1])


@pytest.mark.parametrize("golden", CASES, ids=lambda golden: golden.name)
class TestActivationMaps:
    __test__ = bool(CASES)

    def test_maps(self, golden):
        case, arrays = golden.json, golden.arrays
        key = re.search(r"'([^']+)'", case["inputs"])[1]
        shape = tuple(case[side] for side in ("B", "C", "h", "w"))
        maps = np.abs(goldens.recipe().array(case["seed"], key, shape)).transpose(0, 2, 3, 1)
        found = activation.energy(maps)
        np.testing.assert_allclose(found, arrays["normalised"].reshape(found.shape), rtol=0, atol=1e-6)
        heat = activation.heat(maps, (case["H"], case["W"]))
        kept = heat[(slice(None), *steps(case["keys"]["uint8"]))].astype(int)
        assert np.abs(kept - arrays["uint8"]).max() <= 1
        # A level more or less is four levels of colour.
        colors = activation.jet(heat[0])[steps(case["keys"]["jet_row0"])][..., ::-1].astype(int)
        assert np.abs(colors - arrays["jet_row0"]).max() <= 5
