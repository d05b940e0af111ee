"""Size and cost of a model, without data or weights.

``python -m mmreid_jax complexity --config configs/X.py``
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jaxpr
import jax.numpy as jnp
import numpy as np

from mmreid_jax.data import tokenizer
from mmreid_jax.experiment import facts_of
from mmreid_jax.experiment import normalization as normalization_of
from mmreid_jax.flags import from_arguments
from mmreid_jax.methods import base
from mmreid_jax.training import devices, state, step
from mmreid_jax.training.forecast import inner, multiply_adds_of

Abstract = jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one call of a program costs.

    Attributes:
      multiply_adds: of its convolutions and matrix products.
      flops: floating-point operations of everything, as XLA counts them; None where the backend does not tell.
    """

    multiply_adds: int
    flops: float | None


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Size and cost of a model.

    Attributes:
      parameters: top-level part of the tree -> number of parameters.
      evaluation: cost of embedding one sample in all its modalities.
      batch: samples in a training step.
      training: cost of a training step.
      memory: bytes of a training step on one device by what they hold; None where it is not known.
    """

    parameters: Mapping[str, int]
    evaluation: Cost
    batch: int
    training: Cost
    memory: Mapping[str, int] | None


def parameters(params: Mapping[str, Any]) -> dict[str, int]:
    """Numbers of parameters by the top-level names of a tree of arrays or of anything with a shape."""
    return {name: sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(part)) for name, part in params.items()}


def cost(function: Callable[..., Any], *arguments: Any) -> Cost:
    """The cost of ``function(*arguments)``; nothing is computed, arguments may be `jax.ShapeDtypeStruct`.

    Every turn of a ``scan`` is counted. XLA's own analysis counts the body of a loop once, whatever its length, so
    loops are unrolled before it sees them. It sees the program before optimisation, where a product is still a product
    and not a call into a library.
    """
    program = jax.make_jaxpr(function)(*arguments)
    flat = jaxpr.jaxpr_as_fun(_unrolled(program))
    analysis = jax.jit(flat).lower(*(Abstract(x.shape, x.dtype) for x in program.in_avals)).cost_analysis()
    return Cost(multiply_adds_of(program.jaxpr), float(analysis["flops"]) if analysis and "flops" in analysis else None)


def multiply_adds(function: Callable[..., Any], *arguments: Any) -> int:
    """Multiply-adds of the products of ``function(*arguments)``, as `cost` counts them, without asking XLA."""
    return multiply_adds_of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _unrolled(program: Any) -> Any:
    """The same program (ClosedJaxpr, Jaxpr, or any parameter that may hold some) with every scan written out."""
    if isinstance(program, jaxpr.ClosedJaxpr):
        return jaxpr.ClosedJaxpr(_unrolled(program.jaxpr), program.consts)
    if isinstance(program, jaxpr.Jaxpr):
        operations = []
        for operation in program.eqns:
            options = {name: _unrolled(value) for name, value in operation.params.items()}
            if operation.primitive.name == "scan":
                options["unroll"] = max(1, options["length"])
            operations.append(operation.replace(params=options))
        return program.replace(eqns=operations)
    if isinstance(program, (tuple, list)) and inner(program):
        return type(program)(_unrolled(item) for item in program)
    return program


def example_batch(config: Any, facts: base.DataFacts, size: int, *, training: bool = False) -> dict[str, Any]:
    """The shapes of a batch as the pipeline makes it (see `mmreid_jax.data.pipeline`)."""
    height, width = (int(side) for side in config.data.image_size)
    labels = dict.fromkeys(("identity", "camera", "scene"), Abstract((size,), jnp.int32))
    second = [f"{name}_2" for name in config.data.second_views] if training else []
    names = (*facts.modalities, *second)
    batch: dict[str, Any] = {
        "images": dict.fromkeys(names, Abstract((size, height, width, 3), jnp.uint8)),
        **labels,
    }
    if config.data.text:
        batch["tokens"] = dict.fromkeys(facts.modalities, Abstract((size, tokenizer.LENGTH), jnp.int32))
    if training:
        batch["erase"] = dict.fromkeys(names, Abstract((size, 4), jnp.int32))
    return batch


def measure(config: Any, facts: base.DataFacts, *, memory: bool = True) -> Complexity:
    """Size and cost of the model of a config; no array of its size is made.

    Args:
      config: of the experiment; the weights that it names are not read.
      facts: of the training data.
      memory: also compile the training step, which alone tells what memory it needs and takes the most time.

    Raises:
      UserError: the config does not fit together.
    """
    method = base.build(config, facts)
    variables = base.shapes(method)
    normalization = normalization_of(config.data)
    embed = step.embed_step(method.embed, normalization)
    evaluation = cost(embed, variables, example_batch(config, facts, 1))
    size = config.train.identities_per_batch * config.train.images_per_identity
    batch = example_batch(config, facts, size, training=True)
    epoch_ends = np.arange(1, config.optim.epochs + 1)
    optimizer = method.optimizer(variables["params"], epoch_ends)
    carried = base.start_memory(method, epoch_ends)
    begin = jax.eval_shape(lambda v: state.create(v, optimizer, carried), variables)
    train = step.train_step(method.loss, optimizer, seed=0, normalization=normalization)
    jitted: Any = step.Parallel(jax.local_devices()[:1]).jit_train(train)
    held = _memory(jitted.lower(begin, batch).compile(), begin) if memory else None
    return Complexity(parameters(variables["params"]), evaluation, size, cost(train, begin, batch), held)


def _memory(compiled: Any, begin: Any) -> dict[str, int] | None:
    """Bytes that a compiled training step needs: state, batch, what it computes with, and all of them."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    held = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(begin))
    rest = analysis.argument_size_in_bytes - held
    # The new state takes the place of the old one; what it cannot replace comes on top.
    work = analysis.temp_size_in_bytes + max(analysis.output_size_in_bytes - analysis.alias_size_in_bytes, 0)
    return {"state": held, "batch": max(rest, 0), "activations and gradients": work, "together": held + rest + work}


