"""Checkpoints of a run: the best and the latest, written in the background, complete or not there at all.

One folder per checkpoint, named by its step::

    DIR/1200/state/     the arrays of the training state (Orbax)
    DIR/1200/meta/      JSON: step, version of this library, and what the training loop adds (config, data position)
    DIR/1200/metrics/   JSON: the scores that decide which checkpoint is best

A checkpoint is written under another name and renamed when it is complete, so a run that is killed at any moment leaves
the previous one as it was. Arrays are read into the sharding of today's devices, however many there were at the time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from mmreid_jax import __version__
from mmreid_jax.convert import layout, shared
from mmreid_jax.errors import UserError
from mmreid_jax.paths import path_of, read_json
from mmreid_jax.training import config, devices

FOLDER = "checkpoints"
"""Name of the folder in a workdir that holds its checkpoints."""

_SCORE = "score"  # What decides, under one name whatever the metric of the run.
_SHOWN_DIFFERENCES = 3
_METRICS = Path("metrics") / "metrics"
_log = logging.getLogger(__name__)


_SLICE = 1 << 20
"""Bytes from which a device writes a part of an array that several hold; smaller ones are written by one."""


class Checkpoints:
    """The checkpoints of one run. A context manager: leaving it waits for what is being written."""

    def __init__(self, directory: str | Path, metric: str = "mAP") -> None:
        """Opens `directory`, creating it if need be; remains of interrupted writes are removed.

        Args:
          directory: absolute or relative to the working directory.
          metric: the score, a key of the metrics given to `save`, whose highest value is best.

        Raises:
          UserError: the directory cannot be created or written.
        """
        self.directory = _absolute(directory)
        self.metric = metric
        self._quiet, self._failed = _QuietOrbax(), False
        _set_remains_aside(self.directory)
        damaged = _set_damaged_scores_aside(self.directory)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_BestAndLatest(damaged),
            best_fn=_score,
            enable_async_checkpointing=True,
            # Else a directory could appear after a failed write was cleaned up.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            cleanup_tmp_directories=True,
        )
        # By default every array is cut among the devices that hold it, by a program compiled for its shape.
        arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SLICE)
        ocp.type_handlers.register_type_handler(jax.Array, arrays, override=True)
        self._quiet.begin()
        try:
            with self._readable_errors("open"):
                self._manager = ocp.CheckpointManager(self.directory, options=options)
        except BaseException:
            self._quiet.end()
            raise

    def save(self, step: int, state: Any, meta: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> bool:
        """Starts to write a checkpoint and returns as soon as the arrays are copied; the state may then be donated.

        Older checkpoints are removed once this one is complete, except the best one.

        Args:
          step: number of steps done.
          state: any pytree of arrays.
          meta: JSON values; `step` and `version` are added.
          metrics: scores of this state, if it was evaluated; they must contain the metric of the constructor.

        Returns:
          False where the step is there already; it is left as it is.

        Raises:
          UserError: the disk is full (also of the checkpoint before, which was still being written), or the directory
            holds a later step.
        """
        scores = {} if metrics is None else {name: float(value) for name, value in metrics.items()}
        if metrics is not None:
            if self.metric not in scores:
                raise ValueError(f"the metrics {sorted(scores)} lack {self.metric!r}, which decides what is best")
            scores[_SCORE] = scores[self.metric]
        latest = self.latest_step()
        if latest is not None and step < latest:
            raise UserError(
                f"{self.directory} holds step {latest}, which is later than step {step}; "
                f"choose another --workdir, or delete the later checkpoints to go on from an earlier one"
            )
        if step == latest:
            return False
        described = json.loads(config.to_json({**meta, "step": int(step), "version": __version__}))
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(described))
        with self._readable_errors("write", step):
            return bool(self._manager.save(step, args=items, metrics=scores))

    def rate(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds scores to a checkpoint that was saved without any; waits until it is complete.

        A state is saved before it is scored, so that nothing is lost where scoring fails.

        Args:
          step: of the checkpoint.
          metrics: scores of its state. Without the metric of the constructor no checkpoint is better than another.

        Raises:
          UserError: it cannot be written.
        """
        scores = {name: float(value) for name, value in metrics.items()}
        if self.metric in scores:
            scores[_SCORE] = scores[self.metric]
        self.wait()
        file = self.directory / str(step) / "metrics" / "metrics"
        with self._readable_errors("write", step):
            if jax.process_index() == 0:
                file.parent.mkdir(exist_ok=True)
                temporary = file.with_name("metrics.tmp")
                temporary.write_text(json.dumps(scores), encoding="utf-8")
                os.replace(temporary, file)
            multihost_utils.sync_global_devices(f"checkpoint {step} rated")
            self._manager.reload()

    def is_rated(self, step: int) -> bool:
        """Whether the checkpoint of a step has scores."""
        self.wait()
        return bool(_scores(self.directory).get(step))

    def latest_step(self) -> int | None:
        """Step of the latest complete checkpoint; waits for one that is being written."""
        self.wait()
        return max(_scores(self.directory), default=None)

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Reads a checkpoint into the structure, dtypes and sharding of `like`.

        Args:
          like: pytree as it was saved: arrays on devices, or `jax.ShapeDtypeStruct` with a sharding; a leaf that is a
            numpy array, or has no sharding, is read as numpy.
          step: which checkpoint; None for the latest.

        Returns:
          (state, meta)

        Raises:
          UserError: there is no such checkpoint, it does not fit `like`, or it is damaged.
        """
        self.wait()
        steps = sorted(_scores(self.directory))
        if not steps:
            raise UserError(f"{self.directory} holds no checkpoint; train first, or give another --workdir")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise UserError(f"{self.directory} holds no step {step}; it has {', '.join(map(str, steps))}")
        folder = self.directory / str(step)
        with _readable_damage(folder):
            saved = _saved_leaves(folder / "state")
        check_fits(saved, like, f"checkpoint {folder}", dtypes=True)
        with _readable_damage(folder):
            items = ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(_target, like)), meta=ocp.args.JsonRestore()
            )
            restored = self._manager.restore(step, args=items)
        return restored.state, dict(restored.meta)

    def wait(self) -> None:
        """Waits until what is being written is complete.

        Raises:
          UserError: it could not be written.
        """
        with self._readable_errors("write"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the directory."""
        try:
            self.wait()
        finally:
            self._manager.close()
            # Threads of a write that failed may still speak of it.
            if not self._failed:
                self._quiet.end()

    def __enter__(self) -> Checkpoints:
        """Enters the context."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes; an error of the block is not replaced by one of closing."""
        with contextlib.suppress(UserError) if kind else contextlib.nullcontext():
            self.close()

    @contextlib.contextmanager
    def _readable_errors(self, action: str, step: int | None = None) -> Iterator[None]:
        """Turns a failed write into a sentence, and removes what it left."""
        try:
            yield
        except Exception as error:
            full, cause = _is_disk_full(error), _of_the_system(error)
            if not (full or cause):
                raise
            self._failed = True
            left = list(self.directory.glob("*.orbax-checkpoint-tmp*")) if self.directory.is_dir() else []
            names = {path.name.split(".")[0] for path in left}
            if jax.process_index() == 0:
                for path in left:
                    shutil.rmtree(path, ignore_errors=True)
            if action == "write":
                self._manager.reload()
            complete = max(_scores(self.directory), default=None)
            which = ", ".join(sorted(names)) or step
            what = f"checkpoint {which}" if action == "write" and which else "checkpoints"
            kept = "" if complete is None else f"; the checkpoint of step {complete} is complete"
            if full:
                raise UserError(
                    f"no space left for {what} in {self.directory}{kept}; free some space or choose a --workdir on "
                    f"another disk, then start the same command again"
                ) from None
            raise UserError(
                f"cannot {action} {what} in {self.directory}: {getattr(cause, 'strerror', None) or error}{kept}; "
                f"choose a --workdir that can be written"
            ) from None


