"""Every key of every config, with values that it may have and values that it may not."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import random

import jax
import numpy as np
import pytest

import mmreid_jax.datasets as datasets
from configs import common as config_sections
from mmreid_jax import settings, validation
from mmreid_jax.data import captions, images, pipeline, transforms
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import open_experiment
from mmreid_jax.losses import cycle_contrast, permutation, weighted_triplet
from mmreid_jax.methods import agw, base, ieee, tvi_lfm
from mmreid_jax.models import ieee as ieee_networks
from mmreid_jax.models import stripes
from mmreid_jax.retrieval import distances
from mmreid_jax.settings import common
from mmreid_jax.settings.kinds import Choice, Number, Pair, Several, Switch, Whole
from mmreid_jax.testing import tiny
from mmreid_jax.training import compilation, devices, optimizers, schedules
from mmreid_jax.training.config import flatten
from tests.datasets.own import made
from tests.test_configs import experiments

METHODS = sorted(tiny.TINY)


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """A data set of one's own, which configs/own.py is about."""
    made.pretend(tmp_path)
    monkeypatch.setenv("MMREID_DATA", str(tmp_path))


def whole(method, **changes):
    config = tiny.config(method, **changes)
    config.data.drawn = True
    if method in ("agw", "caj", "ddag", "mmgl", "tvi_lfm", "hetero_center"):
        config.data.dataset = "sysu_mm01"
    return validation.complete(config)


def put(config, key, value):
    """The config with any value at a dotted key, whatever its type."""
    *parents, leaf = key.split(".")
    for parent in parents:
        config = config[parent]
    with config.unlocked(), config.ignore_type():
        config[leaf] = value


def resolved(name, variant=""):
    get_config = importlib.import_module(f"configs.{name}").get_config
    return validation.complete(get_config(variant) if variant else get_config())


class TestSchema:
    @pytest.mark.parametrize(("name", "variant"), experiments())
    def test_every_experiment_is_valid_and_complete(self, name, variant, own_data):
        get_config = importlib.import_module(f"configs.{name}").get_config
        config = get_config(variant) if variant else get_config()
        complete = validation.complete(config)
        assert complete.to_dict() == config.to_dict(), "a key of the schema is in no config"
        validation.check(complete, starts=False)

    @pytest.mark.parametrize("name", ["data", "optim", "train", "initial", "evaluation"])
    def test_sections_of_today_are_as_before_their_keys_existed(self, name):
        """A new key whose default changes what runs do would make old runs resume as something else."""
        section = {"initial": "init", "evaluation": "eval"}.get(name, name)
        today = getattr(config_sections, name)().to_dict()
        absent = common.SECTIONS[section].missing({})
        # Read from the environment.
        today.pop("data_dir", None), absent.pop("data_dir", None)
        interpolation = {"interpolation": today.pop("interpolation", None)}
        absent.pop("interpolation", None)
        assert today == absent
        assert interpolation["interpolation"] in (None, "bicubic")

    @pytest.mark.parametrize("method", METHODS)
    def test_every_key_has_a_kind_that_takes_what_was(self, method):
        for section in settings.sections_of(method).values():
            for key, kind in section.items():
                if key != "method":
                    assert kind(kind.absent) == "", key

    @pytest.mark.parametrize(
        ("section", "key", "known"),
        [
            ("optim", "name", optimizers.NAMES),
            ("optim", "schedule", schedules.NAMES),
            ("data", "interpolation", transforms.INTERPOLATIONS),
            ("data", "erasing_form", tuple(pipeline.ERASING_FORMS)),
            ("data", "broken_images", images.BROKEN_POLICIES),
            ("data", "caption_draw", captions.DRAWS),
            ("train", "compiler", compilation.CHOICES),
            ("eval", "distance", ("", *distances.KINDS)),
            ("eval", "rerank_distance", distances.KINDS),
        ],
    )
    def test_choices_are_those_of_the_code(self, section, key, known):
        assert sorted(common.SECTIONS[section][key].choices) == sorted(known)

    @pytest.mark.parametrize(
        ("method", "section", "key", "known"),
        [
            ("agw", "model", "pooling", agw.POOLINGS),
            ("agw", "loss", "triplet", agw.AGW.triplets),
            ("agw", "loss", "triplet_form", weighted_triplet.FORMS),
            ("ieee", "loss", "name", ieee.LOSSES),
            ("ieee", "model", "streams", ieee.STREAMS),
            ("ieee", "model", "rem", ieee_networks.RELATIONS),
            ("ieee", "model", "global_from", ieee_networks.GLOBALS),
            ("mmgl", "loss", "cl_mode", cycle_contrast.MODES),
            ("mmgl", "loss", "cl_query", cycle_contrast.QUERIES),
            ("mmgl", "loss", "candidate_scope", cycle_contrast.SCOPES),
            ("mmgl", "loss", "perm_reduction", permutation.REDUCTIONS),
            ("mmgl", "model", "proj_head", stripes.HEADS),
            ("tvi_lfm", "model", "stage", tvi_lfm.STAGES),
            ("tvi_lfm", "model", "fusion", tvi_lfm.FUSIONS),
            ("tvi_lfm", "model", "freeze_visual", tvi_lfm.FREEZES),
        ],
    )
    def test_choices_of_methods_are_those_of_the_code(self, method, section, key, known):
        assert sorted(settings.sections_of(method)[section][key].choices) == sorted(known)

    def test_every_method_has_a_schema(self):
        for method in base.names():
            assert {"model", "loss"} <= settings.sections_of(method).keys(), method


