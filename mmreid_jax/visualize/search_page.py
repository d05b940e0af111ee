"""The page of a search: every query with its best-ranked gallery samples, for images whose identities nobody knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.owned import check_page
from mmreid_jax.visualize import page
from mmreid_jax.visualize.images import as_uint8
from mmreid_jax.visualize.ranked_lists import Images, Match, RankedList, RankedSample, ranked_lists_picture
from mmreid_jax.visualize.report import LARGEST, fitting
from mmreid_jax.visualize.style import write_bytes

_LISTS_A_PICTURE = 5  # so that a PNG stays small enough to open anywhere


@dataclasses.dataclass(frozen=True)
class SearchResults:
    """What a search found.

    Attributes:
      indices: int [Q, K], rows of the gallery, best first; K may be smaller than the gallery; -1 at the end of a row
        that has fewer.
      distances: float [Q, K].
      gallery: names of the gallery samples, [G].
      threshold: distance up to which a match counts as the same identity; None where no threshold was chosen.
    """

    indices: np.ndarray
    distances: np.ndarray
    gallery: Sequence[str]
    threshold: float | None = None


def write_search_page(
    path: str | Path,
    queries: Sequence[str],
    results: SearchResults,
    images: Images,
    *,
    title: str = "Search results",
    summary: str = "",
    top: int = 10,
    most_queries: int = 60,
    largest: int = LARGEST,
) -> Path:
    """Writes the page as one HTML file, and the same lists as PNG files in the folder ``figures`` beside it.

    Args:
      path: the HTML file, or an existing folder, in which it is then called ``search.html``.
      queries: names of the queries, [Q].
      results: what was found for them.
      images: image getter, called only for the samples shown.
      title, summary: heading of the page and plain text under it.
      top: how many matches of each query are shown.
      most_queries: how many queries are shown; the page says so when it leaves some out.
      largest: bound on the size of the HTML file in bytes.

    Returns:
      The path of the HTML file.

    Raises:
      UserError: there is no query, shapes do not agree, an image is not uint8 [H, W, 3], or a file cannot be written
        or is not this program's.
    """
    _check(queries, results)
    file = _file_of(path)
    check_target(file)
    lists = [_list(row, queries, results, images, top) for row in range(min(len(queries), most_queries))]
    for start in range(0, len(lists), _LISTS_A_PICTURE):
        name = f"{file.stem}_{start // _LISTS_A_PICTURE + 1:03d}"
        ranked_lists_picture(lists[start : start + _LISTS_A_PICTURE], name=name, title=title).write(
            file.parent / "figures"
        )

    def render(size: page.Thumbnails) -> str:
        articles = "".join(page.ranked_list_html(item, size) for item in lists)
        return page.page(
            title,
            [page.PageSection("Queries and their matches", articles)],
            lead=_lead(queries, results, lists, summary),
        )

    write_bytes(file, fitting(render, largest, what=str(file)))
    return file


def check_target(path: str | Path) -> None:
    """Says whether the page may be written to a path, before there is anything to show.

    Raises:
      UserError: a file there, or a picture of the same name, is not this program's.
    """
    file = _file_of(path)
    check_page(file, f"{file.stem}_[0-9]*.png")


def _file_of(path: str | Path) -> Path:
    """The HTML file that a path means."""
    file = Path(path)
    return file / "search.html" if file.is_dir() or not file.suffix else file


def _check(queries: Sequence[str], results: SearchResults) -> None:
    shape = np.shape(results.indices)
    if not len(queries):
        raise UserError("there is no query to show; give the search at least one image.")
    if len(shape) != 2 or shape != np.shape(results.distances) or shape[0] != len(queries):
        raise UserError(
            f"search results must have one row a query: {len(queries)} queries, indices {list(shape)}, "
            f"distances {list(np.shape(results.distances))}."
        )
    if np.size(results.indices) and not -1 <= np.min(results.indices) <= np.max(results.indices) < len(results.gallery):
        raise UserError(f"search results name gallery rows outside 0 to {len(results.gallery) - 1}.")


def _list(row: int, queries: Sequence[str], results: SearchResults, images: Images, top: int) -> RankedList:
    def sample(side: str, index: int, name: str) -> RankedSample:
        decoded = {key: as_uint8(image, f"{side} {name}, {key}") for key, image in images(side, index).items()}
        return RankedSample(decoded, file=name)

    pairs = zip(results.indices[row, :top].tolist(), results.distances[row, :top].tolist(), strict=True)
    limit = np.inf if results.threshold is None else results.threshold
    matches = tuple(
        Match(sample("gallery", index, results.gallery[index]), rank, distance, beyond=distance > limit)
        for rank, (index, distance) in enumerate(pairs, start=1)
        if index >= 0
    )
    comment = ""
    if results.threshold is not None:
        within = int(np.count_nonzero(np.asarray(results.distances[row]) <= results.threshold))
        every = within == results.distances.shape[1] < len(results.gallery)
        comment = {0: "Nobody in the gallery matches: every distance is beyond the threshold."}.get(
            within, f"{'At least ' if every else ''}{within} within the threshold of {results.threshold:.4g}."
        )
    return RankedList(
        sample("query", row, queries[row]), matches, row, gallery_size=len(results.gallery), comment=comment
    )


def _lead(queries: Sequence[str], results: SearchResults, lists: Sequence[RankedList], summary: str) -> str:
    count = f"{len(queries)} quer{'y' if len(queries) == 1 else 'ies'} against {len(results.gallery)} gallery samples."
    if len(lists) < len(queries):
        count += f" The first {len(lists)} queries are shown."
    order = "Matches stand in the order of distance, the nearest first."
    if results.threshold is not None:
        order += f" Those beyond the threshold of {results.threshold:.4g} are faded."
    return page.paragraphs(summary) + page.paragraphs(f"{count} {order}")
