"""Every command line of the README and the docs: its config is right, and it runs at tiny sizes, in order."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmreid_jax import datasets, validation
from mmreid_jax.flags import from_arguments, run_name
from mmreid_jax.testing import tiny
from tests.datasets.own import made

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAIN, COMMAND = "python main.py ", "python -m mmreid_jax "
# Weights that a reader brings along; the tiny networks begin from random numbers, and from one another.
BROUGHT = re.compile(r"--config\.init\.(backbone|clip|from_base)=\S+\.(pth|pt)\b")
# Lines that need what no test has, and where the same is tested instead.
ELSEWHERE = {
    "captioning": "PyTorch: tests/captioning",
    "convert": "files of the authors: tests/commands/test_convert.py, tests/convert",
    "my_package": "a data set of the reader's: tests/datasets/test_add_a_dataset.py",
    "features --resumable": "tests/commands/test_search.py",
    "--text": "tests/commands/test_search.py",
    "main.py --config ... ": "a line about one key",
    "checkpoint=DIR": "the model of the line before it, which convert has made",
    "--image ir.png": "tests/commands/test_search.py",
    "$t": "ten runs, of which the line before is one",
    "average": "many runs: tests/commands/test_average.py",
    "CONFIG": "a pattern of lines",
    "authors/": "files of the authors: tests/system/test_authors_numbers.py",
    "serve": "it does not end by itself: tests/serving",
    "pretrain_trunk": "hours: tests/trunks/test_pretraining.py",
}


def lines_of(page):
    """The command lines in the code blocks of a page, without comments and what installs, continued lines joined."""
    found = []
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"\s{2,}#.*|\s#\s.*", "", line)
            for command in line.split("&&"):
                command = " ".join(command.split()).removeprefix(".venv/bin/")
                if command.startswith((MAIN, COMMAND)):
                    found.append(command)
    return found


LINES = [(page.name, line) for page in PAGES for line in lines_of(page)]
OWN = [(page, line) for page, line in LINES if not any(mark in line for mark in ELSEWHERE)]


def headers():
    """(config file, command line) of the headers of config files."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        for line in re.findall(r"^    (python main\.py .*)$", path.read_text(), re.MULTILINE):
            yield path.name, re.split(r"\s{2,}", line)[0]


def config_of(line):
    arguments = [word for word in shlex.split(line)[2:] if word.startswith("--config")]
    words = shlex.split(line)
    if "--config" in words:
        position = words.index("--config")
        arguments = [f"--config={words[position + 1]}", *(word for word in arguments if word != "--config")]
    return from_arguments(arguments)


def test_there_are_lines():
    assert len(LINES) > 30
    assert all(any(mark in line for _, line in LINES) for mark in ELSEWHERE), "a mark that no line has"


# Data sets of the reader's in the pages, and in the header of configs/own.py.
READERS = {
    "shop": {"modalities": ("rgb",)},
    "lab": {"modalities": ("rgb", "tir")},
    "gate": {"modalities": ("rgb", "nir"), "aligned": False},
}


@pytest.fixture(scope="module")
def readers_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, options in READERS.items():
        made.pretend(folder, name, **options)
    return folder


@pytest.mark.parametrize(("page", "line"), [*(pair for pair in OWN if pair[1].startswith(MAIN)), *headers()])
def test_a_training_line_is_a_valid_config(page, line, monkeypatch, readers_data):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MMREID_DATA", str(readers_data))
    line = line.replace("own:NAME", "own:shop")
    config, name = config_of(line)
    # Weights and runs of a reader are not here.
    config = validation.complete(config)
    config.init.checkpoint = ""
    validation.check(config, starts=False)
    assert name == run_name(next(word for word in shlex.split(line) if word.startswith("configs/")))


def test_demos_have_directories_of_their_own():
    assert run_name("configs/demo_vi.py") == "demo_vi"
    assert run_name("configs/demo_vi.py:base") == "demo_vi_base"
    assert run_name("configs/demo_tvi_lfm.py:text") == "demo_tvi_lfm_text"
    assert run_name("configs/x.py:a/b:c") == "x_a_b_c"


