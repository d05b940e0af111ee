"""Retrieval scores: embed query and gallery, compare them under a protocol, keep and describe the scores."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mmreid_jax.datasets as datasets
from mmreid_jax.data.records import Records
from mmreid_jax.embedder import of_experiment
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import Experiment, Splits
from mmreid_jax.methods import modality_sets
from mmreid_jax.methods.base import TOGETHER, Comparison, Variables
from mmreid_jax.retrieval import distances, features, metrics, protocols, rerank
from mmreid_jax.training import distributed, logs
from mmreid_jax.visualize import tables

RANKS = (1, 5, 10, 20)
SINGLE_SHOTS = 10
Embeds = Callable[[Variables, Records, Sequence[str], Sequence[str]], dict[str, np.ndarray]]
"""(variables, table, names of features, absent modalities) -> features by name, as an `Embedder` makes them."""
_NOISE = 4  # numbers that stand for a feature
COLUMNS = ("mAP", *(f"R{rank}" for rank in RANKS), "mINP")


@dataclasses.dataclass(frozen=True)
class Missing:
    """A case in which modalities are missing in queries and gallery.

    Attributes:
      name: such as ``M(RGB)``.
      absent: the modalities.
      complete: label of the evaluation in which none is missing.
    """

    name: str
    absent: tuple[str, ...]
    complete: str


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
      missing: which modalities are missing; None: none.
      pair: modalities of queries and of gallery, in an evaluation of all pairs of them; None: it is none of these.
    """

    label: str
    comparison: str
    scores: metrics.Trials
    protocol: str
    distances: np.ndarray
    query: Records
    gallery: Records
    gap: float | None = None
    missing: Missing | None = None
    pair: tuple[modality_sets.Modalities, modality_sets.Modalities] | None = None

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


class Embedded:
    """Features of a model by table; no table is embedded twice."""

    def __init__(self, embedder: Embeds, variables: Variables, names: Sequence[str]) -> None:
        """Of the features `names` that an embedder of `Method.embed` makes with these variables, which are placed."""
        self._embedder = embedder
        self._variables = variables
        self._names = sorted(names)
        self._known: dict[tuple[int, tuple[str, ...]], dict[str, np.ndarray]] = {}

    def __call__(self, records: Records, feature: str, absent: Sequence[str] = ()) -> np.ndarray:
        """A feature of all samples of a table, float32 [N, D]; `absent`: modalities that the network does not see."""
        key = (id(records), tuple(absent))
        if key not in self._known:
            features = self._embedder(self._variables, records, self._names, absent)
            for values in features.values():
                distances.check_finite(values, records.file, records.name)
            self._known[key] = features
        known = self._known[key]
        return np.concatenate([known[part] for part in feature.split(TOGETHER)], axis=1)


def protocols_of(dataset: str, options: Any, data_dir: str = "") -> list[protocols.Protocol]:
    """The protocol of a data set, the one that ``config.eval.protocol`` names, or all of the data set ("all").

    Each with the distance of `options`, which are ``config.eval``; `data_dir`: see `datasets.get`.

    Raises:
      UserError: there is no such protocol or distance.
    """
    if options.protocol == datasets.ALL_PROTOCOLS:
        chosen = list(datasets.get(dataset, data_dir).protocols)
    elif options.protocol:
        chosen = [datasets.protocol(options.protocol, dataset, data_dir)]
    else:
        chosen = [datasets.get(dataset, data_dir).protocols[0]]
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
    splits: Splits,
    protocol: protocols.Protocol,
    options: Any,
    comparison: Comparison,
    embedded: Callable[[Records, str, Sequence[str]], np.ndarray],
    label: str,
    *,
    missing: Missing | None = None,
    seed: int = 0,
) -> Result:
    """Scores one comparison.

    Args:
      splits: with query and gallery.
      protocol: one of `protocols_of`.
      options: ``config.eval``.
      comparison: of `Method.comparisons`.
      embedded: (table, feature, absent modalities) -> float32 [N, D], such as `Embedded`.
      label: for the result.
      missing: modalities that are missing beside those that the comparison leaves out.
      seed: of the single gallery shots, where `options` want them.

    Raises:
      UserError: single shots are asked for, but the protocol draws galleries itself.
    """
    queries, pool = splits.sides(comparison.query, comparison.gallery)
    sides = (
        (queries, comparison.query, comparison.feature),
        (pool, comparison.gallery, comparison.gallery_feature or comparison.feature),
    )
    absent = missing.absent if missing else ()
    raw = [
        embedded(table, feature, tuple(name for name in table.modalities if name not in given or name in absent))
        for table, given, feature in sides
    ]
    description, chosen = protocol.label, None
    if options.rerank:
        chosen = _rerank_options(options)
        description += f", {chosen.describe()}"
    raw_query, raw_gallery = raw
    scores, first_distances = features.score(raw_query, raw_gallery, queries, pool, protocol, chosen)
    gallery = pool.select(protocol.galleries(pool)[0]) if protocol.gallery else pool
    rows, columns = (gallery, queries) if protocol.swapped else (queries, gallery)
    if options.single_shot:
        if protocol.gallery:
            raise UserError(
                f"config.eval.single_shot draws galleries, but so does protocol {protocol.name} itself; leave it off"
            )
        labels = labels_of(rows), labels_of(columns)
        cmc = metrics.single_shot_cmc(first_distances, *labels, protocol, repeats=SINGLE_SHOTS, seed=seed)
        scores = metrics.Trials((dataclasses.replace(scores.scores[0], cmc=cmc),))
        description += f", ranks of single gallery shots ({SINGLE_SHOTS} draws)"
    one_each = len(comparison.query) == len(comparison.gallery) == 1 and comparison.query != comparison.gallery
    gap = distances.modality_gap(*raw) if one_each else None
    return Result(label, comparison.name, scores, description, first_distances, rows, columns, gap, missing)


