"""Search by a description, an infrared image, or both, with a tiny network."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from mmreid_jax import model
from mmreid_jax.commands import extract, search
from mmreid_jax.commands.convert import write_safetensors
from mmreid_jax.convert import layout, store
from mmreid_jax.data import tokenizer
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import feature_files
from mmreid_jax.testing import tiny
from mmreid_jax.training import checkpoints

TEXT = "a man in a red jacket with a backpack"


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Untrained models as a run leaves them: method -> workdir."""
    made = {}
    for name in ("tvi_lfm", "agw"):
        config, method = tiny.method(name)
        made[name] = tmp_path_factory.mktemp(name)
        shapes = jax.eval_shape(method.init, jax.random.key(0))
        checkpoints.keep_copy(made[name], jax.tree_util.tree_map_with_path(weights, shapes), config, tiny.facts(name))
    return made


def weights(path, leaf):
    """Plausible values without the half minute that compiling an initialisation takes."""
    if leaf.ndim > 1:
        drawn = np.random.default_rng(leaf.size).normal(size=leaf.shape)
        return (drawn / np.sqrt(np.prod(leaf.shape[:-1]))).astype(leaf.dtype)
    return np.full(leaf.shape, {"scale": 1, "var": 1, "power": 3}.get(path[-1].key, 0), leaf.dtype)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A gallery of five visible images, and a folder with an infrared query."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for folder, count in (("gallery", 5), ("ir", 1)):
        (root / folder).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 20, 3), np.uint8)).save(root / folder / f"{i}.png")
    return root


def flags(workdirs, pictures, out, method="tvi_lfm"):
    return ["--checkpoint", str(workdirs[method]), "--gallery", str(pictures / "gallery"), "--out", str(out)]


def matches(out):
    with (out / "matches.csv").open() as file:
        return list(csv.DictReader(file))


def expected(extractor, variables, pictures, kind, other, texts=None):
    """Gallery files in order, and distances, by the method's own features."""
    batches = {
        name: {"images": {name: prepared(extractor.config.data, sorted((pictures / folder).iterdir()))}}
        for name, folder in (("rgb", "gallery"), ("nir", "ir"))
    }
    if texts:
        tokens = tokenizer.tokenize(texts)
        batches["nir"]["tokens"] = {"rgb": tokens[:1], "nir": tokens[1:]}
    found = {}
    for batch in batches.values():
        found |= extractor.method.embed(variables, batch)
    query, gallery = (np.asarray(found[name], np.float64) for name in (f"{kind}_nir", f"{other}_rgb"))
    apart = np.square(query / np.linalg.norm(query) - gallery).sum(axis=1)
    order = np.argsort(apart, kind="stable")
    return [f"{i}.png" for i in order], apart[order]


def prepared(data, paths):
    height, width = data.image_size
    images = [np.asarray(Image.open(path).resize((width, height), Image.Resampling.LANCZOS)) for path in paths]
    return ((np.stack(images) / 255 - np.array(data.mean)) / np.array(data.std)).astype(np.float32)


@pytest.mark.parametrize(
    ("query", "kind", "other"),
    [
        (["--text", TEXT], "text", "joint"),
        (["--image", "IR"], "ir", "backup"),
        (["--text", TEXT, "--image", "IR"], "fusion", "joint"),
        (["--text", TEXT, "--image", "IR", "--image_text", "a man with a bag", "--feature", "mer"], "mer", "joint"),
        (["--query", "FOLDER"], "ir", "backup"),
    ],
)
def test_matches_are_in_the_order_of_the_features(query, kind, other, workdirs, pictures, tmp_path):
    places = {"IR": str(pictures / "ir" / "0.png"), "FOLDER": str(pictures / "ir")}
    query = [places.get(word, word) for word in query]
    search.main([*flags(workdirs, pictures, tmp_path), *query])
    own = query[query.index("--image_text") + 1] if "--image_text" in query else ""
    extractor = model.Extractor(workdirs["tvi_lfm"])
    variables, _ = checkpoints.load_variables(workdirs["tvi_lfm"])
    texts = [TEXT, own] if "--text" in query else None
    files, apart = expected(extractor, variables, pictures, kind, other, texts)
    found = matches(tmp_path)
    assert [row["match"] for row in found] == files
    np.testing.assert_allclose([float(row["distance"]) for row in found], apart, atol=2e-5)
    page = (tmp_path / "search.html").read_text()
    assert (TEXT in page) == ("--text" in query)
    assert (f"{kind} nir to rgb" in page) == ("--query" not in query)
    assert ("0.png" in found[0]["query"]) == (query[:1] != ["--text"] or "--image" in query)


def config_of(method):
    """Flags of a tiny method's config."""
    changes = [f"--config.{key}={value}" for key, value in tiny.TINY[method].items() if "." in key]
    classes = f"--config.model.num_classes={tiny.facts(method).identities}"
    return [f"--config=configs/{tiny.TINY[method]['config']}.py", *changes, classes]


