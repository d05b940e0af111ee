"""How a run is judged, finished and reported: the one place that knows which methods are scored by retrieval.

Most methods are scored by retrieval (`mmreid_jax.scoring.retrieval`). One that learns without labels says how well it
solves its own task instead (`mmreid_jax.scoring.orders`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from mmreid_jax import locks
from mmreid_jax.embedder import of_experiment
from mmreid_jax.experiment import Experiment, open_experiment
from mmreid_jax.methods.base import Examines, Variables
from mmreid_jax.reports import orders as orders_report
from mmreid_jax.reports import retrieval as retrieval_report
from mmreid_jax.scoring import orders, retrieval
from mmreid_jax.scoring.retrieval import Result
from mmreid_jax.training import checkpoints, distributed, logs
from mmreid_jax.visualize.report import check_target

FOLDER = "evaluation"
"""Name of the folder in the workdir of a training for what ``--eval_only`` writes."""


def main(config: Any, workdir: Path) -> None:
    """Evaluates ``config.init.checkpoint`` and writes the report.

    The workdir keeps a copy of the model with its config, so that extract and search can use a converted one too. What
    a training wrote there stays: in its workdir the report and the scores of an evaluation have a folder of their own.
    """
    workdir = workdir / FOLDER if logs.is_of_training(workdir) else workdir
    with alone_in(workdir):
        experiment = open_experiment(config, workdir, starts=False)
        variables, meta = experiment.trained_variables()
        finish(experiment, variables, "evaluated", checkpoint=str(config.init.checkpoint), step=meta.get("step"))
        checkpoints.keep_copy(workdir, variables, config, experiment.method.facts)


def alone_in(workdir: Path) -> contextlib.AbstractContextManager[None]:
    """Holds a workdir; of a run of several processes the first one does.

    Raises:
      UserError: another process holds it, or it is of no run and has a report that this program did not write.
    """
    if not distributed.is_main():
        return contextlib.nullcontext()
    # Runs of earlier versions left pictures without a mark.
    if not any((workdir / name).exists() for name in (logs.FILE, logs.SCORES_FILE, checkpoints.FOLDER)):
        check_target(workdir)
    return locks.work_directory(workdir)


def by_own_task(experiment: Experiment) -> bool:
    """Whether the method is scored by the task that it sets itself, and not by retrieval."""
    return isinstance(experiment.method, Examines)


class Scorer(Interface):
    """Scores a model on the test tables."""

    def __call__(self, variables: Variables, label: str) -> dict[str, Any]:
        """The row of scores of placed variables that training keeps an eye on, with the label."""
        ...

    def rehearse(self, variables: Variables) -> None:
        """Tries on one small batch of each table what an evaluation does, before there is anything to lose.

        Raises:
          UserError: whatever an evaluation would raise.
        """
        ...


def scorer(experiment: Experiment) -> Scorer:
    """How the method of an experiment is scored."""
    return orders.Examiner(experiment) if by_own_task(experiment) else retrieval.RetrievalScorer(experiment)


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
        options = experiment.config.eval
        embedder = of_experiment(experiment, experiment.method.embed)
        extra_cases = {"missing": options.missing_modalities}
        extra_cases |= {"pairs": options.get("all_pairs", False), "missing_any": options.get("missing_any", False)}
        results = retrieval.run(experiment, embedder, placed, label, **extra_cases)
        report(experiment, placed, results, **extra)
        return
    config, row = experiment.config, orders.Examiner(experiment)(placed, label)
    logs.keep_scores(experiment.workdir, [row], **_of_what(experiment), **extra)
    if distributed.is_main():
        rows = [*orders.at_first(experiment.workdir), row]
        print(f"{config.method} on {experiment.data_name}")
        print(orders.describe(rows, experiment.method.facts.modalities))
        if config.eval.report:
            print(f"report: {orders_report.write(experiment, placed, rows)}")


def _of_what(experiment: Experiment) -> dict[str, Any]:
    """What every line of scores says of its run, so that lines of several runs are not mixed."""
    config = experiment.config
    return {"method": config.method, "dataset": config.data.dataset, "drawn": experiment.drawn}


def report(experiment: Experiment, placed: Variables, results: Sequence[Result], **extra: Any) -> None:
    """Keeps and prints retrieval scores, and writes the report of the model `placed` on the devices."""
    retrieval.keep(experiment.workdir, results, **_of_what(experiment), **extra)
    if distributed.is_main():
        print(f"{experiment.config.method} on {experiment.data_name}")
        print(retrieval.describe(results, experiment.workdir))
        if experiment.config.eval.report:
            print(f"report: {retrieval_report.write(experiment, placed, results)}")
