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
from mmreid_jax.data import listing
from mmreid_jax.data.images import decode_sample
from mmreid_jax.data.records import Records, check_value_range
from mmreid_jax.datasets import folder
from mmreid_jax.errors import UserError, printable
from mmreid_jax.model import Described, Extractor
from mmreid_jax.paths import check_output, file_problem, path_of, write_or_rescue
from mmreid_jax.retrieval import approximate, distances, feature_files, streamed, thresholds
from mmreid_jax.retrieval.distances import Kind
from mmreid_jax.retrieval.matches import check_table, without_themselves, write_table
from mmreid_jax.training import distributed
from mmreid_jax.visualize import search_page

TABLE = "matches.csv"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser, required=False)
    text = "folder of images, or of one subfolder per modality; or a feature file"
    parser.add_argument("--query", type=path_of, help=text)
    parser.add_argument("--text", default="", help="instead, or beside --image: what the person looks like")
    parser.add_argument("--image", type=path_of, help="instead, or beside --text: an infrared image of the person")
    parser.add_argument(
        "--image_text", default="", help="beside both: what the infrared image shows by itself, without colours"
    )
    parser.add_argument("--feature", default="", help="of both together: fusion or mer (default: the config's)")
    text = "folder to search, laid out likewise; or a feature file"
    parser.add_argument("--gallery", type=path_of, required=True, help=text)
    for side in ("query", "gallery"):
        text = "of its images: rgb, nir, tir, thermal ... (default: that of the folder's name)"
        parser.add_argument(f"--{side}_modality", help=text)
    parser.add_argument("--modality", help="of the images of both, where they are of one")
    add_image_flags(parser)
    text = "modalities of the side whose features are given, where they are others: rgb,tir (extract --against)"
    parser.add_argument("--against", default="", help=text)
    parser.add_argument("--with_self", action="store_true", help="let a query find its own image in the gallery")
    parser.add_argument("--out", type=path_of, default=Path("search"), help="folder for matches.csv and search.html")
    text = "search approximately by this program's index, and say how many of the exact matches were found"
    parser.add_argument("--index", choices=approximate.INDICES, help=text)
    parser.add_argument("--top", type=int, default=10, help="matches per query")
    parser.add_argument(
        "--threshold",
        type=float,
        help="largest distance that counts as the same (default: what calibrate has measured of the model)",
    )
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
    if arguments.image and (problem := file_problem(arguments.image, listing.MOST_BYTES)):
        raise UserError(
            f"the image {printable(arguments.image)} cannot be read ({problem}); give an infrared image with --image"
        )
    if arguments.image_text and not (arguments.text and arguments.image):
        raise UserError("--image_text goes with both --text and --image; leave it out")
    chosen = check_value_range(arguments.value_range or ())
    return Described(arguments.text.strip(), arguments.image, arguments.image_text, chosen)


@dataclasses.dataclass(frozen=True)
class Side:
    """Queries or gallery.

    Attributes:
      features: float [N, D].
      files: str [N], names of the samples.
      records: the images; None where only their features are given.
      seen: modalities that the model has seen of them.
    """

    features: np.ndarray
    files: np.ndarray
    records: Records | None = None
    seen: tuple[str, ...] = ()

    def images(self, row: int) -> dict[str, np.ndarray]:
        """What the page shows of a sample; nothing where there are no images."""
        if self.records is None:
            return {}
        present = {name: view for name, view in self.records.views.items() if view.image == name}
        whole = decode_sample(self.records, row, self.records.encoded([row])[0], truncated=True)
        return {name: whole[name] for name in present}


def _stored(path: Path) -> Side:
    """A side of which only the features are given, of modalities that its file need not say."""
    stored = feature_files.load(path)
    if distributed.is_main():
        print(f"{path}: features of {len(stored.features)} samples, {stored.features.shape[1]} numbers each")
    return Side(stored.features, stored.files)


