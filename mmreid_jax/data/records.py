"""The records table: what is known of every sample of a split, plus random access to its encoded images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.errors import UserError

ValueRange = tuple[float, float] | tuple[()]
"""(low, high): the values of images of more than 8 bits that become 0 and 255; empty: chosen for each image."""


def check_value_range(value: Sequence[float]) -> ValueRange:
    """The range as a tuple; `UserError` where it is none: two finite numbers, the lower first, or empty."""
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        raise UserError(f"value_range is {value!r}; it must be (LOW, HIGH), two numbers, or empty") from None
    if not numbers:
        return ()
    if len(numbers) != 2 or not (math.isfinite(numbers[0]) and math.isfinite(numbers[1])) or numbers[0] >= numbers[1]:
        raise UserError(f"value_range is {numbers}; it must be (LOW, HIGH), the lower value first, or empty")
    return numbers[0], numbers[1]


# Every column but the captions, which are several.
_COLUMNS = ("identity", "camera", "scene", "file", "rows", "label", "modality")


class ImageSource(Interface):
    """Random access to the encoded images of samples; picklable, so that worker processes can hold one."""

    def __len__(self) -> int: ...

    def encoded(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """The encoded image files of the samples `indices`: one dict {stored image name: file bytes} a sample."""
        ...


@dataclasses.dataclass(frozen=True)
class View:
    """Where one modality of a sample is found: the stored image and, in side-by-side images, its columns.

    Attributes:
      image: name of the stored image, a key of what `ImageSource.encoded` returns.
      columns: first and one-past-last pixel column, or None for the whole image.
    """

    image: str
    columns: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Records:
    """A table of N samples.

    A sample is seen in all modalities of `views` at once, or, where `modality` says so, it is one image of one of them
    (visible-infrared training data: nobody takes both pictures of a person at the same moment).

    Attributes:
      name: data set and split, as in ``rgbnt201/train``.
      identity: int32 [N], identity as the data set writes it (not a class index).
      camera: int32 [N], counted from 0.
      scene: int32 [N], time or scene id where the data set has one, else 0.
      file: str [N], file name of the sample as the data set writes it.
      views: modality name (``rgb``, ``nir``, ``tir``) -> where to find it; the order is the order of concatenation.
      source: random access to the encoded images; row ``rows[i]`` of the source is sample i.
      rows: int64 [N].
      label: int32 [N], class index where the data set's own lists give one; None: the rank of the identity.
      modality: str [N], the one modality of each sample; None: every sample has all of them.
      captions: name -> texts [N], an object array of str; None: the table has no text. Training samples of one modality
        have a ``caption`` of their own and ``rephrased``, the same in other words ("" for none). Infrared test samples
        have two by modality: ``rgb``, a visible caption of their true identity, and their own (``nir`` or ``tir``).
        Samples with all modalities have one of each of their images, by modality, in training and test ("" for none).
      value_range: how images of more than 8 bits are scaled, see `images.decode`.
      left_out: name of a file -> why it is not in the table, where files could not be used.
    """

    name: str
    identity: np.ndarray
    camera: np.ndarray
    scene: np.ndarray
    file: np.ndarray
    views: Mapping[str, View]
    source: ImageSource
    rows: np.ndarray
    label: np.ndarray | None = None
    modality: np.ndarray | None = None
    captions: Mapping[str, np.ndarray] | None = None
    value_range: ValueRange = ()
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.identity)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order in which features are concatenated."""
        return tuple(self.views)

    @property
    def identities(self) -> np.ndarray:
        """int32 [C], the distinct identities in ascending order; their positions are the class indices."""
        return np.unique(self.identity)

    def class_index(self) -> np.ndarray:
        """int32 [N], `label`, or the position of each sample's identity in `identities`."""
        if self.label is not None:
            return self.label
        return np.searchsorted(self.identities, self.identity).astype(np.int32)

    def select(self, indices: np.ndarray | Sequence[int], name: str | None = None) -> Records:
        """The table of the samples `indices`, in that order."""
        index = np.asarray(indices) if len(indices) else np.zeros(0, np.int64)
        present = {key: getattr(self, key) for key in _COLUMNS if getattr(self, key) is not None}
        columns: dict[str, Any] = {key: column[index] for key, column in present.items()}
        if self.captions is not None:
            columns["captions"] = {key: texts[index] for key, texts in self.captions.items()}
        return dataclasses.replace(self, name=name or self.name, **columns)

    @property
    def drawn(self) -> bool:
        """Whether the images are known to be drawn, not photographed."""
        return bool(getattr(self.source, "drawn", False))

    def of_modality(self, name: str) -> Records:
        """The table of the samples of one modality, or of all samples in that modality alone."""
        views = {name: self.views[name]}
        if self.modality is None:
            return dataclasses.replace(self, views=views)
        chosen = self.select(np.flatnonzero(self.modality == name))
        return dataclasses.replace(chosen, views=views, modality=None)

    def unlabelled(self) -> Records:
        """The table as who learns without labels may see it: all samples count as one identity."""
        nobody = np.zeros(len(self), np.int32)
        return dataclasses.replace(self, identity=nobody, label=None)

    def as_stored(self) -> Records:
        """The table as the pipeline decodes it: of samples of one modality each, the one image, whatever it shows."""
        if self.modality is None:
            return self
        return dataclasses.replace(self, views={"image": next(iter(self.views.values()))}, modality=None)

    def encoded(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
        """The encoded images of the samples `indices`."""
        return self.source.encoded([int(self.rows[i]) for i in indices])
