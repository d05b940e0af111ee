"""CLIP's image towers against reference numbers: every case of the suite ``clip`` that holds an image tower alone."""

from __future__ import annotations

import dataclasses

import clip_cases
import jax
import jax.numpy as jnp
import numpy as np
import precisions
import pytest

from mmreid_jax.convert import clip as clip_layout
from mmreid_jax.convert import layout as layouts
from mmreid_jax.models.clip import AttentionPool
from mmreid_jax.models.resnet import ResNet
from mmreid_jax.models.vit import Block, PatchEmbed, VisionTransformer, ViTSize, layer_norm
from mmreid_jax.testing import goldens

ALONE = clip_cases.of_kind(lambda case: clip_cases.parts(case) == {"visual"})
VITS = [path for path in ALONE if "patch" in goldens.load(path).json["config"]]
RESNETS = [path for path in ALONE if "modes" in goldens.load(path).json["config"]]


def test_every_case_is_of_a_known_kind():
    assert len(VITS) + len(RESNETS) == len(ALONE)


# ------------------------------------------------------------------------------------------------------------ ViT


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(VITS, lambda *_: True)))
def test_vit(path, dtype, x64):
    dtype = jnp.dtype(dtype)
    golden = goldens.load(path)
    case, config = golden.json, golden.json["config"]
    widths = {name: config[name] for name in ("width", "heads", "patch")}
    size = ViTSize(depth=config["layers"], clip=True, out=config["output_dim"], **widths)
    tower = VisionTransformer(size, tuple(config["image_size"]), stride=config["stride"])
    images = clip_cases.images(case, len(golden.arrays["cls"]), dtype)
    layout = layouts.nest(clip_layout.vit_layout(tower.grid), "visual.")
    like = jax.eval_shape(tower.init, jax.random.key(0), images)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), like)
    variables, _ = layouts.import_state(layout, clip_cases.entries(case), like)
    cotangent = clip_cases.cotangent(case, golden.arrays["cls"], dtype)

    @jax.jit
    def run(variables):
        def loss(variables):
            feature = tower.apply(variables, images)
            return (feature * cotangent).mean(), feature

        (_, feature), gradient = jax.value_and_grad(loss, has_aux=True)(variables)
        return feature, gradient

    feature, gradient = run(variables)
    kept = next(value.shape[-1] for key, value in golden.arrays.items() if key.startswith("block"))
    outputs = {"cls": feature, **layers_of_vit(tower, variables["params"], images, kept)}
    outputs.update(clip_cases.of_gradients(layouts.export_state(layout, jax.tree.map(np.asarray, gradient))))
    clip_cases.compare(golden, dtype, outputs)
    precisions.forget()


def layers_of_vit(tower, params, images, kept):
    """`kept` channels of each block's output for image 0, and all tokens after the last norm and the projection."""
    size = tower.size
    block = jax.jit(lambda params, x: Block(size).apply({"params": params}, x, None)[0])
    norm = layer_norm(size, None, None)
    x = PatchEmbed(size, tower.stride).apply({"params": params["patch_embed"]}, images)
    first = jnp.broadcast_to(params["cls_token"], (len(x), 1, size.width))
    x = jnp.concatenate([first, x], axis=1) + params["pos_embed"]
    x = norm.apply({"params": params["norm_pre"]}, x)
    outputs = {}
    for number in range(size.depth):
        x = block(jax.tree.map(lambda leaf, i=number: leaf[i], params["blocks"]), x)
        outputs[f"block{number}_image0"] = x[0, :, :kept]
    tokens = norm.apply({"params": params["norm"]}, x) @ params["proj"]
    return {**outputs, "tokens": clip_cases.cut(tokens, 8192), "tokens_shape": np.array(tokens.shape)}


# --------------------------------------------------------------------------------------------------------- ResNet

# Of its own, TVI-LFM gives CLIP's ResNet a second stem for infrared images, whose names end in an underscore.
STREAMS = {"visible": "rgb", "infrared": "ir"}


def two_stems():
    """The name map of such a network: stems ``visible/`` and ``infrared/``, stages ``shared/``, and ``attnpool/``."""
    tower = clip_layout.resnet_layout()
    network = [rule for rule in tower.rules if "/resnet/" in rule.target]
    stem = [rule for rule in network if not rule.source.startswith("layer")]
    pooling = [rule for rule in tower.rules if rule not in network]
    second = [dataclasses.replace(rule, source=rule.source.replace(".", "_.", 1)) for rule in stem]
    own = {"visible": stem, "infrared": second, "shared": [rule for rule in network if rule not in stem]}
    parts = [
        dataclasses.replace(rule, target=rule.target.replace("/resnet/", f"/{name}/"))
        for name, rules in own.items()
        for rule in rules
    ]
    return layouts.nest(layouts.Layout("two_stems", (*parts, *pooling)), "visual.")


