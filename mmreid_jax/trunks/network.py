"""What a trunk is trained with: an embedding of single images, heads on it, and their loss.

Every image, of whatever spectrum, is embedded by one backbone. Images of a person in one spectrum are to lie together,
whatever the camera (supervised contrast, Khosla et al. 2020, eq. 2), the identity is to be told from one image of any
spectrum, and what the person wears is to be named as far as the spectrum shows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmreid_jax.losses.vectors import l2_normalise
from mmreid_jax.models.layers import TorchBatchNorm
from mmreid_jax.models.resnet import RESNETS, ResNet, average_pool
from mmreid_jax.models.vit import SIZES, VisionTransformer
from mmreid_jax.trunks import distillation
from mmreid_jax.trunks.people import ASKED, BY_LIGHT, CHANNELS, MODALITIES, QUESTIONS, UNKNOWN

Array = jax.Array
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the images, as in most configs."""
TEMPERATURE = 0.1
_SMOOTHING = 0.1
_EXISTS = np.array([[a < len(known) for a in range(max(map(len, QUESTIONS.values())))] for known in QUESTIONS.values()])


@dataclasses.dataclass(frozen=True)
class Weights:
    """How much each term counts; the terms are means over images.

    ``across``: contrast with the other spectra. The last three are those of `distillation.loss`.
    """

    contrast: float = 1.0
    identity: float = 0.3
    questions: float = 3.0
    across: float = 0.0
    feature: float = 0.0
    map: float = 0.0
    relations: float = 0.0


class Heads(nn.Module):
    """Batch norm on the embedding, then linear classifiers of the identity and of every question."""

    identities: int

    @nn.compact
    def __call__(self, features: Array) -> tuple[Array, Array, Array]:
        """[N, D] -> after the norm [N, D], logits of the identity [N, identities] and of the questions.

        The latter are [N, questions, answers]; those with fewer answers than others have logits of -inf at the end.
        """
        after = TorchBatchNorm(name="bottleneck")(features, True)
        small = nn.initializers.normal(0.01)
        identity = nn.Dense(self.identities, use_bias=False, kernel_init=small, name="identity")(after)
        joint = nn.Dense(_EXISTS.size, kernel_init=small, name="questions")(after)
        return after, identity, jnp.where(_EXISTS, joint.reshape(-1, *_EXISTS.shape), -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """A teacher at work.

    Attributes:
      teacher: which trunk teaches which modalities.
      backbone: its network.
      variables: of it.
      moments: of its answers, see `distillation.moments`.
    """

    teacher: distillation.Teacher
    backbone: Any
    variables: Mapping[str, Any]
    moments: Mapping[str, Any]

    def answers(self, images: Array) -> dict[str, Array]:
        """Standardised ones to normalised images [N, H, W, 3]."""
        told = distillation.answers(self.backbone, self.variables, images)
        return distillation.standardised(told, self.moments)


def together(values: Mapping[str, Array], modalities: Sequence[str]) -> Array:
    """Values [N, ...] by modality -> those of some, one after the other [M * N, ...]."""
    return jnp.concatenate([values[name] for name in modalities])


def backbone_of(name: str, image_size: tuple[int, int], stem: str = "torchvision") -> Any:
    """The network of that name in the form in which methods use it."""
    if name in SIZES:
        return VisionTransformer(SIZES[name], image_size)
    return ResNet(**RESNETS[name], last_stride=1, stem=stem)


def embed(backbone: Any, variables: Mapping[str, Any], images: Array, train: bool) -> tuple[Array, Any]:
    """Normalised images [N, H, W, 3] -> (features [N, D], new batch statistics or {})."""
    if isinstance(backbone, VisionTransformer):
        feature: Any = backbone.apply({"params": variables["params"]}, images)
        return feature, {}
    if not train:
        return average_pool(backbone.apply(dict(variables), images, False)), variables["batch_stats"]
    maps, new = backbone.apply(dict(variables), images, True, mutable=["batch_stats"])
    return average_pool(maps), new["batch_stats"]


def spectra(images: Array, modalities: tuple[str, ...]) -> Array:
    """uint8 [N, H, W, 5] -> normalised float [M * N, H, W, 3], one modality after the other."""
    scaled = images.astype(jnp.float32) / 255
    chosen = [scaled[..., CHANNELS[MODALITIES.index(name)]] for name in modalities]
    wide = jnp.concatenate([jnp.broadcast_to(each, (*each.shape[:3], 3)) for each in chosen])
    return (wide - jnp.array(MEAN)) / jnp.array(STD)


def augment(images: Array, key: Array, padding: int = 4) -> Array:
    """Mirrors, shifts and covers a part of normalised images [N, H, W, 3], each in its own way."""
    count, height, width, _ = images.shape
    flip_key, shift_key, erase_key = jax.random.split(key, 3)
    flipped = jnp.where(jax.random.bernoulli(flip_key, 0.5, (count, 1, 1, 1)), images[:, :, ::-1], images)
    padded = jnp.pad(flipped, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    starts = jax.random.randint(shift_key, (count, 2), 0, 2 * padding + 1)
    crop = lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), (height, width, 3))  # noqa: E731
    shifted = jax.vmap(crop)(padded, starts)
    draw = jax.random.uniform(erase_key, (5, count))
    tall, wide = height * (0.15 + 0.25 * draw[0]), width * (0.25 + 0.5 * draw[1])
    top, left = (height - tall) * draw[2], (width - wide) * draw[3]
    rows, columns = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    put = lambda x: x[:, None, None]  # noqa: E731
    inside = (rows >= put(top)) & (rows < put(top + tall)) & (columns >= put(left)) & (columns < put(left + wide))
    return jnp.where((inside & put(draw[4] < 0.35))[..., None], 0.0, shifted)


