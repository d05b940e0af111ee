"""TVI-LFM: an infrared query is enriched with text, in which the colours stand that infrared images lack.

Stages are named by ``config.model.stage``. ``base``: a two-stream ResNet-50 with a learned pooling and one batch-norm
head is trained on images alone. ``text``: it is taken over and stays as it is, and CLIP's text tower learns to say in
the space of its features what a visible caption adds to an infrared one. A query is then the feature of its image plus
that of a visible caption minus that of its own caption ("fusion"); other comparisons use the image, the text, or all
three. A third one, ``visible_text`` (``RGB_Text`` in the authors' code), trains with visible images and their captions
alone.

Reference: Text-enhanced visible-infrared person re-identification driven by large foundation models, NeurIPS 2024; the
authors' code, which is followed where the paper differs. ``docs/tvi_lfm.md`` lists what of it is reproduced.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.convert import clip as clip_layout
from mmreid_jax.convert import store
from mmreid_jax.convert import tvi_lfm as tvi_lfm_layout
from mmreid_jax.errors import UserError
from mmreid_jax.losses import identity, text, weighted_triplet
from mmreid_jax.losses.vectors import at_least_float32, l2_normalise
from mmreid_jax.methods import visible_infrared
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Terms, Variables, check_choices, shapes
from mmreid_jax.models.clip import TEXT_TOWERS, TextTower
from mmreid_jax.models.heads import JointNeck, LearnedPool
from mmreid_jax.models.resnet import RESNETS
from mmreid_jax.models.two_stream import MODALITIES, TwoStream
from mmreid_jax.training import channels, checkpoints, optimizers

STAGES = ("base", "text", "visible_text")
FUSIONS = ("filter", "add", "norm_add", "parameter_add")
FREEZES = ("code", "all", "none")
KINDS = (*MODALITIES, "fusion", "text")
"""Of features, in the order in which losses and batch norms see them."""
HEAD = ("pool", "bottleneck", "classifier")
"""Parts of the base model of which the text stage keeps a copy."""
SHARE, GREY = 0.5, 0.6
"""Of the second views those that change channels; of the infrared images that would stay as they are those mixed."""
OPTIONAL = {
    "ce_without_ir": "ce_without_ir_weight",
    "triplet_without_ir": "triplet_without_ir_weight",
    "orthogonality": "orthogonality_weight",
    "orthogonality_sum": "orthogonality_sum_weight",
    "i2t_regular": "i2t_regular_weight",
    "t2i_regular": "t2i_regular_weight",
    "image_to_text": "image_to_text_weight",
    "text_to_image": "text_to_image_weight",
}
"""Terms of the text stage that no released script uses, with the key of ``config.loss`` that gives each a weight."""
SCALED = ("i2t_regular", "t2i_regular", "image_to_text", "text_to_image")
"""Those of them that learn the factor on similarities."""


class Base:
    """The base stage, images alone; see `mmreid_jax.methods.base.Method` for the interface.

    Attributes:
      config: of the experiment (``config.model``, ``config.loss``, ``config.groups``, ``config.optim``,
        ``config.train``, ``config.init``).
      facts: of the training data; the visible modality comes first.
      backbone: network of both modalities, images -> feature maps.
      pool: maps -> features [N, D].
      neck: batch norm and classifier of features by kind.
    """

    features: tuple[str, ...] = ("fc", "pool")
    """Names of the features after and before the neck."""
    kinds: tuple[str, ...] = MODALITIES
    """Of features that the neck knows."""
    idle: tuple[str, ...] = ()
    """Patterns of parameters that no gradient reaches."""

    def __init__(self, config: Any, facts: DataFacts) -> None:
        model = config.model
        self.config = config
        self.facts = facts
        self.classes = visible_infrared.check(config, facts)
        check_choices(
            config,
            {
                "model.stage": (model.stage, STAGES),
                "model.fusion": (model.fusion, FUSIONS),
                "model.freeze_visual": (model.freeze_visual, FREEZES),
                "model.text_tower": (model.text_tower, tuple(TEXT_TOWERS)),
                "loss.triplet_form": (config.loss.triplet_form, weighted_triplet.FORMS),
            },
        )
        visible = facts.modalities[0]
        if tuple(config.data.second_views) != (visible,):
            raise UserError(
                f"config.data.second_views is {tuple(config.data.second_views)}; TVI-LFM sees visible images twice, set"
                f" it to ({visible!r},)"
            )
        self.check()
        self.backbone = TwoStream(
            **RESNETS[model.backbone],
            stem="tvi_lfm",
            last_stride=model.last_stride,
            dtype=self._dtype,
            remat=model.remat,
        )
        self.pool = LearnedPool(model.gem_power)
        self.neck = JointNeck(self.classes, separate_norms=model.separate_norms)
        self.comparisons()

    def check(self) -> None:
        """Raises a `UserError` where options do not go with the stage."""
        for key in ("from_base", "clip"):
            if self.config.init[key]:
                raise UserError(f"config.init.{key} is for the text stage; set config.model.stage to text, or leave it")
        if self.config.model.separate_norms:
            raise UserError(
                "config.model.separate_norms gives images and texts batch norms of their own; it is for"
                " config.model.stage=text"
            )

    @property
    def _dtype(self) -> Any:
        dtype = self.config.model.dtype
        return jnp.dtype(dtype) if dtype != "float32" else None

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        of_trunk, of_pool, of_neck = jax.random.split(key, 3)
        trunk = visible_infrared.init_backbone(self.backbone, of_trunk, self.config)
        pooled = dict.fromkeys(self.kinds, jnp.zeros((1, self.backbone.features)))
        neck = jax.jit(lambda k: self.neck.init(k, pooled, False))(of_neck)
        pool = self.pool.init(of_pool, jnp.ones((1, 1, 1, self.backbone.features)))
        variables: Variables = {name: {"backbone": tree, **neck[name]} for name, tree in trunk.items()}
        variables["params"]["pool"] = pool["params"]
        return variables

    def start(self, variables: Variables) -> Variables:
        """The variables with the weights that ``config.init`` names in the trunk: see `visible_infrared.start`."""
        return visible_infrared.start(variables, self.config)

    def trunk(
        self, params: Mapping[str, Any], stats: Mapping[str, Any], images: Mapping[str, Array], train: bool
    ) -> tuple[Array, dict[str, Any]]:
        """The maps [V + I, h, w, C] of images by stream, the visible ones first, and the new statistics."""
        variables = {"params": params, "batch_stats": stats}
        maps, new = self.backbone.apply(variables, images, train, mutable=["batch_stats"])
        return maps, new["batch_stats"]

    def head(
        self, params: Mapping[str, Any], stats: Mapping[str, Any], features: Mapping[str, Array], train: bool
    ) -> tuple[dict[str, Array], dict[str, Array], dict[str, Any]]:
        """What the neck makes of features [n, D] by kind: normalised ones, logits [n, classes], new statistics."""
        variables = {
            "params": {name: params[name] for name in ("bottleneck", "classifier")},
            "batch_stats": {"bottleneck": stats["bottleneck"]},
        }
        (after, logits), new = self.neck.apply(variables, features, train, mutable=["batch_stats"])
        return after, logits, new["batch_stats"]

    def pooled(self, params: Mapping[str, Any], maps: Array) -> Array:
        """Features [N, C] of maps [N, h, w, C]; `params` hold the pool's power."""
        return cast(Array, self.pool.apply({"params": params["pool"]}, maps))

    def training_images(self, batch: Batch, key: Array) -> dict[str, Array]:
        """Visible images, then their second views with half of them in one channel [2B]; infrared ones mixed [B]."""
        visible, infrared = self.facts.modalities
        images, count = batch["images"], len(batch["identity"])
        keys = jax.random.split(key)
        choices = channels.draw_exchange(keys[0], count, share=SHARE)
        second = channels.adaptive_grey(images[f"{visible}_2"], choices)
        mixed = channels.adaptive_grey(images[infrared], channels.draw_adaptive_grey(keys[1], count, grey=GREY))
        return {"visible": jnp.concatenate([images[visible], second]), "infrared": mixed}

    def objective(
        self, features: Mapping[str, Array], logits: Mapping[str, Array], identities: Array
    ) -> tuple[Array, Terms]:
        """Cross-entropy and weighted triplet loss over all kinds of features at once.

        Args:
          features: [n, D] by kind, before the neck; n is B or 2B.
          logits: [n, classes] by kind.
          identities: int [B].

        Returns:
          The total, and its terms with accuracies.
        """
        options = self.config.loss
        labels = {kind: _labels(identities, rows) for kind, rows in features.items()}
        every, scores, of_every = (jnp.concatenate(list(x.values())) for x in (features, logits, labels))
        compared, (positive, negative) = weighted_triplet.weighted_triplet(every, of_every, form=options.triplet_form)
        terms: Terms = {
            "ce": identity.cross_entropy(scores, of_every, options.label_smoothing),
            "triplet": compared,
        }
        total = options.ce_weight * terms["ce"] + options.triplet_weight * compared
        terms["ranked"] = jnp.mean((negative >= positive).astype(total.dtype))
        terms |= {f"accuracy_{kind}": identity.accuracy(logits[kind], labels[kind]) for kind in features}
        return total, terms

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Cross-entropy and weighted triplet loss over visible images, their second views and infrared images."""
        del step
        params, stats = variables["params"], variables["batch_stats"]
        images = self.training_images(batch, key)
        maps, of_trunk = self.trunk(params["backbone"], stats["backbone"], images, True)
        features = _by_stream(images, self.pooled(params, maps))
        _, logits, of_neck = self.head(params, stats, features, True)
        total, terms = self.objective(features, logits, batch["identity"])
        return total, (terms, {"backbone": of_trunk, **of_neck}, memory)

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """``fc_<modality>`` (after the neck) and ``pool_<modality>`` (before it), [B, C] of length one."""
        features = self._evaluated(variables, batch)
        after, _, _ = self.head(variables["params"], variables["batch_stats"], features, False)
        by_name = {"fc": after, "pool": features}
        return {
            f"{name}_{self._modality(stream)}": l2_normalise(value)
            for name, values in by_name.items()
            for stream, value in values.items()
        }

    def maps(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The last feature maps of each modality of the batch: [B, h, w, C]."""
        images = visible_infrared.streams(self.facts, batch)
        maps, _ = self.trunk(variables["params"]["backbone"], variables["batch_stats"]["backbone"], images, False)
        return visible_infrared.by_modality(self.facts, batch, maps)

    def _evaluated(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Pooled features of the images of a batch by stream, in evaluation mode."""
        images = visible_infrared.streams(self.facts, batch)
        maps, _ = self.trunk(variables["params"]["backbone"], variables["batch_stats"]["backbone"], images, False)
        return _by_stream(images, self.pooled(variables["params"], maps))

    def _modality(self, stream: str) -> str:
        return self.facts.modalities[MODALITIES.index(stream)]

    def groups(self) -> list[optimizers.Group]:
        """Parameters that do not train at ``config.optim.lr``, in the order in which they are looked for."""
        return [optimizers.Group("^(bottleneck|classifier)/", lr_factor=self.config.groups.head_lr_factor)]

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """The optimiser of ``config.optim`` with the groups of ``config.groups``."""
        return optimizers.build(self.config.optim, params, epoch_ends, self.groups())

    def comparisons(self) -> list[Comparison]:
        """Both features both ways."""
        return visible_infrared.comparisons(self.facts, self.features, self.config.eval.feature)

    def layout(self, **parts: bool) -> Any:
        """The name map of the authors' checkpoints for this backbone; `parts` as in `convert.tvi_lfm.layout`."""
        return tvi_lfm_layout.layout(self.backbone.stages, self.backbone.bottleneck, **{"text": False, **parts})

    def convert_layouts(self) -> dict[str, Any]:
        """``tvi_lfm``: the authors' checkpoints."""
        return {"tvi_lfm": self.layout()}

    def load(self, path: str, which: str) -> tuple[Variables, dict[str, Any]]:
        """A trained model and its meta data: from a workdir, a converted directory or a file of the authors.

        Raises:
          UserError: it cannot be read or is not of this stage.
        """
        like = shapes(self)
        if _is_workdir(path):
            return checkpoints.load_variables(path, like=like, which=which)  # type: ignore[arg-type]
        return store.open_weights(path, self.convert_layouts()["tvi_lfm"], like)[0], {}


class TextStage(Base):
    """The text stage: the text tower learns beside a visual network that stays as it is.

    Attributes:
      fixed: whether the visual network is that of the base model; then copies of its head compare images alone.
      tower: token numbers -> features [N, D].
    """

    features = ("fusion", "mer", "ir", "text")
    """Names of the features of an infrared query."""
    kinds = KINDS

    def __init__(self, config: Any, facts: DataFacts) -> None:
        self.fixed = config.model.freeze_visual != "none"
        super().__init__(config, facts)
        sizes: dict[str, Any] = {**TEXT_TOWERS[config.model.text_tower], "out": self.backbone.features}
        self.tower = TextTower(**sizes, dtype=self._dtype, remat=config.model.remat)

    def check(self) -> None:
        """Raises a `UserError` where options do not go with the stage or with one another."""
        model, loss, start = self.config.model, self.config.loss, self.config.init
        if not self.config.data.text:
            raise UserError(f"config.model.stage is {model.stage!r}, but config.data.text is False; set it to True")
        if start.from_base and (start.backbone or start.from_mmgl):
            raise UserError(
                "config.init.from_base and another start of the visual network (config.init.backbone, from_mmgl) are"
                " both set; leave one empty"
            )
        if model.separate_norms and not loss.joint:
            raise UserError("config.model.separate_norms needs config.loss.joint, which trains every one of them")
        for name in self._optional:
            if not loss.joint:
                raise UserError(f"config.loss.{OPTIONAL[name]} needs config.loss.joint; set the weight to 0")
            if name.startswith("orthogonality") and model.fusion != "filter":
                raise UserError(f"config.loss.{OPTIONAL[name]} needs config.model.fusion=filter; set the weight to 0")

    @property
    def _optional(self) -> tuple[str, ...]:
        """Names of the optional terms that have a weight."""
        return tuple(name for name, key in OPTIONAL.items() if self.config.loss[key])

    @property
    def _pool_fixed(self) -> bool:
        """Whether the power of the pooling is fixed, too.

        Parity: for a fusion without filter the released code pools the infrared map once more, outside of the block
        that is fixed, so that the power is trained then.
        """
        model = self.config.model
        return self.fixed and (model.fusion == "filter" or model.freeze_visual == "all")

    @property
    def idle(self) -> tuple[str, ...]:  # type: ignore[override]
        """Patterns of parameters that no gradient reaches: those of the visual network and of the copies."""
        if not self.fixed:
            return ()
        return ("^backbone/", "^backup/", *(("^pool/",) if self._pool_fixed else ()))

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        of_images, of_text = jax.random.split(key)
        variables = super().init(of_images)
        params = variables["params"]
        tokens = jnp.zeros((1, self.tower.length), jnp.int32)
        params["text"] = jax.jit(lambda k: self.tower.init(k, tokens))(of_text)["params"]
        if any(name in SCALED for name in self._optional):
            params["logit_scale"] = jnp.asarray(tvi_lfm_layout.LOGIT_SCALE)
        if self.fixed:
            _keep_copies(variables, variables)
        return variables

    def start(self, variables: Variables) -> Variables:
        """The variables with what ``config.init`` names: a base model, CLIP's text tower, or ImageNet weights."""
        variables = {name: dict(tree) for name, tree in super().start(variables).items()}
        if self.config.init.from_base:
            self._take_base(self.config.init.from_base, variables)
        if self.config.init.clip:
            variables["params"]["text"] = self._clip(self.config.init.clip, variables["params"]["text"])
        if self.fixed:
            _keep_copies(variables, variables)
        return variables

    def _take_base(self, path: str, variables: Variables) -> None:
        """Puts a base model into fresh variables: all of its parts, and its text tower if it has one.

        Raises:
          UserError: it cannot be read, is no base model, or a part is of another shape.
        """
        base_model = self._base_model(path)
        towers = {"text"} & base_model["params"].keys() if not self.config.init.clip else set()
        taken = 0
        for collection, fresh in variables.items():
            for part in ("backbone", *HEAD, *sorted(towers)):
                if part not in fresh:
                    continue
                new = base_model[collection].get(part)
                if part == "bottleneck" and self.config.model.separate_norms and new and "visible" not in new:
                    # Every kind starts from the one norm of a base model.
                    new = dict.fromkeys(KINDS, new)
                shapes = [[(p, x.shape) for p, x in jax.tree.leaves_with_path(tree)] for tree in (new, fresh[part])]
                if shapes[0] != shapes[1]:
                    raise UserError(
                        f"{part} of the base model {path} does not fit; choose the config.model.backbone and the data"
                        " set (or config.model.num_classes) that it was trained with"
                    )
                fresh[part] = jax.tree.map(lambda new, old: jnp.array(new, old.dtype), new, fresh[part])
                taken += len(shapes[0])
        tower = ", its text tower among them" if towers else ""
        print(f"base model from {path}: {taken} arrays taken{tower}", flush=True)

    def _base_model(self, path: str) -> Variables:
        """The variables of a base model as numpy arrays, with a text tower where the authors' file holds one."""
        if _is_workdir(path):
            loaded, meta = checkpoints.load_variables(path, which=self.config.init.which)
            config_there = meta.get("config", {})
            if (config_there.get("method"), config_there.get("model", {}).get("stage")) != ("tvi_lfm", "base"):
                raise UserError(f"{path} holds no run of TVI-LFM's base stage, which config.init.from_base wants")
            return loaded
        loaded, _ = store.open_weights(path, self._any_layout())
        if "backup" in loaded["params"]:
            raise UserError(
                f"{path} holds a model of the text stage; config.init.from_base wants a base model (a trained one is"
                " named by config.init.checkpoint)"
            )
        return loaded

    def _any_layout(self) -> Any:
        return tvi_lfm_layout.any_layout(self.backbone.stages, self.backbone.bottleneck)

    def _clip(self, path: str, tower: Any) -> Any:
        """The text tower of a CLIP network, its projection stretched to the width of the visual features."""
        layout = clip_layout.text_only(self.backbone.features)
        loaded, report = store.open_weights(path, layout, {"params": tower})
        print(report.table(), flush=True)
        return jax.tree.map(lambda new, old: jnp.array(new, old.dtype), loaded["params"], tower)

    def read(self, params: Mapping[str, Any], tokens: Mapping[str, Array]) -> dict[str, Array]:
        """Features [B, D] of the captions of each modality, int32 [B, L] each, in one pass."""
        joined = jnp.concatenate(list(tokens.values()))
        features = at_least_float32(cast(Array, self.tower.apply({"params": params["text"]}, joined)))
        return dict(zip(tokens, jnp.split(features, len(tokens)), strict=True))

    def _tokens(self, batch: Batch) -> dict[str, Array]:
        """The captions that the fusion reads: visible ones, and with a filter infrared ones."""
        count = 2 if self.config.model.fusion == "filter" else 1
        return {name: batch["tokens"][name] for name in self.facts.modalities[:count]}

    def fuse(self, image: Array, texts: Mapping[str, Array]) -> Array:
        """The fusion [B, D] of infrared features and those of captions by modality.

        ``filter``: image + visible text - infrared text. ``add``: image + visible text. ``norm_add``, Parity: the mean
        of the unit text and of the image's length, times the unit image; the code divides the image by its unit vector
        where it means to divide by its length. ``parameter_add``: image and visible text in the shares of
        ``config.model.fusion_share``; the code knows it in evaluation alone.
        """
        visible, infrared = self.facts.modalities
        if self.config.model.fusion == "filter":
            return image + texts[visible] - texts[infrared]
        if self.config.model.fusion == "add":
            return image + texts[visible]
        if self.config.model.fusion == "parameter_add":
            share = self.config.model.fusion_share
            return share * image + (1 - share) * texts[visible]
        length = jnp.linalg.norm(image, axis=-1, keepdims=True)
        return (l2_normalise(texts[visible]) + length) / 2 * (image / length)

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Cross-entropy and weighted triplet loss over images, fusions and texts; without ``joint``: visible, fusions.

        Parity: a fixed visual network still normalises by the statistics of the batch and updates the running ones
        (``freeze_visual="code"``).
        """
        del step
        params, stats = variables["params"], variables["batch_stats"]
        options, images = self.config.loss, self.training_images(batch, key)
        maps, seen, of_trunk = self._seen(params, stats, images)
        image = seen["infrared"]
        if self.fixed and not self._pool_fixed:
            image = self.pooled(params, maps[len(images["visible"]) :])
        texts = self.read(params, self._tokens(batch))
        fusion, of_text = self.fuse(image, texts), texts[self.facts.modalities[0]]
        features = {**seen, "fusion": fusion, "text": of_text}
        if not options.joint:
            features = {kind: features[kind] for kind in ("visible", "fusion")}
        _, logits, of_neck = self.head(params, stats, features, True)
        total, terms = self.objective(features, logits, batch["identity"])
        others = {kind: rows for kind, rows in features.items() if kind != "infrared"}
        if "ce_without_ir" in self._optional:
            # Parity: these rows are normalised once more, by statistics of their own, which move the running ones.
            _, logits, of_neck = self.head(params, of_neck, others, True)
        for name, value in self._optional_terms(params, features, texts, logits, batch["identity"]).items():
            terms[name] = value
            total = total + options[OPTIONAL[name]] * value
        return total, (terms, {"backbone": of_trunk, **of_neck, **self._copies(stats)}, memory)

    def _seen(
        self, params: Mapping[str, Any], stats: Mapping[str, Any], images: Mapping[str, Array]
    ) -> tuple[Array, dict[str, Array], dict[str, Any]]:
        """In training: the maps of images, features by stream, and the new statistics of the visual network."""
        visual = jax.lax.stop_gradient(params) if self.fixed else params
        moving = self.config.model.freeze_visual != "all"
        maps, of_trunk = self.trunk(visual["backbone"], stats["backbone"], images, moving)
        return maps, _by_stream(images, self.pooled(visual, maps)), of_trunk

    def _copies(self, stats: Mapping[str, Any]) -> dict[str, Any]:
        """The statistics of the copies, which no step changes."""
        return {"backup": stats["backup"]} if self.fixed else {}

    def _optional_terms(
        self,
        params: Mapping[str, Any],
        features: Mapping[str, Array],
        texts: Mapping[str, Array],
        logits: Mapping[str, Array],
        identities: Array,
    ) -> Terms:
        """The terms of `OPTIONAL` that have a weight; `logits` of ``ce_without_ir`` are those of these rows alone."""
        wanted = self._optional
        if not wanted:
            return {}
        infrared = self.facts.modalities[1]
        others = {kind: of_kind for kind, of_kind in features.items() if kind != "infrared"}
        labels = jnp.concatenate([_labels(identities, of_kind) for of_kind in others.values()])
        rows, scores = (jnp.concatenate([x[kind] for kind in others]) for x in (features, logits))
        image, fusion, of_text = (features[kind] for kind in ("infrared", "fusion", "text"))
        scale = jnp.exp(params["logit_scale"]) if "logit_scale" in params else 1.0
        form = self.config.loss.triplet_form
        terms = {
            "ce_without_ir": lambda: identity.cross_entropy(scores, labels),
            "triplet_without_ir": lambda: weighted_triplet.weighted_triplet(rows, labels, form=form)[0],
            "orthogonality": lambda: text.orthogonality(image, of_text - texts[infrared])[0],
            "orthogonality_sum": lambda: text.orthogonality(image, of_text - texts[infrared])[1],
            "i2t_regular": lambda: text.similarity_transfer(image, of_text, fusion, scale),
            "t2i_regular": lambda: text.similarity_transfer(of_text, image, fusion, scale),
            "image_to_text": lambda: text.image_to_text(image, of_text, scale),
            "text_to_image": lambda: text.text_to_image(image, of_text, identities, scale),
        }
        return {name: terms[name]() for name in wanted}

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Features [B, D] of what is to be compared; all but the last of length one.

        Of visible images ``joint_<m>`` and, where the visual network is fixed, ``backup_<m>`` by the head of the base
        model. Of infrared images ``ir_<m>`` by that head; and where the batch has captions ``text_<m>``,
        ``fusion_<m>`` and ``mer_<m>``, the sum of image, text and fusion.
        """
        params, stats = variables["params"], variables["batch_stats"]
        images = visible_infrared.streams(self.facts, batch)
        maps, _ = self.trunk(params["backbone"], stats["backbone"], images, False)
        seen = _by_stream(images, self.pooled(params, maps))
        embedded: dict[tuple[str, str], Array] = {}
        if "visible" in seen:
            embedded["joint", "visible"] = self._unit(params, stats, "visible", seen["visible"])
        if self.fixed:
            before = _by_stream(images, self.pooled(params["backup"], maps))
            for stream, value in before.items():
                name = "backup" if stream == "visible" else "ir"
                embedded[name, stream] = self._unit(params["backup"], stats["backup"], stream, value)
        if "infrared" in seen:
            image = self._unit(params, stats, "infrared", seen["infrared"])
            embedded.setdefault(("ir", "infrared"), image)
            if "tokens" in batch:
                texts = self.read(params, self._tokens(batch))
                fusion = self._unit(params, stats, "fusion", self.fuse(seen["infrared"], texts))
                words = self._unit(params, stats, "text", texts[self.facts.modalities[0]])
                embedded["text", "infrared"], embedded["fusion", "infrared"] = words, fusion
                embedded["mer", "infrared"] = fusion + image + words
        return {f"{name}_{self._modality(stream)}": value for (name, stream), value in embedded.items()}

    def _unit(self, params: Mapping[str, Any], stats: Mapping[str, Any], kind: str, features: Array) -> Array:
        """The embedding of features [B, D] of one kind: after the norm, of length one."""
        return l2_normalise(self.head(params, stats, {kind: features}, False)[0][kind])

    def groups(self) -> list[optimizers.Group]:
        """Parameters that do not train at ``config.optim.lr``, in the order in which they are looked for.

        Parity: embeddings, projection and last norm of the text tower go with the visual network's rate, and the weight
        decay that the released scripts name for text acts on biases alone.
        """
        options, lr = self.config.groups, self.config.optim.lr
        factor = options.text_lr / lr if lr else 1.0
        decay = options.text_weight_decay if options.text_weight_decay >= 0 else None
        of_biases = {"lr_factor": factor * options.text_bias_lr_factor, "weight_decay": options.text_bias_weight_decay}
        part = "^text/" if options.whole_tower else "^text/blocks/"
        return [
            *(optimizers.Group(pattern, frozen=True) for pattern in self.idle),
            optimizers.Group(f"{part}.*bias$", **of_biases),
            optimizers.Group(part, lr_factor=factor, weight_decay=decay),
            *super().groups(),
        ]

    def comparisons(self) -> list[Comparison]:
        """Infrared queries by fusion, image, text and all of them, and the other way where the sum does not count.

        The length of the sum is free: it changes no order of a query's gallery, but would of galleries that it is in.

        Raises:
          UserError: ``config.eval.feature`` is none of them.
        """
        selecting, known = self.config.eval.feature, self.features
        if selecting not in known:
            raise UserError(f"config.eval.feature is {selecting!r}; choose one of {', '.join(known)}")
        visible, infrared = self.facts.modalities
        every_comparison = []
        for name in sorted(known, key=lambda name: name != selecting):
            other = f"backup_{visible}" if name == "ir" and self.fixed else f"joint_{visible}"
            feature_of_query = f"{name}_{infrared}"
            every_comparison.append(
                Comparison(f"{name} {infrared} to {visible}", feature_of_query, (infrared,), (visible,), other)
            )
            if name != "mer":
                every_comparison.append(
                    Comparison(f"{name} {visible} to {infrared}", other, (visible,), (infrared,), feature_of_query)
                )
        return every_comparison

    def convert_layouts(self) -> dict[str, Any]:
        """``tvi_lfm``: the authors' checkpoints."""
        return {"tvi_lfm": self._layout_with(self.fixed)}

    def _layout_with(self, backup: bool) -> Any:
        scale = any(name in SCALED for name in self._optional)
        return self.layout(text=True, backup=backup, separate_norms=self.config.model.separate_norms, scale=scale)

    def load(self, path: str, which: str) -> tuple[Variables, dict[str, Any]]:
        """As that of `Base`; a file without copies of the base model's head needs ``config.init.from_base``.

        Raises:
          UserError: it cannot be read, is not of this stage, or copies are wanting.
        """
        if _is_workdir(path) or not self.fixed:
            return super().load(path, which)
        like = shapes(self)
        whole, _ = store.open_weights(path, self._any_layout())
        if "backup" in whole["params"]:
            return super().load(path, which)
        if not self.config.init.from_base:
            raise UserError(
                f"{path} holds no copies of the base model's head, which compare infrared images alone; name the base"
                " model with --config.init.from_base"
            )
        without = {name: {part: x for part, x in tree.items() if part != "backup"} for name, tree in like.items()}
        variables, _ = store.open_weights(path, self._layout_with(False), without)
        base = self._base_model(self.config.init.from_base)
        _keep_copies(variables, base)
        checkpoints.check_fits(_named(variables), like, f"{path} with the head of {self.config.init.from_base}")
        return variables, {}


class VisibleText(TextStage):
    """Visible images and their captions: ``RGB_Text`` of the authors' code, which none of its scripts uses.

    Infrared images train nothing, but they are in the batch, whose statistics normalise. Features are those of the text
    stage.
    """

    def check(self) -> None:
        """As in `TextStage`; there are no infrared or fused rows, for which some options are."""
        super().check()
        if self._optional:
            key = OPTIONAL[self._optional[0]]
            raise UserError(f"config.loss.{key} is for config.model.stage=text; set the weight to 0")
        if self.config.model.separate_norms:
            raise UserError("config.model.separate_norms is for config.model.stage=text, which trains all of them")

    @property
    def _pool_fixed(self) -> bool:
        return self.fixed

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Cross-entropy and weighted triplet loss over visible images, their second views and their captions."""
        del step
        params, stats = variables["params"], variables["batch_stats"]
        _, seen, of_trunk = self._seen(params, stats, self.training_images(batch, key))
        visible = self.facts.modalities[0]
        texts = self.read(params, {visible: batch["tokens"][visible]})
        features = {"visible": seen["visible"], "text": texts[visible]}
        _, logits, of_neck = self.head(params, stats, features, True)
        total, terms = self.objective(features, logits, batch["identity"])
        return total, (terms, {"backbone": of_trunk, **of_neck, **self._copies(stats)}, memory)


def _keep_copies(variables: Variables, base: Variables) -> None:
    """Puts copies of a base model's pool and head into variables, as ``backup``."""
    for collection, tree in variables.items():
        parts = {part: base[collection][part] for part in HEAD if part in base[collection]}
        # Copies: a step takes the memory of both.
        tree["backup"] = jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else jnp.array(x), parts)


def _named(tree: Any) -> dict[str, Any]:
    """{path with slashes: leaf}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _labels(identities: Array, rows: Array) -> Array:
    """Identities [B] for as many rows, which are one or more times those of the batch."""
    return jnp.tile(identities, len(rows) // len(identities))


def _by_stream(images: Mapping[str, Array], values: Array) -> dict[str, Array]:
    """What was made of images by stream, [V + I, ...], apart."""
    names = [name for name in MODALITIES if name in images]
    if len(names) == 1:
        return {names[0]: values}
    parts = jnp.split(values, np.cumsum([len(images[name]) for name in names])[:-1].tolist())
    return dict(zip(names, parts, strict=True))


def _is_workdir(path: str) -> bool:
    return Path(path).is_dir() and not (Path(path) / store.META).is_file()


def build(config: Any, facts: DataFacts) -> Base:
    """Builds the stage of TVI-LFM that a config such as ``configs/tvi_sysu.py`` names."""
    stages: dict[str, type[Base]] = {"text": TextStage, "visible_text": VisibleText}
    return stages.get(config.model.stage, Base)(config, facts)
