"""Gathers what is known of a run that learnt without labels into its HTML report, and the pictures beside it.

As `mmreid_jax.reports.retrieval`, with what such a run has instead of retrieval: how well the orders of shuffled
stripes are recovered, and what the patches of both modalities find in one another. Of the test images only pixels and
file names are read.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmreid_jax.data.images import decode_sample
from mmreid_jax.data.records import Records
from mmreid_jax.embedder import of_few
from mmreid_jax.experiment import Experiment
from mmreid_jax.methods.mmgl import BORDER_ROWS
from mmreid_jax.reports.retrieval import environment
from mmreid_jax.scoring import orders
from mmreid_jax.training import config as configs
from mmreid_jax.training import logs, step
from mmreid_jax.visualize import curves, permutations, report, tables
from mmreid_jax.visualize.images import resize
from mmreid_jax.visualize.style import Picture

CANDIDATES = 64
"""Images of each modality from which examples are chosen and among which neighbours are sought."""
ORDERS, QUERIES, NEIGHBOURS = 4, 3, 3  # examples of each modality, query patches of each, images found for each
KINDS = ("exact", "stripe", "row", "gap", "mixed")
ACCURACY = re.compile(rf"^({'|'.join(KINDS)})_\w+$")


def write(experiment: Experiment, variables: Any, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes ``report.html`` and ``figures/`` into the workdir.

    Args:
      experiment: whose method offers ``examine`` and ``explain``.
      variables: of the model whose examples are shown, placed on the devices.
      rows: of the table, each with a ``label`` and, where the method learns orders, shares by name and modality
        (``exact_rgb``); the headline shows the last.

    Returns:
      Path of the HTML file.
    """
    config, stripes = experiment.config, experiment.config.model.stripes
    modalities = experiment.method.facts.modalities
    scores = score_tables(rows, modalities, stripes)
    page = report.HtmlReport(
        title=f"{config.method.upper()} on {experiment.data_name}",
        summary=summary(rows[-1]["label"], bool(scores), stripes),
        headline=headline(rows[-1], modalities),
        command=" ".join(["python", *map(shlex.quote, sys.argv)]),
        config=configs.flatten(config),
        protocol=explanation(experiment) if scores else "",
        scores=scores,
        curves=charts(logs.entries(experiment.workdir), experiment),
        dataset=facts(experiment),
        extras=examples(experiment, variables),
        footer=environment(),
    )
    return report.write_report(experiment.workdir / "report.html", page)


def summary(label: str, orders: bool, stripes: int) -> str:
    """What was learnt, and what the numbers under it are of."""
    if not orders:
        return (
            f"Learnt without labels, by likening the {stripes} stripes of an image to those of other images, in both "
            f"modalities. The order of stripes was not learnt, so there is none to score. Shown: {label}."
        )
    chance = permutations.chance_levels(stripes)
    return (
        f"Learnt without labels, by telling the order of the {stripes} stripes of shuffled images. The numbers are of "
        f"test images; guessing gets {100 * chance['exact']:.2g} % of the whole orders and "
        f"{100 * chance['stripe']:.1f} % of the stripes. Shown: {label}."
    )


def headline(row: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, float]:
    """The numbers shown large."""
    words_of = {"exact": "whole orders", "stripe": "stripes"}
    return {
        f"{modality.upper()} {words}": float(row[f"{kind}_{modality}"])
        for kind, words in words_of.items()
        for modality in modalities
        if f"{kind}_{modality}" in row
    }


def score_tables(rows: Sequence[Mapping[str, Any]], modalities: Sequence[str], stripes: int) -> list[tables.ScoreTable]:
    """A table for each modality that the rows have numbers of, with the level of guessing as its last row."""
    tables_of = []
    for modality, word in zip(modalities, ("visible", "infrared"), strict=True):
        shares: dict[str, Mapping[str, tables.Score]] = {}
        for row in rows:
            values = {kind: float(row[f"{kind}_{modality}"]) for kind in KINDS if f"{kind}_{modality}" in row}
            if values:
                shares[row["label"]] = values
        if shares:
            shares["guessing"] = permutations.chance_levels(stripes)
            title = f"Recovered orders of {word} images ({modality.upper()}), %"
            tables_of.append(tables.ScoreTable(shares, title=title, columns=KINDS, mark_best=False))
    return tables_of


