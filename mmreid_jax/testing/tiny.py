"""Tiny variants of every method, and batches of noise to run them on: what the generic tests need of a method."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from mmreid_jax.methods.base import DataFacts, Method, build

# One line per method: the config that trains it and what to change to make it tiny; "modalities" of its data where they
# are not all three.
TINY: dict[str, dict[str, Any]] = {
    "htt": {"config": "htt_rgbnt201", "model.backbone": "vit_micro", "data.image_size": (32, 16)},
    "ieee": {
        "config": "ieee_rgbnt201",
        "model.backbone": "resnet_nano",
        "model.part_dim": 32,
        "model.embed_dim": 8,
        "data.image_size": (32, 16),
    },
    "agw": {
        "config": "agw_sysu",
        "modalities": ("rgb", "nir"),
        "model.backbone": "resnet_nano2",
        "model.non_local": ((1, 0),),
        "data.image_size": (32, 16),
    },
    "caj": {
        "config": "caj_sysu",
        "modalities": ("rgb", "nir"),
        "model.backbone": "resnet_nano2",
        "model.non_local": ((1, 0),),
        "loss.kl_weight": 0.1,
        "data.image_size": (32, 16),
    },
    "ddag": {
        "config": "ddag_sysu",
        "modalities": ("rgb", "nir"),
        "model.backbone": "resnet_nano",
        "model.graph_dim": 8,
        # Known in every step; the dynamic weight is 0 in the first epoch.
        "loss.graph_weight": 0.5,
        "data.image_size": (32, 16),
    },
    "deen": {
        "config": "deen_sysu",
        "modalities": ("rgb", "nir"),
        "model.backbone": "resnet_micro",
        "model.expanded": 2,
        "data.image_size": (32, 16),
    },
    "demo_moe": {
        "config": "demo_moe_rgbnt201",
        "model.backbone": "clip_vit_micro",
        "model.heads": 2,
        "data.image_size": (32, 16),
    },
    "mdreid": {"config": "mdreid_rgbnt201", "model.backbone": "clip_vit_micro", "data.image_size": (32, 16)},
    "mmgl": {
        "config": "mmgl_sysu",
        "modalities": ("rgb", "nir"),
        "model.backbone": "resnet_nano2",
        "model.stripes": 4,
        "model.proj_dim": 8,
        "data.image_size": (32, 16),
    },
    "tvi_lfm": {
        "config": "tvi_sysu",
        "modalities": ("rgb", "nir"),
        "init.from_base": "",
        "model.backbone": "resnet_nano",
        "model.text_tower": "text_micro",
        "data.image_size": (32, 16),
    },
    "hetero_center": {
        "config": "hc_sysu",
        "modalities": ("rgb", "nir"),
        "model.backbone": "resnet_nano",
        "model.embed_dim": 8,
        "data.image_size": (32, 16),
    },
}

IDENTITIES, PER_IDENTITY, MODALITIES = 4, 4, ("rgb", "nir", "tir")
# Of CLIP's tokenizer: marks of both ends, and the length of all sequences.
START, END, LENGTH = 49406, 49407, 77


def config(method: str, **overrides: Any) -> Any:
    """The tiny config of a method; `overrides` are paths with ``__`` for the dot (``model__dtype="bfloat16"``)."""
    options = dict(TINY[method])
    options.pop("modalities", None)
    module = importlib.import_module(f"configs.{options.pop('config')}")
    tiny = module.get_config()
    options.update({name.replace("__", "."): value for name, value in overrides.items()})
    options.setdefault("train.identities_per_batch", IDENTITIES)
    options.setdefault("train.images_per_identity", PER_IDENTITY)
    with tiny.unlocked():
        for path, value in options.items():
            node = tiny
            *parents, leaf = path.split(".")
            for parent in parents:
                node = node[parent]
            if leaf not in node:
                raise KeyError(f"no config key {path}")
            node[leaf] = value
    return tiny


def facts(method: str = "htt", identities: int = 8) -> DataFacts:
    """Facts of a made-up data set for a method."""
    modalities = TINY[method].get("modalities", MODALITIES)
    return DataFacts(identities=identities, cameras=3, views=2, modalities=modalities)


def method(name: str, **overrides: Any) -> tuple[Any, Method]:
    """(config, tiny method)."""
    chosen = config(name, **overrides)
    return chosen, build(chosen, facts(name))


def batch(config: Any, seed: int = 0, dtype: Any = np.float32) -> dict[str, Any]:
    """A P x K batch of noise images in which identities differ: {images, identity, camera, scene}.

    Where the config asks for text there are captions, too: {modality: int32 [P * K, LENGTH]} of made-up tokens.
    """
    rng = np.random.default_rng(seed)
    made_up = facts(config.method)
    names = (*made_up.modalities, *(f"{name}_2" for name in config.data.second_views))
    height, width = config.data.image_size
    people, count = config.train.identities_per_batch, config.train.images_per_identity
    labels = np.repeat(rng.permutation(made_up.identities)[:people], count)
    look = rng.normal(size=(people, len(names), height, width, 3))
    noise = rng.normal(size=(people * count, len(names), height, width, 3))
    pixels = (np.repeat(look, count, axis=0) + 0.5 * noise).astype(dtype)
    made = {
        "images": {name: pixels[:, index] for index, name in enumerate(names)},
        "identity": labels.astype(np.int32),
        "camera": rng.integers(0, made_up.cameras, people * count).astype(np.int32),
        "scene": rng.integers(0, made_up.views, people * count).astype(np.int32),
    }
    if config.data.text:
        made["tokens"] = {name: captions(rng, labels) for name in made_up.modalities}
    return made


def captions(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Tokens int32 [B, LENGTH] of captions of different lengths, each with a word for its identity."""
    tokens = np.zeros((len(labels), LENGTH), np.int32)
    for row, label in zip(tokens, labels, strict=True):
        words = rng.integers(1000, 2000, rng.integers(3, 9))
        row[: len(words) + 3] = (START, 500 + label, *words, END)
    return tokens
