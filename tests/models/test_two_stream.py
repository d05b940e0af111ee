"""The two-stream network: which parts exist, what each batch norm sees, and what it computes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.models.resnet import RESNETS, ResNet
from mmreid_jax.models.two_stream import STREAMS, TwoStream
from mmreid_jax.testing import goldens

MICRO = {"stages": (1, 1), "width": 8}
STAGES = len(MICRO["stages"])


def images(seed=0, visible=3, infrared=2):
    rng = np.random.default_rng(seed)
    draw = lambda count: jnp.asarray(rng.normal(size=(count, 32, 16, 3)), jnp.float32)  # noqa: E731
    return {"visible": draw(visible), "infrared": draw(infrared)}


def network(shared_from, **options):
    """A network and variables of which no two batch norms are alike."""
    model = TwoStream(shared_from, **MICRO, **options)
    variables = jax.jit(lambda key: model.init(key, images(), True))(jax.random.key(0))
    rng = np.random.default_rng(1)
    draw = lambda x: x if x.dtype == jnp.int32 else x + 0.1 * jnp.asarray(np.abs(rng.normal(size=x.shape)), x.dtype)  # noqa: E731
    return model, jax.tree.map(draw, variables)


@pytest.mark.parametrize("shared_from", range(STAGES + 2))
def test_every_part_exists_where_it_is_used(shared_from):
    model = TwoStream(shared_from, **MICRO)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images(), True))
    assert set(variables["params"]) == set(variables["batch_stats"]) == set(model.streams)
    parts = {name: {part.split("_")[0] for part in tree} for name, tree in variables["params"].items()}
    whole = [{"conv1", "bn1"}, *({f"layer{number}"} for number in range(1, STAGES + 1))]
    apart = set().union(*whole[:shared_from])
    assert parts.get("visible", set()) == parts.get("infrared", set()) == apart
    assert parts.get("shared", set()) == set().union(*whole[shared_from:])


@pytest.mark.slow(short=True)
@pytest.mark.parametrize("shared_from", range(STAGES + 2))
def test_it_is_a_resnet_for_each_modality(shared_from):
    """In evaluation, with the parameters of the modality's and of the shared parts."""
    model, variables = network(shared_from)
    both = images()
    run = jax.jit(lambda v, x: model.apply(v, x, False))
    maps = run(variables, both)
    whole = ResNet(**MICRO)
    assert maps.shape[-1] == whole.features == model.features
    for name, rows in (("visible", slice(0, 3)), ("infrared", slice(3, 5))):
        own = {c: {**tree.get("shared", {}), **tree.get(name, {})} for c, tree in variables.items()}
        expected = whole.apply(own, both[name], False)
        goldens.close(maps[rows], expected, 1e-5)
        goldens.close(run(variables, {name: both[name]}), expected, 1e-5)


@pytest.mark.parametrize("shared_from", range(STAGES + 2))
def test_batch_norms_see_their_modality_alone_or_both(shared_from):
    model, variables = network(shared_from)
    both, other = images(), images()
    other["infrared"] = other["infrared"] * 3.0 + 1.0
    update = jax.jit(lambda x: model.apply(variables, x, True, mutable=["batch_stats"])[1]["batch_stats"])
    one, two = update(both), update(other)
    same = lambda a, b: all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))  # noqa: E731
    for name in model.streams:
        assert same(one[name], two[name]) == (name == "visible")
    counts = [x for x in jax.tree.leaves(one) if x.dtype == jnp.int32]
    assert counts
    assert all(count == 1 for count in counts)


def test_stages_end_in_what_it_returns_and_have_names():
    model, variables = network(2)
    stages = jax.jit(lambda v: model.apply(v, images(), False, return_stages=True))(variables)
    last = jax.jit(lambda v: model.apply(v, images(), False))(variables)
    # Results of jit come in the order of their names.
    assert sorted(stages) == [*(f"layer{number}" for number in range(1, STAGES + 1)), "maxpool", "stem"]
    assert all(len(maps) == 5 for maps in stages.values())
    goldens.close(stages[f"layer{STAGES}"], last, 1e-5)


@pytest.mark.slow(short=True)
def test_recomputing_blocks_changes_nothing():
    gradients = []
    for remat in (False, True):
        model, variables = network(1, remat=remat)

        def loss(params, model=model, variables=variables):
            tree = {**variables, "params": params}
            return jnp.square(model.apply(tree, images(), True, mutable=["batch_stats"])[0]).sum()

        gradients.append(jax.jit(jax.grad(loss))(variables["params"]))
    for plain, recomputed in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=1e-4, atol=1e-4 * float(np.abs(plain).max()))


@pytest.mark.slow(short=True)
def test_a_non_local_block_starts_as_the_identity_and_sits_in_its_stage():
    places = ((1, 0), (2, 0), (2, 7))
    model = TwoStream(1, **MICRO, non_local=places)
    variables = jax.jit(lambda key: model.init(key, images(), True))(jax.random.key(0))
    found = [name for name in variables["params"]["shared"] if name.startswith("non_local")]
    assert sorted(found) == ["non_local1_0", "non_local2_0"]
    without = {
        c: {s: {k: v for k, v in tree.items() if not k.startswith("non_local")} for s, tree in streams.items()}
        for c, streams in variables.items()
    }
    plain = TwoStream(1, **MICRO).apply(without, images(), False)
    np.testing.assert_array_equal(model.apply(variables, images(), False), plain)


def test_basic_blocks_make_a_resnet18():
    model = TwoStream(5, **RESNETS["resnet18"])
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images(), True))
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count == 2 * 11_176_512
    assert model.features == 512
    assert "downsample_0" not in variables["params"]["visible"]["layer1_0"]
    assert model.streams == STREAMS[:2]
    maps = jax.eval_shape(lambda v: model.apply(v, images(), False), variables)
    assert maps.shape == (5, 2, 1, 512)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="shared_from is 4"):
        TwoStream(4, **MICRO)
    with pytest.raises(ValueError, match="rgb"):
        TwoStream(1, **MICRO).init(jax.random.key(0), {"rgb": images()["visible"]}, True)