def labels_of(records: Records) -> metrics.Labels:
    """Identity, camera and scene of a table, as retrieval wants them."""
    return metrics.Labels(records.identity, records.camera, records.scene)


def run(
    experiment: Experiment,
    embedder: Embeds,
    variables: Variables,
    label: str,
    missing: bool = False,
    absent: Sequence[str] = (),
    pairs: bool = False,
    missing_any: bool = False,
) -> list[Result]:
    """Scores every comparison of the method under every protocol that it fits, the one that selects checkpoints first.

    Args:
      experiment: with data, method and devices.
      embedder: of `Method.embed`.
      variables: of the method, placed on the devices.
      label: for the results.
      missing: comparisons of all modalities are also made without each combination of them.
      absent: modalities without which they are made alone.
      pairs: all pairs of sets of modalities are compared, too, under the first protocol.
      missing_any: also where every sample lacks modalities of its own, under the first protocol, see `compare_any`.

    Raises:
      UserError: no comparison fits, modalities cannot be missing, or a protocol that the config names cannot be used on
        these data; where it names all, such a protocol is left out and named.
    """
    config, splits, method = experiment.config, experiment.splits, experiment.method
    several, modalities, comparisons = (
        config.eval.protocol == datasets.ALL_PROTOCOLS,
        method.facts.modalities,
        method.comparisons(),
    )
    whole = comparisons[0] if set(comparisons[0].query) == set(comparisons[0].gallery) == set(modalities) else None

    def without(comparison: Comparison, gone: Sequence[str]) -> Comparison:
        """How the same is compared without some modalities, where the method has a way of its own."""
        if not isinstance(method, modality_sets.ComparesSets) or comparison is not whole:
            return comparison
        present = tuple(name for name in modalities if name not in gone)
        return dataclasses.replace(method.between(present, present), name=comparison.name)

    unlike = _all_pairs(method, modalities) if pairs or missing_any else []
    partial = [without(each, absent) for each in comparisons] if absent else []
    if missing:
        partial += [
            without(each, gone) for each in comparisons for _, gone in protocols.missing_modality_cases(modalities)
        ]
    used = [*comparisons, *partial, *(each for _, each in unlike)]
    names = {part for each in used for name in (each.feature, each.gallery_feature) for part in name.split(TOGETHER)}
    embedded = Embedded(embedder, variables, sorted(names - {""}))
    results: list[Result] = []
    for protocol in protocols_of(config.data.dataset, config.eval, config.data.data_dir):
        fitting = [each for each in comparisons if fits(protocol, each, modalities)]
        if several and fitting and (hindrance := why_unusable(splits, protocol, fitting[0])):
            if distributed.is_main():
                print(f"note: {protocol.name} is left out: {hindrance}", flush=True)
            continue
        score = functools.partial(compare, splits, protocol, config.eval, seed=config.seed)
        for comparison in fitting:
            parts = [label, *([comparison.name] if results else []), *([protocol.name] if several else [])]
            if absent:
                case = missing_case(absent, comparison, modalities, ", ".join(parts))
                chosen = without(comparison, case.absent)
                results.append(score(chosen, embedded, f"{', '.join(parts)}, {case.name}", missing=case))
                continue
            results.append(score(comparison, embedded, ", ".join(parts)))
            if missing and set(comparison.query) == set(comparison.gallery) == set(modalities):
                for name, gone in protocols.missing_modality_cases(modalities):
                    case = Missing(name, gone, ", ".join(parts))
                    results.append(score(without(comparison, gone), embedded, f"{label}, {name}", missing=case))
    if not results:
        raise UserError(
            f"config.eval.protocol is {config.eval.protocol!r}, but no comparison of method "
            f"{config.method!r} on {', '.join(modalities)} can be made under it"
        )
    first = protocols_of(config.data.dataset, config.eval, config.data.data_dir)[0]
    if missing_any:
        case = Missing("M(any)", (), results[0].label)
        results.append(compare_any(splits, first, method, embedded, case, f"{label}, {case.name}", config.seed))
    for pair, comparison in unlike if pairs else ():
        result = compare(
            splits, first, config.eval, comparison, embedded, f"{label}, {comparison.name}", seed=config.seed
        )
        # Pictures are drawn of the first results alone, and 49 matrices of distances are a lot to keep.
        results.append(dataclasses.replace(result, pair=pair, distances=result.distances[:0]))
    return results


