"""Draws a data set in its real on-disk layout, for machines that hold no real data.

``python -m mmreid_jax synthesize --dataset rgbnt201 --out DIR [--full] [--contact_sheet FILE.png]``

All trials of a data set (``regdb/trial_3``) are drawn at once: the images are the same.

Prepare it like the real one: ``python -m mmreid_jax prepare --dataset rgbnt201 --manual_dir DIR``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmreid_jax import owned
from mmreid_jax.datasets import drawing
from mmreid_jax.drawn import Summary
from mmreid_jax.paths import check_output, path_of


def _table(summary: Summary) -> str:
    lines = [f"{'split':<10}{'samples':>9}{'identities':>12}{'cameras':>9}"]
    for split, count in summary.counts.items():
        lines.append(f"{split:<10}{count.samples:>9,}{count.identities:>12,}{count.cameras:>9}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax synthesize", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help=f"{', '.join(drawing.names())}, or a module of your own")
    parser.add_argument("--out", required=True, type=path_of, help="folder that gets the data set's folder")
    parser.add_argument("--full", action="store_true", help="the public names and counts instead of a small set")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other people (default 0)")
    parser.add_argument(
        "--identities", type=int, help="identities in each of training and test (default: the data set's)"
    )
    parser.add_argument("--images_per_identity", type=int, help="images of each identity (default: the data set's)")
    parser.add_argument("--cameras", type=int, help="number of cameras (default: the data set's)")
    parser.add_argument(
        "--shift", type=float, help="0...1, how far the test cameras differ from training (default 0.5)"
    )
    parser.add_argument("--image_size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="size of one modality")
    parser.add_argument(
        "--contact_sheet", type=path_of, metavar="FILE.png", help="also write a picture that shows some of the images"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes that draw (default 1; 0: one for each core)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command with these arguments, or those of the process."""
    options = _parser().parse_args(arguments)
    check_output(options.out, "--out", folder=True)
    if options.contact_sheet:
        owned.check_file(options.contact_sheet, owned.is_picture, "contact sheet")
        check_output(options.contact_sheet, "--contact_sheet")
    summary = drawing.draw(
        options.dataset,
        options.out,
        seed=options.seed,
        identities=options.identities,
        images_per_identity=options.images_per_identity,
        cameras=options.cameras,
        full=options.full,
        shift=options.shift,
        image_size=tuple(options.image_size) if options.image_size else None,
        jobs=options.jobs,
        progress=sys.stderr.isatty(),
    )
    print(_table(summary))
    state = "was there already" if summary.reused else "drawn"
    print(f"{summary.files:,} files in {summary.root} ({state})")
    if options.contact_sheet:
        picture = drawing.contact_sheet(options.dataset, summary.root, options.contact_sheet)
        print(f"contact sheet: {picture}")
