"""What a training step will take, before anything is compiled: multiply-adds, memory, and on a CPU the time.

Counted in the program of a forward pass of one sample; nothing of its size is computed. The numbers are rough: what
the compiler fuses takes less memory, small operations more time than their products say.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jaxpr
import numpy as np

TRAINING = 3
"""Multiply-adds of a training step by those of its forward pass: one product back to the inputs, one to the weights."""
STATES = 4
"""Arrays as large as the parameters: they themselves, their gradients, and two of the optimiser."""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a training step takes.

    Attributes:
      multiply_adds: of its products.
      memory: bytes of state, gradients and what the backward pass needs of the forward pass.
      seconds: of a step on this CPU; None on an accelerator.
    """

    multiply_adds: int
    memory: int
    seconds: float | None

    def describe(self, steps: int) -> list[str]:
        """Lines for the console, with a warning where a CPU will be slow or full.

        Args:
          steps: of the run.
        """
        lines = [f"a step: about {self.multiply_adds / 1e9:.3g} G multiply-adds, {self.memory / 2**30:.2g} GiB"]
        if self.seconds is None:
            return lines
        hours = self.seconds * steps / 3600
        lines[0] += f", {self.seconds:.2g} s on this CPU; the run {hours:.2g} h"
        if hours > 12 or self.memory > memory_of_machine():
            lines.append(
                f"warning: this is a run for an accelerator ({memory_of_machine() / 2**30:.3g} GiB of memory here); on"
                " a CPU try a demo (configs/demo*.py), a smaller config.model.backbone or config.data.image_size, or"
                " config.train.micro_batches, which saves memory"
            )
        return lines


def forecast(embed: Callable[..., Any], variables: Any, batch: Any, samples: int) -> Forecast:
    """The forecast for training steps.

    Args:
      embed: (variables, batch) -> features.
      variables: of the method, or their shapes.
      batch: shapes of a batch of one sample.
      samples: in a training batch.
    """
    program = jax.make_jaxpr(embed)(variables, batch).jaxpr
    parameters = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables["params"]))
    products = TRAINING * samples * multiply_adds_of(program)
    memory = STATES * parameters + samples * _made(program)
    seconds = products / _products_per_second() if jax.default_backend() == "cpu" else None
    return Forecast(products, memory, seconds)


def memory_of_machine() -> int:
    """Bytes of memory that this machine has; very many where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 60


def multiply_adds_of(program: Any) -> int:
    """Multiply-adds of the products of a jaxpr: scans by their length, branches by the dearest, other loops once."""
    total = 0
    for operation in program.eqns:
        name, options = operation.primitive.name, operation.params
        shapes = [getattr(x.aval, "shape", ()) for x in operation.invars]
        result = math.prod(operation.outvars[0].aval.shape) if operation.outvars else 0
        if name == "dot_general":
            ((summed, _), _) = options["dimension_numbers"]
            total += result * math.prod(shapes[0][axis] for axis in summed)
        elif name == "conv_general_dilated":
            kernel, numbers = shapes[1], options["dimension_numbers"]
            total += result * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        elif name == "cond":
            total += max(multiply_adds_of(branch) for branch in inner(options["branches"]))
        else:
            times = options["length"] if name == "scan" else 1
            total += times * sum(multiply_adds_of(each) for value in options.values() for each in inner(value))
    return total


def inner(value: Any) -> list[Any]:
    """The programs in a parameter of an operation of a jaxpr."""
    if isinstance(value, jaxpr.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, jaxpr.Jaxpr):
        return [value]
    return [program for item in value for program in inner(item)] if isinstance(value, (tuple, list)) else []


_KEPT = frozenset(
    {"dot_general", "conv_general_dilated", "erf", "exp", "tanh", "logistic", "rsqrt", "max", "reduce_max"}
)
"""Operations whose results the backward pass wants; what lies between them is fused or made again."""


def _made(program: Any) -> int:
    """Bytes of the results of `_KEPT` operations of a jaxpr."""
    total = 0
    for operation in program.eqns:
        below = [each for value in operation.params.values() for each in inner(value)]
        times = operation.params["length"] if operation.primitive.name == "scan" else 1
        total += times * sum(_made(each) for each in below)
        if not below and operation.primitive.name in _KEPT:
            total += sum(math.prod(x.aval.shape) * x.aval.dtype.itemsize for x in operation.outvars)
    return total


def _products_per_second(size: int = 512) -> float:
    """Multiply-adds a second of a product on the host, half of it: a network is not all products."""
    one = np.ones((size, size), np.float32)
    shortest = math.inf
    for _ in range(8):
        begun = time.perf_counter()
        one @ one
        shortest = min(shortest, time.perf_counter() - begun)
    return 0.5 * size**3 / max(shortest, 1e-6)
