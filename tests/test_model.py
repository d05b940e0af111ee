"""A trained model in a program: what it embeds, finds and scores is what the rest of the program does."""

from __future__ import annotations

import dataclasses
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

import mmreid_jax
from mmreid_jax import UserError, evaluate
from mmreid_jax.data.records import View
from mmreid_jax.datasets import catalogue, folder
from mmreid_jax.experiment import load_splits, open_experiment
from mmreid_jax.model import Described, Extractor
from mmreid_jax.retrieval import distances, rerank
from mmreid_jax.testing import tiny
from mmreid_jax.training import checkpoints, devices

COUNT = 5
DRAWN = {
    "data.drawn": True,
    "data.drawn_identities": 3,
    "data.drawn_images": 4,
    "data.threads": 1,
    "data.on_device": "off",
    "eval.report": False,
    "train.compilation_cache": False,
}


def weights(path, leaf):
    """Plausible values, of every array others, without the half minute that compiling an initialisation takes."""
    rng = np.random.default_rng(zlib.crc32(jax.tree_util.keystr(path).encode()))
    if leaf.ndim > 1:
        return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(leaf.dtype)
    middle = {"scale": 1, "var": 1, "power": 3}.get(path[-1].key, 0)
    return (middle + rng.uniform(-0.5, 0.5, leaf.shape)).astype(leaf.dtype)


def made(name, place, workdir=""):
    """An untrained tiny model as a run leaves it, and its data on drawn people."""
    config = tiny.config(name, **{key.replace(".", "__"): value for key, value in DRAWN.items()})
    with config.unlocked():
        config.data.data_dir = str(place / "data")
    facts = tiny.facts(name)
    method = mmreid_jax.methods.base.build(config, facts)
    shapes = jax.eval_shape(method.init, jax.random.key(0))
    workdir = place / (workdir or name)
    checkpoints.keep_copy(workdir, jax.tree_util.tree_map_with_path(weights, shapes), config, facts)
    return mmreid_jax.load(workdir)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def htt(place):
    return made("htt", place)


@pytest.fixture(scope="module")
def agw(place):
    return made("agw", place)


@pytest.fixture(scope="module")
def arrays():
    """Images of every modality: uint8 [COUNT, 40, 20, 3]."""
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 256, (COUNT, 40, 20, 3), np.uint8) for name in ("rgb", "nir", "tir")}


@pytest.fixture(scope="module")
def images(arrays, tmp_path_factory):
    """The same as a folder of one subfolder for each modality."""
    root = tmp_path_factory.mktemp("images")
    for name, stack in arrays.items():
        (root / name).mkdir()
        for i, image in enumerate(stack):
            Image.fromarray(image).save(root / name / f"{i}.png")
    return root


def paths(images, name):
    return sorted((images / name).iterdir())


def test_a_model_says_what_it_is(htt, agw):
    assert htt.modalities == ("rgb", "nir", "tir")
    assert htt.config.method == "htt"
    assert repr(htt) == f"<htt trained on rgbnt201, sees rgb and nir and tir, feature {htt.extractor.feature}>"
    assert "sees rgb or nir" in repr(agw)
    # What is done to the copy does nothing to the model.
    htt.config.eval.batch_size = 1
    assert htt.config.eval.batch_size != 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        htt.extractor = None


def test_every_form_of_images_gives_the_same_features(htt, arrays, images):
    records, absent = folder.open_folder(images, htt.modalities)
    expected = htt.extractor(records, absent)
    assert expected.shape[0] == COUNT
    assert expected.dtype == np.float32
    files = {name: paths(images, name) for name in arrays}
    mixed = {"tir": arrays["tir"], "rgb": list(map(str, files["rgb"])), "nir": images / "nir"}
    for form in (images, str(images), arrays, files, mixed, records, {k: list(v) for k, v in arrays.items()}):
        np.testing.assert_allclose(htt.embed(form), expected, atol=1e-5)


def test_one_row_for_each_image_whatever_the_batch(htt, arrays):
    whole = htt.embed(arrays)
    np.testing.assert_allclose(htt.embed(arrays, batch_size=2), whole, atol=1e-5)
    one = {name: stack[3:4] for name, stack in arrays.items()}
    np.testing.assert_allclose(htt.embed(one), whole[3:4], atol=1e-5)