def compare_any(
    splits: Splits,
    protocol: protocols.Protocol,
    method: Any,
    embedded: Callable[[Records, str, Sequence[str]], np.ndarray],
    missing: Missing,
    label: str,
    seed: int,
) -> Result:
    """Scores samples of which each has a set of modalities of its own, drawn from all sets with equal probability.

    Args:
      splits: with query and gallery.
      protocol: one of `protocols_of`.
      method: of `modality_sets.ComparesSets`.
      embedded: see `compare`.
      missing: what the result is called.
      label: for the result.
      seed: of the draw.
    """
    modalities = method.facts.modalities
    whole, sets = method.between(modalities, modalities), modality_sets.subsets(modalities)
    tables_of = splits.sides(whole.query, whole.gallery)
    # A table that is both has one draw.
    of_table = {id(table): np.random.default_rng([seed, side]) for side, table in enumerate(reversed(tables_of))}
    drawn = {id(table): of_table[id(table)].integers(len(sets), size=len(table)) for table in tables_of}
    apart = np.empty(tuple(map(len, tables_of)), np.float32)
    for first, second in itertools.product(range(len(sets)), repeat=2):
        comparison = method.between(sets[first], sets[second]) if method.apart else whole
        names = comparison.feature, comparison.gallery_feature or comparison.feature
        numbers = (first, second)
        rows = [np.flatnonzero(drawn[id(table)] == number) for table, number in zip(tables_of, numbers, strict=True)]
        features_of = [
            embedded(table, name, tuple(gone for gone in table.modalities if gone not in sets[number]))[chosen]
            for table, name, number, chosen in zip(tables_of, names, numbers, rows, strict=True)
        ]
        if all(map(len, rows)):
            apart[np.ix_(*rows)] = protocol.distances(*features_of)
    scores = metrics.evaluate(apart, labels_of(tables_of[0]), labels_of(tables_of[1]), protocol)
    return Result(label, whole.name, metrics.Trials((scores,)), protocol.label, apart, *tables_of, missing=missing)


def _all_pairs(
    method: Any, modalities: Sequence[str]
) -> list[tuple[tuple[modality_sets.Modalities, modality_sets.Modalities], Comparison]]:
    """Every pair of sets of modalities and how it is compared; pairs that cannot be are left out.

    Raises:
      UserError: the method compares no sets of modalities.
    """
    if not isinstance(method, modality_sets.ComparesSets):
        raise UserError("config.eval.all_pairs and missing_any are for methods that compare sets of modalities")
    found = []
    for pair in modality_sets.pairs(modalities):
        # The released code ends with an error for some.
        with contextlib.suppress(UserError):
            found.append((pair, method.between(*pair)))
    return found


