"""What makes drawn data like the world, and that the drawing is frozen; docs/drawn_data.md says why it is so."""

import dataclasses
import importlib
import math
import pathlib

import numpy as np
import pytest

from mmreid_jax import drawn
from mmreid_jax.datasets import drawing
from mmreid_jax.drawn.attributes import FABRICS, HEADINGS, luminance, near_infrared_of

DRAW = {
    "person": (drawn.person_identity, drawn.draw_person),
    "vehicle": (drawn.vehicle_identity, drawn.draw_vehicle),
}
# Mean and standard deviation of images of version 3. Whoever changes what is drawn raises DRAWING_VERSION, says so in
# docs/drawn_data.md and CHANGELOG.md, and measures again what was measured on drawn data.
VERSION = 3
FROZEN = {
    ("person", 1, 1, "day", "train"): {"rgb": (104.19, 36.06), "nir": (105.79, 41.32), "tir": (93.4, 29.88)},
    ("person", 2, 3, "dusk", "test"): {"rgb": (70.58, 36.07), "nir": (97.74, 30.17), "tir": (122.94, 36.65)},
    ("person", 3, 2, "night", "train"): {"rgb": (44.62, 19.24), "nir": (88.25, 42.6), "tir": (118.9, 37.72)},
    ("vehicle", 1, 1, "day", "train"): {"rgb": (151.8, 52.58), "nir": (85.3, 54.91), "tir": (95.11, 16.63)},
    ("vehicle", 2, 3, "dusk", "test"): {"rgb": (62.91, 23.44), "nir": (93.05, 52.75), "tir": (103.65, 30.53)},
    ("vehicle", 3, 2, "night", "train"): {"rgb": (43.66, 27.38), "nir": (57.19, 23.9), "tir": (114.41, 43.6)},
}
PEOPLE = [drawn.person_identity(700, index) for index in range(300)]


def shots(count=300, frames=1, **scenario):
    chosen = drawn.Scenario(**scenario)
    return [
        drawn.shot(700, index, 1 + index % 4, frame=frame, scenario=chosen)
        for index in range(count)
        for frame in range(frames)
    ]


def turned(azimuth, middle):
    return abs(math.remainder(azimuth - middle, 2 * math.pi))


@pytest.mark.parametrize("case", FROZEN, ids=str)
def test_the_drawing_is_frozen(case):
    kind, index, camera, light, split = case
    identity, draw = DRAW[kind]
    moment = drawn.shot(700, index, camera, kind=kind, light=light, frame=index, split=split)
    images = draw(identity(700, index), moment)
    assert drawn.DRAWING_VERSION == VERSION
    for name, expected in FROZEN[case].items():
        np.testing.assert_allclose((images[name].mean(), images[name].std()), expected, atol=0.05)


def test_near_infrared_follows_luminance_but_not_wholly():
    garments = [garment for person in PEOPLE for garment in (person.upper, person.lower)]
    light = np.array([luminance(garment.rgb) ** 0.6 for garment in garments])
    bright = np.array([garment.nir for garment in garments])
    assert 0.5 < np.corrcoef(light, bright)[0, 1] < 0.95
    paint = [drawn.vehicle_identity(700, index) for index in range(300)]
    assert 0.5 < np.corrcoef([luminance(v.rgb) ** 0.6 for v in paint], [v.nir for v in paint])[0, 1] < 0.95


def test_near_infrared_of_a_colour():
    assert near_infrared_of((1.0, 1.0, 1.0), 0.5) == pytest.approx(0.9)
    assert near_infrared_of((0.0, 0.0, 0.0), 0.5) == pytest.approx(0.15)
    assert near_infrared_of((0.1, 0.1, 0.1), 0.0) == pytest.approx(0.75 * 0.1**0.6)
    black = (0.02, 0.02, 0.02)
    assert near_infrared_of(black, 0.5, dye=0.3) > 2 * near_infrared_of(black, 0.5) - 0.15
    assert all(0 < near_infrared_of(black, body) < 0.96 for body, _ in FABRICS.values())


