"""The options that XLA compiles with on this machine: the one place that decides, for every jitted function.

In jaxlib 0.10 the CPU backend hands convolutions, products and reductions to the library YNNPACK. Its convolution takes
2 to 12 times too long for the gradient of a kernel, which is a convolution with a window as large as the map, and is no
faster than XLA's own otherwise. Its reductions are several times faster. Its products are as fast as XLA's own or
faster with AVX2, and up to a fifth slower with AVX-512. So "auto" keeps it for reductions, and for products on
processors without AVX-512 (``benchmarks/step_time.py --compiler auto``, or ``plain``). Results differ by the rounding
of float32. What has no convolutions, such as distances, gains nothing and is compiled without options.

`options` goes to ``jax.jit(function, compiler_options=...)``. JAX takes such options for outermost functions alone, so
what is also called inside of other functions is jitted without. The initialisation of networks is, too: XLA removes all
layers from it, since only the parameters are asked for.
"""

from __future__ import annotations

import functools
import logging
import os
from pathlib import Path
from typing import Any

import jax

from mmreid_jax.errors import UserError

CHOICES = ("auto", "plain")
"""Values of ``config.train.compiler``: what is fastest on this backend, or XLA's own defaults."""
_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"
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
    # Whoever sets the flag for the process has decided.
    if _chosen == "plain" or jax.default_backend() != "cpu" or _FUSIONS in os.environ.get("XLA_FLAGS", ""):
        return {}
    chosen = {_FUSIONS: ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in kinds())}
    return chosen if _known(chosen[_FUSIONS]) else {}


@functools.cache
def kinds() -> tuple[str, ...]:
    """What YNNPACK keeps on this processor."""
    try:
        has_avx512 = "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:
        has_avx512 = False
    return ("REDUCE",) if has_avx512 else ("DOT", "REDUCE")


def describe() -> str:
    """What `options` gives, in a few words."""
    if options():
        return f"compiled with YNNPACK for {' and '.join(kinds())} alone (train.compiler=auto)"
    return f"compiled with XLA's default options (train.compiler={_chosen})"


@functools.cache
def _known(fusions: str) -> bool:
    """Whether this jaxlib takes the option; asked once."""
    try:
        jax.jit(lambda x: x + 1, compiler_options={_FUSIONS: fusions})(0)
    except jax.errors.JaxRuntimeError as error:
        _log.warning("compiling with XLA's default options, for this jaxlib does not take %s: %s", _FUSIONS, error)
        return False
    return True
