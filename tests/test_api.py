"""The public functions: names, whatever is imported first, and what they say of mistakes."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import mmreid_jax
from mmreid_jax import UserError, api
from mmreid_jax.commands import convert as convert_command
from mmreid_jax.commands import prepare as prepare_command
from mmreid_jax.convert import store
from mmreid_jax.datasets import catalogue, drawing
from mmreid_jax.retrieval import metrics, protocols, rerank
from tests.commands.test_convert import vit_entries
from tests.datasets.own import made
from tests.test_imports import LAZY

ROOMS = ("adapt", "convert", "datasets", "evaluate", "methods", "train")


def python(code):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_name_is_there():
    assert sorted(mmreid_jax.__all__) == mmreid_jax.__all__
    for name in mmreid_jax.__all__:
        assert getattr(mmreid_jax, name) is not None
        assert name in dir(mmreid_jax)
    assert set(api.__all__) < set(mmreid_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = mmreid_jax.trian


@pytest.mark.parametrize("name", ROOMS)
def test_a_module_with_the_name_of_a_function_is_both(name):
    module, function = getattr(mmreid_jax, name), getattr(api, name)
    assert isinstance(module, ModuleType)
    assert module is sys.modules[f"mmreid_jax.{name}"]
    assert inspect.signature(module) == inspect.signature(function)


# Whatever comes first: the attribute, the module, a module below it, a name of it, or a module that imports it.
FIRST = (
    "mmreid_jax.{0}",
    "import mmreid_jax.{0}",
    "from mmreid_jax import {0}",
    "import mmreid_jax.{0} as other",
    "import importlib; importlib.import_module('mmreid_jax.{0}')",
    "import mmreid_jax.adapt, mmreid_jax.model",
)


@pytest.mark.parametrize("first", FIRST)
def test_the_order_of_imports_does_not_matter(first):
    checks = "\n".join(
        f"import mmreid_jax.{name} as module; assert mmreid_jax.{name} is module is sys.modules['mmreid_jax.{name}']"
        "; assert callable(module)"
        for name in ROOMS
    )
    code = f"import sys, mmreid_jax\n{first.format('train')}\n{checks}\n"
    code += "from mmreid_jax import train\nassert train.main and mmreid_jax.train.main and train.Job\n"
    code += "from mmreid_jax.datasets import get\nassert mmreid_jax.datasets() and mmreid_jax.datasets.get is get\n"
    python(code)


def test_the_package_imports_nothing_and_scoring_features_no_data_stack():
    python("import sys, mmreid_jax\nassert not {'jax', 'numpy', 'flax'} & set(sys.modules)")
    code = f"import sys\nfor name in {LAZY!r}: sys.modules[name] = None\n"
    code += "import numpy as np, mmreid_jax\nlabels = mmreid_jax.Labels(np.arange(3), np.arange(3))\n"
    code += "other = mmreid_jax.Labels(np.arange(3), np.arange(3) + 1)\n"
    code += "print(mmreid_jax.evaluate(np.eye(3), np.eye(3), labels, other).mAP)"
    assert python(code) == "1.0\n"


def test_lists():
    assert {"rgbnt201", "sysu_mm01", "regdb"} <= set(mmreid_jax.datasets())
    assert {"htt", "ieee", "agw"} <= set(mmreid_jax.methods())


@pytest.fixture(scope="module")
def sides():
    """Features and labels of 30 queries and 60 gallery samples of ten people, seen by three cameras."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(10, 8))
    made = []
    for count in (30, 60):
        identity = np.arange(count) % 10
        features = (people[identity] + rng.normal(size=(count, 8))).astype(np.float32)
        made.append((3 * features, mmreid_jax.Labels(identity, rng.integers(0, 3, count), rng.integers(0, 2, count))))
    return made


