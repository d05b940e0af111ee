"""From records and a plan to batches: read, decode, resize, augment, and read ahead in threads or worker processes.

A batch is a dict of numpy arrays, B samples of M modalities:

* ``images``: {modality: uint8 [B, H, W, 3]}, modalities in the order of the records' views; in training then those of
  `ImageOptions.second_views`, as ``rgb_2``;
* ``erase``: {modality: int32 [B, 4]}, training only: top, left, height, width of the rectangle that the device fills;
  height 0 is none;
* ``enhance``: {modality: what is drawn of RLE's enhancements}, training only, where the options ask for it: see
  `enhancement.draw`; the device does it;
* ``identity``: int32 [B], class index in training, identity as the data set writes it in evaluation;
* ``camera``, ``scene``: int32 [B]; ``index``: int32 [B], row of the records;
  Where each modality of a sample is another row (visible-infrared training), these three are those of the first one;
* ``tokens``: {modality: int32 [B, L]}, where the table has captions: CLIP's token numbers. In training of the captions
  of the visible and the infrared image of each sample, each replaced by its rephrasing with some probability; in
  evaluation of infrared images of a visible caption of the identity and of the image's own. Of samples with all
  modalities, of the caption of each of their images;
* ``valid``: bool [B], evaluation only: False on the rows that fill up the last batch (copies of its last sample).

Where the images lie on the devices already (`images.Held`), a batch says which they are and what to do to them, and
`mmreid_jax.training.augment` does it there, with the same result to the bit: in place of ``images`` it has

* ``augment``: {modality: choices}, a dict of ``row`` int32 [B], position in the devices' array, and of what the options
  ask for: ``mirrored`` bool [B]; ``shift`` int32 [B, 2], rows and columns by which the image moves within its frame;
  ``enlarged`` int32 [B, 3], whether, first row and first column; ``patch`` int32 [B, 13] (see `patches.draw`) and
  ``patch_row`` int32 [B], position of the image that it is from; ``brightness`` uint8 [B, 256], ``contrast`` float32
  [B, 256] (see `transforms.contrast_products`) and ``contrast_first`` bool [B]; ``grey`` bool [B].

The position in a run is the step: a batch depends on (seed, step) and the plan, not on how many threads, workers or
hosts there are, nor on where the run began.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import multiprocessing
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from mmreid_jax.data import captions, enhancement, image_store, images, patches, samplers, tokenizer, transforms
from mmreid_jax.data.records import ImageSource, Records
from mmreid_jax.errors import UserError

_log = logging.getLogger(__name__)
Batch = dict[str, Any]
Shares = tuple[tuple[str, float], ...]
READ_AHEAD = 2
"""Batches that each thread and each worker process keeps ready."""
ERASING_FORMS: dict[str, dict[str, Any]] = {"timm": {}, "torchreid": transforms.TORCHREID_ERASING}
"""Shapes of erased rectangles by name: options of `transforms.erasing_rectangle`."""
MOST_ATTEMPTS = 100
"""At a rectangle of an area that the options name: large ones often do not fit."""


_KEYS = {"size": "image_size", "shared": "shared_augmentation", "broken": "broken_images"}
"""Fields of `ImageOptions` whose key in ``config.data`` has another name."""


def _frozen(value: Any) -> Any:
    """A value of a config, lists of which (as in a saved one) are tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


