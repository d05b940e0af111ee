"""The trunks in the package: found by name, small, unchanged, and every key of them used in every method."""

import dataclasses
import hashlib
import importlib
import json

import jax
import numpy as np
import pytest

from mmreid_jax import drawn
from mmreid_jax.convert import clip, included, store, torch_file
from mmreid_jax.data.tokenizer import tokenize
from mmreid_jax.errors import UserError
from mmreid_jax.methods import base
from mmreid_jax.testing import tiny
from mmreid_jax.trunks import pretraining, reading

# Method or a config of its own -> its config; all that can start from a ResNet, for some are of transformers alone.
CONFIGS = {
    name: options["config"] for name, options in tiny.TINY.items() if not options["model.backbone"].startswith("clip_")
} | {"base": "base_sysu"}
TOWERS = [name for name in included.names() if name.removeprefix("drawn/") in reading.RECIPES]
TRANSFORMERS = ["drawn/vit_mini"]
RESNETS = [name for name in included.names() if name not in (*TOWERS, *TRANSFORMERS)]
RECIPES = {name: {**pretraining.RECIPES, **reading.RECIPES}[name.removeprefix("drawn/")] for name in included.names()}
# Configs of methods that a transformer can be the trunk of.
ON_TRANSFORMERS = ("htt_rgbnt201", "demo_moe_rgbnt201", "mdreid_rgbnt201")


def test_trunks_lie_in_the_package():
    assert set(RESNETS) == {"drawn/resnet_mini", "drawn/resnet_mini_rgb", "drawn/resnet_mini_cross"}
    assert TOWERS == ["drawn/text_mini"]
    assert set(TRANSFORMERS) <= set(included.names())


@pytest.mark.parametrize("name", included.names())
def test_every_trunk_is_small_and_is_what_its_card_says(name):
    file = included.resolve(name)
    card = json.loads(file.with_suffix(".json").read_text())
    assert file.stat().st_size <= 2 * 2**20
    assert card["trunk"] == name
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    recipe = json.loads(json.dumps(dataclasses.asdict(RECIPES[name])))
    # A recipe may have got further fields since, whose defaults are what was done before.
    told = recipe.keys() & card.keys() - {"weights"}
    assert {"seed", "steps", "blocks", "image_size"} <= told
    assert {key: card[key] for key in told} == {key: recipe[key] for key in told}


def test_other_paths_stay_as_they_are(tmp_path, monkeypatch):
    assert included.resolve("some/where.pth").as_posix() == "some/where.pth"
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "drawn" / "resnet_mini"
    own.parent.mkdir()
    own.write_bytes(b"")
    assert included.resolve("drawn/resnet_mini").as_posix() == "drawn/resnet_mini"


def test_an_unknown_trunk_is_one_line():
    with pytest.raises(UserError, match="there is no trunk 'drawn/resnet_maxi' in the package; there are ") as error:
        included.resolve("drawn/resnet_maxi")
    assert "\n" not in str(error.value)


