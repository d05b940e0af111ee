"""What is exported of a trained model: pixels in, features of length one out, as one pure function of arrays.

Images come as [B, 3, H, W], one array for each modality; texts as tokens [B, 77] of CLIP's tokenizer. Resizing,
normalisation, the network, the choice of the feature and its length are part of the function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from mmreid_jax.data import transforms
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import normalization
from mmreid_jax.methods import base
from mmreid_jax.model import Extractor

TOKENS = 77
"""Length of a tokenised text."""
PIXELS = ("uint8", "unit", "imagenet")
"""What images are given as: 0 to 255; 0 to 1; or normalised by ImageNet's mean and deviation, which is undone."""
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_SHORTEST = 1e-12
# Reach of Pillow's filters in pixels of the coarser image, and what they weigh a distance by.
_REACH = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}


@dataclasses.dataclass(frozen=True)
class Contract:
    """How the program that uses the model hands images over.

    Attributes:
      pixels: one of PIXELS.
      size: height and width of the images; (): those that the network sees.
      only_image: name of the input where it is one image; "": that of its modality.
    """

    pixels: str = "unit"
    size: tuple[int, ...] = ()
    only_image: str = ""


class Network:
    """The exported function of a model.

    Attributes:
      inputs: name -> (shape of one sample, dtype).
      modalities: of the images that it sees.
      feature: name of the feature.
      dimension: numbers in it.
      contract: how images come.
      size: height and width of the images that come.
      image_size: those that the network sees.
    """

    def __init__(
        self, extractor: Extractor, modalities: Sequence[str] = (), feature: str = "", contract: Contract | None = None
    ) -> None:
        """Of a trained model, whose network is computed in float32.

        Args:
          extractor: the model.
          modalities: to see; the others are absent, as zeros. Empty: all of them. A model that sees one modality at a
            time needs one.
          feature: which of the model's; "": the one that such images are compared by.
          contract: how images come; None: as numbers between 0 and 1 of the network's own size.

        Raises:
          UserError: the model sees no such modality, or makes no such feature of them.
        """
        self._config = extractor.config
        self._method = in_float32(extractor)
        self._variables = jax.tree.map(jnp.asarray, extractor.variables)
        self.contract = contract or Contract()
        self.modalities = _chosen(extractor, modalities)
        self._absent = () if extractor.one_modality else _others(extractor, self.modalities)
        self.image_size: tuple[int, int] = tuple(extractor.config.data.image_size)
        self.size = tuple(self.contract.size) or self.image_size
        self.feature, reads = self._feature(extractor, feature)
        dtype = np.dtype(np.uint8 if self.contract.pixels == "uint8" else np.float32)
        names = (self.contract.only_image,) if self.contract.only_image else self.modalities
        if len(names) != len(self.modalities):
            raise UserError(
                f"that program hands over one image, but this network sees {', '.join(self.modalities)}; choose one "
                "with --modalities"
            )
        images = {name: ((3, *self.size), dtype) for name in names}
        texts = {f"tokens_{name}": ((TOKENS,), np.dtype(np.int32)) for name in extractor.method.facts.modalities}
        self._names = [*images, *(texts if reads else ())]
        self.inputs = {name: each for name, each in {**images, **texts}.items() if name in self._names}
        used = _used(self.features, self.inputs)
        self.inputs = {name: each for (name, each), used in zip(self.inputs.items(), used, strict=True) if used}
        self.inputs = {name: each for name, each in self.inputs.items() if not self._ignores(name)}
        shape = jax.eval_shape(self.features, *self.examples(1)).shape
        self.dimension = int(shape[-1])

    def _feature(self, extractor: Extractor, wanted: str) -> tuple[str, bool]:
        """Name of the feature, and whether it is made of text, too."""
        if not wanted:
            usual = extractor.comparison
            of_gallery = extractor.one_modality and usual.gallery == self.modalities
            wanted = (of_gallery and usual.gallery_feature) or usual.feature
        spelled = (wanted, f"{wanted}_{self.modalities[-1]}")
        makes: list[str] = []
        for reads in (False, True) if self._config.data.get("text", False) else (False,):
            makes = list(jax.eval_shape(lambda reads=reads: self._all(self._blank(reads))))
            found = [name for name in spelled if name in makes]
            if found:
                return found[0], reads
        raise UserError(f"the model makes no feature {wanted!r} of these; choose one of {', '.join(makes)}")

    def _ignores(self, name: str) -> bool:
        """Whether two very different texts make no difference: all texts of a sample are read in one pass."""
        if not name.startswith("tokens_") or len(self.inputs) == 1:
            return False
        given = {key: np.zeros((2, *shape), dtype) for key, (shape, dtype) in self.inputs.items()}
        given[name][1] = np.arange(TOKENS)
        both = self.live(given)
        return bool(np.array_equal(both[0], both[1]))

    def _blank(self, reads: bool) -> dict[str, Any]:
        """A batch of one black sample."""
        batch: dict[str, Any] = {"images": {name: jnp.zeros((1, *self.image_size, 3)) for name in self.modalities}}
        if reads:
            tokens = jnp.zeros((1, TOKENS), jnp.int32)
            batch["tokens"] = dict.fromkeys(self._method.facts.modalities, tokens)
        return batch

    def _all(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """All features of a batch of normalised images."""
        some = next(iter(batch["images"].values()))
        images = {**batch["images"], **{name: jnp.zeros_like(some) for name in self._absent}}
        if not self._absent and len(images) > 1:
            images = {name: images[name] for name in self.modalities}
        side = {name: jnp.zeros(some.shape[:1], jnp.int32) for name in ("camera", "scene")}
        seen: Any = {**side, **batch, "images": images}
        return self._method.embed(self._variables, seen)

    def examples(self, count: int) -> list[Any]:
        """Shapes and types of the inputs of a batch."""
        return [jax.ShapeDtypeStruct((count, *shape), dtype) for shape, dtype in self.inputs.values()]

    def features(self, *arrays: Any) -> Any:
        """Features [B, D] of length one; a pure function of `inputs` in their order."""
        given = dict(zip(self.inputs, arrays, strict=True))
        count = arrays[0].shape[0]
        images = {}
        names = [name for name in self._names if not name.startswith("tokens_")]
        for name, modality in zip(names, self.modalities, strict=True):
            if name in given:
                images[modality] = self._seen(given[name])
            else:
                # Of texts alone.
                images[modality] = jnp.zeros((count, *self.image_size, 3))
        batch: dict[str, Any] = {"images": images}
        if any(name.startswith("tokens_") for name in self._names):
            blank = jnp.zeros((count, TOKENS), jnp.int32)
            batch["tokens"] = {name: given.get(f"tokens_{name}", blank) for name in self._method.facts.modalities}
        rows = self._all(batch)[self.feature]
        return rows / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(rows), axis=-1, keepdims=True)), _SHORTEST)

    def _seen(self, pixels: Any) -> Any:
        """[B, 3, h, w] as the contract has them -> normalised [B, H, W, 3]."""
        if self.contract.pixels == "uint8":
            scaled = pixels.astype(jnp.float32) / 255.0
        elif self.contract.pixels == "imagenet":
            mean, std = (np.array(IMAGENET[name], np.float32)[:, None, None] for name in ("mean", "std"))
            scaled = pixels * std + mean
        else:
            scaled = pixels
        if self.size != self.image_size:
            kind = self._config.data.eval_interpolation
            rows, columns = (
                jnp.asarray(resizing(source, target, kind))
                for source, target in zip(self.size, self.image_size, strict=True)
            )
            # Pillow, too, takes the columns first. The filters overshoot at edges.
            scaled = jnp.clip(jnp.matmul(rows, jnp.matmul(scaled, columns.T)), 0.0, 1.0)
        rule = normalization(self._config.data)
        return (scaled.transpose(0, 2, 3, 1) - jnp.float32(rule.mean)) / jnp.float32(rule.std)

    def metadata(self) -> dict[str, str]:
        """What a file says of the model."""
        from mmreid_jax import __version__

        return {
            "method": self._config.method,
            "dataset": self._config.data.dataset,
            "modalities": ",".join(self.modalities),
            "absent": ",".join(self._absent),
            "feature": self.feature,
            "dimension": str(self.dimension),
            "pixels": self.contract.pixels,
            "input_size": "x".join(map(str, self.size)),
            "network_size": "x".join(map(str, self.image_size)),
            "channels_order": "RGB",
            "normalised": "L2",
            "library": f"mmreid_jax {__version__}",
        }

    # ------------------------------------------------------------------------------------------------- the live model

    def live(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The features that the model itself makes of such inputs, float64 [B, D]; what is resized is so by Pillow.

        Args:
          inputs: by name, as `inputs` says.
        """
        images = {}
        names = [name for name in self._names if not name.startswith("tokens_")]
        count = len(next(iter(inputs.values())))
        for name, modality in zip(names, self.modalities, strict=True):
            if name in inputs:
                images[modality] = jnp.asarray(self._by_pillow(inputs[name]))
            else:
                images[modality] = jnp.zeros((count, *self.image_size, 3))
        batch: dict[str, Any] = {"images": images}
        if any(name.startswith("tokens_") for name in self._names):
            blank = np.zeros((count, TOKENS), np.int32)
            batch["tokens"] = {name: inputs.get(f"tokens_{name}", blank) for name in self._method.facts.modalities}
        if not hasattr(self, "_embed"):
            self._embed = jax.jit(self._all)
        # GPUs may otherwise multiply with fewer digits.
        with jax.default_matmul_precision("highest"):
            rows = np.asarray(self._embed(batch)[self.feature], np.float64)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _SHORTEST)

    def _by_pillow(self, pixels: np.ndarray) -> np.ndarray:
        """As `_seen`, on the host: float32 [B, H, W, 3]."""
        scaled = pixels.astype(np.float64)
        if self.contract.pixels == "uint8":
            scaled = scaled / 255
        elif self.contract.pixels == "imagenet":
            mean, std = (np.array(IMAGENET[name])[:, None, None] for name in ("mean", "std"))
            scaled = scaled * std + mean
        if self.size != self.image_size:
            from PIL import Image

            method = Image.Resampling[self._config.data.eval_interpolation.upper()]
            planes = [Image.fromarray(plane.astype(np.float32)) for plane in scaled.reshape(-1, *self.size)]
            resized = [np.asarray(plane.resize(self.image_size[::-1], method)) for plane in planes]
            scaled = np.clip(np.stack(resized), 0, 1).reshape(*scaled.shape[:2], *self.image_size)
        rule = normalization(self._config.data)
        return ((scaled.transpose(0, 2, 3, 1) - np.array(rule.mean)) / np.array(rule.std)).astype(np.float32)


def in_float32(extractor: Extractor) -> base.Method:
    """The method of a model that computes in float32, with attention that every device has."""
    config = extractor.config.copy_and_resolve_references()
    with config.unlocked():
        for key, value in (("dtype", "float32"), ("attention", "plain")):
            if key in config.model:
                config.model[key] = value
    return base.build(config, extractor.method.facts)


def _chosen(extractor: Extractor, wanted: Sequence[str]) -> tuple[str, ...]:
    """The modalities that the network sees, in its own order."""
    known = extractor.method.facts.modalities
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(f"the model sees no {', '.join(unknown)}; choose of {', '.join(known)}")
    if extractor.one_modality and len(wanted) != 1:
        raise UserError(f"this model sees one modality at a time; choose one of {', '.join(known)} with --modalities")
    return tuple(name for name in known if name in wanted) or known


def _others(extractor: Extractor, seen: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in extractor.method.facts.modalities if name not in seen)


def _used(function: Callable[..., Any], inputs: Mapping[str, tuple[tuple[int, ...], Any]]) -> list[bool]:
    """Which inputs the result of a function depends on."""
    shapes = [jax.ShapeDtypeStruct((1, *shape), dtype) for shape, dtype in inputs.values()]
    program = jax.make_jaxpr(function)(*shapes).jaxpr
    wanted = {each for each in program.outvars if not isinstance(each, jax.extend.core.Literal)}
    for step in reversed(program.eqns):
        if wanted & set(step.outvars):
            wanted |= {each for each in step.invars if not isinstance(each, jax.extend.core.Literal)}
    return [each in wanted for each in program.invars]


def resizing(source: int, target: int, kind: str) -> np.ndarray:
    """The matrix float32 [target, source] that resizes a line of pixels as Pillow does, antialiased.

    Args:
      source: length of the line.
      target: length to be.
      kind: one of `transforms.INTERPOLATIONS`.
    """
    transforms.check_interpolation(kind)
    scale = source / target
    stretch = max(scale, 1.0)
    centers = (np.arange(target) + 0.5) * scale
    first = np.maximum((centers - _REACH[kind] * stretch + 0.5).astype(np.int64), 0)[:, None]
    stop = np.minimum((centers + _REACH[kind] * stretch + 0.5).astype(np.int64), source)[:, None]
    pixels = np.arange(source)
    weights = _weight(kind, (pixels + 0.5 - centers[:, None]) / stretch) * ((pixels >= first) & (pixels < stop))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _weight(kind: str, distance: np.ndarray) -> np.ndarray:
    """What a filter weighs pixels of a distance by."""
    apart = np.abs(distance)
    if kind == "bilinear":
        return np.maximum(1 - apart, 0)
    if kind == "lanczos":
        return np.where(apart < 3, np.sinc(apart) * np.sinc(apart / 3), 0)
    # Keys' cubic with a = -1/2.
    near = (1.5 * apart - 2.5) * apart**2 + 1
    far = ((-0.5 * apart + 2.5) * apart - 4) * apart + 2
    return np.where(apart < 1, near, np.where(apart < 2, far, 0))
