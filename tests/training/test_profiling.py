"""Traces of a few steps."""

import jax.numpy as jnp
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import profiling


def run(trace, indices):
    """Steps of a run; returns those that were traced."""
    traced = []
    with trace:
        for index in indices:
            trace.before(index, jnp.ones(2))
            if trace._state == "running":
                traced.append(index)
        trace.finish(jnp.ones(2))
    return traced


def test_the_steps_after_those_that_compile(tmp_path):
    said = []
    trace = profiling.Trace(tmp_path, steps=2, start=4, skip=3, say=said.append)
    assert [index for index in range(20) if trace.begins_or_ends_after(index)] == [6, 8]
    assert run(trace, range(4, 12)) == [7, 8]
    (folder,) = (tmp_path / "profile" / "plugins" / "profile").iterdir()
    assert {"".join(path.suffixes[-2:]) for path in folder.iterdir()} >= {".xplane.pb", ".json.gz"}
    assert len(said) == 1
    assert said[0].startswith(f"profile of steps 8 to 9: {tmp_path / 'profile'}")


@pytest.mark.parametrize(("steps", "last"), [(0, 12), (2, 6)])
def test_no_trace(tmp_path, steps, last):
    said = []
    trace = profiling.Trace(tmp_path, steps, start=4, skip=3, say=said.append)
    assert run(trace, range(4, last)) == []
    assert not (tmp_path / "profile").exists()
    assert said == ([] if not steps else ["no profile: it would have begun after step 7, and the run has ended before"])


def test_mistake(tmp_path):
    with pytest.raises(UserError, match=r"config\.train\.profile is -1"):
        profiling.Trace(tmp_path, -1, 0, 3, print)
