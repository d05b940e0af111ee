"""Measures which distance says "nobody": the threshold of a trained model for a wanted rate of false alarms.

``python -m mmreid_jax calibrate --checkpoint DIR [--far 0.05] [--dataset NAME]``

Queries and gallery of the model's data, or of another data set, are searched as in an evaluation. The threshold is
stored beside the checkpoint, where ``search`` finds it: a query without a match up to it is then answered by "nobody".
A picture shows false alarms (FAR), misses (FRR) and people found first (DIR) at every threshold; intervals draw
identities.

``python -m mmreid_jax calibrate --features QUERY.npz [--gallery GALLERY.npz] --out DIR`` does the same with labelled
features of any model.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax.commands import rerank
from mmreid_jax.commands.options import add_model_flags, open_model
from mmreid_jax.errors import UserError
from mmreid_jax.model import Model
from mmreid_jax.paths import check_output, path_of
from mmreid_jax.retrieval import open_set, thresholds
from mmreid_jax.retrieval.distances import l2_normalise
from mmreid_jax.retrieval.protocols import Protocol, Table
from mmreid_jax.scoring.retrieval import protocols_of
from mmreid_jax.visualize.open_set import open_set_picture


@dataclasses.dataclass(frozen=True)
class Searched:
    """Queries and gallery, compared.

    Attributes:
      distances: float [Q, G], by the protocol.
      query: labels of the queries.
      gallery: labels of the gallery.
      protocol: says which pairs are left out, and what the distances are.
      dataset: where they are from.
      seen: modalities of queries and of gallery.
      name: of the comparison.
    """

    distances: np.ndarray
    query: Table
    gallery: Table
    protocol: Protocol
    dataset: str
    seen: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    name: str = ""


def measure(searched: Searched, wanted: float, which: str = "") -> tuple[open_set.Searches, thresholds.Threshold]:
    """The searches, and the threshold for a wanted false-alarm rate; `which`: see `thresholds.Threshold`.

    Raises:
      UserError: the rate is no share, nothing can be measured, or no threshold is low enough.
    """
    found = open_set.searches(searched.distances, searched.query, searched.gallery, searched.protocol)
    distance = open_set.threshold_at(found, wanted)
    if not distance > float("-inf"):
        raise UserError(
            f"no threshold keeps false alarms at {wanted:g}: the nearest pairs of all are of different people; ask for "
            "a larger --far, or train a better model"
        )
    at, rates = open_set.rates(found, distance), functools.partial(open_set.rates, threshold=distance)
    query, gallery = searched.seen
    return found, thresholds.Threshold(
        distance=thresholds.squared(distance, searched.protocol.distance),
        query=query,
        gallery=gallery,
        wanted=wanted,
        false_alarms=at.false_alarms,
        false_alarms_interval=open_set.interval(found, lambda some: rates(some).false_alarms),
        found=at.found,
        found_interval=open_set.interval(found, lambda some: rates(some).found),
        queries=len(searched.query.identity),
        gallery_size=len(searched.gallery.identity),
        dataset=searched.dataset,
        protocol=searched.protocol.label,
        which=which,
    )


def of_model(model: Model, dataset: str, data_dir: Path | None) -> list[Searched]:
    """Query and gallery of a data set by the usual protocol of each direction.

    Args:
      model: a trained one.
      dataset: name of a prepared data set; "": that of the model's config.
      data_dir: folder of prepared data sets; None: that of the config.

    Raises:
      UserError: see `Model.evaluate`, or the config compares features in a way that a search does not.
    """
    config = model.config
    if config.eval.rerank or not config.eval.normalize:
        raise UserError(
            "a threshold is measured on distances between features of length one; it cannot be where the config says "
            "--config.eval.rerank=True or --config.eval.normalize=False"
        )
    name, folder = dataset or config.data.dataset, str(data_dir or config.data.data_dir)
    comparisons = {each.name: each for each in model.method.comparisons()}
    usual: dict[Any, str] = {}
    for each in datasets.get(name, folder).protocols:
        usual.setdefault(each.direction, each.name)
    searched = []
    for rule in usual.values():
        result = model.evaluate(dataset, data_dir=data_dir, protocol=rule)[0]
        config.eval.protocol = rule
        (protocol,) = protocols_of(name, config.eval, folder)
        chosen = comparisons[result.comparison]
        seen = chosen.query, chosen.gallery
        searched.append(
            Searched(result.distances, result.query, result.gallery, protocol, name, seen, result.comparison)
        )
    return searched


def of_features(query: Path, gallery: Path | None, protocol: str | None) -> Searched:
    """Labelled features of one file or of two; every sample searches all others of one file.

    Args:
      query: feature file of ``extract``, or arrays features, identity, camera.
      gallery: likewise; None: the queries themselves.
      protocol: name of one; None: that of the features' data set, of Market-1501 where they name none.

    Raises:
      UserError: a file cannot be read or has no labels, or there is no such protocol.
    """
    sides = [rerank.opened(path) for path in (query, gallery or query)]
    for path, side in zip((query, gallery), sides, strict=True):
        if side.labels is None:
            raise UserError(f"{path} has no identities and cameras; a threshold is measured on labelled features alone")
    rule = dataclasses.replace(rerank.protocol_of(sides[0], protocol, None), normalise=True)
    asked, others = (l2_normalise(side.features) for side in sides)
    values = rule.distances(asked, others)
    if gallery is None:
        # Nobody is a match of itself, whatever the protocol excludes.
        np.fill_diagonal(values, np.inf)
    labels = [side.labels for side in sides]
    assert labels[0] is not None
    assert labels[1] is not None
    return Searched(values, labels[0], labels[1], rule, str(sides[0].note.get("dataset", query.name)))


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_flags(parser, required=False)
    parser.add_argument("--far", type=float, default=0.05, help="wanted rate of false alarms (default %(default)s)")
    parser.add_argument("--dataset", default="", help="to measure on (default: that of the model's config)")
    parser.add_argument("--data_dir", type=path_of, help="folder of prepared data sets (default: that of the config)")
    parser.add_argument("--features", type=path_of, metavar="FILE", help="labelled features, in place of --checkpoint")
    parser.add_argument("--gallery", type=path_of, metavar="FILE", help="of those; the same file again if not given")
    parser.add_argument("--protocol", help="of the features (default: of their data set)")
    parser.add_argument(
        "--out", type=path_of, help="folder for threshold and picture (default: that of the checkpoint)"
    )
    arguments, rest = parser.parse_known_args(argv)
    if not 0 < arguments.far < 1:
        raise UserError(f"--far is {arguments.far}; it must lie between 0 and 1, as in 0.01")
    if (arguments.features is None) == (arguments.checkpoint is None):
        raise UserError("name a trained model with --checkpoint, or labelled features with --features, one of both")
    out = arguments.out or arguments.checkpoint
    if out is None:
        raise UserError("name the folder for the threshold of these features with --out")
    check_output(out, "--out", folder=True)
    if arguments.features:
        searched = [of_features(arguments.features, arguments.gallery, arguments.protocol)]
    else:
        searched = of_model(Model(open_model(arguments, rest)), arguments.dataset, arguments.data_dir)
    measured = []
    for each in searched:
        found, threshold = measure(each, arguments.far, arguments.which)
        curve = open_set.curve(found)
        curve[:, 0] = [thresholds.squared(value, each.protocol.distance) for value in curve[:, 0]]
        stem = "_to_".join(filter(None, map("_".join, each.seen)))
        name = "_".join(filter(None, ("threshold", stem)))
        title = ", ".join(filter(None, (each.dataset, each.name)))
        picture = open_set_picture(curve, threshold.distance, name=name, title=title)
        print(threshold.describe())
        print(f"picture: {picture.write(out / 'figures')}")
        measured.append(threshold)
    print(
        f"{measured[0].queries} queries, {measured[0].gallery_size} gallery samples; in a larger gallery more searches"
    )
    print("for somebody absent find anybody. The threshold was chosen on these data: others will differ.")
    used = ", which search uses" if out == arguments.checkpoint else ""
    print(f"threshold: {thresholds.write(out, measured)}{used}")