WRONG = [
    ("eval_every", {"train.eval_every": 0}, r"config\.train\.eval_every is 0; it must be a whole number"),
    ("log_every", {"train.log_every": 0}, r"log_every is 0"),
    ("checkpoint_every", {"train.checkpoint_every": 0}, r"checkpoint_every is 0"),
    ("image_size", {"data.image_size": 64}, r"image_size is 64; it must be a tuple of 2"),
    ("negative image", {"data.image_size": (-64, 32)}, r"image_size is \(-64, 32\)"),
    ("half precision", {"model.dtype": "float16"}, r"dtype is 'float16'; it must be one of float32, bfloat16"),
    ("nonsense type", {"model.dtype": "foo"}, r"dtype is 'foo'"),
    ("smoothing", {"loss.label_smoothing": 2.0}, r"label_smoothing is 2\.0"),
    ("rate", {"optim.lr": math.nan}, r"lr is nan"),
    ("clip", {"optim.clip_norm": math.nan}, r"clip_norm is nan"),
    ("momentum", {"optim.momentum": 2.0}, r"momentum is 2\.0"),
    ("deviation", {"data.std": (0.0, 0.0, 0.0)}, r"std is \(0\.0, 0\.0, 0\.0\)"),
    ("cache", {"data.cache_gib": math.nan}, r"cache_gib is nan"),
    ("twice", {"data.modalities": ("rgb", "rgb")}, r"modalities is .*none of them twice"),
    ("depth", {"model.drop_path": 2.0}, r"drop_path is 2\.0"),
    ("attention", {"model.attention": "foo"}, r"attention is 'foo'"),
    ("unroll", {"model.unroll": -1}, r"unroll is -1"),
    ("stride", {"model.last_stride": 0}, r"last_stride is 0"),
    ("grouping", {"loss.grouping": "foo"}, r"grouping is 'foo'"),
    ("classes", {"model.num_classes": 10**9}, r"num_classes is 1000000000"),
    ("weights", {f"loss.{key}": 0.0 for key in settings.weights_of("htt")}, r"are all 0: there is nothing to learn"),
    (
        "weights of adaptation",
        {"mtt.mmm_weight": 0.0, "mtt.cim_weight": 0.0},
        r"are both 0: there is nothing to adapt by",
    ),
    ("data set", {"data.dataset": "foo"}, r"there is no data set 'foo'"),
    ("protocol", {"eval.protocol": "foo"}, r"unknown protocol 'foo'"),
    ("other protocol", {"eval.protocol": "llcm_ir_to_vis"}, r"'llcm_ir_to_vis' fits llcm, but not rgbnt201"),
    ("view", {"data.erasing_of": (("foo", 0.5),)}, r"erasing_of names 'foo'"),
    ("text", {"data.text": True, "data.dataset": "rgbn300"}, r"rgbn300 has no captions; set it to False"),
    ("captioner", {"data.text": True}, r"captioner is 'Blip', but rgbnt201 has no captions of that name.* QwenVL"),
    ("weights file", {"init.backbone": "nowhere/file.pth"}, r"init\.backbone is 'nowhere/file\.pth', but there is no"),
    ("weights without suffix", {"init.backbone": "nowhere"}, r"init\.backbone is 'nowhere', but there is no"),
    ("trunk", {"init.backbone": "drawn/nothing"}, r"init\.backbone: there is no trunk 'drawn/nothing'"),
    ("home", {"init.backbone": "~nobody_here/x"}, r"init\.backbone: there is no home ~nobody_here"),
    ("home of data", {"data.data_dir": "~nobody_here/x"}, r"data\.data_dir: there is no home ~nobody_here"),
    ("feature", {"eval.rerank_k1": 0}, r"rerank_k1 is 0"),
    ("head", {"model.head": "foo"}, r"head is 'foo'"),
    ("task", {"task": "foo"}, r"config\.task is 'foo'"),
    ("seed", {"seed": -1}, r"config\.seed is -1"),
]


