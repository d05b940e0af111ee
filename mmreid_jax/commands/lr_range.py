"""Which learning rate to begin with.

``python -m mmreid_jax lr_range --config configs/X.py``

A short run on the real training batches whose rate grows from step to step: where the loss falls fastest is a good
rate, where it grows without bound is too much. Where it falls over many rates, a descent counts by the root of its
rate, since the first steps are the easiest. Nothing of the run is kept but the curve.

Reference: Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import mmreid_jax.train as train
from mmreid_jax import owned
from mmreid_jax.data import pipeline, samplers
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import Experiment, open_experiment
from mmreid_jax.flags import from_arguments
from mmreid_jax.methods.base import start_memory
from mmreid_jax.paths import check_output, path_of
from mmreid_jax.training import config as configs
from mmreid_jax.training import distributed, state, step

TABLE, PICTURE = "lr_range.csv", "lr_range.png"
COLUMNS = ("step", "rate", "loss", "smoothed")
DIVERGED = 4.0
"""The run stops where the smoothed loss is this many times its lowest value."""


GRADUAL = 1.5
"""Decades of rates over which the loss falls gradually, from a tenth of its fall to nine tenths."""


@dataclasses.dataclass(frozen=True)
class Range:
    """What a range test found.

    Attributes:
      rates: float64 [n], one a step.
      losses: float64 [n], of the training batches, all finite.
      smooth: float64 [n], the losses without their noise.
      suggested: rate at which the loss falls fastest, see `judge`; None where it does not fall.
      diverged: rate at which the loss grew without bound; None where it did not.
    """

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    suggested: float | None
    diverged: float | None


def smoothed(losses: Sequence[float] | np.ndarray, width: float) -> np.ndarray:
    """Mean of the neighbours, weighted by a normal curve of `width` steps: float64 [n]; a straight line stays one
    away from its ends."""
    values = np.asarray(losses, np.float64)
    place = np.arange(len(values))
    weights = np.exp(-0.5 * np.square((place[:, None] - place) / width))
    return weights @ values / weights.sum(axis=1)


def diverges(losses: Sequence[float] | np.ndarray, width: float) -> bool:
    """Whether the last loss is not finite, or the smoothed loss has grown beyond `DIVERGED` times its lowest value."""
    if not math.isfinite(losses[-1]):
        return True
    smooth = smoothed(losses, width)
    lowest = smooth.min()
    return bool(smooth[-1] > lowest + (DIVERGED - 1) * abs(lowest))


def judge(rates: np.ndarray, losses: Sequence[float], width: float) -> Range:
    """The result of a test that stopped after ``losses``, at the latest where they diverge.

    Args:
      rates: float64 [at least n], growing by the same factor from step to step.
      losses: n losses; the last one may be infinite or NaN.
      width: of the smoothing, in steps.

    Raises:
      UserError: the very first loss is not finite.
    """
    count = len(losses)
    diverged = float(rates[count - 1]) if diverges(losses, width) else None
    kept = np.array([loss for loss in losses if math.isfinite(loss)])
    if not len(kept):
        raise UserError("the loss is not finite before the first step; look at the data and at the weights given.")
    rates = np.asarray(rates[: len(kept)], np.float64)
    smooth = smoothed(kept, width)
    suggested = None
    # The ends are smoothed from one side only, and what comes after the lowest loss is no descent.
    begin, end = math.ceil(width), int(smooth.argmin())
    if end - begin >= 2:
        slopes = np.gradient(smooth, np.log(rates))[begin:end]
        if slopes.min() < 0:
            if _falls_gradually(rates[begin:end], smooth[begin:end]):
                wide = smoothed(kept, 2 * width)
                slopes = (np.gradient(wide, np.log(rates)) * np.sqrt(rates))[begin:end]
            suggested = float(rates[begin + int(slopes.argmin())])
    return Range(rates, kept, smooth, suggested, diverged)


def _falls_gradually(rates: np.ndarray, smooth: np.ndarray) -> bool:
    """Whether the loss falls over many rates instead of around one.

    Then the first steps are the steepest, at however small a rate they are made, because a fresh classifier has
    everything to gain; a descent counts by the root of its rate instead.
    """
    share = (smooth[0] - smooth) / max(smooth[0] - smooth[-1], 1e-30)
    ends = rates[int(np.argmax(share >= 0.1))], rates[int(np.argmax(share >= 0.9))]
    return bool(math.log10(ends[1] / ends[0]) > GRADUAL)


def prepared(config: Any) -> Any:
    """The config with a rate of 1 that nothing changes, so that a factor on the updates is the rate."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.optim.update(lr=1.0, schedule="constant", warmup_epochs=0)
        if "fixbase_epochs" in config.train:
            config.train.fixbase_epochs = 0
    return config


