"""Do the papers' claims hold on drawn data? Trains with and without each idea, over several seeds.

    python benchmarks/claims.py --seeds 3
    python benchmarks/claims.py --seeds 3 --pretrain 16 --lr 5e-4      # as the papers do: start from a trained backbone
    python benchmarks/claims.py --seeds 3 --method ieee
    python benchmarks/claims.py --seeds 3 --method hetero_center --pretrain 16      # or agw, ddag, tvi_lfm

HTT: cross-entropy + triplet, then + 3M, then + 3M + CIM; and test-time training of the last one. IEEE: three streams
with cross-entropy, then with the interacting module, with the relation module, and with 3M. Visible-infrared:
cross-entropy, then + hetero-center loss; Base, then AGW; cross-entropy + triplet, then DDAG's part attention, then its
graph; with the gap between the centres of the modalities (0 to 2; smaller is better). TVI-LFM: the base
model, then the text stage upon it with texts that are added, filtered (SFF), trained jointly (MJL), and the ensemble
(MER) of the last; and in a second table queries in the words of their infrared images. Every seed has drawn people
of its own and weights of its own, shared by all variants, so that differences are paired. Scores are of the LAST epoch,
never of the best one on the test set. With --pretrain the backbone of a seed first learns to tell other drawn
people apart (cross-entropy alone), as the papers start from ImageNet.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs import demo, demo_ieee, demo_tvi_lfm, demo_vi
from mmreid_jax import adapt, train
from mmreid_jax.captioning.colours import strip_colours
from mmreid_jax.commands.convert import write_safetensors
from mmreid_jax.convert import known, layout
from mmreid_jax.embedder import of_experiment
from mmreid_jax.experiment import open_experiment
from mmreid_jax.models.vit import SIZES
from mmreid_jax.scoring import retrieval
from mmreid_jax.training import checkpoints

# Method -> variant -> what it changes in the method's demo; each stands above the one that adds to it.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "htt": {
        "CE + triplet": {"loss.mmm_weight": 0.0, "loss.cim_weight": 0.0},
        "+ 3M": {"loss.mmm_weight": 0.5, "loss.cim_weight": 0.0},
        "+ 3M + CIM": {"loss.mmm_weight": 0.5, "loss.cim_weight": 0.5},
    },
    "ieee": {
        "three streams, CE": {"loss.name": "softmax", "model.cim": False, "model.rem": "off"},
        "+ interaction": {"loss.name": "softmax", "model.rem": "off"},
        "+ REM": {"loss.name": "softmax"},
        "+ 3M": {},
    },
}
VARIANTS |= {
    "hetero_center": {"CE": {"loss.hc_weight": 0.0}, "+ hetero-center": {}},
    "agw": {
        "Base": {"model.non_local": (), "model.pooling": "avg", "loss.triplet": "batch_hard"},
        "AGW": {},
    },
    "ddag": {
        "CE + triplet": {"model.wpa": False, "model.graph": False, "eval.feature": "fc"},
        "+ part attention": {"model.graph": False},
        "+ graph (DDAG)": {},
    },
}
# The text stage of TVI-LFM begins with the base model, its first variant.
TEXT = "tvi_lfm"
VARIANTS[TEXT] = {
    "infrared image alone": {},
    "+ text (add)": {"model.fusion": "add", "loss.joint": False},
    "+ SFF": {"loss.joint": False},
    "+ MJL": {},
}
ENSEMBLE = "+ MER"
"""The last variant again, whose queries are image, text and fusion together."""
DESCRIBED = ("+ text (add)", "+ SFF")
"""Variants whose queries are also described in the words of their infrared images."""
VISIBLE_INFRARED = ("hetero_center", "agw", "ddag")
DEMOS: dict[str, Callable[[], Any]] = {
    "htt": demo.get_config,
    "ieee": demo_ieee.get_config,
    **{method: functools.partial(demo_vi.get_config, method) for method in (*VISIBLE_INFRARED, "base")},
    TEXT: functools.partial(demo_tvi_lfm.get_config, "base"),
    "text stage": functools.partial(demo_tvi_lfm.get_config, "text"),
}
# The last variant again, where the method trains at test time.
ADAPTED = {"htt": "+ 3M + CIM, after MTT"}
GARMENT = r"\b((t-|tee |long sleeve )?shirt|jacket|hoodie|hooded|(long )?coat|(short )?pants|trousers|shorts|skirt)\b"
GUESSES = ("black", "white", "grey", "blue", "red", "green", "brown")
SCORES = ("mAP", "R1", "mINP")
GAP = "gap"
# Added to a seed: drawn people that no run of any seed is trained or tested on.
OTHER_PEOPLE = 1000
PRETRAINING_PEOPLE = 240


def config_of(seed: int, drawn_seed: int, epochs: int, options: argparse.Namespace) -> Any:
    """The demo's config, evaluated once at the end."""
    config = DEMOS[options.method]()
    config.task = "train"
    config.seed = seed
    config.data.drawn_seed = drawn_seed
    config.data.data_dir = options.data_dir
    config.data.drawn_identities = options.identities
    config.optim.epochs = epochs
    config.train.eval_every = epochs
    config.train.evaluate_first = False
    config.eval.report = False
    config.init.backbone = ""
    return config


