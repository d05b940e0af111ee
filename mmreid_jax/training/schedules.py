"""Learning-rate schedules: a rate for every epoch (or step), as a function that can run inside the jitted step.

The published systems set the rate once at the start of an epoch and leave it there, so most schedules are *tables*,
float64 [epochs], made once on the host (`table`) and looked up by step (`by_epoch`). Epochs may differ in length:
`epoch_ends` int64 [epochs] is the cumulative number of steps at the end of each epoch. Epochs count from 0.

A parameter group trains at ``factor`` times the rate of the others. For most schedules that is a plain product; those
of HTT and of DeMo warm every group up from the same rate and let all of them end at the same rate, so the factor is an
argument here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.errors import UserError

NAMES = ("constant", "multi_step", "single_step", "cosine", "htt", "shared_ends", "cosine_per_step")

HTT_WARMUP_SHARE = 0.01
HTT_FINAL_SHARE = 0.002


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Which schedule, and its numbers.

    Attributes:
      name: one of `NAMES`.
      warmup_epochs: length of the warm-up in epochs; 0 for none.
      warmup_start: share of the rate at which the warm-up begins: epoch e of W runs at ``start + (1 - start) e/W``.
        None for ``(e + 1)/W``. Not used by ``htt`` (always 0.01). ``shared_ends``: of the base rate, in all groups.
      milestones: ``multi_step``: epochs from which on the rate is multiplied by `gamma` once more. ``single_step``: the
        last one is the number of epochs after which it is multiplied again and again; as in torchreid, the others are
        not used.
      gamma: ``multi_step`` and ``single_step``: the factor.
      minimum: ``cosine`` and ``cosine_per_step``: share of the rate at the end of the cosine. ``shared_ends``: of the
        base rate, in all groups.
      period: ``cosine``, ``htt`` and ``shared_ends``: epoch at which the cosine ends; None for the number of epochs of
        the run.
      noise: ``shared_ends``: the rate of every epoch before the last is multiplied by one plus a number that is drawn
        from below this in size, see `noises`; 0 for none.
      noise_seed: of these numbers.
    """

    name: str = "constant"
    warmup_epochs: int = 0
    warmup_start: float | None = None
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    minimum: float = 0.0
    period: int | None = None
    noise: float = 0.0
    noise_seed: int = 42

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UserError(f"unknown schedule {self.name!r}; available: {', '.join(NAMES)}")
        if self.warmup_epochs < 0:
            raise UserError(f"schedule {self.name!r}: warmup_epochs is {self.warmup_epochs}; it must be 0 or more")
        if list(self.milestones) != sorted(self.milestones):
            raise UserError(f"schedule {self.name!r}: milestones {tuple(self.milestones)} must be in ascending order")
        if self.name == "single_step" and (not self.milestones or self.milestones[-1] < 1):
            raise UserError(
                f"schedule 'single_step' falls every milestones[-1] epochs; milestones {tuple(self.milestones)} must "
                "end with 1 or more"
            )


def warmup(epochs: int, length: int, start: float | None = None) -> np.ndarray:
    """Warm-up factors, float64 [epochs]: rising for `length` epochs, then 1.

    Epoch e < length has ``start + (1 - start) e/length``, or ``(e + 1)/length`` if `start` is None.
    """
    epoch = np.arange(epochs, dtype=np.float64)
    if length == 0:
        return np.ones(epochs)
    rising = (epoch + 1) / length if start is None else start * (1 - epoch / length) + epoch / length
    return np.where(epoch < length, rising, 1.0)


def multi_step(base: float, epochs: int, milestones: Sequence[int], gamma: float = 0.1) -> np.ndarray:
    """Rates, float64 [epochs]: `base`, multiplied by `gamma` at every milestone (epoch >= milestone)."""
    passed = np.searchsorted(np.asarray(milestones, np.int64), np.arange(epochs), side="right")
    return base * np.float64(gamma) ** passed