def plan_of(experiment: Experiment, steps: int) -> samplers.Plan:
    """The first batches of training, at least `steps` of them."""
    config = experiment.config.copy_and_resolve_references()
    plan = None
    epochs = 0
    while plan is None or len(plan) < steps:
        epochs += 1 if plan is None else -(-(steps - len(plan)) // max(1, len(plan) // epochs))
        with config.unlocked():
            config.optim.epochs = epochs
        plan = train.plan_of(dataclasses.replace(experiment, config=config))
    return plan


def run(experiment: Experiment, rates: np.ndarray, width: float) -> Range:
    """Trains with growing rates until they end or the loss diverges.

    Args:
      experiment: of a `prepared` config.
      rates: float64 [steps].
      width: of the smoothing, in steps.

    Raises:
      UserError: the batch does not fit the data or the devices, or the first loss is not finite.
    """
    from tqdm import tqdm

    config, method, parallel = experiment.config, experiment.method, experiment.parallel
    configs.check_batch(
        experiment.splits.train.identity,
        identities_per_batch=config.train.identities_per_batch,
        images_per_identity=config.train.images_per_identity,
        devices=parallel.size,
        micro_batches=config.train.micro_batches,
        name=experiment.splits.train.name,
    )
    plan = plan_of(experiment, len(rates))
    variables = train.start_variables(experiment)
    by_step = jnp.asarray(rates)
    optimizer = optax.chain(
        method.optimizer(variables["params"], plan.epoch_ends), optax.scale_by_schedule(lambda count: by_step[count])
    )
    memory = start_memory(method, plan.epoch_ends)
    current = parallel.place_state(state.create(variables, optimizer, memory))
    run_step = parallel.jit_train(
        step.train_step(method.loss, optimizer, seed=config.seed, normalization=experiment.normalization)
    )
    losses: list[float] = []
    records, images = experiment.splits.train, experiment.image_options
    table = experiment.held(records, images, training=True)
    batches = pipeline.train_batches(
        records,
        plan,
        images,
        seed=config.seed,
        threads=config.data.threads,
        workers=config.data.workers,
        shard=experiment.shard,
        held=table.host,
    )
    with batches, tqdm(rates, unit="step", disable=not sys.stderr.isatty()) as bar:
        for rate, batch in zip(bar, batches, strict=False):
            current, metrics = run_step(current, parallel.place_batch(batch, table.arrays))
            losses.append(float(metrics["loss"]))
            bar.set_postfix(rate=f"{rate:.1e}", loss=f"{losses[-1]:.3f}")
            if diverges(losses, width):
                break
    return judge(rates, losses, width)


def check_target(folder: Path) -> None:
    """Says whether `save` may write to a folder, before there is a result.

    Raises:
      UserError: a file there is not this program's.
    """
    owned.check_file(folder / TABLE, _is_table, "learning-rate range")
    owned.check_file(folder / PICTURE, owned.is_picture, "picture of a learning-rate range")


def _is_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline(100).rstrip() == ",".join(COLUMNS).encode()


def save(result: Range, folder: Path, configured: float) -> tuple[Path, Path]:
    """Writes ``lr_range.csv`` and ``lr_range.png``; returns their paths.

    Args:
      found: the result.
      folder: made if it is absent.
      configured: rate of the config, drawn for comparison.

    Raises:
      UserError: a file cannot be written.
    """
    import io

    from mmreid_jax.visualize import rates, style

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, line in enumerate(zip(result.rates, result.losses, result.smooth, strict=True), start=1):
        writer.writerow((number, *(f"{value:.6g}" for value in line)))
    table = folder / TABLE
    style.write_bytes(table, text.getvalue().encode())
    picture = rates.range_picture(
        result.rates,
        result.losses,
        result.smooth,
        suggested=result.suggested,
        diverged=result.diverged,
        configured=configured,
    )
    return table, picture.write(folder)


def describe(result: Range, configured: float) -> str:
    """What to do with the result, in a few lines."""
    first, last = result.rates[0], result.rates[-1]
    if result.suggested is None:
        lines = [f"the loss falls nowhere between {first:.1e} and {last:.1e}; try other bounds or more steps"]
    else:
        lines = [f"suggested rate: {result.suggested:.1e}, where the loss falls fastest"]
    lowest = result.rates[result.smooth.argmin()]
    lines.append(f"lowest loss at: {lowest:.1e}, a tenth of which is the other common choice")
    if result.diverged is None:
        lines.append(f"no divergence up to {last:.1e}")
    else:
        lines.append(f"diverges at:    {result.diverged:.1e}")
    return "\n".join([*lines, f"in the config:  {configured:.1e}"])


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax lr_range",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="Settings are overridden as in main.py: --config.optim.name=adamw.",
    )
    parser.add_argument("--config", required=True, help="experiment, a file of configs/")
    parser.add_argument("--lr_min", type=float, default=1e-6, help="first rate (default %(default)s)")
    parser.add_argument("--lr_max", type=float, default=1.0, help="last rate (default %(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="number of steps (default %(default)s)")
    parser.add_argument("--out", type=path_of, help="folder for lr_range.csv and lr_range.png (default runs/CONFIG)")
    arguments, rest = parser.parse_known_args(argv)
    if not 0 < arguments.lr_min < arguments.lr_max:
        raise UserError(
            f"--lr_min={arguments.lr_min:g} --lr_max={arguments.lr_max:g}: rates must grow, from above 0 to more"
        )
    if arguments.steps < 10:
        raise UserError(f"--steps={arguments.steps}: a curve needs at least 10 steps")
    config, name = from_arguments([f"--config={arguments.config}", *rest])
    folder = arguments.out or Path("runs") / name
    check_target(folder)
    check_output(folder, "--out", folder=True)
    distributed.start()
    experiment = open_experiment(prepared(config), folder.absolute())
    rates = np.geomspace(arguments.lr_min, arguments.lr_max, arguments.steps)
    result = run(experiment, rates, width=max(1.0, arguments.steps / 40))
    if distributed.is_main():
        table, picture = save(result, folder, config.optim.lr)
        print(f"{config.method} on {experiment.data_name}")
        print(describe(result, config.optim.lr))
        print(f"curve: {picture}, {table}")