class TestChecks:
    @pytest.mark.parametrize(("changes", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
    def test_wrong_values(self, changes, words):
        config = whole("htt")
        for key, value in changes.items():
            put(config, key, value)
        with pytest.raises(UserError, match=words):
            validation.check(config)

    def test_nothing_is_touched_before(self, tmp_path, monkeypatch):
        monkeypatch.setattr(jax, "devices", lambda *_: pytest.fail("devices were looked for"))
        config = whole("htt", data__data_dir=str(tmp_path / "data"), optim__epochs=0)
        with pytest.raises(UserError, match=r"config\.optim\.epochs is 0"):
            open_experiment(config, tmp_path / "run")
        assert not list(tmp_path.iterdir())

    def test_flash_attention_needs_its_type_and_its_device(self, monkeypatch):
        config = whole("htt", model__attention="cudnn")
        with pytest.raises(UserError, match=r"attention is cudnn, .* config\.model\.dtype is float32"):
            validation.check(config)
        config.model.dtype = "bfloat16"
        if not devices.have_flash_attention():
            with pytest.raises(UserError, match=r"attention is cudnn, which needs an NVIDIA GPU .* on cpu here"):
                validation.check(config)
        monkeypatch.setattr(devices, "have_flash_attention", lambda: True)
        validation.check(config)
        assert devices.computable(config) is config

    @pytest.mark.parametrize("method", METHODS)
    def test_a_model_of_a_gpu_opens_without_one(self, method, monkeypatch):
        monkeypatch.setattr(devices, "have_flash_attention", lambda: False)
        config = whole(method)
        assert devices.computable(config) is config
        if "attention" in config.model:
            config.model.attention = "cudnn"
            opened = devices.computable(config)
            assert (config.model.attention, opened.model.attention) == ("cudnn", "plain")
            put(config, "model.attention", "plain")
            assert opened.to_dict() == config.to_dict()

    def test_unknown_key(self):
        config = whole("htt")
        put(config, "optim.learning_rate", 0.1)
        with pytest.raises(UserError, match=r"unknown key config\.optim\.learning_rate"):
            validation.check(config)

    def test_a_long_warmup_is_said(self):
        config = whole("htt", optim__epochs=2)
        assert any("optim.warmup_epochs is 5 of 2 epochs" in note for note in validation.check(config))
        put(config, "optim.schedule", "cosine_per_step")
        with pytest.raises(UserError, match="cosine_per_step needs a shorter warm-up"):
            validation.check(config)

    def test_test_time_training_needs_a_method_that_has_it(self):
        with pytest.raises(UserError, match="'ieee' has no test-time training"):
            validation.check(whole("ieee", task="adapt"))

    def test_data_directory_that_is_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=r"data_dir is .*must be a directory"):
            validation.check(whole("htt", data__data_dir=str(tmp_path / "file")))

    @pytest.mark.parametrize("name", datasets.names())
    def test_protocols_fit_their_data_sets(self, name):
        own = datasets.get(name)
        for protocol in (*own.protocols, *own.peculiar_protocols):
            assert datasets.protocol(protocol.name, name).name == protocol.name
        for other in datasets.names():
            for protocol in datasets.get(other).protocols:
                if protocol.name not in {each.name for each in (*own.protocols, *own.peculiar_protocols)} | {"rgbnt"}:
                    with pytest.raises(UserError, match=rf"fits .*{other}.*, but not {name}"):
                        datasets.protocol(protocol.name, name)


class TestComplete:
    @pytest.mark.parametrize("method", METHODS)
    def test_any_key_may_be_missing(self, method):
        config = whole(method)
        for name, section in settings.sections_of(method).items():
            for key in section.missing({}):
                if key == "method":
                    continue
                cut = config.to_dict()
                part = cut
                for parent in name.split(".") if name else ():
                    part = part[parent]
                part.pop(key)
                assert flatten(validation.complete(cut)).keys() == flatten(config).keys(), key

    def test_nothing_else_is_changed(self):
        config = whole("htt", optim__lr=0.123)
        assert validation.complete(config).to_dict() == config.to_dict()


OWN = {
    "three": {"modalities": ("rgb", "nir", "tir")},
    "two": {"modalities": ("rgb", "tir"), "aligned": False},
}


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        *((name, "three") for name in ("htt_rgbnt201", "htt_market1501_mm_mtt", "ieee_rgbnt201")),
        *((name, "two") for name in ("base_sysu", "agw_sysu", "caj_regdb", "ddag_sysu", "hc_sysu", "mmgl_sysu")),
    ],
)
def test_ones_own_data_go_with_every_config_whose_modalities_fit(name, dataset, tmp_path):
    for each, options in OWN.items():
        made.pretend(tmp_path, each, **options)
    config = resolved(name)
    for each in OWN:
        config.data.update(dataset=f"own:{each}", data_dir=str(tmp_path))
        if name.startswith("caj"):
            config.data.grey_of = ()
        if each == dataset:
            validation.check(config, starts=False, trained=False)
        elif dataset == "two":
            with pytest.raises(UserError, match="compares two modalities"):
                validation.check(config, starts=False, trained=False)


