"""A trained model: it embeds images, and queries in words."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmreid_jax.data import pipeline, tokenizer
from mmreid_jax.data.images import decode_sample
from mmreid_jax.data.records import Records, View
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import facts_of, image_options, normalization
from mmreid_jax.methods import base
from mmreid_jax.methods.base import Comparison
from mmreid_jax.retrieval import distances
from mmreid_jax.training import checkpoints, compilation, step
from mmreid_jax.visualize import images as drawing


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
          checkpoint: workdir of a run of ``main.py``; with a config also what ``mmreid_jax convert`` wrote.
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
            variables, _ = base.load_trained(self.method, str(checkpoint), chosen)
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
        first = self.method.comparisons()[0]
        return first.query != first.gallery

    def _of_images(self) -> base.Comparison:
        """The first comparison of the model whose features images alone give, without a text beside them."""
        comparisons, modalities = self.method.comparisons(), self.method.facts.modalities
        if not self.one_modality:
            return comparisons[0]
        image = jax.ShapeDtypeStruct((1, *self.config.data.image_size, 3), np.float32)
        batches = {name: {"images": {name: image}} for name in modalities}
        features = {name: jax.eval_shape(self.method.embed, self._variables, batch) for name, batch in batches.items()}
        return next(
            each
            for each in comparisons
            if each.feature in features[each.query[0]]
            and (each.gallery_feature or each.feature) in features[each.gallery[0]]
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


@dataclasses.dataclass(frozen=True)
class Described:
    """A query in words, with an infrared image, or of that image alone.

    Attributes:
      text: what the person looks like, colours included; "" for none.
      image: file of an infrared image; None for none.
      image_text: what the infrared image shows by itself, without colours; a fusion with a filter subtracts it.
    """

    text: str
    image: Path | None
    image_text: str

    @property
    def name(self) -> str:
        """The query in a line."""
        return " + ".join([*([f'"{self.text}"'] if self.text else []), *([self.image.name] if self.image else [])])

    def comparison(self, extractor: Extractor, feature: str = "") -> Comparison:
        """How the query is compared: by text or image alone, or by the model's own choice for both.

        Args:
          extractor: the model.
          feature: name of a feature of both, as in ``config.eval.feature``; empty: that of the config.

        Raises:
          UserError: the model reads no text, or has no such feature for such a query.
        """
        infrared = extractor.method.facts.modalities[-1]
        known = {each.feature: each for each in extractor.method.comparisons() if each.query == (infrared,)}
        if f"text_{infrared}" not in known:
            raise UserError(
                f"this model of {extractor.config.method} reads no text; --text and --image need one of TVI-LFM's text "
                "stage (configs/tvi_sysu.py), other models are searched with --query DIR"
            )
        names = [name.removesuffix(f"_{infrared}") for name in known]
        both = [name for name in names if name not in ("ir", "text")]
        possible = both if self.text and self.image else ["text"] if self.text else ["ir"]
        if feature and feature not in possible:
            given = " and ".join(flag for flag, value in (("--text", self.text), ("--image", self.image)) if value)
            raise UserError(f"--feature {feature} is not made of {given}; choose one of {', '.join(possible)}")
        return known[f"{feature or possible[0]}_{infrared}"]

    def features(self, extractor: Extractor, feature: str) -> np.ndarray:
        """float32 [1, D], of length one."""
        visible, infrared = extractor.method.facts.modalities
        tokens = None
        if self.text:
            words, words_of_image = tokenizer.tokenize([self.text, self.image_text])
            tokens = {visible: words, infrared: words_of_image}
        rows = extractor(self.records(extractor), feature=feature, tokens=tokens)
        return distances.l2_normalise(rows)

    def records(self, extractor: Extractor) -> Records:
        """A table of the image; of a text alone, of a black one, which its feature does not see."""
        from PIL import Image

        infrared = extractor.method.facts.modalities[-1]
        if self.image:
            encoded = self.image.read_bytes()
        else:
            stream = io.BytesIO()
            height, width = extractor.config.data.image_size
            Image.new("RGB", (width, height)).save(stream, "PNG")
            encoded = stream.getvalue()
        zero = np.zeros(1, np.int32)
        file = np.array([self.image.name if self.image else "text"])
        view = {infrared: View(infrared)}
        return Records(str(self.image or "text"), zero - 1, zero, zero, file, view, One(infrared, encoded), zero)

    def pictures(self, extractor: Extractor) -> dict[str, np.ndarray]:
        """What the page shows of the query: the image, or the text on a card."""
        if not self.image:
            return {"text": drawing.card(self.text)}
        records = self.records(extractor)
        return dict(decode_sample(records, 0, records.encoded([0])[0], truncated=True))


@dataclasses.dataclass(frozen=True)
class One:
    """A single image in memory; see `mmreid_jax.data.records.ImageSource`."""

    name: str
    content: bytes

    def __len__(self) -> int:
        return 1

    def encoded(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """See `mmreid_jax.data.records.ImageSource`."""
        return [{self.name: self.content} for _ in indices]
