"""Retrieval scores: embed query and gallery, compare them under a protocol, keep and describe the scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax import datasets
from mmreid_jax.data.records import Records
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import Experiment
from mmreid_jax.methods.base import Comparison, Variables
from mmreid_jax.retrieval import distances, metrics, protocols, rerank
from mmreid_jax.training import distributed, logs, step
from mmreid_jax.visualize import tables

RANKS = (1, 5, 10, 20)
SINGLE_SHOTS = 10
ALL = "all"
"""Value of ``config.eval.protocol`` for every protocol of the data set."""
COLUMNS = ("mAP", *(f"R{rank}" for rank in RANKS), "mINP")


@dataclasses.dataclass(frozen=True)
class Result:
    """One evaluation.

    Attributes:
      label: what was evaluated, such as ``trained`` or ``trained, M(RGB)``.
      comparison: which features were compared.
      scores: of the protocol, over its trials.
      protocol: its name and version, with what was done beside it (re-ranking).
      distances: float32 [Q, G], for pictures; those of the first trial.
      query: the table of the rows of `distances`.
      gallery: the table of its columns.
      gap: between modalities, where query and gallery are of one each: see `distances.modality_gap`.
    """

    label: str
    comparison: str
    scores: metrics.Trials
    protocol: str
    distances: np.ndarray
    query: Any
    gallery: Any
    gap: float | None = None

    def row(self) -> dict[str, Any]:
        """Scores between 0 and 1 by name, with label, comparison and protocol: a line of ``scores.jsonl``."""
        ranks = {f"R{rank}": self.scores.rank(rank) for rank in RANKS}
        values = {"mAP": self.scores.mAP, **ranks, "mINP": self.scores.mINP}
        if len(self.scores.scores) > 1:
            values.update({f"{name}_std": self.scores.std(name) for name in COLUMNS})
        if self.gap is not None:
            values["gap"] = self.gap
        counts = {"queries": self.scores.num_valid, "skipped": self.scores.num_skipped}
        return {"label": self.label, "comparison": self.comparison, "protocol": self.protocol, **values, **counts}

    def table_row(self) -> dict[str, tables.Score]:
        """Scores by name, with their standard deviation where there are several trials."""
        return with_spread(self.row())


def with_spread(row: Mapping[str, Any]) -> dict[str, tables.Score]:
    """The scores of a row by name, with their standard deviation where it has one."""
    return {name: (row[name], row[f"{name}_std"]) if f"{name}_std" in row else row[name] for name in COLUMNS}


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
          names: which features of `Method.embed`; those that it does not make of this table are left out.
          absent: modalities that the network does not get to see.

        Returns:
          Name -> float32 [N, D].

        Raises:
          UserError: a feature is not finite; names the image.
        """
        key = tuple(absent)
        if key not in self._compiled:
            pure = step.embed_step(self.experiment.method.embed, self.experiment.normalization, key)
            self._compiled[key] = self.experiment.parallel.jit_embed(pure)
        parts: dict[str, list[np.ndarray]] = {}
        seen = 0
        for batch in self.experiment.evaluation_batches(records):
            features = self._compiled[key](variables, batch)
            # Padding rows follow the last sample of the global batch, whatever part of it this process loaded.
            rows = min(len(records) - seen, len(next(iter(features.values()))))
            seen += rows
            for name in features.keys() & set(names):
                parts.setdefault(name, []).append(np.asarray(features[name])[:rows])
        found = {name: np.concatenate(blocks) for name, blocks in parts.items()}
        for whole in found.values():
            distances.check_finite(whole, records.file, records.name)
        return found


