"""Tables that are run through a function in batches: nothing is lost, nothing is added."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.embedder import of_few
from mmreid_jax.testing import tiny
from mmreid_jax.training.step import Parallel
from tests.data.noise_records import MODALITIES, noise_records


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return noise_records(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def config():
    made = tiny.config("htt")
    with made.unlocked():
        made.data.image_size = (16, 8)
    return made


def means(variables, batch):
    """The mean of every image by modality."""
    return {name: variables["factor"] * image.mean((1, 2, 3)) for name, image in batch["images"].items()}


def stacked(variables, batch):
    """The same with the samples on the second axis."""
    return {"rows": jnp.stack(list(means(variables, batch).values()))[:, :, None]}


@pytest.mark.parametrize("size", [1, 3, 64])
@pytest.mark.parametrize("devices", [1, 4])
def test_every_sample_once_and_in_order(records, config, size, devices):
    parallel = Parallel(jax.devices()[:devices])
    embedder = of_few(config, parallel, means, size=size)
    found = embedder({"factor": jnp.float32(2)}, records, MODALITIES)
    assert list(found) == list(MODALITIES)
    order = np.arange(len(records))[::-1]
    other = embedder({"factor": jnp.float32(2)}, records.select(order), MODALITIES)
    for name in MODALITIES:
        assert found[name].shape == (len(records),)
        np.testing.assert_allclose(found[name], other[name][::-1], atol=1e-6)
    assert len({round(float(value), 6) for value in found[MODALITIES[0]]}) > 1


def test_samples_on_another_axis(records, config):
    embedder = of_few(config, Parallel(jax.devices()[:1]), stacked, size=3)
    found = embedder({"factor": jnp.float32(1)}, records, ["rows", "absent"], axis=1)
    assert list(found) == ["rows"]
    assert found["rows"].shape == (len(MODALITIES), len(records), 1)


def test_absent_modalities_are_not_seen(records, config):
    embedder = of_few(config, Parallel(jax.devices()[:1]), means)
    first, *rest = MODALITIES
    found = embedder({"factor": jnp.float32(1)}, records, MODALITIES, absent=[first])
    assert not found[first].any()
    assert all(found[name].any() for name in rest)


def test_pieces_are_the_whole(records, config):
    embedder = of_few(config, Parallel(jax.devices()[:1]), means, size=2)
    pieces = list(embedder.pieces({"factor": jnp.float32(1)}, records, [MODALITIES[0]]))
    assert {len(piece[MODALITIES[0]]) for piece in pieces} <= {1, 2}
    joined = np.concatenate([piece[MODALITIES[0]] for piece in pieces])
    np.testing.assert_array_equal(joined, embedder({"factor": jnp.float32(1)}, records)[MODALITIES[0]])