def contrast(features: Array, labels: Array) -> Array:
    """Supervised contrast of features [N, D] with labels int [N]: scalar.

    For each image the mean over all others of its label of -log softmax of the similarities to all other images.
    """
    unit = l2_normalise(features)
    similar = unit @ unit.T / TEMPERATURE
    own = jnp.eye(len(labels), dtype=bool)
    log_share = similar - jax.nn.logsumexp(jnp.where(own, -jnp.inf, similar), axis=1, keepdims=True)
    positive = (labels[:, None] == labels[None, :]) & ~own
    return -(jnp.where(positive, log_share, 0.0).sum(1) / jnp.maximum(positive.sum(1), 1)).mean()


def contrast_across(features: Array, labels: Array, hidden: Array) -> Array:
    """Supervised contrast of every image with those of the other spectra alone: scalar.

    Images of one moment show the same pose before the same background in all spectra, so they are neither right nor
    wrong answers to each other: what is to be recognised is the person at another moment.

    Args:
      features: of all spectra [M, N, D], the n-th of each of the same moment.
      labels: int [N].
      hidden: bool [M, N]: shows nobody, and counts on neither side.
    """
    spectra_count, count, width = features.shape
    unit = l2_normalise(features.reshape(-1, width))
    spectrum, moment = np.divmod(np.arange(spectra_count * count), count)
    seen, person = ~hidden.reshape(-1), jnp.tile(labels, spectra_count)
    other = (spectrum[:, None] != spectrum[None, :]) & (moment[:, None] != moment[None, :])
    compared = other & seen[:, None] & seen[None, :]
    positive = compared & (person[:, None] == person[None, :])
    similar = jnp.where(compared, unit @ unit.T / TEMPERATURE, -1e9)
    log_share = similar - jax.nn.logsumexp(similar, axis=1, keepdims=True)
    each = -jnp.where(positive, log_share, 0.0).sum(1) / jnp.maximum(positive.sum(1), 1)
    counts = positive.any(1)
    return jnp.where(counts, each, 0.0).sum() / jnp.maximum(counts.sum(), 1)


