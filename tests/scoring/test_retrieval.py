"""How the evaluation compares features: distance, normalisation, re-ranking and single shots of the config."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs import common
from mmreid_jax import datasets
from mmreid_jax.errors import UserError
from mmreid_jax.experiment import Splits
from mmreid_jax.methods.base import Comparison
from mmreid_jax.retrieval import distances, metrics, rerank
from mmreid_jax.scoring import retrieval

MODALITIES = ("rgb", "nir")
RNG = np.random.default_rng(0)
FEATURES = {"query": RNG.normal(size=(12, 6)) + 1, "gallery": RNG.normal(size=(70, 6)) * np.linspace(1, 3, 70)[:, None]}
LABELS = {
    side: SimpleNamespace(
        identity=np.arange(len(rows)) % 6,
        camera=np.arange(len(rows)) // 6 % 2,
        scene=np.zeros(len(rows), int),
        modalities=MODALITIES,
    )
    for side, rows in FEATURES.items()
}


def compared(**changes):
    """The result of comparing FEATURES with these options of config.eval."""
    options = common.evaluation()
    options.update(changes)
    (protocol,) = retrieval.protocols_of("rgbnt201", options)

    def embedded(records, feature, absent):
        assert (feature, absent) == ("f", ())
        return FEATURES["query" if records is LABELS["query"] else "gallery"].astype(np.float32)

    comparison = Comparison("all", "f", MODALITIES, MODALITIES)
    return retrieval.compare(Splits(None, **LABELS), protocol, options, comparison, embedded, "tested", seed=5)


def unit(side):
    return distances.l2_normalise(FEATURES[side].astype(np.float32))


def test_the_usual_way_is_squared_distances_of_features_of_length_one():
    result = compared()
    expected = distances.squared_euclidean(unit("query"), unit("gallery"))
    np.testing.assert_allclose(result.distances, expected, atol=1e-5)
    assert result.protocol == "rgbnt v1"


def test_features_as_they_are_and_another_distance():
    query, gallery = FEATURES["query"], FEATURES["gallery"]
    result = compared(normalize=False)
    np.testing.assert_allclose(result.distances, ((query[:, None] - gallery) ** 2).sum(-1), rtol=1e-4)
    assert result.protocol == "rgbnt v1, features not normalised"
    result = compared(normalize=False, distance="cosine")
    np.testing.assert_allclose(result.distances, 1 - unit("query") @ unit("gallery").T, atol=1e-5)
    assert result.protocol == "rgbnt v1, cosine distance, features not normalised"
    with pytest.raises(UserError, match=r"unknown config.eval.distance 'manhattan'; choose one of squared_euclidean"):
        compared(distance="manhattan")


@pytest.mark.parametrize("normalize", [True, False])
def test_reranking_takes_what_is_compared(normalize):
    result = compared(normalize=normalize, rerank=True, rerank_k1=8, rerank_k2=3, rerank_distance="squared_euclidean")
    sides = [unit(side) if normalize else FEATURES[side].astype(np.float32) for side in ("query", "gallery")]
    np.testing.assert_array_equal(result.distances, rerank.k_reciprocal(*sides, 8, 3, 0.3, "squared_euclidean"))
    assert result.protocol.endswith("re-ranked (k1=8, k2=3, lambda=0.3, of squared euclidean distances)")


def test_single_shots_replace_the_ranks_alone():
    usual, single = compared(), compared(single_shot=True)
    cmc = metrics.single_shot_cmc(
        usual.distances, *LABELS.values(), datasets.protocol("rgbnt"), repeats=retrieval.SINGLE_SHOTS, seed=5
    )
    np.testing.assert_array_equal(single.scores.cmc, cmc)
    assert single.scores.mAP == usual.scores.mAP
    assert single.row()["R20"] == 1.0  # of six identities
    assert "single gallery shots (10 draws)" in single.protocol