def pretrained(seed: int, options: argparse.Namespace, folder: Path) -> Path:
    """File with the weights of a backbone that was trained on other drawn people with cross-entropy alone.

    HTT's is another one for each seed. Visible-infrared methods and seeds share one, as they share ImageNet's: one
    stream for both modalities, four times as many people.
    """
    shared = options.method in (*VISIBLE_INFRARED, TEXT)
    name = f"visible-infrared-backbone-{options.pretrain}" if shared else f"{seed}-backbone-{options.pretrain}"
    file = folder / f"{name}.safetensors"
    if not file.is_file():
        chosen = argparse.Namespace(**vars(options))
        if shared:
            seed, chosen.method, chosen.identities = 0, "base", PRETRAINING_PEOPLE
        config = config_of(seed, seed + OTHER_PEOPLE, options.pretrain, chosen)
        for weight in config.loss:
            if weight.endswith("_weight") and weight != "ce_weight":
                config.loss[weight] = 0.0
        if shared:
            config.model.shared_from = 0
            config.data.drawn_images = 12
        workdir = folder / name
        with contextlib.redirect_stdout(io.StringIO()):
            train.fit(open_experiment(config, workdir))
        variables, _ = checkpoints.load_variables(workdir, which="last")
        own = {collection: tree["backbone"] for collection, tree in variables.items() if "backbone" in tree}
        if shared:
            own = {collection: tree["shared"] for collection, tree in own.items()}
        family = "vit" if config.model.backbone in SIZES else "resnet"
        write_safetensors(str(file), layout.export_state(known.named(family), own))
    return file


def one_run(seed: int, variant: str, options: argparse.Namespace, workdir: Path) -> dict[str, dict[str, float]]:
    """Scores of one variant and one seed, and those after test-time training for the last variant."""
    first, *_, last = VARIANTS[options.method]
    upon_base = options.method == TEXT and variant != first
    stage = argparse.Namespace(**{**vars(options), **({"method": "text stage"} if upon_base else {})})
    config = config_of(seed, seed, options.epochs, stage)
    if upon_base:
        config.init.from_base = str(place(options, seed, first))
    elif options.pretrain:
        config.init.backbone = str(pretrained(seed, options, workdir.parent))
    if options.lr:
        config.optim.lr = options.lr
    adapts = options.method in ADAPTED and variant == last
    if adapts:
        config.mtt.optim.epochs = options.adaptation_epochs
        config.mtt.reestimate_statistics = options.reestimate_statistics
    config.update_from_flattened_dict(VARIANTS[options.method][variant])
    experiment = open_experiment(config, workdir)
    with contextlib.redirect_stdout(io.StringIO()):
        train.fit(experiment)
    embedder = of_experiment(experiment, experiment.method.embed)
    variables, _ = checkpoints.load_variables(workdir, which="last")
    placed = experiment.parallel.place_state(variables)
    first_result, *others = retrieval.run(experiment, embedder, placed, variant)
    found = {variant: first_result.row()}
    if upon_base and variant == last:
        found[ENSEMBLE] = next(result for result in others if result.comparison.startswith("mer ")).row()
    if upon_base and variant in DESCRIBED:
        found |= described(experiment, embedder, placed, variant)
    if adapts:
        with contextlib.redirect_stdout(io.StringIO()):
            results, _ = adapt.continual(experiment, embedder, variables)
        found[ADAPTED[options.method]] = next(result for result in results if "last" in result.label).row()
    return {name: {score: float(row[score]) for score in (*SCORES, GAP) if score in row} for name, row in found.items()}


