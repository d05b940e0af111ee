"""How a run is judged, finished and reported: the one place that knows which methods are scored by retrieval.

Most methods are scored by retrieval (`mmreid_jax.scoring.retrieval`). One that learns without labels says how well it
solves its own task instead (`mmreid_jax.scoring.orders`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmreid_jax.embedder import of_experiment
from mmreid_jax.experiment import Experiment, open_experiment
from mmreid_jax.methods.base import Examines, Variables
from mmreid_jax.reports import orders as orders_report
from mmreid_jax.reports import retrieval as retrieval_report
from mmreid_jax.scoring import orders, retrieval
from mmreid_jax.scoring.retrieval import Result
from mmreid_jax.training import checkpoints, distributed, logs


def main(config: Any, workdir: Path) -> None:
    """Evaluates ``config.init.checkpoint`` and writes the report.

    The workdir keeps a copy of the model with its config, so that extract and search can use a converted one too.
    """
    experiment = open_experiment(config, workdir)
    variables, meta = experiment.trained_variables()
    finish(experiment, variables, "evaluated", checkpoint=str(config.init.checkpoint), step=meta.get("step"))
    checkpoints.keep_copy(workdir, variables, config, experiment.method.facts)


def by_own_task(experiment: Experiment) -> bool:
    """Whether the method is scored by the task that it sets itself, and not by retrieval."""
    return isinstance(experiment.method, Examines)


def scorer(experiment: Experiment) -> Callable[[Variables, str], dict[str, Any]]:
    """A function (placed variables, label) -> the row of scores that training keeps an eye on."""
    if by_own_task(experiment):
        return orders.Examiner(experiment)
    embedder = of_experiment(experiment, experiment.method.embed)
    return lambda variables, label: retrieval.run(experiment, embedder, variables, label)[0].row()


def finish(experiment: Experiment, variables: Variables, label: str, **extra: Any) -> None:
    """Scores a finished model, with missing modalities if the config asks; prints, keeps and reports what comes out.

    Args:
      experiment: the experiment.
      variables: of the model, on the host.
      label: of its row.
      **extra: for the lines of `logs.SCORES_FILE`.
    """
    placed = experiment.parallel.place_state(variables)
    if not by_own_task(experiment):
        missing = experiment.config.eval.missing_modalities
        embedder = of_experiment(experiment, experiment.method.embed)
        results = retrieval.run(experiment, embedder, placed, label, missing)
        report(experiment, placed, results, **extra)
        return
    row = orders.Examiner(experiment)(placed, label)
    logs.keep_scores(experiment.workdir, [row], **extra)
    if distributed.is_main():
        rows = [*orders.at_first(experiment.workdir), row]
        print(orders.describe(rows, experiment.method.facts.modalities))
        if experiment.config.eval.report:
            print(f"report: {orders_report.write(experiment, placed, rows)}")


def report(experiment: Experiment, placed: Variables, results: Sequence[Result], **extra: Any) -> None:
    """Keeps and prints retrieval scores, and writes the report of the model `placed` on the devices."""
    retrieval.keep(experiment.workdir, results, **extra)
    if distributed.is_main():
        print(retrieval.describe(results, experiment.workdir))
        if experiment.config.eval.report:
            print(f"report: {retrieval_report.write(experiment, placed, results)}")
