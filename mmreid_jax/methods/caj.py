"""CAJ: channel-augmented joint learning for visible-infrared re-identification.

AGW's network. Every visible image enters twice, once as it is and once in the grey of one of its channels, drawn anew
in every step; infrared images have their channels mixed in the same way. A test feature is the mean over an image and
its mirror image.

Reference: Ye, Ruan, Du, Shou. Channel Augmented Joint Learning for Visible-Infrared Recognition, ICCV 2021; the
authors' code, where the switches of the augmentation do nothing and its settings are the constants used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmreid_jax.errors import UserError
from mmreid_jax.losses import distillation, weighted_triplet
from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.methods.agw import AGW, Weighed
from mmreid_jax.methods.base import Array, Batch, DataFacts, Variables
from mmreid_jax.training import channels


class CAJ(AGW):
    """The method object; see `mmreid_jax.methods.base.Method` for the interface, `AGW` for the network."""

    triplets = (*AGW.triplets, "squared_difference")
    one_spectrum = False

    def __init__(self, config: Any, facts: DataFacts) -> None:
        super().__init__(config, facts)
        visible = facts.modalities[0]
        if tuple(config.data.second_views) != (visible,):
            raise UserError(
                f"config.data.second_views is {tuple(config.data.second_views)}; CAJ sees visible images twice, set it"
                f" to ({visible!r},)"
            )

    def training_images(self, batch: Batch, key: Array) -> dict[str, Array]:
        """Visible images as they are, then their second views in one channel each [2B]; infrared ones mixed [B]."""
        visible, infrared = self.facts.modalities
        images, count = batch["images"], len(batch["identity"])
        keys = jax.random.split(key)
        second = channels.exchange(images[f"{visible}_2"], channels.draw_exchange(keys[0], count))
        mixed = channels.adaptive_grey(images[infrared], channels.draw_adaptive_grey(keys[1], count))
        return {"visible": jnp.concatenate([images[visible], second]), "infrared": mixed}

    def triplet_loss(self, features: Array, labels: Array) -> tuple[Array, tuple[Array, Array]]:
        """The enhanced squared difference of the paper, or one of AGW's losses."""
        options = self.config.loss
        if options.triplet != "squared_difference":
            return super().triplet_loss(features, labels)
        return weighted_triplet.squared_difference_triplet(
            features,
            labels,
            alpha=options.alpha,
            gamma=options.gamma,
            square=options.square,
            form=options.triplet_form,
        )

    def weighed(self, logits: Mapping[str, Array], labels: Mapping[str, Array]) -> Weighed:
        """As AGW's; and where it has a weight the divergence of the visible images as they are from the infrared."""
        options = self.config.loss
        terms = super().weighed(logits, labels)
        if options.kl_weight:
            first = logits["visible"][: len(logits["infrared"])]
            divergence = distillation.softened_divergence(first, logits["infrared"], options.temperature)
            terms["kl"] = (options.kl_weight, divergence)
        return terms

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """As AGW's, averaged over every image and its mirror image and of length one again."""
        features = super().embed(variables, batch)
        if not self.config.eval.mirror:
            return features
        mirrored = {name: images[:, :, ::-1] for name, images in batch["images"].items()}
        others = super().embed(variables, {**batch, "images": mirrored})
        return {name: l2_normalise((feature + others[name]) / 2) for name, feature in features.items()}


def build(config: Any, facts: DataFacts) -> CAJ:
    """Builds CAJ from a config such as ``configs/caj_sysu.py``."""
    return CAJ(config, facts)
