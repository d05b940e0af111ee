"""Permutation recovery: orders of stripes, the Sinkhorn operator, the loss of a predicted permutation and its accuracy.

An *order* o is a permutation of 0..S-1: place i of a shuffled image shows stripe o[i] of the image. Its matrix P has
P[i, o[i]] = 1: rows are places, columns are stripes. The *rank* of an order is its number in lexicographic order, from
0, the identity.

Reference: Wan et al. (MMGL, arXiv 2112.06147), method figure: P from a linear layer through 20 Sinkhorn operations,
compared by mean squared error. The operator follows Mena et al. 2018 (Gumbel-Sinkhorn).
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mmreid_jax.errors import UserError
from mmreid_jax.losses.vectors import at_least_float32

Array = jax.Array

REDUCTIONS = ("sum", "mean")
# The largest number of stripes whose orders are kept as a table; whose ranks are int32; and of which the sets of
# stripes that `assign` goes through are few.
LARGEST_TABLE, MOST_STRIPES, MOST_ASSIGNED = 6, 12, 12


def count(stripes: int) -> int:
    """The number of orders, S!.

    Raises:
      UserError: fewer than one stripe, or so many that ranks do not fit int32.
    """
    if not 1 <= stripes <= MOST_STRIPES:
        raise UserError(f"{stripes} stripes have no orders to rank; choose 1 to {MOST_STRIPES} stripes")
    return math.factorial(stripes)


def orders(stripes: int) -> np.ndarray:
    """All orders, lexicographic: int32 [S!, S], row r is the order of rank r.

    Raises:
      UserError: more than `LARGEST_TABLE` stripes, whose table would be long; see `unrank`.
    """
    if not 1 <= stripes <= LARGEST_TABLE:
        raise UserError(f"there is no table of the orders of {stripes} stripes; choose 1 to {LARGEST_TABLE} stripes")
    return np.array(list(itertools.permutations(range(stripes))), np.int32)


def unrank(ranks: Array, stripes: int) -> Array:
    """The orders of given ranks; jittable.

    From the table where there is one, else by the factorial number system: its digit i counts the stripes below o[i]
    that stand after it.

    Args:
      ranks: int [B], 0 <= rank < S!.
      stripes: S, static.

    Returns:
      int32 [B, S].

    Raises:
      UserError: more than `MOST_STRIPES` stripes.
    """
    total = count(stripes)
    if stripes <= LARGEST_TABLE:
        return jnp.asarray(orders(stripes))[ranks]
    places = np.arange(stripes)
    radix = stripes - places
    weights = total // np.cumprod(radix)
    order = jnp.asarray(ranks)[:, None] // weights % radix
    # Digits become stripes from the right: those after a place step aside for the one that it takes.
    for place in reversed(range(stripes - 1)):
        aside = (places > place) & (order >= order[:, place, None])
        order = order + aside
    return order.astype(jnp.int32)


def matrices(orders: Array, dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """Permutation matrices of orders: int [B, S] -> [B, S, S] with P[i, o[i]] = 1.

    P times stripes in their own order gives the shuffled ones; its transpose is its inverse.
    """
    return jax.nn.one_hot(orders, orders.shape[-1], dtype=dtype)


def sinkhorn(logits: Array, iterations: int = 20, temperature: float = 1.0) -> Array:
    """Matrices with nearly equal sums: exp(logits / temperature), rows and columns scaled to sum 1 in turn.

    In log space, rows first, so that after any iteration columns sum to one exactly and rows nearly. Gradients go
    through all iterations.

    Args:
      logits: [..., S, S]; in half precision they are computed in float32.
      iterations: number of pairs of a row and a column step, static.
      temperature: divides the logits.

    Returns:
      [..., S, S], at least float32.

    Raises:
      UserError: the number of iterations is negative, or the temperature not positive.
    """
    if iterations < 0 or not temperature > 0:
        raise UserError(
            f"Sinkhorn with {iterations} iterations at temperature {temperature:g} cannot be computed; give 0 or more"
            " iterations and a temperature above 0"
        )
    # The batch goes last, where it fills whole vectors: sums along axes of length S would not. And a scan rather than
    # 40 steps in a row, which take ten times as long to compile and more than that to run.
    start = jnp.moveaxis(at_least_float32(logits) / temperature, (-2, -1), (0, 1))

    def iterate(logs: Array, _: None) -> tuple[Array, None]:
        return jax.nn.log_softmax(jax.nn.log_softmax(logs, axis=1), axis=0), None

    logs, _ = jax.lax.scan(iterate, start, length=iterations)
    return jnp.moveaxis(jnp.exp(logs), (0, 1), (-2, -1))


def noisy(logits: Array, key: Array, samples: int, noise: float) -> Array:
    """Copies of logits with Gumbel noise: [N, S, S] -> [samples, N, S, S], ``logits + noise * g``.

    Sinkhorn of such logits at a low temperature draws permutations (Mena et al. 2018, section 3.2).

    Args:
      logits: [N, S, S].
      key: random key.
      samples: copies, each with noise of its own; static.
      noise: factor of the noise.

    Raises:
      UserError: fewer than one sample, or a negative factor.
    """
    if samples < 1 or noise < 0:
        raise UserError(
            f"{samples} samples with {noise:g} times Gumbel noise cannot be drawn; give 1 or more samples and a factor"
            " of 0 or more"
        )
    logits = at_least_float32(logits)
    return logits + noise * jax.random.gumbel(key, (samples, *logits.shape), logits.dtype)


def permutation_loss(predicted: Array, truth: Array, reduction: str = "sum") -> Array:
    """Squared difference of predicted and true matrices, averaged over images (and over samples, if there are some).

    ``sum`` is over the elements of a matrix (the squared Frobenius norm), ``mean`` is that divided by S * S, a literal
    mean squared error. The uniform matrix has S - 1 in sum. Wan et al. say only "MSE"; with ``mean`` the gradient is so
    small that the network hardly leaves its start.

    Args:
      predicted: [..., N, S, S].
      truth: [N, S, S].
      reduction: see above.

    Returns:
      Scalar.

    Raises:
      UserError: there is no such reduction.
    """
    if reduction not in REDUCTIONS:
        raise UserError(
            f"unknown reduction {reduction!r} of the permutation loss; choose one of {', '.join(REDUCTIONS)}"
        )
    squared = jnp.square(at_least_float32(predicted) - at_least_float32(truth))
    return jnp.mean(squared) if reduction == "mean" else jnp.mean(jnp.sum(squared, axis=(-2, -1)))


def assign(predicted: Array) -> Array:
    """The best order of every predicted matrix: argmax over orders o of sum_i predicted[i, o[i]]; jittable.

    As exact as the Hungarian method, by dynamic programming over sets of stripes: the best score of places i.. depends
    only on which i stripes stand before them. That takes S * 2^S sums, where a search of all orders takes S * S!. Among
    equally good orders the one of lowest rank is chosen.

    Args:
      predicted: [N, S, S].

    Returns:
      int32 [N, S].

    Raises:
      UserError: more than `MOST_ASSIGNED` stripes.
    """
    images, stripes, _ = predicted.shape
    if not 1 <= stripes <= MOST_ASSIGNED:
        raise UserError(f"{stripes} stripes cannot be assigned; choose 1 to {MOST_ASSIGNED} stripes")
    predicted = at_least_float32(predicted)
    sets = np.arange(2**stripes)
    free = (sets[:, None] >> np.arange(stripes)) & 1 == 0
    # Sets of equal size stand together, in columns of one array; `column` says where.
    size = stripes - free.sum(axis=1)
    column = np.zeros_like(sets)
    for place in range(stripes + 1):
        column[size == place] = np.arange(np.sum(size == place))
    after = column[sets[:, None] | 1 << np.arange(stripes)]
    best, choices = jnp.zeros((images, 1), predicted.dtype), []
    for place in reversed(range(stripes)):
        here = size == place
        scores = predicted[:, place, None, :] + best[:, after[here]]
        scores = jnp.where(free[here], scores, -jnp.inf)
        choices.append(jnp.argmax(scores, axis=-1))
        best = jnp.max(scores, axis=-1)
    assigned, order = jnp.zeros((images, 1), jnp.int32), []
    for choice in reversed(choices):
        stripe = jnp.take_along_axis(choice, jnp.asarray(column)[assigned], axis=1).astype(jnp.int32)
        assigned = assigned | (1 << stripe)
        order.append(stripe)
    return jnp.concatenate(order, axis=1)


def accuracies(predicted: Array, orders: Array) -> dict[str, Array]:
    """How right predicted matrices are, image by image.

    Args:
      predicted: [N, S, S].
      orders: int [N, S], the true ones.

    Returns:
      ``exact``: 1 where the whole of `assign` is right, else 0 (by chance 1 of S!). ``stripe``: share of the stripes
      that it has right. ``row``: share of rows whose largest element is right, the first if there are several (by
      chance 1 of S both). Each [N], at least float32.
    """
    dtype = jnp.promote_types(predicted.dtype, jnp.float32)
    right = assign(predicted) == orders
    rows = jnp.argmax(predicted, axis=-1) == orders
    shares = {"exact": jnp.all(right, axis=-1), "stripe": right, "row": rows}
    return {name: values.astype(dtype).reshape(len(orders), -1).mean(axis=-1) for name, values in shares.items()}