@dataclasses.dataclass(frozen=True)
class Opened:
    """A side that is a folder of images, before they are embedded.

    Attributes:
      records: the images.
      absent: modalities of which there are none.
    """

    records: Records
    absent: tuple[str, ...]

    @property
    def seen(self) -> tuple[str, ...]:
        """Modalities of which there are images."""
        return tuple(name for name in self.records.modalities if name not in self.absent)

    def embedded(self, extractor: Extractor, feature: str = "") -> Side:
        """With features; `feature`: which of the model's, empty for its usual one."""
        return Side(extractor(self.records, self.absent, feature), self.records.file, self.records, self.seen)


def _opened(arguments: argparse.Namespace, extractor: Extractor, side: str, modality: str | None) -> Opened:
    """A side that is a folder of images."""
    path, flag = getattr(arguments, side), f"--{side}_modality"
    records, absent = open_images(arguments, extractor, path, modality, flag)
    if distributed.is_main():
        print(describe(records, absent, extractor.one_modality))
    return Opened(records, absent)


def _compared(extractor: Extractor, query: Opened, gallery: Opened) -> tuple[Side, Side]:
    """Both sides with the features by which images of their modalities are compared."""
    if extractor.one_modality or query.seen == gallery.seen:
        return query.embedded(extractor), gallery.embedded(extractor)
    pair = (query, gallery), (gallery, query)
    asked, searched = (one.embedded(extractor, extractor.feature_between(one.seen, two.seen)) for one, two in pair)
    return asked, searched


