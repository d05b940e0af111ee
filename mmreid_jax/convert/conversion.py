"""A conversion as a whole, for the command and the API: what is there is judged before the work."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from mmreid_jax import owned
from mmreid_jax.convert import known, store, torch_file
from mmreid_jax.convert.layout import ImportReport, flatten
from mmreid_jax.errors import UserError

LARGEST_SIDE = 4096
"""Pixels of the images that a ViT is converted for, as in ``config.data.image_size``."""


def convert_file(
    source: store.Path,
    layout: str,
    out: store.Path,
    *,
    size: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    overwrite: bool = False,
    under: str | None = None,
    prefix: str | None = None,
) -> ImportReport:
    """Converts foreign weights, or another converted directory, to a directory of ours.

    Args:
      source: PyTorch or safetensors file, folder or index of several, or a converted directory.
      layout: name of its layout.
      out: directory to make.
      size: image height and width that a ViT's position table is resized to.
      stride: vertical and horizontal distance of patches; None: the patch size.
      overwrite: replace `out`, if this program wrote all that is in it (see `mmreid_jax.owned`).
      under, prefix: where the weights lie, see `store.open_weights`.

    Returns:
      What became of every key.

    Raises:
      UserError: there is no such layout, `size` does not go with it, the weights cannot be read or do not fit, or `out`
        is there already, is not this program's or cannot be written.
    """
    owned.check_directory(pathlib.Path(os.path.realpath(out)), overwrite)
    built = known.named(layout)
    if size is not None:
        if layout not in known.RESIZABLE:
            raise UserError(f"--size is for ViTs: weights of the layout {layout!r} fit images of any size")
        built = known.named(layout, grid=_grid(source, size, stride, under))
    elif stride is not None:
        raise UserError("--stride needs --size, the height and width of the images")
    variables, report = store.open_weights(source, built, under=under, prefix=prefix)
    store.save(out, variables, store.meta_of(report, layout, variables), overwrite)
    return report


def _grid(
    source: store.Path, size: tuple[int, int], stride: tuple[int, int] | None, under: str | None
) -> tuple[int, int]:
    """Rows and columns of patches that the source's patch size cuts an image into."""
    theirs = ("patch_embed.proj.weight", "visual.conv1.weight", "patch_embedding.weight")
    ends = (*((name, slice(-2, None)) for name in theirs), ("patch_embed/kernel", slice(0, 2)))
    entries = _entries(source, under)
    shapes = [value.shape[part] for name, value in entries.items() for end, part in ends if name.endswith(end)]
    if not shapes or len(shapes[0]) != 2:
        raise UserError(f"{source} has no patch embedding to take the patch size from; leave --size out")
    if max(size) > LARGEST_SIDE:
        raise UserError(f"--size {size[0]}x{size[1]} is too large; images have at most {LARGEST_SIDE} pixels a side")
    patch = shapes[0]
    if any(length < side for length, side in zip(size, patch, strict=True)):
        raise UserError(f"--size {size[0]}x{size[1]} is smaller than a patch of {patch[0]}x{patch[1]}")
    step = stride or patch
    return (size[0] - patch[0]) // step[0] + 1, (size[1] - patch[1]) // step[1] + 1


def _entries(source: store.Path, under: str | None) -> dict[str, Any]:
    """Name -> array of everything that a file or a converted directory holds."""
    if store.is_converted(source):
        return flatten(store.load(source)[0])
    return {name: value for state in torch_file.state_dicts(source, under) for name, value in state.entries.items()}
