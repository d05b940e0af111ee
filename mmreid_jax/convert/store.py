"""Converted weights on disk: a directory with ``meta.json`` and the arrays as an Orbax checkpoint.

`open_weights` is the one door for all foreign weights: a PyTorch file, a safetensors file or such a directory.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmreid_jax import owned
from mmreid_jax.convert import fitting, folders, included, known, torch_file
from mmreid_jax.convert.layout import AnyLayout, ImportReport, Variables, export_state, flatten, import_state, unflatten
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import read_json

ARRAYS = "variables"
_FORMAT = 1
META = owned.META

Path = str | os.PathLike[str]


def open_weights(
    path: Path,
    layout: str | AnyLayout,
    like: Any = None,
    *,
    keep: Iterable[str] = (),
    drop: Mapping[str, str] | None = None,
    floating: Any = None,
    under: str | None = None,
    prefix: str | None = None,
) -> tuple[Variables, ImportReport]:
    """Loads weights of a family into our tree, from whatever form they are kept in.

    Args:
      path: a PyTorch or safetensors file, the index of several or a folder of Hugging Face's, a directory made by
        ``python -m mmreid_jax convert``, or the name of weights that come with the package (``drawn/resnet_mini``, see
        `included`).
      layout: a layout, or the name of one.
      like: tree that the result must fit; see `import_state` for this and the rest.
      keep: patterns of our paths that stay as they are in `like`.
      drop: patterns of PyTorch names to leave out -> reason.
      floating: dtype of floating leaves.
      under: key of the file that the weights lie under; None: found, where only one fits.
      prefix: what the names of the weights begin with; None: found, where only one fits.

    Returns:
      Variables of numpy arrays and the accounts of the import.

    Raises:
      UserError: the path cannot be read or does not fit.
    """
    layout = known.named(layout) if isinstance(layout, str) else layout
    path = included.resolve(path)
    if is_converted(path):
        # By way of the PyTorch names: so a directory is checked, cut and resized exactly as the file that it came from.
        variables, meta = load(path)
        states = [torch_file.StateDict(export_state(known.named(meta["layout"]), variables), None, [])]
    else:
        states = torch_file.state_dicts(path, under)
    if prefix is not None:
        states = [fitting.under_prefix(state, prefix, str(path)) for state in states]

    def fit(state: torch_file.StateDict) -> tuple[Variables, ImportReport]:
        options: dict[str, Any] = {"keep": keep, "drop": drop, "floating": floating, "unreadable": state.unreadable}
        return import_state(layout, state.entries, like, source=str(path), **options)

    state, result, report = fitting.import_fitting(states, fit, str(path))
    place = [f"found under {printable(state.under)!r}"] if state.under is not None else []
    report.notes = [*place, *state.notes, *report.notes]
    return result, report


def is_converted(path: Path) -> bool:
    """Whether a path is a directory of converted weights, or was one (and nothing else that can be read)."""
    path = pathlib.Path(path)
    return os.path.isdir(path) and ((path / META).is_file() or not folders.is_folder_of_weights(path))


def meta_of(report: ImportReport, layout: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What ``meta.json`` says of an import: layout, source, accounts and the arrays' types and shapes."""
    return {
        "format": _FORMAT,
        "layout": layout,
        "source": pathlib.Path(report.source).name,
        "keys_used": len(report.used),
        "dropped": report.dropped,
        "filled": report.filled,
        "notes": report.notes,
        "arrays": {path: f"{leaf.dtype} {list(leaf.shape)}" for path, leaf in flatten(variables).items()},
    }


def save(directory: Path, variables: Mapping[str, Any], meta: Mapping[str, Any], overwrite: bool = False) -> None:
    """Writes a converted directory; it appears whole or not at all.

    Args:
      directory: to make.
      variables: tree of arrays.
      meta: as JSON; ``layout`` is needed to open the directory later, the rest is for people.
      overwrite: replace a directory that is there already, if this program wrote all that is in it (see `owned`).

    Raises:
      UserError: the directory exists, holds what this program did not write, or the disk does not take it.
    """
    import orbax.checkpoint as ocp

    directory = pathlib.Path(os.path.realpath(directory))
    owned.check_directory(directory, overwrite)
    if empty := [name for name, leaf in flatten(variables).items() if not np.size(leaf)]:
        # The array writer refuses it too, with tracebacks of its threads beside.
        raise UserError(f"{empty[0]} has no numbers: these are no weights of a network")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        beside = pathlib.Path(tempfile.mkdtemp(prefix=f".{directory.name[:80]}.", dir=directory.parent))
    except (OSError, ValueError) as error:
        raise UserError(f"{directory} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    try:
        with ocp.StandardCheckpointer() as writer:
            writer.save(beside / ARRAYS, dict(variables))
        owned.mark(beside, meta)
        beside.chmod(0o755)
        owned.replace_directory(beside, directory, overwrite)
    except (OSError, ValueError) as error:
        # Orbax wraps what the file system says into ValueError.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{directory} cannot be written: {reason[:200]}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load(directory: Path) -> tuple[Variables, dict[str, Any]]:
    """Reads a converted directory: variables of numpy arrays, and its ``meta.json``.

    Raises:
      UserError: it is no converted directory, or damaged.
    """
    import orbax.checkpoint as ocp

    directory = pathlib.Path(directory).absolute()
    meta = read_meta(directory)
    try:
        # A target of numpy arrays makes the result independent of the devices that wrote it.
        like = {path: _empty(words) for path, words in meta["arrays"].items()}
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(directory / ARRAYS, unflatten(like)), meta
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{directory} is damaged ({reason[:200]}); convert the weights again") from error


def read_meta(directory: Path) -> dict[str, Any]:
    """The ``meta.json`` of a converted directory.

    Raises:
      UserError: there is none, or it is not of this program.
    """
    directory = pathlib.Path(directory)
    try:
        meta = read_json(directory / META)
    except FileNotFoundError:
        raise UserError(f"{directory} is no directory of converted weights: it has no {META}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{directory / META} cannot be read: {printable(str(error))}") from error
    if not isinstance(meta, dict) or not (isinstance(meta.get("layout"), str) and isinstance(meta.get("arrays"), dict)):
        raise UserError(f"{directory / META} does not describe converted weights; convert them again")
    return meta


def _empty(words: str) -> np.ndarray:
    """An array of the type and shape that "float32 [3, 4]" says, without memory of its size."""
    dtype, _, shape = words.partition(" ")
    return np.broadcast_to(np.zeros((), dtype), json.loads(shape))
