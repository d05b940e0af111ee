"""Optimisers in PyTorch's order of operations, with parameter groups chosen by path pattern.

Paths are those of the parameter tree, ``backbone/blocks/attn/qkv/bias``. A group is a regular expression searched for
anywhere in the path; the first group that matches wins, and parameters that none matches train
with the options as they stand, biases at their own factor where the options have one. Frozen parameters are skipped
entirely, as PyTorch skips parameters without a gradient: no weight decay, no momentum, no state.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.errors import UserError
from mmreid_jax.training import config, schedules

NAMES = ("sgd", "adam", "adamw", "amsgrad", "rmsprop", "radam")


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters that train in their own way.

    Attributes:
      pattern: regular expression, searched for in the path: ``bias``, ``^classifier/``.
      lr_factor: learning-rate factor; how it acts is the schedule's (`schedules`).
      weight_decay: of these parameters; None for that of the options.
      frozen: never change these parameters.
    """

    pattern: str
    lr_factor: float = 1.0
    weight_decay: float | None = None
    frozen: bool = False

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(f"parameter group pattern {self.pattern!r} is not a regular expression: {error}") from None


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """What to optimise with; the fields are the keys of ``config.optim``.

    Attributes:
      name: ``sgd``, ``adam``, ``amsgrad`` and ``rmsprop`` (decay added to the gradient), ``adamw`` and ``radam`` (decay
        beside the gradient).
      lr: base learning rate, given to the schedule.
      weight_decay: of every parameter whose group does not say otherwise, norms and biases included.
      momentum: ``sgd`` and ``rmsprop``; 0 for none.
      nesterov: ``sgd``: Nesterov's form.
      beta1, beta2: ``adam`` and its kin.
      epsilon: all but ``sgd``.
      alpha: ``rmsprop``: share of the past in the mean square.
      clip_norm: scale the gradient down to this global norm (over all trained parameters); 0 for no clipping.
      bias_lr_factor: learning-rate factor of every parameter with ``bias`` in its name that no group claims.
      new_layers: patterns (see `Group`) of parameters that are new and train at the full rate (their biases at
        `bias_lr_factor`), while all others that no group claims, the trained ones, go at `base_lr_factor`; empty for no
        such stages.
      base_lr_factor: see there.
      schedule: name of the learning rate's schedule, one of `schedules.NAMES`.
      warmup_epochs, warmup_start, milestones, minimum, period, noise, noise_seed: of the schedule, see
        `schedules.Schedule`; a negative `warmup_start` and a `period` of 0 stand for None there.
      decay: ``gamma`` of the schedule.
    """

    name: str = "sgd"
    lr: float = 0.01
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    alpha: float = 0.99
    clip_norm: float = 0.0
    bias_lr_factor: float = 1.0
    new_layers: tuple[str, ...] = ()
    base_lr_factor: float = 0.1
    schedule: str = "constant"
    warmup_epochs: int = 0
    warmup_start: float = -1.0
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    minimum: float = 0.0
    period: int = 0
    noise: float = 0.0
    noise_seed: int = 42

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UserError(f"unknown optimiser {self.name!r}; available: {', '.join(NAMES)}")
        for field in ("lr", "weight_decay", "momentum", "clip_norm", "bias_lr_factor", "base_lr_factor"):
            if getattr(self, field) < 0:
                raise UserError(f"optim.{field} is {getattr(self, field)}; it must not be negative")
        for field in ("beta1", "beta2", "alpha"):
            if not 0 <= getattr(self, field) < 1:
                raise UserError(f"optim.{field} is {getattr(self, field)}; it must lie between 0 and 1, 1 excluded")

    @classmethod
    def of(cls, section: OptimizerOptions | Mapping[str, Any]) -> OptimizerOptions:
        """The options of the config section ``config.optim``; its ``epochs``, the length of the run, is not read here.

        Raises:
          UserError: an unknown key, named with its nearest match.
        """
        if isinstance(section, OptimizerOptions):
            return section
        config.check_keys(section, [*(field.name for field in dataclasses.fields(cls)), "epochs"], "optim")
        values: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in section.items() if key != "epochs"
        }
        return cls(**values)

    @property
    def timetable(self) -> schedules.Schedule:
        """The schedule with its numbers."""
        return schedules.Schedule(
            name=self.schedule,
            warmup_epochs=self.warmup_epochs,
            warmup_start=None if self.warmup_start < 0 else self.warmup_start,
            milestones=self.milestones,
            gamma=self.decay,
            minimum=self.minimum,
            period=self.period or None,
            noise=self.noise,
            noise_seed=self.noise_seed,
        )

    def groups(self, claimed: Sequence[Group] = ()) -> tuple[Group, ...]:
        """The groups of a method, then those of the biases or of new layers where they have a rate of their own."""
        # Of new layers alone, where there are any.
        where = f"^(?=.*(?:{'|'.join(self.new_layers)})).*" if self.new_layers else ""
        biases = () if self.bias_lr_factor == 1.0 else (Group(f"{where}bias", lr_factor=self.bias_lr_factor),)
        if self.new_layers:
            return (*claimed, *biases, *map(Group, self.new_layers), Group("", lr_factor=self.base_lr_factor))
        return (*claimed, *biases)


