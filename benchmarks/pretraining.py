"""Does MMGL's pre-training help on drawn data? Random weights against pre-trained ones, with the same supervised steps.

    python benchmarks/pretraining.py --seeds 3
    python benchmarks/pretraining.py --seeds 1 --pretexts both exclude_self sequential

Every seed has drawn people of its own. On the training half a trunk is pre-trained without labels; then, with labels,
a linear probe learns on the frozen trunk, and Base and AGW are fine-tuned from it. Scores are of the LAST epoch,
infrared to visible, of people that neither stage has seen. The exact accuracy is that of orders of unseen people.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from configs import demo_mmgl, demo_vi
from mmreid_jax import train
from mmreid_jax.embedder import of_experiment
from mmreid_jax.experiment import open_experiment
from mmreid_jax.scoring import orders, retrieval
from mmreid_jax.training import checkpoints

# What is pre-trained -> what it changes in the demo; None: nothing is.
PRETEXTS: dict[str, dict[str, Any] | None] = {
    "random": None,
    "permutation": {"loss.cl_weight": 0.0},
    "pcc": {"loss.perm_weight": 0.0},
    "both": {},
    "one_stream": {"model.shared_from": 0},
    "sequential": {"loss.cl_mode": "sequential"},
    "cycle_back": {"loss.cl_mode": "cycle_back"},
    "exclude_self": {"loss.exclude_self": True},
    "pairs": {"loss.candidate_scope": "pair", "loss.negative_scope": "pair"},
    "stop_gradient": {"loss.stop_gradient": True},
    "mean": {"loss.perm_reduction": "mean"},
}
MAIN = ("random", "permutation", "pcc", "both")
# What is trained with labels -> method and what it changes in its demo.
SUPERVISED: dict[str, tuple[str, dict[str, Any]]] = {
    "probe": ("base", {"optim.base_lr_factor": 0.0}),
    "base": ("base", {}),
    "agw": ("agw", {}),
}
SCORES = ("mAP", "R1")


def common(config: Any, seed: int, epochs: int, options: argparse.Namespace) -> Any:
    """A demo's config on the people of a seed, evaluated once at the end."""
    config.seed = config.data.drawn_seed = seed
    config.data.data_dir = options.data_dir
    config.data.drawn_identities = options.identities
    config.optim.epochs = epochs
    config.train.eval_every = epochs
    config.train.evaluate_first = False
    config.init.backbone = ""
    config.eval.report = False
    return config


def pretrain(seed: int, changes: dict[str, Any], options: argparse.Namespace, workdir: Path) -> dict[str, float]:
    """Pre-trains into a workdir; the accuracies on unseen people."""
    config = common(demo_mmgl.get_config(), seed, options.pretrain, options)
    config.optim.warmup_epochs = max(1, options.pretrain // 10)
    config.update_from_flattened_dict(changes)
    experiment = open_experiment(config, workdir)
    variables = train.fit(experiment)
    row = orders.Examiner(experiment)(experiment.parallel.place_state(variables), "")
    return {name: value for name, value in row.items() if name != "label"}


def supervise(seed: int, kind: str, trunk: Path | None, options: argparse.Namespace, workdir: Path) -> dict[str, float]:
    """Trains with labels from a pre-trained trunk (None: from random weights); retrieval scores."""
    method, changes = SUPERVISED[kind]
    config = common(demo_vi.get_config(method), seed, options.epochs, options)
    config.optim.lr = demo_mmgl.SUPERVISED_LR
    config.update_from_flattened_dict(changes)
    config.init.from_mmgl = "" if trunk is None else str(trunk)
    experiment = open_experiment(config, workdir)
    train.fit(experiment)
    variables, _ = checkpoints.load_variables(workdir, which="last")
    placed = experiment.parallel.place_state(variables)
    row = retrieval.run(experiment, of_experiment(experiment, experiment.method.embed), placed, "")[0].row()
    return {score: float(row[score]) for score in SCORES}


def table(runs: dict[str, dict[str, dict[str, dict[str, float]]]], kinds: list[str]) -> str:
    """Markdown: exact accuracy, and the mAP of each supervised stage with its paired gain over random weights."""
    names = [name for name in PRETEXTS if any(name in run for run in runs.values())]
    lines = [
        "| pre-training | exact accuracy visible / infrared | "
        + " | ".join(f"{kind}: mAP, R1 (gain in mAP, wins)" for kind in kinds)
        + " |",
        "|---" * (2 + len(kinds)) + "|",
    ]
    for name in names:
        held = [run for run in runs.values() if name in run]
        accuracies = [[v for k, v in run[name].get("pretext", {}).items() if k.startswith("exact")] for run in held]
        known = [values for values in accuracies if values]
        cells = [" / ".join(f"{100 * v:.1f}" for v in np.mean(known, axis=0)) if known else "-"]
        for kind in kinds:
            done = [run for run in held if kind in run[name]]
            if not done:
                cells.append("-")
                continue
            values = {s: 100 * np.array([run[name][kind][s] for run in done]) for s in SCORES}
            cell = ", ".join(f"{v.mean():.1f} ± {v.std(ddof=1) if len(v) > 1 else 0:.1f}" for v in values.values())
            paired = [run for run in done if name != "random" and kind in run.get("random", {})]
            if paired:
                gain = 100 * np.array([run[name][kind]["mAP"] - run["random"][kind]["mAP"] for run in paired])
                cell += f" ({gain.mean():+.1f}, {(gain > 0).sum()} of {len(gain)})"
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretexts", nargs="+", choices=tuple(PRETEXTS), default=MAIN)
    parser.add_argument("--supervised", nargs="*", choices=tuple(SUPERVISED), default=tuple(SUPERVISED))
    parser.add_argument("--pretrain", type=int, default=40, help="epochs without labels")
    parser.add_argument("--epochs", type=int, default=8, help="epochs with labels")
    parser.add_argument("--identities", type=int, default=60, help="in each of training and test")
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--workdir", type=Path, default=Path("runs/pretraining"))
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    file = options.workdir / "pretraining.json"
    runs: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for seed in range(options.seeds):
        for name in options.pretexts:
            own = runs.setdefault(str(seed), {}).setdefault(name, {})
            trunk = (options.workdir / f"{seed}-{name}").absolute()
            changes = PRETEXTS[name]
            stages = [] if changes is None else ["pretext"]
            for stage in [*stages, *options.supervised]:
                if stage in own:
                    continue
                begun = time.monotonic()
                with contextlib.redirect_stdout(io.StringIO()):
                    if stage == "pretext":
                        own[stage] = pretrain(seed, changes or {}, options, trunk)
                    else:
                        start = None if changes is None else trunk
                        own[stage] = supervise(seed, stage, start, options, Path(f"{trunk}-{stage}"))
                print(f"seed {seed}, {name}, {stage}: {own[stage]} ({time.monotonic() - begun:.0f} s)", flush=True)
                file.write_text(json.dumps(runs, indent=1))
    print(table(runs, list(options.supervised)))


if __name__ == "__main__":
    main()
