"""Every experiment with all of its values, frozen: a default that moves shows as a difference in a text file.

``python -m tests.test_configs`` writes the files in ``tests/frozen_configs`` again; look at what changed in them.
"""

from __future__ import annotations

import importlib
import pathlib

import pytest

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


if __name__ == "__main__":
    FROZEN.mkdir(exist_ok=True)
    for each in experiments():
        place_of(*each).write_text(resolved(*each))
