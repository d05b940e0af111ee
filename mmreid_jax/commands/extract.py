"""Features of a folder of images.

``python -m mmreid_jax extract --checkpoint DIR --images DIR --out FILE.npz``

``--format parquet`` or ``npy`` writes what vector data bases read (docs/vector_search.md): rows of length one with id,
file, camera and modality. With ``--out DIR`` the features of many images are written to a folder as they come, so that
memory holds a batch of them, an interrupted command goes on where it stopped, and the processes of a job
(``JAX_COORDINATOR_ADDRESS`` and so on, see training/distributed.py) take a slice of the images each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from mmreid_jax.commands.options import (
    add_image_flags,
    add_model_flags,
    describe,
    list_left_out,
    names_in,
    open_images,
    open_model,
)
from mmreid_jax.datasets import folder
from mmreid_jax.errors import UserError
from mmreid_jax.model import note_of
from mmreid_jax.paths import check_output, path_of, write_or_rescue
from mmreid_jax.retrieval import metrics, vectors
from mmreid_jax.retrieval.feature_files import Features, check_target, save, write
from mmreid_jax.training import distributed

FORMATS = ("npy", "parquet")
"""Of files for other programs."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax extract", description=__doc__)
    add_model_flags(parser)
    text = "folder of images, or of one subfolder per modality"
    parser.add_argument("--images", type=path_of, required=True, help=text)
    parser.add_argument("--modality", help="of the images: rgb, nir, tir, thermal ... (default: the folder's name)")
    parser.add_argument("--out", required=True, type=path_of, help="the file to write, or a folder of features")
    parser.add_argument("--format", choices=("npz", *FORMATS), help="of the file (default: its ending)")
    text = "of the numbers of --format npy and parquet (default: %(default)s)"
    parser.add_argument("--dtype", choices=vectors.DTYPES, default=vectors.DTYPES[0], help=text)
    add_image_flags(parser)
    text = "modalities of the images that these will be compared with, where they are others: rgb,tir"
    parser.add_argument("--against", default="", help=text)
    arguments, rest = parser.parse_known_args(argv)
    kind = arguments.format or (ending if (ending := arguments.out.suffix[1:]) in ("npz", *FORMATS) else "")
    if kind and arguments.out.suffix != f".{kind}":
        raise UserError(f"--out {arguments.out} must end with .{kind} for --format {kind}")
    if arguments.dtype != vectors.DTYPES[0] and kind not in FORMATS:
        raise UserError(f"--dtype goes with --format {' and '.join(FORMATS)}; feature files hold float32")
    single = bool(kind)
    (vectors.check_target if kind in FORMATS else check_target)(arguments.out)
    check_output(arguments.out, "--out", folder=not single)
    distributed.start()
    if single and jax.process_count() > 1:
        raise UserError(f"several processes cannot write {arguments.out} together; name a folder with --out")
    extractor = open_model(arguments, rest)
    records, absent = open_images(arguments, extractor, arguments.images, arguments.modality, "--modality")
    check_output(arguments.out, "--out", folder=not single, size=4 * len(records) * extractor.width)
    against = names_in(arguments.against)
    seen = [name for name in records.modalities if name not in absent]
    feature = extractor.feature_between(seen, against) if against else ""
    dataset = extractor.config.data.dataset
    labelled = folder.with_labels(records, dataset)
    if distributed.is_main():
        print(describe(records, absent, extractor.one_modality))
        known = f"read off the file names, as {dataset} writes them" if labelled else "not known"
        print(f"identities and cameras: {known}")
    labels = None if labelled is None else metrics.Labels(labelled.identity, labelled.camera, labelled.scene)
    note = note_of(extractor, arguments.checkpoint, () if extractor.one_modality else absent)
    note |= {"feature": feature} if feature else {}
    if single:
        features = extractor(records, absent, feature)

        def write_file(path: Path) -> None:
            if kind in FORMATS:
                vectors.write(path, features, records.file, labels, ",".join(seen), note, arguments.dtype)
            else:
                save(path, Features(features, records.file, labels, note))

        write_or_rescue(arguments.out, write_file)
        count, width = features.shape
    else:

        def rows(start: int, stop: int) -> Iterator[np.ndarray]:
            some = np.arange(start, stop)
            return extractor.pieces(records.select(some), absent, feature) if len(some) else iter(())

        count, width = write(arguments.out, records.file, labels, note, extractor.fingerprint(), rows)
    if distributed.is_main():
        list_left_out(records)
        length = " (length 1)" if extractor.config.eval.normalize else ""
        print(f"{count} x {width} features{length}: {arguments.out}")
