"""Numbers of a program that depend on the size of the batch, found by tracing it at two sizes.

A program on a batch of B samples has shapes such as [3 * B, 129, 768]. JAX can trace it with an unknown B, but then no
function on the way may ask for the length of an array. Traced twice with known sizes it is two programs that differ in
nothing but such numbers, and each of these is read off as ``per_sample * B + fixed``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

TRACED = (5, 7)
"""Sizes of the batch that programs are traced at: primes that no network has as a width of its own."""


class Differs(Exception):
    """The two traces differ in more than numbers that grow with the batch."""


@dataclasses.dataclass(frozen=True)
class Growing:
    """A number that grows with the batch: ``per_sample * B + fixed``."""

    per_sample: int
    fixed: int


Size = int | Growing
Shape = tuple[Size, ...]


def of(first: int, second: int) -> Size:
    """The number that is `first` in the first trace and `second` in the second one.

    Raises:
      Differs: it does not grow with the batch in whole steps.
    """
    if first == second:
        return int(first)
    step, rest = divmod(second - first, TRACED[1] - TRACED[0])
    if rest:
        raise Differs(f"a size is {first} for {TRACED[0]} samples and {second} for {TRACED[1]}")
    return Growing(step, first - step * TRACED[0])


def merged(first: Any, second: Any) -> Any:
    """What two traces say in the same place, numbers in tuples as `of` gives them.

    Raises:
      Differs: they say different things.
    """
    if isinstance(first, tuple | list) and isinstance(second, tuple | list) and len(first) == len(second):
        return tuple(merged(*pair) for pair in zip(first, second, strict=True))
    if isinstance(first, int | np.integer) and isinstance(second, int | np.integer) and not isinstance(first, bool):
        return of(int(first), int(second))
    both_undefined = isinstance(first, float) and isinstance(second, float) and first != first and second != second
    if first is second or first == second or both_undefined:
        return first
    raise Differs(f"{first!r} for {TRACED[0]} samples is {second!r} for {TRACED[1]}")


def shape(first: tuple[int, ...], second: tuple[int, ...]) -> Shape:
    """The shape of an array in both traces."""
    if len(first) != len(second):
        raise Differs(f"an array is {list(first)} for {TRACED[0]} samples and {list(second)} for {TRACED[1]}")
    return tuple(of(*pair) for pair in zip(first, second, strict=True))


def fixed(shape: Shape) -> tuple[int, ...]:
    """A shape that does not depend on the batch.

    Raises:
      Differs: it does.
    """
    if grown := [size for size in shape if isinstance(size, Growing)]:
        raise Differs(f"a size that must be fixed is {grown[0].per_sample} for every sample")
    return tuple(size for size in shape if isinstance(size, int))


def times(*factors: Size) -> Size:
    """The product of sizes of which at most one grows."""
    product: Size = 1
    for factor in factors:
        if isinstance(product, int) and isinstance(factor, int):
            product = product * factor
        elif isinstance(product, Growing) and isinstance(factor, Growing):
            raise Differs("the network compares the samples of a batch with one another")
        else:
            growing, fixed = (product, factor) if isinstance(product, Growing) else (factor, product)
            assert isinstance(growing, Growing)
            assert isinstance(fixed, int)
            product = Growing(growing.per_sample * fixed, growing.fixed * fixed)
    return product
