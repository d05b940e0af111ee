"""What parity tests look at inside of the program's own training step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax


def recording(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser with the last gradient kept as the second member of its state."""

    def init(params: Any) -> tuple[Any, Any]:
        return optimizer.init(params), jax.tree.map(jnp.zeros_like, params)

    def update(gradient: Any, state: tuple[Any, Any], params: Any = None) -> tuple[Any, tuple[Any, Any]]:
        updates, inner = optimizer.update(gradient, state[0], params)
        return updates, (inner, gradient)

    return optax.GradientTransformation(init, update)


def is_buffer(name: str) -> bool:
    """Whether a PyTorch name is that of a running statistic."""
    return name.rsplit(".", 1)[-1].startswith(("running_", "num_batches"))