def paths(params: Any) -> Any:
    """The tree of the parameters' paths, ``a/b/c``, in the structure of `params`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params
    )


def assign(groups: Sequence[Group], params: Any) -> Any:
    """The group of every parameter, in the structure of `params`; ``Group("")`` where none matches.

    Raises:
      UserError: a pattern matches no parameter at all (a misspelt pattern would otherwise train everything).
    """
    names = paths(params)
    for group in groups:
        if not any(re.search(group.pattern, name) for name in jax.tree.leaves(names)):
            known = sorted({name.split("/")[0] for name in jax.tree.leaves(names)})
            raise UserError(
                f"parameter group pattern {group.pattern!r} matches no parameter; the top-level names are "
                f"{', '.join(known)}"
            )
    rest = Group("")
    return jax.tree.map(lambda name: next((g for g in groups if re.search(g.pattern, name)), rest), names)


def describe(groups: Sequence[Group], params: Any) -> list[str]:
    """Lines of a table for a person: one per group, and one for the parameters that no group matches.

    Args:
      groups: in order.
      params: tree of arrays or of anything with a shape.
    """
    assigned = list(zip(jax.tree.leaves(assign(groups, params)), jax.tree.leaves(params), strict=True))
    rows = [("parameters", "tensors", "values", "lr factor", "weight decay")]

    def add(label: str, group: Group, members: list[Any]) -> None:
        decay = "default" if group.weight_decay is None else f"{group.weight_decay:g}"
        settings = ("frozen", "-") if group.frozen else (f"{group.lr_factor:g}", decay)
        values = sum(math.prod(np.shape(leaf)) for leaf in members)
        rows.append((label, str(len(members)), f"{values:,}", *settings))

    for group in groups:
        add(group.pattern or "all others", group, [leaf for member, leaf in assigned if member is group])
    rest = [leaf for member, leaf in assigned if not any(member is group for group in groups)]
    if rest:
        add("all others", Group(""), rest)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def rate(
    options: OptimizerOptions | Mapping[str, Any], epoch_ends: np.ndarray, lr_factor: float = 1.0
) -> optax.Schedule:
    """The learning rate of a group as a function of the step; jittable, and callable on the host for logs."""
    options = OptimizerOptions.of(options)
    return schedules.make(options.timetable, options.lr, epoch_ends, lr_factor)


def build(
    options: OptimizerOptions | Mapping[str, Any], params: Any, epoch_ends: np.ndarray, groups: Sequence[Group] = ()
) -> optax.GradientTransformation:
    """The optimiser as an optax transformation; all arithmetic in the dtype of the parameters.

    The order is PyTorch's: clip; ``g += decay * w`` (unless it goes beside the gradient); momentum or moments;
    ``u += decay * w`` (adamw, radam); ``w -= rate * u``. The rate comes after the momentum, so a change of rate does
    not rescale what has accumulated.

    Args:
      options: which, and its numbers: `OptimizerOptions` or a config section with these keys.
      params: parameter tree; only its structure is used.
      epoch_ends: int64 [epochs], cumulative number of steps at the end of each epoch.
      groups: the method's parameter groups in order; those of the options come after them.

    Raises:
      UserError: an unknown option, or the pattern of a group matches nothing.
    """
    options = OptimizerOptions.of(options)
    assigned = assign(options.groups(groups), params)
    trained = jax.tree.map(lambda group: not group.frozen, assigned)
    decay = _decayed(options, assigned)
    direction = _direction(options)
    rules = [*direction, decay] if options.name in ("adamw", "radam") else [decay, *direction]
    clip = [optax.clip_by_global_norm(options.clip_norm)] if options.clip_norm else []
    return optax.chain(optax.masked(optax.chain(*clip, *rules), trained), _stepped(options, assigned, epoch_ends))


def _direction(options: OptimizerOptions) -> list[optax.GradientTransformation]:
    """What turns gradients into directions, before decay beside the gradient and the rate."""
    if options.name in ("adam", "adamw"):
        return [optax.scale_by_adam(options.beta1, options.beta2, options.epsilon)]
    if options.name == "amsgrad":
        return [scale_by_amsgrad(options.beta1, options.beta2, options.epsilon)]
    if options.name == "radam":
        return [scale_by_radam(options.beta1, options.beta2, options.epsilon)]
    momentum = [optax.trace(options.momentum, options.nesterov and options.name == "sgd")] if options.momentum else []
    if options.name == "rmsprop":
        return [optax.scale_by_rms(options.alpha, options.epsilon, eps_in_sqrt=False), *momentum]
    return momentum


def scale_by_amsgrad(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Adam over the largest second moment so far, as PyTorch has it.

    optax's rule of this name takes the maximum after the correction for the first steps, PyTorch before it:
    ``m/(1 - beta1^t) / (sqrt(max v)/sqrt(1 - beta2^t) + epsilon)``.

    Reference: Reddi et al. 2018, algorithm 2, with the corrections of Adam.
    """

    def init(params: Any) -> optax.ScaleByAmsgradState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAmsgradState(jnp.zeros((), jnp.int32), zeros, zeros, zeros)

    def update(
        updates: Any, state: optax.ScaleByAmsgradState, params: Any = None
    ) -> tuple[Any, optax.ScaleByAmsgradState]:
        del params
        mu, nu = _moments(updates, state, beta1, beta2)
        largest = jax.tree.map(jnp.maximum, state.nu_max, nu)
        count = optax.safe_increment(state.count)

        def direction(m: jax.Array, v: jax.Array) -> jax.Array:
            steps = count.astype(m.dtype)
            return m / (1 - beta1**steps) / (jnp.sqrt(v) / jnp.sqrt(1 - beta2**steps) + epsilon)

        return jax.tree.map(direction, mu, largest), optax.ScaleByAmsgradState(count, mu, nu, largest)

    return optax.GradientTransformation(init, update)


