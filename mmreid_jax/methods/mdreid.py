"""MDReID: modality-decoupled features for re-identification with any modalities against any others.

One CLIP trunk shared by the modalities, with two class tokens: what comes out of the first is specific to the modality,
what comes out of the second is shared by all. Specific features are trained one by one, shared ones together; one loss
makes the two kinds orthogonal, another one makes them better together than alone. Features of different modalities can
be compared: what two images have in common, and the shared ones.

Reference: Feng et al., MDReID: Modality-Decoupled Learning for Any-to-Any Multi-Modal Object Re-Identification, NeurIPS
2025; the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmreid_jax.convert import mdreid as mdreid_layout
from mmreid_jax.losses import decoupling
from mmreid_jax.methods import modality_sets
from mmreid_jax.methods.base import Array, Batch, Comparison, DataFacts, Terms, Variables, check_choices
from mmreid_jax.methods.clip_trunk import OnTransformer
from mmreid_jax.models.heads import BNNeck

FEATURES = ("all", "specific", "shared")
"""All features of an image side by side, specific ones first, and each kind alone."""


class MDReID(OnTransformer):
    """The method object; see `mmreid_jax.methods.base.Method` for the interface.

    Attributes:
      both: BNNeck of specific and shared feature of a modality side by side, the same for all modalities.
    """

    idle = ("^necks/both/",)
    # Parity: the original runs this neck without a loss, so that its statistics move, and nothing else of it.
    frozen = (*OnTransformer.frozen, *idle)
    apart = True

    def __init__(self, config: Any, facts: DataFacts) -> None:
        super().__init__(config, facts, class_tokens=2, all_tokens=False)
        check_choices(config, {"eval.feature": (config.eval.feature, FEATURES)})
        self.both = BNNeck(self.classes, groups=len(facts.modalities))

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        of_backbone, of_necks, of_both = jax.random.split(key, 3)
        names, width = self.facts.modalities, self.backbone.features
        necks = self.init_necks(of_necks, {**dict.fromkeys(names, width), "shared": width * len(names)})
        pairs = jnp.zeros((2 * len(names), 2 * width))
        both = jax.jit(lambda k: self.both.init(k, pairs, True))(of_both)
        variables = {kind: {"necks": {**necks[kind], "both": both[kind]}} for kind in ("params", "batch_stats")}
        variables["params"]["backbone"] = self.init_backbone(of_backbone)
        return variables

    def features(self, variables: Variables, batch: Batch, train: bool = False) -> tuple[Array, Array]:
        """Specific and shared features of every modality, [M, B, D] each, in the order of the modalities."""
        tokens = self.tokens(variables, batch, train)
        return tokens[:, :, 0], tokens[:, :, 1]

    def paired(self, variables: Variables, specific: Array, shared: Array) -> tuple[Array, Array, dict[str, Any]]:
        """Both features of every modality side by side [M, B, 2 D], the logits of their neck, and its statistics."""
        network = {kind: tree["necks"]["both"] for kind, tree in variables.items()}
        pairs = jnp.concatenate([specific, shared], axis=-1)
        (_, logits), new = self.both.apply(network, pairs.reshape(-1, pairs.shape[-1]), True, mutable=["batch_stats"])
        return pairs, logits.reshape(*pairs.shape[:2], -1), dict(new["batch_stats"])

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Cross-entropy and triplet of every specific feature and of the shared ones, and the two decoupling losses."""
        del step
        options, labels = self.config.loss, batch["identity"]
        specific, shared = self.features(variables, self.with_missing(batch, key), True)
        features = dict(zip(self.facts.modalities, specific, strict=True))
        features["shared"] = jnp.concatenate(list(shared), axis=-1)
        logits, statistics = self.classified(variables, features)
        losses, terms = self.terms_of(features, logits, labels)
        terms["orthogonality"] = decoupling.orthogonality(specific, shared)
        terms["disentangling"] = decoupling.disentangling(specific, shared, labels)
        _, _, of_both = self.paired(variables, specific, shared)
        losses["shared"] = options.shared_weight * losses["shared"]
        total = sum(losses.values(), start=options.orthogonality_weight * terms["orthogonality"])
        total = total + options.disentangling_weight * terms["disentangling"]
        return total, (terms, {"necks": {**statistics, "both": of_both}}, memory)

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The features of `FEATURES`; each modality's [B, D], ``specific_<name>`` and ``shared_<name>``.

        Each modality by its name is the two side by side.
        """
        names = self.facts.modalities
        specific, shared = self.features(variables, batch)
        found = {f"specific_{name}": x for name, x in zip(names, specific, strict=True)}
        found |= {f"shared_{name}": x for name, x in zip(names, shared, strict=True)}
        found |= {name: jnp.concatenate([found[f"{kind}_{name}"] for kind in FEATURES[1:]], axis=-1) for name in names}
        kinds = {kind: jnp.concatenate([found[f"{kind}_{name}"] for name in names], axis=-1) for kind in FEATURES[1:]}
        return {"all": jnp.concatenate(list(kinds.values()), axis=-1), **kinds, **found}

    def between(self, query: modality_sets.Modalities, gallery: modality_sets.Modalities) -> Comparison:
        """Features of the modalities at hand: specific ones of what both sides have, and the shared ones.

        With ``config.eval.feature`` ``shared`` the latter alone.
        """
        options = self.config.eval
        return modality_sets.compare(
            query,
            gallery,
            self.facts.modalities,
            whole=options.feature,
            specific="" if options.feature == "shared" else "specific_",
            shared="shared_",
            apart=self.apart,
            matching=options.matching,
        )

    def convert_layouts(self) -> dict[str, Any]:
        """``mdreid``: the authors' checkpoints."""
        if not (self.backbone.size.clip and self.config.model.side_camera):
            return {}
        return {"mdreid": mdreid_layout.layout(self.facts.modalities)}


def build(config: Any, facts: DataFacts) -> MDReID:
    """Builds MDReID from a config such as ``configs/mdreid_rgbnt201.py``."""
    return MDReID(config, facts)
