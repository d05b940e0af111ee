"""Scores of features: distances, re-ranking where it is wanted, and metrics under a protocol, in one call."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import distances, metrics, rerank
from mmreid_jax.retrieval.metrics import FiledTable, Labels, Trials
from mmreid_jax.retrieval.protocols import JUNK_IDENTITY, Protocol, Table


def score(
    query: np.ndarray,
    gallery: np.ndarray,
    query_labels: Table,
    gallery_labels: FiledTable,
    protocol: Protocol,
    options: rerank.RerankOptions | None = None,
) -> tuple[Trials, np.ndarray]:
    """Scores of features under a protocol, and the distances of its first trial.

    Args:
      query: float [Q, D].
      gallery: float [N, D], of the whole pool that galleries are drawn from.
      query_labels: of the rows of `query`.
      gallery_labels: of the rows of `gallery`.
      protocol: how features are compared, which gallery samples a query is not compared with, how galleries are drawn.
      options: of a re-ranking of the gallery of every trial; None for none.

    Returns:
      (scores of all trials, distances [Q, G] to the gallery of the first, or [G, Q] where it searches the queries).

    Raises:
      UserError: see `metrics.evaluate_trials` and `rerank.k_reciprocal`.
    """
    query, gallery = protocol.compared(query, gallery)
    if options is None:
        whole = distances.whole(protocol.distance, query, gallery)
        trials = metrics.evaluate_trials(whole, query_labels, gallery_labels, protocol)
        first = whole[:, protocol.galleries(gallery_labels)[0]] if protocol.gallery else whole
        return trials, first.T if protocol.swapped else first
    scores: list[metrics.Scores] = []
    kept: np.ndarray | None = None
    for rows in protocol.galleries(gallery_labels):
        sides = [(query, query_labels), (gallery[rows], labels_of_rows(gallery_labels, rows))]
        (asked, asked_labels), (searched, searched_labels) = reversed(sides) if protocol.swapped else sides
        values = rerank.k_reciprocal(asked, searched, **dataclasses.asdict(options))
        kept = values if kept is None else kept
        scores.append(metrics.evaluate(values, asked_labels, searched_labels, protocol))
    assert kept is not None
    return Trials(tuple(scores)), kept


def labels_of_rows(table: Table, rows: np.ndarray) -> Labels:
    """The labels of some rows of a table: positions, or bool [N]."""
    return Labels(table.identity[rows], table.camera[rows], table.scene[rows])


@dataclasses.dataclass(frozen=True)
class Filed(Labels):
    """Labels with the names of the files, from which a protocol draws galleries.

    Attributes:
      file: str [N], as the data set names its files.
    """

    file: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, str))


def without_junk(features: np.ndarray, labels: Table, side: str) -> tuple[np.ndarray, Filed]:
    """Features and labels of the samples that count.

    Args:
      features: [N, D].
      labels: of its rows; an attribute ``file`` is taken over where there is one.
      side: names them in messages: ``query`` or ``gallery``.

    Raises:
      UserError: the shapes do not agree.
    """
    columns = {name: np.asarray(getattr(labels, name)) for name in ("identity", "camera", "scene")}
    columns["file"] = np.asarray(getattr(labels, "file", np.full(columns["identity"].shape, "")))
    features = np.asarray(features)
    wrong = {name: list(column.shape) for name, column in columns.items() if column.shape != features.shape[:1]}
    if features.ndim != 2 or wrong:
        listed = ", ".join(f"{name} {shape}" for name, shape in wrong.items()) or "their labels"
        raise UserError(
            f"{side} features are {list(features.shape)}, {listed}; features must be [number, dimension], and every "
            "column of the labels have one value for each of them"
        )
    counts = columns["identity"] != JUNK_IDENTITY
    return features[counts], Filed(**{name: column[counts] for name, column in columns.items()})


def evaluate(
    query: np.ndarray,
    gallery: np.ndarray,
    query_labels: Table,
    gallery_labels: Table,
    protocol: Protocol,
    options: rerank.RerankOptions | None = None,
) -> metrics.Scores | Trials:
    """Scores of features from anywhere; junk (identity -1) is left out. Arguments are those of `score`.

    Returns:
      The scores; of a protocol that draws galleries those of all its trials.

    Raises:
      UserError: shapes do not agree, a feature is not finite, galleries are to be drawn but the labels do not name
        files, and see `score`.
    """
    query, query_table = without_junk(query, query_labels, "query")
    gallery, gallery_table = without_junk(gallery, gallery_labels, "gallery")
    for side, features in (("query", query), ("gallery", gallery)):
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise UserError(f"{side} features hold values that are not finite, first in row {row} of those that count")
    if protocol.gallery and not np.char.str_len(gallery_table.file.astype(str)).all():
        raise UserError(
            f"protocol {protocol.name} draws galleries by the names of files; give gallery labels that have a column "
            "file, such as a table of mmreid_jax.datasets.catalogue.load, or choose a protocol that draws none (plain)"
        )
    trials, _ = score(query, gallery, query_table, gallery_table, protocol, options)
    return trials if protocol.gallery else trials.scores[0]
