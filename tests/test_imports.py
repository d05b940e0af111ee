"""The arrows of the house: who may import whom, and what the core may need."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "mmreid_jax"

# Room -> rooms that it may import beside itself. Everybody may import mmreid_jax.errors and mmreid_jax.paths.
ARROWS = {
    "models": set(),
    "losses": set(),
    "retrieval": set(),
    "data": set(),
    "training": {"convert"},
    "convert": set(),
    "visualize": set(),
    "methods": {"models", "losses", "training", "convert"},
    "captioning": {"data"},
}
CORE = ("models", "losses", "methods", "retrieval", "training", "convert")
# The optional extra `caption`: the one room that may use them, inside functions only.
FRAMEWORKS = {"torch", "tensorflow", "torchvision", "transformers"}
CAPTIONING = PACKAGE / "captioning"
LAZY = ("grain", "tensorflow_datasets", "ml_collections", "matplotlib", "PIL", "simplejpeg", "tensorboardX", "tqdm")


def imported(path):
    """Dotted names that a file imports, at module level or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(room):
    # A command of a room (python -m mmreid_jax.<room>) stands above all rooms.
    return [path for path in sorted((PACKAGE / room).rglob("*.py")) if path.name != "__main__.py"]


def test_every_room_has_a_rule():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ARROWS) | {"testing"}


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_only_what_lies_below_them(room):
    allowed = ARROWS[room] | {room, "errors", "paths"}
    for path in files(room):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "mmreid_jax" and len(parts) > 1 and not parts[1].startswith("__"):
                assert parts[1] in allowed, f"{path.relative_to(ROOT)} imports {name}"
            assert parts[0] not in ("main", "configs", "tests", "benchmarks"), path


def test_nothing_imports_a_framework_that_it_must_not():
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "tfds_builders").rglob("*.py"), *(ROOT / "configs").glob("*.py")]
    for path in [*paths, ROOT / "main.py"]:
        if not path.is_relative_to(CAPTIONING):
            assert not {name.split(".")[0] for name in imported(path)} & FRAMEWORKS, path


def test_captioning_imports_without_the_frameworks_of_its_models():
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(CAPTIONING.glob("*.py"))]
    code = f"import sys, importlib\nfor name in {sorted(FRAMEWORKS)!r}: sys.modules[name] = None\n"
    code += f"for name in {modules!r}: importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_core_imports_without_the_data_stack():
    """GPU machines often lack grain, TFDS or ml_collections."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for room in CORE for path in files(room)]
    code = (
        f"import sys\nfor name in {LAZY!r}: sys.modules[name] = None\n"
        f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_configs_are_free_of_jax():
    """So that --help and a wrong flag answer at once."""
    for path in (ROOT / "configs").glob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & {"jax", "flax", "mmreid_jax"}, path
