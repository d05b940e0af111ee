"""Checks the files of a data set and writes them into records, once.

``python -m mmreid_jax prepare --dataset rgbnt201 --manual_dir DIR [--data_dir DIR] [--check_images] [--broken skip]
[--force]``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import mmreid_jax.datasets as datasets
from mmreid_jax.data import captions
from mmreid_jax.datasets import catalogue
from mmreid_jax.datasets.folder import POLICIES
from mmreid_jax.datasets.prepare import prepare, summary
from mmreid_jax.paths import path_of


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax prepare", description=__doc__.splitlines()[0])
    names = [f"{parts[0]} ..." if (parts := datasets.parts(name)) else name for name in datasets.names()]
    parser.add_argument("--dataset", required=True, help=f"{', '.join(names)}, or a module of your own")
    parser.add_argument("--manual_dir", type=path_of, help="the data set's folder or its parent")
    parser.add_argument(
        "--data_dir",
        type=path_of,
        default=catalogue.default_data_dir(),
        help=f"folder of prepared data sets (${catalogue.DATA_DIR_VARIABLE}, else data)",
    )
    parser.add_argument(
        "--captioner",
        default="",
        help=f"whose captions go into the records (those of {captions.CAPTIONER}, if there are any)",
    )
    parser.add_argument(
        "--check_images", action="store_true", help="decode every image and name those that cannot be read"
    )
    parser.add_argument(
        "--broken",
        choices=POLICIES,
        default="stop",
        help="images that cannot be used: stop (and name them), or skip (leave out their samples; default %(default)s)",
    )
    parser.add_argument(
        "--follow_links", action="store_true", help="take images that are links out of the data set's folder"
    )
    parser.add_argument("--force", action="store_true", help="write the records again even if they are there")
    options = vars(parser.parse_args(arguments))
    print(summary(prepare(**options, progress=True)))
