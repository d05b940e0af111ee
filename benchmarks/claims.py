"""Do the papers' claims hold on drawn data? Trains with and without each idea, over several seeds.

    python benchmarks/claims.py --system htt              one system; all of them without --system
    python benchmarks/claims.py --system htt --table      what came out so far, without running anything

Every run starts from a trunk in the package, as the papers start from ImageNet: tri-modal systems from one of all
spectra, visible-infrared systems from one that has seen colour images alone, so that the gap between the spectra is
left to the method. Every seed has drawn people and fresh weights of its own, shared by all variants of a system, so
that differences are paired. Settings are those of the demos, chosen on seeds 700 to 799; the seeds here were used for
nothing else. Scores are of the LAST epoch, never of the best one on the test set.

One JSON file is kept for each run (system, seed, variant) under ``runs/claims``; the same command goes on with those
that there are, and what several systems compare themselves with (AGW, say) is run once. A difference comes with a 95 %
interval: seeds, and within each its identities, are drawn again with replacement.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs import demo, demo_clip, demo_ieee, demo_mmgl, demo_tvi_lfm, demo_vi
from mmreid_jax import adapt, train
from mmreid_jax.captioning.colours import strip_colours
from mmreid_jax.embedder import of_experiment
from mmreid_jax.experiment import Experiment, open_experiment
from mmreid_jax.scoring import retrieval
from mmreid_jax.training import checkpoints

Changes = Mapping[str, Any]
FIRST_SEED, SEEDS = 10, 5
RESAMPLES = 10_000
COLOUR_TRUNK = {"init.backbone": "drawn/resnet_mini_rgb"}
RLE = {"data.moderate_enhancement": 0.5, "data.radical_enhancement": 0.5}
SCORES = ("mAP", "R1", "mINP")
GAP = "gap"
MISSING = ", one modality missing"
UNLIKE = ", unlike modalities"
GARMENT = r"\b((t-|tee |long sleeve )?shirt|jacket|hoodie|hooded|(long )?coat|(short )?pants|trousers|shorts|skirt)\b"
GUESSES = ("black", "white", "grey", "blue", "red", "green", "brown")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of a table.

    Attributes:
      changes: of the config of the system's demo.
      config: another demo than that of the system; None: the system's.
      upon: (key of ``config.init``, variant): the run whose model this one begins with.
      against: the variant that it is compared with; empty: the row above.
    """

    changes: Changes = dataclasses.field(default_factory=dict)
    config: Callable[[], Any] | None = None
    upon: tuple[str, str] | None = None
    against: str = ""


@dataclasses.dataclass(frozen=True)
class System:
    """What is claimed of one system.

    Attributes:
      config: its demo.
      variants: name -> row, in the order of the table.
      hidden: variants that only others begin with, such as a pre-training, which have no scores.
      adapted: name of a further row: the last variant after test-time training.
      missing: scores with one modality missing are kept as well.
      unlike: scores of queries of some modalities against a gallery of others, averaged over all such pairs, are kept.
      ensemble: (name of a further row, beginning of the comparison of the last variant that it shows).
      described: variants whose queries are also described in the words of their infrared images.
    """

    config: Callable[[], Any]
    variants: Mapping[str, Variant]
    hidden: Mapping[str, Variant] = dataclasses.field(default_factory=dict)
    adapted: str = ""
    missing: bool = False
    unlike: bool = False
    ensemble: tuple[str, str] | None = None
    described: Sequence[str] = ()

    def reference(self, name: str) -> str:
        """The row that a row is compared with; empty for the first one."""
        further = [self.adapted, *(self.ensemble or ())[:1]]
        names = [*self.variants, *(label for label in further if label)]
        above = names[names.index(name) - 1] if names.index(name) else ""
        return self.variants[name].against or above if name in self.variants else above


def on_clip(method: str) -> Callable[[], Any]:
    """The demo of a method on a transformer."""
    return functools.partial(demo_clip.get_config, method)


def visible_infrared(method: str) -> Callable[[], Any]:
    """The demo of a visible-infrared method."""
    return functools.partial(demo_vi.get_config, method)


