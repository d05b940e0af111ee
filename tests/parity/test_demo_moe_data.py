"""DeMo's sampler, transforms and scores against its code; those of MDReID and of most forks are the same."""

from __future__ import annotations

import re

import clip_trunk_runs
import numpy as np
import pytest

from configs import demo_moe_rgbnt100, demo_moe_rgbnt201
from mmreid_jax.data import images, samplers, transforms
from mmreid_jax.data.records import View
from mmreid_jax.retrieval import distances, metrics, protocols
from mmreid_jax.testing import goldens

SAMPLERS = [
    pytest.param(golden, name, id=f"{golden.name}-{name}")
    for golden in map(goldens.load, goldens.cases("demo_moe"))
    if any("instances" in case for case in dict(golden.json.get("cases", {})).values())
    for name in golden.json["cases"]
]
TRANSFORMS = [goldens.load(path) for path in clip_trunk_runs.of_kind("transforms", "demo_moe")]
EVALUATIONS = [goldens.load(path) for path in clip_trunk_runs.of_kind("evaluation", "demo_moe")]
# What float32 leaves of sums over an image.
FLOAT32 = 1e-5


@pytest.mark.parametrize(("golden", "name"), SAMPLERS)
def test_epochs_are_drawn_in_the_order_of_the_reference(golden, name):
    case, arrays = golden.json["cases"][name], golden.arrays
    expected = {
        int(match[1]): value
        for key, value in arrays.items()
        if (match := re.fullmatch(rf"{re.escape(name)}/epoch(\d+)", key))
    }
    size = samplers.identities_per_batch(case["batch"], case["instances"])
    plan = samplers.pk_reference(np.array(case["labels"]), size, case["instances"], max(expected), case["seed"])
    for epoch, indices in expected.items():
        drawn = np.concatenate([draw.indices for draw in plan if draw.epoch == epoch - 1])
        np.testing.assert_array_equal(drawn, indices)


class Replayed:
    """A source of random numbers that gives those of recorded calls, in their order."""

    def __init__(self, calls):
        self._calls = list(calls)

    def _next(self, names, arguments):
        name, given, value = self._calls.pop(0)
        assert name in names, (name, names)
        np.testing.assert_allclose(given, arguments, rtol=1e-12)
        return value

    def random(self):
        torch = self._calls[0][0] == "torch.rand"
        return self._next(("torch.rand", "random.random"), [1] if torch else [])

    def uniform(self, a, b):
        return self._next(("random.uniform",), [a, b])

    def randint(self, a, b):
        torch = self._calls[0][0] == "torch.randint"
        return self._next(("torch.randint", "random.randint"), [a, b + 1] if torch else [a, b])

    @property
    def left(self):
        # The noise that fills the rectangle is drawn by the device.
        return [call for call in self._calls if "normal" not in call[0]]


def pictures(golden, number):
    height, width = golden.json["image_sizes"][number]
    draw = goldens.recipe().image
    return {
        name: draw(golden.json["seed"], f"person{number}/{name}", (height, width, 3)) for name in ("RGB", "NI", "TI")
    }


@pytest.mark.parametrize("golden", TRANSFORMS, ids=lambda golden: golden.name)
def test_training_images(golden):
    options = demo_moe_rgbnt201.get_config().data
    size = tuple(options.image_size)
    for number, example in enumerate(golden.json["training"]["examples"]):
        calls = Replayed(call for call in example["calls"] if "normal" not in call[0])
        for name, image in pictures(golden, example["image"]).items():
            said = example["decisions"][name]
            drawn = transforms.draw(calls, size, padding=options.padding, flip=options.flip, erasing=options.erasing)
            rectangle = tuple(said["erase_top_left_h_w"] or transforms.NO_RECTANGLE)
            assert (drawn.mirrored, drawn.top, drawn.left, drawn.erase) == (
                said["flip"],
                said["crop_top"],
                said["crop_left"],
                rectangle,
            )
            resized = transforms.resize(image, size, options.interpolation)
            tensor = transforms.normalise(transforms.apply(resized, drawn, options.padding)).transpose(2, 0, 1).copy()
            top, left, tall, wide = rectangle
            tensor[:, top : top + tall, left : left + wide] = 0
            stored = {kind: golden.arrays[f"train{number}/{name}_{kind}@64"] for kind in ("sample", "sum")}
            np.testing.assert_allclose(tensor[:, ::8, ::8], stored["sample"], atol=FLOAT32)
            np.testing.assert_allclose(
                tensor.sum(dtype=np.float64), stored["sum"], rtol=FLOAT32, atol=tensor.size * 1e-7
            )
        assert not calls.left