def described(experiment: Any, embedder: Any, variables: Any, variant: str) -> dict[str, Any]:
    """Scores of queries that have the words of their infrared images in place of those of a visible one.

    Colour words are taken out of them, or put in wrongly at every garment.
    """
    query = experiment.splits.query
    own = query.captions[experiment.method.facts.modalities[1]].tolist()
    random = np.random.default_rng(experiment.config.seed)
    words = {"no colours": [strip_colours(text) for text in own]}
    words["wrong colours"] = [wrongly_coloured(text, random) for text in words["no colours"]]
    found = {}
    for name, texts in words.items():
        captions = dict.fromkeys(query.captions, np.array(texts, object))
        splits = dataclasses.replace(experiment.splits, query=dataclasses.replace(query, captions=captions))
        (protocol, *_) = retrieval.protocols_of(experiment.config.data.dataset, experiment.config.eval)
        comparison = experiment.method.comparisons()[0]
        embedded = retrieval.Embedded(embedder, variables, [comparison.feature, comparison.gallery_feature])
        result = retrieval.compare(splits, protocol, experiment.config.eval, comparison, embedded, variant)
        found[f"{variant}, words of the infrared image, {name}"] = result.row()
    return found


def wrongly_coloured(text: str, random: np.random.Generator) -> str:
    """A caption with a colour drawn at random before every garment."""
    return re.sub(GARMENT, lambda found: f"{random.choice(GUESSES)} {found[0]}", text)


def place(options: argparse.Namespace, seed: int, variant: str) -> Path:
    """The workdir of a run."""
    number = list(VARIANTS[options.method]).index(variant)
    name = f"{options.method}-{seed}-{number}-{options.epochs}-{options.pretrain}"
    return (options.workdir / name).absolute()


def table(runs: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: mean +- standard deviation over seeds, and the paired gain over the row above."""
    names = list(next(iter(runs.values())))
    gaps = all(GAP in row for row in next(iter(runs.values())).values())
    lines = [
        "| variant | "
        + " | ".join((*SCORES, GAP) if gaps else SCORES)
        + " | mAP against the row above (mean of pairs, wins) |",
        "|---" * (6 if gaps else 5) + "|",
    ]
    previous: np.ndarray | None = None
    for name in names:
        values = {score: 100 * np.array([run[name][score] for run in runs.values()]) for score in SCORES}
        cells = [f"{v.mean():.1f} ± {v.std(ddof=1) if len(v) > 1 else 0:.1f}" for v in values.values()]
        if gaps:
            apart = np.array([run[name][GAP] for run in runs.values()])
            cells.append(f"{apart.mean():.3f} ± {apart.std(ddof=1) if len(apart) > 1 else 0:.3f}")
        gain = (
            ""
            if previous is None
            else f"{(values['mAP'] - previous).mean():+.1f}, {(values['mAP'] > previous).sum()} of {len(previous)}"
        )
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {gain} |")
        previous = values["mAP"]
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=tuple(VARIANTS), default="htt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--adaptation_epochs", type=int, default=2)
    parser.add_argument("--pretrain", type=int, default=0, help="epochs on other people; 0: start from scratch")
    parser.add_argument("--lr", type=float, default=0.0, help="0: that of the demo")
    parser.add_argument("--reestimate_statistics", action="store_true", help="of the neck, over the test set, in MTT")
    parser.add_argument("--identities", type=int, default=60, help="in each of training and test")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--workdir", type=Path, default=Path("runs/claims"))
    parser.add_argument("--out", type=Path, default=Path("runs/claims/claims.json"))
    options = parser.parse_args()
    if options.pretrain and options.method == "ieee":
        parser.error("--pretrain is not for --method ieee")
    variants = VARIANTS[options.method]
    runs: dict[str, Any] = {}
    for seed in range(options.seeds):
        runs[str(seed)] = {}
        for variant in variants:
            begun = time.monotonic()
            runs[str(seed)].update(one_run(seed, variant, options, place(options, seed, variant)))
            print(f"seed {seed}, {variant}: {runs[str(seed)][variant]} ({time.monotonic() - begun:.0f} s)", flush=True)
        if adapted := ADAPTED.get(options.method):
            print(f"seed {seed}, {adapted}: {runs[str(seed)][adapted]}", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(runs, indent=1))
    told = [name for name in next(iter(runs.values())) if "words of the infrared image" in name]
    print(table({seed: {name: row for name, row in run.items() if name not in told} for seed, run in runs.items()}))
    if told:
        print("\n" + table({seed: {name: run[name] for name in told} for seed, run in runs.items()}))


if __name__ == "__main__":
    main()
