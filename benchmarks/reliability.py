"""Kills runs at random moments and looks at what is left: ``python -m benchmarks.reliability --minutes 60``.

A trial starts a small command in a process of its own, ends it at a random moment, starts the same command again and
compares what it leaves with what an undisturbed one left. Trials are kept in ``trials.jsonl``; the same command goes
on with them; ``--table`` prints what came out so far. Kinds of trials:

* ``kill``: training, SIGKILL between the first second and the end; the final state is equal to the bit, every line of
  the log is there once and complete.
* ``term``: the same with SIGTERM, which training obeys after its step.
* ``save``: SIGKILL within a second after a checkpoint begins to be written.
* ``size``: training under a limit on the size of files, as on a full disk; one line says so, and it goes on without.
* ``prepare``: SIGKILL while a data set is drawn and prepared; the tables are the same afterwards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("kill", "term", "save", "size", "prepare")
TINY = {
    "task": "train",
    "data.drawn_identities": 6,
    "data.drawn_images": 6,
    "data.image_size": "(32, 16)",
    "data.padding": 2,
    "data.threads": 1,
    "model.backbone": "vit_micro",
    "init.backbone": "",
    "train.identities_per_batch": 4,
    "train.images_per_identity": 2,
    "train.eval_every": 2,
    "train.log_every": 1,
    "optim.epochs": 6,
    "eval.batch_size": 16,
    "eval.report": False,
    "eval.missing_modalities": False,
}
PATIENCE = 900  # seconds for one command


def command(data: Path, workdir: Path) -> list[str]:
    """The training that is ended and started again."""
    changes = [f"--config.{key}={value}" for key, value in {**TINY, "data.data_dir": data}.items()]
    return [sys.executable, "main.py", "--config", "configs/demo.py", "--workdir", str(workdir), *changes]


def preparation(data: Path) -> list[str]:
    """Drawing and preparing of a data set."""
    code = (
        "from configs import demo; from mmreid_jax import experiment; from absl import flags; "
        "flags.FLAGS.mark_as_parsed(); data = demo.get_config().data; "
        f"data.update(data_dir={str(data)!r}, drawn_identities=6, drawn_images=6); experiment.load_splits(data)"
    )
    return [sys.executable, "-c", code]


def start(arguments: list[str], limit: int = 0) -> subprocess.Popen[str]:
    """Starts a command; `limit`: on the KiB of a file that it writes."""

    if limit:
        # The shell ignores the signal for the process, whose writes then fail as on a full disk.
        arguments = ["bash", "-c", f"trap '' XFSZ; ulimit -f {limit}; exec \"$@\"", "bash", *arguments]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def state(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint of a finished run: parameters, statistics, optimiser, memory."""
    import jax
    import orbax.checkpoint as ocp

    folders = {int(path.name): path for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()}
    saved = ocp.PyTreeCheckpointer().restore(folders[max(folders)] / "state")
    leaves = jax.tree_util.tree_leaves_with_path(saved)
    found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return {"folder": np.array(max(folders)), **found}


def complaints(workdir: Path, expected: dict[str, np.ndarray], entries: list[Any]) -> list[str]:
    """What differs from an undisturbed run; empty where nothing does."""
    found = state(workdir)
    wrong = [name for name in expected if name not in found or not np.array_equal(found[name], expected[name])]
    lines = log_of(workdir)
    return [*(f"array {name}" for name in wrong[:3]), *(["log"] if lines != entries else [])]