def describe(complexity: Complexity, device: str) -> str:
    """The table for the console."""
    total = sum(complexity.parameters.values())
    lines = [("parameters", "", "")]
    lines += [
        (f"  {name}", f"{count:,}", f"{100 * count / total:.1f} %") for name, count in complexity.parameters.items()
    ]
    lines += [("  total", f"{total:,}", f"{total / 1e6:.2f} M"), ("", "", "")]
    lines += [("cost", "multiply-adds", "FLOPs")]
    for label, one in (
        ("  evaluation, one sample", complexity.evaluation),
        (f"  training step, {complexity.batch} samples", complexity.training),
    ):
        lines.append((label, _giga(one.multiply_adds), _giga(one.flops)))
    if complexity.memory is not None:
        lines += [("", "", ""), (f"memory of a training step on one {device}", "", "")]
        lines += [(f"  {name}", f"{count / 2**20:,.0f} MiB", "") for name, count in complexity.memory.items()]
    left = max(len(line[0]) for line in lines if line[1])
    widths = [max(len(line[place]) for line in lines) for place in (1, 2)]
    table = [f"{a.ljust(left)}  {b.rjust(widths[0])}  {c.rjust(widths[1])}".rstrip() for a, b, c in lines]
    notes = [
        "",
        "Multiply-adds: convolutions and matrix products. FLOPs: every operation, as the compiler counts them before",
        "it optimises: a multiply-add is two, but products with the zeros around an image are none.",
    ]
    return "\n".join(table + notes)


def _giga(count: float | None) -> str:
    return "unknown" if count is None else f"{count / 1e9:,.3f} G"


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m mmreid_jax complexity",
        description=__doc__,
        allow_abbrev=False,
        epilog="Settings are overridden as in main.py: --config.data.image_size='(384,128)'.",
    )
    parser.add_argument("--config", required=True, help="experiment, a file of configs/")
    parser.add_argument("--identities", type=int, default=0, help="of the classifier, instead of the data set's")
    parser.add_argument("--cameras", type=int, default=0, help="for side information, instead of the data set's")
    parser.add_argument(
        "--no_memory", action="store_true", help="leave out what the training step must be compiled for"
    )
    arguments, rest = parser.parse_known_args(argv)
    config, name = from_arguments([f"--config={arguments.config}", *rest])
    config = devices.computable(config)
    facts, source = facts_of(config, arguments.identities, arguments.cameras)
    if not arguments.no_memory:
        print("compiling the training step, which may take a minute (--no_memory leaves this out)", file=sys.stderr)
    height, width = config.data.image_size
    print(f"{name}: {config.method}, {' + '.join(facts.modalities)} at {height} x {width}, {source}\n")
    print(describe(measure(config, facts, memory=not arguments.no_memory), jax.local_devices()[0].device_kind))
