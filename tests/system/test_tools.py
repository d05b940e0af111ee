"""The tools around training, for any method: pictures of the report, complexity, learning-rate range, statistics."""

from __future__ import annotations

import dataclasses
import sys

import jax
import numpy as np
import pytest

from mmreid_jax import experiment
from mmreid_jax.embedder import of_experiment
from mmreid_jax.reports import retrieval
from mmreid_jax.scoring import retrieval as scores

CNN = {"model__backbone": "resnet_micro"}


def random_variables(method):
    """Plausible variables without the minutes that compiling a network's initialisation may take."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if leaf.ndim > 1:
            return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(leaf.dtype)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(method.init, jax.random.key(0)))


@pytest.fixture
def untrained(small, tmp_path):
    """Opens an experiment with random variables and its scores."""

    def make(**changes):
        opened = experiment.open_experiment(small(**changes), tmp_path)
        variables = opened.parallel.place_state(random_variables(opened.method))
        return opened, variables, scores.run(opened, of_experiment(opened, opened.method.embed), variables, "untrained")

    return make


@pytest.mark.slow(short=True)
def test_report_of_a_cnn_has_activation_maps_and_an_embedding(untrained, tmp_path):
    opened, variables, results = untrained(**CNN, eval__embedding_identities=3, eval__visrank_topk=4)
    page = retrieval.write(opened, variables, results).read_text()
    assert "Activation maps" in page
    assert "Attention rollout" not in page
    assert "of 3 identities" in page
    assert "rank 4," in page
    assert "rank 5," not in page
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"activation.png", "embedding.png"} <= names
    assert "attention.png" not in names


@pytest.mark.slow(short=True)
def test_embedding_and_maps_are_of_the_right_samples(untrained):
    opened, variables, _ = untrained(**CNN)
    compute = retrieval.on_one_device(opened, variables)
    rows = np.array([5, 1, 9, 2, 7])
    query = opened.splits.query
    whole = of_experiment(opened, opened.method.embed)(variables, query, ["rgb", "tir"])
    few = compute(opened.method.embed, query.select(rows))
    for name, expected in whole.items():
        np.testing.assert_allclose(few[name], expected[rows], rtol=0, atol=1e-4 * np.abs(expected).max())
    images = retrieval.image_getter(query, opened.splits.gallery)
    examples = retrieval.activation_examples(opened, compute, query, images, rows)
    assert [example.label.split(",")[0] for example in examples] == [f"identity {query.identity[row]}" for row in rows]
    # The feature of a modality is the spatial mean of its maps.
    assert set(examples[0].maps) == set(query.modalities)
    for position, example in enumerate(examples):
        pooled = example.maps["tir"].mean(axis=(0, 1))
        np.testing.assert_allclose(pooled, few["tir"][position], rtol=0, atol=1e-4 * np.abs(pooled).max())


def test_a_method_without_maps_or_with_a_backbone_that_has_none(untrained):
    opened, variables, _ = untrained()
    compute = retrieval.on_one_device(opened, variables)
    query = opened.splits.query
    assert (
        retrieval.activation_examples(opened, compute, query, retrieval.image_getter(query, query), np.array([0])) == []
    )
    assert not hasattr(FakeMethod, "maps")
    bare = dataclasses.replace(opened, method=FakeMethod())
    assert retrieval.activation_examples(bare, compute, query, None, np.array([0])) == []
    assert retrieval.attention_examples(bare, compute, query, None, np.array([0])) == []


class FakeMethod:
    """A method with neither attention nor maps."""


def test_an_embedding_that_cannot_be_drawn_says_why(untrained, monkeypatch):
    opened, variables, _ = untrained(eval__embedding_identities=3)
    compute = retrieval.on_one_device(opened, variables)
    broken = lambda *_: {name: np.full((4, 8), np.nan) for name in ("rgb", "nir", "tir")}  # noqa: E731
    (part,) = retrieval.embedding_part(opened, broken)
    assert "NaN" in part.text
    assert not part.pictures
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    (part,) = retrieval.embedding_part(opened, compute)
    assert "pip install scikit-learn" in part.text


def test_a_method_without_features_by_modality_is_embedded_whole(untrained):
    opened, variables, _ = untrained(eval__embedding_identities=3)
    compute = retrieval.on_one_device(opened, variables)

    def whole(function, records):
        return {"after": compute(function, records)["after"]}

    (part,) = retrieval.embedding_part(opened, whole)
    assert "in all modalities" in part.pictures[0].alt
    opened.config.unlock()
    opened.config.eval.embedding_identities = 0
    assert retrieval.embedding_part(opened, compute) == []


@pytest.mark.slow(short=True)
def test_every_query_gets_its_ranked_list(untrained, tmp_path):
    opened, variables, results = untrained(eval__visrank=True, eval__visrank_topk=2, eval__embedding_identities=0)
    retrieval.write(opened, variables, results)
    folder = tmp_path / "figures" / "ranked_lists"
    text = "".join(path.read_text() for path in folder.glob("*.html"))
    assert text.count("class='ranked'") == results[0].scores.num_valid
    assert any(str(name) in text for name in opened.splits.query.file)
    assert list((folder / "images").iterdir())
