"""The training loop: data -> step -> log -> evaluate -> checkpoint; it reads top to bottom."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax

import mmreid_jax.evaluate as evaluate
from mmreid_jax import interruption, validation
from mmreid_jax.data import pipeline, samplers
from mmreid_jax.data.records import Records
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import Experiment, open_experiment, steps_of
from mmreid_jax.methods.base import shapes, start_memory
from mmreid_jax.training import checkpoints, forecast, logs, optimizers, profiling, state, step
from mmreid_jax.training import config as configs

STOPPING = "stopping after this step or evaluation, whose state is saved (once more: at once)"
"""The answer to the first Ctrl-C."""


def main(config: Any, workdir: Path) -> None:
    """Trains, evaluates on the way, and the best model once more in the end."""
    with evaluate.alone_in(workdir):
        experiment = open_experiment(config, workdir)
        evaluate.finish(experiment, fit(experiment), "trained")


def plan_of(experiment: Experiment) -> samplers.Plan:
    """The batches of the whole run."""
    records, config = experiment.splits.train, experiment.config
    train = config.train
    size = (train.identities_per_batch, train.images_per_identity, config.optim.epochs, config.seed)
    drawn: dict[str, Callable[[], samplers.Plan]]
    if records.modality is None:
        drawn = {
            "counter": lambda: samplers.pk(records.identity, *size),
            "reference": lambda: samplers.pk_reference(records.identity, *size),
            "cameras": lambda: samplers.spread_reference(records.camera, *size),
            "scenes": lambda: samplers.spread_reference(records.scene, *size),
        }
    else:
        labels = (records.class_index(), records.modality, records.modalities)
        replace = train.replacement
        drawn = {
            "counter": lambda: samplers.cross_modal(*labels, *size, replace=replace),
            "reference": lambda: samplers.cross_modal_reference(*labels, *size, replace=replace),
            "hetero_center": lambda: samplers.cross_modal_reference(
                *labels, *size, replace=replace, second_batch_twice=True
            ),
            "unpaired": lambda: samplers.unpaired(*labels[1:], size[0] * size[1], *size[2:]),
        }
    if train.sampler not in drawn:
        raise UserError(
            f"config.train.sampler is {train.sampler!r}; choose one of {', '.join(drawn)} for {records.name}"
        )
    return drawn[train.sampler]()


def fit(experiment: Experiment) -> Any:
    """Trains until the last epoch, resuming where the workdir says; returns the variables of the best checkpoint.

    Raises:
      UserError: the batch does not fit the data or the devices, the workdir holds another run, or a loss is not finite.
    """
    config, method, splits = experiment.config, experiment.method, experiment.splits
    train = splits.train
    tables = [train] if train.modality is None else [train.of_modality(name) for name in train.modalities]
    notes = [
        note
        for table in tables
        for note in configs.check_batch(
            table.identity,
            identities_per_batch=config.train.identities_per_batch,
            images_per_identity=config.train.images_per_identity,
            devices=experiment.parallel.size,
            micro_batches=config.train.micro_batches,
            name=train.name if table is train else f"{train.name} in {table.modalities[0]}",
        )
    ]
    plan = plan_of(experiment)
    fresh = start_variables(experiment)
    job = Job(
        folder=checkpoints.FOLDER,
        records=splits.train,
        plan=plan,
        images=experiment.image_options,
        loss=method.loss,
        optimizer=method.optimizer(fresh["params"], plan.epoch_ends),
        learning_rate=optimizers.rate(config.optim, plan.epoch_ends),
        evaluate_every=config.train.eval_every,
        checkpoint_every=config.train.checkpoint_every,
        evaluate_first=at_first(experiment) if config.train.evaluate_first else {},
        kind="train",
        memory=start_memory(method, plan.epoch_ends),
    )
    # Without labels all images count as one identity, which is nothing to remark on.
    remarks = [f"note: {note}" for note in notes] if config.data.labels else []
    expected = expectation(experiment).describe(len(plan))
    run(experiment, job, fresh, [describe(experiment, plan), *expected, *remarks])
    return load(experiment, job, fresh, "best")[0]


@dataclasses.dataclass(frozen=True)
class Job:
    """What one run of the loop does; training and test-time training differ in nothing else.

    Attributes:
      folder: of the checkpoints, below the workdir.
      records: table that the plan draws from.
      plan: the batches of the whole run.
      images: how the pipeline prepares them.
      loss: `Method.loss` or `Method.adapt_loss`.
      optimizer: for the parameters.
      learning_rate: step -> base rate, for the log.
      evaluate_every: epochs.
      checkpoint_every: epochs; an evaluated state is always saved.
      evaluate_first: evaluations before the first step: label -> variables, None for those that training starts from.
      kind: of the lines in the log, ``train`` or ``adapt``.
      memory: of the method before the first step.
      before_evaluation: variables -> variables to evaluate.
    """

    folder: str
    records: Records
    plan: samplers.Plan
    images: pipeline.ImageOptions
    loss: step.LossFunction
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[int], Any]
    evaluate_every: int
    checkpoint_every: int
    evaluate_first: Mapping[str, Any]
    kind: str
    memory: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    before_evaluation: Callable[[Any], Any] = lambda variables: variables

    def due(self, epoch: int, epoch_ends: bool) -> tuple[bool, bool]:
        """Whether to evaluate and whether to save after a step of an epoch (from 0), by whether that ends with it."""
        last = epoch + 1 == len(self.plan.epoch_ends)
        evaluating, saving = (
            (epoch + 1) % every == 0 or last for every in (self.evaluate_every, self.checkpoint_every)
        )
        return epoch_ends and evaluating, epoch_ends and saving

    def unrated_epoch(self, done: int) -> int | None:
        """The epoch, from 1, with which the first `done` steps end, if it is one to evaluate after; else None."""
        epoch = int(np.searchsorted(self.plan.epoch_ends, done))
        ends = epoch < len(self.plan.epoch_ends) and self.plan.epoch_ends[epoch] == done
        return epoch + 1 if ends and self.due(epoch, True)[0] else None


def run(experiment: Experiment, job: Job, variables: Any, headline: Sequence[str]) -> None:
    """THE loop: steps, logs, evaluates and saves until the plan ends; goes on where the job's checkpoints stop.

    Args:
      experiment: with data for evaluation, method and devices.
      job: what to run.
      variables: before the first step.
      headline: printed first.

    Raises:
      UserError: the folder holds another run, a loss is not finite, or a signal asked to stop.
    """
    config, parallel, plan = experiment.config, experiment.parallel, job.plan
    parallel.check_batch(plan.batch)
    together = steps_per_call(config)
    current = parallel.place_state(state.create(variables, job.optimizer, dict(job.memory)))
    pure = step.train_step(job.loss, job.optimizer, seed=config.seed, normalization=experiment.normalization)
    scored = evaluate.scorer(experiment)

    with (
        checkpoints.Checkpoints(experiment.workdir / job.folder) as store,
        interruption.acknowledged(STOPPING, obey=False) as interrupted,
    ):
        start, unrated = 0, None
        if store.latest_step() is not None:
            current, meta = store.restore(step.abstract(current, parallel.everywhere))
            check_same_run(config, meta, experiment.workdir)
            start = int(meta["step"])
            # A state whose scoring failed, or was killed, is scored now.
            unrated = job.unrated_epoch(start) if not store.is_rated(start) else None
        with logs.RunLog(
            experiment.workdir,
            kind=job.kind,
            start_step=start,
            total_steps=len(plan),
            last_good=store.latest_step,
            rescored=unrated is not None,
            loggers=config.train.loggers,
            config=config.to_dict(),
        ) as log:
            for line in [*headline, *([f"resuming after step {start} of {len(plan)}"] if start else [])]:
                log.say(line)

            def score(label: str, at_step: int, epoch: int, others: Any = None) -> None:
                chosen = current.variables if others is None else parallel.place_state(others)
                row = scored(job.before_evaluation(chosen), label)
                log.evaluation(at_step, epoch, row)
                if at_step:
                    store.rate(at_step, numbers(row))

            if start < len(plan):
                scored.rehearse(current.variables)
            for label, others in job.evaluate_first.items() if start == 0 else ():
                score(label, 0, 0, others)
            if unrated is not None:
                score(f"epoch {unrated}", start, unrated)
            run_steps = announced(parallel.jit_steps(pure), log.say)
            trace = profiling.Trace(experiment.workdir, config.train.profile, start, 2 * together + 1, log.say)
            table = experiment.held(job.records, job.images, training=True)
            batches = pipeline.train_batches(
                job.records,
                plan,
                job.images,
                start_step=start,
                seed=config.seed,
                threads=config.data.threads,
                workers=config.data.workers,
                shard=experiment.shard,
                held=table.host,
            )

            def halts(index: int, epoch: int, epoch_ends: bool) -> bool:
                logging = (index + 1) % config.train.log_every == 0
                return logging or any(job.due(epoch, epoch_ends)) or trace.begins_or_ends_after(index)

            with batches, trace:
                for group in grouped(steps_of(plan.epoch_ends, start), together, halts):
                    trace.before(group[0][0], current)
                    images = plan.batch if log.timed else 0
                    with jax.profiler.StepTraceAnnotation("train", step_num=group[0][0]):
                        drawn = list(itertools.islice(batches, len(group)))
                        current, metrics = run_steps(current, drawn, table.arrays)
                    for (index, epoch, epoch_ends), values in zip(group, metrics, strict=True):  # noqa: B007
                        values["learning_rate"] = job.learning_rate(index)
                        log.step(index + 1, epoch + 1, values, images=images, every=config.train.log_every)
                    done, stop = index + 1 == len(plan), interrupted()
                    due, saving = job.due(epoch, epoch_ends)
                    if due or saving or stop:
                        log.check_finite()
                        meta = {"config": config.to_dict(), "facts": dataclasses.asdict(experiment.method.facts)}
                        meta.update(epoch=epoch + 1, data_position=index + 1)
                        store.save(index + 1, current, meta)
                        if due:
                            score(f"epoch {epoch + 1}", index + 1, epoch + 1)
                    if stop and not done:
                        store.wait()
                        raise UserError(
                            f"stopped by a signal after step {index + 1} of {len(plan)}; "
                            "the same command goes on from there"
                        )
                trace.finish(current)
            experiment.on_device.release(job.records)


def announced(run_steps: Callable[..., Any], say: Callable[[str], None]) -> Callable[..., Any]:
    """`Parallel.jit_steps` that says when it starts to compile a program, and how long that took."""
    compiled: set[int] = set()

    def run(current: Any, drawn: list[Any], held: Any) -> Any:
        if len(drawn) in compiled:
            return run_steps(current, drawn, held)
        compiled.add(len(drawn))
        several = f" ({len(drawn)} steps in one call)" if len(drawn) > 1 else ""
        say(f"compiling the training step{several} ...")
        begun = time.monotonic()
        result = run_steps(current, drawn, held)
        say(f"compiled in {time.monotonic() - begun:.1f} s; the first step runs")
        return result

    return run


Numbered = tuple[int, int, bool]
"""A step of `steps_of`: its number, its epoch, whether the epoch ends with it."""


def grouped(steps: Iterable[Numbered], size: int, halts: Callable[[int, int, bool], bool]) -> Iterator[list[Numbered]]:
    """Cuts steps into groups of `size` for one call each; a group never goes on after a step that `halts`.

    What does not fill a group comes one by one, so that there are two programs and not one for each length.
    """
    group: list[Numbered] = []
    for numbered in steps:
        group.append(numbered)
        if len(group) == size:
            yield group
            group = []
        elif halts(*numbered):
            yield from ([single] for single in group)
            group = []
    yield from ([single] for single in group)


def steps_per_call(config: Any) -> int:
    """``config.train.steps_per_call``, if it is a number of steps; else `UserError`."""
    if config.train.steps_per_call < 1:
        raise UserError(f"config.train.steps_per_call is {config.train.steps_per_call}; choose at least 1")
    return config.train.steps_per_call


def load(experiment: Experiment, job: Job, like: Any, which: Literal["best", "last"]) -> tuple[Any, dict[str, Any]]:
    """Variables and meta data of the job's best or last checkpoint, on the host."""
    return checkpoints.load_variables(experiment.workdir / job.folder, like=step.abstract(like), which=which)


