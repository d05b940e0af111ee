"""Several processes: what the environment must say."""

from __future__ import annotations

import jax
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import distributed

NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` is called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments: calls.append(arguments))
    for name in (*NAMES, *distributed._CLUSTER_MARKS):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_one_process_joins_nobody(joined):
    distributed.start()
    assert joined == []
    assert distributed.is_main()


def test_a_run_set_up_by_hand(joined, monkeypatch):
    for name, value in zip(NAMES, ("host:1234", "2", "1"), strict=True):
        monkeypatch.setenv(name, value)
    distributed.start()
    assert joined == [("host:1234", 2, 1)]


def test_half_of_the_variables_is_an_error(joined, monkeypatch):
    monkeypatch.setenv(NAMES[0], "host:1234")
    with pytest.raises(UserError, match="not set: JAX_NUM_PROCESSES, JAX_PROCESS_ID"):
        distributed.start()


def test_a_cluster_is_found_by_jax(joined, monkeypatch):
    monkeypatch.setenv(distributed._CLUSTER_MARKS[0], "4")
    distributed.start()
    assert joined == [()]