def backbone_leaves(tree):
    """{path: value} of all arrays below a backbone that a ResNet has."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}
    new = ("non_local", "aggregation", "expansion")
    return {path: leaf for path, leaf in named.items() if "backbone" in path and not any(name in path for name in new)}


@pytest.mark.parametrize("trunk", RESNETS)
def test_trunks_of_one_network_have_the_same_arrays(trunk):
    first, other = (torch_file.state_dict(included.resolve(name)).entries for name in (RESNETS[0], trunk))
    assert {key: array.shape for key, array in first.items()} == {key: array.shape for key, array in other.items()}


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_key_goes_into_every_method(name, monkeypatch):
    trunk = RESNETS[0]
    config = importlib.import_module(f"configs.{CONFIGS[name]}").get_config()
    config.model.backbone = "resnet_mini"
    config.data.image_size = (96, 48)
    if config.model.get("non_local"):
        config.model.non_local = ((2, 0), (3, 0))
    if config.method == "tvi_lfm":
        config.init.from_base = ""
        config.model.stage, config.data.text = "base", False
        config.model.text_tower = "text_micro"
        config.eval.feature = "fc"
    reports = []
    opened = store.open_weights

    def counted(path, *arguments, **options):
        loaded, report = opened(path, *arguments, **options)
        reports.append((str(path), report))
        return loaded, report

    monkeypatch.setattr(store, "open_weights", counted)
    config.init.backbone = trunk
    method = base.build(config, tiny.facts(config.method))
    variables = method.init(jax.random.key(0))
    fresh, started = backbone_leaves(variables), backbone_leaves(method.start(variables))
    assert {path for path, _ in reports} == {trunk}
    # A stream that has only a part of the network leaves the rest to the others.
    used = {key for _, report in reports for key in report.used}
    assert used == set(torch_file.state_dict(included.resolve(trunk)).entries)
    assert all(reason.endswith("lacks this part") for _, report in reports for reason in report.dropped.values())
    assert not any(report.filled for _, report in reports)
    assert started.keys() == fresh.keys()
    for path, value in started.items():
        if path.endswith(("kernel", "mean", "var")):
            assert not np.array_equal(value, fresh[path]), path


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("name", TOWERS)
def test_every_key_goes_into_the_text_tower(name, monkeypatch, capsys):
    config = importlib.import_module("configs.demo_tvi_lfm").get_config("text")
    config.init.from_base, config.init.clip = "", name
    method = base.build(config, tiny.facts("tvi_lfm"))
    reports = []
    opened = store.open_weights

    def counted(path, *arguments, **options):
        loaded, report = opened(path, *arguments, **options)
        reports.append(report)
        return loaded, report

    monkeypatch.setattr(store, "open_weights", counted)
    fresh = method.init(jax.random.key(0))["params"]["text"]
    started = method.start(method.init(jax.random.key(0)))["params"]["text"]
    (report,) = reports
    entries = set(torch_file.state_dict(included.resolve(name)).entries)
    assert set(report.used) == entries - {clip.TOKENS, "vocab_size"}
    assert set(report.dropped) == {"vocab_size"}
    assert not report.filled
    assert not any("stretched" in note for note in report.notes)
    assert jax.tree.map(np.shape, started) == jax.tree.map(np.shape, fresh)
    for path, value in jax.tree_util.tree_leaves_with_path(started):
        assert np.isfinite(value).all(), path
    # Every word of a caption has been read.
    (read,) = np.nonzero(np.asarray(started["token_embed"]).any(1))
    assert set(np.unique(tokenize(["a lady in a plaid hoodie and tan short pants with a purse"]))) - {0} <= set(read)


@pytest.mark.slow_cases("drawn/vit_mini-demo_moe_rgbnt201")
@pytest.mark.parametrize("name", ON_TRANSFORMERS)
@pytest.mark.parametrize("trunk", TRANSFORMERS)
def test_every_key_goes_into_every_transformer(trunk, name, monkeypatch):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.model.backbone, config.data.image_size = "vit_mini", (96, 48)
    config.init.backbone = trunk
    reports = []
    opened = store.open_weights

    def noted(path, *arguments, **options):
        loaded, report = opened(path, *arguments, **options)
        reports.append(report)
        return loaded, report

    monkeypatch.setattr(store, "open_weights", noted)
    method = base.build(config, tiny.facts(config.method))
    variables = method.init(jax.random.key(0))
    fresh, started = (tree["params"]["backbone"] for tree in (variables, method.start(variables)))
    (report,) = reports
    assert set(report.used) == set(torch_file.state_dict(included.resolve(trunk)).entries)
    assert not report.dropped
    assert jax.tree.map(np.shape, started) == jax.tree.map(np.shape, fresh)
    same = jax.tree_util.tree_leaves_with_path(jax.tree.map(np.array_equal, fresh, started))
    kept = {jax.tree_util.keystr(path, simple=True, separator="/") for path, equal in same if equal}
    # Side information of cameras, where a method has it, is in no file.
    assert kept == fresh.keys() & {"sie_embed"}


@pytest.mark.parametrize("trunk", included.names())
def test_people_of_a_trunk_and_of_its_teachers_are_nobody_elses(trunk):
    recipe = RECIPES[trunk]
    taught_by = [RECIPES[teacher.trunk] for teacher in getattr(recipe, "teachers", ())]
    assert {each.seed for each in (recipe, *taught_by)} <= set(drawn.RESERVED_SEEDS)