def start_variables(experiment: Experiment) -> Any:
    """Variables before the first step: of a trained model where the config names one, else fresh."""
    if experiment.config.init.checkpoint:
        return experiment.trained_variables()[0]
    return experiment.fresh_variables()


def at_first(experiment: Experiment) -> dict[str, Any]:
    """What is evaluated before the first step: the untrained network, and what training starts from if that is more."""
    init = experiment.config.init
    if init.checkpoint or not (init.backbone or init.from_mmgl or init.from_base):
        return {"untrained": None}
    untrained = experiment.method.init(jax.random.key(experiment.config.seed))
    return {"untrained": jax.tree.map(np.asarray, untrained), "base model" if init.from_base else "trunk alone": None}


def check_same_run(config: Any, meta: dict[str, Any], workdir: Path) -> None:
    """Raises a `UserError` where the workdir's checkpoint was made by a config that would train something else."""
    free = (
        "data.threads",
        "data.workers",
        "data.cache_gib",
        "data.on_device",
        "data.data_dir",
        "data.manual_dir",
        "eval.",
        "train.log_",
        "train.loggers",
        "train.compilation_cache",
        "train.compiler",
        "train.steps_per_call",
        "train.profile",
        "train.checkpoint_every",
        "task",
        # What it stands for is compared.
        "parity",
        "mtt.",
        "init.",
    )
    then, now = (validation.complete(either) for either in (meta["config"], config))
    changed = [line for line in configs.differences(then, now) if not line.startswith(free)]
    if changed:
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(changed[:3])}); "
            "choose another --workdir, or delete this one to start again"
        )