PERMUTATION, CONTRAST = "permutation, pre-training", "cycle contrast, pre-training"
BOTH = "both, pre-training"
BASE_NETWORK = {"model.non_local": (), "model.pooling": "avg", "loss.triplet": "batch_hard"}
MMGL_START = "init.from_mmgl"
NO_TRUNK = {"init.backbone": "", "optim.lr": demo_mmgl.SUPERVISED_LR}
TEXT_STAGE = Variant(
    config=functools.partial(demo_tvi_lfm.get_config, "text"), upon=("init.from_base", "infrared image alone")
)
SYSTEMS: dict[str, System] = {
    "htt": System(
        demo.get_config,
        {
            "CE + triplet": Variant({"loss.mmm_weight": 0.0, "loss.cim_weight": 0.0}),
            "+ 3M": Variant({"loss.cim_weight": 0.0}),
            "+ CIM": Variant(),
        },
        adapted="+ MTT",
        missing=True,
    ),
    "ieee": System(
        demo_ieee.get_config,
        {
            "three streams, CE": Variant({"loss.name": "softmax", "model.cim": False, "model.rem": "off"}),
            "+ interaction": Variant({"loss.name": "softmax", "model.rem": "off"}),
            "+ REM": Variant({"loss.name": "softmax"}),
            "+ 3M": Variant(),
        },
    ),
    "demo_moe": System(
        on_clip("demo_moe"),
        {
            "trunk, class tokens": Variant({"model.fusion": "none", "model.global_local": False}),
            "+ patches": Variant({"model.fusion": "none"}),
            "+ queries": Variant({"model.fusion": "queries"}),
            "DeMo": Variant(against="trunk, class tokens"),
        },
    ),
    "mdreid": System(
        on_clip("mdreid"),
        {
            # The trunk trained on what belongs together alone.
            "trunk, class tokens": Variant(
                {"model.fusion": "none", "model.global_local": False}, config=on_clip("demo_moe")
            ),
            "specific and shared": Variant({"loss.orthogonality_weight": 0.0, "loss.disentangling_weight": 0.0}),
            "MDReID": Variant(against="trunk, class tokens"),
        },
        unlike=True,
    ),
    "hetero_center": System(
        visible_infrared("hetero_center"),
        {"CE": Variant({**COLOUR_TRUNK, "loss.hc_weight": 0.0}), "+ hetero-center": Variant(COLOUR_TRUNK)},
    ),
    "agw": System(
        visible_infrared("agw"),
        {
            "Base": Variant({**COLOUR_TRUNK, **BASE_NETWORK}),
            "Base + non-local": Variant(
                {**COLOUR_TRUNK, "model.pooling": "avg", "loss.triplet": "batch_hard"}, against="Base"
            ),
            "Base + GeM": Variant({**COLOUR_TRUNK, **BASE_NETWORK, "model.pooling": "gem"}, against="Base"),
            "Base + WRT": Variant({**COLOUR_TRUNK, **BASE_NETWORK, "loss.triplet": "weighted"}, against="Base"),
            "AGW": Variant(COLOUR_TRUNK, against="Base"),
        },
    ),
    "caj": System(
        visible_infrared("caj"),
        {
            "AGW": Variant(COLOUR_TRUNK, config=visible_infrared("agw")),
            "CAJ": Variant(COLOUR_TRUNK),
        },
    ),
    "ddag": System(
        visible_infrared("ddag"),
        {
            "CE + triplet": Variant(
                {**COLOUR_TRUNK, "model.wpa": False, "model.graph": False, "eval.feature": "fc"},
            ),
            "+ part attention": Variant({**COLOUR_TRUNK, "model.graph": False}),
            "+ graph": Variant(COLOUR_TRUNK),
        },
    ),
    "deen": System(
        visible_infrared("deen"),
        {
            "AGW": Variant(COLOUR_TRUNK, config=visible_infrared("agw")),
            "CE + triplet, three copies": Variant(
                {**COLOUR_TRUNK, "loss.cpm_weight": 0.0, "loss.orthogonality_weight": 0.0}
            ),
            "DEEN": Variant(COLOUR_TRUNK),
        },
    ),
    "rle": System(
        visible_infrared("agw"),
        {
            name: Variant({**COLOUR_TRUNK, **changes}, config=visible_infrared(method), against=against)
            for method, system in (("agw", "AGW"), ("caj", "CAJ"), ("deen", "DEEN"))
            for name, changes, against in (
                (system, {}, "" if method == "agw" else "AGW"),
                (f"{system} + RLE", RLE, system),
            )
        },
    ),
    "mmgl": System(
        visible_infrared("base"),
        {
            "random": Variant(NO_TRUNK),
            "permutation": Variant(NO_TRUNK, upon=(MMGL_START, PERMUTATION), against="random"),
            "cycle contrast": Variant(NO_TRUNK, upon=(MMGL_START, CONTRAST), against="random"),
            "both": Variant(NO_TRUNK, upon=(MMGL_START, BOTH), against="random"),
            "trunk of colour images": Variant(COLOUR_TRUNK, against="both"),
        },
        hidden={
            PERMUTATION: Variant({"loss.cl_weight": 0.0}, config=demo_mmgl.get_config),
            CONTRAST: Variant({"loss.perm_weight": 0.0}, config=demo_mmgl.get_config),
            BOTH: Variant(config=demo_mmgl.get_config),
        },
    ),
    "tvi_lfm": System(
        functools.partial(demo_tvi_lfm.get_config, "base"),
        {
            "infrared image alone": Variant(COLOUR_TRUNK),
            "+ text (add)": dataclasses.replace(TEXT_STAGE, changes={"model.fusion": "add", "loss.joint": False}),
            "+ SFF": dataclasses.replace(TEXT_STAGE, changes={"loss.joint": False}),
            "+ MJL": TEXT_STAGE,
        },
        ensemble=("+ MER", "mer "),
        described=("+ text (add)", "+ SFF"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where runs are kept.

    Attributes:
      folder: of all of them.
      data_dir: of the drawn data.
      overrides: changes of every config, for trials at small sizes.
    """

    folder: Path
    data_dir: str
    overrides: Changes = dataclasses.field(default_factory=dict)

    def of(self, system: str, seed: int, variant: str) -> Path:
        """Work directory of a run; its result lies beside it with the suffix ``.json``."""
        slug = re.sub(r"\W+", "-", variant).strip("-").lower() or "variant"
        return (self.folder / system / str(seed) / slug).absolute()


def config_of(system: System, variant: Variant, seed: int, place: Place) -> Any:
    """The demo's config with what the variant changes, evaluated once at the end."""
    config = (variant.config or system.config)()
    config.task = "train"
    config.seed = config.data.drawn_seed = seed
    config.data.data_dir = place.data_dir
    config.train.evaluate_first = False
    config.eval.report = False
    config.eval.missing_modalities = system.missing
    config.update_from_flattened_dict({**variant.changes, **place.overrides})
    config.train.eval_every = config.optim.epochs
    return config


def by_identity(result: retrieval.Result) -> dict[str, float]:
    """Mean average precision of the queries of every identity, over the trials."""
    precision = np.mean([scores.average_precision for scores in result.scores.scores], axis=0)
    counted = ~np.isnan(precision)
    identities = result.query.identity[: len(precision)]
    return {
        str(name): float(precision[counted & (identities == name)].mean())
        for name in np.unique(identities[counted]).tolist()
    }


def kept(result: retrieval.Result, against: str) -> dict[str, Any]:
    """What is kept of a result: scores, the precision of every identity, and the row that it is compared with."""
    row = result.row()
    scores = {name: float(row[name]) for name in (*SCORES, GAP) if name in row}
    return {**scores, "identities": by_identity(result), "against": against}


def missing_one(results: Sequence[retrieval.Result], against: str) -> dict[str, Any]:
    """Means of the results with exactly one modality missing."""
    return mean_of([each for each in results if each.missing is not None and len(each.missing.absent) == 1], against)


def mean_of(results: Sequence[retrieval.Result], against: str) -> dict[str, Any]:
    """What is kept of several results: their means."""
    rows = [kept(result, "") for result in results]
    scores = {name: float(np.mean([row[name] for row in rows])) for name in SCORES}
    identities = {name: float(np.mean([row["identities"][name] for row in rows])) for name in rows[0]["identities"]}
    return {**scores, "identities": identities, "against": against}


def run_one(system: System, name: str, config: Any, workdir: Path) -> dict[str, Any]:
    """Trains one variant with one seed; row -> what is kept of it."""
    with quietly():
        experiment = open_experiment(config, workdir)
        train.fit(experiment)
    if name in system.hidden:
        return {}
    embedder = of_experiment(experiment, experiment.method.embed)
    variables, _ = checkpoints.load_variables(workdir, which="last")
    placed = experiment.parallel.place_state(variables)
    results = retrieval.run(experiment, embedder, placed, name, system.missing, pairs=system.unlike)
    rows = rows_of(system, name, results)
    last = name == list(system.variants)[-1]
    if system.ensemble and last:
        label, comparison = system.ensemble
        result = next(result for result in results if result.comparison.startswith(comparison))
        rows[label] = kept(result, system.reference(label))
    if name in system.described:
        rows |= described(experiment, embedder, placed, name)
    if system.adapted and last:
        fitting = adapt.fitting_devices(experiment)
        embedder = of_experiment(fitting, fitting.method.embed)
        with quietly():
            _, adapted = adapt.continual(fitting, embedder, variables)
        placed = fitting.parallel.place_state(adapted)
        results = retrieval.run(fitting, embedder, placed, system.adapted, system.missing)
        rows |= rows_of(system, system.adapted, results)
    return rows


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what a run prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def rows_of(system: System, name: str, results: Sequence[retrieval.Result]) -> dict[str, Any]:
    """The row of a variant, and that with one modality missing."""
    against = system.reference(name)
    rows = {name: kept(results[0], against)}
    if system.missing:
        rows[name + MISSING] = missing_one(results, against and against + MISSING)
    if system.unlike:
        unlike = [each for each in results if each.pair is not None and each.pair[0] != each.pair[1]]
        rows[name + UNLIKE] = mean_of(unlike, against and against + UNLIKE)
    return rows


def described(experiment: Experiment, embedder: Any, variables: Any, variant: str) -> dict[str, Any]:
    """Queries that have the words of their infrared images in place of those of a visible one.

    Colour words are taken out of them, or put in wrongly at every garment.
    """
    query = experiment.splits.query
    infrared = query.captions[experiment.method.facts.modalities[1]].tolist()
    random = np.random.default_rng(experiment.config.seed)
    words = {"no colours": [strip_colours(text) for text in infrared]}
    words["wrong colours"] = [wrongly_coloured(text, random) for text in words["no colours"]]
    rows = {}
    for name, texts in words.items():
        captions = dict.fromkeys(query.captions, np.array(texts, object))
        splits = dataclasses.replace(experiment.splits, query=dataclasses.replace(query, captions=captions))
        (protocol, *_) = retrieval.protocols_of(experiment.config.data.dataset, experiment.config.eval)
        comparison = experiment.method.comparisons()[0]
        embedded = retrieval.Embedded(embedder, variables, [comparison.feature, comparison.gallery_feature])
        result = retrieval.compare(splits, protocol, experiment.config.eval, comparison, embedded, variant)
        rows[f"{variant}, words of the infrared image, {name}"] = kept(result, variant)
    return rows


def wrongly_coloured(text: str, random: np.random.Generator) -> str:
    """A caption with a colour drawn at random before every garment."""
    return re.sub(GARMENT, lambda match: f"{random.choice(GUESSES)} {match[0]}", text)


def run_seed(name: str, seed: int, place: Place) -> None:
    """All runs of a system and a seed that have no result yet; then their work directories go."""
    system = SYSTEMS[name]
    every = {**system.hidden, **system.variants}
    places = {variant: place.of(name, seed, variant) for variant in every}
    if all(result_of(workdir).is_file() for workdir in places.values()):
        return
    for variant, workdir in places.items():
        if result_of(workdir).is_file():
            continue
        begun, used = time.monotonic(), time.process_time()
        config = config_of(system, every[variant], seed, place)
        if upon := every[variant].upon:
            config.update_from_flattened_dict({upon[0]: str(places[upon[1]])})
        made_by = json.loads(config.to_json())
        if others := others_rows(system, variant, made_by, seed, place):
            write(result_of(workdir), {**others, "config": made_by})
            continue
        rows = run_one(system, variant, config, workdir)
        seconds = {"seconds": time.monotonic() - begun, "processor_seconds": time.process_time() - used}
        write(result_of(workdir), {"rows": rows, **seconds, "config": made_by})
        said = ", ".join(f"{100 * row['mAP']:.2f} {label}" for label, row in rows.items())
        print(f"{name}, seed {seed}, {variant}: {said} ({seconds['seconds']:.0f} s)", flush=True)
    for workdir in places.values():
        shutil.rmtree(workdir, ignore_errors=True)


def others_rows(
    system: System, variant: str, config: Mapping[str, Any], seed: int, place: Place
) -> dict[str, Any] | None:
    """What came out of a run of another system that had the same config, under the name that it has here.

    None where there is none, or where more than the score of the run is asked for.
    """
    more = system.missing or system.unlike or variant in (*system.hidden, *system.described)
    further = (system.adapted or system.ensemble) and variant == list(system.variants)[-1]
    if more or further:
        return None
    for file in sorted(place.folder.glob(f"*/{seed}/*.json")):
        content = json.loads(file.read_text())
        if content.get("config") == config and len(content["rows"]) == 1:
            (row,) = content["rows"].values()
            return {**content, "rows": {variant: {**row, "against": system.reference(variant)}}}
    return None


def result_of(workdir: Path) -> Path:
    """The file that holds what came out of a run."""
    return workdir.with_name(f"{workdir.name}.json")


def write(file: Path, content: Any) -> None:
    """A JSON file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(file)


def rows_by_seed(name: str, seeds: Sequence[int], place: Place) -> dict[int, dict[str, Any]]:
    """Seed -> row -> what was kept, of the seeds all of whose runs are done."""
    system, found = SYSTEMS[name], {}
    for seed in seeds:
        files = [result_of(place.of(name, seed, variant)) for variant in system.variants]
        if all(file.is_file() for file in files):
            found[seed] = {key: row for file in files for key, row in json.loads(file.read_text())["rows"].items()}
    return found


def differences(rows: Mapping[int, Mapping[str, Any]], name: str, against: str) -> list[np.ndarray]:
    """For every seed, the differences in mean average precision of its identities."""
    found = []
    for row in rows.values():
        ours, theirs = row[name]["identities"], row[against]["identities"]
        found.append(np.array([ours[identity] - theirs[identity] for identity in sorted(ours)]))
    return found


def interval(values: Sequence[np.ndarray], resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float, float]:
    """Mean of differences, and the ends of its 95 % bootstrap interval.

    Seeds are drawn with replacement, and within each its identities: both are samples of what might have been.

    Args:
      values: for every seed, the differences of its identities.
      resamples: how often they are drawn again.
      seed: of the drawing.
    """
    random = np.random.default_rng(seed)
    means = np.stack(
        [group[random.integers(len(group), size=(resamples, len(values), len(group)))].mean(-1) for group in values],
        axis=-1,
    )  # [resamples, place of the seed in the sample, seed]
    chosen = random.integers(len(values), size=(resamples, len(values)))
    drawn = np.take_along_axis(means, chosen[..., None], axis=-1)[..., 0].mean(-1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean([group.mean() for group in values])), float(low), float(high)


def table(rows: Mapping[int, Mapping[str, Any]]) -> str:
    """Markdown: mean and standard deviation over seeds, and what each row gains on the one that it is compared with."""
    labels = list(next(iter(rows.values())))
    gaps = any(GAP in row for seed in rows.values() for row in seed.values())
    columns = (*SCORES, GAP) if gaps else SCORES
    lines = [
        f"| variant | {' | '.join(columns)} | mAP against | difference [95 % interval] | seeds won |",
        "|---" * (len(columns) + 4) + "|",
    ]
    for label in labels:
        cells = [spread([seed[label].get(score) for seed in rows.values()], score) for score in columns]
        against = next(iter(rows.values()))[label]["against"]
        claim = ["", "", ""]
        if against:
            values = differences(rows, label, against)
            mean, low, high = (100 * number for number in interval(values))
            wins = sum(group.mean() > 0 for group in values)
            claim = [against, f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]", f"{wins} of {len(values)}"]
        lines.append(f"| {' | '.join([label, *cells, *claim])} |")
    return "\n".join(lines)


def spread(values: Sequence[float | None], score: str) -> str:
    """Mean and standard deviation of a score over seeds."""
    numbers = np.array([value for value in values if value is not None])
    if not len(numbers):
        return ""
    factor, digits = (1, 3) if score == GAP else (100, 2)
    deviation = numbers.std(ddof=1) if len(numbers) > 1 else 0.0
    return f"{factor * numbers.mean():.{digits}f} ± {factor * deviation:.{digits}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=tuple(SYSTEMS), action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many (default {SEEDS})")
    parser.add_argument("--first_seed", type=int, default=FIRST_SEED)
    parser.add_argument("--minutes", type=float, default=0.0, help="no further run begins after so many; 0: no limit")
    parser.add_argument("--table", action="store_true", help="print what came out so far")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--workdir", type=Path, default=Path("runs/claims"))
    options = parser.parse_args(arguments)
    place = Place(options.workdir, options.data_dir)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    for name in options.system or SYSTEMS:
        for seed in seeds:
            if not options.table and time.monotonic() < end:
                run_seed(name, seed, place)
        if rows := rows_by_seed(name, seeds, place):
            print(f"\n{name}, {len(rows)} seeds\n\n{table(rows)}\n", flush=True)


if __name__ == "__main__":
    main()
