"""What every method offers, and what the program knows of a method: this and nothing else."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any, Literal, runtime_checkable
from typing import Protocol as Interface

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.errors import UserError
from mmreid_jax.training import checkpoints
from mmreid_jax.training.inputs import Batch

__all__ = [
    "TOGETHER",
    "Adapts",
    "Array",
    "Attends",
    "Batch",
    "Comparison",
    "DataFacts",
    "Examines",
    "HasMaps",
    "Loads",
    "Method",
    "Remembers",
    "Terms",
    "Variables",
    "build",
    "check_choices",
    "classes_of",
    "feature_of",
    "load_trained",
    "names",
    "shapes",
    "start_memory",
]

Array = jax.Array
Variables = dict[str, Any]
TOGETHER = "+"
"""Between names of features of `Method.embed` that stand side by side in a comparison."""
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

    @classmethod
    def stored(cls, said: Any) -> DataFacts:
        """The facts that come with a trained model, perhaps from somebody else; keys of later versions are left out.

        Raises:
          UserError: they are none.
        """
        names = said.get("modalities") if isinstance(said, Mapping) else None
        if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
            raise UserError("the facts of its data name no modalities")
        if len(set(names)) < len(names):
            raise UserError("the facts of its data name a modality twice")
        counts = {key: said.get(key) for key in ("identities", "cameras", "views")}
        for key, value in counts.items():
            if type(value) is not int or not 0 < value < 2**31:
                raise UserError(f"the facts of its data say {key}: {str(value)[:40]}; that is no number of them")
        return cls(modalities=tuple(names), **counts)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One evaluation of a method: which feature ranks which gallery view for which query view.

    Attributes:
      name: printed beside the scores.
      feature: name of the feature of `Method.embed`, or several of them joined by `TOGETHER`.
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
class Method(Interface):
    """One published system, built from its config by ``build(config, facts)`` of its module.

    What some methods can do beside that has names of its own: `Adapts`, `Remembers`, `HasMaps`, `Attends`, `Examines`,
    `Loads`. They are asked for with isinstance, so a method that offers one has all of its members.
    """

    facts: DataFacts

    def init(self, key: Array) -> Variables:
        """Fresh variables {"params", "batch_stats"}. A pure function: no file is read, ``jax.eval_shape`` is free."""
        ...

    def start(self, variables: Variables) -> Variables:
        """Fresh variables with the weights that ``config.init`` names put into them: what training begins with.

        Raises:
          UserError: the weights cannot be read or do not fit.
        """
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

    def comparisons(self) -> list[Comparison]:
        """Evaluations of this method; the first one selects the best checkpoint."""
        ...


@runtime_checkable
class Adapts(Interface):
    """A method with test-time training.

    Attributes:
      statistics_feature: name of the feature of `Method.embed` that `with_statistics` takes.
    """

    statistics_feature: str

    def adapt_loss(
        self, variables: Variables, batch: Batch, key: Array, step: Array, memory: Mapping[str, Any]
    ) -> tuple[Array, tuple[Terms, dict[str, Any], Mapping[str, Any]]]:
        """As `Method.loss`, without reading a label."""
        ...

    def adapt_optimizer(self, params: Any, epoch_ends: np.ndarray) -> optax.GradientTransformation:
        """As `Method.optimizer`."""
        ...

    def with_statistics(self, variables: Variables, features: np.ndarray) -> Variables:
        """Variables whose last normalisation has the statistics of the features [N, D] of the test data."""
        ...


@runtime_checkable
class Remembers(Interface):
    """A method whose loss carries something from step to step."""

    def start_memory(self, epoch_ends: np.ndarray) -> Mapping[str, Any]:
        """What `Method.loss` gets as `memory` in the first step."""
        ...


@runtime_checkable
class HasMaps(Interface):
    """A method of convolutional networks, of which activation maps are drawn."""

    def maps(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """The last feature maps in evaluation mode by modality, each [B, h, w, C]."""
        ...


@runtime_checkable
class Attends(Interface):
    """A method of transformers, of which attention maps are drawn.

    Attributes:
      grid: rows and columns of patches.
    """

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        ...

    def attend(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Attention weights by modality, each [depth, B, heads, 1 + patches, 1 + patches]."""
        ...


