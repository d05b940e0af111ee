"""Galleries drawn from a pool: a few images of every identity and camera, anew in each trial.

Visible-infrared ReID compares its queries with small galleries and reports the mean over ten draws. A draw works on the
columns identity, camera and file of a table alone. The images of one identity and camera lie in one folder of the data
set; folders are visited identity by identity, cameras in the order of the protocol, and the files of a folder are
sorted first, so that a draw is a function of the file names and the trial.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol as Interface

import numpy as np

from mmreid_jax.errors import UserError

DRAWS = {
    "trial": "drawn by Python's generator, seeded with the number of the trial",
    "official": "the first of the permutations that the data set's authors published",
    "stream": "drawn by one generator that runs on from trial to trial",
}
Picks = Mapping[tuple[int, int], np.ndarray]
"""(identity, camera from 0) -> int [trials, shots], positions among the sorted files of that folder, from 0."""


class Pool(Interface):
    """What a draw reads of a table (`mmreid_jax.data.records.Records` has it)."""

    @property
    def identity(self) -> np.ndarray:
        """Int [N]."""

    @property
    def camera(self) -> np.ndarray:
        """Int [N], counted from 0."""

    @property
    def file(self) -> np.ndarray:
        """Str [N], as the data set names its files."""


@dataclasses.dataclass(frozen=True)
class Gallery:
    """How the galleries of the trials are drawn.

    Attributes:
      cameras: those whose images are drawn, counted from 0, in the order in which folders are visited.
      shots: images of every identity and camera.
      draw: key of `DRAWS`. ``trial``: AGW, CAJ, DDAG, MMGL, LLCM and TVI-LFM. ``official``: the MATLAB evaluation of
        SYSU-MM01. ``stream``: Hetero-Center, single shots from Python's generator, several from numpy's legacy one.
      trials: number of galleries.
      seed: of ``stream``.
      discarded: galleries that ``stream`` draws before that of the first trial; Hetero-Center's test prints one.
      picks: of ``official``: what the published permutations draw.
    """

    cameras: tuple[int, ...]
    shots: int = 1
    draw: str = "trial"
    trials: int = 10
    seed: int = 1
    discarded: int = 1
    picks: Callable[[], Picks] | None = None

    def positions(self, pool: Pool) -> list[np.ndarray]:
        """The gallery of every trial: int64 [G] each, rows of `pool` in the order of the reference.

        Raises:
          UserError: the pool has no image of these cameras, a folder has fewer images than shots, or the pool is not
            the one that the official permutations were made for.
        """
        folders_of_pool = folders(pool, self.cameras)
        if not folders_of_pool:
            cameras = ", ".join(str(camera + 1) for camera in self.cameras)
            raise UserError(f"no gallery can be drawn: there is no image of camera {cameras}; check the data set")
        smallest = min(folders_of_pool, key=len)
        if len(smallest) < self.shots:
            raise UserError(
                f"a gallery of {self.shots} images of every identity and camera cannot be drawn: identity"
                f" {pool.identity[smallest[0]]}, camera {pool.camera[smallest[0]] + 1} has {len(smallest)};"
                " choose a protocol of fewer shots"
            )
        if self.draw == "official":
            return self._official(pool, folders_of_pool)
        if self.draw == "trial":
            return [self._drawn(folders_of_pool, random.Random(trial)) for trial in range(self.trials)]
        single = self.shots == 1
        generator = random.Random(self.seed) if single else np.random.RandomState(self.seed)
        return [self._drawn(folders_of_pool, generator) for _ in range(self.discarded + self.trials)][self.discarded :]

    def _drawn(
        self, folders_of_pool: Sequence[np.ndarray], generator: random.Random | np.random.RandomState
    ) -> np.ndarray:
        """int64 [G], `shots` positions of every folder; moves the generator on."""
        if isinstance(generator, np.random.RandomState):
            return np.concatenate(
                [rows[generator.choice(len(rows), self.shots, replace=False)] for rows in folders_of_pool]
            )
        if self.shots == 1:
            return np.array([rows[generator.choice(range(len(rows)))] for rows in folders_of_pool])
        return np.concatenate([rows[generator.sample(range(len(rows)), self.shots)] for rows in folders_of_pool])

    def _official(self, pool: Pool, folders_of_pool: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The galleries of the published permutations, whose folders must be those of `own`."""
        assert self.picks is not None
        picks = {key: value for key, value in self.picks().items() if key[1] in self.cameras}
        by_folder = {(int(pool.identity[rows[0]]), int(pool.camera[rows[0]])): rows for rows in folders_of_pool}
        unlike = sorted(by_folder.keys() ^ picks.keys())
        unlike += [key for key, rows in by_folder.items() if key in picks and picks[key].max() >= len(rows)]
        if unlike:
            identity, camera = unlike[0]
            here = f"has {len(by_folder.get(unlike[0], ()))} images here"
            there = f"number {picks[unlike[0]].max() + 1} is drawn" if unlike[0] in picks else "none is drawn"
            raise UserError(
                f"the official galleries are those of the complete data set: identity {identity}, camera {camera + 1}"
                f" {here}, {there}; use a complete copy, or a protocol without 'official' in its name"
            )
        return [
            np.concatenate([rows[picks[key][trial, : self.shots]] for key, rows in by_folder.items()])
            for trial in range(self.trials)
        ]

    def describe(self) -> str:
        """In words, cameras numbered from 1 as in the publications."""
        cameras = ", ".join(str(camera + 1) for camera in self.cameras)
        images = "1 image" if self.shots == 1 else f"{self.shots} images"
        return f"{self.trials} galleries of {images} of every identity and camera ({cameras}), {DRAWS[self.draw]}"


def folders(pool: Pool, cameras: Sequence[int]) -> list[np.ndarray]:
    """The rows of `pool` of every identity and camera that has any: int64 each, sorted by file name.

    Identities ascend (as zero-padded names do); within an identity cameras come in the given order.
    """
    place = np.full(max([*cameras, int(np.max(pool.camera, initial=0))]) + 1, -1)
    place[list(cameras)] = np.arange(len(cameras))
    places = place[pool.camera]
    rows = np.flatnonzero(places >= 0)
    if not len(rows):
        return []
    rows = rows[np.lexsort((pool.file[rows], places[rows], pool.identity[rows]))]
    changes = np.diff(pool.identity[rows]).astype(bool) | np.diff(places[rows]).astype(bool)
    return np.split(rows, np.flatnonzero(changes) + 1)


def listed(pool: Pool, cameras: Sequence[int]) -> np.ndarray:
    """int64: all rows of these cameras in the order of `folders`; so the references list their queries."""
    return np.concatenate([np.zeros(0, np.int64), *folders(pool, cameras)])