def makes(line):
    """The workdir that a training line leaves a run in, or the folder of an exported model; empty for other lines."""
    if line.startswith(f"{COMMAND}export") and "safetensors" in line:
        words = shlex.split(line)
        return words[words.index("--out") + 1]
    if not line.startswith(MAIN) or "--eval_only" in line:
        return ""
    words = shlex.split(line)
    return words[words.index("--workdir") + 1] if "--workdir" in words else f"runs/{config_of(line)[1]}"


def needs(line):
    """The runs that a line begins from, by the line itself and by its config."""
    words = shlex.split(BROUGHT.sub("", line))
    begun = [word.rpartition("=")[2] for before, word in itertools.pairwise(words) if before != "--workdir"]
    if line.startswith(MAIN):
        init = validation.complete(config_of(BROUGHT.sub("", line))[0]).init
        begun += [init.checkpoint, init.from_mmgl, init.get("from_base", "")]
    return {word for word in begun if word.startswith("runs/")} - {makes(line)}


def in_order(lines):
    """Lines whose runs are there, by those before them: a reader who begins elsewhere goes back for them."""
    made, rest, ordered = set(), list(lines), []
    while rest:
        makers = {makes(line) for line in rest}
        ready = [line for line in rest if not needs(line) & makers]
        assert ready, f"each of these lines begins from the run of another one: {rest}"
        chosen, rest = ready[:1], [line for line in rest if line != ready[0]]
        lacking = {name for name in needs(chosen[0]) if "*" not in name} - made
        assert not lacking, f"{chosen[0]} begins from {', '.join(lacking)}, which no line makes"
        made.add(makes(chosen[0]))
        ordered += chosen
    return ordered


@pytest.mark.slow(short=True)
def test_every_run_that_a_line_begins_from_is_made_by_another_line():
    ordered = in_order(dict.fromkeys(line for _, line in OWN))
    assert sorted(ordered) == sorted({line for _, line in OWN})


def tiny_changes(line, data):
    """Overrides that make a training line small."""
    config, _ = config_of(line)
    changes = {key: value for key, value in tiny.TINY[config.method].items() if "." in key and key != "init.from_base"}
    changes |= {
        "data.drawn": True,
        "init.backbone": "",
        "data.data_dir": data,
        "data.drawn_identities": 6,
        "data.drawn_images": 12 if len(changes) else 6,
        "data.padding": 2,
        "data.threads": 1,
        "train.images_per_identity": 2,
        "train.identities_per_batch": 1 if config.method == "mmgl" else 4,
        "optim.epochs": 1,
        "eval.batch_size": 16,
        "eval.embedding_identities": 0,
        "eval.missing_modalities": False,
    }
    if "mtt" in config:
        changes |= {"mtt.optim.epochs": 1, "mtt.batch_size": 4}
    if config.method == "mmgl":
        changes |= {"train.images_per_identity": 8}
    if config.init.from_mmgl:
        changes["model.backbone"] = tiny.TINY["mmgl"]["model.backbone"]
    if config.data.dataset == "rgbnt100":
        changes["data.drawn_images"] = 12
    if config.data.dataset.startswith("own:"):
        changes = {key: value for key, value in changes.items() if not key.startswith("data.drawn")}
    return [f"--config.{key}={value}" for key, value in changes.items() if f"--config.{key}=" not in line]


def folder_of_images(place):
    for name in ("rgb", "nir", "tir"):
        (place / name).mkdir(parents=True)
        # Re-ranking looks at the 50 nearest.
        for number in range(30):
            pixels = np.random.default_rng(number).integers(0, 256, (32, 16, 3), np.uint8)
            Image.fromarray(pixels).save(place / name / f"{number // 2:06d}_cam{number % 2 + 1}_0_00.jpg")
    return place


