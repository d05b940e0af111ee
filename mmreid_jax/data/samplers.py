"""Plans: which samples make up every batch of a run, known before the first image is read.

A `Plan` is a sequence over the steps of the whole run. Element j is a `Draw`: the step, its epoch and the rows of the
records table in that batch. A plan is a function of labels and seed alone, so a run can be resumed at any step, and
any number of threads, worker processes or hosts see the same batches.

* `pk`: P identities x K images, every epoch a function of (seed, epoch); identities and their images are used evenly.
* `pk_reference`: the draw order of the HTT / TransReID and torchreid codes (`RandomIdentitySampler`), for parity.
* `spread_reference`: batches spread evenly over cameras or other sources, in the draw order of torchreid's code
  (`RandomDomainSampler`, `RandomDatasetSampler`).
* `cross_modal`: P identities x K images of each of several modalities, every epoch a function of (seed, epoch).
* `cross_modal_reference`: the same in the draw order of Hetero-Center, AGW and its successors.
* `unpaired`: without labels, unrelated images of several modalities side by side.
* `shuffled`: every sample once an epoch in random order, as in test-time training.
* `sequential`: every sample once, in order, as in evaluation.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import numpy as np

from mmreid_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Draw:
    """One batch of a plan.

    Attributes:
      step: position in the run, counted from 0.
      epoch: epoch of that step, counted from 0.
      indices: int64 [B], rows of the records table; [B, M] where each of M modalities has a row of its own.
    """

    step: int
    epoch: int
    indices: np.ndarray


class Plan(Sequence[Draw]):
    """The batches of a whole run, by step.

    Attributes:
      batch: samples in a batch, B. Only the last draw of an epoch may hold fewer, and only where its maker says so.
      epoch_ends: int64 [epochs], number of steps up to and including each epoch.
    """

    def __init__(self, batch: int, orders: Callable[[int], np.ndarray], epoch_ends: np.ndarray) -> None:
        """Makes a plan.

        Args:
          batch: samples in a batch.
          orders: epoch -> int64 [samples] or [samples, M], the rows of that epoch batch after batch; picklable.
          epoch_ends: int64 [epochs], cumulative number of steps.
        """
        self.batch = batch
        self.epoch_ends = epoch_ends
        self._orders = orders
        # Two epochs, so that reading ahead over the end of an epoch does not compute both again and again.
        self._order = functools.lru_cache(maxsize=2)(orders)

    def __reduce__(self) -> tuple[Any, ...]:
        return Plan, (self.batch, self._orders, self.epoch_ends)

    def __len__(self) -> int:
        return int(self.epoch_ends[-1])

    @overload
    def __getitem__(self, step: int) -> Draw: ...
    @overload
    def __getitem__(self, step: slice) -> list[Draw]: ...
    def __getitem__(self, step: int | slice) -> Draw | list[Draw]:
        if isinstance(step, slice):
            return [self[j] for j in range(*step.indices(len(self)))]
        step = operator.index(step)
        if not -len(self) <= step < len(self):
            raise IndexError(f"step {step} of a plan of {len(self)} steps")
        step %= len(self)
        epoch = int(np.searchsorted(self.epoch_ends, step, side="right"))
        start = (step - (int(self.epoch_ends[epoch - 1]) if epoch else 0)) * self.batch
        return Draw(step, epoch, self._order(epoch)[start : start + self.batch])


def identities_per_batch(batch: int, per_identity: int) -> int:
    """P of a batch of P x K samples; `UserError` when `batch` is not a multiple of K = `per_identity`."""
    if per_identity < 1 or batch < per_identity or batch % per_identity:
        raise UserError(
            f"batch {batch} is not P x K with K={per_identity}; choose a multiple of {max(per_identity, 1)}"
        )
    return batch // per_identity


def pk(
    identity: np.ndarray,
    num_identities: int,
    per_identity: int,
    epochs: int,
    seed: int,
    steps_per_epoch: int | None = None,
) -> Plan:
    """P x K batches that use every image evenly; each epoch is a function of (seed, epoch).

    A batch is P contiguous blocks of K equal identities, the P identities distinct. Within an epoch an identity
    gives groups of K in proportion to its number of images (never more than one a batch) and its images are
    dealt in turn from a random order, so two images of one identity differ by at most one appearance. An identity with
    fewer than K images counts as K images, and repeats them.

    Args:
      identity: int [N], identity (or class) of every row.
      num_identities: P, identities in a batch.
      per_identity: K, images of each.
      epochs: number of epochs.
      seed: integer from 0, below 2**32.
      steps_per_epoch: batches in an epoch; by default as many as the images fill.

    Returns:
      A plan with B = P * K.

    Raises:
      UserError: fewer identities than P, or a number that makes no sense.
    """
    _check(epochs, seed)
    rows = _rows_of_identities(identity, num_identities, per_identity)
    share = np.array([max(len(r), per_identity) for r in rows]) / per_identity
    steps = max(1, int(share.sum() / num_identities)) if steps_per_epoch is None else steps_per_epoch
    if steps < 1:
        raise UserError(f"steps_per_epoch is {steps}; it must be at least 1")
    groups = _capped_shares(share, steps * num_identities, steps)
    orders = functools.partial(_pk_epoch, rows, groups, num_identities, per_identity, steps, seed)
    return Plan(num_identities * per_identity, orders, steps * np.arange(1, epochs + 1))


def pk_reference(identity: np.ndarray, num_identities: int, per_identity: int, epochs: int, seed: int) -> Plan:
    """P x K batches in the draw order of HTT's, TransReID's and torchreid's code, epoch after epoch from one seed.

    Python's and numpy's generators are seeded once and run on over the epochs. An epoch ends when fewer than P
    identities have groups left, so the epochs differ in length.

    Args:
      identity: int [N], identity of every row; the order of first appearance matters.
      num_identities: P, identities in a batch.
      per_identity: K, images of each.
      epochs: number of epochs, all drawn at once: later ones depend on earlier ones.
      seed: integer from 0, below 2**32.

    Returns:
      A plan with B = P * K.

    Raises:
      UserError: fewer identities than P, or a number that makes no sense.
    """
    _check(epochs, seed)
    rows = _rows_of_identities(identity, num_identities, per_identity)
    rows = sorted(rows, key=operator.itemgetter(0))
    python, numpy = random.Random(seed), np.random.RandomState(seed)
    orders = [_pk_reference_epoch(rows, num_identities, per_identity, python, numpy) for _ in range(epochs)]
    batch = num_identities * per_identity
    ends = np.cumsum([len(order) // batch for order in orders])
    return Plan(batch, functools.partial(_stored_epoch, orders), ends)


def spread_reference(source: np.ndarray, num_sources: int, per_source: int, epochs: int, seed: int) -> Plan:
    """Batches of equally many images from each of several cameras or data sets, in the draw order of torchreid.

    A batch takes `num_sources` sources at random, and `per_source` images of each that the epoch has not used yet. The
    epoch ends with the first batch that leaves a source fewer than `per_source`, so epochs differ in length. Python's
    generator is seeded once and runs on over the epochs.

    Args:
      source: int [N], camera (or data set) of every row; the order of first appearance matters.
      num_sources: sources in a batch.
      per_source: images of each.
      epochs: number of epochs, all drawn at once: later ones depend on earlier ones.
      seed: integer from 0, below 2**32.

    Returns:
      A plan with B = num_sources * per_source.

    Raises:
      UserError: fewer sources than a batch takes, a source with too few images, or a number that makes no sense.
    """
    _check(epochs, seed)
    if num_sources < 1 or per_source < 1:
        raise UserError(f"{num_sources} sources x {per_source} images is not a batch; both must be positive")
    rows: dict[int, list[int]] = {}
    for row, name in enumerate(np.asarray(source).tolist()):
        rows.setdefault(name, []).append(row)
    if len(rows) < num_sources:
        raise UserError(f"a batch of {num_sources} cameras or sources cannot be drawn from {len(rows)}; take fewer")
    few = [name for name, members in rows.items() if len(members) < per_source]
    if few:
        raise UserError(
            f"camera or source {few[0]} has {len(rows[few[0]])} images, fewer than the {per_source} of a batch; "
            "take fewer of each"
        )
    python = random.Random(seed)
    orders = [_spread_reference_epoch(rows, num_sources, per_source, python) for _ in range(epochs)]
    batch = num_sources * per_source
    ends = np.cumsum([len(order) // batch for order in orders])
    return Plan(batch, functools.partial(_stored_epoch, orders), ends)


def cross_modal(
    label: np.ndarray,
    modality: np.ndarray,
    modalities: Sequence[str],
    num_identities: int,
    per_identity: int,
    epochs: int,
    seed: int,
    *,
    replace: bool = True,
) -> Plan:
    """P x K batches of every modality at once; each epoch is a function of (seed, epoch).

    Row i of a batch is one image of each modality, of the same person but otherwise unrelated: P distinct identities at
    random, for each of them K images of each modality. An epoch has N // (P K) + 1 batches, N being the number of
    images of the largest modality; it visits as many images as that modality has, not each of them once.

    Args:
      label: int [N], class index (or identity) of every row.
      modality: str [N], the modality of every row.
      modalities: names of M modalities, one for each column of a draw.
      num_identities: P, identities in a batch.
      per_identity: K, images of each in each modality.
      epochs: number of epochs.
      seed: integer from 0, below 2**32.
      replace: the K images are drawn independently, as in AGW and its successors; else they differ, as in
        Hetero-Center.

    Returns:
      A plan with B = P * K, whose indices are [B, M].

    Raises:
      UserError: fewer identities than P, an identity without images (without `replace`: with fewer than K) in one of
        the modalities, or a number that makes no sense.
    """
    _check(epochs, seed)
    rows = _rows_by_modality(label, modality, modalities, num_identities, 1 if replace else per_identity, per_identity)
    steps = _cross_modal_steps(rows, num_identities * per_identity)
    orders = functools.partial(_cross_modal_epoch, rows, num_identities, per_identity, steps, seed, replace)
    return Plan(num_identities * per_identity, orders, steps * np.arange(1, epochs + 1))


def cross_modal_reference(
    label: np.ndarray,
    modality: np.ndarray,
    modalities: Sequence[str],
    num_identities: int,
    per_identity: int,
    epochs: int,
    seed: int,
    *,
    replace: bool = True,
    second_batch_twice: bool = False,
) -> Plan:
    """The same batches in the draw order of the references: numpy's legacy generator, seeded once for all epochs.

    A later epoch depends on all before it: it is drawn when first asked for, from the state that the one before left.

    Reference: `IdentitySampler` of Hetero-Center (`replace=False`) and of AGW, CAJ, DDAG, MMGL, LLCM and TVI-LFM.

    Args:
      label: see `cross_modal`.
      modality: see `cross_modal`.
      modalities: see `cross_modal`; visible first.
      num_identities: see `cross_modal`.
      per_identity: see `cross_modal`.
      epochs: see `cross_modal`.
      seed: see `cross_modal`.
      replace: see `cross_modal`.
      second_batch_twice: Parity: Hetero-Center loses the first batch of an epoch and shows the second in its place.
    """
    _check(epochs, seed)
    rows = _rows_by_modality(label, modality, modalities, num_identities, 1 if replace else per_identity, per_identity)
    steps = _cross_modal_steps(rows, num_identities * per_identity)
    orders = _CrossModalStream(rows, num_identities, per_identity, steps, seed, replace, second_batch_twice)
    return Plan(num_identities * per_identity, orders, steps * np.arange(1, epochs + 1))


def unpaired(modality: np.ndarray, modalities: Sequence[str], batch: int, epochs: int, seed: int) -> Plan:
    """Batches of unrelated images of every modality, drawn without labels; each epoch is a function of (seed, epoch).

    Row i of a batch is one image of each modality. An epoch is one pass over the largest modality in random order,
    without what is left after the last whole batch; a smaller one is shuffled anew whenever it has been used up. No
    image comes twice in a batch.

    Args:
      modality: str [N], the modality of every row.
      modalities: names of M modalities, one for each column of a draw.
      batch: B, images of each modality.
      epochs: number of epochs.
      seed: integer from 0, below 2**32.

    Returns:
      A plan whose indices are [B, M].

    Raises:
      UserError: a modality has fewer images than a batch, or a number that makes no sense.
    """
    _check(epochs, seed)
    rows = [np.flatnonzero(np.asarray(modality) == name) for name in modalities]
    for name, of_modality in zip(modalities, rows, strict=True):
        if len(of_modality) < batch:
            raise UserError(
                f"{len(of_modality)} images have the modality {name!r}, fewer than the {batch} of a batch; choose a"
                " smaller config.train.images_per_identity"
            )
    steps = _steps(max(map(len, rows)), batch, drop_last=True)
    orders = functools.partial(_unpaired_epoch, rows, batch, steps, seed)
    return Plan(batch, orders, steps * np.arange(1, epochs + 1))


def shuffled(n: int, batch: int, epochs: int, seed: int, drop_last: bool = True) -> Plan:
    """Every one of `n` samples at most once an epoch, in an order that is a function of (seed, epoch).

    Test-time training visits the query list followed by the gallery list in this way, two samples a batch. What is left
    after the last whole batch is dropped (a single sample has no batch variance), or, without `drop_last`, makes a
    shorter last batch.

    Raises:
      UserError: fewer samples than a batch, or a number that makes no sense.
    """
    _check(epochs, seed)
    steps = _steps(n, batch, drop_last)
    size = min(n, steps * batch)
    return Plan(batch, functools.partial(_shuffled_epoch, n, size, seed), steps * np.arange(1, epochs + 1))


def sequential(n: int, batch: int) -> Plan:
    """One epoch over `n` samples in order; the last batch may be shorter."""
    return Plan(batch, functools.partial(_sequential_epoch, n), np.array([_steps(n, batch, drop_last=False)]))


def _check(epochs: int, seed: int) -> None:
    if epochs < 1:
        raise UserError(f"the number of epochs is {epochs}; it must be at least 1")
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed is {seed}; it must be at least 0 and below 2**32")


def _steps(n: int, batch: int, drop_last: bool) -> int:
    if batch < 1:
        raise UserError(f"the batch size is {batch}; it must be at least 1")
    if n < (batch if drop_last else 1):
        raise UserError(f"{n} samples do not fill a batch of {batch}; choose a smaller batch or add samples")
    return n // batch if drop_last else -(-n // batch)


def _epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))


def _rows_of_identities(identity: np.ndarray, num_identities: int, per_identity: int) -> list[np.ndarray]:
    """The rows of each identity, identities ascending; checks that P x K batches can be made of them."""
    if num_identities < 1 or per_identity < 1:
        raise UserError(
            f"P={num_identities} identities x K={per_identity} images is not a batch; both must be positive"
        )
    identity = np.asarray(identity)
    by_identity = np.argsort(identity, kind="stable")
    _, starts = np.unique(identity[by_identity], return_index=True)
    if len(starts) < num_identities:
        raise UserError(
            f"a batch of P={num_identities} identities cannot be drawn from {len(starts)}; "
            f"choose a batch of at most {len(starts)} x K={per_identity} = {len(starts) * per_identity} samples"
        )
    return np.split(by_identity, starts[1:])


def _capped_shares(share: np.ndarray, total: int, cap: int) -> np.ndarray:
    """float64 [C], shares scaled to the sum `total` and held at `cap`; what is cut off goes to the others."""
    capped = np.zeros(len(share), bool)
    while True:
        # Once all are held at the cap there is nothing left to share out, and nothing to divide by.
        scaled = share * ((total - cap * capped.sum()) / max(share[~capped].sum(), np.finfo(float).tiny))
        over = ~capped & (scaled > cap)
        if not over.any():
            return np.where(capped, cap, scaled)
        capped |= over


def _whole_groups(groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """int64 [C], each entry of `groups` (whole sum) rounded up or down at random, unbiased, with the same sum.

    Systematic sampling: the fractions are laid end to end in random order, and those that hold one of the marks
    u, u + 1, u + 2, ... are rounded up.
    """
    whole = np.floor(groups).astype(np.int64)
    missing = round(groups.sum() - whole.sum())
    if missing:
        order = generator.permutation(len(groups))
        ends = np.cumsum((groups - whole)[order])
        marks = (np.arange(missing) + generator.random()) * (ends[-1] / missing)
        whole[order[np.searchsorted(ends, marks, side="right")]] += 1
    return whole


def _pk_epoch(
    rows: Sequence[np.ndarray],
    groups: np.ndarray,
    num_identities: int,
    per_identity: int,
    steps: int,
    seed: int,
    epoch: int,
) -> np.ndarray:
    """int64 [steps * P * K], the rows of one epoch of `pk`; `groups` float64 [C] sums to steps * P."""
    generator = _epoch_generator(seed, epoch)
    left = _whole_groups(groups, generator)
    dealt = [np.resize(generator.permutation(r), (count, per_identity)) for r, count in zip(rows, left, strict=True)]
    hurry = generator.standard_exponential((steps, len(rows)))
    order = np.empty((steps, num_identities, per_identity), np.int64)
    for step in range(steps):
        # The P smallest exponential variates over weights are a draw without replacement by weight. An identity with
        # as many groups as there are batches left has to come now: that is what makes everything fit.
        key = np.divide(hurry[step], left, out=np.full(len(rows), np.inf), where=left > 0)
        key[left == steps - step] = -1 / (1 + hurry[step, left == steps - step])
        chosen = np.argpartition(key, num_identities - 1)[:num_identities]
        left[chosen] -= 1
        order[step] = [dealt[c][left[c]] for c in chosen]
    return order.reshape(-1)


def _pk_reference_epoch(
    rows: Sequence[np.ndarray],
    num_identities: int,
    per_identity: int,
    python: random.Random,
    numpy: np.random.RandomState,
) -> np.ndarray:
    """int64 [steps * P * K], one epoch of `pk_reference`; moves both generators on."""
    groups = []
    for members in rows:
        images = (
            members.copy() if len(members) >= per_identity else numpy.choice(members, size=per_identity, replace=True)
        )
        python.shuffle(images)  # type: ignore[arg-type]
        whole = len(images) // per_identity
        groups.append(iter(images[: whole * per_identity].reshape(whole, per_identity)))
    left = np.array([max(len(members), per_identity) // per_identity for members in rows])
    available = list(range(len(rows)))
    order = []
    while len(available) >= num_identities:
        for chosen in python.sample(available, num_identities):
            order.append(next(groups[chosen]))
            left[chosen] -= 1
            if not left[chosen]:
                available.remove(chosen)
    return np.concatenate(order)


def _spread_reference_epoch(
    rows: Mapping[int, Sequence[int]], num_sources: int, per_source: int, python: random.Random
) -> np.ndarray:
    """int64 [steps * B], one epoch of `spread_reference`; moves the generator on."""
    left = {name: list(members) for name, members in rows.items()}
    order: list[int] = []
    while all(len(members) >= per_source for members in left.values()):
        for name in python.sample(list(left), num_sources):
            drawn = python.sample(left[name], per_source)
            order.extend(drawn)
            used = set(drawn)
            left[name] = [row for row in left[name] if row not in used]
    return np.array(order, np.int64)


def _rows_by_modality(
    label: np.ndarray,
    modality: np.ndarray,
    modalities: Sequence[str],
    num_identities: int,
    least: int,
    per_identity: int,
) -> list[list[np.ndarray]]:
    """For each modality the rows of each identity, identities ascending and the same in all modalities.

    Every identity has at least `least` rows in each modality.
    """
    label, modality = np.asarray(label), np.asarray(modality)
    missing = [name for name in modalities if not np.any(modality == name)]
    if missing:
        there = ", ".join(sorted(set(modality.tolist()))) or "none"
        raise UserError(f"no image has the modality {missing[0]!r}; there is {there}; check config.data.modalities")
    used = np.isin(modality, modalities)
    _rows_of_identities(label[used], num_identities, per_identity)
    identities = np.unique(label[used])
    rows = []
    for name in modalities:
        of_modality = np.flatnonzero(modality == name)
        of_modality = of_modality[np.argsort(label[of_modality], kind="stable")]
        counts = np.bincount(np.searchsorted(identities, label[of_modality]), minlength=len(identities))
        few = np.flatnonzero(counts < least)
        if len(few):
            raise UserError(
                f"identity {identities[few[0]]} has {counts[few[0]]} {name} images, but a batch needs at least {least}"
                " of each modality; leave it out" + (" or choose fewer images per identity" if least > 1 else "")
            )
        rows.append(np.split(of_modality, np.cumsum(counts)[:-1]))
    return rows


def _cross_modal_steps(rows: Sequence[Sequence[np.ndarray]], batch: int) -> int:
    return max(sum(len(members) for members in by_identity) for by_identity in rows) // batch + 1


def _cross_modal_epoch(
    rows: Sequence[Sequence[np.ndarray]],
    num_identities: int,
    per_identity: int,
    steps: int,
    seed: int,
    replace: bool,
    epoch: int,
) -> np.ndarray:
    """int64 [steps * P * K, M], the rows of one epoch of `cross_modal`."""
    generator = _epoch_generator(seed, epoch)
    # The positions of the P smallest of C random numbers are P identities without replacement.
    chosen = generator.random((steps, len(rows[0]))).argpartition(num_identities - 1, axis=1)[:, :num_identities]
    columns = []
    for by_identity in rows:
        counts = np.array([len(members) for members in by_identity])
        size = counts[chosen][..., None]
        if replace:
            picks = generator.integers(0, size, (steps, num_identities, per_identity))
        else:
            keys = generator.random((steps, num_identities, counts.max()))
            keys[np.arange(counts.max()) >= size] = 2
            picks = keys.argsort(axis=2)[..., :per_identity]
        columns.append(_picked(by_identity, chosen, picks))
    return np.stack(columns, axis=1)


class _CrossModalStream:
    """Epochs of `cross_modal_reference`: epoch -> int64 [steps * P * K, M]; remembers where each epoch starts."""

    def __init__(
        self,
        rows: Sequence[Sequence[np.ndarray]],
        num_identities: int,
        per_identity: int,
        steps: int,
        seed: int,
        replace: bool,
        second_batch_twice: bool,
    ) -> None:
        self._rows = rows
        self._sizes = num_identities, per_identity, steps
        self._replace = replace
        self._second_batch_twice = second_batch_twice
        self._starts = {0: np.random.RandomState(seed).get_state()}

    def __call__(self, epoch: int) -> np.ndarray:
        known = max(start for start in tuple(self._starts) if start <= epoch)
        generator = np.random.RandomState()
        generator.set_state(self._starts[known])
        for now in range(known, epoch + 1):
            order = self._draw(generator)
            # Threads that draw the same epoch write the same state.
            self._starts[now + 1] = generator.get_state()
        return order

    def _draw(self, generator: np.random.RandomState) -> np.ndarray:
        num_identities, per_identity, steps = self._sizes
        chosen = np.empty((steps, num_identities), np.int64)
        picks = np.empty((steps, num_identities, len(self._rows), per_identity), np.int64)
        sizes = [[len(members) for members in by_identity] for by_identity in zip(*self._rows, strict=True)]
        for step in range(steps):
            # What `choice` does, without its checks, which would take most of the time.
            chosen[step] = generator.permutation(len(sizes))[:num_identities]
            for place, identity in enumerate(chosen[step].tolist()):
                for m, size in enumerate(sizes[identity]):
                    if self._replace:
                        picks[step, place, m] = generator.randint(0, size, per_identity)
                    else:
                        picks[step, place, m] = generator.permutation(size)[:per_identity]
        if self._second_batch_twice and steps > 1:
            chosen[0], picks[0] = chosen[1], picks[1]
        columns = [_picked(by_identity, chosen, picks[:, :, m]) for m, by_identity in enumerate(self._rows)]
        return np.stack(columns, axis=1)


def _picked(rows: Sequence[np.ndarray], chosen: np.ndarray, picks: np.ndarray) -> np.ndarray:
    """int64 [S * P * K], rows of the images number `picks` [S, P, K] of the identities `chosen` [S, P]."""
    counts = np.array([len(members) for members in rows])
    starts = np.cumsum(counts) - counts
    return np.concatenate(rows)[starts[chosen][..., None] + picks].reshape(-1)


def _unpaired_epoch(rows: Sequence[np.ndarray], batch: int, steps: int, seed: int, epoch: int) -> np.ndarray:
    """int64 [steps * B, M], the rows of one epoch of `unpaired`."""
    generator = _epoch_generator(seed, epoch)
    columns = []
    for of_modality in rows:
        column = np.empty(0, np.int64)
        while len(column) < steps * batch:
            again = generator.permutation(of_modality)
            # The batch that this pass goes on filling holds some images already: those wait until the end of the pass.
            begun = column[len(column) // batch * batch :]
            waits = np.isin(again, begun)
            column = np.concatenate([column, again[~waits], again[waits]])
        columns.append(column[: steps * batch])
    return np.stack(columns, axis=1)


def _stored_epoch(orders: Sequence[np.ndarray], epoch: int) -> np.ndarray:
    return orders[epoch]


def _shuffled_epoch(n: int, size: int, seed: int, epoch: int) -> np.ndarray:
    return _epoch_generator(seed, epoch).permutation(n)[:size]


def _sequential_epoch(n: int, epoch: int) -> np.ndarray:
    return np.arange(n)