def answer_loss(logits: Array, answers: Array, night: Array, modalities: tuple[str, ...]) -> tuple[Array, Array]:
    """Mean cross-entropy of the questions, and the share of right answers; each question counts alike.

    Args:
      logits: of all images, one modality after the other: [M * N, questions, answers].
      answers: int [N, questions].
      night: bool [N].
      modalities: in that order.
    """
    told = jnp.tile(answers, (len(modalities), 1))
    shows = np.array([[name in ASKED[question] for question in QUESTIONS] for name in modalities])
    by_light = np.array([question in BY_LIGHT for question in QUESTIONS])
    dark = jnp.tile(night, len(modalities))[:, None] & by_light
    asked = (jnp.repeat(shows, len(night), axis=0) & (told != UNKNOWN) & ~dark).astype(logits.dtype)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(told, 0))
    right = (logits.argmax(-1) == told).astype(logits.dtype)
    times, questions = jnp.maximum(asked.sum(0), 1), shows.any(0).sum()
    return ((entropy * asked).sum(0) / times).sum() / questions, ((right * asked).sum(0) / times).sum() / questions


def loss(
    backbone: Any,
    heads: Heads,
    params: Mapping[str, Any],
    stats: Mapping[str, Any],
    batch: Mapping[str, Array],
    key: Array,
    modalities: tuple[str, ...],
    weights: Weights,
    lessons: Sequence[Lesson] = (),
) -> tuple[Array, tuple[dict[str, Array], dict[str, Any]]]:
    """Train-mode forward pass: total, (terms, new batch statistics).

    Args:
      backbone: of `backbone_of`.
      heads: on it.
      params: {"backbone": ..., "heads": ...}, with teachers also "copies".
      stats: batch statistics likewise.
      batch: ``images`` uint8 [N, H, W, 5], ``identity`` int [N], ``night`` bool [N], ``answers`` int [N, questions].
      key: of the augmentation.
      modalities: that are looked at.
      weights: of the terms.
      lessons: of the teachers of a transformer.
    """
    images = augment(spectra(batch["images"], modalities), key)
    network = {"params": params["backbone"], "batch_stats": stats["backbone"]}
    tokens: Any = None
    new: Any = {}
    if lessons:
        tokens = backbone.clone(all_tokens=True).apply({"params": params["backbone"]}, images)
        features = tokens[:, 0]
    else:
        features, new = embed(backbone, network, images, True)
    of_heads = {"params": params["heads"], "batch_stats": stats["heads"]}
    (after, identity, named), new_heads = heads.apply(of_heads, features, mutable=["batch_stats"])
    labels = jnp.tile(batch["identity"], len(modalities))
    smooth = optax.smooth_labels(jax.nn.one_hot(labels, heads.identities), _SMOOTHING)
    asked, right = answer_loss(named, batch["answers"], batch["night"], modalities)
    terms = {
        # After the norm: what comes out of a ReLU is all on one side, and all cosines are near 1. Within each spectrum:
        # compared across, where little is shared, nothing is learnt for hundreds of steps.
        "contrast": jax.vmap(contrast, in_axes=(0, None))(
            after.reshape(len(modalities), -1, after.shape[-1]), batch["identity"]
        ).mean(),
        "identity": optax.softmax_cross_entropy(identity, smooth).mean(),
        "questions": asked,
    }
    total = weights.contrast * terms["contrast"] + weights.identity * terms["identity"] + weights.questions * asked
    if weights.across:
        dark = jnp.array([name == "rgb" for name in modalities])[:, None] & batch["night"]
        terms["across"] = contrast_across(after.reshape(len(modalities), -1, after.shape[-1]), batch["identity"], dark)
        total += weights.across * terms["across"]
    if lessons:
        apart = [dict(zip(modalities, jnp.split(x, len(modalities)), strict=True)) for x in (images, tokens, after)]
        taught = []
        for lesson in lessons:
            seen, made, compared = (together(values, lesson.teacher.modalities) for values in apart)
            told = lesson.answers(seen)
            own = params["copies"][lesson.teacher.trunk]
            copied: Any = distillation.Copies(backbone.grid).apply({"params": own}, made, told)
            taught.append(distillation.loss(copied, told, compared))
        means = jax.tree.map(lambda *each: sum(each) / len(each), *taught)
        terms |= means
        total += sum(getattr(weights, name) * term for name, term in means.items())
    terms |= {"right": right, "accuracy": (identity.argmax(-1) == labels).mean()}
    return total, (terms, {"backbone": new, "heads": new_heads["batch_stats"]})