def test_modalities_that_are_not_given_are_absent(htt, arrays, images):
    expected = htt.embed(arrays, absent=("nir", "tir"))
    assert np.abs(expected - htt.embed(arrays)).max() > 0.01
    for form in (arrays["rgb"], {"rgb": arrays["rgb"]}, paths(images, "rgb"), images / "rgb", list(arrays["rgb"])):
        np.testing.assert_allclose(htt.embed(form), expected, atol=1e-5)
    alone = htt.embed(paths(images, "rgb")[2])
    np.testing.assert_allclose(alone, expected[2:3], atol=1e-5)
    records, _ = folder.open_folder(images, htt.modalities)
    visible = dataclasses.replace(records, views={"rgb": View("rgb")})
    np.testing.assert_allclose(htt.embed(visible), expected, atol=1e-5)


def test_a_model_of_one_modality_at_a_time_must_be_told_which(agw, arrays, images):
    nir = agw.embed({"nir": arrays["nir"]})
    np.testing.assert_allclose(agw.embed(images / "nir"), nir, atol=1e-5)
    assert np.abs(agw.embed({"rgb": arrays["nir"]}) - nir).max() > 1e-3
    with pytest.raises(UserError, match="nothing says which modality"):
        agw.embed(arrays["nir"])
    with pytest.raises(UserError, match="one modality at a time"):
        agw.embed({"rgb": arrays["rgb"], "nir": arrays["nir"]})
    with pytest.raises(UserError, match="absent is"):
        agw.embed({"nir": arrays["nir"]}, absent=("nir",))


def test_other_features_have_names(htt, arrays):
    usual, other = htt.embed(arrays), htt.embed(arrays, feature="before")
    assert usual.shape != other.shape or np.abs(usual - other).max() > 1e-3
    with pytest.raises(UserError, match=r"no feature 'befor' of these; choose one of .*before"):
        htt.embed(arrays, feature="befor")


def test_texts_go_with_images(place, arrays):
    model = made("tvi_lfm", place)
    text = "a man in a red jacket with a backpack"
    rows = model.embed({"nir": arrays["nir"]}, text={"rgb": [text], "nir": ["a man"]})
    one = model.embed({"nir": arrays["nir"]}, text={"rgb": [text] * COUNT, "nir": ["a man"] * COUNT})
    np.testing.assert_allclose(rows, one, atol=1e-6)
    feature = model.method.comparisons()[0].feature
    assert np.abs(rows - model.embed({"nir": arrays["nir"]})).max() > 1e-3
    words = model.embed({"nir": arrays["nir"]}, text={"rgb": [text]}, feature="text_nir")
    described = Described(text, None, "").features(model.extractor, "text_nir")
    np.testing.assert_allclose(words, np.repeat(described, COUNT, axis=0), atol=1e-5)
    assert feature == "fusion_nir"
    with pytest.raises(UserError, match="there are 2 texts of 'rgb' for 5 images"):
        model.embed({"nir": arrays["nir"]}, text={"rgb": [text, text]})
    with pytest.raises(UserError, match="texts of 'tir'"):
        model.embed({"nir": arrays["nir"]}, text={"tir": [text]})


def test_models_without_text_say_so(htt, arrays):
    with pytest.raises(UserError, match="reads no text"):
        htt.embed(arrays, text={"rgb": ["a man"]})


def test_matches_are_the_nearest(htt, arrays, images):
    features = htt.embed(arrays)
    whole = distances.squared_euclidean(features[:2], features)
    first = {name: stack[:2] for name, stack in arrays.items()}
    matches = htt.search(first, images, top=3)
    np.testing.assert_array_equal(matches.order, np.argsort(whole, axis=1, kind="stable")[:, :3])
    np.testing.assert_allclose(matches.distances, np.sort(whole, axis=1)[:, :3], atol=1e-5)
    assert [row[0] for row in matches.files()] == ["0.png", "1.png"]
    assert matches.query.tolist() == ["0", "1"]
    by_features = htt.search(features[:2], features, top=99)
    assert by_features.order.shape == (2, COUNT)
    with pytest.raises(UserError, match="top is 0"):
        htt.search(features, features, top=0)


