"""The options that XLA compiles with on this machine: the one place that decides, for every jitted function.

In jaxlib 0.10 the CPU backend hands convolutions, products and reductions to the library YNNPACK. Its convolution takes
2 to 12 times too long for the gradient of a kernel, which is a convolution with a window as large as the map, and is no
faster than XLA's own otherwise. Its products are up to a fifth slower than XLA's own with AVX-512, and where they are
named beside the reductions, jaxlib 0.10.2 computes a gradient of Hetero-Center's loss for one identity wrongly
(``tests/parity/test_hc_losses.py`` shows it). Its reductions are several times faster than XLA's. So "auto" keeps
YNNPACK for reductions alone (``benchmarks/step_time.py --compiler plain`` times the other). Results differ by the
rounding of float32. Left out are float64, whose convolutions XLA itself computes with plain loops, and what has no
convolutions, such as distances.

`options` goes to ``jax.jit(function, compiler_options=...)``. JAX takes such options for outermost functions alone, so
what is also called inside of other functions is jitted without. The initialisation of networks is, too: XLA removes all
layers from it, since only the parameters are asked for.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

import jax

from mmreid_jax.errors import UserError

CHOICES = ("auto", "plain")
"""Values of ``config.train.compiler``: what is fastest on this backend, or XLA's own defaults."""
_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"
_WANTED = {_FUSIONS: "LIBRARY_FUSION_TYPE_REDUCE"}
_log = logging.getLogger(__name__)
_chosen = "auto"


def choose(choice: str) -> None:
    """Sets what `options` gives from now on, for the whole process.

    Raises:
      UserError: `choice` is none of CHOICES.
    """
    global _chosen
    if choice not in CHOICES:
        raise UserError(f"config.train.compiler is {choice!r}; choose one of {', '.join(CHOICES)}")
    _chosen = choice


def options() -> dict[str, Any]:
    """The compiler options for the default backend; empty for XLA's own defaults."""
    if _chosen == "plain" or jax.default_backend() != "cpu" or jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        return {}
    # Whoever sets the flag for the process has decided.
    if _FUSIONS in os.environ.get("XLA_FLAGS", ""):
        return {}
    return dict(_WANTED) if _known() else {}


def describe() -> str:
    """What `options` gives, in a few words."""
    if options():
        return "compiled with YNNPACK for reductions alone (train.compiler=auto)"
    return f"compiled with XLA's default options (train.compiler={_chosen})"


@functools.cache
def _known() -> bool:
    """Whether this jaxlib takes the options; asked once."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=_WANTED)(0)
    except jax.errors.JaxRuntimeError as error:
        _log.warning("compiling with XLA's default options, for this jaxlib does not take %s: %s", _FUSIONS, error)
        return False
    return True