def test_headings_cluster_about_the_directions_of_walks():
    azimuths = [shot.azimuth for shot in shots()]
    nearest = [min(turned(azimuth, m) for middle in HEADINGS.values() for m in middle) for azimuth in azimuths]
    # Of headings without clusters half would lie within 22.5 degrees of one of four directions.
    assert np.mean(np.array(nearest) < math.pi / 8) > 0.6
    shares = {
        name: np.mean([min(turned(a, m) for m in HEADINGS[name]) < math.pi / 4 for a in azimuths]) for name in HEADINGS
    }
    wanted = drawn.Scenario().headings
    assert all(abs(shares[name] - wanted[name]) < 0.12 for name in HEADINGS)


def test_a_person_walks_about_where_the_scenario_says_so():
    def spans(leg):
        by_person = np.array([shot.azimuth for shot in shots(60, 6, leg=leg)]).reshape(60, 6)
        return np.array([max(turned(a, row[0]) for a in row) for row in by_person])

    assert (spans(0) > 2).mean() < 0.05
    assert (spans(2) > 2).mean() > 0.3


def test_images_of_one_passage_are_different_views():
    for index in range(20):
        passage = [drawn.shot(700, index, 1, frame=frame) for frame in range(4)]
        for name in ("azimuth", "phase", "brightness", "zoom", "place", "shift"):
            assert len({getattr(shot, name) for shot in passage}) == 4, name
        assert len({(shot.light, shot.warmth, shot.clothing, shot.mirrored) for shot in passage}) == 1


def test_regdb_walks_as_its_names_say():
    for sample in drawing.plan("regdb")[:40]:
        assert sample.heading == ("away" if "_back_" in sample.file else "towards")
    towards, away = (drawn.shot(700, 1, 1, heading=heading) for heading in ("towards", "away"))
    assert turned(towards.azimuth, 0) < 1 < turned(away.azimuth, 0)
    assert dataclasses.replace(towards, azimuth=0.0) == dataclasses.replace(away, azimuth=0.0)


def test_the_pattern_of_heat_survives_other_clothing():
    """Which half of the trunk is the warmer one shows whatever the temperature of the garment."""
    person = dataclasses.replace(PEOPLE[1], warm_spot="none", bag="none", hair="short")
    moment = dataclasses.replace(
        drawn.shot(700, 1, 1, light="day"), azimuth=0.0, occluder="none", zoom=0.9, shift=(0.0, 0.0)
    )

    def chest_over_hips(heat, clothing):
        shot = dataclasses.replace(moment, clothing=clothing)
        image = drawn.draw_person(dataclasses.replace(person, heat=heat), shot)["tir"][..., 0].astype(float)
        return image[66:86, 58:70].mean() - image[104:118, 58:70].mean()

    for clothing in (-0.08, 0.0, 0.08):
        warm_above = chest_over_hips((0.09, 0.0, -0.09, 0.0, 0.0, 0.0), clothing)
        warm_below = chest_over_hips((-0.09, 0.0, 0.09, 0.0, 0.0, 0.0), clothing)
        assert warm_above > warm_below + 15


def test_no_experiment_draws_people_that_trunks_know():
    """Trunks have the reserved seeds; configs, claims and the design of the drawing have smaller ones."""
    from benchmarks import claims, drawn_cues
    from mmreid_jax.trunks import pretraining

    first = drawn.RESERVED_SEEDS.start
    assert all(recipe.seed in drawn.RESERVED_SEEDS for recipe in pretraining.RECIPES.values())
    for file in sorted((pathlib.Path(__file__).parents[2] / "configs").glob("*.py")):
        module = importlib.import_module(f"configs.{file.stem}")
        if hasattr(module, "get_config"):
            assert module.get_config().data.drawn_seed not in (*drawn_cues.DESIGN_SEEDS, *drawn.RESERVED_SEEDS)
    reported = range(claims.FIRST_SEED, claims.FIRST_SEED + claims.SEEDS)
    assert reported.stop <= drawn_cues.DESIGN_SEEDS.start < drawn_cues.DESIGN_SEEDS.stop <= first


def test_people_and_cameras_of_other_seeds_are_others():
    reserved = drawn.RESERVED_SEEDS.start
    ours = {dataclasses.replace(person, index=0) for person in PEOPLE}
    theirs = {dataclasses.replace(drawn.person_identity(reserved, index), index=0) for index in range(300)}
    assert len(ours) == len(theirs) == 300
    assert not ours & theirs
    cameras = [[drawn.camera(seed, "person", index).sun for index in range(1, 101)] for seed in (700, reserved)]
    assert not set(cameras[0]) & set(cameras[1])
