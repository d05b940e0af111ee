"""What a pre-trained trunk hands over to the supervised visible-infrared methods."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.commands.convert import write_safetensors
from mmreid_jax.convert import layout as layouts
from mmreid_jax.errors import UserError
from mmreid_jax.methods import visible_infrared
from mmreid_jax.models.two_stream import MODALITIES
from mmreid_jax.testing import tiny
from mmreid_jax.training import checkpoints
from tests.methods.variants import KEY, mmgl_variant


def saved(folder, **overrides):
    """A workdir with a pre-trained network."""
    config, method, variables = mmgl_variant(**overrides)
    checkpoints.keep_copy(folder, variables, config, method.facts)
    return str(folder)


def trunk_maps(method, variables, images):
    trunk = {name: tree["backbone"] for name, tree in variables.items()}
    return jax.jit(lambda v, x: method.backbone.apply(v, x, False))(trunk, images)


def fine_tuned(name, **overrides):
    with contextlib.redirect_stdout(io.StringIO()) as told:
        _, method = tiny.method(name, **{"model__backbone": "resnet_nano2", **overrides})
        return method, method.start(method.init(jax.random.key(5))), told.getvalue()


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("stem", [1, 0])
@pytest.mark.parametrize("name", ["agw", "ddag", "hetero_center"])
def test_the_supervised_trunk_computes_what_the_pretrained_one_does(name, stem, tmp_path):
    """Also where one stem served both modalities, and where the supervised networks share nothing."""
    config, source, variables = mmgl_variant(model__shared_from=stem)
    place = saved(tmp_path / "run", model__shared_from=stem)
    target, filled, told = fine_tuned(name, init__from_mmgl=place)
    images = dict(zip(MODALITIES, tiny.batch(config)["images"].values(), strict=True))
    # Non-local blocks start as the identity.
    one, other = trunk_maps(source, variables, images), trunk_maps(target, filled, images)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.abs(one).max())
    assert "arrays taken" in told


def test_every_array_of_the_trunk_is_handed_over(tmp_path, capsys):
    _, _, variables = mmgl_variant()
    trunk = {name: tree["backbone"] for name, tree in variables.items()}
    filled = visible_infrared.hand_over(saved(tmp_path / "run"), jax.tree.map(jnp.zeros_like, trunk))
    for one, other in zip(*map(jax.tree.leaves, (filled, trunk)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert f"{len(jax.tree.leaves(trunk))} arrays taken, 0 of new blocks" in capsys.readouterr().out


def test_only_shapes_read_no_file():
    _, method = tiny.method("agw", init__from_mmgl="nowhere")
    assert jax.eval_shape(method.init, KEY)["params"]["backbone"]


@pytest.mark.slow
def test_what_cannot_be_handed_over_is_named(tmp_path):
    place = saved(tmp_path / "run")
    config, method = tiny.method("agw")
    other = tmp_path / "agw"
    checkpoints.keep_copy(other, method.init(KEY), config, method.facts)
    for changes, message in (
        ({"init__from_mmgl": str(tmp_path / "absent")}, "absent"),
        ({"init__from_mmgl": str(other)}, "a run of method 'agw', not of MMGL"),
        ({"init__from_mmgl": place, "init__backbone": "resnet50.pth"}, "are both set"),
        ({"init__from_mmgl": place, "model__backbone": "resnet_micro"}, "does not fill layer2_0|is of another shape"),
        (
            {"init__from_mmgl": saved(tmp_path / "deep", model__shared_from=2)},
            "does not fill layer1_0 of the shared stream",
        ),
    ):
        with pytest.raises(UserError, match=message):
            fine_tuned("agw", **{"model__non_local": (), **changes})


@pytest.mark.slow(short=True)
def test_a_supervised_file_is_not_taken_for_a_pretrained_one(tmp_path):
    """The authors' loader takes nothing of such a file, and says nothing."""
    _, method = tiny.method("agw", model__non_local=())
    variables = jax.tree.map(np.asarray, jax.jit(method.init)(KEY))
    entries = layouts.export_state(method.convert_layouts()["agw"], variables)
    write_safetensors(str(tmp_path / "agw.safetensors"), entries)
    with pytest.raises(UserError, match="does not fit the layout 'mmgl'"):
        fine_tuned("agw", init__from_mmgl=str(tmp_path / "agw.safetensors"))
