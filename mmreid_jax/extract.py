"""Features of a folder of images: ``python -m mmreid_jax.extract --checkpoint DIR --images DIR --out FILE.npz``.

With ``--out DIR`` the features of many images are written to a folder as they come, so that memory holds a batch of
them, an interrupted command goes on where it stopped, and the processes of a job (``JAX_COORDINATOR_ADDRESS`` and so
on, see training/distributed.py) take a slice of the images each.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmreid_jax.complexity import facts_of
from mmreid_jax.data import folder, pipeline
from mmreid_jax.data.records import Records
from mmreid_jax.errors import UserError, run_command
from mmreid_jax.experiment import image_options, normalization
from mmreid_jax.feature_files import Features, check_target, load, save, write
from mmreid_jax.methods import base
from mmreid_jax.retrieval import distances, metrics
from mmreid_jax.training import checkpoints, compilation, distributed, step

__all__ = ["Extractor", "Features", "load", "save"]


class Extractor:
    """A trained model, ready to embed images.

    Attributes:
      config: that the model was trained with.
      method: the system.
      comparison: how images are compared that have no text beside them.
      feature: name of the feature of its queries.
    """

    def __init__(self, checkpoint: str | Path, which: str = "best", config: Any = None) -> None:
        """Loads a run's workdir, or a converted model, which does not say its config.

        Args:
          checkpoint: workdir of a run of ``main.py``; with a config also what ``mmreid_jax.convert`` wrote.
          which: "best" or "last" of a run's checkpoints.
          config: of the experiment; None: what the workdir says.

        Raises:
          UserError: it is neither, or a converted model without a config, or with one that it does not fit.
        """
        from ml_collections import ConfigDict

        chosen: Any = "last" if which == "last" else "best"
        if config is not None:
            self.config = config
            self.method: Any = base.build(config, facts_of(config, config.model.get("num_classes", 0))[0])
            if hasattr(self.method, "load"):
                variables, _ = self.method.load(str(checkpoint), chosen)
            else:
                shapes = jax.eval_shape(self.method.init, jax.random.key(0))
                variables, _ = checkpoints.load_variables(checkpoint, like=shapes, which=chosen)
        else:
            variables, meta = checkpoints.load_variables(checkpoint, which=chosen)
            if "config" not in meta or "facts" not in meta:
                raise UserError(
                    f"{checkpoint} does not say which config its model belongs to; name it with --config=FILE, or give "
                    "the workdir of a run"
                )
            self.config = ConfigDict(meta["config"])
            facts = {**meta["facts"], "modalities": tuple(meta["facts"]["modalities"])}
            self.method = base.build(self.config, base.DataFacts(**facts))
        # Runs of earlier versions do not say.
        compilation.choose(self.config.train.get("compiler", "auto"))
        # In a job of several processes each embeds images of its own.
        self._parallel = step.Parallel(jax.local_devices())
        self._variables = self._parallel.place_state(variables)
        self.comparison = self._of_images()
        self.feature = self.comparison.feature

    def fingerprint(self) -> str:
        """What tells the weights and config from others."""
        digest = hashlib.sha256(str(self.config).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self._variables):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()

    @property
    def one_modality(self) -> bool:
        """Whether a sample is seen in one modality only, as in visible-infrared models."""
        first = self.method.protocols()[0]
        return first.query != first.gallery

    def _of_images(self) -> base.Comparison:
        """The first comparison of the model whose features images alone give, without a text beside them."""
        comparisons, modalities = self.method.protocols(), self.method.facts.modalities
        if not self.one_modality:
            return comparisons[0]
        image = jax.ShapeDtypeStruct((1, *self.config.data.image_size, 3), np.float32)
        shown = {name: {"images": {name: image}} for name in modalities}
        found = {name: jax.eval_shape(self.method.embed, self._variables, batch) for name, batch in shown.items()}
        return next(
            each
            for each in comparisons
            if each.feature in found[each.query[0]] and (each.gallery_feature or each.feature) in found[each.gallery[0]]
        )

    def __call__(
        self,
        records: Records,
        absent: Sequence[str] = (),
        feature: str = "",
        tokens: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Features of all samples as they are compared: float32 [N, D], rows of length one unless the config says no.

        Args:
          records: of images.
          absent: modalities to replace by zeros; a model of one modality at a time does not get to see them.
          feature: which of the model's; empty: the one that images alone are compared by.
          tokens: of texts that go with every sample, int32 [L] by modality.

        Raises:
          UserError: the table has several modalities, and the model sees one at a time.
        """
        return np.concatenate(list(self.pieces(records, absent, feature, tokens)))

    def pieces(
        self,
        records: Records,
        absent: Sequence[str] = (),
        feature: str = "",
        tokens: Mapping[str, np.ndarray] | None = None,
    ) -> Iterator[np.ndarray]:
        """The same, batch by batch: float32 [B, D] each, in order."""
        from tqdm import tqdm

        data = self.config.data
        if self.one_modality:
            present = tuple(name for name in records.modalities if name not in absent)
            if len(present) != 1:
                raise UserError(
                    f"{records.name} holds {', '.join(present)}, but this model sees one modality at a time; choose one"
                )
            if not feature:
                usual = self.comparison
                feature = usual.gallery_feature if usual.gallery == present else usual.feature
            records, absent = records.of_modality(present[0]), ()
        feature = feature or self.feature
        embed = self._parallel.jit_embed(step.embed_step(self.method.embed, normalization(data), absent))
        size = -(-self.config.eval.batch_size // self._parallel.size) * self._parallel.size
        options = image_options(data, cache=False)
        with pipeline.eval_batches(records, options, size, threads=data.threads) as batches:
            total = -(-len(records) // size)
            for batch in tqdm(batches, total=total, unit="batch", disable=not sys.stderr.isatty()):
                if tokens:
                    batch["tokens"] = {name: np.tile(row, (size, 1)) for name, row in tokens.items()}
                features = embed(self._variables, self._parallel.place_batch(batch))[feature]
                rows = np.asarray(features)[batch["valid"]]
                yield distances.l2_normalise(rows) if self.config.eval.normalize else rows


def add_model_flags(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """The flags that name a trained model."""
    parser.add_argument("--checkpoint", required=required, help="workdir of a run of main.py, or a converted directory")
    parser.epilog = "A converted directory needs --config=FILE; --config.KEY=VALUE changes what does not fit it."
    parser.add_argument("--which", choices=("best", "last"), default="best", help="of its checkpoints")


def open_model(arguments: argparse.Namespace, rest: Sequence[str]) -> Extractor:
    """The model that the flags name; `rest`: arguments that the command did not read, ``--config=FILE`` among them."""
    from mmreid_jax.training.config import from_arguments

    config = from_arguments(rest)[0] if rest else None
    return Extractor(arguments.checkpoint, arguments.which, config)


def describe(records: Records, absent: Sequence[str], one_modality: bool = False) -> str:
    """One line: what was found in a folder."""
    if one_modality:
        seen = [name for name in records.modalities if name not in absent]
        return f"{records.name}: {len(records)} samples, {', '.join(seen)}"
    missing = f"; no {', '.join(absent)} images, replaced by zeros" if absent else ""
    return f"{records.name}: {len(records)} samples{missing}"


def note_of(extractor: Extractor, checkpoint: str, absent: Sequence[str]) -> dict[str, Any]:
    """Where features come from and how the config compares them."""
    options = extractor.config.eval
    reranking = {"k1": options.rerank_k1, "k2": options.rerank_k2, "lambda_value": options.rerank_lambda}
    return {
        "checkpoint": str(checkpoint),
        "feature": extractor.feature,
        "absent": list(absent),
        "dataset": extractor.config.data.dataset,
        "protocol": options.protocol,
        "distance": options.distance,
        "rerank": {**reranking, "distance": options.rerank_distance},
        "jax": jax.__version__,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m mmreid_jax.extract", description=__doc__)
    add_model_flags(parser)
    parser.add_argument("--images", required=True, help="folder of images, or of one subfolder per modality")
    parser.add_argument("--modality", help="of the images (default: that of the folder's name, else visible)")
    parser.add_argument("--out", required=True, type=Path, help="the .npz file to write, or a folder for many images")
    arguments, rest = parser.parse_known_args(argv)
    check_target(arguments.out)
    distributed.start()
    if arguments.out.suffix == ".npz" and jax.process_count() > 1:
        raise UserError(f"several processes cannot write {arguments.out} together; name a folder with --out")
    extractor = open_model(arguments, rest)
    records, absent = folder.open_folder(
        arguments.images, extractor.method.facts.modalities, arguments.modality, one=extractor.one_modality
    )
    dataset = extractor.config.data.dataset
    labelled = folder.with_labels(records, dataset)
    if distributed.is_main():
        print(describe(records, absent, extractor.one_modality))
        known = f"read off the file names, as {dataset} writes them" if labelled else "not known"
        print(f"identities and cameras: {known}")
    labels = None if labelled is None else metrics.Labels(labelled.identity, labelled.camera, labelled.scene)
    note = note_of(extractor, arguments.checkpoint, () if extractor.one_modality else absent)
    if arguments.out.suffix == ".npz":
        features = extractor(records, absent)
        save(arguments.out, Features(features, records.file, labels, note))
        count, width = features.shape
    else:

        def rows(start: int, stop: int) -> Iterator[np.ndarray]:
            some = np.arange(start, stop)
            return extractor.pieces(records.select(some), absent) if len(some) else iter(())

        count, width = write(arguments.out, records.file, labels, note, extractor.fingerprint(), rows)
    if distributed.is_main():
        length = " (length 1)" if extractor.config.eval.normalize else ""
        print(f"{count} x {width} features{length}: {arguments.out}")


if __name__ == "__main__":
    run_command(main)
