"""TVI-LFM: both stages, what is fixed in which mode, fusions, features, the hand-over between stages, and refusals."""

from __future__ import annotations

import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import demo_tvi_lfm, tvi_base_llcm, tvi_base_regdb, tvi_base_sysu, tvi_llcm, tvi_regdb, tvi_sysu
from mmreid_jax.commands.convert import write_safetensors
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.losses import identity, weighted_triplet
from mmreid_jax.methods import tvi_lfm
from mmreid_jax.testing import tiny
from mmreid_jax.training import optimizers
from mmreid_jax.training import state as states
from mmreid_jax.training import step as steps

BASE = {"model__stage": "base", "eval__feature": "fc", "data__text": False}
ENDS = np.array([4, 8])
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "tvi_lfm.md"
# Of the released program (``config/config_rn.py``).
OPTIONS = """
    CAT_EVAL CUDA_VISIBLE_DEVICES DEBUG DEBUG_DIR DataParallel Feat_Filter Fix_Visual LOG4TEST Return_B4_BN al
    alpha auto_resume_training_from_lastest_step batch-size beta captioner_name checkpoint_epoch
    classifier_lr_factor cmm_loss_weight cmt_depth config_select cuda dataset eval_epoch eval_num_regdb
    eval_start_epoch focal_three_fusion_loss focal_three_fusion_loss2 focal_three_fusion_loss3
    focal_three_fusion_loss4 focal_three_fusion_loss5 focal_three_fusion_loss6 focalthree_four_fusion_loss
    focalthree_fusion_loss four_fusion_loss fusion_way ga gall_mode gamma gpu_id id_loss_weight img_h img_size
    img_w joint_mode klp label_mix learnable_loss_weight llcm_data_path llm_aug llm_aug_prob loss_names
    lr_factor lr_txt lr_visual lrscheduler max_save_model_num milestones mode momentum num_pos num_workers
    only_fusion_loss only_sketch only_text optimizer output_path pa pid_num pooling power pretrain_choice
    pretrain_path prj_output_dim regdb_data_path regdb_test_mode resume_test_model resume_train_epoch seed
    stride_size sysu_data_path target_lr temperature test_modality test_mode test_model_path test_model_type
    text_bias_lr_factor text_length text_weight_decay text_weight_decay_bias total_train_epoch training_mode
    training_weight_init trial uni_BN visual_bias_lr_factor visual_weight_decay visual_weight_decay_bias
    vocab_size warmup_epochs warmup_factor warmup_method wrt_loss_weight
"""


@functools.cache
def fresh(**options):
    """(config, method, variables) of a tiny network."""
    config, method = tiny.method("tvi_lfm", **options)
    return config, method, jax.tree.map(np.asarray, jax.jit(method.init)(jax.random.key(0)))


def one_step(**options):
    """Variables before and after a step; the rate is that of the config's first full epoch."""
    config, method, variables = fresh(**options, optim__schedule="constant")
    optimizer = method.optimizer(variables["params"], ENDS)
    step = jax.jit(steps.train_step(method.loss, optimizer, seed=0))
    state, _ = step(states.create(jax.tree.map(jnp.asarray, variables), optimizer), tiny.batch(config))
    return variables, jax.tree.map(np.asarray, state.variables)


def moved(before, after):
    """{top-level part of the parameters: whether every one, some or none of its arrays changed}, and statistics."""
    found = {}
    for collection, parts in before.items():
        for part in parts:
            pairs = zip(jax.tree.leaves(parts[part]), jax.tree.leaves(after[collection][part]), strict=True)
            changes = [not np.array_equal(a, b) for a, b in pairs]
            found[f"{collection}/{part}"] = "all" if all(changes) else "some" if any(changes) else "none"
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "still"),
    [
        ({}, {"params/backbone", "params/pool", "params/backup", "batch_stats/backup"}),
        ({"model__fusion": "add"}, {"params/backbone", "params/backup", "batch_stats/backup"}),
        (
            {"model__fusion": "add", "model__freeze_visual": "all"},
            {"params/backbone", "params/pool", "params/backup", "batch_stats/backup", "batch_stats/backbone"},
        ),
        ({"model__freeze_visual": "none"}, set()),
    ],
    ids=["released", "without a filter the pooling learns", "truly frozen", "nothing is fixed"],
)
def test_what_a_step_of_the_text_stage_moves(options, still):
    """Weight decay included: what is fixed keeps every bit; running statistics drift unless they are frozen, too."""
    found = moved(*one_step(**options))
    assert {part for part, how in found.items() if how == "none"} == still
    assert {how for part, how in found.items() if part not in still} == {"all"}


