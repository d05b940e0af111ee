"""Checks the files of a data set and writes them into records, once.

``python -m mmreid_jax prepare --dataset rgbnt201 --manual_dir DIR [--data_dir DIR] [--check_images] [--broken skip]
[--force]``

Of one's own images, which are then the data set ``own:NAME`` (docs/own_data.md):
``python -m mmreid_jax prepare --folder DIR --name NAME [--pattern "{identity}_{camera}_{index}"]``, or ``--csv FILE``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import mmreid_jax.datasets as datasets
from mmreid_jax.data import aligned_captions, captions
from mmreid_jax.datasets import catalogue
from mmreid_jax.datasets.folder import POLICIES
from mmreid_jax.datasets.own import arrange, making, naming, table
from mmreid_jax.datasets.own.faults import FaultyData
from mmreid_jax.datasets.prepare import prepare, summary
from mmreid_jax.errors import UserError, printable
from mmreid_jax.paths import DATA_DIR_VARIABLE, default_data_dir, path_of


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax prepare", description=__doc__.splitlines()[0])
    names = [f"{parts[0]} ..." if (parts := datasets.parts(name)) else name for name in datasets.names()]
    parser.add_argument("--dataset", help=f"{', '.join(names)}, or a module of your own")
    parser.add_argument("--manual_dir", type=path_of, help="the data set's folder or its parent")
    parser.add_argument(
        "--data_dir",
        type=path_of,
        default=default_data_dir(),
        help=f"folder of prepared data sets (${DATA_DIR_VARIABLE}, else data)",
    )
    parser.add_argument(
        "--captioner",
        default="",
        help=f"whose captions go into the records (those of {captions.CAPTIONER}, of tri-modal data those of "
        f"{aligned_captions.CAPTIONER}, if there are any)",
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
    own = parser.add_argument_group("a data set of one's own", "docs/own_data.md shows whole examples")
    own.add_argument("--folder", type=path_of, help="folder of images, in place of --dataset")
    own.add_argument(
        "--csv", type=path_of, help=f"table of images, in place of --dataset; columns: {'; '.join(table.COLUMNS)}"
    )
    own.add_argument("--name", default="", help="its name, small letters, digits and _; it is then own:NAME")
    own.add_argument(
        "--pattern",
        default="",
        help=f"of file names, with {{{'}, {'.join(naming.GROUPS)}}}; '/' reaches into folders (default: folders are "
        f"identities; without folders {naming.MARKET}, as in Market-1501)",
    )
    shape = own.add_mutually_exclusive_group()
    shape.add_argument(
        "--aligned", dest="aligned", action="store_true", default=None, help="images of equal names are one sample"
    )
    shape.add_argument(
        "--unaligned",
        dest="aligned",
        action="store_false",
        default=None,
        help="visible and infrared images belong together by identity alone (default: aligned if any names are equal)",
    )
    usual = arrange.SplitDraw()
    own.add_argument(
        "--test_share",
        type=float,
        default=usual.test_share,
        help="of the identities, drawn for the test where no split is given (default %(default)s)",
    )
    own.add_argument("--seed", type=int, default=usual.seed, help="of that draw (default %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(arguments)
    shared: dict[str, Any] = {
        name: getattr(options, name) for name in ("check_images", "broken", "follow_links", "force")
    }
    if options.folder or options.csv:
        _make(options, shared)
        return
    if options.name or options.pattern or options.aligned is not None:
        raise UserError("--name, --pattern, --aligned and --unaligned go with --folder DIR or --csv FILE; name one")
    if not options.dataset:
        raise UserError("name the data set with --dataset, or images of your own with --folder DIR or --csv FILE")
    prepared = prepare(
        options.dataset, options.manual_dir, options.data_dir, captioner=options.captioner, progress=True, **shared
    )
    print(summary(prepared))


def _make(options: argparse.Namespace, shared: dict[str, Any]) -> None:
    """Prepares a data set of one's own and says what came of it; faults are listed line by line."""
    if options.dataset or options.manual_dir or options.captioner:
        raise UserError("--dataset, --manual_dir and --captioner are of published data sets; leave them out")
    if not options.name:
        raise UserError("give the data set a name with --name, as in --name my_people")
    drawing = arrange.SplitDraw(options.test_share, options.seed)
    source = making.Source(options.folder, options.csv, options.pattern, options.aligned)
    try:
        made = making.make(source, options.name, options.data_dir, drawing=drawing, progress=True, **shared)
    except FaultyData as error:
        print("\n".join(error.lines), file=sys.stderr)
        raise UserError(error.summary) from None
    print(summary(made.prepared, [printable(name) for name in made.description.cameras]))
    print(f"{made.description.kind}; splits {made.description.split}")
    print("\n".join([protocol.describe() for protocol in made.description.protocols]))
    for note in made.notes:
        print(f"note: {note}")
    print(f"card: {made.prepared.directory / catalogue.CARD}")
    print(f"contact sheet: {made.prepared.directory / catalogue.SHEET}")
