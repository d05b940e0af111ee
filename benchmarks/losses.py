"""How long HTT's losses take: python -m benchmarks.losses [--batch 32 64] [--dimension D]

Value and gradient of the vectorised losses of the package, compiled, in turn with the value alone of the same losses
written in numpy as loops over identities, samples and modalities, which is how they are usually published. Both are
checked to agree before they are timed. Prints a markdown table; every figure is the best of several rounds.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.errors import run_command
from mmreid_jax.losses import margins, triplet

Array = jax.Array
Loss = Callable[[Array], Array]
Loops = Callable[[np.ndarray], float]
MODALITIES, PER_IDENTITY = 3, 4


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64], help="samples in a batch")
    parser.add_argument("--dimension", type=int, default=768, help="size of a feature")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of the vectorised losses; the best counts")
    parser.add_argument("--loop_rounds", type=int, default=3, help="rounds of the loops")
    arguments = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, {arguments.dimension} dimensions, {PER_IDENTITY} samples an identity\n")
    print("| loss | batch | value and gradient (ms) | temporary (MB) | numpy loops, value alone (ms) | ratio |")
    print("|---|---|---|---|---|---|")
    for batch in arguments.batch:
        drawn = np.random.default_rng(batch).standard_normal((MODALITIES, batch, arguments.dimension))
        for name, forms in losses(batch).items():
            ours, theirs, memory = measure(name, *forms, np.float32(drawn), arguments)
            print(
                f"| {name} | {batch} | {1e3 * ours:.2f} | {memory / 1e6:.1f} | {1e3 * theirs:,.1f} |"
                f" {theirs / ours:,.1f} |",
                flush=True,
            )


def measure(
    name: str, vectorised: Loss, loops: Loops, features: np.ndarray, arguments: argparse.Namespace
) -> tuple[float, float, int]:
    """(seconds of the vectorised form, seconds of the loops, temporary bytes of the vectorised form).

    Raises:
      AssertionError: the two forms disagree beyond float32 rounding.
    """
    on_device = jnp.asarray(features)
    step = jax.jit(jax.value_and_grad(vectorised)).lower(on_device).compile()
    value, expected = float(step(on_device)[0]), loops(features)
    assert abs(value - expected) <= 1e-4 * abs(expected), f"{name}: vectorised {value}, loops {expected}"
    times = [
        (seconds(lambda: step(on_device), arguments.rounds), seconds(lambda: loops(features), 1))
        for _ in range(arguments.loop_rounds)
    ]
    ours, theirs = (min(column) for column in zip(*times, strict=True))
    return ours, theirs, step.memory_analysis().temp_size_in_bytes


def losses(batch: int) -> dict[str, tuple[Loss, Loops]]:
    """Name -> (vectorised loss, the same as loops) of features [M, B, D] of a sorted P x K batch."""
    identities = batch // PER_IDENTITY
    labels = jnp.repeat(jnp.arange(identities), PER_IDENTITY)
    positional = {"grouping": "positional", "num_identities": identities}
    three, cross = margins.three_modal_margin_loss, margins.cross_identity_margin_loss
    return {
        "triplet": (lambda x: triplet.batch_hard_triplet(jnp.concatenate(list(x), axis=-1), labels)[0], triplet_loops),
        "3M, positional": (lambda x: three(x, **positional), three_modal_loops),
        "3M, by label": (lambda x: three(x, labels), three_modal_loops),
        "CIM, positional": (lambda x: cross(x, **positional), cross_identity_loops),
        "CIM, by label": (lambda x: cross(x, labels), cross_identity_loops),
    }


def triplet_loops(features: np.ndarray) -> float:
    """Soft-margin batch-hard triplet, one anchor at a time."""
    x = np.concatenate(list(features), axis=-1)
    terms = []
    for i in range(len(x)):
        start = i // PER_IDENTITY * PER_IDENTITY
        apart = np.sqrt(np.maximum(np.square(x - x[i]).sum(axis=1), 1e-12))
        others = np.delete(apart, np.s_[start : start + PER_IDENTITY])
        terms.append(np.logaddexp(0, apart[start : start + PER_IDENTITY].max() - others.min()))
    return float(np.mean(terms))


def three_modal_loops(features: np.ndarray) -> float:
    """3M, one identity and one pair of modalities at a time."""
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    total = 0.0
    for start in range(0, features.shape[1], PER_IDENTITY):
        centers = [modality[start : start + PER_IDENTITY].mean(axis=0) for modality in unit]
        total += max(abs(1 - np.square(a - b).sum()) for a, b in itertools.combinations(centers, 2))
    return float(total)


def cross_identity_loops(features: np.ndarray) -> float:
    """CIM, one pair of identities, samples and modalities at a time."""
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    groups = [
        [row for sample in range(start, start + PER_IDENTITY) for row in unit[:, sample]]
        for start in range(0, features.shape[1], PER_IDENTITY)
    ]
    values = [
        max(abs(0.5 - np.abs(a - b).mean()) for a, b in itertools.product(u, v))
        for u, v in itertools.combinations(groups, 2)
    ]
    return float(np.mean(values))


def seconds(run: Callable[[], object], rounds: int) -> float:
    """Shortest wall-clock time of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    run_command(main)
