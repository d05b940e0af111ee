"""What the reading of a foreign file may cost: one account of memory and steps that every opcode, entry and loop pays.

A few bytes of a file can ask for gigabytes or hours (a list made into a set again and again, thousands of records over
the same bytes, views that repeat one number). Whoever reads a foreign file draws from its `Budget` BEFORE a product,
copy or loop, so that a file costs a small multiple of its own size or is refused.
"""

from __future__ import annotations

import dataclasses
import io
import os


class Excessive(Exception):
    """A file asks for more than its budget; the argument says of what."""


# Beside a multiple of the size of the file: small files may unfold, and a few MB hurt nobody.
_FREE_MEMORY, _MEMORY_PER_BYTE = 64 << 20, 4
_FREE_WORK, _BYTES_PER_STEP, _MOST_WORK = 2_000_000, 16, 8_000_000


@dataclasses.dataclass
class Budget:
    """What is left.

    Attributes:
      memory: bytes, of Python objects and of copies of the file's bytes.
      work: steps of the interpreter, each of a microsecond or less.
    """

    memory: int
    work: int

    @classmethod
    def of(cls, size: int) -> Budget:
        """For a file of so many bytes: 64 MiB and four times its size; 2 to 8 million steps, some seconds.

        Python objects cost up to thirty times their bytes in a file, but beside weights they are few; bfloat16 weights
        double when they are read.
        """
        return cls(_FREE_MEMORY + _MEMORY_PER_BYTE * size, min(_FREE_WORK + size // _BYTES_PER_STEP, _MOST_WORK))

    def pay(self, memory: int = 0, work: int = 1) -> None:
        """Takes from what is left.

        Raises:
          Excessive: there is not enough.
        """
        self.memory -= memory
        self.work -= work
        if self.memory < 0 or self.work < 0:
            raise Excessive("memory" if self.memory < 0 else "time")


class BoundedFile(io.FileIO):
    """A file to read, of which nobody gets more than so many bytes at once: `zipfile` reads lists of records whole."""

    def __init__(self, path: str | os.PathLike[str], most: int) -> None:
        super().__init__(path)
        self._most = most

    def read(self, size: int | None = -1) -> bytes:
        """See `io.RawIOBase.read`.

        Raises:
          Excessive: more is asked for.
        """
        if size is None or size < 0:
            size = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        if size > self._most:
            raise Excessive("memory")
        return super().read(size)
