"""Drawn captions: what is said depends on the picture and the seed, and infrared ones guess colours."""

import numpy as np

from mmreid_jax import drawn
from mmreid_jax.datasets import drawing
from mmreid_jax.drawn import words, writer
from tests.drawn.sets import SMALL


def test_captions_depend_on_seed_and_picture_alone():
    samples = drawing.plan("sysu_mm01", **SMALL)
    said = [writer.caption_sample(drawing.of("sysu_mm01"), sample) for sample in samples]
    assert [writer.caption_sample(drawing.of("sysu_mm01"), sample) for sample in samples[::-1]] == said[::-1]
    others = [writer.caption_sample(drawing.of("sysu_mm01"), sample, seed=1) for sample in samples]
    assert [one.caption for one in said] != [one.caption for one in others]


def test_visible_captions_name_the_colours_and_infrared_ones_guess():
    spellings = {
        colour: {word for phrase in phrases for word in phrase.split()}
        for colour, phrases in words.COLOUR_WORDS.items()
    }
    colours = set().union(*spellings.values())

    def named(text):
        return colours.intersection(text.replace(",", "").replace(".", "").split())

    right = {"rgb": [], "nir": []}
    count = {("rgb", "caption"): [], ("nir", "caption"): [], ("nir", "rephrased"): []}
    for sample in drawing.plan("llcm", identities=10, images_per_identity=12):
        said = writer.caption_sample(drawing.of("llcm"), sample)
        looks = drawn.describe(drawn.person_identity(0, sample.identity))
        true = spellings[looks["upper colour"]] | spellings[looks["lower colour"]]
        right[sample.modality].append(bool(named(said.caption) & true))
        for (modality, kind), found in count.items():
            if modality == sample.modality:
                found.append(bool(named(getattr(said, kind))))
    assert np.mean(right["rgb"]) > 0.9
    assert np.mean(right["nir"]) < 0.2
    assert np.mean(count["rgb", "caption"]) > 0.95
    # The language model adds colours to those that the captioner made up.
    assert 0.1 < np.mean(count["nir", "caption"]) < np.mean(count["nir", "rephrased"]) < 0.9


def test_a_vehicle_has_its_colour_in_visible_light_alone():
    right = {"rgb": [], "nir": [], "tir": []}
    for sample in drawing.plan("msvr310", identities=15, images_per_identity=4):
        looks = drawn.describe(drawn.vehicle_identity(0, sample.identity))
        told = writer.caption_images(drawing.of("msvr310"), sample)
        assert told == writer.caption_images(drawing.of("msvr310"), sample)
        for modality, text in told.items():
            right[modality].append(any(word in text.split() for word in words.COLOUR_WORDS[looks["colour"]]))
    assert np.mean(right["rgb"]) > 0.8
    assert np.mean(right["nir"]) < 0.2
    assert np.mean(right["tir"]) < 0.2
