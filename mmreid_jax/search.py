"""Ranked matches for a folder: ``python -m mmreid_jax.search --checkpoint DIR --query DIR --gallery DIR``.

With a model of TVI-LFM's text stage the query may be a description, an infrared image or both:
``--text "a man in a red jacket with a backpack" --image ir.png --gallery DIR``.

Query and gallery may also be feature files of ``python -m mmreid_jax.extract`` (``.npz``, or the folder of many images)
or a ``.npy`` file of features [N, D]; no checkpoint is needed where both are. A gallery of millions streams by from the
disk, over all devices and the processes of a job (see training/distributed.py); the page then shows names alone.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmreid_jax import feature_files
from mmreid_jax.data import folder, listing, tokenizer
from mmreid_jax.data.images import decode_sample
from mmreid_jax.data.records import Records, ValueRange, View, check_value_range
from mmreid_jax.errors import UserError, printable, run_command
from mmreid_jax.extract import (
    Extractor,
    add_image_flags,
    add_model_flags,
    describe,
    list_left_out,
    open_images,
    open_model,
)
from mmreid_jax.methods.base import Comparison
from mmreid_jax.paths import check_output, file_problem, path_of, write_or_rescue
from mmreid_jax.retrieval import distances, streamed
from mmreid_jax.retrieval.distances import Kind
from mmreid_jax.training import distributed
from mmreid_jax.visualize import images as drawing
from mmreid_jax.visualize import search_page

_ROUNDING = 1e-5
"""Share of the largest number by which features of the same image may differ."""


def write_table(path: Path, queries: Sequence[str], files: np.ndarray, order: np.ndarray, apart: np.ndarray) -> None:
    """A CSV file of all matches: query, rank, match, distance; complete or not at all.

    Names are written so that no spreadsheet takes one for a formula: ``=x.png`` becomes ``./=x.png``, which names the
    same file, and all names are quoted, so that no separator in a name begins another cell. Bytes of a name that are
    not UTF-8 are written as ``\\udcff``.

    Args:
      path: of the file.
      queries: names, [Q].
      files: names of the gallery, [G].
      order: int [Q, K], gallery rows, best first; -1 where a query has fewer matches.
      apart: [Q, K], their distances.
    """
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        file.write("query,rank,match,distance\r\n")
        for name, row, values in zip(queries, order, apart, strict=True):
            for rank, (index, value) in enumerate(zip(row, values, strict=True), start=1):
                if index >= 0:
                    writer.writerow((_cell(name), rank, _cell(str(files[index])), f"{value:z.6f}"))
    unfinished.replace(path)


def _cell(name: str) -> str:
    """A name as a cell of a table, which a spreadsheet must not compute."""
    return f"./{name}" if name.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")) else name


def without_themselves(
    query: Side, gallery: Side, order: np.ndarray, values: np.ndarray, top: int, same: Mapping[int, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """The matches without the query images themselves, which are in the gallery as well.

    Of images the same are those with the same bytes, whatever they are called (`copies`); of features those that agree
    (but for rounding) and have the same name.

    Args:
      query: the queries.
      gallery: the gallery.
      order: int [Q, K], gallery rows, best first; K exceeds `top` by as many as a query may lose (of features one).
      values: [Q, K], their distances.
      top: matches to keep for each query.
      same: what `copies` says.

    Returns:
      (order [Q, K'], values [Q, K'], queries that are in the gallery), K' up to `top`; -1 and infinite at the end of a
      row that has fewer.
    """
    kept = np.full((len(order), min(top, order.shape[1])), -1, np.int64)
    distance = np.full(kept.shape, np.inf, values.dtype)
    found = 0
    for row, (indices, apart) in enumerate(zip(order, values, strict=True)):
        if same is not None:
            own = np.isin(indices, same.get(row, []))
        else:
            named = gallery.files[indices] == query.files[row]
            own = np.zeros(len(indices), bool)
            for place in np.flatnonzero(named):
                theirs, ours = np.asarray(gallery.features[indices[place]]), query.features[row]
                own[place] = np.abs(theirs - ours).max() <= _ROUNDING * np.abs(ours).max()
        found += bool(own.any())
        others = np.flatnonzero(~own)[: kept.shape[1]]
        kept[row, : len(others)], distance[row, : len(others)] = indices[others], apart[others]
    return kept, distance, found


def copies(query: Side, gallery: Side) -> dict[int, np.ndarray] | None:
    """Query -> the gallery rows with the same images, of two folders of images; None where one has features alone."""
    if query.records is None or gallery.records is None:
        return None
    source = gallery.records.source
    assert isinstance(source, folder.FolderSource)
    wanted: dict[tuple[int, ...], dict[str, list[int]]] = {}
    for row in range(len(query.files)):
        content = query.records.encoded([row])[0].values()
        sizes = tuple(map(len, content))
        wanted.setdefault(sizes, {}).setdefault(_digest(content), []).append(row)
    found: dict[int, list[int]] = {}
    for row, sizes in enumerate(source.sizes(gallery.records.rows)):
        # Few have the size of a query; only these are read.
        if sizes in wanted:
            for each in wanted[sizes].get(_digest(gallery.records.encoded([row])[0].values()), []):
                found.setdefault(each, []).append(row)
    return {row: np.array(rows) for row, rows in found.items()}


def _digest(content: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in content)).hexdigest()


@dataclasses.dataclass(frozen=True)
class Described:
    """A query in words, with an infrared image, or of that image alone.

    Attributes:
      text: what the person looks like, colours included; "" for none.
      image: file of an infrared image; None for none.
      image_text: what the infrared image shows by itself, without colours; a fusion with a filter subtracts it.
      value_range: how an image of more than 8 bits is scaled.
    """

    text: str
    image: Path | None
    image_text: str
    value_range: ValueRange = ()

    @property
    def name(self) -> str:
        """The query in a line."""
        return " + ".join([*([f'"{self.text}"'] if self.text else []), *([self.image.name] if self.image else [])])

    def comparison(self, extractor: Extractor, feature: str = "") -> Comparison:
        """How the query is compared: by text or image alone, or by the model's own choice for both.

        Args:
          extractor: the model.
          feature: name of a feature of both, as in ``config.eval.feature``; empty: that of the config.

        Raises:
          UserError: the model reads no text, or has no such feature for such a query.
        """
        infrared = extractor.method.facts.modalities[-1]
        found = {each.feature: each for each in extractor.method.protocols() if each.query == (infrared,)}
        if f"text_{infrared}" not in found:
            raise UserError(
                f"this model of {extractor.config.method} reads no text; --text and --image need one of TVI-LFM's text "
                "stage (configs/tvi_sysu.py), other models are searched with --query DIR"
            )
        names = [name.removesuffix(f"_{infrared}") for name in found]
        both = [name for name in names if name not in ("ir", "text")]
        possible = both if self.text and self.image else ["text"] if self.text else ["ir"]
        if feature and feature not in possible:
            given = " and ".join(flag for flag, value in (("--text", self.text), ("--image", self.image)) if value)
            raise UserError(f"--feature {feature} is not made of {given}; choose one of {', '.join(possible)}")
        return found[f"{feature or possible[0]}_{infrared}"]

    def features(self, extractor: Extractor, feature: str) -> np.ndarray:
        """float32 [1, D], of length one."""
        visible, infrared = extractor.method.facts.modalities
        tokens = None
        if self.text:
            words, own = tokenizer.tokenize([self.text, self.image_text])
            tokens = {visible: words, infrared: own}
        rows = extractor(self.records(extractor), feature=feature, tokens=tokens)
        return distances.l2_normalise(rows)

    def records(self, extractor: Extractor) -> Records:
        """A table of the image; of a text alone, of a black one, which its feature does not see."""
        from PIL import Image

        infrared = extractor.method.facts.modalities[-1]
        if self.image:
            encoded = listing.read_file(self.image)
        else:
            stream = io.BytesIO()
            height, width = extractor.config.data.image_size
            Image.new("RGB", (width, height)).save(stream, "PNG")
            encoded = stream.getvalue()
        zero = np.zeros(1, np.int32)
        file = np.array([self.image.name if self.image else "text"])
        view = {infrared: View(infrared)}
        return Records(
            *(printable(self.image or "text"), zero - 1, zero, zero, file, view, One(infrared, encoded), zero),
            value_range=self.value_range,
        )

    def shown(self, extractor: Extractor) -> dict[str, np.ndarray]:
        """What the page shows of the query: the image, or the text on a card."""
        if not self.image:
            return {"text": drawing.card(self.text)}
        records = self.records(extractor)
        return dict(decode_sample(records, 0, records.encoded([0])[0], truncated=True))


@dataclasses.dataclass(frozen=True)
class One:
    """A single image in memory; see `mmreid_jax.data.records.ImageSource`."""

    name: str
    content: bytes

    def __len__(self) -> int:
        return 1

    def encoded(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """See `mmreid_jax.data.records.ImageSource`."""
        return [{self.name: self.content} for _ in indices]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser, required=False)
    parser.add_argument(
        "--query", type=path_of, help="folder of images, or of one subfolder per modality; or a feature file"
    )
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
    parser.add_argument("--with_self", action="store_true", help="let a query find its own image in the gallery")
    parser.add_argument("--out", type=path_of, default=Path("search"), help="folder for matches.csv and search.html")
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


def _embedded(
    arguments: argparse.Namespace, extractor: Extractor, side: str, modality: str | None, feature: str = ""
) -> Side:
    """A side that is a folder of images; `feature`: which of the model's, empty for its usual one."""
    path, flag = getattr(arguments, side), f"--{side}_modality"
    records, absent = open_images(arguments, extractor, path, modality, flag)
    if distributed.is_main():
        print(describe(records, absent, extractor.one_modality))
    return Side(extractor(records, absent, feature), records.file, records)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments, rest = _parser().parse_known_args(argv)
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; it must be at least 1")
    described = _described(arguments)
    check_output(arguments.out, "--out", folder=True)
    distributed.start()
    are_features = {
        name: feature_files.is_feature_file(path) for name in ("query", "gallery") if (path := getattr(arguments, name))
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
        modality, feature = arguments.gallery_modality or arguments.modality, ""
        if are_features["query"]:
            query = _stored(arguments.query)
        else:
            assert extractor
            query = _embedded(arguments, extractor, "query", arguments.query_modality or arguments.modality)
    if are_features["gallery"]:
        gallery = _stored(arguments.gallery)
    else:
        assert extractor
        gallery = _embedded(arguments, extractor, "gallery", modality, feature)
    summary = ""
    if described:
        assert extractor
        query = Side(described.features(extractor, compared.feature), np.array([described.name]))
        if described.image and gallery.records is not None:
            query = dataclasses.replace(query, records=described.records(extractor))
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
    same = None if arguments.with_self else copies(query, gallery)
    # Matches that a query may lose because they are the query itself.
    more = 0 if arguments.with_self else 1 if same is None else max(map(len, same.values()), default=0)
    names = query.files, gallery.files
    count = arguments.top + more
    order, values = streamed.top_k(query.features, gallery.features, count, kind=kind, progress=progress, names=names)
    if kind == "cosine":
        # The squared distance of features of length one, as everywhere else.
        values = 2 * values
    if more:
        order, values, found = without_themselves(query, gallery, order, values, arguments.top, same)
        if found and distributed.is_main():
            which = "queries are" if found > 1 else "query is"
            print(f"{found} {which} also in the gallery and no match of itself (--with_self lets it be)")
    if distributed.is_main():
        table = arguments.out / "matches.csv"
        write_or_rescue(table, lambda path: write_table(path, query.files.tolist(), gallery.files, order, values))

        def images(side: str, row: int) -> dict[str, np.ndarray]:
            if described and extractor and side == "query":
                return described.shown(extractor)
            return (query if side == "query" else gallery).images(row)

        list_left_out(query.records, gallery.records)
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
        shown = [(i, value) for i, value in zip(row[:3], nearest[:3], strict=True) if i >= 0]
        matches = ", ".join(f"{printable(files[i])} ({value:z.3f})" for i, value in shown)
        print(f"{printable(name)}: {matches}")
    print(f"matches: {arguments.out / 'matches.csv'}\npage: {page}")


if __name__ == "__main__":
    run_command(main)