class TwoStems:
    """CLIP's ResNet with a stem for each modality, put together of the library's parts."""

    def __init__(self, config):
        form = {"stem": "clip", "last_stride": 2}
        stem, shared = ResNet(last=0, **form), ResNet(first=1, **form)
        self.parts = {"visible": stem, "infrared": stem, "shared": shared}
        self.pool = AttentionPool(config["attnpool_heads"], config["output_dim"])

    def init(self, images):
        key, variables = jax.random.key(0), {"params": {}, "batch_stats": {}}
        maps = images
        for name, part in self.parts.items():
            fresh = part.init(key, maps if name == "shared" else images, False)
            maps = maps if name == "shared" else part.apply(fresh, images, False)
            for collection, tree in fresh.items():
                variables[collection][name] = tree
        maps = self.parts["shared"].apply(fresh, maps, False)
        variables["params"]["attnpool"] = self.pool.init(key, maps)["params"]
        return variables

    def __call__(self, variables, images, train):
        """{stream: images} -> maps, features, new statistics; the streams one after the other."""
        stats = dict(variables["batch_stats"])

        def run(name, x):
            network = {collection: variables[collection][name] for collection in ("params", "batch_stats")}
            if not train:
                return self.parts[name].apply(network, x, False)
            x, new = self.parts[name].apply(network, x, True, mutable=["batch_stats"])
            stats[name] = new["batch_stats"]
            return x

        maps = run("shared", jnp.concatenate([run(name, images[name]) for name in STREAMS if name in images]))
        return maps, self.pool.apply({"params": variables["params"]["attnpool"]}, maps), stats


def streams(mode, images):
    """The images of each modality in a mode of the reference: rgb, ir, or 1/k, the first part of which is rgb."""
    if mode in STREAMS.values():
        return {next(name for name, short in STREAMS.items() if short == mode): images}
    parts = int(mode.removeprefix("1/"))
    count = (parts - 1) * len(images) // parts
    return {"visible": images[:count], "infrared": images[count:]}


@pytest.mark.parametrize(("path", "dtype"), list(precisions.runs(RESNETS, lambda *_: True)))
def test_resnet(path, dtype, x64):
    dtype = jnp.dtype(dtype)
    golden = goldens.load(path)
    case, config = golden.json, golden.json["config"]
    network, layout = TwoStems(config), two_stems()
    count = next(len(value) for key, value in golden.arrays.items() if key.endswith("/attnpool"))
    images = clip_cases.images(case, count, dtype)
    like = jax.eval_shape(network.init, images)
    cast = lambda x: x if x.dtype == jnp.int32 else jax.ShapeDtypeStruct(x.shape, dtype)  # noqa: E731
    variables, _ = layouts.import_state(layout, clip_cases.entries(case), jax.tree.map(cast, like))
    outputs = {}
    for mode in config["modes"]:
        maps, features, _ = jax.jit(lambda v, x: network(v, x, False))(variables, streams(mode, images))
        name = f"eval/{mode.replace('/', '_')}"
        outputs.update({f"{name}/{key}": value for key, value in described(maps).items()})
        outputs[f"{name}/attnpool"] = features
    if any(key.startswith("train/") for key in golden.arrays):
        outputs.update(training(golden, network, layout, variables, streams(config["modes"][-1], images), dtype))
    clip_cases.compare(golden, dtype, outputs)
    precisions.forget()


def described(maps):
    maps = np.moveaxis(np.asarray(maps), -1, 1)
    return {"featmap": clip_cases.cut(maps, 4096), "featmap_shape": np.array(maps.shape)}


def training(golden, network, layout, variables, images, dtype):
    """One pass in training mode: outputs, gradients by PyTorch name, statistics after it."""
    cotangent = clip_cases.cotangent(golden.json, golden.arrays["train/attnpool"], dtype)

    @jax.jit
    def run(params, stats):
        def loss(params):
            maps, features, new = network({"params": params, "batch_stats": stats}, images, True)
            return (features * cotangent).mean(), (maps, features, new)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (maps, features, stats)), gradient = run(variables["params"], variables["batch_stats"])
    outputs = {"train/featmap": described(maps)["featmap"], "train/attnpool": features}

    def named(params, stats):
        return layouts.export_state(layout, jax.tree.map(np.asarray, {"params": params, "batch_stats": stats}))

    outputs.update(clip_cases.of_gradients(named(gradient, stats)))
    after = named(variables["params"], stats)
    return {**outputs, **{f"after/{name}": clip_cases.cut(value, 512) for name, value in after.items()}}