@pytest.mark.parametrize("golden", TRANSFORMS, ids=lambda golden: golden.name)
def test_test_images(golden):
    people, vehicles = (module.get_config().data for module in (demo_moe_rgbnt201, demo_moe_rgbnt100))
    wide = goldens.recipe().image(golden.json["seed"], "wide", (128, 768, 3))
    thirds = {name: View("image", (start, start + 256)) for name, start in (("RGB", 0), ("NI", 256), ("TI", 512))}
    shown = {f"person{i}": (people, pictures(golden, i)) for i in range(len(golden.json["image_sizes"]))}
    shown["wide"] = (vehicles, images.cut({"image": wide}, thirds, "a golden image"))
    for key, expected in golden.arrays.items():
        match = re.fullmatch(r"test/(\w+)/(\w+)_(head|uint8|sum)(?:@64)?", key)
        if not match:
            continue
        options, image = shown[match[1]][0], shown[match[1]][1][match[2]]
        resized = transforms.resize(image, tuple(options.image_size), options.eval_interpolation)
        tensor = transforms.normalise(resized).transpose(2, 0, 1)
        if match[3] == "uint8":
            rows, columns = (whole // stored for whole, stored in zip(resized.shape, expected.shape[:2], strict=False))
            np.testing.assert_array_equal(resized[::rows, ::columns], expected)
        elif match[3] == "head":
            np.testing.assert_allclose(tensor[:, : expected.shape[1], : expected.shape[2]], expected, atol=FLOAT32)
        else:
            np.testing.assert_allclose(tensor.sum(dtype=np.float64), expected, rtol=FLOAT32, atol=tensor.size * 1e-7)


@pytest.mark.parametrize("golden", EVALUATIONS, ids=lambda golden: golden.name)
def test_scores(golden):
    case, recipe = golden.json, goldens.recipe()
    seed, queries, dim = case["seed"], case["queries"], case["dim"]
    total = queries + case["gallery"]
    counts = {"pid": case["identities"], "camera": 4, "scene": 5}
    drawn = {key: recipe.integers(seed, key, 0, count, (total,)) for key, count in counts.items()}
    noise = np.float32(1.2) * recipe.array(seed, "noise", (total, dim))
    centres = recipe.array(seed, "centre", (case["identities"], dim))
    features = distances.l2_normalise(np.float32(3) * (centres[drawn["pid"]] + noise))
    tables = [
        metrics.Labels(drawn["pid"][part], drawn["camera"][part], drawn["scene"][part])
        for part in (slice(queries), slice(queries, None))
    ]
    for key in ("camera", "scene"):
        protocol = protocols.Protocol("golden", removes=f"same_identity_same_{key}")
        apart = protocol.distances(features[:queries], features[queries:])
        scores = metrics.evaluate(apart, *tables, protocol)
        np.testing.assert_allclose(scores.mAP, golden.arrays[f"{key}/mAP@64"], atol=1e-7)
        expected = golden.arrays[f"{key}/cmc@64"]
        np.testing.assert_allclose(scores.cmc[: len(expected)], expected, atol=1e-7)
        if (head := golden.arrays.get(f"{key}/distance_head@64")) is not None:
            np.testing.assert_allclose(apart[: len(head), : head.shape[1]], head, atol=FLOAT32)
