"""Makes a small interrupted run for the tests: ``python -m tests.earlier_runs.make OUT``, by the version at hand.

The run of HTT on drawn people stops after its first checkpoint. Beside it lies what its model says of noise images, so
that a later version can show that it reads the same model.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import jax
import numpy as np
from absl import flags

OUT = pathlib.Path(__file__).parent


def settings(data_dir):
    from configs import demo

    config = demo.get_config()
    config.task = "train"
    config.data.update(data_dir=str(data_dir), drawn_identities=6, drawn_images=6, image_size=(32, 16), padding=2)
    config.data.threads = 1
    config.model.backbone = "vit_micro"
    config.init.backbone = ""
    config.train.update(identities_per_batch=4, images_per_identity=2, eval_every=2, evaluate_first=False)
    config.optim.epochs = 3
    config.eval.update(batch_size=16, report=False, missing_modalities=False)
    return config


def noise(modalities):
    rng = np.random.default_rng(0)
    return {"images": {name: rng.normal(size=(2, 32, 16, 3)).astype(np.float32) for name in modalities}}


def main(out):
    from mmreid_jax import train
    from mmreid_jax.methods import base
    from mmreid_jax.training import checkpoints, step

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        place = step.Parallel.place_batch

        def interrupted(*arguments, **options):
            if list((workdir / checkpoints.FOLDER).glob("[0-9]*/state")):
                raise KeyboardInterrupt
            return place(*arguments, **options)

        step.Parallel.place_batch = interrupted
        try:
            train.main(settings(pathlib.Path(folder) / "data"), workdir)
        except KeyboardInterrupt:
            print("interrupted after a checkpoint")
        variables, meta = checkpoints.load_variables(workdir)
        facts = {**meta["facts"], "modalities": tuple(meta["facts"]["modalities"])}
        method = base.build(settings(folder), base.DataFacts(**facts))
        features = method.embed(jax.tree.map(np.asarray, variables), noise(facts["modalities"]))
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        # Orbax's notes of success name the folder, as the config does; nobody reads either.
        ignored = shutil.ignore_patterns("commit_success.txt")
        shutil.copytree(workdir / checkpoints.FOLDER, out / checkpoints.FOLDER, ignore=ignored)
        for note in out.glob(f"{checkpoints.FOLDER}/*/meta/metadata"):
            note.write_text(note.read_text().replace(f"{folder}/", ""))
        shutil.copy(workdir / "metrics.jsonl", out)
        (out / "features.json").write_text(json.dumps(np.asarray(features["after"], np.float64).tolist()))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).absolute())