class TestReleased:
    @pytest.mark.parametrize(("name", "variant"), experiments())
    def test_every_experiment_can_be_compared(self, name, variant, own_data):
        get_config = importlib.import_module(f"configs.{name}").get_config
        config = get_config(variant) if variant else get_config()
        config.parity = "released"
        validation.check(validation.complete(config), starts=False)

    @pytest.mark.parametrize(
        ("name", "chosen"),
        [
            ("htt_rgbnt100", {"data.rgbnt100_third": "reference", "data.rgbn300_third": ""}),
            ("htt_rgbn300", {"data.rgbnt100_third": "thermal", "data.rgbn300_third": "reference"}),
            ("htt_rgbnt201", {"loss.grouping": "positional", "train.sampler": "reference"}),
            ("hc_sysu", {"eval.protocol": "sysu_all_single_hetero_center", "train.sampler": "hetero_center"}),
            ("hc_regdb", {"eval.protocol": "", "train.sampler": "hetero_center"}),
            ("tvi_sysu", {"data.caption_draw": "reference"}),
            ("agw_sysu", {"train.sampler": "reference", "eval.protocol": ""}),
        ],
    )
    def test_what_it_stands_for(self, name, chosen):
        config = importlib.import_module(f"configs.{name}").get_config()
        config.parity = "released"
        values = flatten(validation.complete(config))
        assert {key: values[key] for key in chosen} == chosen

    def test_a_named_protocol_stays(self):
        config = importlib.import_module("configs.hc_sysu").get_config()
        config.parity, config.eval.protocol = "released", "sysu_indoor_single"
        assert validation.complete(config).eval.protocol == "sysu_indoor_single"

    def test_every_key_is_one_of_the_schema(self):
        for method in METHODS:
            keys = dict(keys_of(method))
            for dataset in ("", *datasets.names()):
                for key, value in settings.released_of(method, dataset).items():
                    assert keys[key](value) == "", key


# Values of all types and sizes, for any key.
ANYTHING = (
    *(0, 1, 2, -1, 7, 10**6, 10**9, 2**63, -(2**70), 10**400),
    *(0.0, -0.0, 0.5, 1.0, 2.5, -3.0, 1e-300, 1e308, math.nan, math.inf, -math.inf),
    *(True, False, None),
    *("", "foo", "a\nb", "\0", "\ud800", "é" * 300, "../..", "1", "nan", "[", "(?P<"),
    *(
        (),
        (1,),
        (0, 0),
        (64, 32),
        (1, 2, 3),
        (0.0, 0.0, 0.0),
        (math.nan,) * 3,
        ("rgb",),
        ("rgb", "rgb"),
        ("foo", "bar"),
    ),
    *((("rgb", 0.5),), (("foo", 2.0),), ((1, 0), (1, 0)), ((9, 9),), ("", ""), [1, [2]], {"a": 1}),
    *(np.float64("nan"), np.int32(5), np.zeros(2), b"x", 1j, object()),
)


