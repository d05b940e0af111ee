"""Trains, adapts or evaluates the experiment that a config file describes.

python main.py --config configs/demo.py
python main.py --config configs/htt_rgbnt201.py --config.optim.lr=0.01 --workdir runs/htt
python main.py --config configs/htt_rgbnt201.py --eval_only --config.init.checkpoint=runs/htt
"""

from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from mmreid_jax.errors import run_command
from mmreid_jax.flags import friendly_flags, run_name
from mmreid_jax.paths import check_output, path_of

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, a file of configs/.", lock_config=True)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where checkpoints, logs and the report go; default runs/<config name>_<its argument>."
)
EVAL_ONLY = flags.DEFINE_bool("eval_only", False, "Only evaluate config.init.checkpoint.")


def run(_: list[str]) -> None:
    """Dispatches to the loops; heavy imports wait until the flags are known to be right."""
    from mmreid_jax import adapt, evaluate, train, validation
    from mmreid_jax.training import distributed

    config = validation.complete(CONFIG.value)
    validation.check(config, starts=not EVAL_ONLY.value and config.task != "adapt")
    name = run_name(flags.FLAGS["config"].config_filename)
    workdir = path_of(WORKDIR.value or Path("runs") / name).absolute()
    check_output(workdir, "--workdir", folder=True)
    distributed.start()
    if EVAL_ONLY.value:
        evaluate.main(config, workdir)
    elif config.task in ("adapt", "train_adapt"):
        adapt.main(config, workdir)
    else:
        train.main(config, workdir)


if __name__ == "__main__":
    app.run(lambda argv: run_command(run, argv), flags_parser=friendly_flags)