@dataclasses.dataclass(frozen=True)
class ImageOptions:
    """How images are prepared; the defaults are HTT's.

    Attributes:
      size: (H, W) of what the network sees.
      interpolation: of training images, one of `transforms.INTERPOLATIONS`.
      eval_interpolation: of images in evaluation and test-time training.
      padding: pixels of zeros on each side before the random crop.
      flip: probability of mirroring a training image.
      erasing: probability of erasing a rectangle of a training image.
      erasing_area: smallest and largest share of the image that a rectangle covers; empty: as the form says.
      erasing_of: (view, probability) where it is another for one view, as in ``(("nir", 0.5),)``.
      grey_of: (view, probability) of taking away the colours of a training image; of views not named 0.
      erasing_form: ``timm``, or ``torchreid`` for its shapes of rectangles (see `transforms.TORCHREID_ERASING`).
      random_crop: probability of enlarging a training image by an eighth and cropping it at random.
      random_patch: probability of pasting a piece of another training image on it, see `patches`.
      brightness: the brightness of a training image is changed by up to this share.
      contrast: likewise.
      moderate_enhancement: probability of a training image in a random weighted grey, see `enhancement`.
      radical_enhancement: probability of rectangles of a training image that are scaled by random factors.
      shared: the modalities of a sample share flip, crop and rectangle (they share nothing in HTT).
      second_views: modalities whose training images come twice, the second time augmented by numbers of its own.
      rephrased: probability that a training caption gives way to its rephrasing; tables without captions have none.
      broken: policy for files that cannot be decoded, see `images`.
      cache: folder for stores of decoded images, see `image_store`; empty for none.
      cache_gib: largest store, in GiB.
    """

    size: tuple[int, int]
    interpolation: str = "bicubic"
    eval_interpolation: str = "bilinear"
    padding: int = 10
    flip: float = 0.0
    erasing: float = 0.5
    erasing_form: str = "timm"
    random_crop: float = 0.0
    random_patch: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    moderate_enhancement: float = 0.0
    radical_enhancement: float = 0.0
    shared: bool = False
    second_views: tuple[str, ...] = ()
    erasing_area: tuple[float, ...] = ()
    erasing_of: Shares = ()
    grey_of: Shares = ()
    rephrased: float = 0.0
    broken: str = "error"
    cache: str = ""
    cache_gib: float = 8.0

    def __post_init__(self) -> None:
        """Checks every value; `UserError` names the one that makes no sense."""
        if len(self.size) != 2 or min(self.size) < 1:
            raise UserError(f"the image size is {self.size}; it must be (height, width) in pixels")
        if self.padding < 0:
            raise UserError(f"the padding is {self.padding} pixels; it must not be negative")
        enhancements = ("moderate_enhancement", "radical_enhancement")
        probabilities = ("flip", "erasing", "random_crop", "random_patch", *enhancements, "rephrased")
        shares = {name: getattr(self, name) for name in probabilities}
        for name in ("erasing_of", "grey_of"):
            shares |= {f"{name} of {view}": share for view, share in getattr(self, name)}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise UserError(f"{name} is {share}; a probability lies between 0 and 1")
        for name in ("brightness", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; the largest change lies between 0 and 1")
        if self.erasing_form not in ERASING_FORMS:
            raise UserError(f"erasing_form is {self.erasing_form!r}; choose one of {', '.join(ERASING_FORMS)}")
        if self.erasing_area and not 0 <= self.erasing_area[0] < self.erasing_area[-1] <= 1:
            raise UserError(f"erasing_area is {self.erasing_area}; give the smallest and the largest share of an image")
        transforms.check_interpolation(self.interpolation)
        transforms.check_interpolation(self.eval_interpolation)
        images.check_policy(self.broken)

    @classmethod
    def of(cls, section: Mapping[str, Any], cache: str = "") -> ImageOptions:
        """The options in the config section ``config.data``, by the names of its keys; `cache`: folder for stores.

        Some fields have other names there (`_KEYS`); keys that are no field are not about images.
        """
        keys = {field.name: _KEYS.get(field.name, field.name) for field in dataclasses.fields(cls)}
        values = {name: _frozen(section[key]) for name, key in keys.items() if key in section}
        # Without captions there is nothing to rephrase.
        return cls(**{**values, "cache": cache, "rephrased": section["rephrased"] if section["text"] else 0.0})

    def without_augmentation(self) -> ImageOptions:
        """These options as test-time training wants them: images as in evaluation, nothing random."""
        light = ("brightness", "contrast", "moderate_enhancement", "radical_enhancement")
        names = ("flip", "erasing", "random_crop", "random_patch", "rephrased", *light)
        off: dict[str, Any] = dict.fromkeys(names, 0.0) | dict.fromkeys(("second_views", "erasing_of", "grey_of"), ())
        return dataclasses.replace(self, interpolation=self.eval_interpolation, padding=0, **off)

    @property
    def rectangle(self) -> dict[str, Any]:
        """Options of `transforms.erasing_rectangle`."""
        named = {"area": self.erasing_area, "attempts": MOST_ATTEMPTS} if self.erasing_area else {}
        return ERASING_FORMS[self.erasing_form] | named

    @property
    def numbers_per_image(self) -> int:
        """Random numbers that flip, crop and erasing of an image may use."""
        further = MOST_ATTEMPTS - transforms.ERASING_ATTEMPTS if self.erasing_area else 0
        return transforms.NUMBERS_PER_IMAGE + 2 * further

    @property
    def has_options(self) -> bool:
        """Whether training images are changed by more than flip, shifted crop and erasing."""
        return bool(self.random_crop or self.brightness or self.contrast)

    def choices(self, drawn: Sequence[Sequence[transforms.Augmentation]]) -> dict[str, np.ndarray]:
        """Augmentations of B samples in V views as arrays [B, V, ...] of what these options use (see the module)."""

        def numbers(dtype: Any, take: Callable[[transforms.Augmentation], Any]) -> np.ndarray:
            return np.array([[take(each) for each in sample] for sample in drawn], dtype)

        arrays: dict[str, np.ndarray] = {}
        if self.flip:
            arrays["mirrored"] = numbers(bool, lambda each: each.mirrored)
        if self.padding:
            arrays["shift"] = self.padding - numbers(np.int32, lambda each: (each.top, each.left))
        if self.random_crop:
            arrays["enlarged"] = numbers(np.int32, lambda each: (1, *each.enlarged) if each.enlarged else (0, 0, 0))
        if self.brightness or self.contrast:
            arrays["brightness"] = transforms.brightness_values(numbers(np.float64, lambda each: each.brightness))
            arrays["contrast"] = transforms.contrast_products(numbers(np.float64, lambda each: each.contrast))
            arrays["contrast_first"] = numbers(bool, lambda each: each.contrast_first)
        if self.grey_of:
            arrays["grey"] = numbers(bool, lambda each: each.grey)
        return arrays

    def draw(self, view: str, numbers: np.ndarray, more: np.ndarray | None, grey: float) -> transforms.Augmentation:
        """The random choices of an image.

        Args:
          view: modality, or second view of one, as in ``rgb_2``.
          numbers: [numbers_per_image] in [0, 1).
          more: [NUMBERS_OF_OPTIONS] in [0, 1) or None.
          grey: number in [0, 1).
        """
        drawn = transforms.draw(
            transforms.Numbers(numbers.tolist()),
            self.size,
            padding=self.padding,
            flip=self.flip,
            erasing=dict(self.erasing_of).get(view, self.erasing),
            rectangle=self.rectangle,
        )
        drawn = dataclasses.replace(drawn, grey=grey < dict(self.grey_of).get(view, 0.0))
        if more is None:
            return drawn
        options = transforms.draw_options(
            transforms.Numbers(more.tolist()),
            self.size,
            random_crop=self.random_crop,
            brightness=self.brightness,
            contrast=self.contrast,
        )
        return dataclasses.replace(drawn, **options)


class Batches(Iterator[Batch]):
    """An iterator over batches that reads ahead; close it, or use it in ``with``, to end its threads and workers."""

    def __init__(
        self, plan: Sequence[samplers.Draw], load: Loader, start_step: int, threads: int, workers: int
    ) -> None:
        """Batches of `plan` from `start_step` on, each made by `load`."""
        self._held = [_grain_iterator(plan, load, start_step, threads, workers)] if start_step < len(plan) else []
        # Runs at the latest before the interpreter takes itself apart, when grain could no longer stop its processes.
        self._finalizer = weakref.finalize(self, _end, self._held)

    def __next__(self) -> Batch:
        if not self._held:
            raise StopIteration
        try:
            return next(self._held[0]).batch
        except RuntimeError as error:
            if "Worker process was terminated" not in str(error):
                raise
            raise UserError(
                "a worker process of the input pipeline has died; its last words stand above. Without a main guard "
                "(if __name__ == '__main__') in the program, or with too little memory, set config.data.workers to 0"
            ) from error

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends threads and worker processes; more than once is fine."""
        self._finalizer()


@dataclasses.dataclass(frozen=True)
class Loader:
    """Makes the batch of a draw; picklable, so that worker processes can hold one.

    Attributes:
      records: the table.
      pixels: its resized images; `images.Held` where they lie on the devices.
      options: see `ImageOptions`.
      identity: int32 [N], what the batches call identity.
      batch: samples in a global batch.
      shard: (index, count) of the part of the global batch that is loaded.
      seed: of the augmentation; None for evaluation.
    """

    records: Records
    pixels: images.Pixels | images.Held
    options: ImageOptions
    identity: np.ndarray
    batch: int
    shard: tuple[int, int]
    seed: int | None

    def __call__(self, draw: samplers.Draw) -> _Parcel:
        """The batch of `draw`, as grain shall carry it."""
        return _Parcel(self.training_batch(draw) if self.seed is not None else self.evaluation_batch(draw))

    def training_batch(self, draw: samplers.Draw) -> Batch:
        """Augmented images; a broken one gives way to another of its identity (see `images`)."""
        assert self.seed is not None
        options, seed = self.options, self.seed
        here = self._part(len(draw.indices))
        # One row for a sample, or one for each of its modalities.
        rows = draw.indices[here].reshape(here.stop - here.start, -1).copy()
        resized = self._read_or_replace(rows.reshape(-1))
        names = (*self.records.views, *(f"{name}_2" for name in options.second_views))
        views = resized.reshape(len(rows), len(self.records.views), *resized.shape[2:])
        twice = [self.records.modalities.index(name) for name in options.second_views]
        # Images, or where they are.
        seen = np.concatenate([views, views[:, twice]], axis=1) if twice else views

        def drawn_numbers(*kind: int) -> np.ndarray:
            streams = 1 if options.shared else len(names)
            numbers = transforms.random_numbers(seed, draw.step, len(draw.indices), streams, *kind)[here]
            return np.broadcast_to(numbers, (len(rows), len(names), numbers.shape[-1]))

        numbers = drawn_numbers(options.numbers_per_image)
        more = drawn_numbers(transforms.NUMBERS_OF_OPTIONS, 2) if options.has_options else None
        grey = drawn_numbers(1, 4)[..., 0] if options.grey_of else np.ones((len(rows), len(names)))
        drawn = [
            [
                options.draw(name, numbers[i, m], None if more is None else more[i, m], float(grey[i, m]))
                for m, name in enumerate(names)
            ]
            for i in range(len(rows))
        ]
        erase = np.array([[choice.erase for choice in sample] for sample in drawn], np.int32)
        patch, sources = None, seen
        if options.random_patch:
            which, patch = patches.draw(drawn_numbers(patches.NUMBERS, 6), options.size, options.random_patch)
            sources = self._sources(seen, which, patch[..., 0] > 0, [*range(len(self.records.views)), *twice])
        if isinstance(self.pixels, images.Held):
            choices = {"row": seen, **options.choices(drawn)}
            if patch is not None:
                choices |= {"patch": patch, "patch_row": sources}
            delivered: Batch = {"augment": {name: _of_view(choices, m) for m, name in enumerate(names)}}
        else:
            for i, m in np.ndindex(len(rows), len(names)):
                pasted = None if patch is None else (sources[i, m], patch[i, m])
                seen[i, m] = transforms.apply(seen[i, m], drawn[i][m], options.padding, pasted)
            delivered = {"images": _by_name(names, seen)}
        batch = delivered | self._columns(rows[:, 0]) | {"erase": _by_name(names, erase)}
        shares = options.moderate_enhancement, options.radical_enhancement
        if any(shares):
            enhanced = enhancement.draw(drawn_numbers(enhancement.NUMBERS, 5), options.size, *shares)
            batch["enhance"] = {name: _of_view(enhanced, m) for m, name in enumerate(names)}
        if self.records.captions is not None:
            if "rephrased" in self.records.captions:
                spoken = len(self.records.views)
                chance = transforms.random_numbers(seed, draw.step, len(draw.indices), spoken, 1, 3)[here, :, 0]
                plain, rephrased = (self.records.captions[name][rows] for name in ("caption", "rephrased"))
                chosen = captions.choose(plain, rephrased, chance, options.rephrased)
                texts = dict(zip(self.records.views, chosen.T, strict=True))
            else:
                texts = {name: column[rows[:, 0]] for name, column in self.records.captions.items()}
            batch["tokens"] = _tokens(texts)
        return batch

    def evaluation_batch(self, draw: samplers.Draw) -> Batch:
        """Images as they are, filled up to the batch size with copies of the last sample."""
        position = np.arange(self.batch)[self._part(self.batch)]
        rows = draw.indices[np.minimum(position, len(draw.indices) - 1)]
        distinct, back = np.unique(rows, return_inverse=True)
        resized, readable = self._read(distinct)
        if not readable.all():
            row = int(distinct[np.argmin(readable)])
            raise UserError(
                f"{self.records.file[row]} of {self.records.name} cannot be read; drop broken images from the table "
                "before the evaluation (images.drop_broken)"
            )
        by_name = _by_name(self.records.modalities, resized[back])
        if isinstance(self.pixels, images.Held):
            delivered: Batch = {"augment": {name: {"row": row} for name, row in by_name.items()}}
        else:
            delivered = {"images": by_name}
        batch = delivered | self._columns(rows) | {"valid": position < len(draw.indices)}
        if self.records.captions is not None:
            batch["tokens"] = _tokens({name: texts[rows] for name, texts in self.records.captions.items()})
        return batch

    def _part(self, batch: int) -> slice:
        """The positions of this process's part of a global batch."""
        index, count = self.shard
        return slice(index * batch // count, (index + 1) * batch // count)

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images [n, M, H, W, 3] of `rows` [n], or where they are on the devices, int32 [n, M]; which are readable."""
        if isinstance(self.pixels, images.Held):
            return self.pixels.position[rows], self.pixels.readable[rows]
        return self.pixels.read(rows)

    def _read_or_replace(self, rows: np.ndarray) -> np.ndarray:
        """As `_read`, but a broken image gives way to another of its identity; `rows` are changed accordingly."""
        found, readable = self._read(rows)
        for i in np.flatnonzero(~readable):
            rows[i] = self._stand_in(int(rows[i]))
            found[i] = self._read(rows[i : i + 1])[0][0]
        return found

    def _sources(self, seen: np.ndarray, which: np.ndarray, chosen: np.ndarray, view_of: Sequence[int]) -> np.ndarray:
        """Images (or where they are), [B, V, ...] as `seen`, of which pieces are pasted where `chosen` [B, V] says so.

        Args:
          seen: the batch's own images, which stand where nothing is pasted.
          which: [B, V] in [0, 1), a share of the images of the modality.
          chosen: bool [B, V].
          view_of: position of the modality of each of V views among those of the table.
        """
        sources = seen.copy()
        for m, view in enumerate(view_of):
            of_view = np.arange(len(self.records))
            if self.records.modality is not None:
                of_view = np.flatnonzero(self.records.modality == self.records.modalities[view])
            samples = np.flatnonzero(chosen[:, m])
            rows = of_view[(which[samples, m] * len(of_view)).astype(np.int64)]
            found = self._read_or_replace(rows)
            sources[samples, m] = found[:, 0 if self.records.modality is not None else view]
        return sources

    def _columns(self, rows: np.ndarray) -> Batch:
        return {
            "identity": self.identity[rows].astype(np.int32),
            "camera": self.records.camera[rows].astype(np.int32),
            "scene": self.records.scene[rows].astype(np.int32),
            "index": rows.astype(np.int32),
        }

    def _stand_in(self, row: int) -> int:
        """The next readable row of the same identity (and modality), in circles."""
        same = self.records.identity == self.records.identity[row]
        if self.records.modality is not None:
            same &= self.records.modality == self.records.modality[row]
        rows = np.flatnonzero(same)
        for candidate in np.roll(rows, -1 - int(np.searchsorted(rows, row)))[:-1]:
            if self._read(np.array([candidate]))[1][0]:
                file = self.records.file
                _warn_once(f"{file[row]} of {self.records.name} cannot be read; {file[candidate]} takes its place")
                return int(candidate)
        raise UserError(
            f"no image of identity {self.records.identity[row]} of {self.records.name} can be read; "
            "leave that identity out or mend its files"
        )


def train_batches(
    records: Records,
    plan: samplers.Plan,
    options: ImageOptions,
    *,
    start_step: int = 0,
    seed: int,
    threads: int = 1,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    held: images.Held | None = None,
) -> Batches:
    """The training batches of `plan` from `start_step` on.

    Args:
      records: the training table.
      plan: over the rows of `records`.
      options: how images are prepared.
      start_step: steps already done; the batches are those that an uninterrupted run would see.
      seed: of the augmentation.
      threads: that load ahead; 0 loads when a batch is asked for.
      workers: processes that load ahead, with `threads` threads each; 0 for none. The command's main module must be
        guarded by ``if __name__ == "__main__"``, because worker processes import it.
      shard: (index, count) of this process among those that share the global batch; it loads that part alone.
      held: where the images of `stored` lie on the devices; the batches then name them (see the module).

    Returns:
      An iterator to use in ``with``; see the module for what a batch holds.

    Raises:
      UserError: the batch cannot be split into `shard` parts, an image is broken (policy ``error``) and the like.
    """
    _check(plan.batch, threads, workers, shard)
    views = [*records.views, *(f"{name}_2" for name in options.second_views)]
    for key, known in (("second_views", list(records.views)), ("erasing_of", views), ("grey_of", views)):
        named = [name if key == "second_views" else name[0] for name in getattr(options, key)]
        if unknown := [name for name in named if name not in known]:
            raise UserError(f"{key} names {unknown[0]!r}, but {records.name} has {', '.join(known)}")
    pixels = held or stored(records, options, options.interpolation, threads)
    load = Loader(records, pixels, options, records.class_index(), plan.batch, shard, seed)
    return Batches(plan, load, start_step, threads, workers)


def eval_batches(
    records: Records,
    options: ImageOptions,
    batch_size: int,
    *,
    threads: int = 1,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    held: images.Held | None = None,
) -> Batches:
    """All samples of `records` once, in order, in batches of `batch_size`; the last is filled up and marked.

    Args:
      records: the table; under the policy ``skip`` it must have gone through `images.drop_broken`.
      options: how images are prepared (size, eval_interpolation, broken, cache).
      batch_size: samples in a global batch.
      threads: see `train_batches`.
      workers: see `train_batches`.
      shard: see `train_batches`.
      held: see `train_batches`; of images with `eval_interpolation`.

    Returns:
      An iterator to use in ``with``; see the module for what a batch holds.
    """
    plan = samplers.sequential(len(records), batch_size)
    _check(batch_size, threads, workers, shard)
    pixels = held or stored(records, options, options.eval_interpolation, threads)
    load = Loader(records, pixels, options, records.identity, batch_size, shard, None)
    return Batches(plan, load, 0, threads, workers)


def stored(records: Records, options: ImageOptions, interpolation: str, threads: int = 1) -> images.Pixels:
    """The resized images of a table, from a store where the options allow one (made now if there is none yet).

    Samples of one modality each have one image; all others have one of every modality.
    """
    decoded = images.DecodedImages(records.as_stored(), options.size, interpolation, options.broken)
    return image_store.open_pixels(decoded, folder=options.cache, limit_gib=options.cache_gib, threads=threads)


def concatenate(tables: Sequence[Records], name: str) -> Records:
    """The samples of several tables one after another, as test-time training wants query and gallery.

    Raises:
      UserError: the tables do not hold the same modalities in the same way.
    """
    first = tables[0]
    for table in tables[1:]:
        if list(table.views.items()) != list(first.views.items()):
            raise UserError(f"{table.name} and {first.name} store their modalities differently and cannot be joined")
    offsets = np.cumsum([0, *(len(table.source) for table in tables)])
    return Records(
        name=name,
        identity=np.concatenate([table.identity for table in tables]),
        camera=np.concatenate([table.camera for table in tables]),
        scene=np.concatenate([table.scene for table in tables]),
        file=np.concatenate([table.file for table in tables]),
        views=first.views,
        source=JoinedSource(tuple(table.source for table in tables), offsets),
        rows=np.concatenate([table.rows + offset for table, offset in zip(tables, offsets[:-1], strict=True)]),
        value_range=first.value_range,
    )


@dataclasses.dataclass(frozen=True)
class JoinedSource:
    """Image sources one after another.

    Attributes:
      sources: the sources.
      offsets: int64 [sources + 1], index of the first sample of each, and the number of all.
    """

    sources: tuple[ImageSource, ...]
    offsets: np.ndarray

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def encoded(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """See `ImageSource.encoded`."""
        index = np.asarray(indices, np.int64)
        owner = np.searchsorted(self.offsets, index, side="right") - 1
        files: dict[int, dict[str, bytes]] = {}
        for k in np.unique(owner):
            positions = np.flatnonzero(owner == k)
            files_of_source = self.sources[k].encoded((index[positions] - self.offsets[k]).tolist())
            files.update(zip(positions.tolist(), files_of_source, strict=True))
        return [files[position] for position in range(len(index))]


def _by_name(names: Sequence[str], values: np.ndarray) -> dict[str, np.ndarray]:
    """[B, M, ...] -> {name: [B, ...]} for M names."""
    return {name: np.ascontiguousarray(values[:, m]) for m, name in enumerate(names)}


def _of_view(choices: dict[str, np.ndarray], view: int) -> dict[str, np.ndarray]:
    """Of arrays [B, V, ...] those of one view, [B, ...]."""
    return {name: np.ascontiguousarray(values[:, view]) for name, values in choices.items()}


def _tokens(captions_of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{name: texts [B]} -> {name: int32 [B, L]}."""
    return {name: tokenizer.tokenize(texts.tolist()) for name, texts in captions_of.items()}


def _check(batch: int, threads: int, workers: int, shard: tuple[int, int]) -> None:
    index, count = shard
    if not 0 <= index < count:
        raise UserError(f"part {index} of {count} does not exist; parts are counted from 0")
    if batch % count:
        raise UserError(f"batch {batch} cannot be split among {count} processes; choose a multiple of {count}")
    if workers and getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker starts by importing the main module, which has got here again.
        raise UserError(
            "config.data.workers needs a main module that can be imported: put the program under if __name__ =="
            " '__main__', or set config.data.workers to 0"
        )
    if threads < 0 or workers < 0:
        raise UserError(f"{threads} threads and {workers} workers were asked for; neither can be negative")


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


def _end(held: list[Any]) -> None:
    """Closes the iterator in `held`, if there is one, and lets go of it."""
    while held:
        held.pop().close()


@dataclasses.dataclass(frozen=True)
class _Parcel:
    """A batch on its way out of grain.

    Of a dict, grain would sort the keys (the order of the modalities has a meaning) and put the arrays into shared
    memory, which is 64 MB in a usual container and which it loses track of when a worker ends. As an object that
    grain does not know, a batch is pickled whole.
    """

    batch: Batch


def _grain_iterator(plan: Sequence[samplers.Draw], load: Loader, start_step: int, threads: int, workers: int) -> Any:
    """One element is one batch, so threads and workers share out whole batches and cannot mix their samples."""
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads its flags; outside of app.run nobody has parsed any
    batches = grain.MapDataset.source(plan)[start_step:].map(load)
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=READ_AHEAD * threads)
    iterable = batches.to_iter_dataset(ahead)
    if workers:
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=READ_AHEAD)
        iterable = iterable.mp_prefetch(options)
    return iter(iterable)