def scale_by_radam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Rectified Adam: plain momentum until the second moment can be trusted, then Adam times the rectification.

    With rho = 2/(1 - beta2) - 1 and rho_t = rho - 2 t beta2^t/(1 - beta2^t), the direction is m/(1 - beta1^t) while
    rho_t < 5, then ``r_t sqrt(1 - beta2^t) m/(1 - beta1^t) / (sqrt(v) + epsilon)``. optax's rule of this name corrects
    v before it adds epsilon.

    Reference: Liu et al. 2020, algorithm 2, as in the authors' code, which torchreid took over.
    """
    longest = 2 / (1 - beta2) - 1

    def init(params: Any) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(updates: Any, state: optax.ScaleByAdamState, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        mu, nu = _moments(updates, state, beta1, beta2)
        count = optax.safe_increment(state.count)

        def direction(m: jax.Array, v: jax.Array) -> jax.Array:
            steps = count.astype(m.dtype)
            left = 1 - beta2**steps
            length = longest - 2 * steps * (1 - left) / left
            trusted = length >= 5
            # Where it is not trusted the term is not used, and the root shall not be NaN.
            length = jnp.where(trusted, length, 5.0)
            share = (length - 4) / (longest - 4) * (length - 2) / (longest - 2) * longest / length
            corrected = m / (1 - beta1**steps)
            return jnp.where(trusted, jnp.sqrt(left * share) * corrected / (jnp.sqrt(v) + epsilon), corrected)

        return jax.tree.map(direction, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _moments(gradients: Any, state: Any, beta1: float, beta2: float) -> tuple[Any, Any]:
    """The running means of the gradients and of their squares after one more step."""
    mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, gradients)
    nu = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, state.nu, gradients)
    return mu, nu


def _decayed(options: OptimizerOptions, assigned: Any) -> optax.GradientTransformation:
    """Adds every parameter times its weight decay; for use where frozen parameters are masked out."""

    def strength(group: Group) -> Any:
        if group.frozen:
            return optax.MaskedNode()
        return options.weight_decay if group.weight_decay is None else group.weight_decay

    strengths = jax.tree.map(strength, assigned)

    def update(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda decay, u, w: u + decay * w if decay else u, strengths, updates, params)

    return optax.stateless(update)


def _stepped(options: OptimizerOptions, assigned: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
    """Multiplies by minus the rate of each parameter's group; frozen parameters get zero."""
    factors = {group.lr_factor for group in jax.tree.leaves(assigned) if not group.frozen}
    rates = {factor: rate(options, epoch_ends, factor) for factor in sorted(factors)}

    def init(params: Any) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates: Any, state: optax.ScaleByScheduleState, params: Any = None) -> tuple[Any, Any]:
        del params
        now = {factor: schedule(state.count) for factor, schedule in rates.items()}

        def scaled(group: Group, u: jax.Array) -> jax.Array:
            return jnp.zeros_like(u) if group.frozen else u * -now[group.lr_factor].astype(u.dtype)

        count = optax.safe_increment(state.count)
        return jax.tree.map(scaled, assigned, updates), optax.ScaleByScheduleState(count=count)

    return optax.GradientTransformation(init, update)
