"""torchreid's test transform, from pixels to the network's input, against the authors' numbers."""

import re

import numpy as np
import pytest

from mmreid_jax.data import transforms
from mmreid_jax.testing import goldens
from mmreid_jax.training import inputs

GOLDENS = [golden for golden in map(goldens.load, goldens.cases("ieee")) if "sizes" in golden.json]
CASES = [
    pytest.param(golden, i, id=f"{golden.name}-{'x'.join(map(str, size))}")
    for golden in GOLDENS
    for i, size in enumerate(golden.json["sizes"])
]


def test_every_array_has_a_case():
    for golden in GOLDENS:
        found = {re.fullmatch(r"(resized|tensor)_(\d+)", key).groups() for key in golden.arrays}
        cases = map(str, range(len(golden.json["sizes"])))
        assert found == {(kind, i) for i in cases for kind in ("resized", "tensor")}


def kept(golden, key):
    """What is stored, by the file's description: "rows [::4]" of images, "[:, ::16, ::8]" of tensors."""
    words = re.search(r"\[([:, \d]+)\]", golden.json["keys"][key])[1]
    steps = [re.search(r"\d+", part) for part in words.split(",")]
    return tuple(slice(None, None, int(step[0]) if step else None) for step in steps)


@pytest.mark.parametrize(("golden", "i"), CASES)
class TestEvaluationImage:
    __test__ = bool(CASES)

    def image(self, golden, i):
        facts = golden.json
        image = goldens.recipe().image(facts["seed"], f"tf/{i}", (*facts["sizes"][i], 3))
        return transforms.resize(image, (facts["height"], facts["width"]), "bilinear")

    def test_resized(self, golden, i):
        expected = golden.arrays[f"resized_{i}"].astype(int)
        # The file allows a level, as versions of Pillow may differ.
        assert np.abs(self.image(golden, i)[kept(golden, "resized_<i>")].astype(int) - expected).max() <= 1

    @pytest.mark.parametrize("where", ["host", "device"])
    def test_tensor(self, golden, i, where):
        image, (mean, std) = self.image(golden, i), (golden.json[name] for name in ("mean", "std"))
        if where == "host":
            tensor = transforms.normalise(image, np.array(mean), np.array(std))
        else:
            tensor = np.asarray(inputs.normalize(image, inputs.Normalization(tuple(mean), tuple(std))))
        found, expected = tensor.transpose(2, 0, 1)[kept(golden, "tensor_<i>")], golden.arrays[f"tensor_{i}"]
        level = 1 / 255 / np.array(std)[:, None, None]
        apart = np.abs(found - expected)
        assert np.all((apart <= 1e-5) | (np.abs(apart - level) <= 1e-5))
