"""HTT on CLIP's ViT: features, weights from files, rates of its parts; what test-time training normalises by."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import htt_clip_rgbnt201
from mmreid_jax.commands import convert as command
from mmreid_jax.convert import clip
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.losses import adaptation
from mmreid_jax.methods import base
from mmreid_jax.models.clip import TextTower
from mmreid_jax.models.vit import SIZES, VisionTransformer
from mmreid_jax.testing import tiny

FACTS = base.DataFacts(identities=8, cameras=3, views=2, modalities=tiny.MODALITIES)
SIZE = SIZES["clip_vit_micro"]


def make(**changes):
    config = htt_clip_rgbnt201.get_config()
    config.model.backbone = "clip_vit_micro"
    config.data.image_size = (32, 16)
    for path, value in changes.items():
        node, _, leaf = path.replace("__", ".").rpartition(".")
        config[node][leaf] = value
    return base.build(config, FACTS)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file of a whole small CLIP trained on 32x32 images, and its image tower."""
    key, rng = jax.random.key(1), np.random.default_rng(0)
    images, tokens = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 9), jnp.int32)
    tower = jax.eval_shape(VisionTransformer(SIZE, (32, 32)).init, key, images)["params"]
    texts = TextTower(width=16, depth=1, heads=2, vocabulary=50, length=9, out=SIZE.out)
    texts = jax.eval_shape(texts.init, key, tokens)["params"]
    like = {"params": {"visual": tower, "text": texts, "logit_scale": jax.ShapeDtypeStruct((), np.float32)}}
    whole = jax.tree.map(lambda x: 0.1 * rng.standard_normal(x.shape).astype(x.dtype), like)
    folder = tmp_path_factory.mktemp("clip")
    for name, layout in (("openai", clip.layout()), ("hugging_face", clip.hugging_face_layout())):
        command.write_safetensors(str(folder / f"{name}.safetensors"), layouts.export_state(layout, whole))
    command.convert(str(folder / "hugging_face.safetensors"), "clip", str(folder / "converted"))
    return folder, whole["params"]["visual"]


def test_released_experiment():
    config = htt_clip_rgbnt201.get_config()
    method = base.build(config, FACTS)
    assert method.backbone.grid == (16, 8)
    assert method.width == 512
    config.model.backbone = "clip_vit_b16"
    assert base.build(config, FACTS).width == 768
    assert config.optim.lr * config.optim.base_lr_factor == pytest.approx(5e-6)


@pytest.mark.parametrize("name", ["openai.safetensors", "hugging_face.safetensors", "converted"])
def test_weights_from_files_and_directories(source, name):
    folder, tower = source
    method = make(init__backbone=str(folder / name), model__side_camera=True)
    backbone = jax.tree.map(np.asarray, method.start(method.init(jax.random.key(0)))["params"]["backbone"])
    # Side information is no part of CLIP; the 4x4 positions are resized to 4x2.
    assert backbone.pop("sie_embed").shape == (3, 1, SIZE.width)
    positions = backbone.pop("pos_embed")
    assert positions.shape == (1, 9, SIZE.width)
    np.testing.assert_array_equal(positions[0, 0], tower["pos_embed"][0, 0])
    jax.tree.map(np.testing.assert_array_equal, backbone, {k: v for k, v in tower.items() if k != "pos_embed"})


def test_weights_of_another_family_are_refused(source):
    other = make(init__backbone=str(source[0] / "openai.safetensors"), model__backbone="vit_micro")
    fresh = other.init(jax.random.key(0))
    with pytest.raises(UserError, match="a CLIP network"):
        other.start(fresh)


