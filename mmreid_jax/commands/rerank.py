"""Scores of features on disk, as they are and re-ranked.

``python -m mmreid_jax rerank QUERY.npz [GALLERY.npz]``
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax.errors import UserError
from mmreid_jax.paths import check_output, path_of, write_or_rescue
from mmreid_jax.retrieval import distances, metrics, protocols, rerank
from mmreid_jax.retrieval.feature_files import Features, check_values, load
from mmreid_jax.retrieval.matches import check_table, without_themselves, write_table
from mmreid_jax.retrieval.protocols import JUNK_IDENTITY
from mmreid_jax.scoring.retrieval import COLUMNS, RANKS
from mmreid_jax.visualize import tables


def opened(path: Path) -> Features:
    """The samples of a feature file that count, with features that can be compared.

    Raises:
      UserError: see `load`, `check_values` and `without_junk`.
    """
    side = load(path)
    check_values(path, side.features, side.files)
    return without_junk(path, side)


def without_junk(path: Path, side: Features) -> Features:
    """The samples that count: without those of identity -1, where identities are known.

    Raises:
      UserError: none is left.
    """
    if side.labels is None or not np.any(side.labels.identity == JUNK_IDENTITY):
        return side
    kept = side.labels.identity != JUNK_IDENTITY
    if not np.any(kept):
        raise UserError(f"{path}: all {len(kept)} images have the identity {JUNK_IDENTITY}, which does not count")
    labels = metrics.Labels(*(getattr(side.labels, field.name)[kept] for field in dataclasses.fields(metrics.Labels)))
    return dataclasses.replace(side, features=side.features[kept], files=side.files[kept], labels=labels)


def protocol_of(side: Features, name: str | None, distance: str | None) -> protocols.Protocol:
    """The protocol that the flags name, else that of the config behind the features, which are compared as they are.

    Features that say nothing of a data set have the rule of Market-1501.

    Raises:
      UserError: there is no such protocol, data set or distance.
    """
    dataset = side.note.get("dataset", "")
    if name := name or side.note.get("protocol"):
        protocol = datasets.protocol(name, dataset)
    else:
        protocol = datasets.get(dataset).protocols[0] if dataset else protocols.MARKET
    kind = distances.check_kind(distance or side.note.get("distance") or protocol.distance)
    return protocol.compared_by(kind, normalise=False)


def options_of(side: Features, given: dict[str, Any]) -> rerank.RerankOptions:
    """Options of the re-ranking: those given, else those of the config behind the features, else the usual ones."""
    chosen = {**side.note.get("rerank", {}), **{name: value for name, value in given.items() if value is not None}}
    return rerank.RerankOptions(**chosen)


def watch(items: Iterable[Any], total: int, stage: str) -> Iterable[Any]:
    """A progress bar for one stage, where somebody watches."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=stage, disable=not sys.stderr.isatty())


def scores_of(
    distances_of_pairs: np.ndarray, query: Features, gallery: Features, protocol: protocols.Protocol
) -> metrics.Scores:
    """Scores of distances [Q, G] between labelled features."""
    assert query.labels is not None
    assert gallery.labels is not None
    return metrics.evaluate(distances_of_pairs, query.labels, gallery.labels, protocol)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax rerank", description=__doc__)
    parser.add_argument(
        "query", type=path_of, help="feature file of the command extract, or arrays features, identity, camera"
    )
    parser.add_argument("gallery", type=path_of, nargs="?", help="likewise; the query file again if it is not given")
    parser.add_argument("--k1", type=int, help="neighbours that describe a sample (default: of the model's config)")
    parser.add_argument("--k2", type=int, help="neighbours that a description is averaged over")
    parser.add_argument(
        "--lambda", type=float, dest="lambda_value", metavar="SHARE", help="weight of the distance itself"
    )
    parser.add_argument("--rerank_distance", dest="kind", choices=distances.KINDS, help="what the re-ranking squares")
    parser.add_argument("--distance", choices=distances.KINDS, help="of the ranking before")
    parser.add_argument("--protocol", help=f"one of {', '.join(datasets.protocols())} (default: of the data set)")
    parser.add_argument(
        "--matches", type=path_of, metavar="FILE.csv", help="also write the re-ranked matches of every query"
    )
    parser.add_argument("--top", type=int, default=10, help="matches per query in that file")
    arguments = parser.parse_args(argv)
    if arguments.top < 1:
        raise UserError(f"--top is {arguments.top}; it must be at least 1")
    if arguments.matches is not None:
        check_table(arguments.matches)
        check_output(arguments.matches, "--matches")
    query = opened(arguments.query)
    gallery = opened(arguments.gallery) if arguments.gallery else query
    labelled = query.labels is not None and gallery.labels is not None
    if not labelled and arguments.matches is None:
        without = arguments.query if query.labels is None else arguments.gallery
        raise UserError(
            f"{without} has no identities and cameras to score with; extract from images named as the data set names "
            "them, or write matches with --matches FILE.csv"
        )
    protocol = protocol_of(query, arguments.protocol, arguments.distance)
    given = {"k1": arguments.k1, "k2": arguments.k2, "lambda_value": arguments.lambda_value, "distance": arguments.kind}
    options = options_of(query, given)
    memory = rerank.memory_estimate(len(query.features), len(gallery.features), options.k1, options.k2)
    print(
        f"{len(query.features)} queries, {len(gallery.features)} gallery samples, {query.features.shape[1]} dimensions;"
        f" {options.describe()} takes about {memory / 2**30:.2f} GiB",
        flush=True,
    )
    plain = protocol.distances(query.features, gallery.features)
    reranked = rerank.k_reciprocal(query.features, gallery.features, **dataclasses.asdict(options), watch=watch)
    if labelled:
        scores = {
            name: scores_of(values, query, gallery, protocol)
            for name, values in (("as they are", plain), ("re-ranked", reranked))
        }
        rows = {
            name: {"mAP": s.mAP, **{f"R{rank}": s.rank(rank) for rank in RANKS}, "mINP": s.mINP}
            for name, s in scores.items()
        }
        print(tables.text_table(tables.ScoreTable(rows=rows, columns=COLUMNS)))
        first = scores["as they are"]
        print("\n".join(filter(None, (f"{protocol.describe()}; {first.num_valid} queries", first.explain()))))
    if arguments.matches is not None:
        # One more, for a sample is no match of its own.
        order = distances.nearest(reranked, arguments.top + 1)
        values = np.take_along_axis(reranked, order, axis=1)
        sides = (query.files, query.features), (gallery.files, gallery.features)
        order, values, _ = without_themselves(*sides, order, values, arguments.top)
        arguments.matches.parent.mkdir(parents=True, exist_ok=True)
        names = query.files.tolist()
        write_or_rescue(arguments.matches, lambda path: write_table(path, names, gallery.files, order, values))
        print(f"matches: {arguments.matches}")
