"""A trained model: it embeds images, and queries in words.

`Model` is what programs use (`mmreid_jax.load`); `Extractor`, on which it stands, is what commands use.
"""

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

import mmreid_jax.datasets as datasets
from mmreid_jax import validation
from mmreid_jax.data import listing, pipeline, tokenizer
from mmreid_jax.data.images import decode_sample
from mmreid_jax.data.records import Records, ValueRange, View
from mmreid_jax.datasets import given
from mmreid_jax.embedder import of_experiment
from mmreid_jax.errors import UserError, printable
from mmreid_jax.experiment import facts_of, image_options, normalization, open_experiment
from mmreid_jax.methods import base
from mmreid_jax.methods.base import TOGETHER, Comparison
from mmreid_jax.methods.modality_sets import ComparesSets
from mmreid_jax.retrieval import distances, streamed
from mmreid_jax.retrieval import rerank as reranking
from mmreid_jax.retrieval.matches import Matches
from mmreid_jax.scoring import retrieval
from mmreid_jax.scoring.retrieval import Result
from mmreid_jax.training import checkpoints, compilation, devices, step
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
        devices.available()
        chosen: Any = "last" if which == "last" else "best"
        if config is not None:
            config = devices.computable(validation.complete(config))
            method = base.build(config, facts_of(config, config.model.num_classes)[0])
            variables, _ = base.load_trained(method, str(checkpoint), chosen)
        else:
            variables, meta = checkpoints.load_variables(checkpoint, which=chosen)
            if "config" not in meta or "facts" not in meta:
                raise UserError(
                    f"{checkpoint} does not say which config its model belongs to; name it with --config=FILE, or give "
                    "the workdir of a run"
                )
            try:
                config = validation.complete(meta["config"])
                validation.check_stored(config)
                config = devices.computable(config)
                method = base.build(config, base.DataFacts.stored(meta["facts"]))
                shapes = base.shapes(method)
            except UserError as error:
                raise UserError(f"{checkpoint} holds no model that can be opened: {error}") from None
            checkpoints.check_variables(variables, shapes, f"the model in {checkpoint}")
        self._hold(config, method, variables)

    @classmethod
    def of(cls, config: Any, method: base.Method, variables: base.Variables) -> Extractor:
        """Of a model in memory: its config, its method and its variables on the host."""
        made = cls.__new__(cls)
        made._hold(validation.complete(config), method, variables)
        return made

    def _hold(self, config: Any, method: base.Method, variables: base.Variables) -> None:
        """Makes the model ready."""
        self.config = config
        self.method: Any = method
        compilation.choose(config.train.compiler)
        # In a job of several processes each embeds images of its own.
        self._parallel = step.Parallel(jax.local_devices())
        self._variables = self._parallel.place_state(variables)
        self._compiled: dict[tuple[str, ...], Any] = {}
        self.comparison = self._of_images()
        self.feature = self.comparison.feature

    @property
    def variables(self) -> base.Variables:
        """Parameters and statistics, on the host."""
        return step.fetch(self._variables)

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
        return first.query != first.gallery and not isinstance(self.method, ComparesSets)

    @property
    def width(self) -> int:
        """Numbers in the feature that images are compared by."""
        seen = self.comparison.query if self.one_modality else self.method.facts.modalities
        shapes = self._features_of(seen)
        if unknown := [part for part in self.feature.split(TOGETHER) if part not in shapes]:
            raise UserError(f"the model makes no feature {printable(unknown[0])!r}; choose one of {', '.join(shapes)}")
        return sum(int(shapes[part].shape[-1]) for part in self.feature.split(TOGETHER))

    def feature_between(self, present: Sequence[str], against: Sequence[str] = ()) -> str:
        """Name of the feature of images of which these modalities are at hand.

        Args:
          present: the modalities.
          against: those of the images that they are compared with; empty: as the config compares such images, else
            with others like them.

        Raises:
          UserError: the method does not compare such sets of modalities, or one is not there.
        """
        seen = tuple(name for name in self.method.facts.modalities if name in present)
        others = tuple(name for name in self.method.facts.modalities if name in (against or seen))
        if unknown := [name for name in against if name not in others]:
            known = ", ".join(self.method.facts.modalities)
            raise UserError(f"{', '.join(unknown)} is no modality of this model, which sees {known}")
        if not against and seen in (self.comparison.query, self.comparison.gallery):
            of_query = seen == self.comparison.query
            return self.feature if of_query else self.comparison.gallery_feature or self.feature
        if isinstance(self.method, ComparesSets):
            return self.method.between(seen, others).feature
        if others != seen:
            raise UserError(
                f"a model of {self.config.method} does not compare {', '.join(seen)} with {', '.join(others)}"
            )
        return self.feature

    def _features_of(self, modalities: Sequence[str]) -> dict[str, Any]:
        """Shapes of the features of one sample that is seen in these modalities."""
        image = jax.ShapeDtypeStruct((1, *self.config.data.image_size, 3), np.float32)
        side = dict.fromkeys(("camera", "scene"), jax.ShapeDtypeStruct((1,), np.int32))
        return jax.eval_shape(self.method.embed, self._variables, {"images": dict.fromkeys(modalities, image), **side})

    def _of_images(self) -> base.Comparison:
        """The first comparison of the model whose features images alone give, without a text beside them."""
        comparisons, modalities = self.method.comparisons(), self.method.facts.modalities
        if not self.one_modality:
            return comparisons[0]
        features = {name: self._features_of([name]) for name in modalities}
        return next(
            each
            for each in comparisons
            if each.feature in features[each.query[0]]
            and (each.gallery_feature or each.feature) in features[each.gallery[0]]
        )

    def _embed(self, absent: tuple[str, ...]) -> Any:
        """The compiled `Method.embed` on images of which `absent` are replaced by zeros."""
        if absent not in self._compiled:
            pure = step.embed_step(self.method.embed, normalization(self.config.data), absent)
            self._compiled[absent] = self._parallel.jit_embed(pure)
        return self._compiled[absent]

    def __call__(
        self,
        records: Records,
        absent: Sequence[str] = (),
        feature: str = "",
        tokens: Mapping[str, np.ndarray] | None = None,
        batch_size: int = 0,
    ) -> np.ndarray:
        """Features of all samples as they are compared: float32 [N, D], rows of length one unless the config says no.

        Args:
          records: of images.
          absent: modalities to replace by zeros; a model of one modality at a time does not get to see them.
          feature: which of the model's, or several joined by `TOGETHER`; empty: the one that images alone are compared
            by, see `feature_between`.
          tokens: of texts that go with every sample, int32 [L] by modality.
          batch_size: images at a time; 0: ``config.eval.batch_size``.

        Raises:
          UserError: the table has several modalities, and the model sees one at a time; it has no such feature of these
            samples; or a feature is not finite.
        """
        return np.concatenate(list(self.pieces(records, absent, feature, tokens, batch_size)))

    def pieces(
        self,
        records: Records,
        absent: Sequence[str] = (),
        feature: str = "",
        tokens: Mapping[str, np.ndarray] | None = None,
        batch_size: int = 0,
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
        if not feature:
            feature = self.feature_between([name for name in self.method.facts.modalities if name not in absent])
        embed = self._embed(tuple(absent))
        size = -(-(batch_size or self.config.eval.batch_size) // self._parallel.size) * self._parallel.size
        options = image_options(data, cache=False)
        if options.broken == "skip":
            # One row for each sample: none is left out here.
            options = dataclasses.replace(options, broken="error")
        with pipeline.eval_batches(records, options, size, threads=data.threads) as batches:
            total = -(-len(records) // size)
            for batch in tqdm(batches, total=total, unit="batch", disable=not sys.stderr.isatty()):
                if tokens:
                    batch["tokens"] = {name: np.tile(row, (size, 1)) for name, row in tokens.items()}
                features = embed(self._variables, self._parallel.place_batch(batch))
                if not set(feature.split(TOGETHER)) <= set(features):
                    raise UserError(
                        f"the model makes no feature {feature!r} of these; choose one of {', '.join(features)}"
                    )
                rows = np.asarray(base.feature_of(features, feature))[batch["valid"]]
                distances.check_finite(rows, records.file[batch["index"][batch["valid"]]], records.name)
                yield distances.l2_normalise(rows) if self.config.eval.normalize else rows


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model, as `mmreid_jax.load`, `train` and `adapt` give it; nothing changes it.

    Attributes:
      extractor: what embeds tables of images.
    """

    extractor: Extractor

    @property
    def config(self) -> Any:
        """A copy of the config of its experiment."""
        return self.extractor.config.copy_and_resolve_references()

    @property
    def method(self) -> base.Method:
        """Its method."""
        return self.extractor.method

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that it sees, visible first."""
        return self.method.facts.modalities

    def __repr__(self) -> str:
        config, how = self.extractor.config, "or" if self.extractor.one_modality else "and"
        seen = f" {how} ".join(self.modalities)
        return f"<{config.method} trained on {config.data.dataset}, sees {seen}, feature {self.extractor.feature}>"

    def embed(
        self,
        images: given.Images,
        *,
        absent: Sequence[str] = (),
        feature: str = "",
        against: Sequence[str] = (),
        text: Mapping[str, Sequence[str]] | None = None,
        batch_size: int = 0,
    ) -> np.ndarray:
        """Features of images.

        Args:
          images: a folder (of images, or of one subfolder for each modality); a list of files or arrays uint8
            [H, W, 3], or one array uint8 [N, H, W, 3], of the first modality; a mapping of modalities to any of these;
            or a table of a data set. A model that sees one modality at a time takes images of one, and a list or an
            array only by a mapping, such as ``{"nir": files}``.
          absent: modalities to replace by zeros, beside those of which there are no images.
          feature: which of the model's features; "": the one that its images are compared by.
          against: modalities of the images that these will be compared with, where they are others, and these were
            embedded against those of the former; tri-modal models alone.
          text: modality -> N texts or one for all, for models that read text: of the visible one what the person looks
            like, of the infrared one what its image shows by itself. The default feature is then that of
            ``config.eval.feature``; what it is compared with is the ``gallery_feature`` of
            ``model.method.comparisons()``.
          batch_size: images at a time; 0: as many as ``config.eval.batch_size``, or fewer where there are fewer.

        Returns:
          float32 [N, D], rows of length one unless the config says no.

        Raises:
          UserError: an image is missing or cannot be read, the model does not know a modality or feature, or reads no
            text.
        """
        records, lacking = given.table(images, self.modalities, one=self.extractor.one_modality)
        gone = self._gone(lacking, absent)
        if text is not None:
            if not self.extractor.config.data.get("text", False):
                raise UserError(
                    f"this model of {self.extractor.config.method} reads no text; one of TVI-LFM's text stage does "
                    "(configs/tvi_sysu.py)"
                )
            records = given.with_texts(records, text, self.modalities)
            feature = feature or self.method.comparisons()[0].feature
        if against and not feature:
            present = [name for name in self.modalities if name not in gone]
            feature = self.extractor.feature_between(present, against)
        return self._embedded(records, gone, feature, batch_size)

    def search(
        self,
        query: given.Images,
        gallery: given.Images,
        *,
        top: int = 10,
        rerank: reranking.RerankOptions | None = None,
    ) -> Matches:
        """The nearest gallery images of every query.

        Of a tri-modal model queries and gallery may be of different modalities: they are then compared by the features
        of the modalities at hand, see `mmreid_jax.methods.modality_sets`.

        Args:
          query: images as `embed` takes them, or features float [Q, D] that it has made.
          gallery: likewise.
          top: matches of each query.
          rerank: k-reciprocal re-ranking, `mmreid_jax.retrieval.rerank.RerankOptions`; None for none.

        Returns:
          Matches, whose distances are squared Euclidean ones of the features, or those of the re-ranking.

        Raises:
          UserError: see `embed`; `top` is less than one, or there are too few images to re-rank.
        """
        if top < 1:
            raise UserError(f"top is {top}; it must be at least 1")
        opened = [self._opened(images) for images in (query, gallery)]
        seen = [present for _, present in opened]
        sides = zip(opened, (seen[1], seen[0]), strict=True)
        (query_names, asked), (gallery_names, searched) = (self._side(*side, others) for side, others in sides)
        if rerank is None:
            order, values = streamed.top_k(asked, searched, top)
        else:
            whole = reranking.k_reciprocal(asked, searched, **dataclasses.asdict(rerank))
            order = distances.nearest(whole, top)
            values = np.take_along_axis(whole, order, axis=1)
        return Matches(order, values, query_names, gallery_names)

    def evaluate(
        self,
        dataset: str = "",
        *,
        data_dir: str | Path | None = None,
        protocol: str = "",
        absent: Sequence[str] = (),
    ) -> list[Result]:
        """Scores on the query and gallery of a data set: a result for each comparison of the method, the usual first.

        Args:
          dataset: name of a prepared data set; "": the data of the model's config, drawn ones included.
          data_dir: folder of prepared data sets; None: that of the config.
          protocol: name of one of the data set's; "": that of the config, or of another data set its usual one;
            ``all``: all of them.
          absent: modalities that are missing in query and gallery.

        Raises:
          UserError: the data set is not prepared or has other modalities, there is no such protocol, or the method is
            not scored by retrieval.
        """
        if isinstance(self.method, base.Examines):
            raise UserError(
                f"{self.extractor.config.method} learns without labels and is not scored by retrieval; its own task is "
                "scored by main.py --eval_only"
            )
        config = self.config
        with config.unlocked():
            if dataset:
                # A sample of one modality has no others to choose from.
                chosen = () if self.extractor.one_modality else self.modalities
                config.data.update(dataset=dataset, drawn=False, manual_dir="", train_list="", modalities=chosen)
                config.eval.protocol = ""
            if data_dir is not None:
                config.data.data_dir = str(data_dir)
            config.eval.protocol = protocol or config.eval.protocol
        experiment = open_experiment(config, Path(), self.method)
        placed = experiment.parallel.place_state(self.extractor.variables)
        embedder = of_experiment(experiment, self.method.embed)
        return retrieval.run(experiment, embedder, placed, "trained", absent=absent)

    def _gone(self, lacking: Sequence[str], absent: Sequence[str]) -> tuple[str, ...]:
        """Modalities that the network does not see: those without images and those that are to be left out."""
        unknown = [name for name in absent if name not in self.modalities]
        gone = tuple(name for name in self.modalities if name in lacking or name in absent)
        if unknown or len(gone) == len(self.modalities):
            raise UserError(
                f"absent is {tuple(absent)!r}; leave some of the images: they are of "
                f"{', '.join(name for name in self.modalities if name not in lacking)}"
            )
        return gone

    def _embedded(self, records: Records, gone: tuple[str, ...], feature: str = "", batch_size: int = 0) -> np.ndarray:
        """Features of a table without the modalities that are gone."""
        usual = self.extractor.config.eval.batch_size
        # Powers of two, so that few programs are compiled, whatever the numbers of images.
        size = batch_size or min(usual, 1 << (len(records) - 1).bit_length())
        return self.extractor(records, gone, feature, batch_size=size)

    def _opened(self, images: given.Images) -> tuple[np.ndarray | Records, tuple[str, ...]]:
        """Features as they are, or the table of images; and the modalities that are seen of them, none of features."""
        if isinstance(images, np.ndarray) and images.ndim == 2:
            return images, ()
        records, lacking = given.table(images, self.modalities, one=self.extractor.one_modality)
        gone = self._gone(lacking, ())
        return records, tuple(name for name in self.modalities if name not in gone)

    def _side(
        self, opened: np.ndarray | Records, seen: tuple[str, ...], others: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(names, features) of queries or gallery; `others`: modalities of the other side, where they are known."""
        if isinstance(opened, np.ndarray):
            features, names = opened, np.arange(len(opened)).astype(str)
        else:
            unlike = others and others != seen and not self.extractor.one_modality
            feature = self.extractor.feature_between(seen, others) if unlike else ""
            gone = tuple(name for name in self.modalities if name not in seen)
            features, names = self._embedded(opened, gone, feature), opened.file
        config = self.extractor.config
        kind = config.eval.distance or datasets.usual_distance(config.data.dataset)
        # The order of angles is that of distances at length one.
        return names, distances.l2_normalise(features) if kind == "cosine" else features


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
      value_range: how an image of more than 8 bits is scaled.
    """

    text: str
    image: Path | None
    image_text: str
    value_range: ValueRange = ()

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
            encoded = listing.read_file(self.image)
        else:
            stream = io.BytesIO()
            height, width = extractor.config.data.image_size
            Image.new("RGB", (width, height)).save(stream, "PNG")
            encoded = stream.getvalue()
        zero = np.zeros(1, np.int32)
        file = np.array([self.image.name if self.image else "text"])
        view = {infrared: View(infrared)}
        return Records(
            *(printable(self.image or "text"), zero - 1, zero, zero, file, view, One(infrared, encoded), zero),
            value_range=self.value_range,
        )

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