def test_fusions_by_hand(x64):
    rng = np.random.default_rng(0)
    image, visible, infrared = (rng.normal(size=(3, 4)) for _ in range(3))
    texts = {"rgb": jnp.asarray(visible), "nir": jnp.asarray(infrared)}
    length, unit = np.linalg.norm(image, axis=1, keepdims=True), np.linalg.norm(visible, axis=1, keepdims=True)
    written = (visible / unit + image / (image / length)) / 2 * (image / length)
    for form, expected in (
        ("filter", image + visible - infrared),
        ("add", image + visible),
        ("norm_add", written),
        ("parameter_add", 0.25 * image + 0.75 * visible),
    ):
        _, method = tiny.method("tvi_lfm", model__fusion=form, model__fusion_share=0.25)
        np.testing.assert_allclose(method.fuse(jnp.asarray(image), texts), expected, rtol=1e-12)


@pytest.mark.parametrize("joint", [True, False])
def test_the_loss_sees_the_rows_and_labels_of_the_paper(joint, x64):
    """Joint: two views of visible images, infrared ones, fusions and texts; else visible ones and fusions."""
    _, method = tiny.method("tvi_lfm", loss__joint=joint, loss__triplet_weight=0.5)
    rng = np.random.default_rng(0)
    labels = np.array([3, 3, 1, 1])
    sizes = {"visible": 8, "infrared": 4, "fusion": 4, "text": 4}
    kinds = tuple(sizes) if joint else ("visible", "fusion")
    features = {kind: jnp.asarray(rng.normal(size=(sizes[kind], 5))) for kind in kinds}
    logits = {kind: jnp.asarray(rng.normal(size=(sizes[kind], 8))) for kind in kinds}
    total, terms = method.objective(features, logits, jnp.asarray(labels))
    rows, scores = (np.concatenate([x[kind] for kind in kinds]) for x in (features, logits))
    every = np.tile(labels, len(rows) // 4)
    triplet, _ = weighted_triplet.weighted_triplet(rows, every)
    expected = float(identity.cross_entropy(scores, every)) + 0.5 * float(triplet)
    assert float(total) == pytest.approx(expected, rel=1e-12)
    assert terms["accuracy_fusion"] == np.mean(np.asarray(logits["fusion"]).argmax(1) == labels)


VISIBLE_TEXT = {"model__stage": "visible_text", "eval__feature": "text"}


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("freeze", ["none", "code", "all"])
def test_visible_images_and_captions_by_a_plain_loop(freeze, x64):
    """Every number of the loss by hand: features in double precision from the networks' parts, terms by loops."""
    config, method, variables = fresh(**VISIBLE_TEXT, model__freeze_visual=freeze)
    variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), variables)
    batch, key, step = tiny.batch(config), jax.random.key(3), jnp.zeros((), jnp.int32)
    total, (terms, stats, _) = method.loss(variables, batch, key, step, {})
    params, moving = variables["params"], freeze != "all"
    images = method.training_images(batch, key)
    maps, of_trunk = method.trunk(params["backbone"], variables["batch_stats"]["backbone"], images, moving)
    count = len(batch["identity"])
    # Infrared rows are among those whose statistics normalise, and nowhere else.
    seen = np.asarray(method.pooled(params, maps))[: 2 * count]
    rows = np.concatenate([seen, np.asarray(method.read(params, {"rgb": batch["tokens"]["rgb"]})["rgb"])])
    labels = np.tile(np.asarray(batch["identity"]), 3)
    mean, variance = rows.mean(0), rows.var(0)
    weights = params["bottleneck"]["scale"], params["bottleneck"]["bias"]
    normed = (rows - mean) / np.sqrt(variance + 1e-5) * np.asarray(weights[0]) + np.asarray(weights[1])
    logits = normed @ np.asarray(params["classifier"]["kernel"])
    entropy = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, labels, strict=True)])
    assert float(terms["ce"]) == pytest.approx(entropy, rel=1e-6)
    losses = []
    for i, row in enumerate(rows):
        distances = [np.sqrt(max(np.sum((row - other) ** 2), 1e-12)) for other in rows]
        same = [d if label == labels[i] else 0.0 for d, label in zip(distances, labels, strict=True)]
        pull = np.array([np.exp(d - max(same)) * (label == labels[i]) for d, label in zip(same, labels, strict=True)])
        push = np.array([np.exp(-d) * (label != labels[i]) for d, label in zip(distances, labels, strict=True)])
        near, far = (np.dot(distances, w / (w.sum() + 1e-6)) for w in (pull, push))
        losses.append(np.log1p(np.exp(near - far)))
    assert float(terms["triplet"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(total) == pytest.approx(float(terms["ce"]) + float(terms["triplet"]), rel=1e-9)
    jax.tree.map(np.testing.assert_array_equal, stats["backbone"], of_trunk)
    assert set(terms) == {"ce", "triplet", "ranked", "accuracy_visible", "accuracy_text"}


@pytest.mark.slow(short=True)
def test_infrared_captions_are_not_read_in_training_of_visible_ones():
    config, method, variables = fresh(**VISIBLE_TEXT)
    variables = jax.tree.map(jnp.asarray, variables)
    batch, key, step = tiny.batch(config), jax.random.key(3), jnp.zeros((), jnp.int32)
    alone = {**batch, "tokens": {"rgb": batch["tokens"]["rgb"]}}
    both = (method.loss(variables, each, key, step, {})[0] for each in (batch, alone))
    assert len({float(total) for total in both}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("freeze", "still"),
    [
        ("none", set()),
        ("code", {"params/backbone", "params/pool", "params/backup", "batch_stats/backup"}),
        ("all", {"params/backbone", "params/pool", "params/backup", "batch_stats/backup", "batch_stats/backbone"}),
    ],
)
@pytest.mark.parametrize("fusion", ["filter", "add"])
def test_what_a_step_on_visible_images_and_captions_moves(fusion, freeze, still):
    """Without a fixed network infrared stems, too: the statistics of the shared layers depend on them."""
    found = moved(*one_step(**VISIBLE_TEXT, model__freeze_visual=freeze, model__fusion=fusion))
    assert {part for part, how in found.items() if how == "none"} == still
    assert {how for part, how in found.items() if part not in still} == {"all"}


def test_what_visible_images_and_captions_have_no_use_for():
    for changes, line in (
        ({"loss__t2i_regular_weight": 1.0}, r"loss\.t2i_regular_weight is for config\.model\.stage=text"),
        ({"model__separate_norms": True}, r"separate_norms is for config\.model\.stage=text"),
        ({"data__text": False}, r"model\.stage is 'visible_text', but config\.data\.text is False"),
    ):
        with pytest.raises(UserError, match=line):
            tiny.method("tvi_lfm", **VISIBLE_TEXT, **changes)


@pytest.mark.slow(short=True)
def test_a_trained_visible_text_network_searches_by_all_features():
    config, method, variables = fresh(**VISIBLE_TEXT, model__freeze_visual="none")
    assert method.comparisons()[0].name == "text nir to rgb"
    found = jax.jit(method.embed)(variables, tiny.batch(config))
    assert set(found) == {"joint_rgb", "ir_nir", "text_nir", "fusion_nir", "mer_nir"}


def test_second_views_change_channels_and_infrared_ones_are_mixed():
    config, method = tiny.method("tvi_lfm", train__identities_per_batch=8, train__images_per_identity=16)
    batch = tiny.batch(config)
    seen = method.training_images(batch, jax.random.key(1))
    count = len(batch["identity"])
    np.testing.assert_array_equal(seen["visible"][:count], batch["images"]["rgb"])
    grey = lambda images: np.mean(np.ptp(np.asarray(images), axis=-1).max((1, 2)) < 1e-6)  # noqa: E731
    assert grey(seen["visible"][count:]) == pytest.approx(0.5, abs=0.15)
    # Three quarters are copies of a channel, six tenths of the rest the grey mix.
    assert grey(seen["infrared"]) == pytest.approx(0.9, abs=0.1)


def test_features_of_what_a_batch_holds():
    config, method, variables = fresh()
    batch, embed = tiny.batch(config), jax.jit(method.embed)
    images, tokens = batch["images"], batch["tokens"]
    assert set(embed(variables, {"images": {"rgb": images["rgb"]}})) == {"joint_rgb", "backup_rgb"}
    assert set(embed(variables, {"images": {"nir": images["nir"]}})) == {"ir_nir"}
    found = embed(variables, {"images": {"nir": images["nir"]}, "tokens": tokens})
    assert set(found) == {"ir_nir", "text_nir", "fusion_nir", "mer_nir"}
    for name, value in found.items():
        if name != "mer_nir":
            np.testing.assert_allclose(np.linalg.norm(value, axis=1), 1.0, rtol=1e-5)
    # The heads of a fresh network and of its copy are one.
    total = found["ir_nir"] + found["text_nir"] + found["fusion_nir"]
    np.testing.assert_allclose(found["mer_nir"], total, atol=1e-6)


@pytest.mark.slow
def test_base_stage_learns_on_images_alone():
    config, method, variables = fresh(**BASE)
    assert not {"text", "backup"} & variables["params"].keys()
    batch = tiny.batch(config)
    assert "tokens" not in batch
    _, after = one_step(**BASE)
    assert set(moved(variables, after).values()) == {"all"}
    found = jax.jit(method.embed)(variables, batch)
    assert set(found) == {"fc_rgb", "fc_nir", "pool_rgb", "pool_nir"}


@pytest.mark.slow(short=True)
def test_rates_of_the_tower(x64):
    """By default embeddings go with the visual rate, as released; on request with the tower's."""
    for whole, rate in ((False, 1.0), (True, 0.1)):
        changes = {"groups__whole_tower": whole, "groups__text_lr": 3.5e-5, "groups__text_weight_decay": 0.25}
        _, method, variables = fresh(**changes)
        groups = optimizers.assign(method.groups(), variables["params"])
        text = groups["text"]
        assert text["blocks"]["mlp"]["fc1"]["kernel"].lr_factor == pytest.approx(0.1)
        assert text["blocks"]["mlp"]["fc1"]["kernel"].weight_decay == 0.25
        assert text["blocks"]["mlp"]["fc1"]["bias"].lr_factor == pytest.approx(0.2)
        assert text["token_embed"].lr_factor == pytest.approx(rate)
        assert groups["classifier"]["kernel"].lr_factor == 2.0
        assert groups["backbone"]["shared"]["layer1_0"]["conv1"]["kernel"].frozen


def base_file(tmp_path, change=None):
    """An authors' file of a base model with its text tower, and its entries."""
    _, method, variables = fresh(model__freeze_visual="none")
    rng = np.random.default_rng(3)
    drawn = jax.tree.map(lambda x: (x + rng.uniform(size=x.shape)).astype(x.dtype), variables)
    entries = layouts.export_state(method.convert_layouts()["tvi_lfm"], drawn)
    for name, value in (change or {}).items():
        entries[name] = value
    path = tmp_path / "base.safetensors"
    write_safetensors(str(path), entries)
    return str(path), drawn


@pytest.mark.slow
def test_text_stage_starts_from_a_base_model_with_its_tower(tmp_path, capsys):
    path, drawn = base_file(tmp_path)
    _, method = tiny.method("tvi_lfm", init__from_base=path)
    variables = method.start(method.init(jax.random.key(1)))
    assert "its text tower among them" in capsys.readouterr().out
    for collection in variables:
        for part, tree in drawn[collection].items():
            jax.tree.map(np.testing.assert_array_equal, variables[collection][part], tree)
            if part in tvi_lfm.HEAD:
                jax.tree.map(np.testing.assert_array_equal, variables[collection]["backup"][part], tree)
    # A CLIP file takes the tower's place; here the same names below no prefix.
    tower = layouts.export_state(tvi_lfm.clip_layout.text_layout(), {"params": fresh()[2]["params"]["text"]})
    write_safetensors(str(tmp_path / "clip.safetensors"), tower)
    clip = str(tmp_path / "clip.safetensors")
    _, method = tiny.method("tvi_lfm", init__from_base=path, init__clip=clip)
    variables = method.start(method.init(jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, variables["params"]["text"], fresh()[2]["params"]["text"])
    np.testing.assert_array_equal(variables["params"]["pool"]["power"], drawn["params"]["pool"]["power"])


def started(**changes):
    """The variables that training begins with."""
    _, method = tiny.method("tvi_lfm", **changes)
    return method.start(method.init(jax.random.key(0)))


@pytest.mark.slow(short=True)
def test_what_is_no_fitting_base_model_is_refused(tmp_path):
    _, method, variables = fresh()
    entries = layouts.export_state(method.convert_layouts()["tvi_lfm"], variables)
    trained = str(tmp_path / "trained.safetensors")
    write_safetensors(trained, entries)
    with pytest.raises(UserError, match="a model of the text stage"):
        started(init__from_base=trained)
    path, _ = base_file(tmp_path, {"classifier.classifier.weight": np.zeros((5, 32), np.float32)})
    with pytest.raises(UserError, match="classifier of the base model"):
        started(init__from_base=path)
    with pytest.raises(UserError, match="missing"):
        started(init__from_base=str(tmp_path / "missing"))


@pytest.mark.slow(short=True)
def test_a_trained_file_without_copies_takes_them_from_the_base_model(tmp_path):
    path, drawn = base_file(tmp_path)
    _, method, variables = fresh()
    entries = layouts.export_state(method.convert_layouts()["tvi_lfm"], variables)
    whole, published = str(tmp_path / "whole.safetensors"), str(tmp_path / "published.safetensors")
    write_safetensors(whole, entries)
    write_safetensors(published, {name: x for name, x in entries.items() if not name.startswith("backup_")})
    jax.tree.map(np.testing.assert_array_equal, method.load(whole, "best")[0], variables)
    with pytest.raises(UserError, match="no copies of the base model's head"):
        method.load(published, "best")
    _, given = tiny.method("tvi_lfm", init__from_base=path)
    found, _ = given.load(published, "best")
    for collection, tree in variables.items():
        for part, own in tree.items():
            expected = {p: drawn[collection][p] for p in own} if part == "backup" else own
            jax.tree.map(np.testing.assert_array_equal, found[collection][part], expected)
    # The base stage reads the file of a base model, whose text tower it leaves.
    base, _ = fresh(**BASE)[1].load(path, "best")
    jax.tree.map(np.testing.assert_array_equal, base["params"]["backbone"], drawn["params"]["backbone"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model__stage": "both"}, "config.model.stage is 'both'"),
        ({"model__fusion": "concat"}, "config.model.fusion is 'concat'"),
        ({"model__freeze_visual": "yes"}, "config.model.freeze_visual is 'yes'"),
        ({"data__text": False}, "config.data.text is False"),
        ({"data__second_views": ()}, "second_views"),
        ({"eval__feature": "fc"}, "config.eval.feature is 'fc'"),
        ({"loss__joint": False, "model__separate_norms": True}, "separate_norms"),
        ({"loss__joint": False, "loss__orthogonality_weight": 1.0}, "orthogonality_weight needs config.loss.joint"),
        ({"model__fusion": "add", "loss__orthogonality_weight": 1.0}, "needs config.model.fusion=filter"),
        ({"init__from_base": "a", "init__backbone": "b"}, "both set"),
        ({**BASE, "init__from_base": "a"}, "config.init.from_base is for the text stage"),
        ({**BASE, "model__separate_norms": True}, "separate_norms"),
    ],
)
def test_what_does_not_go_together_is_named(options, message):
    with pytest.raises(UserError, match=message):
        tiny.method("tvi_lfm", **options)


@pytest.mark.slow
def test_optional_terms_are_added_with_their_weights(x64):
    weights = {f"loss__{key}": 0.1 * (1 + place) for place, key in enumerate(tvi_lfm.OPTIONAL.values())}
    config, method = tiny.method("tvi_lfm", **weights)
    variables, batch = jax.jit(method.init)(jax.random.key(0)), tiny.batch(config)
    assert "logit_scale" in variables["params"]
    total, (terms, _, _) = jax.jit(method.loss)(variables, batch, jax.random.key(0), 0, {})
    expected = (
        terms["ce"] + terms["triplet"] + sum(weights[f"loss__{key}"] * terms[n] for n, key in tvi_lfm.OPTIONAL.items())
    )
    assert float(total) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("base", "text"), [(tvi_base_sysu, tvi_sysu), (tvi_base_regdb, tvi_regdb), (tvi_base_llcm, tvi_llcm)]
)
def test_the_stages_of_an_experiment_share_data_and_network(base, text):
    one, other = base.get_config(), text.get_config()
    assert (one.model.stage, other.model.stage) == ("base", "text")
    assert not one.data.text
    for section in ("data", "model"):
        differing = {key for key in one[section] if one[section][key] != other[section][key]}
        assert differing == {"text" if section == "data" else "stage"}
    assert one.optim == other.optim
    assert other.init.from_base.endswith(base.__name__.split(".")[-1])


def test_the_demo_has_both_stages():
    assert demo_tvi_lfm.get_config().model.stage == "base"
    assert demo_tvi_lfm.get_config("text").init.from_base
    with pytest.raises(ValueError, match="third"):
        demo_tvi_lfm.get_config("third")


def test_every_option_of_the_released_program_has_its_line():
    text = PAGE.read_text()
    options = OPTIONS.split()
    assert len(options) == 103
    assert not [name for name in options if not re.search(rf"`--{name}\b", text)]
    config = tvi_sysu.get_config()
    for section, key in re.findall(r"`(data|model|loss|groups|optim|train|eval|init)\.(\w+)\b", text):
        assert key in config[section], f"{section}.{key}"