def by_hand(query, gallery, query_labels, gallery_labels):
    """mAP and rank-1 under Market-1501's rule, query by query."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    precisions, firsts = [], []
    for row, features in enumerate(unit[0]):
        order = np.argsort(((unit[1] - features) ** 2).sum(axis=1), kind="stable")
        same = gallery_labels.identity[order] == query_labels.identity[row]
        kept = ~(same & (gallery_labels.camera[order] == query_labels.camera[row]))
        hits = np.flatnonzero(same[kept])
        if len(hits):
            precisions.append(np.mean(np.arange(1, len(hits) + 1) / (hits + 1)))
            firsts.append(hits[0] == 0)
    return np.mean(precisions), np.mean(firsts)


def test_scores_of_features(sides):
    (query, query_labels), (gallery, gallery_labels) = sides
    scores = mmreid_jax.evaluate(query, gallery, query_labels, gallery_labels)
    assert (scores.mAP, scores.rank(1)) == pytest.approx(by_hand(query, gallery, query_labels, gallery_labels))
    # At length one the angle ranks likewise.
    cosine = mmreid_jax.evaluate(query, gallery, query_labels, gallery_labels, distance="cosine")
    assert cosine.mAP == pytest.approx(scores.mAP)
    plain = mmreid_jax.evaluate(query, gallery, query_labels, gallery_labels, protocol="plain")
    assert plain.mAP != scores.mAP
    options = rerank.RerankOptions(k1=8, k2=3)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    expected = metrics.evaluate(rerank.k_reciprocal(*unit, k1=8, k2=3), query_labels, gallery_labels, protocols.MARKET)
    assert mmreid_jax.evaluate(query, gallery, query_labels, gallery_labels, rerank=options).mAP == expected.mAP


def test_junk_is_left_out(sides):
    (query, query_labels), (gallery, gallery_labels) = sides
    expected = mmreid_jax.evaluate(query, gallery, query_labels, gallery_labels)
    # Boxes that lie nearer to the queries than anybody.
    columns = (np.full(len(query), -1), query_labels.camera, query_labels.scene)
    with_junk = mmreid_jax.Labels(
        *(
            np.concatenate([getattr(gallery_labels, name), junk])
            for name, junk in zip(vars(gallery_labels), columns, strict=True)
        )
    )
    scores = mmreid_jax.evaluate(query, np.concatenate([gallery, query]), query_labels, with_junk)
    assert scores.mAP == expected.mAP


def test_a_protocol_that_draws_galleries_wants_names(sides):
    (query, query_labels), (gallery, gallery_labels) = sides
    with pytest.raises(UserError, match="draws galleries by the names of files"):
        mmreid_jax.evaluate(query, gallery, query_labels, gallery_labels, protocol="sysu_all_single")
    cameras = np.arange(60) // 20
    named = SimpleNamespace(
        identity=gallery_labels.identity,
        camera=cameras,
        scene=gallery_labels.scene,
        file=np.array([f"cam{cameras[i] + 1}/{gallery_labels.identity[i]:04d}/{i:04d}.jpg" for i in range(60)]),
    )
    scores = mmreid_jax.evaluate(query, gallery, query_labels, named, protocol="sysu_all_single")
    assert len(scores.scores) == 10
    assert 0 < scores.mAP < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, known: (q[:-1], known), "query features are"),
        (lambda q, known: (q[0], known), "query features are"),
        (lambda q, known: (q[:, :4], known), "must be .number, dimension. of one dimension"),
        (lambda q, known: (np.where(np.arange(len(q))[:, None] == 7, np.nan, q), known), "not finite, first in row 7"),
        (lambda q, known: (q, mmreid_jax.Labels(known.identity, known.camera[:-1])), "camera .29."),
        (
            lambda q, known: (q, mmreid_jax.Labels(known.identity + 100, known.camera)),
            "none of 30 queries",
        ),
    ],
)
def test_mistakes_in_features_are_named(sides, change, message):
    (query, query_labels), (gallery, gallery_labels) = sides
    with pytest.raises(UserError, match=message):
        mmreid_jax.evaluate(*change(query, query_labels)[:1], gallery, change(query, query_labels)[1], gallery_labels)


def test_unknown_names(sides):
    (query, query_labels), (gallery, gallery_labels) = sides
    with pytest.raises(UserError, match="unknown protocol 'markt'"):
        mmreid_jax.evaluate(query, gallery, query_labels, gallery_labels, protocol="markt")
    with pytest.raises(UserError, match="unknown distance 'angle'"):
        mmreid_jax.evaluate(query, gallery, query_labels, gallery_labels, distance="angle")
    with pytest.raises(UserError, match="there is no directory"):
        mmreid_jax.load("nowhere")
    with pytest.raises(UserError, match="there is no such file"):
        mmreid_jax.load("nowhere", config="configs/nowhere.py")
    with pytest.raises(UserError, match="there is no data set 'rgbnt20'; did you mean rgbnt201"):
        mmreid_jax.prepare("rgbnt20", "images")


def test_convert_makes_what_the_command_makes(tmp_path):
    save_file(vit_entries(), tmp_path / "vit.safetensors")
    report = mmreid_jax.convert(tmp_path / "vit.safetensors", "vit", tmp_path / "vit")
    assert len(report.used) == len(vit_entries())
    variables, meta = store.load(tmp_path / "vit")
    assert meta["layout"] == "vit"
    assert variables["params"]
    with pytest.raises(UserError, match="exists already"):
        mmreid_jax.convert(tmp_path / "vit.safetensors", "vit", tmp_path / "vit")
    with pytest.raises(UserError, match="vti"):
        mmreid_jax.convert(tmp_path / "vit.safetensors", "vti", tmp_path / "other")


def test_convert_has_the_options_of_the_command(tmp_path):
    entries = {f"encoder.{name}": value for name, value in vit_entries().items()}
    save_file(entries, tmp_path / "vit.safetensors")
    flags = ["--layout", "vit", "--source", str(tmp_path / "vit.safetensors"), "--size", "8x4", "--prefix", "encoder."]
    convert_command.main([*flags, "--out", str(tmp_path / "command")])
    options = {"size": (8, 4), "prefix": "encoder."}
    mmreid_jax.convert(tmp_path / "vit.safetensors", "vit", tmp_path / "api", **options)
    (variables, meta), (others, also) = (store.load(tmp_path / name) for name in ("command", "api"))
    assert {**meta, "files": 0} == {**also, "files": 0}  # Orbax gives random names to files of arrays
    jax.tree.map(np.testing.assert_array_equal, variables, others)
    mmreid_jax.convert(tmp_path / "vit.safetensors", "vit", tmp_path / "api", overwrite=True, **options)
    (tmp_path / "api" / "thesis.tex").write_text("words")
    with pytest.raises(UserError, match=r"it also holds thesis\.tex, which"):
        mmreid_jax.convert(tmp_path / "vit.safetensors", "vit", tmp_path / "api", overwrite=True, **options)
    assert (tmp_path / "api" / "thesis.tex").read_text() == "words"
    with pytest.raises(UserError, match="smaller than a patch"):
        mmreid_jax.convert(tmp_path / "vit.safetensors", "vit", tmp_path / "other", size=(8, 1))


def test_ones_own_data_are_prepared_as_by_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("MMREID_DATA", str(tmp_path / "data"))
    folder = made.write(tmp_path / "people", [f"{p}/c{c}_{s}.jpg" for p, c, s in made.people(6)])
    pattern = "{identity}/c{camera}_{index}"
    own = mmreid_jax.prepare_own("shop", folder=folder, pattern=pattern, test_share=0.34, seed=3)
    assert own.prepared.fresh
    prepare_command.main(
        ["--folder", str(folder), "--name", "again", "--pattern", pattern, "--test_share", "0.34", "--seed", "3"]
    )
    tables = [catalogue.load(f"own:{name}", "query", tmp_path / "data") for name in ("shop", "again")]
    assert len(tables[0]) > 0
    np.testing.assert_array_equal(tables[0].file, tables[1].file)
    rows = [f"people/{p}/c1_{s}.jpg,{p}" for p in range(1, 7) for s in range(2)]
    (tmp_path / "table.csv").write_text("\n".join(["file,identity", *rows]))
    assert not mmreid_jax.prepare_own("listed", csv=tmp_path / "table.csv", data_dir=tmp_path).description.cameras
    with pytest.raises(UserError, match="nothing was written"):
        mmreid_jax.prepare_own("wrong", folder=folder, pattern="{identity}-{camera}")


def test_data_are_prepared_once(tmp_path, monkeypatch):
    drawing.draw("rgbnt201", tmp_path, identities=2, images_per_identity=3, image_size=(32, 16))
    monkeypatch.setenv("MMREID_DATA", str(tmp_path / "data"))
    prepared = mmreid_jax.prepare("rgbnt201", tmp_path)
    assert prepared.fresh
    assert prepared.directory.is_relative_to(tmp_path / "data")
    assert not mmreid_jax.prepare("rgbnt201", tmp_path, tmp_path / "data").fresh
