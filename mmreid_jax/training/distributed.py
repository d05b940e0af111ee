"""Several processes: one call at the start of a command, before JAX touches a device."""

from __future__ import annotations

import os

import jax

from mmreid_jax.errors import UserError
from mmreid_jax.training import devices

# Each of these means that somebody has set a job of several processes up; jax.distributed finds the rest by itself.
_CLUSTER_MARKS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


def start() -> None:
    """Joins the other processes of this run, if there are any.

    ``JAX_COORDINATOR_ADDRESS`` (host:port), ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID`` describe a run set up by hand;
    under SLURM and Open MPI with more than one task, JAX finds them by itself.

    Raises:
      UserError: only some of the three variables are set, or JAX finds no device.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    variables = {name: os.environ.get(name) for name in names}
    if all(variables.values()):
        address, count, index = (str(variables[name]) for name in names)
        jax.distributed.initialize(address, int(count), int(index))
    elif any(variables.values()):
        missing = ", ".join(name for name in names if not variables[name])
        raise UserError(f"a run of several processes needs {', '.join(names)}; not set: {missing}")
    elif any(int(os.environ.get(mark, "1")) > 1 for mark in _CLUSTER_MARKS):
        jax.distributed.initialize()
    devices.available()


def is_main() -> bool:
    """Whether this process writes logs, checkpoints' metadata and reports."""
    return jax.process_index() == 0
