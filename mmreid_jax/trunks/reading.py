"""Makes a text tower that has read: what CLIP's is to the published systems, for drawn data.

The tower learns to say of a caption what a trunk of images sees of the person: captions of colour images lie near the
features of that person's colour images at another moment, captions of near-infrared images near those of the
near-infrared ones (CLIP's symmetric contrast, Radford et al. 2021, figure 3). The trunk of images stays as it is, so
its features are computed once.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax import drawn
from mmreid_jax.convert import clip, known, layout, store
from mmreid_jax.data.tokenizer import VOCABULARY, tokenize
from mmreid_jax.drawn import words
from mmreid_jax.drawn.streams import generator
from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.models.clip import TEXT_TOWERS, TextTower
from mmreid_jax.models.resnet import RESNETS, ResNet, gem_pool
from mmreid_jax.retrieval import metrics, protocols
from mmreid_jax.training import compilation
from mmreid_jax.trunks import network, people, pretraining

Array = jax.Array
MODALITIES = ("rgb", "nir")
"""Of the images that captions speak of."""
LENGTH = 64
"""Tokens of a caption; the longest that the grammar makes is shorter."""
_GEM_POWER = 3.0
_SAY = functools.partial(print, flush=True)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a text tower is made.

    Attributes:
      tower: its sizes, by name.
      teacher: the trunk whose features of images it reads towards.
      backbone: the network of the teacher.
      seed: of the people, the weights and the batches; one of `drawn.RESERVED_SEEDS`.
      blocks: number of blocks of people.
      image_size: (height, width).
      phrasings: captions of each person and modality; each is there twice, in a captioner's words and rephrased.
      steps: of training.
      persons: in a batch.
      lr: at the height of the schedule: a tenth of the steps up, then a cosine down.
      weight_decay: of AdamW.
      temperature: of the contrast.
      regression: weight of the squared distance between a text and its image, which gives texts the length of images.
    """

    tower: str
    teacher: str
    backbone: str
    seed: int
    blocks: int = 20
    image_size: tuple[int, int] = (96, 48)
    phrasings: int = 16
    steps: int = 600
    persons: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    temperature: float = 0.1
    regression: float = 0.1


RECIPES: Mapping[str, Recipe] = {
    "text_mini": Recipe("text_mini", "drawn/resnet_mini_cross", "resnet_mini", 1_000_000),
}
"""Name of a text tower, as in ``drawn/NAME`` -> how it is made."""


class Seen(NamedTuple):
    """What a trunk sees of people.

    Attributes:
      features: [people, 2, views, D], of the modalities, standardised by the numbers below.
      clear: bool [people, 2, views]: shows somebody (no colour image of night).
      mean: [D], of all features that are clear.
      std: [D].
    """

    features: np.ndarray
    clear: np.ndarray
    mean: np.ndarray
    std: np.ndarray


class Tower(NamedTuple):
    """A trained text tower.

    Attributes:
      params: of the network; its embedding has a row for each token of the vocabulary.
      vocabulary: numbers of the tokens that it has read, in ascending order, so that the end mark stays the last.
      mean, std: [D], of the features of images that it has learnt to speak of.
    """

    params: Any
    vocabulary: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def captions(blocks: Sequence[int], recipe: Recipe) -> np.ndarray:
    """Token numbers of captions of the people of blocks: int32 [people, 2, 2 * phrasings, LENGTH].

    They are made as those of drawn data sets: a captioner notices something in an image of one modality and writes it
    down, and a language model writes the same in other words; the former stand before the latter.
    """
    texts = []
    for person in (1 + block * people.BLOCK + row for block in blocks for row in range(people.BLOCK)):
        looks = drawn.describe(drawn.person_identity(recipe.seed, person))
        for modality in MODALITIES:
            pairs = []
            for number in range(recipe.phrasings):
                random = generator(recipe.seed, f"trunk caption {modality}", person, number)
                seen = words.notice(looks, modality, random)
                pairs.append((words.caption(seen, random), words.rephrase(seen, modality, random)))
            texts += [text for spelling in zip(*pairs, strict=True) for text in spelling]
    return tokenize(texts, LENGTH).reshape(-1, len(MODALITIES), 2 * recipe.phrasings, LENGTH)


