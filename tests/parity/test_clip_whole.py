"""OpenAI's whole networks against reference numbers: every case of the suite ``clip`` with images and texts."""

from __future__ import annotations

import clip_cases
import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from mmreid_jax.convert import clip as clip_layout
from mmreid_jax.convert import layout as layouts
from mmreid_jax.data import tokenizer
from mmreid_jax.models.clip import TEXT_TOWERS, ResNetTower, TextTower, similarity
from mmreid_jax.models.vit import SIZES, VisionTransformer
from mmreid_jax.testing import goldens

CASES = clip_cases.of_kind(
    lambda case: "logit_scale" in clip_cases.parts(case) and "captions" in case.get("inputs", ())
)


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, lambda *_: True)))
def test_whole_network(path, dtype, x64):
    dtype = jnp.dtype(dtype)
    golden = goldens.load(path)
    case, config = golden.json, golden.json["config"]
    tokens = tokenizer.tokenize(case["inputs"]["captions"])
    np.testing.assert_array_equal(tokens, golden.arrays["tokens"])
    images = clip_cases.images(case, len(golden.arrays["image_features"]), dtype)
    is_vit = "visual.class_embedding" in dict(case["state_dict"])
    texts = TextTower(**TEXT_TOWERS["clip_vit_b16" if is_vit else "clip_rn50"])
    if is_vit:
        tower = VisionTransformer(SIZES["clip_vit_b16_projected"], tuple(config["image_size"]))
    else:
        tower = ResNetTower(out=config["embed_dim"])
    arguments = () if is_vit else (False,)
    variables, _ = layouts.import_state(clip_layout.layout(), clip_cases.entries(case), floating=dtype)

    @jax.jit
    def run(variables, images):
        own = {name: tree["visual"] for name, tree in variables.items() if "visual" in tree}
        seen = tower.apply(own, images, *arguments)
        read = texts.apply({"params": variables["params"]["text"]}, tokens)
        return seen, read, similarity(seen, read, variables["params"]["logit_scale"])

    seen, read, logits = run(variables, images)
    outputs = {"image_features": seen, "text_features": read, "logits_per_image": logits}
    clip_cases.compare(golden, dtype, outputs)
    precisions.forget()