def _threshold(arguments: argparse.Namespace, query: Side, gallery: Side) -> float | None:
    """The threshold that is given, else the one that was measured of this model for such queries and galleries."""
    if arguments.threshold is not None or not arguments.checkpoint:
        return arguments.threshold
    key = query.seen, gallery.seen, arguments.which
    for each in thresholds.read(arguments.checkpoint):
        if (each.query, each.gallery, each.which) == key:
            print(f"threshold of {arguments.checkpoint / thresholds.FILE}, {each.describe()}")
            if len(gallery.files) > 2 * each.gallery_size:
                print(
                    f"note: it was measured on {each.gallery_size} gallery samples; in more there are more false alarms"
                )
            return each.distance
    return None


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments, rest = _parser().parse_known_args(argv)
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; it must be at least 1")
    if arguments.index:
        approximate.check_installed(arguments.index)
        if arguments.resumable:
            raise UserError("--index searches in one piece; leave out --resumable")
    described = _described(arguments)
    check_table(arguments.out / TABLE)
    search_page.check_target(arguments.out)
    check_output(arguments.out, "--out", folder=True)
    if arguments.threshold is None and arguments.checkpoint:
        # One that cannot be read is said before the work.
        thresholds.read(arguments.checkpoint)
    distributed.start()
    if arguments.index and jax.process_count() > 1:
        raise UserError("--index searches in one process; leave it out in a job of several")
    are_features = {
        name: feature_files.is_feature_file(path) for name in ("query", "gallery") if (path := getattr(arguments, name))
    }
    extractor = None
    if described or not all(are_features.values()):
        if not arguments.checkpoint:
            raise UserError("name the model with --checkpoint; only a search of features by features needs none")
        extractor = open_model(arguments, rest)
    sides = {name: _stored(getattr(arguments, name)) for name, stored in are_features.items() if stored}
    modalities = {name: getattr(arguments, f"{name}_modality") or arguments.modality for name in ("query", "gallery")}
    feature, summary = "", ""
    if described:
        assert extractor
        compared = described.comparison(extractor, arguments.feature)
        modalities["gallery"], feature = compared.gallery[0], compared.gallery_feature
    folders = [name for name, stored in are_features.items() if not stored]
    if folders:
        assert extractor
        opened = {name: _opened(arguments, extractor, name, modalities[name]) for name in folders}
        if len(opened) == 2:
            sides["query"], sides["gallery"] = _compared(extractor, opened["query"], opened["gallery"])
        else:
            ((name, side),) = opened.items()
            if against := names_in(arguments.against):
                feature = extractor.feature_between(side.seen, against)
            sides[name] = side.embedded(extractor, feature)
    gallery = sides["gallery"]
    if described:
        assert extractor
        query = Side(described.features(extractor, compared.feature), np.array([described.name]))
        if described.image and gallery.records is not None:
            query = dataclasses.replace(query, records=described.records(extractor))
        if gallery.records is not None:
            gallery = dataclasses.replace(gallery, features=distances.l2_normalise(gallery.features))
        summary = f"Looked for {described.name} by {compared.name}."
    else:
        query = sides["query"]
    if query.features.shape[1:] != gallery.features.shape[1:]:
        raise UserError(
            f"queries have {query.features.shape[1]} features and the gallery {gallery.features.shape[1]}; extract"
            " both with the same model"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    progress = streamed.Progress(arguments.out / "search.progress") if arguments.resumable else None
    # A description is compared by the angle; stored features may be of any length.
    kind: Kind = "cosine" if described and gallery.records is None else "squared_euclidean"
    same = None if arguments.with_self else copies(query, gallery)
    # Matches that a query may lose because they are the query itself.
    more = 0 if arguments.with_self else 1 if same is None else max(map(len, same.values()), default=0)
    names = query.files, gallery.files
    count = arguments.top + more
    if arguments.index:
        vectors = query.features, gallery.features
        if kind == "cosine":
            # At length one the order of distances is that of angles.
            vectors = distances.l2_normalise(vectors[0]), distances.l2_normalise(vectors[1])
        order, values, recall = approximate.top_k(arguments.index, *vectors, count)
        values = values / 2 if kind == "cosine" else values
        print(f"{arguments.index} found {recall:.1%} of the exact {order.shape[1]} nearest")
    else:
        order, values = streamed.top_k(
            query.features, gallery.features, count, kind=kind, progress=progress, names=names
        )
    if kind == "cosine":
        # The squared distance of features of length one, as everywhere else.
        values = 2 * values
    if more:
        named = (query.files, query.features), (gallery.files, gallery.features)
        order, values, found = without_themselves(*named, order, values, arguments.top, same)
        if found and distributed.is_main():
            which = "queries are" if found > 1 else "query is"
            print(f"{found} {which} also in the gallery and no match of itself (--with_self lets it be)")
    if distributed.is_main():
        table = arguments.out / TABLE
        write_or_rescue(table, lambda path: write_table(path, query.files.tolist(), gallery.files, order, values))

        def images(side: str, row: int) -> dict[str, np.ndarray]:
            if described and extractor and side == "query":
                return described.pictures(extractor)
            return (query if side == "query" else gallery).images(row)

        list_left_out(query.records, gallery.records)
        threshold = arguments.threshold if described else _threshold(arguments, query, gallery)
        _present(arguments, threshold, query.files.tolist(), gallery.files, order, values, images, summary)
    if progress:
        progress.done()


def copies(query: Side, gallery: Side) -> dict[int, np.ndarray] | None:
    """Query -> the gallery rows with the same images; None where one side has features alone."""
    if query.records is None or gallery.records is None:
        return None
    return folder.copies(query.records, gallery.records)


def _present(
    arguments: argparse.Namespace,
    threshold: float | None,
    names: list[str],
    files: np.ndarray,
    order: np.ndarray,
    values: np.ndarray,
    images: Callable[[str, int], dict[str, np.ndarray]],
    summary: str,
) -> None:
    """Writes the page and prints the first matches of the first queries."""
    results = search_page.SearchResults(order, values, files.tolist(), threshold)
    page = search_page.write_search_page(arguments.out, names, results, images, summary=summary, top=arguments.top)
    for name, row, nearest in list(zip(names, order, values, strict=True))[:20]:
        shown = [(i, value) for i, value in zip(row[:3], nearest[:3], strict=True) if i >= 0]
        matches = ", ".join(f"{printable(files[i])} ({value:z.3f})" for i, value in shown)
        nobody = threshold is not None and not any(value <= threshold for _, value in shown)
        print(f"{printable(name)}: {f'nobody; nearest {matches}' if nobody else matches}")
    print(f"matches: {arguments.out / TABLE}\npage: {page}")