@runtime_checkable
class Examines(Interface):
    """A method that learns without labels and sets itself a task, by which it is scored instead of by retrieval."""

    def examine(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Numbers [B] between 0 and 1 by name that say how well each image of the batch is dealt with."""
        ...

    def explain(self, variables: Variables, batch: Batch) -> dict[str, Array]:
        """Arrays [B, ...] by name of which the report draws its pictures."""
        ...


@runtime_checkable
class Loads(Interface):
    """A method that reads more kinds of trained models than `mmreid_jax.training.checkpoints.load_variables` does."""

    def load(self, path: str, which: str) -> tuple[Variables, dict[str, Any]]:
        """Variables and meta data of a trained model."""
        ...


def feature_of(features: Mapping[str, Any], name: str) -> Any:
    """The feature of a name in a `Comparison`, several of them side by side; arrays of jax or of numpy, [..., D].

    Raises:
      KeyError: there is none of that name.
    """
    parts = [features[part] for part in name.split(TOGETHER)]
    if len(parts) == 1:
        return parts[0]
    numpy = all(isinstance(part, np.ndarray) for part in parts)
    return (np if numpy else jnp).concatenate(parts, axis=-1)


def start_memory(method: Method, epoch_ends: np.ndarray) -> dict[str, Any]:
    """What the loss of a method gets as `memory` in the first step."""
    return dict(method.start_memory(epoch_ends)) if isinstance(method, Remembers) else {}


def load_trained(method: Method, path: str, which: Literal["best", "last"]) -> tuple[Variables, dict[str, Any]]:
    """Variables and meta data of a trained model of a method.

    Raises:
      UserError: it cannot be read or is of another method.
    """
    if isinstance(method, Loads):
        return method.load(path, which)
    return checkpoints.load_variables(path, like=shapes(method), which=which)


def shapes(method: Method) -> Variables:
    """The variables of a method as `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(method.init, jax.random.key(0))


def check_choices(config: Any, choices: Mapping[str, tuple[Any, Sequence[Any]]]) -> None:
    """Raises a `UserError` for the first key of the config (``model.head``) whose value is none of those it may be."""
    for key, (value, known) in choices.items():
        if value not in known:
            raise UserError(f"config.{key} is {value!r}; choose one of {', '.join(map(str, known))}")


def classes_of(config: Any, facts: DataFacts) -> int:
    """The number of classes of a classifier: ``config.model.num_classes``, or 0 for those of the training data.

    Raises:
      UserError: there are fewer of them than training identities.
    """
    classes = config.model.num_classes or facts.identities
    if classes < facts.identities:
        raise UserError(
            f"config.model.num_classes is {classes}, but the training data have {facts.identities} identities; leave it"
            " 0 to count them"
        )
    return classes


def names() -> tuple[str, ...]:
    """Names of all methods: the modules of this package that define ``build``."""
    import mmreid_jax.methods as package

    modules_there = [info.name for info in pkgutil.iter_modules(package.__path__)]
    modules = {name: importlib.import_module(f"mmreid_jax.methods.{name}") for name in modules_there}
    return tuple(name for name, module in sorted(modules.items()) if name != "base" and hasattr(module, "build"))


def build(config: Any, facts: DataFacts) -> Method:
    """Builds the method ``config.method``.

    Raises:
      UserError: there is no such method.
    """
    name = config.method
    known = isinstance(name, str) and name.isidentifier()
    if known and importlib.util.find_spec(f"mmreid_jax.methods.{name}") is not None:
        module = importlib.import_module(f"mmreid_jax.methods.{name}")
        if name != "base" and hasattr(module, "build"):
            return module.build(config, facts)
    raise UserError(f"unknown method {str(name)[:60]!a}; available: {', '.join(names())}")
