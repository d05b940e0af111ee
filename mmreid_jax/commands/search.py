"""Ranked matches for a folder.

``python -m mmreid_jax search --checkpoint DIR --query DIR --gallery DIR``

With a model of TVI-LFM's text stage the query may be a description, an infrared image or both:
``--text "a man in a red jacket with a backpack" --image ir.png --gallery DIR``.

Query and gallery may also be feature files of ``python -m mmreid_jax extract`` (``.npz``, or the folder of many images)
or a ``.npy`` file of features [N, D]; no checkpoint is needed where both are. A gallery of millions streams by from the
disk, over all devices and the processes of a job (see training/distributed.py); the page then shows names alone.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mmreid_jax.commands.options import add_model_flags, describe, open_model
from mmreid_jax.data.images import decode_sample
from mmreid_jax.data.records import Records
from mmreid_jax.datasets import folder
from mmreid_jax.errors import UserError
from mmreid_jax.model import Described, Extractor
from mmreid_jax.retrieval import distances, feature_files, streamed
from mmreid_jax.retrieval.distances import Kind
from mmreid_jax.retrieval.matches import write_table
from mmreid_jax.training import distributed
from mmreid_jax.visualize import search_page


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser, required=False)
    parser.add_argument("--query", help="folder of images, or of one subfolder per modality; or a feature file")
    parser.add_argument("--text", default="", help="instead, or beside --image: what the person looks like")
    parser.add_argument("--image", type=Path, help="instead, or beside --text: an infrared image of the person")
    parser.add_argument(
        "--image_text", default="", help="beside both: what the infrared image shows by itself, without colours"
    )
    parser.add_argument("--feature", default="", help="of both together: fusion or mer (default: the config's)")
    parser.add_argument("--gallery", required=True, help="folder to search, laid out likewise; or a feature file")
    for side in ("query", "gallery"):
        text = "of its images (default: that of the folder's name, else visible)"
        parser.add_argument(f"--{side}_modality", help=text)
    parser.add_argument("--out", type=Path, default=Path("search"), help="folder for matches.csv and search.html")
    parser.add_argument("--top", type=int, default=10, help="matches per query")
    parser.add_argument("--threshold", type=float, help="largest distance that counts as the same (see a run's report)")
    parser.add_argument(
        "--resumable", action="store_true", help="keep the progress in --out; an interrupted search then goes on"
    )
    return parser


def _described(arguments: argparse.Namespace) -> Described | None:
    """The query in words, or None for a folder; UserError where the flags do not go together."""
    if not (arguments.text.strip() or arguments.image):
        if arguments.query:
            return None
        raise UserError("name what to look for: --query DIR, or --text and --image with a model that reads text")
    if arguments.query:
        raise UserError("--query is a folder of images; leave it out, or --text and --image")
    if arguments.image and not arguments.image.is_file():
        raise UserError(f"there is no file {arguments.image}; give an infrared image with --image")
    if arguments.image_text and not (arguments.text and arguments.image):
        raise UserError("--image_text goes with both --text and --image; leave it out")
    return Described(arguments.text.strip(), arguments.image, arguments.image_text)


@dataclasses.dataclass(frozen=True)
class Side:
    """Queries or gallery.

    Attributes:
      features: float [N, D].
      files: str [N], names of the samples.
      records: the images; None where only their features are given.
    """

    features: np.ndarray
    files: np.ndarray
    records: Records | None = None

    def images(self, row: int) -> dict[str, np.ndarray]:
        """What the page shows of a sample; nothing where there are no images."""
        if self.records is None:
            return {}
        present = {name: view for name, view in self.records.views.items() if view.image == name}
        whole = decode_sample(self.records, row, self.records.encoded([row])[0], truncated=True)
        return {name: whole[name] for name in present}


def _stored(path: Path) -> Side:
    """A side of which only the features are given."""
    stored = feature_files.load(path)
    if distributed.is_main():
        print(f"{path}: features of {len(stored.features)} samples, {stored.features.shape[1]} numbers each")
    return Side(stored.features, stored.files)


def _embedded(extractor: Extractor, path: str, modality: str | None, feature: str = "") -> Side:
    """A side that is a folder of images; `feature`: which of the model's, empty for its usual one."""
    records, absent = folder.open_folder(path, extractor.method.facts.modalities, modality, one=extractor.one_modality)
    if distributed.is_main():
        print(describe(records, absent, extractor.one_modality))
    return Side(extractor(records, absent, feature), records.file, records)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments, rest = _parser().parse_known_args(argv)
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; it must be at least 1")
    described = _described(arguments)
    distributed.start()
    are_features = {
        name: feature_files.is_feature_file(Path(path))
        for name in ("query", "gallery")
        if (path := getattr(arguments, name))
    }
    extractor = None
    if described or not all(are_features.values()):
        if not arguments.checkpoint:
            raise UserError("name the model with --checkpoint; only a search of features by features needs none")
        extractor = open_model(arguments, rest)
    if described:
        assert extractor
        compared = described.comparison(extractor, arguments.feature)
        modality, feature = compared.gallery[0], compared.gallery_feature
    else:
        modality, feature = arguments.gallery_modality, ""
        if are_features["query"]:
            query = _stored(Path(arguments.query))
        else:
            assert extractor
            query = _embedded(extractor, arguments.query, arguments.query_modality)
    if are_features["gallery"]:
        gallery = _stored(Path(arguments.gallery))
    else:
        assert extractor
        gallery = _embedded(extractor, arguments.gallery, modality, feature)
    summary = ""
    if described:
        assert extractor
        query = Side(described.features(extractor, compared.feature), np.array([described.name]))
        if gallery.records is not None:
            gallery = dataclasses.replace(gallery, features=distances.l2_normalise(gallery.features))
        summary = f"Looked for {described.name} by {compared.name}."
    if query.features.shape[1:] != gallery.features.shape[1:]:
        raise UserError(
            f"queries have {query.features.shape[1]} features and the gallery {gallery.features.shape[1]}; extract"
            " both with the same model"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    progress = streamed.Progress(arguments.out / "search.progress") if arguments.resumable else None
    # A description is compared by the angle; stored features may be of any length.
    kind: Kind = "cosine" if described and gallery.records is None else "squared_euclidean"
    order, values = streamed.top_k(query.features, gallery.features, arguments.top, kind=kind, progress=progress)
    if kind == "cosine":
        # The squared distance of features of length one, as everywhere else.
        values = 2 * values
    if distributed.is_main():
        write_table(arguments.out / "matches.csv", query.files.tolist(), gallery.files, order, values)

        def images(side: str, row: int) -> dict[str, np.ndarray]:
            if described and extractor and side == "query":
                return described.pictures(extractor)
            return (query if side == "query" else gallery).images(row)

        _present(arguments, query.files.tolist(), gallery.files, order, values, images, summary)
    if progress:
        progress.done()


def _present(
    arguments: argparse.Namespace,
    names: list[str],
    files: np.ndarray,
    order: np.ndarray,
    values: np.ndarray,
    images: Callable[[str, int], dict[str, np.ndarray]],
    summary: str,
) -> None:
    """Writes the page and prints the first matches of the first queries."""
    results = search_page.SearchResults(order, values, files.tolist(), arguments.threshold)
    page = search_page.write_search_page(arguments.out, names, results, images, summary=summary, top=arguments.top)
    for name, row, nearest in list(zip(names, order, values, strict=True))[:20]:
        matches = ", ".join(f"{files[i]} ({value:.3f})" for i, value in zip(row[:3], nearest[:3], strict=True))
        print(f"{name}: {matches}")
    print(f"matches: {arguments.out / 'matches.csv'}\npage: {page}")
