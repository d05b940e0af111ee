"""Tests mirror the package: who looks for the tests of a module finds them by its name, or here."""

from __future__ import annotations

import pathlib

import pytest

TESTS = pathlib.Path(__file__).parent
PACKAGE = TESTS.parent / "mmreid_jax"

SETTINGS = (
    "agw",
    "caj",
    "common",
    "ddag",
    "deen",
    "demo_moe",
    "hetero_center",
    "htt",
    "ieee",
    "mdreid",
    "mmgl",
    "tvi_lfm",
)
# Modules that are tested by the file of another name, because what they do is seen in that place alone.
ELSEWHERE = {
    "adapt": "system/test_runs",
    "evaluate": "system/test_runs",
    "captioning/captioner": "captioning/test_models",
    "captioning/frameworks": "captioning/test_models",
    "commands/crops": "datasets/own/test_crops",
    "commands/extract": "commands/test_search",
    "commands/options": "commands/test_search",
    "commands/pretrain_trunk": "trunks/test_pretraining",
    "commands/serve": "serving/test_app",
    "convert/conversion": "commands/test_convert",
    "convert/deen": "methods/test_deen",
    "convert/demo_moe": "methods/test_demo_moe",
    "convert/shared": "commands/test_export",
    "convert/mdreid": "methods/test_mdreid",
    "convert/store": "commands/test_convert",
    "data/listing": "datasets/test_folder",
    "datasets/market1501_mm": "datasets/test_disk",
    "datasets/rgbn300": "datasets/test_disk",
    "drawn/background": "drawn/test_person",
    "drawn/drawings": "datasets/test_drawing",
    "drawn/occlusion": "drawn/test_person",
    "drawn/raster": "drawn/test_person",
    "drawn/sensor": "drawn/test_person",
    "methods/clip_trunk": "methods/test_demo_moe",
    "export/checking": "export/test_files",
    "export/folder": "commands/test_export",
    "models/ieee": "parity/test_ieee_models",
    **{f"settings/{name}": "test_validation" for name in SETTINGS},
    "testing/tiny": "methods/test_every_method",
    "training/loggers/tensorboard": "training/test_logs",
    "visualize/images": "visualize/test_ranked_lists",
    "visualize/page": "visualize/test_report",
    "visualize/page_assets": "visualize/test_report",
}
NAMED = {"__main__": "test_main"}


def modules():
    found = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return sorted(path.as_posix() for path in found)


def usual(module):
    """The file that tests a module, by its name."""
    folder, _, name = module.rpartition("/")
    return "/".join(part for part in (folder, NAMED.get(name, f"test_{name}")) if part)


@pytest.mark.parametrize("module", modules())
def test_every_module_is_tested_where_one_looks_for_it(module):
    place = ELSEWHERE.get(module, usual(module))
    assert (TESTS / f"{place}.py").is_file(), f"tests/{place}.py should test mmreid_jax/{module}.py"


def test_the_list_of_exceptions_is_true():
    assert set(ELSEWHERE) <= set(modules()), "modules that are gone"
    assert not [module for module in ELSEWHERE if (TESTS / f"{usual(module)}.py").is_file()], "no exceptions any more"
