"""Features of a folder of images: ``python -m mmreid_jax.extract --checkpoint DIR --images DIR --out FILE.npz``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmreid_jax.complexity import facts_of
from mmreid_jax.data import folder, pipeline
from mmreid_jax.data.records import Records
from mmreid_jax.errors import UserError, run_command
from mmreid_jax.experiment import image_options, normalization
from mmreid_jax.methods import base
from mmreid_jax.retrieval import distances, metrics
from mmreid_jax.training import checkpoints, step


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
        self._parallel = step.Parallel()
        self._variables = self._parallel.place_state(variables)
        self.comparison = self._of_images()
        self.feature = self.comparison.feature

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
        rows = []
        with pipeline.eval_batches(records, options, size, threads=data.threads) as batches:
            total = -(-len(records) // size)
            for batch in tqdm(batches, total=total, unit="batch", disable=not sys.stderr.isatty()):
                if tokens:
                    batch["tokens"] = {name: np.tile(row, (size, 1)) for name, row in tokens.items()}
                features = embed(self._variables, self._parallel.place_batch(batch))[feature]
                rows.append(np.asarray(features)[batch["valid"]])
        features = np.concatenate(rows)
        return distances.l2_normalise(features) if self.config.eval.normalize else features


@dataclasses.dataclass(frozen=True)
class Features:
    """What a feature file holds.

    Attributes:
      features: float [N, D].
      files: str [N], names of the images.
      labels: identity, camera and scene of the images; None where they are not known.
      note: what the features come from, and how they are to be compared.
    """

    features: np.ndarray
    files: np.ndarray
    labels: metrics.Labels | None
    note: dict[str, Any]


def save(path: Path, stored: Features) -> None:
    """Writes a feature file; complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished.npz")
    labels = {} if stored.labels is None else dataclasses.asdict(stored.labels)
    np.savez(unfinished, features=stored.features, files=stored.files, note=json.dumps(stored.note), **labels)
    unfinished.replace(path)


def load(path: Path) -> Features:
    """Reads a feature file; another program's needs ``features`` alone, and ``identity`` and ``camera`` for scores.

    Raises:
      UserError: the file is none, or its arrays do not belong together.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            features = stored["features"]
            count = len(features)
            files = stored["files"] if "files" in stored else np.array([str(row) for row in range(count)])
            note = json.loads(str(stored["note"])) if "note" in stored else {}
            labels = None
            if "identity" in stored and "camera" in stored:
                scene = stored["scene"] if "scene" in stored else np.zeros(count, np.int32)
                labels = metrics.Labels(stored["identity"], stored["camera"], scene)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a feature file of mmreid_jax.extract ({error})") from None
    columns = [files] if labels is None else [files, labels.identity, labels.camera, labels.scene]
    if features.ndim != 2 or any(column.shape != (count,) for column in columns):
        shapes = ", ".join(str(list(column.shape)) for column in columns)
        raise UserError(
            f"{path}: features must be [number, dimension] and labels [number]; they are {list(features.shape)} and "
            f"{shapes}"
        )
    if not np.all(np.isfinite(features)):
        raise UserError(f"{path}: some features are not finite; extract them again")
    return Features(features, files, labels, note)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that name a trained model."""
    parser.add_argument("--checkpoint", required=True, help="workdir of a run of main.py, or a converted directory")
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
    parser.add_argument("--out", required=True, type=Path, help="the .npz file to write")
    arguments, rest = parser.parse_known_args(argv)
    extractor = open_model(arguments, rest)
    records, absent = folder.open_folder(
        arguments.images, extractor.method.facts.modalities, arguments.modality, one=extractor.one_modality
    )
    print(describe(records, absent, extractor.one_modality))
    dataset = extractor.config.data.dataset
    labelled = folder.with_labels(records, dataset)
    known = f"read off the file names, as {dataset} writes them" if labelled else "not known"
    print(f"identities and cameras: {known}")
    features = extractor(records, absent)
    absent = () if extractor.one_modality else absent
    labels = None if labelled is None else metrics.Labels(labelled.identity, labelled.camera, labelled.scene)
    save(arguments.out, Features(features, records.file, labels, note_of(extractor, arguments.checkpoint, absent)))
    length = " (length 1)" if extractor.config.eval.normalize else ""
    print(f"{features.shape[0]} x {features.shape[1]} features{length}: {arguments.out}")


if __name__ == "__main__":
    run_command(main)