class Remembered:
    """An embedder of one set of variables that embeds no table twice."""

    def __init__(self, embedder: Embedder, names: Sequence[str]) -> None:
        """Remembers the features `names` of what `embedder` embeds."""
        self._embedder = embedder
        self._names = tuple(names)
        self._found: dict[tuple[int, tuple[str, ...]], dict[str, np.ndarray]] = {}

    def __call__(
        self, variables: Variables, records: Records, names: Sequence[str], absent: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """See `Embedder`; all features that are remembered and that the table has."""
        key = (id(records), tuple(absent))
        if key not in self._found:
            self._found[key] = self._embedder(variables, records, self._names, absent)
        return self._found[key]


def protocols_of(experiment: Experiment) -> list[protocols.Protocol]:
    """The protocol of the data set, the one that ``config.eval.protocol`` names, or all of the data set ("all").

    Each with the distance of the config.

    Raises:
      UserError: there is no such protocol or distance.
    """
    options, dataset = experiment.config.eval, experiment.config.data.dataset
    if options.protocol == ALL:
        chosen = list(datasets.get(dataset).protocols)
    elif options.protocol:
        chosen = [datasets.protocol(options.protocol, dataset)]
    else:
        chosen = [datasets.get(dataset).protocols[0]]
    return [
        protocol.compared_by(
            distances.check_kind(options.distance or protocol.distance, "config.eval.distance"), options.normalize
        )
        for protocol in chosen
    ]


def fits(protocol: protocols.Protocol, comparison: Comparison, modalities: Sequence[str]) -> bool:
    """Whether a comparison searches in the direction of a protocol, if that has one.

    Args:
      protocol: of the data set.
      comparison: of the method.
      modalities: of the data set, visible first.
    """
    if protocol.direction is None:
        return True
    names = {"visible": modalities[0], "infrared": modalities[1]}
    return (comparison.query, comparison.gallery) == tuple((names[side],) for side in protocol.direction)


def compare(
    experiment: Experiment,
    embedder: Embedder | Remembered,
    variables: Variables,
    comparison: Comparison,
    label: str,
    absent: Sequence[str] = (),
    protocol: protocols.Protocol | None = None,
) -> Result:
    """Scores one comparison.

    Args:
      experiment: with query and gallery.
      embedder: of the experiment.
      variables: placed on the devices.
      comparison: of `Method.protocols`.
      label: for the result.
      absent: modalities missing in query and gallery, beside those that the comparison leaves out.
      protocol: one of `protocols_of`; the first by default.
    """
    options = experiment.config.eval
    protocol = protocol or protocols_of(experiment)[0]
    query, pool = experiment.splits.sides(comparison.query, comparison.gallery)
    found: list[np.ndarray] = []
    for records, given, feature in (
        (query, comparison.query, comparison.feature),
        (pool, comparison.gallery, comparison.gallery_feature or comparison.feature),
    ):
        missing = tuple(name for name in records.modalities if name not in given or name in absent)
        found.append(embedder(variables, records, [feature], missing)[feature])
    one_each = len(comparison.query) == len(comparison.gallery) == 1 and comparison.query != comparison.gallery
    said, features = protocol.label, protocol.compared(*found)
    rows = protocol.galleries(pool)[0]
    if options.rerank:
        chosen = rerank.Options(options.rerank_k1, options.rerank_k2, options.rerank_lambda, options.rerank_distance)
        scores, apart = reranked(protocol, chosen, features, query, pool)
        said += f", {chosen.describe()}"
    else:
        every = distances.whole(protocol.distance, *features)
        scores = metrics.evaluate_trials(every, labels_of(query), pool, protocol)
        apart = every[:, rows] if protocol.gallery else every
        apart = apart.T if protocol.swapped else apart
    tables_shown = query, pool.select(rows) if protocol.gallery else pool
    query, gallery = reversed(tables_shown) if protocol.swapped else tables_shown
    if options.single_shot:
        if protocol.gallery:
            raise UserError(
                f"config.eval.single_shot draws galleries, but so does protocol {protocol.name} itself; leave it off"
            )
        sides = labels_of(query), labels_of(gallery)
        cmc = metrics.single_shot_cmc(apart, *sides, protocol, repeats=SINGLE_SHOTS, seed=experiment.config.seed)
        scores = metrics.Trials((dataclasses.replace(scores.scores[0], cmc=cmc),))
        said += f", ranks of single gallery shots ({SINGLE_SHOTS} draws)"
    gap = distances.modality_gap(*found) if one_each else None
    return Result(label, comparison.name, scores, said, apart, query, gallery, gap)


def reranked(
    protocol: protocols.Protocol,
    chosen: rerank.Options,
    features: tuple[np.ndarray, np.ndarray],
    query: Records,
    pool: Records,
) -> tuple[metrics.Trials, np.ndarray]:
    """Scores of every trial after re-ranking its gallery, and the re-ranked distances [Q, G] of the first."""
    scores: list[metrics.Scores] = []
    first: np.ndarray | None = None
    for rows in protocol.galleries(pool):
        labels = labels_of(pool)
        drawn = metrics.Labels(labels.identity[rows], labels.camera[rows], labels.scene[rows])
        sides = [(features[0], labels_of(query)), (features[1][rows], drawn)]
        (a, own), (b, others) = reversed(sides) if protocol.swapped else sides
        apart = rerank.k_reciprocal(a, b, **dataclasses.asdict(chosen))
        first = apart if first is None else first
        scores.append(metrics.evaluate(apart, own, others, protocol))
    assert first is not None
    return metrics.Trials(tuple(scores)), first


def labels_of(records: Records) -> metrics.Labels:
    """Identity, camera and scene of a table, as retrieval wants them."""
    return metrics.Labels(records.identity, records.camera, records.scene)


def run(
    experiment: Experiment, embedder: Embedder, variables: Variables, label: str, missing: bool = False
) -> list[Result]:
    """Scores every comparison of the method under every protocol that it fits, the one that selects checkpoints first.

    With `missing` a comparison of all modalities is also made without each combination of them.

    Raises:
      UserError: no comparison fits, or a protocol that the config names cannot be used on these data; where it names
        all, such a protocol is left out and named.
    """
    method, several = experiment.method, experiment.config.eval.protocol == ALL
    modalities = method.facts.modalities
    names = {name for each in method.protocols() for name in (each.feature, each.gallery_feature) if name}
    remembered = Remembered(embedder, sorted(names))
    results: list[Result] = []
    for protocol in protocols_of(experiment):
        fitting = [each for each in method.protocols() if fits(protocol, each, modalities)]
        if several and fitting and (hindrance := why_unusable(experiment, protocol, fitting[0])):
            if distributed.is_main():
                print(f"note: {protocol.name} is left out: {hindrance}", flush=True)
            continue
        for comparison in fitting:
            own = ", ".join([label, *([comparison.name] if results else []), *([protocol.name] if several else [])])
            results.append(compare(experiment, remembered, variables, comparison, own, protocol=protocol))
            if missing and set(comparison.query) == set(modalities):
                for name, absent in protocols.missing_modality_cases(modalities):
                    own = f"{label}, {name}"
                    results.append(compare(experiment, remembered, variables, comparison, own, absent, protocol))
    if not results:
        raise UserError(
            f"config.eval.protocol is {experiment.config.eval.protocol!r}, but no comparison of method "
            f"{experiment.config.method!r} on {', '.join(modalities)} can be made under it"
        )
    return results


def why_unusable(experiment: Experiment, protocol: protocols.Protocol, comparison: Comparison) -> str:
    """Why no gallery of a protocol can be drawn from these data; empty where it can."""
    try:
        protocol.galleries(experiment.splits.sides(comparison.query, comparison.gallery)[1])
    except UserError as error:
        return str(error)
    return ""


def keep(workdir: Path, results: Sequence[Result], **extra: Any) -> None:
    """Appends the scores to `logs.SCORES_FILE` of the workdir."""
    logs.keep_scores(workdir, [result.row() for result in results], **extra)


def untrained(workdir: Path) -> dict[str, dict[str, tables.Score]]:
    """The scores before the first step as a row {"untrained": scores}, where the run's log has them; else nothing."""
    found = logs.untrained_scores(workdir)
    return {"untrained": with_spread(found)} if found else {}


def describe(results: Sequence[Result], workdir: Path) -> str:
    """A table of scores for the console, with the protocol and what was skipped."""
    rows: dict[str, Mapping[str, tables.Score]] = {**untrained(workdir), **{r.label: r.table_row() for r in results}}
    lines = [tables.text_table(tables.ScoreTable(title="", rows=rows, columns=COLUMNS))]
    first = results[0]
    trials = f", mean ± standard deviation of {count} trials" if (count := len(first.scores.scores)) > 1 else ""
    lines.append(f"protocol {first.protocol}, {first.scores.num_valid} queries, {first.comparison}{trials}")
    if first.scores.num_skipped:
        lines.append(first.scores.explain())
    return "\n".join(lines)
