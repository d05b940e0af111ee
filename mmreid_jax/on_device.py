"""Images that lie on the devices: a table's decoded pixels are uploaded once, and batches only name them.

``config.data.on_device`` decides: ``on``, ``off``, or ``auto``, which is on for accelerators as long as all that is
kept there takes at most a third of their memory. A table lies whole on every device where that fits, else each device
(of all hosts) has a part of it, and XLA fetches the images of a batch from where they are. Of them
`mmreid_jax.training.augment` makes, bit for bit, the batches that the host would have sent.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from mmreid_jax.data import images, pipeline, transforms
from mmreid_jax.data.records import Records
from mmreid_jax.errors import UserError
from mmreid_jax.training import augment, distributed
from mmreid_jax.training.step import Parallel

SHARE = 3
"""Of a device's memory images may take one part in so many."""
CHOICES = {"auto": None, "on": True, "true": True, "off": False, "false": False}


@dataclasses.dataclass(frozen=True)
class DeviceTable:
    """A table of records whose images lie on the devices; empty where they stay on the host.

    Attributes:
      host: what the loader must know.
      arrays: what the devices have, see `augment.Held`.
    """

    host: images.Held | None = None
    arrays: augment.Held | None = None


@dataclasses.dataclass(frozen=True)
class _Entry:
    records: Records
    """Kept, for the key holds its `id`."""
    table: DeviceTable
    bytes_per_device: int


class OnDevice:
    """The tables on the devices, each uploaded when it is first asked for."""

    def __init__(self, choice: Any = "off", threads: int = 1) -> None:
        """Remembers what to do.

        Args:
          choice: ``config.data.on_device``.
          threads: that decode images of which there is no store.

        Raises:
          UserError: there is no such choice.
        """
        if str(choice).lower() not in CHOICES:
            raise UserError(f"config.data.on_device is {choice!r}; choose auto, on or off")
        self._wanted = CHOICES[str(choice).lower()]
        self._threads = threads
        self._entries: dict[tuple[Any, ...], _Entry] = {}

    def open(
        self, parallel: Parallel, records: Records, options: pipeline.ImageOptions, *, training: bool
    ) -> DeviceTable:
        """The table on the devices, or an empty one where its images stay on the host.

        Args:
          parallel: the devices.
          records: the table.
          options: how its images are prepared.
          training: with the interpolation of training images, and what their augmentation needs.

        Raises:
          UserError: an image is broken, as when the host reads it.
        """
        if self._wanted is False or (self._wanted is None and jax.default_backend() == "cpu"):
            return DeviceTable()
        interpolation = options.interpolation if training else options.eval_interpolation
        key = _key(parallel, records, options, interpolation)
        if key not in self._entries:
            self._entries[key] = self._upload(parallel, records, options, interpolation)
        table = self._entries[key].table
        if table.arrays is None or not (training and options.random_crop):
            return table
        taps = {
            name: transforms.enlarging_taps(length)
            for name, length in zip(("rows", "columns"), options.size, strict=True)
        }
        return dataclasses.replace(table, arrays={**table.arrays, "enlarge": parallel.place_state(taps)})

    def select(
        self, parallel: Parallel, records: Records, options: pipeline.ImageOptions, whole: Records, rows: np.ndarray
    ) -> None:
        """Lets `records`, which `Records.select` made of the `rows` of `whole`, share its images (of evaluation)."""
        table = self.open(parallel, whole, options, training=False)
        chosen = table if table.host is None else DeviceTable(table.host.select(rows), table.arrays)
        self._entries[_key(parallel, records, options, options.eval_interpolation)] = _Entry(records, chosen, 0)

    def release(self, records: Records) -> None:
        """Forgets a table; its memory is free as soon as nobody uses it any more."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry.records is not records}

    def _upload(
        self, parallel: Parallel, records: Records, options: pipeline.ImageOptions, interpolation: str
    ) -> _Entry:
        height, width = options.size
        count = len(records) * len(records.as_stored().views)
        size = count * height * width * 3
        share = -(-count // parallel.size) * height * width * 3
        free = memory_limit(parallel) / SHARE - sum(entry.bytes_per_device for entry in self._entries.values())
        refusal = ""
        if height * width > augment.LARGEST:
            refusal = f"of more than {augment.LARGEST} pixels each"
        elif self._wanted is None and share > free:
            refusal = f"{size / 2**30:.2f} GiB in all, more than a third of the devices' memory"
        if refusal:
            _say(f"images of {records.name} stay on the host: {refusal}")
            return _Entry(records, DeviceTable(), 0)
        whole = size <= free
        pixels, readable = pipeline.stored(records, options, interpolation, self._threads).whole(self._threads)
        placed = place(parallel, pixels.reshape(count, height, width, 3), whole)
        position = np.arange(count, dtype=np.int32).reshape(len(records), -1)
        where = f"whole on each of {parallel.size}" if whole else f"spread over {parallel.size}"
        _say(f"images of {records.name} on the device: {size / 2**30:.2f} GiB, {where}")
        table = DeviceTable(images.Held(position, readable), {"images": placed})
        return _Entry(records, table, size if whole else share)


def memory_limit(parallel: Parallel) -> float:
    """Bytes that the smallest device of this process can hold; infinite where devices do not say (a CPU)."""
    stats = [device.memory_stats() or {} for device in parallel.mesh.local_devices]
    return min(one.get("bytes_limit", float("inf")) for one in stats)


def place(parallel: Parallel, pixels: np.ndarray, whole: bool) -> jax.Array:
    """Uploads images [N, H, W, 3], whole to every device or in equal parts; zeros fill up the last part.

    Every process has all images at hand and uploads what its own devices shall have.
    """
    if whole:
        return jax.make_array_from_process_local_data(parallel.everywhere, pixels, pixels.shape)
    rows = -(-len(pixels) // parallel.size)

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        block = np.zeros((rows, *pixels.shape[1:]), pixels.dtype)
        start = (index[0].start or 0) if index else 0
        present = pixels[start : start + rows]
        block[: len(present)] = present
        return block

    return jax.make_array_from_callback((rows * parallel.size, *pixels.shape[1:]), parallel.split, part)


def _key(parallel: Parallel, records: Records, options: pipeline.ImageOptions, interpolation: str) -> tuple[Any, ...]:
    return id(records), options.size, interpolation, parallel.mesh


def _say(line: str) -> None:
    if distributed.is_main():
        print(line, flush=True)
