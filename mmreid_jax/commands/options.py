"""What several commands share: the flags of a trained model and of folders of images."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mmreid_jax.data.records import Records, check_value_range
from mmreid_jax.datasets import folder
from mmreid_jax.errors import printable
from mmreid_jax.flags import from_arguments
from mmreid_jax.model import Extractor
from mmreid_jax.paths import path_of


def add_model_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The flags that name a trained model."""
    parser.add_argument(
        "--checkpoint", type=path_of, required=required, help="workdir of a run of main.py, or a converted directory"
    )
    parser.epilog = "A converted directory needs --config=FILE; --config.KEY=VALUE changes what does not fit it."
    parser.add_argument("--which", choices=("best", "last"), default="best", help="of its checkpoints")


def open_model(arguments: argparse.Namespace, rest: Sequence[str]) -> Extractor:
    """The model that the flags name; `rest`: arguments that the command did not read, ``--config=FILE`` among them."""
    config = from_arguments(rest)[0] if rest else None
    return Extractor(arguments.checkpoint, arguments.which, config)


def names_in(text: str) -> tuple[str, ...]:
    """The names in a flag such as ``rgb,tir``."""
    return tuple(name for name in (part.strip() for part in text.split(",")) if name)


def describe(records: Records, absent: Sequence[str], one_modality: bool = False) -> str:
    """One line: what was found in a folder."""
    if one_modality:
        seen = [name for name in records.modalities if name not in absent]
        return f"{records.name}: {len(records)} samples, {', '.join(seen)}"
    missing = f"; no {', '.join(absent)} images, replaced by zeros" if absent else ""
    return f"{records.name}: {len(records)} samples{missing}"


def add_image_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say how images of folders are read."""
    parser.add_argument(
        "--broken",
        choices=folder.POLICIES,
        default="skip",
        help="images that cannot be read: skip (leave them out and list them at the end) or stop (default %(default)s)",
    )
    parser.add_argument(
        "--value_range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values of images of more than 8 bits that become 0 and 255 (default: the config's, else the 1st and the "
        "99th percentile of each image)",
    )


def open_images(
    arguments: argparse.Namespace, extractor: Extractor, path: str | Path, modality: str | None, flag: str
) -> tuple[Records, tuple[str, ...]]:
    """The readable images of a folder, and the modalities it lacks, as the flags of `add_image_flags` want them.

    Args:
      arguments: of the command.
      extractor: the model.
      path: of the folder.
      modality: to take; None: what the folder says.
      flag: that names it.

    Raises:
      UserError: see `folder.open_folder` and `folder.checked`.
    """
    data = extractor.config.data
    records, absent = folder.open_folder(
        path, extractor.method.facts.modalities, modality, one=extractor.one_modality, flag=flag
    )
    chosen = check_value_range(arguments.value_range or data.get("value_range", ()))
    records = dataclasses.replace(records, value_range=chosen)
    return folder.checked(records, arguments.broken, data.threads), absent


def list_left_out(*tables: Records | None) -> None:
    """Prints which files of folders could not be used, each with the reason."""
    # A folder may be both query and gallery.
    for table in {each.name: each for each in tables if each is not None}.values():
        if table.left_out:
            print(f"{table.name}: {len(table.left_out)} files could not be used")
            print("\n".join(f"  {printable(name)}: {reason}" for name, reason in table.left_out.items()))
