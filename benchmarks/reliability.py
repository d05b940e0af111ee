"""Ends commands at random moments, or their disk, and looks at what is left: ``python -m benchmarks.reliability``.

A trial starts a small command, ends it at a random moment or lets it run into a full disk, starts the same command
again and compares what it leaves with what an undisturbed one left. Trials are kept in ``trials.jsonl``; the same
command goes on with them; ``--table`` prints what came out so far. Kinds of trials:

* ``kill``: training, SIGKILL at any moment; the final state is equal to the bit, every line of the log is there once
  and complete, and no unfinished file is left.
* ``term``: the same with SIGTERM, which training obeys after its step.
* ``save``: SIGKILL within 0.3 s after a checkpoint begins to be written.
* ``size``: training under a limit on the size of files; one line says so, and it goes on without the limit.
* ``disk``: training on a disk that is too small; one line says so, and it goes on when the disk has grown.
* ``report``: evaluation and report of a finished run on a disk that is too small, or killed meanwhile.
* ``extract``: SIGKILL while the features of a folder of images are computed and written; the same features afterwards.
* ``prepare``: SIGKILL while a data set is drawn and prepared; the tables are the same afterwards.

A command runs in a process of its own, forked from one that has imported the libraries and done nothing else: no
device is open there, no file, no thread of this program. And in place of HTT's network it trains one layer
(`one_layer`), for tracing a network takes seconds, and none of what is tried here depends on it. ``--network htt``
leaves HTT its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import resource
import runpy
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "task": "train",
    "data.drawn_identities": 4,
    "data.drawn_images": 4,
    "data.image_size": "(32, 16)",
    "data.padding": 2,
    "data.threads": 1,
    "model.backbone": "vit_micro",
    "init.backbone": "",
    "train.identities_per_batch": 2,
    "train.images_per_identity": 2,
    "train.evaluate_first": False,
    "train.eval_every": 2,
    "train.checkpoint_every": 1,
    "train.log_every": 1,
    "optim.epochs": 4,
    "eval.batch_size": 8,
    "eval.report": False,
    "eval.missing_modalities": False,
    "eval.embedding_identities": 0,
}
REPORTED = {**TINY, "eval.report": True}
PATIENCE = 600  # seconds for one command
UNFINISHED = (".tmp", ".part", "orbax-checkpoint-tmp", ".incomplete", ".damaged")
"""In names of files that a finished command leaves nowhere."""


class Warmed:
    """Starts commands by forking a process that has imported what they import."""

    def __init__(self, network: str) -> None:
        """Starts that process; it ends with this one."""
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reliability", "--serve", "--network", network],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(self, arguments: list[str], limit: int = 0) -> Running:
        """Starts ``python ARGUMENTS``; `limit`: on the bytes of a file that it writes, 0 for none."""
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps({"arguments": arguments, "limit": limit}).encode() + b"\n")
        self._server.stdin.flush()
        return Running(json.loads(self._server.stdout.readline())["process"], self._server.stdout)


class Running:
    """A command that was started."""

    def __init__(self, process: int, answers: Any) -> None:
        """Of a process whose end is told in a line of JSON."""
        self.process, self._answers = process, answers
        self.returned: int | None = None
        self.output = ""

    def wait(self, seconds: float = PATIENCE) -> bool:
        """Waits for the end, so long; whether it came."""
        if self.returned is None and select.select([self._answers], [], [], seconds)[0]:
            end = json.loads(self._answers.readline())
            self.returned, self.output = end["returned"], end["output"]
        return self.returned is not None

    def end(self, number: int) -> bool:
        """Sends a signal and waits for the end; False where the command had ended before."""
        if self.wait(0):
            return False
        os.kill(self.process, number)
        if not self.wait():
            os.kill(self.process, signal.SIGKILL)
            self.wait()
            self.output += f"\ndid not end within {PATIENCE} s of signal {number}"
        return True


def one_layer(config: Any, facts: Any) -> Any:
    """A method of one layer on means of pixels, with all that a training state has: see `mmreid_jax.methods`."""
    import jax
    import jax.numpy as jnp

    from mmreid_jax.methods import modality_sets
    from mmreid_jax.training import optimizers

    class OneLayer:
        """Stripes of the images, a layer, its running mean, a classifier, and a count that the loss remembers."""

        def __init__(self) -> None:
            self.facts = facts

        def init(self, key: Any) -> Any:
            shapes = {"layer": (24 * len(facts.modalities), 16), "classifier": (16, facts.identities)}
            drawn = jax.random.split(key, len(shapes))
            params = {
                name: 0.1 * jax.random.normal(each, shape)
                for each, (name, shape) in zip(drawn, shapes.items(), strict=True)
            }
            return {"params": params, "batch_stats": {"mean": jnp.zeros(16)}}

        def start(self, variables: Any) -> Any:
            return variables

        def start_memory(self, epoch_ends: np.ndarray) -> Any:
            del epoch_ends
            return {"steps": jnp.zeros((), jnp.int32)}

        def _layer(self, variables: Any, batch: Any) -> Any:
            images = jnp.concatenate([batch["images"][name] for name in facts.modalities], axis=-1)
            stripes = images.reshape(len(images), 8, -1, images.shape[-1]).mean(axis=2)
            return stripes.reshape(len(images), -1) @ variables["params"]["layer"]

        def loss(self, variables: Any, batch: Any, key: Any, step: Any, memory: Any) -> Any:
            del step
            rows = self._layer(variables, batch)
            rows = rows * jax.random.bernoulli(key, 0.9, rows.shape)
            scores = jax.nn.log_softmax(rows @ variables["params"]["classifier"])
            total = -jnp.take_along_axis(scores, batch["identity"][:, None], axis=1).mean()
            mean = 0.9 * variables["batch_stats"]["mean"] + 0.1 * rows.mean(axis=0)
            return total, ({"ce": total}, {"mean": mean}, {"steps": memory["steps"] + 1})

        def embed(self, variables: Any, batch: Any) -> Any:
            return {config.eval.feature: self._layer(variables, batch) - variables["batch_stats"]["mean"]}

        def optimizer(self, params: Any, epoch_ends: np.ndarray) -> Any:
            return optimizers.build(config.optim, params, epoch_ends)

        def comparisons(self) -> Any:
            return [modality_sets.usual(self, facts.modalities, config.eval)]

        def between(self, query: Any, gallery: Any) -> Any:
            return modality_sets.compare(query, gallery, facts.modalities, whole=config.eval.feature)

    return OneLayer()


def serve(network: str) -> None:
    """What the warmed process does: for every line of JSON one fork, two lines of JSON in answer."""
    import grain
    import matplotlib.figure
    import orbax.checkpoint
    import tensorboardX

    import mmreid_jax.adapt
    import mmreid_jax.commands.extract
    import mmreid_jax.reports.retrieval  # noqa: F401
    from mmreid_jax.datasets import prepare  # noqa: F401
    from mmreid_jax.methods import base

    del grain, matplotlib, orbax, tensorboardX
    if network == "one_layer":
        base.build = one_layer
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        process = os.fork()
        if not process:
            answers.close()
            os.close(reading)
            _become(request["arguments"], request["limit"], writing)
        os.close(writing)
        print(json.dumps({"process": process}), file=answers, flush=True)
        with os.fdopen(reading, "rb") as pipe:
            output = pipe.read().decode(errors="replace")
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps({"returned": status, "output": output}), file=answers, flush=True)


def _become(arguments: list[str], limit: int, output: int) -> None:
    """Turns this process into ``python ARGUMENTS``, which ends as any Python does."""
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Those of the warmed process have seen what its own streams can.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if arguments[0] == "-c":
        sys.argv = ["-c"]
        exec(arguments[1], {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    sys.exit()


def training(data: Path, workdir: Path, settings: dict[str, Any]) -> list[str]:
    """The training that is ended and started again."""
    changes = [f"--config.{key}={value}" for key, value in {**settings, "data.data_dir": data}.items()]
    return ["main.py", "--config", "configs/demo.py", "--workdir", str(workdir), *changes]


def evaluation(data: Path, workdir: Path, checkpoint: Path) -> list[str]:
    """Evaluation and report of a finished run."""
    return [*training(data, workdir, REPORTED), "--eval_only", f"--config.init.checkpoint={checkpoint}"]


def extraction(images: Path, checkpoint: Path, out: Path) -> list[str]:
    """Features of a folder of images, written as they come."""
    flags = ["--checkpoint", checkpoint, "--images", images, "--out", out]
    return ["-m", "mmreid_jax", "extract", *map(str, flags)]


def preparation(data: Path) -> list[str]:
    """Drawing and preparing of a data set."""
    code = (
        "from configs import demo; from mmreid_jax import experiment; from absl import flags; "
        "flags.FLAGS.mark_as_parsed(); data = demo.get_config().data; "
        f"data.update(data_dir={str(data)!r}, drawn_identities=4, drawn_images=4); experiment.load_splits(data)"
    )
    return ["-c", code]


def state(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint of a finished run: parameters, statistics, optimiser, memory."""
    import jax
    import orbax.checkpoint as ocp

    folders = {int(path.name): path for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()}
    saved = ocp.PyTreeCheckpointer().restore(folders[max(folders)] / "state")
    leaves = jax.tree_util.tree_leaves_with_path(saved)
    found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return {"folder": np.array(max(folders)), **found}