@pytest.mark.slow(short=True)
def test_a_step_trains_every_part(source):
    method = make(init__backbone=str(source[0] / "openai.safetensors"))
    variables = method.start(method.init(jax.random.key(0)))
    batch = tiny.batch(tiny.config("htt"))

    @jax.jit
    def gradient(params):
        def loss(params):
            own = {"params": params, "batch_stats": variables["batch_stats"]}
            total, _ = method.loss(own, batch, jax.random.key(1), jnp.int32(0), {})
            return total, method.embed(own, batch)

        return jax.grad(loss, has_aux=True)(params)

    slopes, features = gradient(variables["params"])
    assert features["after"].shape == (len(batch["identity"]), 3 * SIZE.out)
    assert features["rgb"].shape == (len(batch["identity"]), SIZE.out)
    slopes = layouts.flatten(jax.tree.map(lambda x: float(jnp.abs(x).max()), slopes))
    assert all(np.isfinite(value) and value > 0 for value in slopes.values()), slopes


def test_backbone_learns_slowly():
    method = make(optim__schedule="constant", optim__warmup_epochs=0, optim__weight_decay=0.0)
    like = jax.eval_shape(method.init, jax.random.key(0))["params"]
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    slopes = jax.tree.map(np.ones_like, params)
    optimizer = method.optimizer(params, np.array([1]))
    update = jax.jit(lambda params: optimizer.update(slopes, optimizer.init(params), params)[0])(params)
    rates = {path: -float(value.max()) for path, value in layouts.flatten(update).items()}
    # Adam's first step is the rate itself.
    assert rates.pop("bottleneck/bias") == 0
    for path, rate in rates.items():
        assert rate == pytest.approx(5e-6 if path.startswith("backbone/") else 3.5e-4, rel=1e-3), path


PAIR = {"train__identities_per_batch": 2, "train__images_per_identity": 1}


def adapted(backbone, statistics, **changes):
    """(method, variables with odd statistics, a pair of samples, loss, new statistics)."""
    options = {"model__backbone": backbone, "model__drop_path": 0.0, "mtt__statistics": statistics}
    config, method = tiny.method("htt", **options, **PAIR, **changes)
    variables = method.init(jax.random.key(0))
    stats = jax.tree.map(lambda x: x + 0.3 * jnp.ones_like(x), variables["batch_stats"])
    # Logits of fresh classifiers are all but equal.
    params = jax.tree.map(lambda x: x, variables["params"])
    params["classifier"]["kernel"] = jax.random.normal(jax.random.key(1), params["classifier"]["kernel"].shape)
    variables = {"params": params, "batch_stats": stats}
    batch = tiny.batch(config)
    loss, (_, new, _) = jax.jit(method.adapt_loss)(variables, batch, jax.random.key(2), 0, {})
    return method, variables, batch, loss, new


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("backbone", ["vit_micro", "resnet_nano"])
def test_kept_statistics_stay_and_are_used(backbone):
    """The loss is that of the features and pseudo labels that retrieval sees."""
    method, variables, batch, loss, new = adapted(backbone, "kept")
    jax.tree.map(np.testing.assert_array_equal, new, variables["batch_stats"])
    embedded = method.embed(variables, batch)
    features = jnp.stack([embedded[name] for name in method.facts.modalities])
    logits = embedded["after"] @ variables["params"]["classifier"]["kernel"]
    expected, _ = adaptation.mtt_loss(features, logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("backbone", ["vit_micro", "resnet_nano"])
def test_statistics_of_the_batch_move_the_running_ones(backbone):
    _, variables, _, _, new = adapted(backbone, "batch")
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), new, variables["batch_stats"])
    assert all(jax.tree.leaves(moved))


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_terms_have_weights(weights):
    changes = {"mtt__mmm_weight": weights[0], "mtt__cim_weight": weights[1]}
    method, variables, batch, loss, _ = adapted("vit_micro", "batch", **changes)
    _, (terms, _, _) = method.adapt_loss(variables, batch, jax.random.key(2), 0, {})
    np.testing.assert_allclose(loss, weights[0] * terms["mmm"] + weights[1] * terms["cim"], rtol=1e-5)
    assert terms["mmm"] > 0
    assert terms["cim"] > 0