def test_reranked_matches(htt, arrays):
    features = htt.embed(arrays)
    options = rerank.RerankOptions(k1=3, k2=2)
    whole = rerank.k_reciprocal(features, features, k1=3, k2=2)
    matches = htt.search(features, features, top=2, rerank=options)
    np.testing.assert_array_equal(matches.order, distances.nearest(whole, 2))
    np.testing.assert_array_equal(matches.distances, np.sort(whole, axis=1)[:, :2])


def test_matches_as_a_table(htt, arrays, tmp_path):
    matches = htt.search(arrays, arrays, top=2)
    matches.write(tmp_path / "matches.csv")
    rows = (tmp_path / "matches.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * COUNT
    assert rows[1].startswith("0,1,0,")


def scores_of(results):
    return [{key: value for key, value in each.row().items() if key != "label"} for each in results]


@pytest.mark.slow(short=True)
def test_scores_are_those_of_the_program(htt, place, tmp_path):
    results = htt.evaluate()
    experiment = open_experiment(htt.config, tmp_path, htt.method)
    scorer = evaluate.scorer(experiment)
    row = scorer(experiment.parallel.place_state(htt.extractor.variables), "trained")
    assert results[0].row() == row
    without = htt.evaluate(absent=("tir", "nir"))
    assert without[0].missing.name == "M(NIR+TIR)"
    assert without[0].scores.mAP != results[0].scores.mAP
    # The same images as a prepared data set by its name.
    splits = load_splits(htt.config.data)
    prepared = splits.query.source.directory
    data_dir = catalogue.pathlib.Path(prepared).parents[1]
    assert scores_of(htt.evaluate("rgbnt201", data_dir=data_dir)) == scores_of(results)
    assert htt.evaluate(protocol="plain")[0].protocol.startswith("plain")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "rgbnt20"}, "there is no data set"),
        ({"dataset": "msvr310"}, "msvr310"),
        ({"protocol": "markt"}, "unknown protocol"),
        ({"absent": ("rgb", "nir", "tir")}, "cannot be missing"),
    ],
)
def test_mistakes_in_an_evaluation_are_named(htt, options, message):
    with pytest.raises(UserError, match=message):
        htt.evaluate(**options)


def test_a_model_without_labels_is_not_scored_by_retrieval(place):
    with pytest.raises(UserError, match="is not scored by retrieval"):
        made("mmgl", place).evaluate()


def test_a_model_trained_with_flash_attention_opens_without(place, htt, arrays, monkeypatch):
    monkeypatch.setattr(devices, "have_flash_attention", lambda: False)
    variables, meta = checkpoints.load_variables(place / "htt")
    meta["config"]["model"]["attention"] = "cudnn"
    monkeypatch.setattr(checkpoints, "load_variables", lambda *_, **__: (variables, meta))
    opened = mmreid_jax.load(place / "htt")
    assert opened.config.model.attention == "plain"
    np.testing.assert_array_equal(opened.embed(arrays), htt.embed(arrays))


def test_a_model_in_memory_is_one_from_the_disk(htt, arrays):
    again = mmreid_jax.Model(Extractor.of(htt.config, htt.method, htt.extractor.variables))
    np.testing.assert_array_equal(again.embed(arrays), htt.embed(arrays))
    assert again.extractor.fingerprint() == htt.extractor.fingerprint()


@pytest.fixture(scope="module")
def mdreid(place):
    return made("mdreid", place)


def of(arrays, *names):
    return {name: arrays[name] for name in names}


def chunks_of(model, images, *names):
    """Features of a model side by side, as they are compared."""
    extractor = model.extractor
    records, lacking = mmreid_jax.datasets.given.table(images, model.modalities)
    return extractor(records, lacking, "+".join(names))


