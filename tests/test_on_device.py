"""Batches made on the devices against those that the host sends, bit for bit, on eight of them."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from mmreid_jax import on_device
from mmreid_jax.data import images, pipeline, samplers
from mmreid_jax.errors import UserError
from mmreid_jax.training import augment, step
from tests.data.noise_records import damage, noise_records

PLAIN = pipeline.ImageOptions(size=(16, 8), padding=0, erasing=0.0)
EVERYTHING = pipeline.ImageOptions(
    size=(16, 8),
    padding=4,
    flip=0.5,
    random_crop=0.5,
    random_patch=0.6,
    brightness=0.4,
    contrast=0.6,
    second_views=("nir",),
    moderate_enhancement=0.5,
    radical_enhancement=0.7,
    erasing_of=(("nir", 1.0),),
    grey_of=(("rgb", 0.5), ("nir_2", 1.0)),
)
OPTIONS = {
    "nothing": PLAIN,
    "crop": dataclasses.replace(PLAIN, padding=3),
    "light": dataclasses.replace(PLAIN, brightness=0.2),
    "patched": dataclasses.replace(PLAIN, random_patch=0.8),
    "enhanced": dataclasses.replace(PLAIN, moderate_enhancement=0.5, radical_enhancement=0.5),
    "everything": EVERYTHING,
    "everything, shared": dataclasses.replace(EVERYTHING, shared=True, erasing_form="torchreid"),
}
SEED = 5


@pytest.fixture(scope="module")
def parallel():
    return step.Parallel()


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return noise_records(tmp_path_factory.mktemp("noise") / "images", counts=(4, 6, 4, 5))


@pytest.fixture(scope="module")
def mixed(records):
    """Every sample an image of one modality, with captions."""
    view = records.views["rgb"]
    texts = {name: np.array([f"{name} {i}" for i in range(len(records))], object) for name in ("caption", "rephrased")}
    modality = np.where(np.arange(len(records)) % 2, "nir", "rgb")
    return dataclasses.replace(records, views={"rgb": view, "nir": view}, modality=modality, captions=texts)


@pytest.fixture(params=["whole", "spread"])
def share(request, monkeypatch):
    """Devices that hold a table whole, and devices with room for their part of it alone."""
    if request.param == "spread":
        monkeypatch.setattr(on_device, "memory_limit", lambda parallel: on_device.SHARE * 19 * 3 * 16 * 8 * 3 // 2)
    return request.param


def trained(parallel, records, plan, options, holder=None, **changed):
    table = (holder or on_device.OnDevice()).open(parallel, records, options, training=True)
    arguments = {"seed": SEED, "threads": 0, **changed, "held": table.host}
    with pipeline.train_batches(records, plan, options, **arguments) as batches:
        return [parallel.place_batch(batch, table.arrays, keep=("index",)) for batch in batches]


def evaluated(parallel, records, options, holder=None):
    table = (holder or on_device.OnDevice()).open(parallel, records, options, training=False)
    with pipeline.eval_batches(records, options, 8, threads=0, held=table.host) as batches:
        return [parallel.place_batch(batch, table.arrays, keep=step.HOST_ONLY) for batch in batches]


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
            assert (x.dtype, x.shape) == (y.dtype, y.shape)
            assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
            np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", OPTIONS)
def test_training_batches_equal_the_hosts(parallel, records, name):
    plan, options = samplers.pk(records.identity, 2, 4, 2, 0), OPTIONS[name]
    host = trained(parallel, records, plan, options)
    assert_same(host, trained(parallel, records, plan, options, on_device.OnDevice("on")))
    assert {len(np.unique(np.asarray(batch["images"]["rgb"]))) > 1 for batch in host} == {True}


PLANS = {
    "counter": lambda table: samplers.pk(table.identity, 2, 4, 1, 0),
    "reference": lambda table: samplers.pk_reference(table.identity, 2, 4, 1, 0),
    "cameras": lambda table: samplers.spread_reference(table.camera, 2, 4, 1, 0),
    "shuffled": lambda table: samplers.shuffled(len(table), 8, 2, 0),
}
PAIRED_PLANS = {
    "counter": lambda *labels: samplers.cross_modal(*labels, 2, 4, 1, 0),
    "reference": lambda *labels: samplers.cross_modal_reference(*labels, 2, 4, 1, 0),
    "unpaired": lambda *labels: samplers.unpaired(*labels[1:], 8, 1, 0),
}


@pytest.mark.parametrize("sampler", PLANS)
def test_every_sampler(parallel, records, share, sampler):
    plan = PLANS[sampler](records)
    holder = on_device.OnDevice("on")
    found = trained(parallel, records, plan, EVERYTHING, holder)
    assert_same(trained(parallel, records, plan, EVERYTHING), found)
    held = holder.open(parallel, records, EVERYTHING, training=True).arrays["images"]
    assert held.sharding.is_fully_replicated == (share == "whole")


@pytest.mark.parametrize("sampler", PAIRED_PLANS)
def test_every_sampler_of_pairs_with_captions(parallel, mixed, sampler):
    plan = PAIRED_PLANS[sampler](mixed.class_index(), mixed.modality, mixed.modalities)
    options = dataclasses.replace(EVERYTHING, rephrased=0.5)
    found = trained(parallel, mixed, plan, options, on_device.OnDevice("on"))
    assert_same(trained(parallel, mixed, plan, options), found)
    assert {"tokens", "erase", "identity", "index"} <= found[0].keys()


def test_evaluation_equals_the_hosts(parallel, records, share):
    del share
    assert_same(
        evaluated(parallel, records, EVERYTHING), evaluated(parallel, records, EVERYTHING, on_device.OnDevice("on"))
    )


def test_batches_one_upon_the_other(parallel, records, share):
    del share
    plan, holder = samplers.pk(records.identity, 2, 4, 1, 0), on_device.OnDevice("on")
    single = trained(parallel, records, plan, EVERYTHING, holder)
    table = holder.open(parallel, records, EVERYTHING, training=True)
    with pipeline.train_batches(records, plan, EVERYTHING, seed=SEED, threads=0, held=table.host) as batches:
        stacked = parallel.place_batches(list(batches), table.arrays)
    assert len(single) > 1
    for name in ("images", "erase"):
        for view, found in stacked[name].items():
            np.testing.assert_array_equal(found, np.stack([np.asarray(batch[name][view]) for batch in single]))
    assert stacked["images"]["rgb"].sharding.is_equivalent_to(parallel.stacked, 5)


def test_spread_images_are_never_gathered_whole(parallel, records, monkeypatch):
    """Devices with a part each exchange the images of a batch, not the table."""
    monkeypatch.setattr(on_device, "memory_limit", lambda parallel: on_device.SHARE * 19 * 3 * 16 * 8 * 3 // 2)
    table = on_device.OnDevice("on").open(parallel, records, EVERYTHING, training=True)
    row = parallel.place_batch({"row": np.arange(8, dtype=np.int32)})
    batch = {"augment": {"rgb": row}}
    text = jax.jit(augment.gather, out_shardings=parallel.split).lower(batch, table.arrays).compile().as_text()
    assert "u8[8,16,8,3]" in text
    assert "u8[64," not in text  # 57 images fill 8 parts of 8


class TestBrokenImages:
    @pytest.mark.parametrize("cache", [False, True])
    def test_they_give_way_as_on_the_host(self, parallel, tmp_path, cache):
        records = noise_records(tmp_path / "images", counts=(4, 4))
        damage(records, 6)
        options = dataclasses.replace(PLAIN, broken="skip", cache=str(tmp_path / "cache") if cache else "")
        plan = samplers.sequential(8, 8)
        found = trained(parallel, records, plan, options, on_device.OnDevice("on"))
        assert_same(trained(parallel, records, plan, options), found)
        assert np.asarray(found[0]["index"])[6] == 7

    def test_they_end_a_run_that_does_not_skip_them(self, parallel, tmp_path):
        records = noise_records(tmp_path / "images", counts=(4, 4))
        damage(records, 6)
        with pytest.raises(UserError, match=r"0006\.jpg of noise/train cannot be read"):
            on_device.OnDevice("on").open(parallel, records, PLAIN, training=True)


def test_part_of_a_table_shares_its_images(parallel, records):
    rows = np.array([3, 11, 2, 18, 7, 7, 0, 5])
    part, holder = records.select(rows, "part"), on_device.OnDevice("on")
    holder.select(parallel, part, PLAIN, records, rows)
    whole = holder.open(parallel, records, PLAIN, training=False)
    assert holder.open(parallel, part, PLAIN, training=False).arrays["images"] is whole.arrays["images"]
    assert_same(evaluated(parallel, part, PLAIN), evaluated(parallel, part, PLAIN, holder))


class TestChoice:
    def test_off_and_auto_on_a_cpu(self, parallel, records):
        for choice in ("off", False, "auto"):
            assert on_device.OnDevice(choice).open(parallel, records, PLAIN, training=True) == on_device.DeviceTable()

    def test_no_choice(self):
        with pytest.raises(UserError, match=r"config\.data\.on_device is 'gpu'; choose auto, on or off"):
            on_device.OnDevice("gpu")

    def test_auto_leaves_what_does_not_fit_on_the_host(self, parallel, records, monkeypatch, capsys):
        """A third of all devices is less than the table; what lies there counts, until it is released."""
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        image = 16 * 8 * 3
        monkeypatch.setattr(on_device, "memory_limit", lambda parallel: on_device.SHARE * 10 * image)
        holder = on_device.OnDevice("auto")
        first, second = records.select(np.arange(19)), records.select(np.arange(6))
        held = holder.open(parallel, first, PLAIN, training=True)
        assert held.arrays["images"].shape == (64, 16, 8, 3)  # 57 images in 8 parts
        assert holder.open(parallel, second, PLAIN, training=True) == on_device.DeviceTable()
        holder.release(second)
        holder.release(first)
        assert holder.open(parallel, second, PLAIN, training=True).arrays["images"].shape == (24, 16, 8, 3)
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "images of noise/train on the device: 0.00 GiB, spread over 8"
        assert said[1].startswith("images of noise/train stay on the host: 0.00 GiB in all, more than a third of")

    def test_huge_images_stay_on_the_host(self, parallel, records, monkeypatch):
        monkeypatch.setattr(augment, "LARGEST", 16 * 8 - 1)
        assert on_device.OnDevice("on").open(parallel, records, PLAIN, training=True) == on_device.DeviceTable()


def test_the_host_reads_no_pixel(parallel, records, monkeypatch):
    holder = on_device.OnDevice("on")
    table = holder.open(parallel, records, EVERYTHING, training=True)
    monkeypatch.setattr(images.DecodedImages, "read", None)
    plan = samplers.pk(records.identity, 2, 4, 1, 0)
    with pipeline.train_batches(records, plan, EVERYTHING, seed=SEED, threads=0, held=table.host) as batches:
        batch = next(batches)
    assert "images" not in batch
    assert set(batch["augment"]) == {"rgb", "nir", "tir", "nir_2"}


def test_parts_and_resumed_runs(parallel, records):
    """Position and shard mean what they mean on the host."""
    holder = on_device.OnDevice("on")
    plan = samplers.pk(records.identity, 2, 4, 2, 0)
    whole = trained(parallel, records, plan, EVERYTHING, holder)
    assert_same(whole[1:], trained(parallel, records, plan, EVERYTHING, holder, start_step=1, threads=2))
    table = holder.open(parallel, records, EVERYTHING, training=True)
    with pipeline.train_batches(
        records, plan, EVERYTHING, seed=SEED, threads=0, shard=(1, 2), held=table.host
    ) as batches:
        part = next(batches)
    np.testing.assert_array_equal(part["augment"]["nir_2"]["row"] // 3, part["index"])
    np.testing.assert_array_equal(part["index"], np.asarray(whole[0]["index"])[4:])