def log_of(workdir: Path) -> list[Any]:
    """The steps and scores of a log, without what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def ended(process: subprocess.Popen[str], after: float, number: int) -> bool:
    """Sends a signal after so many seconds; False where the process has ended before."""
    try:
        process.wait(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        return True
    return False


def until_saving(process: subprocess.Popen[str], workdir: Path, draw: random.Random) -> bool:
    """Kills within a second after a checkpoint's folder appears under its temporary name."""
    wanted = draw.randint(1, 3)
    seen: set[str] = set()
    while process.poll() is None:
        seen |= {path.name for path in (workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")}
        if len(seen) >= wanted:
            time.sleep(draw.random() * 0.3)
            process.kill()
            process.communicate()
            return True
        time.sleep(0.002)
    return False


def finish(arguments: list[str], trial: dict[str, Any]) -> str:
    """Starts a command again until it ends by itself; returns what it printed at last."""
    process = start(arguments)
    output, _ = process.communicate(timeout=PATIENCE)
    trial["again"] = process.returncode
    return output


def one(kind: str, folder: Path, data: Path, reference: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """One trial; a dict with ``fine`` and, where it is not, ``why``."""
    trial: dict[str, Any] = {"kind": kind}
    unclear: list[str] = []
    workdir = folder / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if kind == "prepare":
        place = folder / "data"
        trial["ended"] = ended(start(preparation(place)), draw.uniform(1, reference["prepare"]), signal.SIGKILL)
        output = finish(preparation(place), trial)
        why = [] if tables(place) == tables(data) else ["tables differ"]
    else:
        line = command(data, workdir)
        if kind == "save":
            trial["ended"] = until_saving(start(line), workdir, draw)
        elif kind == "size":
            process = start(line, limit=draw.randint(1, 60))
            output, _ = process.communicate(timeout=PATIENCE)
            trial["ended"] = process.returncode != 0
            said = [text for text in output.splitlines() if text.startswith("error: ")]
            trial["said"] = said[-1][:200] if said else ""
            if trial["ended"] and not (said and "Traceback" not in output):
                unclear = [f"no clear line: {output[-2000:]}"]
        else:
            number = signal.SIGKILL if kind == "kill" else signal.SIGTERM
            trial["ended"] = ended(start(line), draw.uniform(1, reference["seconds"]), number)
        output = finish(line, trial)
        why = complaints(workdir, reference["state"], reference["log"]) if trial["again"] == 0 else []
        why += unclear
    if trial["again"]:
        why.append(f"the second start failed: {output.strip().splitlines()[-1][:200]}")
    return {**trial, "fine": not why, "why": why}


def tables(data: Path) -> list[str]:
    """What is prepared below a data directory: names of the files, and labels and images of every split."""
    from mmreid_jax.datasets import catalogue

    (prepared,) = data.glob("drawn/*/prepared")
    found = sorted(path.relative_to(data).as_posix() for path in prepared.rglob("*") if path.is_file())
    # The files themselves differ: the writer of the records fills gaps with whatever there is.
    for split in ("train", "query", "gallery"):
        records = catalogue.load("rgbnt201", split, prepared)
        images = [hashlib.sha256(b"".join(row.values())).hexdigest() for row in records.encoded(range(len(records)))]
        columns = (records.file, records.identity, records.camera, records.scene)
        found.append(f"{split} {images} {[column.tolist() for column in columns]}")
    return found


def undisturbed(home: Path) -> dict[str, Any]:
    """What the same commands leave and take when nobody ends them."""
    data = home / "data"
    begun = time.monotonic()
    finish(preparation(data), {})
    prepared = time.monotonic() - begun
    # Programs are compiled once and kept, so the second run takes as long as those that are ended.
    while not (home / "reference" / "done").exists():
        again = (home / "compiled").exists()
        shutil.rmtree(home / "reference", ignore_errors=True)
        trial: dict[str, Any] = {}
        begun = time.monotonic()
        output = finish(command(data, home / "reference"), trial)
        if trial["again"]:
            raise SystemExit(f"the undisturbed run failed:\n{output[-2000:]}")
        if again:
            (home / "reference" / "done").write_text(str(time.monotonic() - begun))
        (home / "compiled").touch()
    seconds = float((home / "reference" / "done").read_text())
    return {
        "prepare": max(prepared, 3.0),
        "seconds": seconds,
        "state": state(home / "reference"),
        "log": log_of(home / "reference"),
    }


def table(trials: list[dict[str, Any]]) -> str:
    """What came out, a line for each kind."""
    lines = ["| kind | trials | ended early | as undisturbed |", "|---|---|---|---|"]
    for kind, number in Counter(trial["kind"] for trial in trials).items():
        early, fine = (sum(bool(t.get(key)) for t in trials if t["kind"] == kind) for key in ("ended", "fine"))
        lines.append(f"| {kind} | {number} | {early} | {fine} |")
    lines += [f"- {trial['kind']}: {'; '.join(trial['why'])[:200]}" for trial in trials if not trial["fine"]]
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("runs/reliability"), help="folder of the trials")
    parser.add_argument("--minutes", type=float, default=60.0, help="no trial begins after so many")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of trials, in turn (default %(default)s)")
    parser.add_argument("--table", action="store_true", help="only print what came out so far")
    arguments = parser.parse_args()
    home = arguments.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    file = home / "trials.jsonl"
    trials = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if not arguments.table:
        end = time.monotonic() + 60 * arguments.minutes
        reference = undisturbed(home)
        kinds = arguments.kinds.split(",")
        while time.monotonic() < end:
            number = len(trials)
            trial = one(kinds[number % len(kinds)], home / "trial", home / "data", reference, random.Random(number))
            trials.append({"number": number, **trial})
            with file.open("a") as lines:
                lines.write(json.dumps(trials[-1]) + "\n")
            print(trials[-1], flush=True)
    print(table(trials))


if __name__ == "__main__":
    main()
