"""Cuts people out of the frames of a video by the boxes of a tracker or detector, into a folder for each identity.

``python -m mmreid_jax crops --mot FILE.txt --frames DIR --camera 1 --out DIR``, or ``--coco FILE.json``. The result is
what ``python -m mmreid_jax prepare --folder DIR --name NAME --pattern "{identity}/c{camera}_f{index}"`` reads
(docs/own_data.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmreid_jax.datasets.own import crops
from mmreid_jax.datasets.own.faults import FaultyData
from mmreid_jax.errors import UserError
from mmreid_jax.paths import path_of


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    usual = crops.CropChoice()
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax crops", description=__doc__.splitlines()[0])
    boxes = parser.add_mutually_exclusive_group(required=True)
    boxes.add_argument("--mot", type=path_of, help="boxes in MOTChallenge's text: frame, id, left, top, width, height")
    keys = ", ".join(crops.IDENTITY_KEYS)
    boxes.add_argument("--coco", type=path_of, help=f"boxes in COCO's JSON, whose annotations have one of {keys}")
    parser.add_argument("--frames", type=path_of, required=True, help="folder of the frames")
    parser.add_argument("--out", type=path_of, required=True, help="folder for the crops; other cameras' may be there")
    parser.add_argument("--camera", default=usual.camera, help="name of the camera (default %(default)s)")
    parser.add_argument("--modality", default=usual.modality, help="of the video, a folder in --out: rgb, thermal ...")
    parser.add_argument("--prefix", default=usual.prefix, help="before identities that are tracks of this video alone")
    parser.add_argument(
        "--every", type=int, default=usual.every, help="one in so many frames of an identity (default %(default)s)"
    )
    parser.add_argument(
        "--least_height", type=int, default=usual.least_height, help="of a box, in pixels (default %(default)s)"
    )
    options = parser.parse_args(arguments)
    choice = crops.CropChoice(options.camera, options.modality, options.prefix, options.every, options.least_height)
    try:
        read = (
            crops.read_mot(options.mot, options.frames)
            if options.mot
            else crops.read_coco(options.coco, options.frames)
        )
        made = crops.cut(read, options.out, choice)
    except FaultyData as error:
        print("\n".join(error.lines), file=sys.stderr)
        raise UserError(error.summary) from None
    small = f"; {made.small} boxes were lower than {choice.least_height} pixels" if made.small else ""
    print(f"{made.crops} crops of {made.identities} identities in {options.out}{small}")
    print(f'prepare them with --folder {options.out} --pattern "{crops.PATTERN}"')
