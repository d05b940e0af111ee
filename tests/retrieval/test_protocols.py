"""Protocols by data set and by name, and what their labels tell."""

from __future__ import annotations

import pytest

from mmreid_jax import datasets
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import protocols


def test_every_combination_of_missing_modalities():
    cases = protocols.missing_modality_cases(("rgb", "nir", "tir"))
    assert [name for name, _ in cases] == ["M(RGB)", "M(NIR)", "M(TIR)", "M(RGB+NIR)", "M(RGB+TIR)", "M(NIR+TIR)"]
    assert protocols.missing_modality_cases(("rgb", "nir")) == [("M(RGB)", ("rgb",)), ("M(NIR)", ("nir",))]


def test_protocols_by_data_set_and_name():
    names = {
        dataset: [protocol.name for protocol in datasets.get(dataset).protocols]
        for dataset in ("rgbnt201", "regdb", "regdb/trial_3", "llcm", "sysu_mm01")
    }
    assert names["rgbnt201"] == ["rgbnt"]
    assert names["regdb"] == names["regdb/trial_3"] == ["regdb_visible_to_thermal", "regdb_thermal_to_visible"]
    assert names["llcm"] == ["llcm_ir_to_vis", "llcm_vis_to_ir", "llcm_vis_to_ir_repo"]
    draws = [f"sysu_{search}_{shots}" for search in ("all", "indoor") for shots in ("single", "multi")]
    assert names["sysu_mm01"] == [*draws, *(f"{name}_official" for name in draws)]
    assert all(datasets.get(dataset).protocols[0].name == own[0] for dataset, own in names.items())
    assert all(name == protocol.name for name, protocol in datasets.protocols().items())
    assert datasets.get("msvr310").protocols[0].removes == "same_identity_same_scene"
    assert datasets.get("rgbnt201").protocols[0].removes == "same_identity_same_camera"
    with pytest.raises(UserError, match="rgbnt"):
        datasets.protocol("nothing")


def test_label_tells_what_is_unusual():
    protocol = datasets.protocol("msvr310")
    assert protocol.label == "msvr310 v1"
    assert datasets.protocol("sysu_all_single").label == "sysu_all_single v1"
    changed = protocol.compared_by("cosine", normalise=False)
    assert changed.compared_by("squared_euclidean", normalise=True).label == "msvr310 v1"
    assert changed.label == "msvr310 v1, cosine distance, features not normalised"