def single_step(base: float, epochs: int, period: int, gamma: float = 0.1) -> np.ndarray:
    """Rates, float64 [epochs]: `base`, multiplied by `gamma` after every `period` epochs."""
    return base * np.float64(gamma) ** (np.arange(epochs) // period)


def cosine(base: float, epochs: int, period: int, minimum: float = 0.0) -> np.ndarray:
    """Rates, float64 [epochs]: half a cosine from `base` at epoch 0 to ``minimum * base`` from epoch `period` on."""
    progress = np.minimum(np.arange(epochs, dtype=np.float64) / period, 1.0)
    return base * (minimum + (1 - minimum) * 0.5 * (1 + np.cos(np.pi * progress)))


def htt(
    epoch: np.ndarray | int, base: float, max_epochs: int, warmup_epochs: int = 5, factor: float = 1.0
) -> np.ndarray:
    """Rates of HTT at epochs counted FROM 1, float64, same shape as `epoch`.

    With L = factor * base: below `warmup_epochs` a straight line from 0.01 base (at epoch 0) towards L; then
    ``0.002 base + (L - 0.002 base)(1 + cos(pi epoch / max_epochs))/2``; from `max_epochs` on 0.002 base.

    Parity: the warm-up is not subtracted from the cosine's epoch, so the rate does not start at L; the last epoch
    (epoch == max_epochs) runs at the minimum for every group; the warm-up is tested first, so a run of fewer epochs
    than the warm-up never leaves it; both ends are shares of the base rate whatever the factor of the group.

    Reference: HTT (AAAI 2024), the authors' scheduler.
    """
    ends = {"start": HTT_WARMUP_SHARE, "minimum": HTT_FINAL_SHARE}
    return shared_ends(epoch, base, max_epochs, warmup_epochs, factor, **ends)


def shared_ends(
    epoch: np.ndarray | int,
    base: float,
    max_epochs: int,
    warmup_epochs: int,
    factor: float = 1.0,
    *,
    start: float,
    minimum: float,
) -> np.ndarray:
    """Rates at epochs counted FROM 1 whose groups begin and end at the same rate; float64, same shape as `epoch`.

    With L = factor * base: below `warmup_epochs` a straight line from start * base (at epoch 0) towards L, which a slow
    group descends; then ``minimum base + (L - minimum base)(1 + cos(pi epoch / max_epochs))/2``; from `max_epochs` on
    minimum * base.

    Reference: the scheduler that TransReID took from timm, and HTT, DeMo and MDReID from it.
    """
    t = np.asarray(epoch, np.float64)
    rate, first, last = factor * base, start * base, minimum * base
    rising = first + t * (rate - first) / max(warmup_epochs, 1)
    falling = last + 0.5 * (rate - last) * (1 + np.cos(np.pi * t / max_epochs))
    return np.where(t < warmup_epochs, rising, np.where(t < max_epochs, falling, last))


def noises(epochs: Sequence[int] | np.ndarray, limit: float = 0.67, seed: int = 42) -> np.ndarray:
    """A number for every epoch by which its rate is disturbed: normal, redrawn until smaller than `limit`; float64.

    Each depends on ``seed + epoch`` alone and is the first such number, in float32, of PyTorch's CPU generator with
    that seed: Mersenne twister, two 53-bit uniform numbers u, v for a pair of normal ones, ``sqrt(-2 log(1 - v))``
    times cosine and sine of ``2 pi u``.

    Reference: timm's scheduler, whose noise this is (``noise_range_t``, ``noise_pct`` 0.67, ``noise_seed`` 42).
    """
    return np.array([next(x for x in _normals(seed + int(t)) if abs(x) < limit) for t in epochs], np.float64)


def _normals(seed: int) -> Iterator[float]:
    """Normal numbers of float32 as PyTorch's CPU generator draws them one at a time."""
    # numpy's legacy generator is the same twister with the same initialisation; of all 32 bits, it gives its words.
    twister = np.random.RandomState(seed)

    def uniform() -> float:
        high, low = (int(word) for word in twister.randint(0, 2**32, 2, np.uint32))
        return float((high << 32 | low) & (1 << 53) - 1) * 2.0**-53

    while True:
        u, v = uniform(), uniform()
        radius, angle = math.sqrt(-2.0 * math.log1p(-v)), 2.0 * math.pi * u
        yield float(np.float32(radius * math.cos(angle)))
        yield float(np.float32(radius * math.sin(angle)))


def table(schedule: Schedule, base: float, epochs: int, factor: float = 1.0) -> np.ndarray:
    """Rates of a parameter group for every epoch from 0, float64 [epochs].

    Args:
      schedule: any but ``cosine_per_step``.
      base: the learning rate of the config.
      epochs: length of the run.
      factor: learning-rate factor of the group.

    Raises:
      UserError: the schedule has no rate per epoch.
    """
    period = epochs if schedule.period is None else schedule.period
    if schedule.name == "htt":
        return htt(np.arange(1, epochs + 1), base, period, schedule.warmup_epochs, factor)
    if schedule.name == "shared_ends":
        return _noisy_shared_ends(schedule, base, np.arange(1, epochs + 1), period, factor)
    if schedule.name == "constant":
        rates = np.full(epochs, factor * base)
    elif schedule.name == "multi_step":
        rates = multi_step(factor * base, epochs, schedule.milestones, schedule.gamma)
    elif schedule.name == "single_step":
        rates = single_step(factor * base, epochs, schedule.milestones[-1], schedule.gamma)
    elif schedule.name == "cosine":
        # Only epochs after the warm-up follow the cosine, at their own epoch number: it is not shifted.
        rates = cosine(factor * base, epochs, period, schedule.minimum)
        rates = np.where(np.arange(epochs) < schedule.warmup_epochs, factor * base, rates)
    else:
        raise UserError(f"schedule {schedule.name!r} changes with every step and has no table of epochs")
    return rates * warmup(epochs, schedule.warmup_epochs, schedule.warmup_start)


def _noisy_shared_ends(schedule: Schedule, base: float, epoch: np.ndarray, period: int, factor: float) -> np.ndarray:
    """Rates of `shared_ends` at epochs counted from 1, disturbed where the schedule says so."""
    ends = {"start": schedule.warmup_start or 0.0, "minimum": schedule.minimum}
    rates = shared_ends(epoch, base, period, schedule.warmup_epochs, factor, **ends)
    if not schedule.noise:
        return rates
    return np.where(epoch < period, rates * (1.0 + noises(epoch, schedule.noise, schedule.noise_seed)), rates)


def by_epoch(values_per_epoch: np.ndarray, epoch_ends: np.ndarray) -> optax.Schedule:
    """The schedule step -> value of the step's epoch; jittable.

    Args:
      values_per_epoch: [epochs or more]; entry e holds for steps ``epoch_ends[e-1] <= step < epoch_ends[e]``. Steps
        after the last epoch take the entry after it if there is one, else the last.
      epoch_ends: int64 [epochs], non-decreasing.

    Raises:
      ValueError: fewer values than epochs, or decreasing ends.
    """
    values, ends = np.asarray(values_per_epoch), np.asarray(epoch_ends, np.int64)
    if len(values) < len(ends) or len(ends) == 0:
        raise ValueError(f"{len(values)} values for {len(ends)} epochs; give at least one for each epoch")
    if np.any(np.diff(ends) < 0):
        raise ValueError("epoch_ends must not decrease")

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        epoch = jnp.searchsorted(jnp.asarray(ends), jnp.asarray(step), side="right")
        return jnp.asarray(values)[jnp.minimum(epoch, len(values) - 1)]

    return schedule


def cosine_per_step(peak: float, steps: int, warmup_steps: int = 0, minimum: float = 0.0) -> optax.Schedule:
    """Straight warm-up and half a cosine, changing with every step; jittable.

    Step s < warmup_steps runs at ``peak (s + 1)/warmup_steps``; then a cosine from `peak` at step `warmup_steps` to
    ``minimum * peak`` at step `steps` and beyond.

    Raises:
      UserError: the warm-up is as long as the run or longer.
    """
    if warmup_steps >= steps:
        raise UserError(
            f"the warm-up takes {warmup_steps} of {steps} steps; shorten schedule.warmup_epochs or train longer"
        )

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        s = jnp.asarray(step, jnp.result_type(float))
        progress = jnp.clip((s - warmup_steps) / (steps - warmup_steps), 0.0, 1.0)
        falling = minimum + (1 - minimum) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        return peak * jnp.where(s < warmup_steps, (s + 1) / max(warmup_steps, 1), falling)

    return schedule


def make(schedule: Schedule, base: float, epoch_ends: np.ndarray, factor: float = 1.0) -> optax.Schedule:
    """The schedule step -> learning rate of a parameter group; jittable.

    Args:
      schedule: which, and its numbers.
      base: the learning rate of the config.
      epoch_ends: int64 [epochs], cumulative number of steps at the end of each epoch.
      factor: learning-rate factor of the group.
    """
    ends = np.asarray(epoch_ends, np.int64)
    if schedule.name == "cosine_per_step":
        length = int(ends[min(schedule.warmup_epochs, len(ends)) - 1]) if schedule.warmup_epochs else 0
        return cosine_per_step(factor * base, int(ends[-1]), length, schedule.minimum)
    return by_epoch(table(schedule, base, len(ends), factor), ends)