def look(recipe: Recipe, blocks: Sequence[int], folder: pathlib.Path, jobs: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Features [people, 2, views, D] of the people of blocks by the trunk, and which of the images are clear.

    Pooled as by TVI-LFM (`models.heads.LearnedPool` at its start).
    """
    data = people.draw(blocks, folder, recipe.seed, recipe.image_size, jobs)
    backbone = ResNet(**RESNETS[recipe.backbone], last_stride=1, stem="torchvision")
    fresh = jax.eval_shape(lambda: backbone.init(jax.random.key(0), jnp.zeros((1, *recipe.image_size, 3)), False))
    variables, _ = store.open_weights(recipe.teacher, known.named("resnet"), fresh)

    @jax.jit
    def embed(images: Array) -> Array:
        maps: Any = backbone.apply(variables, images, False)
        return gem_pool(maps, jnp.array([_GEM_POWER]))

    parts = np.array_split(data.images, max(1, len(data.images) // 250))
    of_modality = [
        np.concatenate([embed(network.spectra(jnp.asarray(part), (name,))) for part in parts]) for name in MODALITIES
    ]
    shape = (len(data.answers), people.VIEWS)
    features = np.stack([each.reshape(*shape, -1) for each in of_modality], axis=1)
    lit = ~data.night.reshape(shape)
    return features, np.stack([lit, np.ones_like(lit)], axis=1)


def standardised(features: np.ndarray, clear: np.ndarray) -> Seen:
    """Features with mean 0 and deviation 1 over all clear images."""
    known_well = features[clear]
    mean, std = known_well.mean(0), known_well.std(0) + 1e-6
    return Seen((features - mean) / std, clear, mean, std)


def contrast(texts: Array, images: Array, temperature: float) -> Array:
    """CLIP's symmetric contrast of texts [N, D] with images [N, D], the n-th of each of the same person: scalar."""
    similar = l2_normalise(texts) @ l2_normalise(images).T / temperature
    right = jnp.arange(len(texts))
    both = (similar, similar.T)
    return jnp.mean(jnp.stack([optax.softmax_cross_entropy_with_integer_labels(x, right).mean() for x in both]))


def batch_of(seen: Seen, tokens: np.ndarray, recipe: Recipe, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a step: captions int32 [2, persons, L] and standardised features of images [2, persons, D].

    Of persons at random, in each modality one of their captions and one of their clear images.
    """
    random = np.random.default_rng((recipe.seed, step))
    who = random.choice(len(tokens), recipe.persons, replace=False)
    phrasing = random.integers(tokens.shape[2], size=(len(MODALITIES), recipe.persons))
    chance = random.random((len(MODALITIES), recipe.persons, people.VIEWS))
    view = np.where(seen.clear[who].swapaxes(0, 1), chance, -1.0).argmax(-1)
    kind = np.arange(len(MODALITIES))[:, None]
    return tokens[who, kind, phrasing], seen.features[who, kind, view]


def tower_of(recipe: Recipe, words_known: int, width: int) -> TextTower:
    """The tower, with an embedding of as many tokens and features [N, width]."""
    sizes: dict[str, Any] = {**TEXT_TOWERS[recipe.tower], "out": width}
    return TextTower(**sizes, vocabulary=words_known)


def loss(tower: TextTower, params: Any, seen: Seen, tokens: Array, images: Array, recipe: Recipe) -> tuple[Array, Any]:
    """Contrast of captions with images of the same modality, and their squared distance: total, terms.

    Args:
      tower: the network.
      params: of it.
      seen: whose mean and deviation standardise what the tower says.
      tokens: int32 [2, N, L].
      images: standardised features [2, N, D].
      recipe: of the tower.
    """
    said = tower.apply({"params": params}, tokens.reshape(-1, tokens.shape[-1]))
    texts = ((said - seen.mean) / seen.std).reshape(images.shape)
    compared = jax.vmap(contrast, in_axes=(0, 0, None))(texts, images, recipe.temperature).mean()
    distance = jnp.square(texts - images).mean()
    return compared + recipe.regression * distance, {"contrast": compared, "distance": distance}


def fit(
    recipe: Recipe,
    workdir: pathlib.Path,
    *,
    jobs: int = 1,
    checkpoint_every: int = 100,
    say: Callable[[str], None] = _SAY,
) -> Tower:
    """Trains the text tower of a recipe, or goes on with it."""
    features, clear = look(recipe, range(recipe.blocks), workdir.parent / "people", jobs)
    seen = standardised(features, clear)
    vocabulary, places = np.unique(captions(range(recipe.blocks), recipe), return_inverse=True)
    # Nothing is read behind the end of the longest caption.
    tokens = np.asarray(places[..., : 1 + int(places.argmax(-1).max())], np.int32)
    tower = tower_of(recipe, len(vocabulary), features.shape[-1])
    schedule = optax.warmup_cosine_decay_schedule(0, recipe.lr, recipe.steps // 10, recipe.steps)
    decays = lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)  # noqa: E731
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=recipe.weight_decay, mask=decays)
    )

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=compilation.options())
    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        objective = lambda params: loss(tower, params, seen, batch[0], batch[1], recipe)  # noqa: E731
        (total, terms), grads = jax.value_and_grad(objective, has_aux=True)(state["params"])
        updates, moments = optimizer.update(grads, state["moments"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"step": state["step"] + 1, "params": params, "moments": moments}, {"loss": total, **terms}

    params = jax.jit(tower.init)(jax.random.key(recipe.seed), tokens[0, 0, :1])["params"]
    state = {"step": np.int32(0), "params": params, "moments": optimizer.init(params)}
    state = pretraining.train(
        # Copies of JAX's own, as of the state: a gradient that is 0 but for the rounding moves a parameter, too.
        lambda state, number: step(state, tuple(map(jnp.array, batch_of(seen, tokens, recipe, number)))),
        state,
        recipe.steps,
        workdir,
        checkpoint_every=checkpoint_every,
        say=say,
    )
    return Tower(jax.tree.map(np.asarray, state["params"]), vocabulary, seen.mean, seen.std)


def judge(recipe: Recipe, tower: Tower, folder: pathlib.Path) -> dict[str, dict[str, float]]:
    """Scores in percent on a block of people that neither the tower nor its captions knew.

    Captions search the images of their modality; near-infrared images search the colour images (which are not of
    night), alone and with what a colour caption adds to them and a near-infrared one takes off, as in TVI-LFM.
    """
    features, clear = look(recipe, [recipe.blocks], folder)
    images = (features - tower.mean) / tower.std
    tokens = captions([recipe.blocks], recipe)[:, :, : 2 * people.VIEWS]
    position = np.searchsorted(tower.vocabulary, tokens).clip(max=len(tower.vocabulary) - 1)
    network_of = tower_of(recipe, len(tower.vocabulary), features.shape[-1])
    run = jax.jit(lambda params, rows: network_of.apply({"params": params}, rows))
    said = np.asarray(run(tower.params, position.reshape(-1, LENGTH))).reshape(*position.shape[:3], -1)
    texts = (said - tower.mean) / tower.std
    colour, infrared = texts.swapaxes(0, 1)
    # A caption beside every image, and of the infrared ones another than of the colour ones.
    first, second = colour[:, : people.VIEWS], infrared[:, people.VIEWS :]
    queries = {
        "rgb text to rgb": (first, images[:, 0], clear[:, 0]),
        "nir text to nir": (second, images[:, 1], clear[:, 1]),
        "nir to rgb": (images[:, 1], images[:, 0], clear[:, 0]),
        "nir and text to rgb": (images[:, 1] + first - second, images[:, 0], clear[:, 0]),
    }
    identity = np.repeat(np.arange(len(images)), people.VIEWS)
    scores = {}
    for name, (query, gallery, shown) in queries.items():
        rows = np.flatnonzero(shown.reshape(-1))
        sides = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (_flat(query), _flat(gallery)[rows])]
        of_query, of_gallery = (
            metrics.Labels(who, np.full(len(who), camera), np.zeros(len(who), int))
            for camera, who in enumerate((identity, identity[rows]))
        )
        result = metrics.evaluate(2 - 2 * sides[0] @ sides[1].T, of_query, of_gallery, protocols.MARKET)
        scores[name] = {"mAP": round(100 * result.mAP, 1), "R1": round(100 * result.rank(1), 1)}
    return scores


def save(name: str, tower: Tower, folder: pathlib.Path, scores: Mapping[str, Any] | None = None) -> pathlib.Path:
    """Writes ``NAME.safetensors`` in CLIP's names, with the embedding of the tokens that were read, and its card."""
    recipe = RECIPES[name]
    entries = layout.export_state(clip.text_layout(), {"params": tower.params})
    entries[clip.TOKENS] = tower.vocabulary.astype(np.int32)
    entries["vocab_size"] = np.array(VOCABULARY, np.int32)
    card = {
        "parameters": pretraining.count(tower.params),
        **dataclasses.asdict(recipe),
        "people": recipe.blocks * people.BLOCK,
        "captions of each": 2 * len(MODALITIES) * recipe.phrasings,
        "images of each": people.VIEWS,
        "drawing_version": drawn.DRAWING_VERSION,
        "scores of unseen people (percent)": scores or {},
    }
    return pretraining.write_trunk(name, entries, card, folder)


def _flat(features: np.ndarray) -> np.ndarray:
    return features.reshape(-1, features.shape[-1])