class RetrievalScorer:
    """Scores a model by the first comparison of its method under the first protocol; see `mmreid_jax.evaluate`."""

    def __init__(self, experiment: Experiment) -> None:
        """Of an experiment whose method is scored by retrieval."""
        self._experiment = experiment
        self._embedder = of_experiment(experiment, experiment.method.embed)

    def __call__(self, variables: Variables, label: str) -> dict[str, Any]:
        """The row of scores of placed variables."""
        return run(self._experiment, self._embedder, variables, label)[0].row()

    def rehearse(self, variables: Variables) -> None:
        """Embeds one batch of each table, and scores both tables by random numbers in place of features."""
        config, splits, method = self._experiment.config, self._experiment.splits, self._experiment.method
        there: dict[int, set[str]] = {}
        for table in (splits.query, splits.gallery):
            if id(table) not in there:
                there[id(table)] = set(self._embedder.first(variables, table))
        for comparison in method.comparisons():
            tables = splits.sides(comparison.query, comparison.gallery)
            names = comparison.feature, comparison.gallery_feature or comparison.feature
            for table, name in zip(tables, names, strict=True):
                if not set(name.split(TOGETHER)) <= there[id(table)]:
                    raise UserError(
                        f"config.eval.feature is {config.eval.feature!r}, but the features of {table.name} are "
                        f"{', '.join(sorted(there[id(table)]))}"
                    )
        random = np.random.default_rng(0)

        def noise(_: Variables, table: Records, names: Sequence[str], absent: Sequence[str] = ()) -> dict[str, Any]:
            del absent
            return {name: random.normal(size=(len(table), _NOISE)).astype(np.float32) for name in names}

        # Re-ranking takes minutes where the galleries are large; whether they are large enough is a matter of numbers.
        simple = type(config)(config.to_dict())
        simple.eval.rerank = False
        results = run(dataclasses.replace(self._experiment, config=simple), noise, variables, "rehearsal")
        if config.eval.rerank:
            for result in results:
                chosen = _rerank_options(config.eval)
                rerank.check(chosen, len(result.query) + len(result.gallery))


def _rerank_options(options: Any) -> rerank.RerankOptions:
    """The options in ``config.eval``."""
    return rerank.RerankOptions(options.rerank_k1, options.rerank_k2, options.rerank_lambda, options.rerank_distance)


def missing_case(absent: Sequence[str], comparison: Comparison, modalities: Sequence[str], complete: str) -> Missing:
    """The case in which these modalities are missing; `complete`: see `Missing`.

    Raises:
      UserError: they are not some but not all of what both sides of the comparison see.
    """
    cases = {frozenset(gone): (name, gone) for name, gone in protocols.missing_modality_cases(modalities)}
    if set(comparison.query) != set(modalities) or frozenset(absent) not in cases:
        raise UserError(
            f"{', '.join(absent)} cannot be missing from {comparison.name}; name some but not all of "
            f"{', '.join(modalities)}, of a method that sees all of them at once"
        )
    return Missing(*cases[frozenset(absent)], complete)


def why_unusable(splits: Splits, protocol: protocols.Protocol, comparison: Comparison) -> str:
    """Why no gallery of a protocol can be drawn from these data; empty where it can."""
    try:
        protocol.galleries(splits.sides(comparison.query, comparison.gallery)[1])
    except UserError as error:
        return str(error)
    return ""


def keep(workdir: Path, results: Sequence[Result], **extra: Any) -> None:
    """Appends the scores to `logs.SCORES_FILE` of the workdir."""
    logs.keep_scores(workdir, [result.row() for result in results], **extra)


def at_first(workdir: Path) -> dict[str, dict[str, tables.Score]]:
    """The scores before the first step, {label: scores}: those that the run's log has."""
    return {label: with_spread(scores) for label, scores in logs.first_scores(workdir).items()}


def pair_tables(results: Sequence[Result]) -> list[tables.ScoreTable]:
    """mAP and rank 1 of all pairs of sets of modalities, queries down, galleries across; none where there are none."""
    found: dict[str, dict[str, dict[str, tables.Score]]] = {"mAP": {}, "R1": {}}
    for result in results:
        if result.pair is None:
            continue
        query, gallery = ("+".join(name.upper() for name in side) for side in result.pair)
        for name, rows in found.items():
            rows.setdefault(query, {})[gallery] = result.table_row()[name]
    return [
        tables.ScoreTable(
            rows,
            title=f"{name}, queries of the modalities on the left against a gallery of those above",
            columns=tuple(dict.fromkeys(column for row in rows.values() for column in row)),
            mark_best=False,
        )
        for name, rows in found.items()
        if rows
    ]


def describe(results: Sequence[Result], workdir: Path) -> str:
    """A table of scores for the console, with the protocol and what was skipped."""
    listed = {result.label: result.table_row() for result in results if result.pair is None}
    rows: dict[str, Mapping[str, tables.Score]] = {**at_first(workdir), **listed}
    lines = [tables.text_table(tables.ScoreTable(title="", rows=rows, columns=COLUMNS))]
    lines += [tables.text_table(table) for table in pair_tables(results)]
    first = results[0]
    trials = f", mean ± standard deviation of {count} trials" if (count := len(first.scores.scores)) > 1 else ""
    lines.append(f"protocol {first.protocol}, {first.scores.num_valid} queries, {first.comparison}{trials}")
    if first.scores.num_skipped:
        lines.append(first.scores.explain())
    return "\n".join(lines)
