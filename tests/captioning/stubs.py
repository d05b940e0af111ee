"""Folders of images, and models that are none."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmreid_jax.captioning import rephrasing


class Killed(BaseException):
    """What ends a run without asking."""


def folder_of(root, names=("b/2.png", "a.jpg", "b/1.png")):
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 4, 3), 40 * number + 10, np.uint8)).save(root / name)
    return root


def brightness(images):
    return [f"a picture of {int(np.asarray(image).mean())}" for image in images]


class Stub:
    """A chat model of words: answers with the last word of the prompt and its seed."""

    calls = 0

    @property
    def model(self):
        return rephrasing.ChatModel(str.split, self.generate, " ".join)

    def generate(self, ids, seed):
        self.calls += 1
        return [*ids, "", f"other{seed}", "words", ""]
