"""A text tower that has read: its captions, its loss, its run and its file."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmreid_jax import drawn
from mmreid_jax.convert import clip, store
from mmreid_jax.data.tokenizer import VOCABULARY, tokenize
from mmreid_jax.losses import text
from mmreid_jax.models.clip import TextTower
from mmreid_jax.trunks import people, pretraining, reading

TINY = reading.Recipe(
    "text_micro",
    "drawn/resnet_mini_cross",
    "resnet_mini",
    drawn.RESERVED_SEEDS.start,
    blocks=1,
    image_size=(32, 16),
    phrasings=10,
    steps=4,
    persons=3,
)
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, tower of an uninterrupted run); people of one small block."""
    patch = pytest.MonkeyPatch()
    patch.setattr(people, "BLOCK", 5)
    folder = tmp_path_factory.mktemp("towers")
    yield folder, reading.fit(TINY, folder / "whole", say=lambda text: None)
    patch.undo()


def test_text_towers_read_of_people_of_reserved_seeds_alone():
    assert reading.RECIPES
    for name, recipe in reading.RECIPES.items():
        assert recipe.seed in drawn.RESERVED_SEEDS, name
        assert recipe.teacher.removeprefix("drawn/") in pretraining.RECIPES


def test_contrast_is_that_of_tvi_lfm():
    texts, images = jnp.array(RANDOM.normal(size=(6, 5))), jnp.array(RANDOM.normal(size=(6, 5)))
    loss = reading.contrast(texts, images, 0.2)
    # The released form of either direction is an N-th of it.
    one_way = 6 * (text.image_to_text(images, texts, 5.0) + text.image_to_text(texts, images, 5.0)) / 2
    np.testing.assert_allclose(loss, one_way, rtol=1e-5)
    np.testing.assert_allclose(loss, reading.contrast(3 * texts, images, 0.2), rtol=1e-5)


def test_captions_speak_of_the_person_in_the_words_of_drawn_sets(monkeypatch):
    monkeypatch.setattr(people, "BLOCK", 20)
    made = reading.captions([1], TINY)
    assert made.shape == (20, 2, 20, reading.LENGTH)
    # The longest caption ends before the last token, so that none is cut.
    assert made.argmax(-1).max() < reading.LENGTH - 1
    np.testing.assert_array_equal(made, reading.captions([1], TINY))
    coat, skirt = (tokenize([word])[0, 1] for word in ("coat", "skirt"))
    for row, person in enumerate(range(21, 41)):
        looks = drawn.describe(drawn.person_identity(TINY.seed, person))
        assert (made[row] == coat).any(-1).all() == (looks["upper"] == "coat")
        assert (made[row] == skirt).any(-1).all() == (looks["lower"] == "skirt")
    beige = tokenize(["beige"])[0, 1]
    assert (made[:, 0] == beige).any()
    assert not (made[:, 1] == beige).any()  # no captioner guesses it


def test_features_are_standardised_without_images_of_night():
    features, clear = RANDOM.normal(3, 2, size=(7, 2, 5, 4)), RANDOM.random((7, 2, 5)) < 0.7
    features[~clear] = 100.0
    seen = reading.standardised(features, clear)
    np.testing.assert_allclose(seen.features[clear].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.features[clear].std(0), 1, atol=1e-5)


def test_batches_depend_on_the_step_alone_and_show_the_person_of_the_caption():
    features = np.broadcast_to(np.arange(6.0)[:, None, None, None], (6, 2, people.VIEWS, 1)).copy()
    clear = np.ones((6, 2, people.VIEWS), bool)
    clear[:, 0, 1:] = False
    features[~clear] = -1.0
    seen = reading.Seen(features, clear, np.zeros(1), np.ones(1))
    tokens = np.broadcast_to(np.arange(6)[:, None, None, None], (6, 2, 4, 3))
    captions, images = reading.batch_of(seen, tokens, TINY, 5)
    assert captions.shape == (2, TINY.persons, 3)
    np.testing.assert_array_equal(captions[..., 0], images[..., 0])
    assert len(set(images[0, :, 0])) == TINY.persons
    np.testing.assert_array_equal(captions, reading.batch_of(seen, tokens, TINY, 5)[0])
    steps = [reading.batch_of(seen, tokens, TINY, step)[0][..., 0].tolist() for step in range(5)]
    assert len(set(map(str, steps))) > 1


@pytest.mark.slow(short=True)
def test_a_stopped_run_goes_on_where_it_was(trained):
    folder, whole = trained
    lines = []

    def stop(text):
        lines.append(text)
        if text.startswith("step 4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reading.fit(TINY, folder / "stopped", checkpoint_every=2, say=stop)
    resumed = reading.fit(TINY, folder / "stopped", checkpoint_every=2, say=lines.append)
    assert "going on after step 2" in lines
    # What they say, not their parameters: the bias of the keys changes nothing, so its gradient is rounding alone.
    tokens = np.searchsorted(whole.vocabulary, reading.captions([0], TINY)[:, 0, 0])
    texts = [
        reading.tower_of(TINY, len(x.vocabulary), 512).apply({"params": x.params}, tokens) for x in (whole, resumed)
    ]
    np.testing.assert_allclose(texts[1], texts[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow(short=True)
def test_the_file_is_read_as_clips_and_says_what_was_trained(trained, monkeypatch):
    folder, tower = trained
    monkeypatch.setitem(reading.RECIPES, "tiny", TINY)
    file = reading.save("tiny", tower, folder / "out", {"rgb text to rgb": {"mAP": 1.0}})
    card = json.loads(file.with_suffix(".json").read_text())
    assert card["trunk"] == "drawn/tiny"
    assert card["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert {card["seed"], card["steps"], card["people"]} == {TINY.seed, TINY.steps, 5}
    network = TextTower(width=64, depth=2, heads=4, out=512)
    fresh = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 3), jnp.int32)))
    loaded, report = store.open_weights(file, clip.text_only(512), fresh)
    assert set(report.dropped) == {"vocab_size"}
    assert not report.filled
    assert loaded["params"]["token_embed"].shape == (VOCABULARY, 64)
    # Whole table and all tokens or the few of them: the same features but for the rounding.
    tokens = reading.captions([0], TINY)[0, 0, :4]
    own = reading.tower_of(TINY, len(tower.vocabulary), 512)
    before = own.apply({"params": tower.params}, np.searchsorted(tower.vocabulary, tokens))
    after = network.apply(jax.tree.map(lambda x: x.astype(np.float32), loaded), tokens)
    np.testing.assert_allclose(after, before, rtol=0.02, atol=0.02)


@pytest.mark.slow(short=True)
def test_judging_needs_people_that_were_not_read_of(trained):
    folder, tower = trained
    scores = reading.judge(TINY, tower, folder / "people")
    assert set(scores) == {"rgb text to rgb", "nir text to nir", "nir to rgb", "nir and text to rgb"}
    assert (folder / "people" / f"{TINY.seed}-32x16-001.npz").is_file()
    assert all(0 <= value <= 100 for values in scores.values() for value in values.values())
