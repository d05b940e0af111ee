"""Converts weights.

``python -m mmreid_jax convert``

--layout htt --source transformer_best.pth --out DIR         PyTorch or safetensors file -> our directory
--export --source DIR --out weights.safetensors              back to PyTorch's names
--list --source FILE_OR_DIR                                  names, types and shapes of what is inside
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmreid_jax.convert import known, store, torch_file
from mmreid_jax.convert.layout import export_state, flatten
from mmreid_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; prints what was done.

    Raises:
      UserError: bad arguments, or weights that cannot be read, do not fit or cannot be written.
    """
    options = _parser().parse_args(argv)
    if options.list:
        print(tree(options.source))
    elif not options.out:
        raise UserError("--out is missing: the directory to make, or with --export the file")
    elif options.export:
        export(options.source, options.out, options.layout)
    elif not options.layout:
        raise UserError(f"--layout is missing: what the file holds, one of {', '.join(known.LAYOUTS)}")
    else:
        convert(options.source, options.layout, options.out, options.size, options.stride, options.overwrite)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m mmreid_jax convert", description="Converts PyTorch weights to ours.")
    parser.add_argument("--source", required=True, help="PyTorch or safetensors file, or a directory of weights")
    parser.add_argument("--out", help="directory to make; with --export the .safetensors file")
    parser.add_argument("--layout", help=f"what the source holds: {', '.join(known.LAYOUTS)}")
    parser.add_argument("--export", action="store_true", help="from our directory back to PyTorch's names")
    parser.add_argument("--list", action="store_true", help="print names, types and shapes and stop")
    parser.add_argument("--size", type=_pair, metavar="HxW", help="image size to resize a ViT's position table to")
    parser.add_argument("--stride", type=_pair, metavar="S", help="distance of patches (default: the patch size)")
    parser.add_argument("--overwrite", action="store_true", help="replace a converted directory")
    return parser


def _pair(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor HEIGHTxWIDTH, such as 256x128")
    return int(found[1]), int(found[2] or found[1])


def convert(
    source: str,
    layout: str,
    out: str,
    size: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> None:
    """Converts a file to a directory and prints the accounts.

    Args:
      source: PyTorch or safetensors file, or another converted directory.
      layout: name of its layout.
      out: directory to make.
      size: image height and width that a ViT's position table is resized to.
      stride: vertical and horizontal distance of patches; None: the patch size.
      overwrite: replace `out`.
    """
    built = known.named(layout)
    if size is not None:
        if layout not in known.RESIZABLE:
            raise UserError(f"--size is for ViTs: weights of the layout {layout!r} fit images of any size")
        built = known.named(layout, grid=_grid(source, size, stride))
    elif stride is not None:
        raise UserError("--stride needs --size, the height and width of the images")
    variables, report = store.open_weights(source, built)
    store.save(out, variables, store.meta_of(report, layout, variables), overwrite)
    print(report.table())
    print(f"wrote {out}")


def _grid(source: str, size: tuple[int, int], stride: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of patches that the source's patch size cuts an image into."""
    entries = _entries(source)
    theirs = ("patch_embed.proj.weight", "visual.conv1.weight", "patch_embedding.weight")
    ends = (*((name, slice(-2, None)) for name in theirs), ("patch_embed/kernel", slice(0, 2)))
    shapes = [value.shape[part] for name, value in entries.items() for end, part in ends if name.endswith(end)]
    if not shapes or len(shapes[0]) != 2:
        raise UserError(f"{source} has no patch embedding to take the patch size from; leave --size out")
    patch = shapes[0]
    if any(length < side for length, side in zip(size, patch, strict=True)):
        raise UserError(f"--size {size[0]}x{size[1]} is smaller than a patch of {patch[0]}x{patch[1]}")
    step = stride or patch
    return (size[0] - patch[0]) // step[0] + 1, (size[1] - patch[1]) // step[1] + 1


def _entries(source: str) -> dict[str, Any]:
    if pathlib.Path(source).is_dir():
        return flatten(_variables(source)[0])
    return dict(torch_file.state_dict(source).entries)


def _variables(source: str) -> tuple[Mapping[str, Any], str | None]:
    """Variables of a converted directory or a trained model, and the name of the layout where it is known."""
    if (pathlib.Path(source) / store.META).is_file():
        variables, meta = store.load(source)
        return variables, str(meta["layout"])
    from mmreid_jax.training.checkpoints import load_variables

    return load_variables(source)[0], None


def export(source: str, out: str, layout: str | None = None) -> None:
    """Writes the weights of a directory as a safetensors file under PyTorch's names.

    Args:
      source: converted directory, or a run's workdir or checkpoint.
      out: file to write; replaced if it exists.
      layout: name of the layout; None: the one that the directory names.
    """
    if not pathlib.Path(source).is_dir():
        raise UserError(f"{source} is no directory; --export takes converted weights or a run's workdir")
    if not out.endswith(".safetensors"):
        raise UserError(f"--out {out} must end with .safetensors, the one format that is written")
    variables, own = _variables(source)
    name = layout or own
    if name is None:
        raise UserError(f"{source} does not say what it holds; give --layout, one of {', '.join(known.LAYOUTS)}")
    entries = export_state(known.named(name), variables)
    write_safetensors(out, entries)
    print(f"{source}: layout {name}, {len(entries)} keys, {sum(value.size for value in entries.values()):,} values")
    print(f"wrote {out}")


def write_safetensors(path: str, entries: Mapping[str, np.ndarray]) -> None:
    """Writes a safetensors file that appears whole or not at all."""
    from safetensors.numpy import save_file

    target = pathlib.Path(path).absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            beside = pathlib.Path(folder) / target.name
            save_file(dict(entries), beside, {"format": "pt"})
            os.replace(beside, target)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def tree(source: str) -> str:
    """Names, types and shapes of the arrays in a file or directory, one per line, and their sum."""
    entries = _entries(source)
    width = max(map(len, entries), default=0)
    lines = [f"{name:{width}}  {value.dtype!s:8}  {list(value.shape)}" for name, value in entries.items()]
    total = sum(int(np.prod(value.shape)) for value in entries.values())
    return "\n".join([*lines, f"{len(entries)} arrays, {total:,} values"])