def log_of(workdir: Path) -> list[Any]:
    """The steps and scores of a log, without what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_second"} for line in lines]


def scores_of(workdir: Path) -> list[Any]:
    """The last line of the scores that a run keeps, without what depends on the clock and the place."""
    lines = [json.loads(line) for line in (workdir / "scores.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("time", "checkpoint")} for line in lines[-1:]]


def report_of(workdir: Path) -> list[str]:
    """The names of a report's files; a page that is cut is no page."""
    pages = [path for path in workdir.rglob("*.html") if path.read_text().rstrip().endswith("</html>")]
    pictures = [path for path in workdir.rglob("*.png") if path.read_bytes().endswith(b"IEND\xaeB`\x82")]
    return sorted(path.relative_to(workdir).as_posix() for path in (*pages, *pictures))


def features_of(folder: Path) -> list[str]:
    """What a folder of features says, as digests."""
    from mmreid_jax.retrieval import feature_files

    loaded = feature_files.load(folder)
    return [hashlib.sha256(np.ascontiguousarray(loaded.features).tobytes()).hexdigest(), *map(str, loaded.files)]


def unfinished(folder: Path) -> list[str]:
    """Files and folders that a command left half-written."""
    return [path.name for path in folder.rglob("*") if any(part in path.name for part in UNFINISHED)]


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