def test_converted_models_need_their_config(workdirs, pictures, tmp_path):
    variables, _ = checkpoints.load_variables(workdirs["agw"])
    store.save(tmp_path / "agw", variables, store.meta_of(layout.Report("agw", ""), "agw", variables))
    _, method = tiny.method("tvi_lfm")
    variables, _ = checkpoints.load_variables(workdirs["tvi_lfm"])
    state = layout.export_state(method.convert_layouts()["tvi_lfm"], variables)
    write_safetensors(str(tmp_path / "tvi_lfm"), state)
    for name, query in (("agw", ["--query", str(pictures / "ir")]), ("tvi_lfm", ["--text", TEXT])):
        rest = ["--gallery", str(pictures / "gallery"), "--out", str(tmp_path / "out"), *query]
        search.main(["--checkpoint", str(tmp_path / name), *rest, *config_of(name)])
        found = matches(tmp_path / "out")
        search.main([*flags(workdirs, pictures, tmp_path / "own", name), *query])
        assert found == matches(tmp_path / "own")
    with pytest.raises(UserError, match="--config=FILE"):
        search.main(["--checkpoint", str(tmp_path / "agw"), *rest])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ([], "name what to look for"),
        (["--text", "  "], "name what to look for"),
        (["--text", TEXT, "--query", "DIR"], "leave it out"),
        (["--image", "nowhere.png"], "there is no file nowhere.png"),
        (["--text", TEXT, "--image_text", "a man"], "--image_text goes with both"),
        (["--text", TEXT, "--feature", "mer"], "--feature mer is not made of --text; choose one of text"),
        (["--text", TEXT, "--top", "0"], "at least 1"),
        (["--text", TEXT, "--config.optim.lr=1"], "--config=FILE is missing"),
    ],
)
def test_flags_that_make_no_query_are_refused(query, said, workdirs, pictures, tmp_path):
    with pytest.raises(UserError, match=said):
        search.main([*flags(workdirs, pictures, tmp_path), *query])


def test_a_model_without_text_says_so(workdirs, pictures, tmp_path):
    with pytest.raises(UserError, match="this model of agw reads no text"):
        search.main([*flags(workdirs, pictures, tmp_path, "agw"), "--text", TEXT])


def test_a_broken_query_image_is_named(workdirs, pictures, tmp_path):
    (tmp_path / "ir.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"ir\.png"):
        search.main([*flags(workdirs, pictures, tmp_path), "--image", str(tmp_path / "ir.png")])


def test_a_described_query_has_a_name():
    assert model.Described("a man", None, "").name == '"a man"'
    assert model.Described("a man", Path("x/ir.png"), "").name == '"a man" + ir.png'


def test_a_gallery_of_stored_features_gives_the_same_matches(workdirs, pictures, tmp_path):
    checkpoint = ["--checkpoint", str(workdirs["tvi_lfm"])]
    for out in ("features", "features.npz"):
        extract.main([*checkpoint, "--images", str(pictures / "gallery"), "--out", str(tmp_path / out)])
    one, other = (feature_files.load(tmp_path / out) for out in ("features", "features.npz"))
    np.testing.assert_array_equal(one.features, other.features)
    assert (one.files.tolist(), one.note) == (other.files.tolist(), other.note)
    query = ["--image", str(pictures / "ir" / "0.png")]
    search.main([*flags(workdirs, pictures, tmp_path / "images"), *query])
    expected_matches = matches(tmp_path / "images")
    for out in ("features", "features.npz"):
        stored = ["--gallery", str(tmp_path / out), "--out", str(tmp_path / "stored")]
        search.main([*checkpoint, *stored, *query])
        found = matches(tmp_path / "stored")
        assert [row["match"] for row in found] == [row["match"] for row in expected_matches]
        distances = [[float(row["distance"]) for row in rows] for rows in (found, expected_matches)]
        np.testing.assert_allclose(*distances, atol=2e-5)


def test_an_interrupted_extraction_goes_on(workdirs, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_files, "_EVERY", 1)
    embedded, asked = model.Extractor.pieces, []

    def dying(self, records, *rest):
        yield np.concatenate(list(embedded(self, records, *rest)))[:2]
        raise KeyboardInterrupt

    def counted(self, records, *rest):
        asked.append(len(records))
        return embedded(self, records, *rest)

    command = ["--checkpoint", str(workdirs["agw"]), "--images", str(pictures / "gallery"), "--out"]
    monkeypatch.setattr(model.Extractor, "pieces", dying)
    with pytest.raises(KeyboardInterrupt):
        extract.main([*command, str(tmp_path / "features")])
    monkeypatch.setattr(model.Extractor, "pieces", counted)
    extract.main([*command, str(tmp_path / "features")])
    extract.main([*command, str(tmp_path / "features.npz")])
    assert asked == [3, 5]
    one, other = (feature_files.load(tmp_path / out) for out in ("features", "features.npz"))
    np.testing.assert_allclose(one.features, other.features, atol=1e-6)