@pytest.mark.slow(short=True)
def test_unlike_modalities_are_compared_by_what_they_share(mdreid, htt, arrays):
    """Thermal and near infrared against visible and thermal: thermal with thermal, the others with each other."""
    query, gallery = of(arrays, "nir", "tir"), of(arrays, "rgb", "tir")
    names = {
        "mdreid": (("specific_tir", "shared_tir", "shared_nir"), ("specific_tir", "shared_tir", "shared_rgb")),
        "htt": (("tir", "nir"), ("tir", "rgb")),
    }
    for model in (mdreid, htt):
        asked, searched = (
            chunks_of(model, images, *of_side)
            for images, of_side in zip((query, gallery), names[model.config.method], strict=True)
        )
        found = model.search(query, gallery, top=COUNT)
        expected = distances.squared_euclidean(asked, searched)
        np.testing.assert_allclose(found.distances, np.sort(expected, axis=1), atol=1e-5)
        # One side at a time, as a gallery that is kept.
        np.testing.assert_allclose(model.embed(query, against=("tir", "rgb")), asked, atol=1e-6)
        np.testing.assert_allclose(model.embed(gallery, against=("nir", "tir")), searched, atol=1e-6)


def test_absent_modalities_have_no_part_in_decoupled_features(mdreid, arrays):
    alone = mdreid.embed(of(arrays, "tir"))
    np.testing.assert_allclose(alone, chunks_of(mdreid, arrays, "specific_tir", "shared_tir"), atol=1e-6)
    with pytest.raises(UserError, match=r"thermal is no modality of this model, which sees rgb, nir, tir"):
        mdreid.embed(arrays, against=("thermal",))


@pytest.mark.slow(short=True)
def test_all_pairs_of_modalities_are_scored(mdreid, place):
    """The corner where nothing is missing is the usual score, and what is missing is left out of both sides."""
    from mmreid_jax.embedder import of_experiment
    from mmreid_jax.scoring import retrieval

    config = mdreid.config
    experiment = open_experiment(config, place / "pairs", mdreid.method)
    placed = experiment.parallel.place_state(mdreid.extractor.variables)
    embedder = of_experiment(experiment, mdreid.method.embed)
    results = retrieval.run(experiment, embedder, placed, "trained", missing=True, pairs=True, missing_any=True)
    pairs = {result.pair: result for result in results if result.pair}
    assert len(pairs) == 49
    every = ("rgb", "nir", "tir")
    assert pairs[every, every].scores.mAP == results[0].scores.mAP
    missing = {result.missing.absent: result.scores.mAP for result in results if result.missing}
    assert 0 < missing.pop(()) < 1  # of any modalities
    assert len(missing) == 6
    for gone, score in missing.items():
        present = tuple(name for name in every if name not in gone)
        assert pairs[present, present].scores.mAP == score
    of_scores, of_ranks = retrieval.pair_tables(results)
    assert list(of_scores.rows) == list(of_scores.columns)
    assert of_scores.rows["NIR"]["RGB+TIR"] == pairs[("nir",), ("rgb", "tir")].scores.mAP
    assert of_ranks.rows["NIR"]["RGB"] == pairs[("nir",), ("rgb",)].scores.rank(1)
    assert "NIR+TIR" in retrieval.describe(results, place / "pairs")


def test_the_modalities_of_the_config_are_compared(place):
    model = made("mdreid", place)
    with model.extractor.config.unlocked():
        model.extractor.config.eval.update(query_modalities=("tir",), gallery_modalities=("rgb",))
    method = mmreid_jax.methods.base.build(model.config, model.method.facts)
    (comparison,) = method.comparisons()
    assert (comparison.name, comparison.feature, comparison.gallery_feature) == (
        "TIR to RGB",
        "shared_tir",
        "shared_rgb",
    )
    changed = mmreid_jax.Model(Extractor.of(model.config, method, model.extractor.variables))
    assert not changed.extractor.one_modality
    (result,) = changed.evaluate()
    assert result.comparison == "TIR to RGB"
    assert result.gap is not None
    model.extractor.config.eval.query_modalities = ("thermal",)
    broken = mmreid_jax.methods.base.build(model.config, model.method.facts)
    with pytest.raises(UserError, match=r"config\.eval\.query_modalities is thermal; name one or more of rgb, nir"):
        broken.comparisons()
