"""Making a trunk: it resumes, and its file is what was trained."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest

from mmreid_jax import drawn
from mmreid_jax.convert import resnet, store
from mmreid_jax.errors import UserError
from mmreid_jax.trunks import distillation, network, people, pretraining

TINY = pretraining.Recipe(
    "resnet_nano",
    drawn.RESERVED_SEEDS.start,
    stems=("torchvision", "transreid"),
    blocks=1,
    image_size=(32, 16),
    steps=4,
    persons=3,
    views=2,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, variables of an uninterrupted run); people of one small block."""
    patch = pytest.MonkeyPatch()
    patch.setattr(people, "BLOCK", 6)
    folder = tmp_path_factory.mktemp("trunks")
    yield folder, pretraining.fit(TINY, folder / "whole", say=lambda text: None)
    patch.undo()


def same(one, two):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, two)))


@pytest.mark.slow(short=True)
def test_a_stopped_run_goes_on_where_it_was(trained):
    folder, whole = trained
    lines = []

    def stop(text):
        lines.append(text)
        if text.startswith("step 4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretraining.fit(TINY, folder / "stopped", checkpoint_every=2, say=stop)
    resumed = pretraining.fit(TINY, folder / "stopped", checkpoint_every=2, say=lines.append)
    assert "going on after step 2" in lines
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), whole, resumed)


def test_batches_depend_on_the_step_alone():
    data = people.People(
        np.arange(6 * people.VIEWS)[:, None, None, None],
        np.repeat(np.arange(6), people.VIEWS),
        np.zeros(6 * people.VIEWS, bool),
        np.zeros((6, 2), np.int32),
    )
    first, again, second = (pretraining.batch_of(data, TINY, step) for step in (3, 3, 4))
    assert same(first, again)
    assert not same(first, second)
    assert sorted(np.unique(first["identity"], return_counts=True)[1]) == [2, 2, 2]
    assert len(set(first["images"].ravel())) == 6


@pytest.mark.slow(short=True)
def test_a_student_of_two_teachers_goes_on_where_it_was(trained):
    folder, _ = trained
    teachers = (
        distillation.Teacher("drawn/resnet_mini_cross", ("rgb", "nir")),
        distillation.Teacher("drawn/resnet_mini", ("tir",)),
    )
    weights = network.Weights(identity=0.0, feature=1.0, map=1.0, relations=1.0)
    student = dataclasses.replace(
        TINY, backbone="vit_micro", stems=("torchvision",), weights=weights, teachers=teachers
    )
    lines = []

    def stop(text):
        lines.append(text)
        if text.startswith("step 4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretraining.fit(student, folder / "student", checkpoint_every=2, say=stop)
    assert all(f"{term} " in lines[0] for term in ("feature", "map", "relations"))
    resumed = pretraining.fit(student, folder / "student", checkpoint_every=2, say=lines.append)
    whole = pretraining.fit(student, folder / "taught", say=lines.append)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), whole, resumed)


@pytest.mark.slow(short=True)
def test_the_file_holds_the_trunk_in_half_precision(trained, monkeypatch):
    folder, variables = trained
    monkeypatch.setitem(pretraining.RECIPES, "tiny", dataclasses.replace(TINY))
    file = pretraining.save("tiny", variables, folder / "out")
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["steps"] == 4
    assert card["drawing_version"] == drawn.DRAWING_VERSION
    loaded, report = store.open_weights(file, resnet.layout(), variables)
    assert not report.dropped
    half = jax.tree.map(lambda x: x.astype(np.float16) if x.dtype == np.float32 else x, variables)
    assert same(loaded, half)
    assert pretraining.save("tiny", variables, folder / "out") == file


def test_only_trunks_are_overwritten(trained, monkeypatch, tmp_path):
    monkeypatch.setitem(pretraining.RECIPES, "tiny", dataclasses.replace(TINY))
    pretraining.check_target("tiny", tmp_path)
    file = pretraining.save("tiny", trained[1], tmp_path)
    pretraining.check_target("tiny", tmp_path)
    content = file.read_bytes()
    file.write_bytes(content + b"!")
    with pytest.raises(UserError, match=r"tiny\.safetensors is not overwritten: it is no trunk"):
        pretraining.check_target("tiny", tmp_path)
    file.write_bytes(content)
    for card in ("{}", "[]", '{"trunk": "drawn/other", "sha256": ""}', "words"):
        file.with_suffix(".json").write_text(card)
        with pytest.raises(UserError, match=r"tiny\.json is not overwritten"):
            pretraining.check_target("tiny", tmp_path)
