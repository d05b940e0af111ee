"""Makes a pre-trained trunk for drawn data; stopped, it goes on where it was.

``python -m mmreid_jax pretrain_trunk resnet_mini [--workdir runs/trunks] [--out DIR] [--jobs N]``;
``text_mini`` is a text tower that reads captions, taught by a trunk of images.

Draws the people it needs into WORKDIR/people, trains, and writes NAME.safetensors with its card NAME.json to DIR.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmreid_jax.paths import check_output, path_of
from mmreid_jax.trunks import pretraining, reading


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command with these arguments, or those of the process."""
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax pretrain_trunk", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=(*pretraining.RECIPES, *reading.RECIPES))
    parser.add_argument("--workdir", type=path_of, default=path_of("runs/trunks"))
    parser.add_argument("--out", type=path_of, help="folder of the trunk (default: WORKDIR)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that draw (default 1)")
    options = parser.parse_args(arguments)
    workdir, out = options.workdir / options.name, options.out or options.workdir
    pretraining.check_target(options.name, out)
    check_output(out, "--out", folder=True)
    folder, scores = options.workdir / "people", dict[str, dict[str, float]]()
    if options.name in reading.RECIPES:
        of_texts = reading.RECIPES[options.name]
        tower = reading.fit(of_texts, workdir, jobs=options.jobs)
        scores = reading.judge(of_texts, tower, folder)
        file = reading.save(options.name, tower, out, scores)
    else:
        recipe = pretraining.RECIPES[options.name]
        variables = pretraining.fit(recipe, workdir, jobs=options.jobs)
        scores = pretraining.judge(recipe, variables, folder)
        file = pretraining.save(options.name, variables, out, scores)
    for what, values in scores.items():
        print(f"{what}: " + ", ".join(f"{score} {value:.1f} %" for score, value in values.items()))
    print(f"{file}: {file.stat().st_size / 2**20:.2f} MiB")
