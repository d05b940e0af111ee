"""The people of trunks: their answers, their images and their seeds."""

import numpy as np
import pytest

from mmreid_jax import drawn
from mmreid_jax.trunks import people

SEED = drawn.RESERVED_SEEDS.start


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setattr(people, "BLOCK", 3)
    folder = tmp_path_factory.mktemp("people")
    yield folder, people.draw([0, 1], folder, SEED, (32, 16))
    patch.undo()


def test_every_answer_is_known_and_every_question_is_asked():
    rows = np.array([people.answers(drawn.person_identity(SEED, index)) for index in range(300)])
    assert rows.shape == (300, len(people.QUESTIONS))
    for column, (question, known) in zip(rows.T, people.QUESTIONS.items(), strict=True):
        assert column.min() >= people.UNKNOWN
        assert column.max() < len(known)
        assert len(set(column) - {people.UNKNOWN}) >= 2, question
    assert set(people.ASKED) == set(people.QUESTIONS)


def test_what_is_not_there_has_no_colour():
    names = list(people.QUESTIONS)
    for index in range(50):
        person = drawn.person_identity(SEED, index)
        told = dict(zip(names, people.answers(person), strict=True))
        assert (told["bag colour"] == people.UNKNOWN) == (person.bag == "none")
        assert (told["hat colour"] == people.UNKNOWN) == (person.hat == "none")
        assert (told["inner colour"] == people.UNKNOWN) == (person.upper.kind != "jacket")
        if person.bag != "none":
            assert people.QUESTIONS["bag colour"][told["bag colour"]] == person.bag_garment.colour


def test_colours_are_asked_of_colour_images_and_fabrics_of_infrared_ones():
    for question, modalities in people.ASKED.items():
        if question.endswith(("colour", "accent")):
            assert modalities == ("rgb",)
            assert question in people.BY_LIGHT
        if question.endswith("fabric"):
            assert modalities == ("nir", "tir")


def test_images_of_all_spectra_lie_side_by_side(few):
    _, data = few
    assert data.images.shape == (6 * people.VIEWS, 32, 16, 5)
    assert data.identity.tolist() == np.repeat(np.arange(6), people.VIEWS).tolist()
    assert data.answers[4].tolist() == people.answers(drawn.person_identity(SEED, 5))
    assert data.images.reshape(-1, 5).std(0).min() > 5


def test_drawn_people_are_kept(few):
    folder, data = few
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = people.draw([1], folder, SEED, (32, 16))
    np.testing.assert_array_equal(again.images, data.images[3 * people.VIEWS :])
    assert times == {file: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_people_of_experiments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="reserved seeds"):
        people.draw([0], tmp_path, 0, (32, 16))