def explanation(experiment: Experiment) -> str:
    """How orders are tested and what the columns of the tables mean."""
    config = experiment.config
    stripes = config.model.stripes
    rows = min(BORDER_ROWS, (config.data.image_size[0] // stripes - 1) // 2)
    counts = " and ".join(f"{len(table)} {name.upper()}" for name, table in examined(experiment).items())
    return (
        f"Test images ({counts}) are cut into {stripes} horizontal stripes of equal height and put together in a "
        "random order, the same one at every evaluation. The network, with its running statistics, predicts a matrix "
        "that says which stripe stands in which place. Labels are not read.\n\n"
        f"exact: images whose whole order is right in the best assignment of stripes to places; guessing gets 1 in "
        f"{math.factorial(stripes)}. stripe: stripes in the right place in that assignment, and row: places whose "
        f"largest entry of the matrix is right; guessing gets 1 in {stripes}.\n\n"
        f"gap: exact, where every stripe loses its {rows} outermost rows at the top and at the bottom and is stretched "
        "again. mixed: exact, where every stripe comes from another image. In both no edge goes on from one stripe to "
        "the next: where they stay far above guessing, not the cuts but the content of the stripes tells their order."
    )


def charts(entries: Sequence[Mapping[str, Any]], experiment: Experiment) -> list[Picture]:
    """Accuracy over the epochs, training curves, and what tells of collapse: whichever the log has."""
    config = experiment.config
    trained = [entry for entry in entries if entry.get("run") == "train"]
    steps = [entry for entry in trained if entry.get("kind") == "train"]
    pictures = []
    if sum(any(map(ACCURACY.match, entry)) for entry in trained if entry.get("kind") == "eval") > 1:
        caption = (
            "Dotted: the training batches of each epoch, with their own statistics. A wide gap between dotted and "
        )
        caption += "solid lines may mean that the running statistics lag behind, or that images were learnt by heart."
        modalities = experiment.method.facts.modalities
        pictures.append(permutations.accuracy_curves(trained, modalities, config.model.stripes, caption=caption))
    elsewhere = (ACCURACY, permutations.WATCHED)
    plain = [{k: v for k, v in entry.items() if not any(p.match(k) for p in elsewhere)} for entry in steps]
    if plain:
        pictures.append(curves.training_curves(plain))
    if any(permutations.WATCHED.match(key) for entry in steps for key in entry):
        images = config.train.identities_per_batch * config.train.images_per_identity
        patches = config.model.stripes * (1 if config.loss.candidate_scope == "pair" else images)
        levels = {"attention_entropy": (math.log(patches), f"ln {patches}: all candidates alike")}
        caption = "Features of patches collapse where their spread or their effective rank falls towards nothing, or "
        caption += "where the retrieval finds all candidates alike."
        pictures.append(permutations.watch_curves(steps, levels, caption=caption))
    return pictures


def examined(experiment: Experiment) -> dict[str, Records]:
    """The test images that the task is set on, by modality, visible first."""
    most = experiment.config.eval.examined
    by_modality = {
        name: orders.spread(table, most)
        for table in (experiment.splits.gallery, experiment.splits.query)
        for name in table.modalities
    }
    return {name: by_modality[name] for name in experiment.method.facts.modalities}


@dataclasses.dataclass(frozen=True)
class Examined:
    """Test images of one modality from which examples are chosen, and what the network makes of them.

    Attributes:
      modality: its name.
      records: the table of the images, N of them.
      size: height and width at which the network sees them.
      outputs: what `MMGL.explain` says of them, by name: arrays [N, ...].
    """

    modality: str
    records: Records
    size: tuple[int, int]
    outputs: Mapping[str, np.ndarray]

    def image(self, row: int) -> np.ndarray:
        """An image as a viewer wants to see it, its stripes in their own order: uint8 [H, W, 3]."""
        (image,) = decode_sample(self.records, row, self.records.encoded([row])[0], truncated=True).values()
        return resize(image, *self.size)

    def label(self, row: int) -> str:
        """What stands above an image."""
        return f"{self.modality.upper()} {self.records.file[row]}"


def examples(experiment: Experiment, variables: Any) -> list[report.Extra]:
    """The pictures of recovered orders and of neighbours, of the branches that the network has."""
    explain = explainer(experiment, variables)
    height, width = experiment.config.data.image_size
    sides = []
    for modality, table in examined(experiment).items():
        rows = evenly(np.arange(len(table)), CANDIDATES)
        sides.append(Examined(modality, table.select(rows), (int(height), int(width)), explain(table, rows)))
    extras = []
    if all("predicted" in each.outputs for each in sides):
        extras.append(orders_part(experiment.config, sides))
    if all("patches" in each.outputs for each in sides):
        extras.append(neighbours_part(experiment.config, sides))
    return extras


def explainer(experiment: Experiment, variables: Any) -> Callable[[Records, np.ndarray], dict[str, np.ndarray]]:
    """A function (table, rows of it) -> what `MMGL.explain` says of these samples, on the host.

    One process alone draws pictures, on its own devices: nothing here may wait for the others. The orders depend on the
    row of a sample in its table, so images are shuffled as they were when they were scored.
    """
    parallel = step.Parallel(jax.local_devices()[:1])
    placed = parallel.place_state(step.fetch(variables))

    def explain(table: Records, rows: np.ndarray) -> dict[str, np.ndarray]:
        def numbered(batch: dict[str, Any]) -> dict[str, Any]:
            return {"images": batch["images"], "index": rows[batch["index"]].astype(np.int32)}

        function = experiment.method.explain
        embedder = of_few(experiment.config, parallel, function, change=numbered, keep=("index",))
        return embedder(placed, table.select(rows))

    return explain


def evenly(values: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the values, evenly spread over them."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).round().astype(np.int64)]


def right_and_wrong(wrong: np.ndarray, count: int) -> np.ndarray:
    """Rows to show: half of them whole right, half not, from the least to the most wrong, as far as there are such.

    Args:
      wrong: int [N], the stripes in the wrong place of each image.
      count: of rows.
    """
    good = np.flatnonzero(wrong == 0)
    bad = np.argsort(wrong, kind="stable")[len(good) :]
    of_good = min(len(good), max(count // 2, count - len(bad)))
    return np.concatenate([evenly(good, of_good), evenly(bad, count - of_good)])


def orders_part(config: Any, sides: Sequence[Examined]) -> report.Extra:
    """Recovered orders, right and wrong ones, a picture for each modality."""
    pictures = []
    for each in sides:
        orders, assigned = each.outputs["orders"], each.outputs["assigned"]
        wrong = (orders != assigned).sum(axis=1)
        rows = right_and_wrong(wrong, ORDERS)
        chosen = [
            permutations.OrderExample(
                each.image(row), orders[row], assigned[row], each.outputs["predicted"][row], each.label(row)
            )
            for row in map(int, rows)
        ]
        caption = (
            f"{each.modality.upper()}: the whole order is right in {np.sum(wrong == 0)} of {len(wrong)} test images; "
            "shown are as many right as wrong ones, as far as there are any."
        )
        pictures.append(permutations.orders_picture(chosen, name=f"orders_{each.modality}", caption=caption))
    text = (
        "Every row is one image. Numbers are of its stripes, from the top. The network sees the shuffled image and "
        "predicts, for each place (row of the matrix), which stripe of the image stands there (column). Its best "
        "assignment puts the image together again; stripes that do not belong there have a frame and a cross."
    )
    if config.model.stripe_gap:
        text += f" The network sees every stripe without its {config.model.stripe_gap} outermost rows at both ends."
    return report.Extra("Recovered orders", text, pictures)


def neighbours_part(config: Any, sides: Sequence[Examined]) -> report.Extra:
    """What patches find in the other modality and in their own, a picture for each direction."""
    temperature = config.loss.retrieval_temperature or config.loss.cl_temperature
    pictures = []
    for side, other in (sides, sides[::-1]):
        chosen = []
        rows = evenly(np.arange(len(side.records)), QUERIES + 2)[1:-1]  # the first and last images are rarely typical
        stripes = evenly(np.arange(config.model.stripes), QUERIES)
        for row, stripe in zip(map(int, rows), map(int, stripes), strict=False):
            chosen.append(neighbour_example(side, other, row, stripe, temperature))
        caption = f"Stripes of {side.modality.upper()} images, and what they find."
        pictures.append(permutations.neighbours_picture(chosen, name=f"neighbours_{side.modality}", caption=caption))
    text = (
        "The soft nearest neighbour of a stripe (black frame) is a weighted mean of all stripes of "
        f"{len(sides[1].records)} images of the other modality, and likewise of the other images of its own. The "
        f"weights are a softmax of cosine similarities divided by {temperature:g}; features are those of the stripes "
        "in shuffled images. Shown are the images with the largest weights: the more weight a stripe has, the more "
        "colour and the thicker a frame. The queries are spread evenly over the test images, not picked by their "
        "results. "
        "Stripes that show the same part of the body are what one hopes to find; the loss asks for less, namely that "
        "what a stripe finds in both modalities is alike."
    )
    if config.loss.candidate_scope == "pair":
        text += " In training a stripe could choose among those of one image alone."
    return report.Extra("Soft nearest neighbours", text, pictures)


def neighbour_example(
    side: Examined, other: Examined, row: int, stripe: int, temperature: float
) -> permutations.NeighbourExample:
    """What one stripe of image `row` of `own` finds in both tables."""
    order = side.outputs["orders"][row]
    query = side.outputs["patches"][row, int(np.flatnonzero(order == stripe)[0])]
    groups = {}
    rest = np.delete(np.arange(len(side.records)), row)
    for heading, table, rows in (
        (f"{other.modality.upper()}, the other modality", other, np.arange(len(other.records))),
        (f"{side.modality.upper()}, its own modality", side, rest),
    ):
        if not len(rows):
            continue
        patches = table.outputs["patches"][rows]
        weights = permutations.soft_neighbours(query, patches.reshape(-1, patches.shape[-1]), temperature)
        of_stripes = np.zeros(patches.shape[:2])
        np.put_along_axis(of_stripes, table.outputs["orders"][rows], weights.reshape(of_stripes.shape), axis=1)
        best = np.argsort(-of_stripes.sum(axis=1), kind="stable")[:NEIGHBOURS]
        groups[heading] = [permutations.Neighbour(table.image(int(rows[i])), of_stripes[i]) for i in best]
    every = side.outputs["patches"].reshape(-1, len(query))
    place = row * len(order) + int(np.flatnonzero(order == stripe)[0])
    itself = permutations.soft_neighbours(query, every, temperature)[place]
    note = f"among all images of its own modality, {100 * itself:.0f} % of the weight would be on itself"
    label = f"{side.label(row)}, stripe {stripe + 1} of {len(order)}"
    return permutations.NeighbourExample(side.image(row), stripe, groups, label, note)


def facts(experiment: Experiment) -> dict[str, object]:
    """How many images there are; nothing of whom they show."""
    splits, data = experiment.splits, experiment.config.data
    rows: dict[str, object] = {"data set": data.dataset}
    if experiment.drawn:
        rows["origin"] = "drawn, not photographed"
    train = ", ".join(f"{np.sum(splits.train.modality == name)} {name.upper()}" for name in splits.train.modalities)
    rows["training images"] = f"{train}, unpaired and without labels"
    tested = [(name, table) for table in (splits.gallery, splits.query) for name in table.modalities]
    rows["test images"] = ", ".join(f"{len(table)} {name.upper()}" for name, table in tested)
    return rows
