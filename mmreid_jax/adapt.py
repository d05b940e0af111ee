"""The test-time training loop: the steps of training, on unlabelled test batches, from a trained model."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mmreid_jax.evaluate as evaluate
import mmreid_jax.train as train
from mmreid_jax.data import pipeline, samplers
from mmreid_jax.embedder import Embedder, of_experiment
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import Experiment, image_options, open_experiment
from mmreid_jax.methods.base import Adapts
from mmreid_jax.retrieval import metrics
from mmreid_jax.scoring import retrieval
from mmreid_jax.scoring.retrieval import Result
from mmreid_jax.training import distributed, optimizers, state, step

FOLDER = "adaptation"
"""Name of the folder in a workdir that holds the checkpoints of the adapted model."""


def main(config: Any, workdir: Path) -> None:
    """Adapts a trained model to the test set; prints scores before and after and writes the report.

    The model is ``config.init.checkpoint``, or with ``config.task`` "train_adapt" the best of a training before.
    """
    with evaluate.alone_in(workdir):
        experiment = open_experiment(config, workdir, starts=config.task == "train_adapt")
        trained = train.fit(experiment) if config.task == "train_adapt" else experiment.trained_variables()[0]
        fit(experiment, trained)


def of_model(config: Any, workdir: Path, method: Any, variables: Any, claim: str) -> Any:
    """Adapts a model that is in memory.

    Args:
      config: of the model, with the settings of the adaptation.
      workdir: held meanwhile; checkpoints, logs and the report go there.
      method: of the model.
      variables: of the model, on the host.
      claim: what tells this adaptation from others.

    Returns:
      See `fit`.

    Raises:
      UserError: another process works in the workdir, or it holds the adaptation of another model.
    """
    with evaluate.alone_in(workdir):
        _claim(workdir, claim)
        return fit(open_experiment(config, workdir, method), variables)


def _claim(folder: Path, adaptation: str) -> None:
    """Notes in a workdir which adaptation it is of; `UserError` where it is of another one, which would go on there."""
    digest, note = hashlib.sha256(adaptation.encode()).hexdigest(), folder / "adaptation_of.txt"
    if note.exists() and note.read_text().strip() != digest:
        raise UserError(
            f"{folder} holds the adaptation of another model or with other settings; choose another workdir"
        )
    note.write_text(f"{digest}\n")


def fit(experiment: Experiment, variables: Any) -> Any:
    """Adapts trained variables and reports: before, the best epoch and the last one.

    Returns:
      Variables of the best epoch, on the host; those given where every set of queries was adapted to alone.

    Raises:
      UserError: the method cannot be adapted, or the batch does not fit.
    """
    config, method = experiment.config, experiment.method
    if not isinstance(method, Adapts):
        raise UserError(f"method {config.method!r} has no test-time training; use --config.task=train")
    experiment = fitting_devices(experiment)
    embedder = of_experiment(experiment, experiment.method.embed)
    before = retrieval.run(
        experiment, embedder, experiment.parallel.place_state(variables), "trained", config.eval.missing_modalities
    )
    if config.mtt.episodic:
        after, adapted = [episodic(experiment, embedder, variables)], variables
    else:
        after, adapted = continual(experiment, embedder, variables)
    evaluate.report(experiment, experiment.parallel.place_state(adapted), [*before, *after])
    return adapted


def fitting_devices(experiment: Experiment) -> Experiment:
    """The experiment on as many devices as its small test-time batches can be spread over."""
    batch, devices = experiment.config.mtt.batch_size, experiment.parallel.size
    if batch % devices == 0 or jax.process_count() > 1:
        return experiment
    fitting = max(count for count in range(1, devices + 1) if batch % count == 0)
    return dataclasses.replace(experiment, parallel=step.Parallel(jax.devices()[:fitting]))


def continual(experiment: Experiment, embedder: Embedder, variables: Any) -> tuple[list[Result], Any]:
    """The published procedure: epochs over query and gallery, evaluated after each; (results, best variables)."""
    config, method, splits = experiment.config, experiment.method, experiment.splits
    # Parity: where query and gallery are the same folder, every image is visited twice an epoch.
    records = pipeline.concatenate([splits.query, splits.gallery], f"{config.data.dataset}/query+gallery")
    plan = samplers.shuffled(len(records), config.mtt.batch_size, config.mtt.optim.epochs, config.seed)

    def reestimated(current: Any) -> Any:
        if not config.mtt.reestimate_statistics:
            return current
        name = method.statistics_feature
        features = [embedder(current, table, [name])[name] for table in (splits.query, splits.gallery)]
        return experiment.parallel.place_state(method.with_statistics(current, np.concatenate(features)))

    job = train.Job(
        folder=FOLDER,
        records=records,
        plan=plan,
        images=experiment.image_options.without_augmentation(),
        loss=method.adapt_loss,
        optimizer=method.adapt_optimizer(variables["params"], plan.epoch_ends),
        learning_rate=optimizers.rate(config.mtt.optim, plan.epoch_ends),
        evaluate_every=1,
        checkpoint_every=1,
        evaluate_first={},
        kind="adapt",
        before_evaluation=reestimated,
    )
    headline = (
        f"test-time training on {len(records)} samples of {experiment.data_name}, batches of {plan.batch}, "
        f"{config.mtt.optim.epochs} epochs = {len(plan)} steps"
    )
    train.run(experiment, job, variables, [headline])
    results, best = [], variables
    for which in ("last", "best"):
        adapted, meta = train.load(experiment, job, variables, which)
        placed = reestimated(experiment.parallel.place_state(adapted))
        label = f"after MTT, {which} epoch ({meta['epoch']})"
        results += retrieval.run(experiment, embedder, placed, label)
        best = step.fetch(placed)
    return results[::-1], best


def episodic(experiment: Experiment, embedder: Embedder, variables: Any) -> Result:
    """Adapts to each set of queries alone, ranks the gallery for it, and forgets: no query profits from another set."""
    config, method, splits, parallel = experiment.config, experiment.method, experiment.splits, experiment.parallel
    comparison = method.comparisons()[0]
    if not set(comparison.query) == set(comparison.gallery) == set(method.facts.modalities):
        raise UserError(
            "config.mtt.episodic adapts to and compares all modalities; leave config.eval.query_modalities and"
            " gallery_modalities empty"
        )
    protocol = retrieval.protocols_of(config.data.dataset, config.eval, config.data.data_dir)[0]
    sets = [
        np.arange(start, min(start + config.mtt.episode_size, len(splits.query)))
        for start in range(0, len(splits.query), config.mtt.episode_size)
    ]
    # Sets of queries are small and seen once: no store of decoded images for each.
    options = image_options(config.data, cache=False)
    images = options.without_augmentation()
    compiled: dict[int, Any] = {}
    rows = []
    for number, chosen in enumerate(sets):
        queries = splits.query.select(chosen, f"{splits.query.name}[{chosen[0]}:{chosen[-1] + 1}]")
        experiment.on_device.select(parallel, queries, options, splits.query, chosen)
        current = variables
        if len(queries) >= config.mtt.batch_size:
            plan = samplers.shuffled(len(queries), config.mtt.batch_size, config.mtt.optim.epochs, config.seed)
            optimizer = method.adapt_optimizer(variables["params"], plan.epoch_ends)
            # Sets of one size share a program; only the last one differs.
            run_step = compiled.setdefault(
                len(queries),
                parallel.jit_train(
                    step.train_step(
                        method.adapt_loss, optimizer, seed=config.seed, normalization=experiment.normalization
                    )
                ),
            )
            reached = parallel.place_state(state.create(variables, optimizer))
            table = experiment.held(queries, images, training=True)
            with pipeline.train_batches(
                queries,
                plan,
                images,
                seed=config.seed,
                threads=config.data.threads,
                shard=experiment.shard,
                held=table.host,
            ) as batches:
                for batch in batches:
                    reached, _ = run_step(reached, parallel.place_batch(batch, table.arrays))
            current = step.fetch(reached.variables)
        placed = parallel.place_state(current)
        query = embedder(placed, queries, [comparison.feature])[comparison.feature]
        gallery = embedder(placed, splits.gallery, [comparison.feature])[comparison.feature]
        experiment.on_device.release(queries)
        rows.append(protocol.distances(query, gallery))
        if distributed.is_main():
            print(f"episode {number + 1} of {len(sets)}: {len(queries)} queries", flush=True)
    distance_rows = np.concatenate(rows)
    labels = retrieval.labels_of(splits.query), retrieval.labels_of(splits.gallery)
    scores = metrics.Trials((metrics.evaluate(distance_rows, *labels, protocol),))
    label = f"after MTT, episodes of {config.mtt.episode_size}"
    return Result(label, comparison.name, scores, protocol.label, distance_rows, splits.query, splits.gallery)