def numbers(scores: dict[str, Any]) -> dict[str, float]:
    """The numbers among the scores."""
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}


def expectation(experiment: Experiment) -> forecast.Forecast:
    """What a training step will take."""
    config, method = experiment.config, experiment.method
    height, width = config.data.image_size
    image = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    batch: dict[str, Any] = {"images": dict.fromkeys(method.facts.modalities, image)}
    batch |= dict.fromkeys(("identity", "camera", "scene"), jax.ShapeDtypeStruct((1,), np.int32))
    images = config.train.identities_per_batch * config.train.images_per_identity
    # Each modality of a sample has an image, and some have a second view of it.
    views = len(method.facts.modalities) + len(config.data.second_views)
    samples = round(images * views / len(method.facts.modalities))
    return forecast.forecast(method.embed, shapes(method), batch, samples)


def describe(experiment: Experiment, plan: samplers.Plan) -> str:
    """What is about to run, in a few lines."""
    config, splits = experiment.config, experiment.splits
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes(experiment.method)))
    tables = ", ".join(
        f"{name} {len(table)} samples"
        + (
            " without labels"
            if name == "train" and not config.data.labels
            else f" of {len(table.identities)} identities"
        )
        for name, table in (("train", splits.train), ("query", splits.query), ("gallery", splits.gallery))
    )
    train = config.train
    return "\n".join(
        (
            f"{config.method} on {experiment.data_name}: {tables}",
            f"{count / 1e6:.2f} M parameters, {experiment.parallel.size} x {jax.devices()[0].device_kind}, batch "
            f"{train.identities_per_batch} x {train.images_per_identity}, "
            f"{config.optim.epochs} epochs = {len(plan)} steps",
        )
    )
