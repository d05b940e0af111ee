"""Gathers what an evaluation knows into the HTML report of a run, and the pictures beside it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmreid_jax import __version__
from mmreid_jax.data.images import decode_sample
from mmreid_jax.data.records import Records
from mmreid_jax.embedder import of_few
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import Experiment
from mmreid_jax.methods.base import TOGETHER, Attends, Comparison, HasMaps, feature_of
from mmreid_jax.scoring.retrieval import COLUMNS, Result, at_first, pair_tables, protocols_of
from mmreid_jax.training import compilation, logs, step
from mmreid_jax.training import config as configs
from mmreid_jax.visualize import (
    activation,
    attention,
    calibration,
    curves,
    embedding,
    page,
    ranked_lists,
    report,
    selection,
    style,
    tables,
)
from mmreid_jax.visualize.images import cell_size, resize

SHOWN = 6  # lists of each kind
LISTS_FOLDER = "figures/ranked_lists"
LISTS_A_PAGE = 25  # of those that ``eval.visrank`` writes
THUMBNAILS = page.SIZES[1]  # in them
KEPT = 4096  # samples whose thumbnails stay in memory meanwhile: about 400 MB of three modalities at most
Images = Callable[[str, int], dict[str, np.ndarray]]
Compute = Callable[..., dict[str, np.ndarray]]


def write(experiment: Experiment, variables: Any, results: Sequence[Result]) -> Path:
    """Writes ``report.html`` and ``figures/`` into the workdir.

    Args:
      experiment: that was evaluated.
      variables: of the model whose ranked lists, maps and features are shown, placed on the devices.
      results: rows of the table; shown is the last one of the first result's comparison and protocol without a missing
        modality.

    Returns:
      Path of the HTML file.
    """
    complete = [result for result in results if not result.missing and result.pair is None]
    main = (results[0].comparison, results[0].protocol)
    whole = [result for result in complete if (result.comparison, result.protocol) == main]
    main_result = whole[-1]
    query, gallery = main_result.query, main_result.gallery
    data = experiment.config.data
    protocol = protocols_of(data.dataset, experiment.config.eval, data.data_dir)[0]
    images = image_getter(query, gallery)

    def ignore(row: int) -> np.ndarray:
        return protocol.ignored(query, gallery, row)

    outcomes = selection.outcomes(main_result.distances, query, gallery, ignore)

    def lists(rows: np.ndarray, shown: Images = images) -> list[ranked_lists.RankedList]:
        top = experiment.config.eval.visrank_topk
        return with_captions(
            ranked_lists.ranked_lists(main_result.distances, query, gallery, shown, rows, ignore, top), query
        )

    entries = logs.entries(experiment.workdir)
    rows: dict[str, Mapping[str, tables.Score]] = dict(at_first(experiment.workdir))
    rows.update({result.label: result.table_row() for result in complete})
    calibrated = calibration.calibrate(main_result.distances, query, gallery, ignore)
    chosen = selection.spread_of_queries(~outcomes.skipped, SHOWN)
    compute = on_one_device(experiment, variables)
    title = f"{experiment.config.method.upper().replace('_', '-')} on {experiment.data_name}"
    content = report.HtmlReport(
        title=title,
        summary=summary(main_result),
        headline={name: main_result.row()[name] for name in ("mAP", "R1", "R5", "R10", "mINP")},
        command=" ".join(["python", *map(shlex.quote, sys.argv)]),
        config=configs.flatten(experiment.config),
        protocol=protocol.describe(),
        skipped=selection.skipped_sentence(outcomes),
        scores=score_tables(rows, results),
        curves=charts(entries, whole, results),
        ranked_lists=lists(chosen),
        failures=ranked_lists.with_failure_sentences(
            lists(selection.hardest_failures(outcomes, SHOWN, query.identity))
        ),
        successes=lists(selection.typical_successes(outcomes, 3, query.identity)),
        attention=attention_examples(experiment, compute, query, images, chosen[:4]),
        attention_note="Attention rollout (Abnar and Zuidema 2020): what the class token draws from each patch.",
        activation=activation_examples(experiment, compute, query, images, chosen[:4]),
        activation_note=activation.NOTE,
        calibration=calibrated.sentences(),
        calibration_picture=calibration.calibration_picture(calibrated),
        dataset=facts(experiment),
        extras=embedding_part(experiment, compute),
        footer=environment(),
    )
    if experiment.config.eval.visrank:
        counting = np.flatnonzero(~outcomes.skipped)
        small = functools.partial(lists, shown=thumbnail_getter(query, gallery))
        pages = write_every_list(experiment.workdir / LISTS_FOLDER, small, counting, title)
        print(f"every query's ranked list: {pages[0]}, {len(pages)} pages" if pages else "no query counts")
    return report.write_report(experiment.workdir / "report.html", content)


def environment() -> str:
    """What made a report: versions, device, and how the programs were compiled."""
    return (
        f"mmreid_jax {__version__}, JAX {jax.__version__}, {jax.devices()[0].device_kind}, "
        f"{platform.python_implementation()} {platform.python_version()}; {compilation.describe()}"
    )


def with_captions(lists: Sequence[ranked_lists.RankedList], query: Records) -> list[ranked_lists.RankedList]:
    """The lists with the captions of their queries, where the table has any, as their comment."""
    if query.captions is None:
        return list(lists)
    told = [
        [f"{name.upper()}: {text.rstrip('.')}" for name, texts in query.captions.items() if (text := texts[item.row])]
        for item in lists
    ]
    comments = [f"{'; '.join(parts)}." if parts else "" for parts in told]
    return [dataclasses.replace(item, comment=text) for item, text in zip(lists, comments, strict=True)]


def write_every_list(
    folder: Path, lists: Callable[[np.ndarray], list[Any]], rows: np.ndarray, title: str
) -> list[Path]:
    """The ranked lists of the queries `rows` as pages of thumbnails, which a browser loads as they come into view.

    Every image lies once in ``images`` of the folder, however many lists show it.
    """
    from tqdm import tqdm

    images = folder / "images"

    def keep(content: bytes) -> str:
        name = f"{hashlib.sha256(content).hexdigest()[:24]}.jpg"
        if not (images / name).exists():
            style.write_bytes(images / name, content)
        return f"images/{name}"

    size = dataclasses.replace(THUMBNAILS, keep=keep)
    count = -(-len(rows) // LISTS_A_PAGE)
    pages = [folder / f"{number:04d}.html" for number in range(1, count + 1)]
    starts = range(0, len(rows), LISTS_A_PAGE)
    progress = tqdm(starts, unit="page", desc="ranked lists", disable=not sys.stderr.isatty())
    for number, (start, file) in enumerate(zip(progress, pages, strict=True), start=1):
        chosen = lists(rows[start : start + LISTS_A_PAGE])
        links = " ".join(f"<a href='{other.name}'>{other.stem}</a>" for other in pages)
        body = "".join(page.ranked_list_html(item, size) for item in chosen)
        section = page.PageSection(
            f"Queries {start + 1} to {start + len(chosen)} of {len(rows)}", f"<p>{links}</p>{page.LEGEND}{body}"
        )
        heading = f"{title}: ranked lists, page {number} of {count}"
        style.write_bytes(file, page.page(heading, [section]).encode("utf-8"))
    return pages


def summary(result: Result) -> str:
    """What the lists and pictures of the report show."""
    trials = len(result.scores.scores)
    first = f" (the first of {trials} galleries)" if trials > 1 else ""
    distance = "" if result.gap is None else f" The centres of the two modalities' features lie {result.gap:.3f} apart."
    return (
        f"{len(result.query)} queries against {len(result.gallery)} gallery samples{first}; shown: {result.label}, "
        f"{result.comparison}.{distance}"
    )


def score_row(row: dict[str, Any]) -> dict[str, float]:
    """The scores of a row by name."""
    return {name: float(row[name]) for name in COLUMNS if name in row}


def score_tables(rows: Mapping[str, Mapping[str, tables.Score]], results: Sequence[Result]) -> list[tables.ScoreTable]:
    """The table of the run, and those of missing modalities and of all pairs of them where they were evaluated."""
    several = next((result for result in results if len(result.scores.scores) > 1), None)
    note = f"Mean ± standard deviation of {len(several.scores.scores)} trials." if several else ""
    score_tables_of = [tables.ScoreTable(rows, note=note, columns=COLUMNS)]
    partial = {result.label: score_row(result.row()) for result in results if result.missing}
    if partial:
        note = "M(X): modality X is missing in queries and gallery (its image is zero after normalisation)."
        score_tables_of.append(
            tables.ScoreTable(partial, title="Missing modalities", note=note, columns=COLUMNS, mark_best=False)
        )
    return [*score_tables_of, *pair_tables(results)]


def charts(
    entries: Sequence[dict[str, Any]],
    whole: Sequence[Result],
    results: Sequence[Result],
) -> list[Any]:
    """CMC, trials, training curves, before and after, missing modalities: whichever there is something to draw of."""
    pictures = [curves.cmc_curves({result.label: result.scores.cmc for result in whole})]
    if len(whole[-1].scores.scores) > 1:
        trials = whole[-1].scores
        pictures.append(curves.trial_spread({name: trials.values(name) for name in COLUMNS}))
    for kind, title in (("train", "training_curves"), ("adapt", "adaptation_curves")):
        of_run = [entry for entry in entries if entry.get("run") == kind]
        if any(entry.get("kind") == kind for entry in of_run):
            pictures.append(curves.training_curves(of_run, name=title))
    if len(whole) > 1:
        first, last = whole[0], whole[-1]
        pictures.append(
            curves.before_after_bars(
                score_row(first.row()),
                score_row(last.row()),
                labels=(first.label, last.label),
                title="Test-time training",
            )
        )
    partial = {result.missing.name: score_row(result.row()) for result in results if result.missing}
    if partial:
        references = {result.missing.complete for result in results if result.missing}
        reference = next(result for result in whole if result.label in references)
        pictures.append(curves.missing_modality_bars({"all modalities": score_row(reference.row()), **partial}))
    return pictures


def image_getter(query: Records, gallery: Records) -> Images:
    """A function (side, row) -> {modality: uint8 [h, w, 3]} that decodes one sample."""

    def images(side: str, row: int) -> dict[str, np.ndarray]:
        records = query if side == "query" else gallery
        return decode_sample(records, row, records.encoded([row])[0], truncated=True)

    return images


def thumbnail_getter(query: Records, gallery: Records) -> Images:
    """As `image_getter`, with images as small as they are shown: a sample of many lists is decoded once."""
    images = image_getter(query, gallery)

    @functools.lru_cache(KEPT)
    def small(side: str, row: int) -> dict[str, np.ndarray]:
        return {
            name: resize(image, *cell_size([image], THUMBNAILS.area, THUMBNAILS.longest))
            for name, image in images(side, row).items()
        }

    return lambda side, row: small("gallery" if query is gallery else side, row)


def on_one_device(experiment: Experiment, variables: Any) -> Compute:
    """A function (embed-like function of the method, table, batch axis) -> its outputs for the table, on the host.

    Pictures need few samples, and one process alone draws them: nothing here may wait for the other processes.
    """
    parallel = step.Parallel(jax.local_devices()[:1])
    placed = parallel.place_state(step.fetch(variables))

    def compute(function: Callable[..., Any], records: Records, axis: int = 0) -> dict[str, np.ndarray]:
        return of_few(experiment.config, parallel, function)(placed, records, axis=axis)

    return compute


def attention_examples(
    experiment: Experiment, compute: Compute, query: Records, images: Images, rows: np.ndarray
) -> list[attention.AttentionExample]:
    """Rollout maps of some queries; none where the method has no attention."""
    method = experiment.method
    if not isinstance(method, Attends) or not len(rows):
        return []
    chosen = query.select(rows)
    weights = compute(method.attend, chosen, axis=1)
    examples = []
    for position, row in enumerate(rows):
        maps = {
            name: attention.class_token_map(attention.rollout(layers[:, position], discard=0.5), method.grid)
            for name, layers in weights.items()
        }
        examples.append(attention.AttentionExample(images("query", int(row)), maps, sample_label(chosen, position)))
    return examples


def activation_examples(
    experiment: Experiment, compute: Compute, query: Records, images: Images, rows: np.ndarray
) -> list[activation.ActivationExample]:
    """Last convolutional maps of some queries; none where the method has none."""
    method = experiment.method
    if not isinstance(method, HasMaps) or not len(rows):
        return []
    chosen = query.select(rows)
    maps_of = compute(method.maps, chosen)
    return [
        activation.ActivationExample(
            images("query", int(row)),
            {name: maps[position] for name, maps in maps_of.items()},
            sample_label(chosen, position),
        )
        for position, row in enumerate(rows)
    ]


def sample_label(records: Records, row: int) -> str:
    """What stands beside the maps of a sample."""
    return f"identity {records.identity[row]}, camera {records.camera[row] + 1}"


def embedding_part(experiment: Experiment, compute: Compute) -> list[report.Extra]:
    """The t-SNE picture of the features of some test identities; nothing where the config asks for none.

    Features of every modality where the method offers them, by the names of the modalities or as what is compared
    between them; else the feature that retrieval compares.
    """
    options, method, splits = experiment.config.eval, experiment.method, experiment.splits
    if not options.embedding_identities:
        return []
    query, gallery = splits.query, splits.gallery
    # Distractors of a gallery share one identity that is nobody's; queries are all somebody.
    known = np.flatnonzero(np.isin(gallery.identity, query.identity))
    every = [(query, np.arange(len(query)))] + ([] if gallery is query else [(gallery, known)])
    identity = np.concatenate([table.identity[rows] for table, rows in every])
    chosen = embedding.spread_of_identities(identity, options.embedding_identities)
    features: dict[str, list[np.ndarray]] = {}
    labels: dict[str, list[np.ndarray]] = {}
    begin = 0
    for table, rows in every:
        members = rows[chosen[(chosen >= begin) & (chosen < begin + len(rows))] - begin]
        begin += len(rows)
        if not len(members):
            continue
        samples = table.select(members)
        outputs = compute(method.embed, samples)
        names = {name: own_feature(method.comparisons(), name) for name in table.modalities}
        by_name = {
            name: feature_of(outputs, feature)
            for name, feature in names.items()
            if set(feature.split(TOGETHER)) <= set(outputs)
        }
        if len({value.shape[-1] for value in by_name.values()}) != 1:
            by_name = {"all modalities": feature_of(outputs, method.comparisons()[0].feature)}
        for name, value in by_name.items():
            features.setdefault(name, []).append(value)
            labels.setdefault(name, []).append(samples.identity)
    try:
        picture = embedding.embedding_picture(
            {name: np.concatenate(value) for name, value in features.items()},
            {name: np.concatenate(value) for name, value in labels.items()},
            scale=options.embedding_scale,
        )
    except ImportError:
        return [report.Extra("Embedding", "Not drawn: scikit-learn is not installed (pip install scikit-learn).")]
    except UserError as error:
        return [report.Extra("Embedding", f"Not drawn: {error}")]
    people = len(np.unique(identity[chosen]))
    text = (
        f"Features of {len(chosen)} test samples of {people} identities, arranged by t-SNE so that similar ones lie "
        "together. An identity is well learnt where its colour forms groups of its own, and "
        "independent of the modality where its markers lie together; how far apart groups lie means little."
    )
    if options.embedding_scale:
        text += " The points of every modality are stretched to the same square."
    return [report.Extra("Embedding", text, [picture])]


def own_feature(comparisons: Sequence[Comparison], modality: str) -> str:
    """Name of the feature of one modality: that of the first comparison whose queries are of it, else its own name."""
    return next((each.feature for each in comparisons if each.query == (modality,)), modality)


def facts(experiment: Experiment) -> dict[str, object]:
    """What the tables of the data set hold."""
    splits = experiment.splits
    rows: dict[str, object] = {"data set": experiment.config.data.dataset}
    if experiment.drawn:
        rows["origin"] = "drawn, not photographed"
    for name in ("train", "query", "gallery"):
        table = getattr(splits, name)
        cameras = len(np.unique(table.camera))
        rows[name] = f"{len(table)} samples, {len(table.identities)} identities, {cameras} cameras"
    rows["modalities"] = ", ".join(splits.train.modalities)
    return rows
