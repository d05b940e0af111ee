"""Files for trackers, handed crops as those programs do: nearest neighbours are those of the library.

Ultralytics and BoxMOT themselves load them in the group ``trackers``.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from mmreid_jax.commands import export
from mmreid_jax.export import files
from mmreid_jax.export.network import IMAGENET, Network
from mmreid_jax.model import Model
from tests.export import models


def scene(people=6):
    """A picture uint8 [H, W, 3] in which every person stands twice, and boxes int [2 * people, 4] (x1, y1, x2, y2)."""
    rng = np.random.default_rng(1)
    picture = np.full((400, 80 * people, 3), 128, np.uint8)
    boxes = []
    for person in range(people):
        coarse = rng.integers(0, 256, (6, 3, 3), np.uint8)
        for row, (width, height) in enumerate(((50, 120), (60, 150))):
            look = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST), np.int64)
            x, y = 80 * person + 5, 20 + 190 * row
            picture[y : y + height, x : x + width] = np.clip(look + rng.integers(-8, 9, look.shape), 0, 255)
            boxes.append((x, y, x + width, y + height))
    return picture, np.array(boxes)


PICTURE, BOXES = scene()
CROPS = [PICTURE[y1:y2, x1:x2] for x1, y1, x2, y2 in BOXES]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A file for each tracker, and the features of the library."""
    folder = tmp_path_factory.mktemp("trackers")
    extractor = models.extractor("htt")
    contracts = {}
    for program, name in (("ultralytics", "people.onnx"), ("boxmot", "osnet_x0_25_people.onnx")):
        arguments = export._parser().parse_args(
            ["--checkpoint", "-", "--out", str(folder / name), "--for", program, "--check", "8"]
        )
        contracts[program] = export._contract(arguments)
        files.write_onnx(Network(extractor, ("rgb",), "", contracts[program]), folder / name, 8)
    np.save(folder / "ours.npy", Model(extractor).embed({"rgb": CROPS}))
    return folder


def resized(crop, size):
    return np.asarray(Image.fromarray(crop).resize(size[::-1], Image.Resampling.BILINEAR), np.float32) / 255


def agree(features, ours):
    """Every crop is nearest to the other one of its person, for both, and the features nearly the same."""
    features = np.asarray(features) / np.linalg.norm(features, axis=1, keepdims=True)
    partners = np.arange(len(ours)) ^ 1
    for rows in (features, ours):
        likeness = rows @ rows.T - 2 * np.eye(len(rows))
        np.testing.assert_array_equal(likeness.argmax(axis=1), partners)
    # Resized twice, or without a filter against aliasing.
    assert (features * ours).sum(axis=1).min() > 0.98


@pytest.mark.slow(short=True)
def test_as_ultralytics_hands_crops_over(place):
    session = onnxruntime.InferenceSession(place / "people.onnx")
    shape = session.get_inputs()[0].shape
    assert shape == ["batch", 3, 256, 256]
    batch = np.stack([resized(crop, (256, 256)) for crop in CROPS]).transpose(0, 3, 1, 2)
    agree(session.run(None, {session.get_inputs()[0].name: batch})[0], np.load(place / "ours.npy"))


@pytest.mark.slow(short=True)
def test_as_boxmot_hands_crops_over(place):
    session = onnxruntime.InferenceSession(place / "osnet_x0_25_people.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, 256, 128]
    batch = np.stack([(resized(crop, (256, 128)) - IMAGENET["mean"]) / IMAGENET["std"] for crop in CROPS])
    batch = np.float32(batch).transpose(0, 3, 1, 2)
    agree(session.run(None, {session.get_inputs()[0].name: batch})[0], np.load(place / "ours.npy"))


@pytest.mark.trackers
def test_ultralytics_loads_it(place):
    from ultralytics.trackers.utils.reid import ReID

    encoder = ReID(str(place / "people.onnx"), device="cpu")
    # A number, or in later versions height and width.
    assert set(np.ravel(encoder.imgsz)) == {256}
    centers = np.concatenate([(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]], axis=1)
    agree(encoder(np.ascontiguousarray(PICTURE[..., ::-1]), centers.astype(np.float32)), np.load(place / "ours.npy"))


@pytest.mark.trackers
def test_boxmot_loads_it(place):
    import torch
    from boxmot.reid.backends.onnx_backend import ONNXBackend

    backend = ONNXBackend(place / "osnet_x0_25_people.onnx", torch.device("cpu"), half=False)
    assert tuple(backend.input_shape) == (256, 128)
    features = backend.get_features(BOXES.astype(np.float32), np.ascontiguousarray(PICTURE[..., ::-1]))
    agree(features, np.load(place / "ours.npy"))
