"""Trains a trunk, resumes where it stopped, and writes the file that methods load with its card."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax import owned
from mmreid_jax.convert import included, known, layout, store
from mmreid_jax.convert.layout import Entries
from mmreid_jax.drawn.writer import DRAWING_VERSION
from mmreid_jax.models.vit import SIZES
from mmreid_jax.paths import read_json
from mmreid_jax.retrieval import metrics, protocols
from mmreid_jax.training import compilation
from mmreid_jax.trunks import beginning, distillation, network, people

STATE = "state.msgpack"
_EXAMPLES = 200
"""Drawn images that the moments of a teacher's answers are taken of."""
_SAY = functools.partial(print, flush=True)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one trunk is made.

    Attributes:
      backbone: name of the network.
      seed: of the people, the weights and the batches; one of `drawn.RESERVED_SEEDS`.
      modalities: of the images it sees.
      stems: forms of the ResNet's first part, taken in turn from step to step, so that the weights are good in each.
      blocks: number of blocks of people.
      image_size: (height, width).
      steps: of training.
      persons: in a batch; views: images of each, every one in all modalities.
      lr: at the height of the schedule: a tenth of the steps up, then a cosine down.
      weight_decay: of AdamW.
      weights: of the loss.
      start: weights to begin with, such as another trunk; empty for random ones.
      teachers: trunks that a transformer learns from.
    """

    backbone: str
    seed: int
    modalities: tuple[str, ...] = people.MODALITIES
    stems: tuple[str, ...] = ("torchvision",)
    blocks: int = 20
    image_size: tuple[int, int] = (96, 48)
    steps: int = 500
    persons: int = 16
    views: int = 4
    lr: float = 3e-3
    weight_decay: float = 0.05
    weights: network.Weights = dataclasses.field(default_factory=network.Weights)
    start: str = ""
    teachers: tuple[distillation.Teacher, ...] = ()


RECIPES: Mapping[str, Recipe] = {
    # Colour images teach fastest; what they taught is the start of the trunk of all spectra.
    "resnet_mini": Recipe(
        "resnet_mini",
        1_000_000,
        stems=("torchvision", "transreid"),
        steps=240,
        lr=2e-3,
        start="drawn/resnet_mini_rgb",
    ),
    # What visible-infrared methods start from: a person is the same in colour and in near infrared.
    "resnet_mini_cross": Recipe(
        "resnet_mini",
        1_000_000,
        ("rgb", "nir"),
        blocks=40,
        persons=24,
        steps=3000,
        lr=2e-3,
        weights=network.Weights(contrast=0.3, across=3.0),
        start="drawn/resnet_mini",
    ),
    # A transformer learns what the ResNets know.
    "vit_mini": Recipe(
        "vit_mini",
        1_000_000,
        blocks=40,
        persons=8,
        views=2,
        steps=800,
        lr=1e-3,
        weights=network.Weights(contrast=0.3, identity=0.0, questions=0.5, feature=3.0, map=3.0, relations=1.0),
        teachers=(
            distillation.Teacher("drawn/resnet_mini_cross", ("rgb", "nir")),
            distillation.Teacher("drawn/resnet_mini", ("tir",)),
        ),
    ),
    # The same people and as many images in a batch, in colour alone.
    "resnet_mini_rgb": Recipe("resnet_mini", 1_000_000, ("rgb",), persons=48, steps=350),
}
"""Name of a trunk, as in ``drawn/NAME`` -> how it is made."""


def batch_of(data: people.People, recipe: Recipe, step: int) -> dict[str, np.ndarray]:
    """The batch of a step: persons at random, and some of their views."""
    random = np.random.default_rng((recipe.seed, step))
    chosen = random.choice(len(data.answers), recipe.persons, replace=False)
    views = np.stack([random.choice(people.VIEWS, recipe.views, replace=False) for _ in chosen])
    rows = np.sort((chosen[:, None] * people.VIEWS + views).reshape(-1))
    identity = data.identity[rows]
    return {
        "images": data.images[rows],
        "identity": identity,
        "night": data.night[rows],
        "answers": data.answers[identity],
    }


def fit(
    recipe: Recipe,
    workdir: pathlib.Path,
    *,
    jobs: int = 1,
    checkpoint_every: int = 50,
    say: Callable[[str], None] = _SAY,
) -> dict[str, Any]:
    """Trains the trunk of a recipe, or goes on with it; its variables {"params", "batch_stats"} as numpy arrays."""
    data = people.draw(range(recipe.blocks), workdir.parent / "people", recipe.seed, recipe.image_size, jobs)
    heads = network.Heads(len(data.answers))
    backbones = {stem: network.backbone_of(recipe.backbone, recipe.image_size, stem) for stem in recipe.stems}
    schedule = optax.warmup_cosine_decay_schedule(0, recipe.lr, recipe.steps // 10, recipe.steps)
    decays = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)  # noqa: E731
    optimizer = optax.chain(
        optax.clip_by_global_norm(5.0), optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=decays)
    )

    lessons = [_lesson(recipe, teacher, data.images[:_EXAMPLES]) for teacher in recipe.teachers]
    taught = [(each.variables, each.moments) for each in lessons]

    @functools.partial(jax.jit, static_argnums=3, donate_argnums=0, compiler_options=compilation.options())
    def step(state: Any, batch: Any, known: Any, stem: str) -> tuple[Any, Any]:
        key = jax.random.fold_in(jax.random.key(recipe.seed), state["step"])

        at_work = [
            dataclasses.replace(lesson, variables=variables, moments=moments)
            for lesson, (variables, moments) in zip(lessons, known, strict=True)
        ]

        def objective(params: Any) -> Any:
            return network.loss(
                backbones[stem], heads, params, state["stats"], batch, key, recipe.modalities, recipe.weights, at_work
            )

        (total, (terms, stats)), grads = jax.value_and_grad(objective, has_aux=True)(state["params"])
        updates, moments = optimizer.update(grads, state["moments"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"step": state["step"] + 1, "params": params, "stats": stats, "moments": moments}, {
            "loss": total,
            **terms,
        }

    state = _start(recipe, backbones[recipe.stems[0]], heads, optimizer, lessons)
    state = train(
        lambda state, number: step(
            state, batch_of(data, recipe, number), taught, recipe.stems[number % len(recipe.stems)]
        ),
        state,
        recipe.steps,
        workdir,
        checkpoint_every=checkpoint_every,
        say=say,
    )
    params, stats = (jax.tree.map(np.asarray, state[part]["backbone"]) for part in ("params", "stats"))
    return {"params": params, "batch_stats": stats}


def train(
    step: Callable[[Any, int], tuple[Any, Mapping[str, Any]]],
    state: Any,
    steps: int,
    workdir: pathlib.Path,
    *,
    checkpoint_every: int,
    say: Callable[[str], None],
) -> Any:
    """The state after all steps, from the one that is kept in the workdir if there is one.

    Args:
      step: state and number of the step -> next state and what to tell of it.
      state: to begin with; ``step`` in it counts the steps.
      steps: of the whole training.
      workdir: where the state is kept.
      checkpoint_every: steps.
      say: is given a line at each of them.
    """
    saved = workdir / STATE
    if saved.is_file():
        state = flax.serialization.from_bytes(state, saved.read_bytes())
        say(f"going on after step {int(state['step'])}")
    # Copies of JAX's own: what lies in memory as numpy put it may be summed in another order.
    state = jax.tree.map(jnp.array, state)
    begun, sums = time.process_time(), dict[str, float]()
    for number in range(int(state["step"]), steps):
        state, metrics = step(state, number)
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        if (number + 1) % checkpoint_every == 0 or number + 1 == steps:
            done = number % checkpoint_every + 1
            told = ", ".join(f"{name} {value / done:.3f}" for name, value in sums.items())
            say(f"step {number + 1} of {steps}: {told} ({time.process_time() - begun:.0f} cpu-s)")
            sums = {}
            write(saved, flax.serialization.to_bytes(jax.device_get(state)))
    return state


def _start(
    recipe: Recipe,
    backbone: Any,
    heads: network.Heads,
    optimizer: optax.GradientTransformation,
    lessons: Sequence[network.Lesson],
) -> Any:
    of_backbone, of_heads = jax.random.split(jax.random.key(recipe.seed))
    images = np.zeros((2, *recipe.image_size, 3), np.float32)
    more = () if recipe.backbone in SIZES else (True,)
    own = jax.jit(lambda k: backbone.init(k, images, *more))(of_backbone)
    if recipe.start:
        own, _ = store.open_weights(recipe.start, known.named(_family(recipe)), own)
    top = jax.jit(heads.init)(of_heads, np.zeros((2, backbone.features), np.float32))
    params = {"backbone": own["params"], "heads": top["params"]}
    stats = {"backbone": own.get("batch_stats", {}), "heads": top["batch_stats"]}
    if lessons:
        rows, columns = backbone.grid
        tokens = np.zeros((2, 1 + rows * columns, backbone.features), np.float32)
        copies = jax.jit(distillation.Copies(backbone.grid).init)
        params["copies"] = {
            lesson.teacher.trunk: copies(
                jax.random.fold_in(of_heads, number), tokens, lesson.answers(jnp.asarray(images))
            )["params"]
            for number, lesson in enumerate(lessons)
        }
        params["backbone"] = beginning.begun(own["params"], backbone.size, backbone.grid)
    return {"step": np.int32(0), "params": params, "stats": stats, "moments": optimizer.init(params)}


def _lesson(recipe: Recipe, teacher: distillation.Teacher, examples: np.ndarray) -> network.Lesson:
    """A teacher with its weights; the moments of its answers are those of some images uint8 [N, H, W, 5]."""
    of = RECIPES[teacher.trunk.removeprefix(included.PREFIX)]
    backbone = network.backbone_of(of.backbone, recipe.image_size)
    images = network.spectra(jnp.asarray(examples), teacher.modalities)
    fresh = jax.eval_shape(lambda key: backbone.init(key, images, True), jax.random.key(0))
    variables, _ = store.open_weights(teacher.trunk, known.named(_family(of)), fresh)
    find = jax.jit(lambda held: distillation.moments(distillation.answers(backbone, held, images)))
    return network.Lesson(teacher, backbone, variables, find(variables))


def _family(recipe: Recipe) -> str:
    """Layout of the files of a backbone."""
    return "vit" if recipe.backbone in SIZES else "resnet"


def write(file: pathlib.Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_bytes(content)
    os.replace(beside, file)


def judge(recipe: Recipe, variables: Mapping[str, Any], folder: pathlib.Path) -> dict[str, dict[str, float]]:
    """Scores in percent of the trunk as it is on a block of people that it was not trained on.

    Every image of a person searches the others, which are of other passages and mostly of other cameras, among the
    images of all: in each modality alone, with the features of all side by side, and, where there is colour and near
    infrared, from one to the other among the images that are not of night in colour.
    """
    data = people.draw([recipe.blocks], folder, recipe.seed, recipe.image_size)
    backbone = network.backbone_of(recipe.backbone, recipe.image_size)
    run = jax.jit(lambda images: network.embed(backbone, variables, images, False)[0])
    views = np.arange(len(data.identity)) % people.VIEWS
    labels = metrics.Labels(data.identity, views, np.zeros_like(views))
    found, features = {}, []
    for name in recipe.modalities:
        parts = np.array_split(data.images, 10)
        embedded = np.concatenate([run(network.spectra(jnp.asarray(part), (name,))) for part in parts])
        features.append(embedded / np.linalg.norm(embedded, axis=1, keepdims=True))
        found[name] = features[-1]
    if len(features) > 1:
        found["all"] = np.concatenate(features, axis=1)
    pairs = {name: (value, value, labels, labels) for name, value in found.items()}
    if {"rgb", "nir"} <= set(recipe.modalities):
        lit = np.flatnonzero(~data.night)
        bright = metrics.Labels(labels.identity[lit], labels.camera[lit], labels.scene[lit])
        pairs["nir to rgb"] = (found["nir"], found["rgb"][lit], labels, bright)
        pairs["rgb to nir"] = (found["rgb"][lit], found["nir"], bright, labels)
    scores = {}
    for name, (query, gallery, of_query, of_gallery) in pairs.items():
        result = metrics.evaluate(2 - 2 * query @ gallery.T, of_query, of_gallery, protocols.MARKET)
        scores[name] = {"mAP": round(100 * result.mAP, 1), "R1": round(100 * result.rank(1), 1)}
    return scores


def check_target(name: str, folder: pathlib.Path) -> None:
    """Says whether `save` may write to a folder, before there is anything to write.

    The card of a trunk says which content of the file beside it is this program's.

    Raises:
      UserError: there are other files of these names.
    """
    file = folder / f"{name}.safetensors"
    card = file.with_suffix(".json")

    def described(path: pathlib.Path) -> str | None:
        try:
            said = read_json(path)
            return str(said["sha256"]) if said["trunk"] == f"drawn/{name}" else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    owned.check_file(card, lambda path: described(path) is not None, "card of a trunk")
    owned.check_file(file, lambda path: hashlib.sha256(path.read_bytes()).hexdigest() == described(card), "trunk")


def save(
    name: str, variables: Mapping[str, Any], folder: pathlib.Path, scores: Mapping[str, Any] | None = None
) -> pathlib.Path:
    """Writes ``NAME.safetensors`` in half precision, in the names of PyTorch, and its card ``NAME.json``."""
    recipe = RECIPES[name]
    card = {
        "parameters": count(variables["params"]),
        **dataclasses.asdict(recipe),
        "people": recipe.blocks * people.BLOCK,
        "images of each": people.VIEWS,
        "cameras": people.CAMERAS,
        "drawing_version": DRAWING_VERSION,
        "mean": network.MEAN,
        "std": network.STD,
        "scores of unseen people (percent)": scores or {},
    }
    return write_trunk(name, layout.export_state(known.named(_family(recipe)), variables), card, folder)


def count(params: Any) -> int:
    """Number of parameters."""
    return int(sum(np.size(x) for x in jax.tree.leaves(params)))


def write_trunk(name: str, entries: Entries, card: Mapping[str, Any], folder: pathlib.Path) -> pathlib.Path:
    """Writes the entries of a file, those of float32 in half precision, and the card, with what tells the two apart.

    Args:
      name: of the trunk, without ``drawn/``.
      entries: name in PyTorch -> array.
      card: what to say of it.
      folder: to write to.
    """
    from safetensors.numpy import save as to_bytes

    half = {
        key: np.asarray(value, np.float16 if value.dtype == np.float32 else None, order="C")
        for key, value in entries.items()
    }
    content = to_bytes(half, {"format": "pt"})
    file = folder / f"{name}.safetensors"
    write(file, content)
    made = {"trunk": f"drawn/{name}", "made by": f"python -m mmreid_jax pretrain_trunk {name}"}
    whole = {**made, **card, "sha256": hashlib.sha256(content).hexdigest()}
    write(file.with_suffix(".json"), (json.dumps(whole, indent=1) + "\n").encode())
    return file
