"""Measures which distance says "nobody": the threshold of a trained model for a wanted rate of false alarms.

``python -m mmreid_jax calibrate --checkpoint DIR [--far 0.05] [--dataset NAME]``

Queries and gallery of the model's data, or of another data set, are searched as in an evaluation. The threshold is
stored beside the checkpoint, where ``search`` finds it: a query without a match up to it is then answered by "nobody".
A picture shows false alarms (FAR), misses (FRR) and people found first (DIR) at every threshold; intervals draw
identities.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from typing import Any

import mmreid_jax.datasets as datasets
from mmreid_jax.commands.options import add_model_flags, open_model
from mmreid_jax.errors import UserError
from mmreid_jax.model import Model
from mmreid_jax.paths import check_output, path_of
from mmreid_jax.retrieval import open_set, thresholds
from mmreid_jax.retrieval.protocols import Protocol
from mmreid_jax.scoring.retrieval import Result, protocols_of
from mmreid_jax.visualize.open_set import open_set_picture


def measure(result: Result, protocol: Protocol, wanted: float) -> tuple[open_set.Searches, dict[str, Any]]:
    """The searches of an evaluation, and the numbers of the threshold for a wanted false-alarm rate.

    Raises:
      UserError: the rate is no share, nothing can be measured, or no threshold is low enough.
    """
    found = open_set.searches(result.distances, result.query, result.gallery, protocol)
    threshold = open_set.threshold_at(found, wanted)
    at = open_set.rates(found, threshold)
    if not at.threshold > float("-inf"):
        raise UserError(
            f"no threshold keeps false alarms at {wanted:g}: the nearest pairs of all are of different people; ask for "
            "a larger --far, or train a better model"
        )
    rates = functools.partial(open_set.rates, threshold=threshold)
    return found, {
        "distance": threshold,
        "wanted": wanted,
        "false_alarms": at.false_alarms,
        "false_alarms_interval": open_set.interval(found, lambda some: rates(some).false_alarms),
        "found": at.found,
        "found_interval": open_set.interval(found, lambda some: rates(some).found),
        "queries": len(result.query),
        "gallery_size": len(result.gallery),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax calibrate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_flags(parser)
    parser.add_argument("--far", type=float, default=0.05, help="wanted rate of false alarms (default %(default)s)")
    parser.add_argument("--dataset", default="", help="to measure on (default: that of the model's config)")
    parser.add_argument("--data_dir", type=path_of, help="folder of prepared data sets (default: that of the config)")
    arguments, rest = parser.parse_known_args(argv)
    if not 0 < arguments.far < 1:
        raise UserError(f"--far is {arguments.far}; it must lie between 0 and 1, as in 0.01")
    check_output(arguments.checkpoint / thresholds.FILE, "--checkpoint")
    model = Model(open_model(arguments, rest))
    config = model.config
    if config.eval.rerank or not config.eval.normalize:
        raise UserError(
            "a threshold is measured on distances between features of length one; it cannot be where the config says "
            "--config.eval.rerank=True or --config.eval.normalize=False"
        )
    dataset, data_dir = arguments.dataset or config.data.dataset, str(arguments.data_dir or config.data.data_dir)
    by_name = {each.name: each for each in model.method.comparisons()}
    # The usual protocol of each direction.
    usual: dict[Any, str] = {}
    for each in datasets.get(dataset, data_dir).protocols:
        usual.setdefault(each.direction, each.name)
    measured = []
    for name in usual.values():
        result = model.evaluate(arguments.dataset, data_dir=arguments.data_dir, protocol=name)[0]
        config.eval.protocol = name
        (protocol,) = protocols_of(dataset, config.eval, data_dir)
        found, numbers = measure(result, protocol, arguments.far)
        comparison = by_name[result.comparison]
        numbers["distance"] = thresholds.squared(numbers["distance"], protocol.distance)
        measured.append(
            thresholds.Threshold(
                **numbers,
                query=comparison.query,
                gallery=comparison.gallery,
                dataset=dataset,
                protocol=result.protocol,
                which=arguments.which,
            )
        )
        stem = f"threshold_{'_'.join(comparison.query)}_to_{'_'.join(comparison.gallery)}"
        curve = open_set.curve(found)
        curve[:, 0] = [thresholds.squared(value, protocol.distance) for value in curve[:, 0]]
        picture = open_set_picture(curve, measured[-1].distance, name=stem, title=f"{dataset}, {result.comparison}")
        print(measured[-1].describe())
        print(f"picture: {picture.write(arguments.checkpoint / 'figures')}")
    print(
        f"{measured[0].queries} queries, {measured[0].gallery_size} gallery samples; in a larger gallery more searches"
    )
    print("for somebody absent find anybody. The threshold was chosen on these data: others will differ.")
    print(f"threshold: {thresholds.write(arguments.checkpoint, measured)}, which search uses")
