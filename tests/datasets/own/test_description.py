"""What a data set of one's own is: its file, its name, its protocols, and as a data set like any other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.datasets.disk import NameLabels, Sample
from mmreid_jax.datasets.own import description as own
from mmreid_jax.errors import UserError
from mmreid_jax.paths import own_description, own_names
from mmreid_jax.retrieval import metrics
from tests.datasets.own import made


def test_the_file_says_all_of_it(tmp_path):
    written = made.description(modalities=("rgb", "tir"), aligned=False, cameras=("a", "b"))
    path = tmp_path / "own.json"
    path.write_bytes(written.to_json())
    assert own.Description.read(path) == written


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"modalities": 3}', b"\xff"])
def test_a_damaged_file_is_named(text, tmp_path):
    path = tmp_path / "own.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"own.json is damaged .*--force"):
        own.Description.read(path)


def test_other_modalities_than_there_are_are_damage(tmp_path):
    path = tmp_path / "own.json"
    path.write_bytes(dataclasses.replace(made.description(), modalities=("radar",)).to_json())
    with pytest.raises(UserError, match="damaged"):
        own.Description.read(path)


@pytest.mark.parametrize("name", ["", "own:", "My", "a b", "../x", "1st", "a/b", "a:b", "x.y"])
def test_names_that_no_folder_should_have(name):
    with pytest.raises(UserError, match="cannot name a data set"):
        own.check_name(name)


def test_it_is_found_by_its_name(tmp_path, monkeypatch):
    made.pretend(tmp_path, "shop", modalities=("rgb", "nir", "tir"))
    found = datasets.get("own:shop", tmp_path)
    assert (found.name, found.folders.name, list(found.views())) == ("shop", "own:shop", ["rgb", "nir", "tir"])
    assert found.known("train").samples == made.COUNTS["train"][0]
    found.check("shop")
    monkeypatch.setenv("MMREID_DATA", str(tmp_path))
    assert datasets.get("own:shop").protocols == found.protocols
    assert own_names(tmp_path) == ("own:shop",)
    with pytest.raises(UserError, match=r"own:other is not prepared in .*there are own:shop.*--name other"):
        datasets.get("own:other")
    with pytest.raises(UserError, match=r"own:shop: only its records are known here. Prepare it again"):
        found.folders.samples(tmp_path, "train")


def test_unaligned_spectra_are_single_images(tmp_path):
    made.pretend(tmp_path, "two", modalities=("rgb", "tir"), aligned=False)
    found = datasets.get("own:two", tmp_path)
    assert found.single
    assert [found.folders.modalities_of(split) for split in found.splits] == [("rgb", "tir"), ("tir",), ("rgb",)]


def test_protocols_exclude_by_camera_where_cameras_are_known():
    known, unknown = made.description().protocols, made.description(cameras=()).protocols
    assert [protocol.name for protocol in (*known, *unknown)] == ["own", "own_without_cameras"]
    assert "query's identity and camera are removed" in known[0].describe()
    assert "cameras are not known, so no gallery sample is removed" in unknown[0].describe()
    labels = metrics.Labels(np.array([1, 1, 2]), np.array([0, 1, 0]), np.zeros(3, int))
    everyone = np.arange(3)
    assert known[0].removes_pairs(labels, labels, np.array([0]), everyone).tolist() == [True, False, False]
    assert not unknown[0].removes_pairs(labels, labels, np.array([0]), everyone).any()


def test_spectra_that_are_not_aligned_are_scored_both_ways():
    both = made.description(modalities=("rgb", "nir"), aligned=False).protocols
    assert [(protocol.name, protocol.direction) for protocol in both] == [
        ("own_ir_to_vis", ("infrared", "visible")),
        ("own_vis_to_ir", ("visible", "infrared")),
    ]
    assert all(protocol.distance == own.DISTANCE for protocol in both)


def test_protocols_are_known_by_their_data_set(tmp_path):
    made.pretend(tmp_path, "shop")
    assert datasets.protocol("own", "own:shop", tmp_path).name == "own"
    assert datasets.protocol("plain", "own:shop", tmp_path).removes == "none"
    with pytest.raises(UserError, match="unknown protocol"):
        datasets.protocol("own", "rgbnt201")
    assert datasets.usual_distance("own:nowhere") == own.DISTANCE


def test_what_is_stated_of_the_samples_is_part_of_the_fingerprint():
    """Of the same files with other labels or splits another data set is made."""
    sample = Sample("a.jpg", NameLabels(1, 0, 0), {})
    stated = {
        own.described(made.description(), {"train": train, "query": query, "gallery": []}).folders.stated
        for train, query in (
            ([sample], []),
            ([], [sample]),
            ([dataclasses.replace(sample, labels=NameLabels(2, 0, 0))], []),
        )
    }
    assert len(stated) == 3


def test_where_it_lies(tmp_path):
    assert own.folder_of("own:shop", tmp_path) == tmp_path / "own" / "shop" / "1.0.0"
    assert own_description("own:shop", tmp_path).parent == own.folder_of("own:shop", tmp_path)
