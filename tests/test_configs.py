"""Every experiment with all of its values, frozen: a default that moves shows as a difference in a text file.

``python -m tests.test_configs`` writes the files in ``tests/frozen_configs`` again; look at what changed in them.
"""

from __future__ import annotations

import importlib
import pathlib

import pytest

from tests.datasets.own import made

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
FROZEN = pathlib.Path(__file__).parent / "frozen_configs"


def experiments():
    """(name of the config file, variant or "") of every experiment."""
    found = []
    for path in sorted(CONFIGS.glob("*.py")):
        module = importlib.import_module(f"configs.{path.stem}")
        if hasattr(module, "get_config"):
            variants = getattr(module, "METHODS", None) or getattr(module, "STAGES", None) or [""]
            found += [(path.stem, variant) for variant in variants]
    return found


def resolved(name, variant):
    """A line for every value of an experiment."""
    from mmreid_jax.training.config import flatten

    get_config = importlib.import_module(f"configs.{name}").get_config
    config = get_config(variant) if variant else get_config()
    return "".join(f"{key} = {value!r}\n" for key, value in sorted(flatten(config).items()))


def place_of(name, variant):
    return FROZEN / f"{name}{'.' if variant else ''}{variant}.txt"


@pytest.mark.parametrize(("name", "variant"), experiments())
def test_no_value_has_moved(name, variant, monkeypatch):
    monkeypatch.delenv("MMREID_DATA", raising=False)
    # The default of the data directory is read when configs/common.py is imported.
    lines = [line for line in resolved(name, variant).splitlines() if not line.startswith("data.data_dir = ")]
    assert lines == [
        line for line in place_of(name, variant).read_text().splitlines() if not line.startswith("data.data_dir = ")
    ], "if this is meant: python -m tests.test_configs, and look at the difference"


def test_no_frozen_experiment_is_left_over():
    assert {path.name for path in FROZEN.glob("*.txt")} == {place_of(*each).name for each in experiments()}


def test_a_published_experiment_shows_its_values():
    """Whoever opens the file sees what is trained on what, and how."""
    for path in CONFIGS.glob("*.py"):
        text = path.read_text()
        if "Published" in text:
            sections = (
                ("config.mtt.",) if path.stem.endswith("_mtt") else ("config.data.", "config.model.", "config.optim.")
            )
            assert all(section in text for section in sections), path.name


OWN = {
    "rgb_only": {"modalities": ("rgb",)},
    "pairs": {"modalities": ("rgb", "tir")},
    "two": {"modalities": ("rgb", "nir"), "aligned": False},
}


@pytest.mark.parametrize(
    ("name", "variant", "method", "backbone"),
    [
        ("rgb_only", "", "agw", "resnet50"),
        ("rgb_only", ":vit", "htt", "vit_base"),
        ("pairs", "", "htt", "resnet50"),
        ("pairs", ":vit", "htt", "vit_base"),
        ("two", "", "agw", "resnet50"),
    ],
)
@pytest.mark.parametrize("weights", ["", "imagenet.pth"])
def test_own_data_decide_what_is_trained(name, variant, method, backbone, weights, tmp_path, monkeypatch):
    from mmreid_jax import validation
    from mmreid_jax.flags import from_arguments

    monkeypatch.chdir(CONFIGS.parent)
    for each, options in OWN.items():
        made.pretend(tmp_path, each, **options)
    line = [f"--config=configs/own.py{variant}", f"--config.data.dataset=own:{name}"]
    line += [f"--config.data.data_dir={tmp_path}", *([f"--config.init.backbone={weights}"] if weights else [])]
    config = validation.complete(from_arguments(line)[0])
    notes = validation.check(config, starts=not weights)
    small = {"resnet50": "resnet_mini", "vit_base": "vit_mini"}[backbone]
    assert (config.method, config.model.backbone) == (method, backbone if weights else small)
    assert any("ImageNet weights do better" in note for note in notes) == (not weights)
    assert config.train.identities_per_batch <= made.COUNTS["train"][1]
    if method == "agw":
        assert config.model.shared_from == (0 if name == "rgb_only" else 1)
    elif name == "rgb_only":
        assert config.loss.mmm_weight == config.loss.cim_weight == 0
    if not weights and small == "resnet_mini":
        assert config.init.backbone == "drawn/resnet_mini"


def test_the_only_data_set_of_ones_own_need_not_be_named(tmp_path, monkeypatch):
    from configs import own

    monkeypatch.setenv("MMREID_DATA", str(tmp_path))
    assert own.get_config().data.dataset == "own:mine"
    made.pretend(tmp_path, "two", **OWN["two"])
    config = own.get_config()
    assert (config.data.dataset, config.model.shared_from) == ("own:two", 1)
    with pytest.raises(ValueError, match=r"no own.py:cnn; choose one of resnet, vit"):
        own.get_config("cnn")


if __name__ == "__main__":
    FROZEN.mkdir(exist_ok=True)
    for each in experiments():
        place_of(*each).write_text(resolved(*each))
