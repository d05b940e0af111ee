"""Converts weights.

``python -m mmreid_jax convert``

--layout htt --source transformer_best.pth --out DIR         PyTorch or safetensors file -> our directory
--layout vit --source moco.pth --prefix encoder_q. --out DIR   the part of a file whose names begin so
--export --source DIR --out weights.safetensors              back to PyTorch's names; or --out weights.pth
--list --source FILE_OR_DIR                                  names, types and shapes of what is inside
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmreid_jax import __version__, owned
from mmreid_jax.convert import conversion, folders, known, safetensors_file, store, torch_file, torch_writer
from mmreid_jax.convert.layout import export_state, flatten
from mmreid_jax.errors import UserError, printable

PYTORCH_ENDINGS = (".pth", ".pt", ".t", ".pth.tar", ".bin")
BARE = "bare"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; prints what was done.

    Raises:
      UserError: bad arguments, or weights that cannot be read, do not fit or cannot be written.
    """
    options = _parser().parse_args(argv)
    if options.list:
        print(tree(options.source, options.under))
    elif not options.out:
        raise UserError("--out is missing: the directory to make, or with --export the file")
    elif options.export:
        if options.under is not None:
            raise UserError("--under is for reading files; a .pth file's key is given with --wrapper")
        export(options.source, options.out, options.layout, options.wrapper, options.prefix or "", options.overwrite)
    elif not options.layout:
        raise UserError(f"--layout is missing: what the file holds, one of {', '.join(known.LAYOUTS)}")
    else:
        if options.wrapper:
            raise UserError("--wrapper goes with --export to a .pth file; the key of a file to read is --under")
        names = ("size", "stride", "overwrite", "under", "prefix")
        convert(options.source, options.layout, options.out, **{name: getattr(options, name) for name in names})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m mmreid_jax convert", description="Converts PyTorch weights to ours.")
    parser.add_argument(
        "--source",
        required=True,
        help="PyTorch or safetensors file, folder of Hugging Face's or index of its shards, or a directory of ours",
    )
    parser.add_argument("--out", help="directory to make; with --export the .safetensors, .pth, .pt or .t file")
    parser.add_argument("--layout", help=f"what the source holds: {', '.join(known.LAYOUTS)}")
    parser.add_argument("--export", action="store_true", help="from our directory back to PyTorch's names")
    parser.add_argument("--list", action="store_true", help="print names, types and shapes and stop")
    parser.add_argument("--size", type=_pair, metavar="HxW", help="image size to resize a ViT's position table to")
    parser.add_argument("--stride", type=_pair, metavar="S", help="distance of patches (default: the patch size)")
    parser.add_argument("--under", metavar="KEY", help="of the file's state_dicts that under this key (a.b if nested)")
    parser.add_argument(
        "--prefix", metavar="NAME.", help="read the names that begin so, without it; with --export write it before all"
    )
    parser.add_argument(
        "--wrapper",
        metavar="KEY",
        help="with --export to .pth: key of the state_dict, or 'bare' (default: the authors')",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what this program wrote to --out")
    return parser


def _pair(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor HEIGHTxWIDTH, such as 256x128")
    return int(match[1]), int(match[2] or match[1])


def convert(source: str, layout: str, out: str, **options: Any) -> None:
    """Converts a file to a directory and prints the accounts; see `conversion.convert_file`."""
    report = conversion.convert_file(source, layout, out, **options)
    print(report.table())
    print(f"wrote {out}")


def _entries(source: str, under: str | None) -> dict[str | None, dict[str, Any]]:
    """Key of the state_dict (None: there is one) -> name -> array, or in words what a tensor is that is not read."""
    path = pathlib.Path(source)
    if os.path.isdir(path) and not folders.is_folder_of_weights(path):
        return {None: flatten(_variables(source)[0])}
    states = torch_file.state_dicts(source, under)
    return {state.under if len(states) > 1 else None: {**state.entries, **state.unreadable} for state in states}


def _variables(source: str) -> tuple[Mapping[str, Any], tuple[str, dict[str, Any]] | None]:
    """Variables of a converted directory or a trained model, and its layout (name, options) where that is known."""
    if (pathlib.Path(source) / store.META).is_file():
        variables, meta = store.load(source)
        return variables, (str(meta["layout"]), {})
    from mmreid_jax.training.checkpoints import load_variables

    variables, meta = load_variables(source)
    return variables, known.of_run(meta["config"]) if "config" in meta else None


def export(
    source: str,
    out: str,
    layout: str | None = None,
    wrapper: str | None = None,
    prefix: str = "",
    overwrite: bool = False,
) -> None:
    """Writes the weights of a directory as a file under PyTorch's names.

    Args:
      source: converted directory, or a run's workdir or checkpoint.
      out: file to write: .safetensors, or PyTorch's .pth, .pt, .t or .pth.tar.
      layout: name of the layout; None: the one that the directory or the run's config names.
      wrapper: key that the state_dict lies under in a PyTorch file, ``bare`` for none; None: what the authors' program
        of the layout reads.
      prefix: to write before every name.
      overwrite: replace a file that this command wrote.
    """
    if not os.path.isdir(source):
        raise UserError(f"{source} is no directory; --export takes converted weights or a run's workdir")
    is_safetensors = out.endswith(".safetensors")
    if not is_safetensors and not out.endswith(PYTORCH_ENDINGS):
        raise UserError(
            f"--out {out} must end with .safetensors, or for a PyTorch file with {', '.join(PYTORCH_ENDINGS)}"
        )
    if is_safetensors and wrapper is not None:
        raise UserError("--wrapper is for PyTorch files (--out weights.pth); a .safetensors file holds tensors alone")
    if layout is not None:
        known.named(layout)
    target = pathlib.Path(os.path.realpath(out))
    ours = is_our_safetensors if is_safetensors else torch_writer.is_ours
    owned.check_file(target, ours, "file of exported weights", overwrite)
    variables, own = _variables(source)
    if layout is None and own is None:
        raise UserError(f"{source} does not say what it holds; give --layout, one of {', '.join(known.LAYOUTS)}")
    name, options = (layout, {}) if layout is not None else own or ("", {})
    if own is not None and name == own[0]:
        options = own[1]
    entries = {prefix + key: value for key, value in export_state(known.named(name, **options), variables).items()}
    if is_safetensors:
        write_safetensors(out, entries)
        inside = ""
    else:
        key, beside = known.WRAPPED.get(name, (BARE, ())) if wrapper is None else (wrapper, ("epoch",))
        write_pytorch(out, entries, key, beside)
        inside = " as the state_dict itself" if key == BARE else f" under {key!r}, beside {', '.join(beside)}"
    print(f"{source}: layout {name}, {len(entries)} keys, {sum(value.size for value in entries.values()):,} values")
    print(f"wrote {out}{inside}")


def write_safetensors(path: str, entries: Mapping[str, np.ndarray]) -> None:
    """Writes a safetensors file that appears whole or not at all."""
    with _written(path) as beside:
        metadata = {"format": "pt", torch_writer.MARK: f"{owned.PROGRAM} {__version__}"}
        safetensors_file.save_safetensors(beside, entries, metadata)
        _order(beside, metadata)


def _order(path: pathlib.Path, metadata: Mapping[str, str]) -> None:
    """Puts two metadata into their order: the library writes them in one by chance, and files should be alike."""
    pairs = list(metadata.items())
    ordered, swapped = (json.dumps(dict(some), separators=(",", ":")).encode() for some in (pairs, pairs[::-1]))
    with path.open("r+b") as file:
        place = file.read(1024).find(swapped)
        if place >= 0:
            file.seek(place)
            file.write(ordered)


def is_our_safetensors(path: pathlib.Path) -> bool:
    """Whether a file is one that `write_safetensors` wrote."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as opened:
            return (opened.metadata() or {}).get(torch_writer.MARK, "").startswith(f"{owned.PROGRAM} ")
    except (SafetensorError, OSError, ValueError):
        return False


def write_pytorch(path: str, entries: Mapping[str, np.ndarray], key: str, beside: Sequence[str]) -> None:
    """Writes a PyTorch file that appears whole or not at all; `key`: of the state_dict, or `BARE`."""
    wrapper = None if key == BARE else dict.fromkeys(beside, 0)
    with _written(path) as unfinished, unfinished.open("wb") as file:
        torch_writer.write_torch(file, entries, wrapper, key)


@contextlib.contextmanager
def _written(path: str) -> Iterator[pathlib.Path]:
    """A file to write that takes its name, and the place of what has it, when it is complete."""
    target = pathlib.Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name[:80]}.", dir=target.parent) as folder:
            beside = pathlib.Path(folder) / target.name
            yield beside
            os.replace(beside, target)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def tree(source: str, under: str | None = None) -> str:
    """Names, types and shapes of the arrays in a file or directory, one per line, and their sum."""
    lines = []
    for key, entries in _entries(source, under).items():
        shown = {printable(name): value for name, value in entries.items()}
        width = max(map(len, shown), default=0)
        lines += [] if key is None else [f"--under {printable(key)}"]
        lines += [
            f"{name:{width}}  {value}"
            if isinstance(value, str)
            else f"{name:{width}}  {value.dtype!s:8}  {list(value.shape)}"
            for name, value in shown.items()
        ]
        arrays = [value for value in entries.values() if not isinstance(value, str)]
        lines.append(f"{len(arrays)} arrays, {sum(math.prod(value.shape) for value in arrays):,} values")
    return "\n".join(lines)
