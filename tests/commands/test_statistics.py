"""Mean and deviation of a data set's images."""

from __future__ import annotations

import numpy as np
import pytest

from mmreid_jax import experiment
from mmreid_jax.commands import statistics
from mmreid_jax.errors import UserError


def test_statistics_are_those_of_all_pixels():
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)
    mean, square, within = (statistics.sums(images[:2]) + statistics.sums(images[2:])) / len(images)
    pixels = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=0))
    np.testing.assert_allclose(np.sqrt(square - mean**2), pixels.std(axis=0))
    each = [image.reshape(-1, 3).std(axis=0, ddof=1) / 255 for image in images]
    np.testing.assert_allclose(within, np.mean(each, axis=0))


def test_statistics_command_on_drawn_data(small, data_dir, capsys):
    data = small().data
    records = experiment.load_splits(data).train
    found = statistics.measure(records, (32, 16), batch=7)
    options = experiment.image_options(data, cache=False)
    with experiment.pipeline.eval_batches(records, options, len(records)) as batches:
        images = next(batches)["images"]
    for name, pixels in images.items():
        np.testing.assert_allclose(found[name].mean, pixels.reshape(-1, 3).mean(axis=0) / 255)
        np.testing.assert_allclose(found[name].deviation, pixels.reshape(-1, 3).std(axis=0) / 255)
    prepared = experiment.draw(data, data_dir)
    size = ["--image_size", "32", "16"]
    statistics.main(["--dataset", "rgbnt201", "--data_dir", str(prepared), *size])
    said = capsys.readouterr().out
    assert statistics.describe(found) in said
    assert f"{len(records)} samples at 32 x 16" in said
    with pytest.raises(UserError, match="larger size"):
        statistics.measure(records, (1, 1))
