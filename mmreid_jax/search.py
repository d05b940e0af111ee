"""Ranked matches for a folder: ``python -m mmreid_jax.search --checkpoint DIR --query DIR --gallery DIR``.

With a model of TVI-LFM's text stage the query may be a description, an infrared image or both:
``--text "a man in a red jacket with a backpack" --image ir.png --gallery DIR``.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmreid_jax.data import folder, tokenizer
from mmreid_jax.data.images import decode_sample
from mmreid_jax.data.records import Records, View
from mmreid_jax.errors import UserError, run_command
from mmreid_jax.extract import Extractor, add_model_flags, describe, open_model
from mmreid_jax.methods.base import Comparison
from mmreid_jax.retrieval import distances
from mmreid_jax.visualize import images as drawing
from mmreid_jax.visualize import search_page


def nearest(query: np.ndarray, gallery: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The closest gallery rows of each query, best first, equal ones in the order of the gallery.

    Args:
      query: features [Q, D] of length one.
      gallery: features [G, D] of length one.
      top: how many.

    Returns:
      (int [Q, K] gallery rows, float32 [Q, K] squared Euclidean distances), K = min(top, G).
    """
    apart = distances.squared_euclidean(query, gallery)
    order = distances.nearest(apart, top)
    return order, np.take_along_axis(apart, order, axis=1)


def write_table(path: Path, queries: Sequence[str], files: np.ndarray, order: np.ndarray, apart: np.ndarray) -> None:
    """A CSV file of all matches: query, rank, match, distance."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("query", "rank", "match", "distance"))
        for name, row, values in zip(queries, order, apart, strict=True):
            for rank, (index, value) in enumerate(zip(row, values, strict=True), start=1):
                writer.writerow((name, rank, files[index], f"{value:.6f}"))


@dataclasses.dataclass(frozen=True)
class Described:
    """A query in words, with an infrared image, or of that image alone.

    Attributes:
      text: what the person looks like, colours included; "" for none.
      image: file of an infrared image; None for none.
      image_text: what the infrared image shows by itself, without colours; a fusion with a filter subtracts it.
    """

    text: str
    image: Path | None
    image_text: str

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
            encoded = self.image.read_bytes()
        else:
            stream = io.BytesIO()
            height, width = extractor.config.data.image_size
            Image.new("RGB", (width, height)).save(stream, "PNG")
            encoded = stream.getvalue()
        zero = np.zeros(1, np.int32)
        file = np.array([self.image.name if self.image else "text"])
        view = {infrared: View(infrared)}
        return Records(str(self.image or "text"), zero - 1, zero, zero, file, view, One(infrared, encoded), zero)

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
    add_model_flags(parser)
    parser.add_argument("--query", help="folder of images, or of one subfolder per modality")
    parser.add_argument("--text", default="", help="instead, or beside --image: what the person looks like")
    parser.add_argument("--image", type=Path, help="instead, or beside --text: an infrared image of the person")
    parser.add_argument(
        "--image_text", default="", help="beside both: what the infrared image shows by itself, without colours"
    )
    parser.add_argument("--feature", default="", help="of both together: fusion or mer (default: the config's)")
    parser.add_argument("--gallery", required=True, help="folder to search, laid out likewise")
    for side in ("query", "gallery"):
        text = "of its images (default: that of the folder's name, else visible)"
        parser.add_argument(f"--{side}_modality", help=text)
    parser.add_argument("--out", type=Path, default=Path("search"), help="folder for matches.csv and search.html")
    parser.add_argument("--top", type=int, default=10, help="matches per query")
    parser.add_argument("--threshold", type=float, help="largest distance that counts as the same (see a run's report)")
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


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    arguments, rest = _parser().parse_known_args(argv)
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; it must be at least 1")
    described = _described(arguments)
    extractor = open_model(arguments, rest)
    opened: dict[str, tuple[Records, tuple[str, ...]]] = {}

    def open_side(side: str, modality: str | None) -> tuple[Records, tuple[str, ...]]:
        opened[side] = folder.open_folder(
            getattr(arguments, side), extractor.method.facts.modalities, modality, one=extractor.one_modality
        )
        print(describe(*opened[side], extractor.one_modality))
        return opened[side]

    if described:
        compared = described.comparison(extractor, arguments.feature)
        gallery, absent = open_side("gallery", compared.gallery[0])
        query = described.features(extractor, compared.feature)
        found = distances.l2_normalise(extractor(gallery, absent, compared.gallery_feature))
        names, summary = [described.name], f"Looked for {described.name} by {compared.name}."
    else:
        records, missing = open_side("query", arguments.query_modality)
        query = extractor(records, missing)
        gallery, absent = open_side("gallery", arguments.gallery_modality)
        found = extractor(gallery, absent)
        names, summary = records.file.tolist(), ""
    order, apart = nearest(query, found, arguments.top)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_table(arguments.out / "matches.csv", names, gallery.file, order, apart)

    def images(side: str, row: int) -> dict[str, np.ndarray]:
        if described and side == "query":
            return described.shown(extractor)
        records = opened[side][0]
        present = {name: view for name, view in records.views.items() if view.image == name}
        whole = decode_sample(records, row, records.encoded([row])[0], truncated=True)
        return {name: whole[name] for name in present}

    results = search_page.SearchResults(order, apart, list(gallery.file), arguments.threshold)
    page = search_page.write_search_page(arguments.out, names, results, images, summary=summary, top=arguments.top)
    for name, row, values in list(zip(names, order, apart, strict=True))[:20]:
        matches = ", ".join(f"{gallery.file[i]} ({value:.3f})" for i, value in zip(row[:3], values[:3], strict=True))
        print(f"{name}: {matches}")
    print(f"matches: {arguments.out / 'matches.csv'}\npage: {page}")


if __name__ == "__main__":
    run_command(main)
