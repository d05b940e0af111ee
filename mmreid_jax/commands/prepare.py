"""Checks the files of a data set and writes them into records, once.

``python -m mmreid_jax prepare --dataset rgbnt201 --manual_dir DIR [--data_dir DIR] [--check_images] [--force]``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import mmreid_jax.datasets as datasets
from mmreid_jax.data import captions
from mmreid_jax.datasets import catalogue
from mmreid_jax.datasets.prepare import prepare, summary


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax prepare", description=__doc__.splitlines()[0])
    names = [f"{parts[0]} ..." if (parts := datasets.parts(name)) else name for name in datasets.names()]
    parser.add_argument("--dataset", required=True, help=f"{', '.join(names)}, or a module of your own")
    parser.add_argument("--manual_dir", help="the data set's folder or its parent")
    parser.add_argument(
        "--data_dir",
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
    parser.add_argument("--force", action="store_true", help="write the records again even if they are there")
    options = vars(parser.parse_args(arguments))
    print(summary(prepare(**options, progress=True)))
