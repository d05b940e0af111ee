"""The devices that JAX finds, or one line that says why there are none, and what they can compute."""

from __future__ import annotations

import os
from typing import Any

import jax

from mmreid_jax.errors import UserError


def available() -> list[Any]:
    """All devices of all processes.

    Raises:
      UserError: there is none of the kind that is asked for.
    """
    try:
        return list(jax.devices())
    except (AssertionError, RuntimeError) as error:
        raise UserError(missing(str(error))) from None


def missing(reason: str) -> str:
    """The sentence for devices that JAX does not find; `reason`: in its words, if it has any."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    words = next(iter(reason.strip().splitlines()), "")
    why = f" ({words[:200]})" if words else ""
    if platforms:
        return (
            f"JAX finds no device of JAX_PLATFORMS={platforms}{why}; install JAX for it (pip install 'jax[cuda13]') "
            "and its driver, or unset JAX_PLATFORMS"
        )
    return f"JAX finds no device{why}; check its installation, or set JAX_PLATFORMS=cpu"


def have_flash_attention() -> bool:
    """Whether cuDNN's flash attention can run on the devices that arrays are made on, which must be NVIDIA's.

    Raises:
      UserError: there is no device.
    """
    available()
    return jax.default_backend() == "gpu"


def computable(config: Any) -> Any:
    """The config of a trained model as these devices can compute it: without flash attention where there is none.

    The weights are the same with any attention, so a model that was trained on a GPU opens everywhere.

    Args:
      config: of an experiment, complete in its section ``model``.

    Raises:
      UserError: there is no device.
    """
    if config.model.get("attention") != "cudnn" or have_flash_attention():
        return config
    changed = config.copy_and_resolve_references()
    changed.model.attention = "plain"
    return changed
