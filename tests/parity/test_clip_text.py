"""CLIP's text towers against reference numbers: every case of the suite ``clip`` that holds a text tower alone."""

from __future__ import annotations

import clip_cases
import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from mmreid_jax.convert import clip as clip_layout
from mmreid_jax.convert import layout as layouts
from mmreid_jax.models.clip import TextTower
from mmreid_jax.models.vit import Block, layer_norm
from mmreid_jax.testing import goldens

CASES = clip_cases.of_kind(
    lambda case: "token_embedding" in (parts := clip_cases.parts(case)) and "visual" not in parts
)


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(CASES, lambda *_: True)))
def test_text_tower(path, dtype, x64):
    dtype = jnp.dtype(dtype)
    golden = goldens.load(path)
    case, config = golden.json, golden.json["config"]
    tower = TextTower(
        width=config["width"],
        depth=config["layers"],
        heads=config["heads"],
        vocabulary=config["vocab_size"],
        length=config["context_length"],
        out=config["embed_dim"],
    )
    tokens = jnp.asarray(golden.arrays["tokens"])
    layout = clip_layout.text_layout()
    like = jax.eval_shape(tower.init, jax.random.key(0), tokens)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), like)
    variables, _ = layouts.import_state(layout, clip_cases.entries(case), like)
    cotangent = clip_cases.cotangent(case, golden.arrays["eot_feature"], dtype)

    @jax.jit
    def run(variables):
        def loss(variables):
            feature = tower.apply(variables, tokens)
            return (feature * cotangent).mean(), feature

        (_, feature), gradient = jax.value_and_grad(loss, has_aux=True)(variables)
        return feature, gradient

    feature, gradient = run(variables)
    kept = golden.arrays["sequence_text0"].shape[-1]
    outputs = {"eot_feature": feature, **layers_of_first_text(tower, variables["params"], tokens, kept)}
    gradient = layouts.export_state(layout, jax.tree.map(np.asarray, gradient))
    outputs.update(clip_cases.of_gradients(gradient))
    rows = gradient["token_embedding.weight"]
    outputs["grad/token_embedding.weight[sot]"] = rows[golden.arrays["tokens"][0, 0]]
    outputs["grad/token_embedding.weight[text0_token1]"] = rows[golden.arrays["tokens"][0, 1]]
    clip_cases.compare(golden, dtype, outputs)
    precisions.forget()


def layers_of_first_text(tower, params, tokens, kept):
    """`kept` channels of each block's output for text 0, and of the sequence after the last norm and the projection."""
    block = jax.jit(lambda params, x: Block(tower.size, causal=True).apply({"params": params}, x, None)[0])
    x = params["token_embed"][tokens[:1]] + params["pos_embed"]
    outputs = {}
    for number in range(tower.depth):
        x = block(jax.tree.map(lambda leaf, i=number: leaf[i], params["blocks"]), x)
        outputs[f"block{number}_text0"] = x[0, :, :kept]
    normed = layer_norm(tower.size, None, None).apply({"params": params["norm"]}, x)
    outputs["ln_final_text0"] = normed[0, :, :kept]
    outputs["sequence_text0"] = (normed @ params["proj"])[0, :, :kept]
    return outputs
