"""DeMo: decoupled features and a mixture of experts for multi-modal re-identification.

One CLIP trunk shared by the modalities; a feature of each of class token and patches; seven learned queries, one for
every set of modalities, over the tokens of that set; experts for every head of every one of these seven features, which
a gate weighs. The features of the modalities and the weighed seven are trained with cross-entropy and a triplet loss
each, and describe an image side by side.

Reference: Wang, Liu, Yan et al., Decoupled Feature-Based Mixture of Experts for Multi-Modal Object Re-Identification,
AAAI 2025; the authors' code. (Configs are called ``demo_moe_*``: ``demo_*`` are demonstrations.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmreid_jax.convert import demo_moe as demo_layout
from mmreid_jax.errors import UserError
from mmreid_jax.methods.base import Array, Batch, DataFacts, Terms, Variables, check_choices
from mmreid_jax.methods.clip_trunk import OnTransformer
from mmreid_jax.models.demo_moe import FUSIONS, DecoupledMixture, subsets

FEATURES = ("all", "global", "mixture")
"""All of an image side by side; the features of its modalities; what is made of the seven queries."""


class DeMo(OnTransformer):
    """The method object; see `mmreid_jax.methods.base.Method` for the interface.

    Attributes:
      fusion: network on the tokens of the trunk.
    """

    def __init__(self, config: Any, facts: DataFacts) -> None:
        super().__init__(config, facts, class_tokens=1, all_tokens=True)
        model, width = config.model, self.backbone.features
        check_choices(
            config, {"model.fusion": (model.fusion, FUSIONS), "eval.feature": (config.eval.feature, FEATURES)}
        )
        if model.fusion == "none" and config.eval.feature == "mixture":
            raise UserError("config.eval.feature is 'mixture', but with config.model.fusion=none there is none")
        if model.fusion != "none" and width % 8:
            raise UserError(f"tokens of {width} channels cannot be cut into the 8 heads of the learned queries")
        if model.fusion == "experts" and width % model.heads:
            raise UserError(f"config.model.heads is {model.heads}, which does not divide the {width} channels")
        self.fusion = DecoupledMixture(
            facts.modalities,
            heads=model.heads,
            dropout=model.dropout,
            global_local=model.global_local,
            fusion=model.fusion,
        )

    @property
    def widths(self) -> dict[str, int]:
        """Widths of the features that have a neck, in the order of their losses."""
        names, width = self.facts.modalities, self.backbone.features
        mixture = {} if self.config.model.fusion == "none" else {"mixture": width * len(subsets(names))}
        joint = self.config.model.joint_head
        return mixture | ({"global": width * len(names)} if joint else dict.fromkeys(names, width))

    def init(self, key: Array) -> Variables:
        """Fresh variables."""
        of_backbone, of_fusion, of_necks = jax.random.split(key, 3)
        patches = self.grid[0] * self.grid[1]
        tokens = jnp.zeros((len(self.facts.modalities), 2, 1 + patches, self.backbone.features))
        fusion = jax.jit(lambda k: self.fusion.init(k, tokens, False))(of_fusion)
        necks = self.init_necks(of_necks, self.widths)
        params = {"backbone": self.init_backbone(of_backbone), "necks": necks["params"]}
        if "params" in fusion:
            params["fusion"] = fusion["params"]
        stats = {"necks": necks["batch_stats"]}
        if "batch_stats" in fusion:
            stats["fusion"] = fusion["batch_stats"]
        return {"params": params, "batch_stats": stats}

    def forward(
        self, variables: Variables, batch: Batch, train: bool = False, key: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Runs trunk and fusion.

        Args:
          variables: of the method.
          batch: with float ``images`` {modality: [B, H, W, 3]}.
          train: normalise by batch statistics and update the running ones.
          key: random key of the dropout; None: no dropout.

        Returns:
          What `DecoupledMixture` returns, and the new statistics of the fusion.
        """
        network = {kind: tree["fusion"] for kind, tree in variables.items() if "fusion" in tree}
        fusion = self.fusion if key is not None else self.fusion.clone(dropout=0.0)
        rngs = None if key is None else {"dropout": key}
        out: Any
        out, new = fusion.apply(
            network, self.tokens(variables, batch, train), train, rngs=rngs, mutable=["batch_stats"]
        )
        return out, dict(new.get("batch_stats", {}))

    def described(self, out: Mapping[str, Array]) -> dict[str, Array]:
        """Features [B, D] by name of what `forward` returns: those of `FEATURES` that there are, and of modalities."""
        by_modality = dict(zip(self.facts.modalities, out["features"], strict=True))
        joint = jnp.concatenate(list(out["features"]), axis=-1)
        mixture = {"mixture": out["mixture"]} if "mixture" in out else {}
        every = jnp.concatenate([joint, *mixture.values()], axis=-1)
        return {"all": every, "global": joint, **mixture, **by_modality}

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Cross-entropy and triplet of the mixture and of the modalities' features, together or one by one."""
        del step
        of_missing, of_dropout = jax.random.split(key)
        out, fusion_stats = self.forward(variables, self.with_missing(batch, of_missing), True, of_dropout)
        described = self.described(out)
        features = {name: described[name] for name in self.widths}
        logits, neck_stats = self.classified(variables, features)
        losses, terms = self.terms_of(features, logits, batch["identity"])
        stats = {"necks": neck_stats, **({"fusion": fusion_stats} if fusion_stats else {})}
        return sum(losses.values(), start=jnp.zeros(())), (terms, stats, memory)

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The features of `FEATURES`, and those of every modality [B, D] by its name, before any neck."""
        out, _ = self.forward(variables, batch)
        return self.described(out)

    def convert_layouts(self) -> dict[str, Any]:
        """``demo_moe``: the authors' checkpoints; of networks without some of the parts there are none."""
        model = self.config.model
        if not (self.backbone.size.clip and model.side_camera and model.global_local and model.fusion == "experts"):
            return {}
        return {"demo_moe": demo_layout.layout(joint=model.joint_head, modalities=self.facts.modalities)}


def build(config: Any, facts: DataFacts) -> DeMo:
    """Builds DeMo from a config such as ``configs/demo_moe_rgbnt201.py``."""
    return DeMo(config, facts)