VALUES = int(os.environ.get("MMREID_VALUES", "12"))
"""Values that are tried for each key; all: 58."""


def inside(kind, draw):
    """A random value of a kind."""
    if isinstance(kind, Choice):
        return draw.choice(kind.choices)
    if isinstance(kind, Switch):
        return draw.random() < 0.5
    if isinstance(kind, Number):
        lower = max(kind.least, kind.above + 1e-6, -1000.0)
        upper = min(kind.most, kind.below - 1e-6, lower + draw.choice((1, 10, 1000)))
        return draw.randint(int(lower), int(upper)) if isinstance(kind, Whole) else draw.uniform(lower, upper)
    if isinstance(kind, Several):
        return tuple(inside(kind.each, draw) for _ in range(draw.choice(kind.counts or (0, 1, 2, 3))))
    if isinstance(kind, Pair):
        return tuple(inside(each, draw) for each in kind.kinds)
    return draw.choice(("", "foo", "rgb", "rgbnt201", "resnet_nano", "cls"))


def keys_of(method):
    for name, section in settings.sections_of(method).items():
        for key, kind in section.items():
            yield f"{name}.{key}" if name else key, kind


def changed(method, changes):
    """The config of a method with some values, by dotted key."""
    config = whole(method)
    for key, value in changes.items():
        put(config, key, value)
    return config


def verdict(config):
    """What is said of a config: "" where it is taken; any other end than one line is a failure."""
    try:
        validation.check(config)
    except UserError as error:
        message = str(error)
        assert message, "an empty message"
        assert len(message) < 1000, message
        assert message.isprintable(), ascii(message)
        return message
    return ""


@pytest.mark.parametrize("method", METHODS)
def test_any_value_at_any_key_is_one_line_or_fine(method):
    """Whatever stands at a key: a sentence that names the key, or a config that is taken."""
    good = whole(method)
    draw = random.Random(hash_of(method))
    for key, kind in keys_of(method):
        # A share of the values for each key: all of them come by in the end.
        for value in draw.sample(ANYTHING, VALUES):
            config = good.copy_and_resolve_references()
            try:
                put(config, key, value)
            except OverflowError:
                continue  # ml_collections makes a float of it, and cannot
            value = flatten(config).get(key, value)
            message = verdict(config)
            if kind(value) and key != "method":
                assert f"config.{key}" in message, (key, value, message)
            if any(isinstance(number, float) and math.isnan(number) for number in validation._elements(value)):
                assert message or key == "method", (key, value)


def abstract_run(config):
    """Traces a training step and an evaluation without computing anything."""
    facts = tiny.facts(config.method)
    if config.train.identities_per_batch > facts.identities:
        return  # `training.config.check_batch` refuses it: the data have fewer.
    method = base.build(config, facts)
    batch = tiny.batch(config)
    optimizer = None

    def step(key):
        nonlocal optimizer
        variables = method.init(key)
        ends = np.arange(1, config.optim.epochs + 1)
        optimizer = method.optimizer(variables["params"], ends)
        memory = base.start_memory(method, ends)
        total, _ = method.loss(variables, batch, key, 0, memory)
        return total, optimizer.init(variables["params"])

    jax.eval_shape(step, jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_values_within_their_ranges_run(method):
    """Random values from the schema at random keys: one clear line, or a step can be made.

    A step is traced with many keys changed at once; where that ends in a line about one of them, with each by itself.
    """
    draw = random.Random(hash_of(method))
    kinds = [
        (key, kind) for key, kind in keys_of(method) if key.split(".")[0] in ("data", "model", "loss", "optim", "train")
    ]
    taken = 0
    for _ in range(3):
        draw.shuffle(kinds)
        for together in (kinds[start : start + 8] for start in range(0, len(kinds), 8)):
            changes = {}
            for key, kind in together:
                value = inside(kind, draw)
                # Large numbers of anything are fine, but slow to trace.
                small = not (isinstance(kind, Whole) and isinstance(value, int) and value > 64)
                if small and verdict(changed(method, {**changes, key: value})) == "":
                    changes[key] = value
            taken += len(changes)
            try:
                abstract_run(changed(method, changes))
            except UserError:
                for key, value in changes.items():
                    with contextlib.suppress(UserError):
                        abstract_run(changed(method, {key: value}))
    assert taken > len(kinds)


def hash_of(name):
    """The same number for the same name in every process."""
    return sum(ord(letter) * 31**place for place, letter in enumerate(name))