def readers_files(place):
    """What docs/own_data.md says that a reader has."""
    shots = [(f"{p:04d}", c, s) for p, c, s in made.people(8, cameras=2, shots=2)]
    made.write(place / "people", [f"{p}/c{c}_{s:03d}.jpg" for p, c, s in shots])
    for kind in ("rgb", "thermal"):
        made.write(place / "pairs" / kind, [f"{p}/c{c}_{s:03d}.png" for p, c, s in shots])
        for folder in ("wanted_pairs", "album_pairs"):
            made.write(place / folder / kind, [f"{s}.jpg" for s in range(4)])
    for kind, camera in (("rgb", 1), ("infrared", 2)):
        made.write(place / "gate" / kind, [f"{p}/c{camera}_{s:03d}.jpg" for p, c, s in shots if c == 1])
    for folder in ("wanted", "album", "night", "day"):
        made.write(place / folder, [f"{folder}_{s}.jpg" for s in range(4)])
    made.write(place / "images", [f"{p}_{c}_{s}.jpg" for p, c, s in shots])
    rows = [f"images/{p}_{c}_{s}.jpg,person {p},{c}" for p, c, s in shots]
    (place / "people.csv").write_text("\n".join(["file,identity,camera", *rows]))
    for name in ("door", "hall"):
        made.write(place / name, [f"{frame:06d}.jpg" for frame in range(1, 25)], size=(80, 60))
    boxes = [(frame, person) for frame in range(1, 25) for person in (1, 2, 3, 4)]
    (place / "door.txt").write_text("\n".join(f"{frame},{person},5,5,20,40,1" for frame, person in boxes))
    pictures = [{"id": frame, "file_name": f"{frame:06d}.jpg"} for frame in range(1, 25)]
    annotations = [{"image_id": frame, "track_id": person, "bbox": [5, 5, 20, 40]} for frame, person in boxes]
    (place / "hall.json").write_text(json.dumps({"images": pictures, "annotations": annotations}))


def order_of(line):
    """What others read comes first, whatever page it stands on: data, then runs that others begin from."""
    makers = ("synthesize", "crops", "prepare")
    maker = next((i for i, name in enumerate(makers) if line.startswith(COMMAND + name)), len(makers))
    return maker, COMMAND in line, "init." in line


# Lines about data of the reader's own; no other line needs what they make, and they need nothing of the others.
READERS_LINE = re.compile(r"\b(shop|lab|gate|staff|video|crops|people|album|wanted)")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("own", [False, True], ids=["published data", "own data"])
def test_every_line_runs_in_order(own, tmp_path, monkeypatch):
    """One directory for all of a kind, as a reader has it: a later line finds what an earlier one made."""
    readers_files(tmp_path)
    # For the config of a line, which looks at the data that are there.
    monkeypatch.setenv("MMREID_DATA", str(tmp_path / "data"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    images = folder_of_images(tmp_path / "modalities")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MMREID_DATA": str(tmp_path / "data")}
    # Tiny networks take longer to compile well than to run.
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    drawn = tmp_path / "drawn"
    small = ["--identities", "4", "--images_per_identity", "4"]
    done = set()
    wanted = os.environ.get("MMREID_LINES", "")
    for line in in_order(sorted(dict.fromkeys(line for _, line in OWN), key=order_of)):
        if bool(READERS_LINE.search(line)) != own or (wanted and not re.search(wanted, line)):
            continue
        words = shlex.split(BROUGHT.sub("", line))[1:]
        if words[0] == "main.py":
            words[0] = str(ROOT / "main.py")
            # Without the weights that a reader brings, a config must not fall back on others that do not fit either.
            words += tiny_changes(BROUGHT.sub("", line), tmp_path / "data")
        else:
            name = words[2]
            words = [str(drawn) if word == "DIR" and name in ("prepare", "synthesize") else word for word in words]
            words = [str(images) if word == "DIR" else word for word in words]
            if name == "synthesize":
                words += small
            if name == "prepare" and "--dataset" in words:
                # A line of the filter may not have drawn what this one prepares.
                if not (drawn / datasets.get(words[words.index("--dataset") + 1]).folders.folder).exists():
                    continue
                words += ["--data_dir", str(tmp_path / "prepared")]
            if name == "statistics" and "own:shop" not in words:
                words += ["--data_dir", str(tmp_path / "prepared")]
            if name in ("complexity", "lr_range"):
                words += [*tiny_changes(line, tmp_path / "data")]
            # Images of noise are found by chance.
            words += ["--far", "0.9"] if name == "calibrate" else []
            words += ["--no_memory"] if name == "complexity" else ["--steps=10"] if name == "lr_range" else []
        ran = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{line}\n{' '.join(words)}\n{ran.stderr[-1500:]}"
        done.add(line)
    assert done