def load_variables(
    path: str | Path, like: Any = None, which: Literal["best", "last"] = "best"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and statistics of a trained or converted model, without the rest of the training state.

    Args:
      path: a run's workdir, its checkpoint folder, one checkpoint in it, or a directory made by ``mmreid_jax convert``
        or ``mmreid_jax export --format safetensors``.
      like: {"params", "batch_stats"} whose structure, dtypes and sharding to take on, see `Checkpoints.restore`; None
        for numpy arrays as they were saved.
      which: of several checkpoints, the one with the best score or the last one. Where none was evaluated, the last.

    Returns:
      (variables {"params", "batch_stats"}, meta)

    Raises:
      UserError: there is nothing of the kind at `path`, it does not fit `like`, or it is damaged.
    """
    folder = _absolute(path)
    if not folder.is_dir():
        raise UserError(
            f"there is no directory {folder}; give a run's workdir or a directory made by mmreid_jax convert"
        )
    if (folder / "meta.json").is_file():
        return _load_converted(folder, like)
    if shared.is_shared(folder):
        variables, meta = shared.load(folder)
        return _placed(variables, like, folder), meta
    checkpoint = _choose(folder, which)
    with _readable_damage(checkpoint), _quietly():
        saved = _saved_leaves(checkpoint / "state")
        meta = read_json(checkpoint / "meta" / "metadata")
    saved = {name: leaf for name, leaf in saved.items() if name.split("/")[0] in ("params", "batch_stats")}
    wanted: dict[str, Any] = {"params": {}, "batch_stats": {}, **({} if like is None else like)}
    if like is None:
        for name, leaf in saved.items():
            *parents, last = name.split("/")
            functools.reduce(lambda tree, key: tree.setdefault(key, {}), parents, wanted)[last] = leaf
    check_fits(saved, wanted, f"checkpoint {checkpoint}")
    target = jax.tree.map(_target, wanted)
    with _readable_damage(checkpoint), _quietly(), ocp.PyTreeCheckpointer() as reader:
        args = ocp.args.PyTreeRestore(
            item=target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
        )
        return reader.restore(checkpoint / "state", args=args), meta


def scores_of(path: str | Path, which: Literal["best", "last"] = "best") -> dict[str, float]:
    """The scores of a run's checkpoint by name, between 0 and 1; empty where it was not evaluated or is no run's.

    Args:
      path, which: see `load_variables`.
    """
    folder = _absolute(path)
    if (folder / "meta.json").is_file() or shared.is_shared(folder):
        return {}
    scores = _numbers(_choose(folder, which) / _METRICS) or {}
    return {name: value for name, value in scores.items() if name != _SCORE}


def keep_copy(workdir: Path, variables: Any, config: Any, facts: Any) -> None:
    """Saves a model with its config in a workdir that has none yet.

    Args:
      workdir: of the run.
      variables: of the model.
      config: of the experiment.
      facts: dataclass, what the method knows of the data.
    """
    with Checkpoints(workdir / FOLDER) as store:
        if store.latest_step() is None:
            store.save(0, variables, {"config": config.to_dict(), "facts": dataclasses.asdict(facts)})


def check_variables(variables: Any, like: Any, what: str) -> None:
    """As `check_fits`, of variables that are read already."""
    check_fits({_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}, like, what)


def check_fits(saved: Mapping[str, Any], like: Any, what: str, dtypes: bool = False) -> None:
    """Compares names and shapes, before anything is read.

    Args:
      saved: path ``a/b/c`` -> something with shape and dtype, for every saved array.
      like: the pytree that is to be filled.
      what: is read, for the message.
      dtypes: whether another dtype is a difference; otherwise values are cast.

    Raises:
      UserError: they differ; names the first differing paths with both shapes.
    """

    def described(leaf: Any) -> str:
        shape = str(list(np.shape(leaf)) if not hasattr(leaf, "shape") else list(leaf.shape))
        return f"{np.dtype(leaf.dtype).name} {shape}" if dtypes else shape

    wanted = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(like)}
    problems = []
    for name in sorted({*wanted, *saved}):
        if name not in saved:
            problems.append(f"{name} {described(wanted[name])} is not in the checkpoint")
        elif name not in wanted:
            problems.append(f"{name} {described(saved[name])} is not in the model")
        elif (there := described(saved[name])) != (here := described(wanted[name])):
            problems.append(f"{name} is {there} in the checkpoint but {here} in the model")
    if problems:
        _check_classes(saved, wanted, what, len(problems))
        listed = "; ".join(problems[:_SHOWN_DIFFERENCES])
        rest = len(problems) - _SHOWN_DIFFERENCES
        more = f"; and {rest} more" if rest > 0 else ""
        raise UserError(f"{what} is of another model: {listed}{more}. Use the config that it was trained with")


def _check_classes(saved: Mapping[str, Any], wanted: Mapping[str, Any], what: str, differences: int) -> None:
    """`UserError` that names the setting, where the number of identities is the one difference."""
    pairs = {
        name: (tuple(saved[name].shape), tuple(np.shape(leaf)))
        for name, leaf in wanted.items()
        if name in saved and tuple(saved[name].shape) != tuple(np.shape(leaf))
    }
    counts = {(saved_shape[-1:], model_shape[-1:]) for saved_shape, model_shape in pairs.values()}
    alike = all(
        "classifier" in name and saved_shape[:-1] == model_shape[:-1]
        for name, (saved_shape, model_shape) in pairs.items()
    )
    if len(pairs) == differences and len(counts) == 1 and alike:
        name, (saved_shape, model_shape) = next(iter(pairs.items()))
        raise UserError(
            f"{what} was trained on another number of identities ({name} is {list(saved_shape)}, "
            f"{list(model_shape)} in the model); {layout.set_classes(saved_shape[-1])}"
        )


class _BestAndLatest:
    """Orbax's question which checkpoints stay: the latest, and the earliest of those with the highest score.

    So do those whose scores are damaged (`damaged`, their steps), for one of them may be the best.
    """

    def __init__(self, damaged: Collection[int] = ()) -> None:
        self._damaged = frozenset(damaged)

    def should_preserve(self, checkpoints: Sequence[policies.PolicyCheckpointInfo], *, context: Any) -> Sequence[bool]:
        """One answer for each checkpoint; they come in the order of their steps."""
        del context
        best = _best({info.step: info.metrics for info in checkpoints})
        return [info.step in (best, checkpoints[-1].step, *self._damaged) for info in checkpoints]


class _QuietOrbax(logging.Filter):
    """Drops Orbax's tracebacks and its own words for errors: the error itself arrives as a sentence.

    After a failed write the array writer's threads report to an event loop that is closed by then, each with a
    traceback of its own, and where several arrays failed, the loop tells of those that nobody asked for; all of these
    are dropped as well.
    """

    _LOGS = ("absl", "asyncio")

    def begin(self) -> None:
        """From now on."""
        for name in self._LOGS:
            logging.getLogger(name).addFilter(self)
        self._before = sys.unraisablehook
        sys.unraisablehook = self._hook = self._show

    def end(self) -> None:
        """No longer."""
        for name in self._LOGS:
            logging.getLogger(name).removeFilter(self)
        if sys.unraisablehook is self._hook:
            sys.unraisablehook = self._before

    def _show(self, told: Any) -> None:
        if not (told.exc_type is RuntimeError and str(told.exc_value) == "Event loop is closed"):
            self._before(told)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to keep the record."""
        if record.name == "asyncio":
            return "exception was never retrieved" not in record.getMessage()
        return not ("orbax" in record.pathname and (record.exc_info or record.levelno >= logging.ERROR))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without Orbax's tracebacks."""
    quiet = _QuietOrbax()
    quiet.begin()
    try:
        yield
    finally:
        quiet.end()


def _absolute(path: str | Path) -> Path:
    """Orbax takes absolute paths only."""
    return path_of(path).absolute()


def _scores(directory: Path) -> dict[int, dict[str, float]]:
    """Step -> scores of every complete checkpoint in a folder; unfinished ones have names that are no numbers."""
    scores = {}
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.name.isdecimal() and (path / "state").is_dir():
            metrics = path / _METRICS
            scores[int(path.name)] = (_numbers(metrics) or {}) if metrics.is_file() else {}
    return scores


def _numbers(file: Path) -> dict[str, float] | None:
    """The scores in a file; None where it is damaged."""
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return None
    sound = isinstance(content, dict) and all(isinstance(value, (int, float)) for value in content.values())
    return content if sound else None


def _set_remains_aside(directory: Path) -> None:
    """What is left of a checkpoint without its state, as where deleting an old one was interrupted, is none."""
    for path in list(directory.iterdir()) if directory.is_dir() and jax.process_index() == 0 else ():
        if path.name.isdecimal() and path.is_dir() and not (path / "state").is_dir():
            aside = path.with_name(f"{path.name}.incomplete")
            _log.warning("checkpoint %s is not complete; what is left of it is now %s", path, aside.name)
            # In a directory that cannot be written nothing is saved either.
            with contextlib.suppress(OSError):
                path.rename(aside)


def _set_damaged_scores_aside(directory: Path) -> list[int]:
    """Where the scores of a checkpoint cannot be read, it counts as not evaluated: nothing else is lost by that.

    Returns:
      The steps of all such checkpoints, also of those that were found earlier.
    """
    damaged = []
    for step in _scores(directory):
        file = directory / str(step) / _METRICS
        aside = file.with_name("metrics.damaged")
        if file.is_file() and _numbers(file) is None and jax.process_index() == 0:
            _log.warning(
                "the scores of checkpoint %s are damaged; it is kept and counts as not evaluated", file.parents[1]
            )
            # In a directory that cannot be written nothing is saved either.
            with contextlib.suppress(OSError):
                file.rename(aside)
                file.write_text("{}", encoding="utf-8")
        if aside.exists():
            damaged.append(step)
    return damaged


def _score(metrics: Any) -> float:
    """What decides which checkpoint is best; minus infinity where there is no number."""
    score = (metrics or {}).get(_SCORE, -math.inf)
    return -math.inf if math.isnan(score) else score


def _best(scores: Mapping[int, Any]) -> int | None:
    """The earliest step with the highest score; None where none has one."""
    known = {step: score for step, metrics in scores.items() if (score := _score(metrics)) > -math.inf}
    return max(known, key=lambda step: (known[step], -step), default=None)


def _choose(folder: Path, which: str) -> Path:
    """The checkpoint that `folder` is, or the best or last one of a workdir or a folder of checkpoints."""
    if (folder / "state").is_dir():
        return folder
    home = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    scores = _scores(home)
    if not scores:
        raise UserError(
            f"{folder} holds no checkpoint; give a run's workdir, one of its checkpoints, or a directory made by "
            f"mmreid_jax convert"
        )
    best = _best(scores) if which == "best" else None
    return home / str(max(scores) if best is None else best)


def _path(path: Any) -> str:
    """``a/b/c`` for the key path of a leaf."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _saved_leaves(folder: Path) -> dict[str, Any]:
    """Path -> shape and dtype of every array in a saved pytree, without reading the arrays."""
    tree = ocp.PyTreeCheckpointHandler().metadata(folder).tree
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_path(path): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in leaves}


def _target(leaf: Any) -> Any:
    """What tells Orbax to read a leaf like this one: onto the same devices, or as numpy."""
    if getattr(leaf, "sharding", None) is not None:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what it arose from, is a full disk or quota; the array writer says it in text."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and _is_disk_full(cause)


def _of_the_system(error: BaseException | None) -> OSError | None:
    """What the operating system said, of an error or what it arose from; the array writer says it in text."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            return OSError(int(code[1]), os.strerror(int(code[1])))
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _readable_damage(folder: Path) -> Iterator[None]:
    """Turns whatever goes wrong while a complete, fitting checkpoint is read into a sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(_diagnosis(folder, error)) from error


def _diagnosis(folder: Path, error: BaseException) -> str:
    """What went wrong, and what to do: only a file that is proven to be damaged is to be deleted."""
    if reason := _not_of_the_file(error):
        return f"cannot read checkpoint {folder}: {reason}; it is left as it is"
    try:
        _read_on_host(folder)
    except Exception as second:
        if reason := _not_of_the_file(second):
            return f"cannot read checkpoint {folder}: {reason}; it is left as it is"
        what = f"checkpoint {folder} is damaged ({_first_line(second)})"
        return f"{what}; delete this folder to use the checkpoint before it"
    return (
        f"checkpoint {folder} is complete, but could not be put onto these devices ({_first_line(error)}); it is left"
        " as it is"
    )


def _not_of_the_file(error: BaseException | None) -> str:
    """What hinders the reading of any file, in words; "" where it may be this one."""
    while error is not None:
        text = str(error)
        if isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory|bad_alloc", text):
            return "there is not enough memory for it; free some, or use a machine or more devices that have it"
        refused = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM)
        if refused or re.search("PERMISSION_DENIED|Permission denied", text):
            return "permission denied; ask its owner for the right to read all of its files"
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE):
            return f"{error.strerror}; try again, or look after the disk and the limits of this machine"
        no_backend = isinstance(error, AssertionError) and not text
        if no_backend or re.search("Unable to initialize backend|nknown backend|No visible .*devices", text):
            return devices.missing(text)
        error = error.__cause__ or error.__context__
    return ""


def _read_on_host(folder: Path) -> None:
    """Reads all of a checkpoint as numpy; raises whatever says that it cannot be read."""
    json.loads((folder / "meta" / "metadata").read_text(encoding="utf-8"))
    tree = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree
    wanted = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), tree)
    with ocp.PyTreeCheckpointer() as reader:
        args = ocp.checkpoint_utils.construct_restore_args(wanted)
        reader.restore(folder / "state", args=ocp.args.PyTreeRestore(item=wanted, restore_args=args))


def _first_line(error: BaseException) -> str:
    """The beginning of what an error says."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _load_converted(folder: Path, like: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables and meta of a directory made by ``mmreid_jax convert``, placed like `like`."""
    from mmreid_jax.convert import store

    try:
        variables, meta = store.load(folder)
    except RecursionError:
        raise UserError(f"{folder / store.META} is nested too deeply to be read; convert the weights again") from None
    return _placed(variables, like, folder), meta


def _placed(variables: dict[str, Any], like: Any, folder: Path) -> dict[str, Any]:
    """Variables of numpy arrays in the types and on the devices of `like`, if there is one."""
    if like is None:
        return variables
    check_variables(variables, like, f"model {folder}")

    def placed(value: Any, leaf: Any) -> Any:
        array = np.asarray(value, leaf.dtype)
        sharding = getattr(leaf, "sharding", None)
        return array if sharding is None else jax.device_put(array, sharding)

    return jax.tree.map(placed, variables, like)
