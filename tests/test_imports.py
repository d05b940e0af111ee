"""The arrows of the house: who may import whom, and what the core may need."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "mmreid_jax"

# Every room, and every file beside the rooms, from the bottom of the house to its top -> what it may import beside
# itself. All of it stands above: an arrow that is not downward is a mistake in this table.
EVERYBODY = {"errors", "paths"}
ARROWS = {
    "interruption": set(),
    "errors": {"interruption"},
    "paths": {"errors"},
    "owned": set(),
    "locks": set(),
    "visualize": {"owned"},
    "convert": {"owned"},
    "retrieval": {"convert", "owned"},
    "data": {"locks"},
    "losses": set(),
    "models": set(),
    "settings": set(),
    "training": {"convert"},
    "methods": {"models", "losses", "training", "convert"},
    "testing": {"methods"},
    "drawn": {"data", "owned"},
    "trunks": {"convert", "data", "drawn", "losses", "models", "owned", "retrieval", "training"},
    "datasets": {"data", "drawn", "locks", "owned", "retrieval"},
    "captioning": {"data", "datasets"},
    "validation": {"convert", "datasets", "methods", "settings", "training"},
    "flags": {"training"},
    "on_device": {"data", "training"},
    "experiment": {"data", "datasets", "methods", "on_device", "training", "validation"},
    "embedder": {"data", "experiment", "methods", "training"},
    "scoring": {"data", "datasets", "embedder", "experiment", "methods", "retrieval", "training", "visualize"},
    "reports": {"data", "embedder", "experiment", "methods", "scoring", "training", "visualize"},
    "evaluate": {"embedder", "experiment", "locks", "methods", "reports", "scoring", "training", "visualize"},
    "train": {"data", "evaluate", "experiment", "interruption", "methods", "training", "validation"},
    "adapt": {
        *("data", "embedder", "evaluate", "experiment", "methods", "retrieval", "scoring", "train", "training"),
    },
    "model": {
        *("data", "datasets", "embedder", "experiment", "methods", "retrieval", "scoring", "training", "validation"),
        "visualize",
    },
    "export": {"convert", "data", "experiment", "methods", "model", "owned"},
    "serving": {"data", "model", "retrieval", "visualize"},
    "api": {
        *("adapt", "convert", "datasets", "flags", "methods", "model", "retrieval", "train"),
    },
    "commands": {
        *("captioning", "convert", "data", "datasets", "drawn", "experiment", "export", "flags", "methods", "model"),
        "serving",
        *("owned", "retrieval", "scoring", "train", "training", "trunks", "visualize"),
    },
    "__main__": set(),
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
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def name_of(path):
    """Dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def arrows():
    """Module -> modules of the package that it imports; ``from room import module`` is an arrow to the module alone.

    The package itself imports none: its names are looked up when they are asked for (`tests/test_api.py`).
    """
    modules = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    del modules[PACKAGE.name]
    graph = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {other if other in modules else node.module for other in inner}
    return {name: others & set(modules) for name, others in graph.items()}


def test_every_room_has_a_rule():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    beside = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert rooms | beside == set(ARROWS)


def test_the_rules_point_downwards():
    below = set()
    for room, allowed in ARROWS.items():
        assert allowed <= below, f"{room} may import {allowed - below}, which stand above it"
        below.add(room)


@pytest.mark.parametrize("room", ARROWS)
def test_rooms_import_only_what_lies_below_them(room):
    allowed = ARROWS[room] | {room} | (EVERYBODY if room not in ("errors", "interruption", "paths") else set())
    for path in files(room):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "mmreid_jax" and len(parts) > 1 and not parts[1].startswith("__"):
                assert parts[1] in allowed, f"{path.relative_to(ROOT)} imports {name}"
            outside = ("main", "configs", "tests", "benchmarks", "tfds_builders")
            assert parts[0] not in outside, f"{path.relative_to(ROOT)} imports {name}"


def test_no_rule_is_idle():
    """A right that nobody uses would let an arrow in without a word."""
    for room, allowed in ARROWS.items():
        used = {name.split(".")[1] for path in files(room) for name in imported(path) if name.startswith("mmreid_jax.")}
        assert allowed <= used, f"{room} does not import {allowed - used}"


def test_no_module_imports_one_that_imports_it():
    graph, done = arrows(), set()

    def walk(name, above):
        assert name not in above, f"a circle: {' -> '.join([*above[above.index(name) :], name])}"
        if name not in done:
            for other in sorted(graph[name]):
                walk(other, [*above, name])
            done.add(name)

    for name in graph:
        walk(name, [])


def test_nothing_imports_a_framework_that_it_must_not():
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "tfds_builders").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
    for path in [*paths, ROOT / "main.py"]:
        if not path.is_relative_to(CAPTIONING):
            assert not {name.split(".")[0] for name in imported(path)} & FRAMEWORKS, path


def test_captioning_imports_without_the_frameworks_of_its_models():
    modules = [name_of(path) for path in sorted(CAPTIONING.glob("*.py"))]
    code = f"import sys, importlib\nfor name in {sorted(FRAMEWORKS)!r}: sys.modules[name] = None\n"
    code += f"for name in {modules!r}: importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_core_imports_without_the_data_stack():
    """GPU machines often lack grain, TFDS or ml_collections."""
    modules = [name_of(path) for room in CORE for path in files(room)]
    code = (
        f"import sys\nfor name in {LAZY!r}: sys.modules[name] = None\n"
        f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_package_and_its_list_of_commands_import_next_to_nothing():
    code = "import sys, mmreid_jax.__main__ as door\nassert door.commands()\n"
    code += "assert not {'jax', 'numpy', 'tensorflow_datasets'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_configs_are_free_of_jax():
    """So that --help and a wrong flag answer at once; what `main.py` has loaded before them they may use."""
    light = {"mmreid_jax.flags", "mmreid_jax.paths"}
    for path in (ROOT / "configs").rglob("*.py"):
        names = {".".join(name.split(".")[:2]) for name in imported(path)} - light
        assert not {name.split(".")[0] for name in names} & {"jax", "flax", "mmreid_jax"}, path
    loaded = "import sys, configs.own\nassert not {'jax', 'flax', 'tensorflow_datasets'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
