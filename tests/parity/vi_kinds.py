"""Which golden file of visible-infrared ReID holds what, by its content."""

from __future__ import annotations

from mmreid_jax.testing import goldens


def kind_of(golden: goldens.Case) -> str:
    """``metrics``, ``gallery``, ``sampler``, ``log``, ``transforms``, ``augment``, or ``other``."""
    facts = golden.json
    cases = facts.get("cases")
    if isinstance(cases, list) and all("metric" in case for case in cases):
        return "metrics"
    if isinstance(cases, dict) and any(key.endswith("/mINP") for key in golden.arrays):
        return "metrics"
    if "files_per_folder" in facts or any("files" in facts.get(name, {}) for name in ("sysu", "llcm")):
        return "gallery"
    if "groups_per_epoch" in facts:
        return "log"
    if "color_label" in golden.arrays or (
        isinstance(cases, list) and all("images_per_identity" in case for case in cases)
    ):
        return "sampler"
    if "resize_cases" in facts or "resized_sum" in golden.arrays:
        return "transforms"
    if any(key.startswith("exchange/") for key in golden.arrays):
        return "augment"
    return "other"


def of_kind(suite: str, kind: str) -> list[goldens.Case]:
    """The cases of a suite that hold `kind`."""
    return [golden for golden in map(goldens.load, goldens.cases(suite)) if kind_of(golden) == kind]
