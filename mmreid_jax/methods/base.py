"""What every method offers, and what the program knows of a method: this and nothing else."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
import optax

from mmreid_jax.errors import UserError

Array = jax.Array
Variables = dict[str, Any]
Batch = Mapping[str, Any]
Terms = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """What a method must know of the training data to build its networks.

    Attributes:
      identities: number of training identities (classes).
      cameras: number of training cameras.
      views: number of distinct view labels (time or scene flags) given to side information.
      modalities: names in the order of concatenation.
    """

    identities: int
    cameras: int
    views: int
    modalities: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One evaluation of a method: which feature ranks which gallery view for which query view.

    Attributes:
      name: printed beside the scores.
      feature: name of the feature of `Method.embed`.
      query: modalities given to the network for queries; others are absent (zero after normalisation).
      gallery: likewise for the gallery.
      gallery_feature: name of the feature of the gallery; empty: that of the query.
    """

    name: str
    feature: str
    query: tuple[str, ...]
    gallery: tuple[str, ...]
    gallery_feature: str = ""


@runtime_checkable
class Method(Protocol):
    """One published system, built from its config by ``build(config, facts)`` of its module.

    Optional members, looked for by those who use them:

    * ``adapt_loss`` and ``adapt_optimizer``, as `loss` and `optimizer`: test-time training;
    * ``start_memory(epoch_ends) -> mapping``: what `loss` gets as `memory` in the first step (default: empty);
    * ``maps(variables, batch) -> {modality: [B, h, w, C]}``: the last feature maps in evaluation mode, for activation
      maps; ``attend(variables, batch)``: attention weights. A method whose backbone has none raises a `UserError`;
    * ``examine(variables, batch) -> {name: [B]}``: of a method that learns without labels, numbers between 0 and 1 that
      say how well each image of the batch is dealt with; evaluated and logged instead of retrieval scores.
      ``explain(variables, batch)``: arrays of which the report of such a method draws its pictures;
    * ``load(path, which) -> (variables, meta)``: a trained model, of a method that reads more than
      `mmreid_jax.training.checkpoints.load_variables` does;
    * ``idle``: patterns of the paths of parameters that no gradient reaches, by design.
    """

    facts: DataFacts

    def init(self, key: Array) -> Variables:
        """Fresh variables {"params", "batch_stats"}; converted weights are loaded where the config names them."""
        ...

    def loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """Train-mode forward pass: total loss, (every term by name, new batch_stats, new memory)."""
        ...

    def embed(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Evaluation-mode features by name, each [B, D]."""
        ...

    def optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """The optimiser; `epoch_ends` [epochs] is the cumulative number of steps at the end of each epoch."""
        ...

    def protocols(self) -> list[Comparison]:
        """Evaluations of this method; the first one selects the best checkpoint."""
        ...

    def convert_layouts(self) -> dict[str, Any]:
        """Name -> layout of the foreign checkpoints that `mmreid_jax.convert` reads for this method."""
        ...


def names() -> tuple[str, ...]:
    """Names of all methods: the modules of this package that define ``build``."""
    import mmreid_jax.methods as package

    found = [info.name for info in pkgutil.iter_modules(package.__path__)]
    modules = {name: importlib.import_module(f"mmreid_jax.methods.{name}") for name in found}
    return tuple(name for name, module in sorted(modules.items()) if name != "base" and hasattr(module, "build"))


def build(config: Any, facts: DataFacts) -> Method:
    """Builds the method ``config.method``.

    Raises:
      UserError: there is no such method.
    """
    try:
        module = importlib.import_module(f"mmreid_jax.methods.{config.method}")
    except ModuleNotFoundError as error:
        if error.name != f"mmreid_jax.methods.{config.method}":
            raise
        raise UserError(f"unknown method {config.method!r}; available: {', '.join(names())}") from None
    return module.build(config, facts)
