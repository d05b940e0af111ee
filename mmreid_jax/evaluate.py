"""Evaluation: embed query and gallery, compare them under a protocol, print and keep the scores, write the report."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax.data.records import Records
from mmreid_jax.experiment import Experiment, open_experiment
from mmreid_jax.methods.base import Comparison, Variables
from mmreid_jax.retrieval import distances, metrics, protocols, rerank
from mmreid_jax.training import checkpoints, distributed, logs, step

RANKS = (1, 5, 10, 20)
SINGLE_SHOTS = 10
SCORES_FILE = "scores.jsonl"
COLUMNS = ("mAP", *(f"R{rank}" for rank in RANKS), "mINP")


@dataclasses.dataclass(frozen=True)
class Result:
    """One evaluation.

    Attributes:
      label: what was evaluated, such as ``trained`` or ``trained, M(RGB)``.
      comparison: which features were compared.
      scores: of the protocol.
      protocol: its name and version, with what was done beside it (re-ranking).
      distances: float32 [Q, G], for pictures.
    """

    label: str
    comparison: str
    scores: metrics.Scores
    protocol: str
    distances: np.ndarray

    def row(self) -> dict[str, Any]:
        """Scores between 0 and 1 by name, with label, comparison and protocol: a line of `SCORES_FILE`."""
        ranks = {f"R{rank}": self.scores.rank(rank) for rank in RANKS}
        values = {"mAP": self.scores.mAP, **ranks, "mINP": self.scores.mINP}
        counts = {"queries": self.scores.num_valid, "skipped": self.scores.num_skipped}
        return {"label": self.label, "comparison": self.comparison, "protocol": self.protocol, **values, **counts}


class Embedder:
    """Embeds tables; compiles one program for each set of absent modalities."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._compiled: dict[tuple[str, ...], Callable[..., dict[str, Any]]] = {}

    def __call__(
        self, variables: Variables, records: Records, names: Sequence[str], absent: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Features of all samples of a table.

        Args:
          variables: of the method, placed on the devices.
          records: the table, N samples.
          names: which features of `Method.embed`.
          absent: modalities that the network does not get to see.

        Returns:
          Name -> float32 [N, D].
        """
        key = tuple(absent)
        if key not in self._compiled:
            pure = step.embed_step(self.experiment.method.embed, self.experiment.normalization, key)
            self._compiled[key] = self.experiment.parallel.jit_embed(pure)
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        seen = 0
        with self.experiment.evaluation_batches(records) as batches:
            for batch in batches:
                # Padding rows follow the last sample of the global batch, whatever part of it this process loaded.
                on_device = {name: value for name, value in batch.items() if name not in ("valid", "index")}
                features = self._compiled[key](variables, self.experiment.parallel.place_batch(on_device))
                rows = min(len(records) - seen, len(next(iter(features.values()))))
                seen += rows
                for name in names:
                    parts[name].append(np.asarray(features[name])[:rows])
        return {name: np.concatenate(blocks) for name, blocks in parts.items()}


def protocol_of(experiment: Experiment) -> protocols.Protocol:
    """The protocol of the data set, or the one that ``config.eval.protocol`` names, with the distance of the config.

    Raises:
      UserError: there is no such protocol or distance.
    """
    options = experiment.config.eval
    chosen = protocols.by_name(options.protocol) if options.protocol else None
    protocol = chosen or protocols.for_dataset(experiment.config.data.dataset)
    distance = distances.check_kind(options.distance or protocol.distance, "config.eval.distance")
    return dataclasses.replace(protocol, distance=distance, normalise=options.normalize)


def compare(
    experiment: Experiment,
    embedder: Embedder,
    variables: Variables,
    comparison: Comparison,
    label: str,
    absent: Sequence[str] = (),
) -> Result:
    """Scores one comparison.

    Args:
      experiment: with query and gallery.
      embedder: of the experiment.
      variables: placed on the devices.
      comparison: of `Method.protocols`.
      label: for the result.
      absent: modalities missing in query and gallery, beside those that the comparison leaves out.
    """
    splits, options = experiment.splits, experiment.config.eval
    every = experiment.method.facts.modalities
    sides: list[tuple[tuple[Any, ...], np.ndarray]] = []
    for records, given, feature in (
        (splits.query, comparison.query, comparison.feature),
        (splits.gallery, comparison.gallery, comparison.gallery_feature or comparison.feature),
    ):
        missing = tuple(name for name in every if name not in given or name in absent)
        if sides and records is splits.query and (missing, feature) == sides[0][0]:
            sides.append(sides[0])
            continue
        sides.append(((missing, feature), embedder(variables, records, [feature], missing)[feature]))
    protocol = protocol_of(experiment)
    (_, query), (_, gallery) = sides
    apart = protocol.distances(query, gallery)
    said = protocol.label
    if options.rerank:
        chosen = rerank.Options(options.rerank_k1, options.rerank_k2, options.rerank_lambda, options.rerank_distance)
        apart = rerank.k_reciprocal(*protocol.compared(query, gallery), **dataclasses.asdict(chosen))
        said += f", {chosen.describe()}"
    tables = labels_of(splits.query), labels_of(splits.gallery)
    scores = metrics.evaluate(apart, *tables, protocol)
    if options.single_shot:
        cmc = metrics.single_shot_cmc(apart, *tables, protocol, repeats=SINGLE_SHOTS, seed=experiment.config.seed)
        scores = dataclasses.replace(scores, cmc=cmc)
        said += f", ranks of single gallery shots ({SINGLE_SHOTS} draws)"
    return Result(label, comparison.name, scores, said, apart)


def labels_of(records: Records) -> metrics.Labels:
    """Identity, camera and scene of a table, as retrieval wants them."""
    return metrics.Labels(records.identity, records.camera, records.scene)


def run(
    experiment: Experiment, embedder: Embedder, variables: Variables, label: str, missing: bool = False
) -> list[Result]:
    """Scores every comparison of the method, the one that selects checkpoints first.

    With `missing` a comparison of all modalities is also made without each combination of them.
    """
    results: list[Result] = []
    for comparison in experiment.method.protocols():
        own = f"{label}, {comparison.name}" if results else label
        results.append(compare(experiment, embedder, variables, comparison, own))
        if missing and set(comparison.query) == set(experiment.method.facts.modalities):
            for name, absent in protocols.missing_modality_cases(experiment.method.facts.modalities):
                results.append(compare(experiment, embedder, variables, comparison, f"{label}, {name}", absent))
    return results


def keep(workdir: Path, results: Sequence[Result], **extra: Any) -> None:
    """Appends the scores to `SCORES_FILE` of the workdir."""
    if not distributed.is_main():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / SCORES_FILE).open("a") as file:
        for result in results:
            file.write(json.dumps({**result.row(), **extra, "time": round(time.time(), 3)}) + "\n")


def untrained(workdir: Path) -> dict[str, dict[str, float]]:
    """The scores before the first step as a row {"untrained": scores}, where the run's log has them; else nothing."""
    path = workdir / logs.FILE
    entries = logs.read_metrics(path) if path.exists() else []
    found = [entry for entry in entries if entry["kind"] == "eval" and entry["run"] == "train" and entry["step"] == 0]
    return {"untrained": {name: float(found[0][name]) for name in COLUMNS}} if found else {}


def describe(results: Sequence[Result], workdir: Path) -> str:
    """A table of scores for the console, with the protocol and what was skipped."""
    from mmreid_jax.visualize import tables

    rows = {**untrained(workdir), **{r.label: {name: r.row()[name] for name in COLUMNS} for r in results}}
    lines = [tables.text_table(tables.ScoreTable(title="", rows=rows, columns=COLUMNS))]
    first = results[0]
    lines.append(f"protocol {first.protocol}, {first.scores.num_valid} queries, {first.comparison}")
    if first.scores.num_skipped:
        lines.append(first.scores.explain())
    return "\n".join(lines)


def main(config: Any, workdir: Path) -> None:
    """Evaluates ``config.init.checkpoint`` and writes the report.

    The workdir keeps a copy of the model with its config, so that extract and search can use a converted one too.
    """
    from mmreid_jax import report

    experiment = open_experiment(config, workdir)
    variables, meta = experiment.trained_variables()
    placed = experiment.parallel.place_state(variables)
    embedder = Embedder(experiment)
    results = run(experiment, embedder, placed, "evaluated", config.eval.missing_modalities)
    keep(workdir, results, checkpoint=str(config.init.checkpoint), step=meta.get("step"))
    with checkpoints.Checkpoints(workdir / checkpoints.FOLDER) as store:
        if store.latest_step() is None:
            facts = dataclasses.asdict(experiment.method.facts)
            store.save(0, variables, {"config": config.to_dict(), "facts": facts})
    if distributed.is_main():
        print(describe(results, workdir))
        if config.eval.report:
            path = report.write(experiment, placed, results)
            print(f"report: {path}")
