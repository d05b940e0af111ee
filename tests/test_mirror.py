"""Tests mirror the package: who looks for the tests of a module finds them by its name, or here."""

from __future__ import annotations

import pathlib

import pytest

TESTS = pathlib.Path(__file__).parent
PACKAGE = TESTS.parent / "mmreid_jax"

SETTINGS = ("agw", "caj", "common", "ddag", "deen", "hetero_center", "htt", "ieee", "kinds", "mmgl", "tvi_lfm")
# Modules that are tested by the file of another name, because what they do is seen in that place alone.
ELSEWHERE = {
    "adapt": "system/test_runs",
    "evaluate": "system/test_runs",
    "captioning/captioner": "captioning/test_models",
    "captioning/colours": "captioning/test_captioning",
    "captioning/frameworks": "captioning/test_models",
    "captioning/pairs": "captioning/test_captioning",
    "captioning/pictures": "captioning/test_captioning",
    "captioning/progress": "captioning/test_captioning",
    "captioning/prompts": "captioning/test_models",
    "captioning/rephrasing": "captioning/test_models",
    "captioning/text_files": "captioning/test_captioning",
    "commands/captioning": "captioning/test_captioning",
    "commands/extract": "commands/test_search",
    "commands/options": "commands/test_search",
    "commands/prepare": "datasets/test_prepare",
    "commands/pretrain_trunk": "trunks/test_pretraining",
    "commands/synthesize": "drawn/test_writer",
    "convert/archive": "convert/test_torch_file",
    "convert/budget": "convert/test_hostile_files",
    "convert/ddag": "methods/test_ddag",
    "convert/deen": "methods/test_deen",
    "convert/fitting": "convert/test_foreign_files",
    "convert/folders": "convert/test_foreign_files",
    "convert/hetero_center": "methods/test_hetero_center",
    "convert/htt": "convert/test_layout",
    "convert/known": "convert/test_layout",
    "convert/mmgl": "methods/test_mmgl",
    "convert/pickles": "convert/test_torch_file",
    "convert/resnet": "convert/test_layout",
    "convert/safetensors_file": "convert/test_hostile_files",
    "convert/store": "commands/test_convert",
    "convert/tensors": "convert/test_torch_file",
    "data/listing": "datasets/test_folder",
    "data/records": "data/test_pipeline",
    "datasets/builder": "datasets/test_disk",
    "datasets/llcm": "datasets/test_single_builders",
    "datasets/market1501_mm": "datasets/test_disk",
    "datasets/msvr310": "datasets/test_disk",
    "datasets/regdb": "datasets/test_single_builders",
    "datasets/rgbn300": "datasets/test_disk",
    "datasets/rgbnt100": "datasets/test_disk",
    "datasets/rgbnt201": "datasets/test_disk",
    "datasets/sysu_mm01": "datasets/test_single_builders",
    "drawn/attributes": "drawn/test_person",
    "drawn/background": "drawn/test_person",
    "drawn/layouts": "datasets/test_drawing",
    "drawn/occlusion": "drawn/test_person",
    "drawn/raster": "drawn/test_person",
    "drawn/sensor": "drawn/test_person",
    "drawn/sheet": "drawn/test_writer",
    "drawn/streams": "drawn/test_person",
    "drawn/vehicle": "drawn/test_person",
    "drawn/words": "drawn/test_writer",
    "methods/visible_infrared": "methods/test_mmgl",
    "models/ieee": "parity/test_ieee_models",
    **{f"settings/{name}": "test_validation" for name in SETTINGS},
    "testing/tiny": "methods/test_every_method",
    "visualize/canvas": "visualize/test_attention",
    "visualize/images": "visualize/test_ranked_lists",
    "visualize/page": "visualize/test_report",
    "visualize/page_assets": "visualize/test_report",
    "visualize/style": "visualize/test_curves",
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
