"""Searches of one gallery by single queries, as the page asks for them."""

from __future__ import annotations

import dataclasses
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmreid_jax.data.images import decode, decode_sample
from mmreid_jax.data.records import Records
from mmreid_jax.errors import UserError, printable
from mmreid_jax.model import Described, Extractor, Model
from mmreid_jax.retrieval import distances, streamed, thresholds
from mmreid_jax.visualize import images as drawing

_UPLOAD = "the query image"
# Of a picture of the page.
_HEIGHT, _WIDTH, _QUALITY = 256, 160, 88


@dataclasses.dataclass(frozen=True)
class Found:
    """A match.

    Attributes:
      row: of the gallery.
      name: of its file.
      camera: name of its sample's; "" where it is not known.
      modality: that it was seen in.
      distance: squared Euclidean, of features of length one.
    """

    row: int
    name: str
    camera: str
    modality: str
    distance: float


class Searcher:
    """A model and a gallery.

    Attributes:
      cameras: names of those of the gallery; empty where they are not known.
      modalities: that a query may be of.
      reads_text: whether queries in words are understood.
    """

    def __init__(
        self, extractor: Extractor, records: Records, absent: Sequence[str] = (), cameras: Sequence[str] = ()
    ) -> None:
        """Embeds the gallery.

        Args:
          extractor: the model.
          records: of the gallery.
          absent: modalities that it lacks.
          cameras: names of its samples' cameras, one each; empty: not known.
        """
        self._extractor, self._records, self._absent = extractor, records, tuple(absent)
        self._camera = np.array(list(cameras) or [""] * len(records))
        self.cameras = sorted(set(cameras), key=lambda name: (len(name), name))
        self.seen = tuple(name for name in records.modalities if name not in absent)
        self.reads_text = bool(extractor.config.data.get("text", False))
        known = extractor.method.facts.modalities
        self.modalities = known[-1:] if self.reads_text else known
        self._lock = threading.Lock()
        self._features: dict[str, np.ndarray] = {}
        if not self.reads_text:
            self._gallery("")

    def __len__(self) -> int:
        return len(self._records)

    def threshold(self, folder: Path, which: str) -> float | None:
        """The distance that says "nobody", as `mmreid calibrate` has measured it of this model; None: it has not."""
        for each in thresholds.read(folder) if folder.is_dir() else ():
            if each.gallery == self.seen and each.which == which:
                return each.distance
        return None

    def _gallery(self, feature: str) -> np.ndarray:
        if feature not in self._features:
            rows = self._extractor(self._records, self._absent, feature)
            self._features[feature] = distances.l2_normalise(rows)
        return self._features[feature]

    def search(
        self, image: bytes, modality: str, text: str = "", cameras: Sequence[str] = (), top: int = 24
    ) -> list[Found]:
        """The nearest gallery samples of an image, of words, or of both.

        Args:
          image: an image file; empty for none.
          modality: that it was taken in.
          text: what the person looks like; "" for none.
          cameras: names of those whose samples are searched; empty: all.
          top: matches.

        Raises:
          UserError: there is no query, the image cannot be read, or the model does not know the modality or no text, or
            the gallery no such camera.
        """
        if not image and not text.strip():
            raise UserError("drop an image or write a text to search for")
        if image and modality not in self.modalities:
            raise UserError(f"the model searches by {', '.join(self.modalities)}, not by {printable(modality, 40)}")
        if unknown := sorted(set(cameras) - set(self.cameras)):
            raise UserError(
                f"the gallery has no camera {printable(unknown[0])}; it has {', '.join(self.cameras) or 'none'}"
            )
        with self._lock:
            query, gallery = self._compared(image, modality, text.strip())
        rows = np.arange(len(self))
        if cameras:
            rows = rows[np.isin(self._camera, list(cameras))]
        order, values = streamed.top_k(query, gallery[rows], top)
        named = ",".join(self.seen)
        return [
            Found(int(row), str(self._records.file[row]), str(self._camera[row]), named, float(value))
            for row, value in zip(rows[order[0]], values[0], strict=True)
        ]

    def _compared(self, image: bytes, modality: str, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Features of the query [1, D] and of the gallery [G, D], of length one."""
        if image:
            # What cannot be read is said before a model sees it.
            pixels = decode(image, _UPLOAD)
        if not self.reads_text:
            if text:
                raise UserError("this model reads no text; drop an image")
            rows = Model(self._extractor).embed({modality: [pixels]})
            return distances.l2_normalise(rows), self._gallery("")
        with tempfile.TemporaryDirectory(prefix="mmreid_jax_") as folder:
            place = None
            if image:
                place = Path(folder) / "query"
                place.write_bytes(image)
            described = Described(text, place, "")
            compared = described.comparison(self._extractor)
            query = described.features(self._extractor, compared.feature)
        return query, self._gallery(compared.gallery_feature)

    def picture(self, row: int) -> bytes:
        """A JPEG picture of a gallery sample, its modalities side by side, at most _HEIGHT high and each _WIDTH wide.

        Raises:
          UserError: there is no such sample, or it cannot be read.
        """
        if not 0 <= row < len(self):
            raise UserError(f"the gallery has {len(self)} samples and no row {row}")
        whole = decode_sample(self._records, row, self._records.encoded([row])[0], truncated=True)
        # All as high as the first one: no ground is drawn around a single image, whatever the colours of the page.
        height, width = whole[self.seen[0]].shape[:2]
        scale = min(_HEIGHT / height, _WIDTH / width)
        size = [max(1, round(side * scale)) for side in (height, width)]
        shown: list[Any] = [drawing.fit(whole[name], *size) for name in self.seen]
        return drawing.encode_jpeg(np.concatenate(shown, axis=1), _QUALITY)
