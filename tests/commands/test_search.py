"""Search by a description, an infrared image, or both, with a tiny network."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmreid_jax import model
from mmreid_jax.commands import extract, search
from mmreid_jax.commands.convert import write_safetensors
from mmreid_jax.convert import layout, store
from mmreid_jax.data import tokenizer
from mmreid_jax.datasets import folder
from mmreid_jax.errors import UserError, printable
from mmreid_jax.retrieval import feature_files, streamed
from mmreid_jax.retrieval import matches as matching
from mmreid_jax.testing import tiny
from mmreid_jax.training import checkpoints, step

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
    for place, count in (("gallery", 5), ("ir", 1)):
        (root / place).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 20, 3), np.uint8)).save(root / place / f"{i}.png")
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


@pytest.mark.slow(short=True)
@pytest.mark.parametrize(
    ("query", "kind", "other"),
    [
        (["--text", TEXT], "text", "joint"),
        (["--image", "IR"], "ir", "backup"),
        (["--text", TEXT, "--image", "IR"], "fusion", "joint"),
        (["--text", TEXT, "--image", "IR", "--image_text", "a man with a bag", "--feature", "mer"], "mer", "joint"),
        (["--query", "FOLDER", "--gallery_modality", "rgb"], "ir", "backup"),
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


@pytest.mark.slow(short=True)
def test_converted_models_need_their_config(workdirs, pictures, tmp_path):
    variables, _ = checkpoints.load_variables(workdirs["agw"])
    store.save(tmp_path / "agw", variables, store.meta_of(layout.ImportReport("agw", ""), "agw", variables))
    _, method = tiny.method("tvi_lfm")
    variables, _ = checkpoints.load_variables(workdirs["tvi_lfm"])
    state = layout.export_state(method.convert_layouts()["tvi_lfm"], variables)
    write_safetensors(str(tmp_path / "tvi_lfm"), state)
    infrared = ["--query", str(pictures / "ir"), "--gallery_modality", "rgb"]
    for name, query in (("agw", infrared), ("tvi_lfm", ["--text", TEXT])):
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
        (["--image", "nowhere.png"], "the image nowhere.png cannot be read .there is no such file"),
        (["--image", "."], "the image . cannot be read .a folder"),
        (["--text", TEXT, "--value_range", "2", "1"], "value_range is"),
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


@pytest.mark.slow(short=True)
def test_a_gallery_of_stored_features_gives_the_same_matches(workdirs, pictures, tmp_path):
    checkpoint = ["--checkpoint", str(workdirs["tvi_lfm"])]
    for out in ("features", "features.npz"):
        extract.main(
            [*checkpoint, "--images", str(pictures / "gallery"), "--modality", "rgb", "--out", str(tmp_path / out)]
        )
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

    command = [
        "--checkpoint",
        str(workdirs["agw"]),
        "--images",
        str(pictures / "gallery"),
        "--modality",
        "rgb",
        "--out",
    ]
    monkeypatch.setattr(model.Extractor, "pieces", dying)
    with pytest.raises(KeyboardInterrupt):
        extract.main([*command, str(tmp_path / "features")])
    monkeypatch.setattr(model.Extractor, "pieces", counted)
    extract.main([*command, str(tmp_path / "features")])
    extract.main([*command, str(tmp_path / "features.npz")])
    assert asked == [3, 5]
    one, other = (feature_files.load(tmp_path / out) for out in ("features", "features.npz"))
    np.testing.assert_allclose(one.features, other.features, atol=1e-6)


@pytest.fixture
def strange(tmp_path):
    """A folder of images with strange names, a broken one and one of 16 bits; of visible images by its name."""
    place = tmp_path / "rgb"
    place.mkdir()
    rng = np.random.default_rng(1)
    names = ["a.png", "=1+1.png", "-x.png", "図.png", "b\x1b[31m\n.png", os.fsdecode(b"caf\xe9.png"), "semi;=2.png"]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (40, 20, 3), np.uint8)).save(place / name)
    Image.fromarray(rng.integers(29_000, 30_000, (40, 20)).astype(np.uint16)).save(place / "deep.tif")
    (place / "broken.png").write_bytes((place / "a.png").read_bytes()[:300])
    return place


def agw(workdirs, *rest):
    return ["--checkpoint", str(workdirs["agw"]), *map(str, rest)]


def test_names_of_every_kind_in_table_page_and_console(strange, workdirs, tmp_path, capsys):
    search.main(agw(workdirs, "--query", strange, "--gallery", strange, "--out", tmp_path / "out"))
    content = (tmp_path / "out" / "matches.csv").read_text(encoding="utf-8")
    found = list(csv.DictReader(io.StringIO(content, newline="")))
    names = {row["query"] for row in found}
    written = {
        "a.png",
        "./=1+1.png",
        "./-x.png",
        "図.png",
        "b\x1b[31m\n.png",
        r"caf\udce9.png",
        "semi;=2.png",
        "deep.tif",
    }
    assert names == {row["match"] for row in found} == written
    # No cell begins like a formula, and none can be made of a part by another separator.
    assert not [row for row in found if row["match"][0] in "=+-@" or row["query"][0] in "=+-@"]
    assert '"semi;=2.png"' in content
    assert "\na.png," in content
    # Nobody is a match of himself, in 8 rows of 7 others.
    assert not [row for row in found if row["query"] == row["match"]]
    assert len(found) == 8 * 7
    assert sorted(map(int, {row["rank"] for row in found})) == list(range(1, 8))
    said = capsys.readouterr().out
    assert "8 queries are also in the gallery" in said
    assert "rgb: 1 files could not be used\n  broken.png: " in said
    assert "\x1b" not in said
    assert r"b\x1b[31m\n.png: " in said
    assert r"caf\udce9.png" in said
    page = (tmp_path / "out" / "search.html").read_bytes().decode("utf-8")
    assert "図.png" in page
    assert r"caf\udce9.png" in page


def test_copies_of_a_query_are_no_matches_whatever_they_are_called(strange, workdirs, tmp_path):
    query = tmp_path / "visible"
    query.mkdir()
    shutil.copy(strange / "a.png", query / "other name.png")
    Image.new("RGB", (20, 40), "red").save(query / "new.png")
    shutil.copy(strange / "a.png", strange / "z.png")
    arguments = agw(workdirs, "--query", query, "--gallery", strange, "--out", tmp_path / "out", "--top", "3")
    search.main(arguments)
    found = [(row["query"], row["match"]) for row in matches(tmp_path / "out")]
    assert len(found) == 6
    assert not {("other name.png", "a.png"), ("other name.png", "z.png")} & set(found)
    search.main([*arguments, "--with_self"])
    ranked = matches(tmp_path / "out")
    own = {row["match"] for row in ranked if row["query"] == "other name.png" and float(row["distance"]) < 1e-4}
    assert own == {"a.png", "z.png"}


def test_stored_features_do_not_find_themselves(strange, workdirs, tmp_path):
    extract.main(agw(workdirs, "--images", strange, "--out", tmp_path / "f.npz"))
    stored = ["--query", str(tmp_path / "f.npz"), "--gallery", str(tmp_path / "f.npz"), "--out", str(tmp_path / "out")]
    search.main(stored)
    found = matches(tmp_path / "out")
    assert len(found) == 8 * 7
    assert not [row for row in found if row["query"] == row["match"]]
    search.main([*stored, "--with_self"])
    first = [row for row in matches(tmp_path / "out") if row["rank"] == "1"]
    assert all(row["query"] == row["match"] for row in first)
    assert {row["distance"] for row in first} == {"0.000000"}


@pytest.mark.slow(short=True)
def test_no_distance_is_negative(tmp_path):
    matching.write_table(
        tmp_path / "m.csv", ["q"], np.array(["g", "h"]), np.array([[0, 1, -1]]), np.array([[-1e-9, 2, 3]])
    )
    assert [row["distance"] for row in csv.DictReader((tmp_path / "m.csv").open())] == ["0.000000", "2.000000"]
    features = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    for kind in ("squared_euclidean", "cosine", "euclidean"):
        assert (streamed.top_k(features, features, 3, kind=kind)[1] >= 0).all()


@pytest.mark.parametrize("side", ["query", "gallery"])
def test_a_feature_that_is_not_finite_names_its_image(side, strange, workdirs, tmp_path, monkeypatch):
    pieces = model.Extractor.pieces

    def poisoned(self, records, *rest):
        for piece in pieces(self, records, *rest):
            if records.name.endswith("rgb") == (side == "gallery"):
                piece = np.where(np.arange(len(piece))[:, None] == 2, np.nan, piece)
            yield piece

    (tmp_path / "vis").mkdir()
    for name in ("0.png", "1.png", "2.png"):
        shutil.copy(strange / "a.png", tmp_path / "vis" / name)
    monkeypatch.setattr(model.Extractor, "pieces", poisoned)
    listed, _ = folder.open_folder(strange, ("rgb", "nir"))
    name = "2.png" if side == "query" else str(folder.checked(listed).file[2])
    which = "query" if side == "query" else "gallery image"
    with pytest.raises(UserError, match=rf"features of {which} {re.escape(printable(name))} are not finite"):
        search.main(agw(workdirs, "--query", tmp_path / "vis", "--gallery", strange, "--out", tmp_path / "out"))


def test_extraction_names_the_image_of_a_feature_that_is_not_finite(strange, workdirs, tmp_path, monkeypatch):
    true = step.embed_step

    def poisoned(embed, *rest):
        def run(variables, batch):
            mean = {name: pixels.mean(axis=(1, 2, 3)) for name, pixels in batch["images"].items()}
            return {
                name: jnp.where((mean["rgb"] == 255)[:, None], jnp.nan, value)
                for name, value in true(embed, *rest)(variables, batch).items()
            }

        return run

    monkeypatch.setattr(step, "embed_step", poisoned)
    Image.new("RGB", (20, 40), "white").save(strange / "white.png")
    with pytest.raises(UserError, match=r"features of .*rgb white\.png are not finite"):
        extract.main(agw(workdirs, "--images", strange, "--out", tmp_path / "f.npz"))


def test_an_output_is_tried_before_the_model_is_opened(strange, tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "open_model", lambda *_: pytest.fail("the model was opened"))
    monkeypatch.setattr(search, "open_model", lambda *_: pytest.fail("the model was opened"))
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file" / "f.npz", tmp_path / "file"):
        with pytest.raises(UserError, match=r"--out .*(cannot be written|is a file)"):
            extract.main(["--checkpoint", "x", "--images", str(strange), "--out", str(out)])
        with pytest.raises(UserError, match=r"--out .*(cannot be written|is a file)"):
            search.main(["--checkpoint", "x", "--query", "q", "--gallery", "g", "--out", str(out)])


def test_features_that_cannot_be_written_are_kept_elsewhere(strange, workdirs, tmp_path, monkeypatch):
    save = extract.save

    def full(path, stored):
        if path.name == "f.npz" and path.parent == tmp_path:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, stored)

    monkeypatch.setattr(extract, "save", full)
    with pytest.raises(UserError, match=r"f\.npz cannot be written .* what was computed is in ") as caught:
        extract.main(agw(workdirs, "--images", strange, "--out", tmp_path / "f.npz"))
    assert len(feature_files.load(Path(str(caught.value).split(" is in ")[1])).features) == 8


def test_a_range_of_values_changes_deep_images_alone(strange, workdirs, tmp_path):
    for name, more in (("own", []), ("wide", ["--value_range", "0", "65535"])):
        extract.main(agw(workdirs, "--images", strange, "--out", tmp_path / f"{name}.npz", *more))
    own, wide = (feature_files.load(tmp_path / f"{name}.npz") for name in ("own", "wide"))
    differing = np.abs(own.features - wide.features).max(axis=1) > 1e-4
    assert own.files[differing].tolist() == ["deep.tif"]


def test_a_folder_of_neither_modality(strange, workdirs, tmp_path):
    strange.rename(tmp_path / "photos")
    rest = ["--gallery", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="name it with --query_modality"):
        search.main(agw(workdirs, "--query", tmp_path / "photos", *rest))
    with pytest.raises(UserError, match="name it with --gallery_modality"):
        search.main(agw(workdirs, "--query", tmp_path / "photos", *rest, "--query_modality", "nir"))
    with pytest.raises(UserError, match="name it with --modality"):
        extract.main(agw(workdirs, "--images", tmp_path / "photos", "--out", tmp_path / "f.npz"))
    search.main(agw(workdirs, "--query", tmp_path / "photos", *rest, "--modality", "visible"))
    assert len(matches(tmp_path / "out")) == 8 * 7