class Trials:
    """Trials of every kind; each method is one: it returns whether the command ended early, and what is wrong."""

    def __init__(self, home: Path, network: str) -> None:
        """Makes what undisturbed commands leave, where it is not there yet, and measures how long they take."""
        self.home, self.data = home, home / "data"
        self.reference = home / "reference"
        self.commands = Warmed(network)
        file = home / "seconds.json"
        if not file.exists():
            times = {"prepare": self._timed(preparation(self.data))}
            # Programs are compiled once and kept, so the second run takes as long as those that are ended.
            for _ in range(2):
                shutil.rmtree(self.reference, ignore_errors=True)
                times["train"] = self._timed(training(self.data, self.reference, TINY))
            for _ in range(2):
                shutil.rmtree(home / "evaluated", ignore_errors=True)
                shutil.rmtree(home / "features", ignore_errors=True)
                times["evaluate"] = self._timed(evaluation(self.data, home / "evaluated", self.reference))
                times["extract"] = self._timed(extraction(self._images(), self.reference, home / "features"))
            file.write_text(json.dumps(times))
        self.seconds = json.loads(file.read_text())
        self.state, self.log = state(self.reference), log_of(self.reference)
        self.tables, self.features = tables(self.data), features_of(home / "features")
        self.report_files, self.scores = report_of(home / "evaluated"), scores_of(home / "evaluated")

    def _images(self) -> Path:
        """A folder of images with a subfolder for each modality."""
        return next(self.data.glob("drawn/*/RGBNT201/train_171"), None) or next(self.data.glob("drawn/*/*/train_171"))

    def _timed(self, arguments: list[str]) -> float:
        begun = time.monotonic()
        running = self.commands.start(arguments)
        if not running.wait() or running.returned:
            raise SystemExit(f"the undisturbed command failed:\n{running.output[-2000:]}")
        return time.monotonic() - begun

    def run(self, kind: str, draw: random.Random) -> dict[str, Any]:
        """One trial; a dict with ``fine`` and, where it is not, ``why``."""
        place = self.home / "trial"
        if os.path.ismount(place / "disk"):  # These trials may be ended at any moment themselves.
            subprocess.run(["umount", "-l", place / "disk"], check=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        method: Callable[[Path, random.Random], tuple[bool, list[str]]] = getattr(self, kind)
        early, why = method(place, draw)
        return {"kind": kind, "ended": early, "fine": not why, "why": why}

    def kill(self, place: Path, draw: random.Random, number: int = signal.SIGKILL) -> tuple[bool, list[str]]:
        """See the module."""
        line = training(self.data, place / "run", TINY)
        running = self.commands.start(line)
        running.wait(draw.uniform(0.0, self.seconds["train"]))
        early = running.end(number)
        wrong = self._unclear(running) if number == signal.SIGTERM else []
        return early, [*wrong, *self._again(line, place / "run")]

    def term(self, place: Path, draw: random.Random) -> tuple[bool, list[str]]:
        """See the module."""
        return self.kill(place, draw, signal.SIGTERM)

    def save(self, place: Path, draw: random.Random) -> tuple[bool, list[str]]:
        """See the module."""
        line, wanted, seen = training(self.data, place / "run", TINY), draw.randint(1, 4), set()
        running, early = self.commands.start(line), False
        while not running.wait(0.002):
            seen |= {path.name for path in (place / "run" / "checkpoints").glob("*orbax-checkpoint-tmp*")}
            if len(seen) >= wanted:
                running.wait(draw.random() * 0.3)
                early = running.end(signal.SIGKILL)
        return early, self._again(line, place / "run")

    def size(self, place: Path, draw: random.Random) -> tuple[bool, list[str]]:
        """See the module."""
        line = training(self.data, place / "run", TINY)
        running = self.commands.start(line, limit=_spread(draw, 500, 20_000))
        running.wait()
        return running.returned != 0, [*self._unclear(running), *self._again(line, place / "run")]

    def disk(self, place: Path, draw: random.Random) -> tuple[bool, list[str]]:
        """See the module."""
        with _Disk(place / "disk", _spread(draw, 20_000, 1_000_000)) as disk:
            line = training(self.data, disk.folder / "run", TINY)
            running = self.commands.start(line)
            running.wait()
            disk.grow()
            return running.returned != 0, [*self._unclear(running), *self._again(line, disk.folder / "run")]

    def report(self, place: Path, draw: random.Random) -> tuple[bool, list[str]]:
        """See the module."""
        killed = draw.random() < 0.5
        with _Disk(place / "disk", 2**26 if killed else _spread(draw, 20_000, 2_000_000)) as disk:
            line = evaluation(self.data, disk.folder / "run", self.reference)
            running, wrong = self.commands.start(line), []
            if killed:
                running.wait(draw.uniform(0.0, self.seconds["evaluate"]))
                early = running.end(signal.SIGKILL)
            else:
                running.wait()
                early, wrong = running.returned != 0, self._unclear(running)
            disk.grow()
            wrong += self._failed(line)
            if not wrong:
                wrong += ["report"] if report_of(disk.folder / "run") != self.report_files else []
                wrong += ["scores"] if scores_of(disk.folder / "run") != self.scores else []
                wrong += [f"left: {name}" for name in unfinished(disk.folder)]
            return early, wrong

    def extract(self, place: Path, draw: random.Random) -> tuple[bool, list[str]]:
        """See the module."""
        line = extraction(self._images(), self.reference, place / "features")
        running = self.commands.start(line)
        if draw.random() < 0.5:
            while not (place / "features").exists() and not running.wait(0.002):
                pass
            running.wait(draw.random() * 0.3)
        else:
            running.wait(draw.uniform(0.0, self.seconds["extract"]))
        early, wrong = running.end(signal.SIGKILL), self._failed(line)
        if not wrong:
            wrong += ["features"] if features_of(place / "features") != self.features else []
            wrong += [f"left: {name}" for name in unfinished(place)]
        return early, wrong

    def prepare(self, place: Path, draw: random.Random) -> tuple[bool, list[str]]:
        """See the module."""
        line = preparation(place / "data")
        running = self.commands.start(line)
        running.wait(draw.uniform(0.0, self.seconds["prepare"]))
        early, wrong = running.end(signal.SIGKILL), self._failed(line)
        return early, wrong or (["tables"] if tables(place / "data") != self.tables else [])

    def _failed(self, line: list[str]) -> list[str]:
        """Starts a command again; what it said where it failed."""
        again = self.commands.start(line)
        if not again.wait() or again.returned:
            return [f"the second start failed: {again.output.strip()[-1500:]}"]
        return ["the second start shows a traceback"] if "Traceback" in again.output else []

    def _again(self, line: list[str], workdir: Path) -> list[str]:
        """Starts a training again and compares what it leaves with what an undisturbed one left."""
        if wrong := self._failed(line):
            return wrong
        found = state(workdir)
        arrays = [name for name in self.state if not np.array_equal(found.get(name, np.nan), self.state[name])]
        wrong = [f"array {name}" for name in arrays[:3]]
        wrong += ["log"] if log_of(workdir) != self.log else []
        return wrong + [f"left: {name}" for name in unfinished(workdir)]

    def _unclear(self, running: Running) -> list[str]:
        """What is unclear in how a command ended by itself: it ends well or with one line, without a traceback."""
        said = any(text.startswith("error: ") for text in running.output.splitlines())
        # A signal may arrive before there is anybody to obey it.
        fine = running.returned in (0, -signal.SIGTERM) or (running.returned == 2 and said)
        fine |= running.returned == 130
        return [] if fine and "Traceback" not in running.output else [f"{running.returned}: {running.output[-4000:]}"]


class _Disk:
    """A disk in memory, so small; a context manager. It needs the right to mount."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self._size = folder, size

    def __enter__(self) -> _Disk:
        self.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", self.folder], check=True)
        return self

    def grow(self) -> None:
        """Gives it enough space."""
        subprocess.run(["mount", "-o", f"remount,size={2**26}", self.folder], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self.folder], check=True)


def _spread(draw: random.Random, least: int, most: int) -> int:
    """A number of bytes; every order of magnitude is as likely."""
    return round(math.exp(draw.uniform(math.log(least), math.log(most))))


KINDS = ("kill", "save", "size", "term", "kill", "extract", "disk", "save", "kill", "prepare", "save", "report")
"""In the order of the trials; what costs little or has most states to be ended in comes more often."""


def table(trials: list[dict[str, Any]]) -> str:
    """What came out, a line for each kind."""
    lines = ["| kind | trials | ended early | as undisturbed |", "|---|---|---|---|"]
    for kind in dict.fromkeys(KINDS):
        some = [trial for trial in trials if trial["kind"] == kind]
        if some:
            early, fine = (sum(bool(trial[key]) for trial in some) for key in ("ended", "fine"))
            lines.append(f"| {kind} | {len(some)} | {early} | {fine} |")
    lines += [
        f"- {trial['number']} {trial['kind']}: {'; '.join(trial['why'])[:200]}" for trial in trials if not trial["fine"]
    ]
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("runs/reliability"), help="folder of the trials")
    parser.add_argument("--minutes", type=float, default=60.0, help="no trial begins after so many")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of trials, in turn (default %(default)s)")
    parser.add_argument("--table", action="store_true", help="only print what came out so far")
    parser.add_argument("--network", choices=("one_layer", "htt"), default="one_layer", help="(default %(default)s)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.network)
        return
    home = arguments.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    file = home / "trials.jsonl"
    trials = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if not arguments.table:
        end = time.monotonic() + 60 * arguments.minutes
        made, kinds = Trials(home, arguments.network), arguments.kinds.split(",")
        while time.monotonic() < end:
            number, begun = len(trials), time.monotonic()
            trial = made.run(kinds[number % len(kinds)], random.Random(number))
            trials.append({"number": number, **trial, "seconds": round(time.monotonic() - begun, 1)})
            with file.open("a") as lines:
                lines.write(json.dumps(trials[-1]) + "\n")
            print(trials[-1], flush=True)
    print(table(trials))


if __name__ == "__main__":
    main()
