"""Distances and scores against obvious loops, a gallery worked out on paper, and what cannot be scored."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

from mmreid_jax import datasets
from mmreid_jax.errors import UserError
from mmreid_jax.retrieval import distances, metrics, protocols, rerank


def labels(identity, camera=None, scene=None):
    identity = np.asarray(identity)
    zeros = np.zeros_like(identity)
    return metrics.Labels(identity, *(zeros if c is None else np.asarray(c) for c in (camera, scene)))


def drawn(seed, queries, gallery, people=6, cameras=3, ties=False):
    rng = np.random.default_rng(seed)
    apart = rng.random((queries, gallery)).astype(np.float32)
    if ties:
        apart = np.round(apart, 1)
    columns = [[rng.integers(0, high, size) for high in (people, cameras, 4)] for size in (queries, gallery)]
    return apart, labels(*columns[0]), labels(*columns[1])


def scored_by_loop(apart, query, gallery, protocol):
    """The definition, one gallery sample at a time."""
    precisions, penalties, firsts = [], [], []
    for row in range(len(query.identity)):
        order = np.argsort(apart[row], kind="stable")
        removed = protocol.ignored(query, gallery, row)
        ranked = [int(gallery.identity[i]) for i in order if not removed[i]]
        found = [name == query.identity[row] for name in ranked]
        if not any(found):
            continue
        hits, precision, last = 0, 0.0, 0
        for rank, right in enumerate(found, start=1):
            if right:
                hits, last = hits + 1, rank
                precision += hits / rank
        precisions.append(precision / hits)
        penalties.append(hits / last)
        listed = list(dict.fromkeys(ranked)) if protocol.counts == "identities" else ranked
        firsts.append(listed.index(query.identity[row]) + 1)
    length = min(protocol.max_rank, len(gallery.identity))
    cmc = [np.mean([first <= rank for first in firsts]) for rank in range(1, length + 1)]
    return np.mean(precisions), np.mean(penalties), cmc


def single_shots_by_loop(apart, query, gallery, protocol, repeats, seed):
    """One gallery sample per identity after the other, with numpy's global generator, as torchreid does."""
    before = np.random.get_state()
    np.random.seed(seed)
    curves = []
    for row in range(len(query.identity)):
        order = [i for i in np.argsort(apart[row], kind="stable") if not protocol.ignored(query, gallery, row)[i]]
        ranked = gallery.identity[order]
        if query.identity[row] not in ranked:
            continue
        for _ in range(repeats):
            chosen = [np.random.choice(np.flatnonzero(ranked == name)) for name in dict.fromkeys(ranked.tolist())]
            rank = [ranked[i] for i in sorted(chosen)].index(query.identity[row]) + 1
            curves.append([rank <= r for r in range(1, min(protocol.max_rank, len(set(gallery.identity))) + 1)])
    np.random.set_state(before)
    return np.mean(curves, axis=0)


@pytest.mark.parametrize("name", ["rgbnt", "plain"])
@pytest.mark.parametrize("ties", [False, True])
def test_single_shots_match_the_loop(name, ties):
    for seed, length in ((0, 4), (1, 50)):
        protocol = dataclasses.replace(datasets.protocol(name), max_rank=length)
        apart, query, gallery = drawn(seed, 15, 60, ties=ties)
        found = metrics.single_shot_cmc(apart, query, gallery, protocol, repeats=3, seed=seed)
        np.testing.assert_allclose(found, single_shots_by_loop(apart, query, gallery, protocol, 3, seed), atol=1e-12)
    assert found[-1] == 1.0  # all six identities


def test_single_shots_of_a_gallery_without_a_match():
    with pytest.raises(UserError, match="none of 1 queries has a right match left under protocol rgbnt v1"):
        metrics.single_shot_cmc(np.ones((1, 2)), labels([3]), labels([4, 5]), datasets.protocol("rgbnt"))


@pytest.mark.parametrize("name", datasets.protocols())
@pytest.mark.parametrize("ties", [False, True])
def test_scores_match_the_loop(name, ties):
    protocol = datasets.protocol(name)
    for seed in range(4):
        apart, query, gallery = drawn(seed, 15, 60, ties=ties)
        scores = metrics.evaluate(apart, query, gallery, protocol)
        precision, penalty, cmc = scored_by_loop(apart, query, gallery, protocol)
        assert scores.mAP == pytest.approx(precision, abs=1e-12)
        assert scores.mINP == pytest.approx(penalty, abs=1e-12)
        np.testing.assert_allclose(scores.cmc, cmc, atol=1e-12)


def test_a_gallery_worked_out_on_paper():
    """Query 0: ranks 1 and 3 right -> AP (1 + 2/3) / 2, INP 2/3. Query 1: rank 2 right -> AP 1/2, INP 1/2."""
    query, gallery = labels([7, 8], camera=[0, 0]), labels([7, 8, 7, 9, 7], camera=[1, 1, 1, 1, 0])
    apart = np.array([[0.1, 0.2, 0.3, 0.4, 0.0], [0.1, 0.2, 0.9, 0.8, 0.7]])
    scores = metrics.evaluate(apart, query, gallery, datasets.protocol("rgbnt"))
    np.testing.assert_allclose(scores.average_precision, [5 / 6, 1 / 2])
    np.testing.assert_allclose(scores.inverse_negative_penalty, [2 / 3, 1 / 2])
    np.testing.assert_allclose(scores.cmc, [0.5, 1, 1, 1, 1])
    assert list(scores.first_hit) == [1, 2]


def test_skipped_queries_are_counted_and_explained():
    query, gallery = labels([1, 2, 3], camera=[0, 0, 0]), labels([1, 2, 2], camera=[1, 0, 0])
    scores = metrics.evaluate(np.zeros((3, 3)), query, gallery, datasets.protocol("rgbnt"))
    assert (scores.num_valid, scores.num_skipped, scores.absent, scores.removed) == (1, 2, 1, 1)
    assert "2 of 3 queries are skipped" in scores.explain()
    assert np.isnan(scores.average_precision[1:]).all()


def test_short_filtered_gallery_keeps_its_last_value():
    query, gallery = labels([1], camera=[0]), labels([1, 1, 2], camera=[1, 0, 1])
    scores = metrics.evaluate(np.array([[0.5, 0.1, 0.2]]), query, gallery, datasets.protocol("rgbnt"))
    np.testing.assert_allclose(scores.cmc, [0, 1, 1])
    assert scores.rank(20) == 1


@pytest.mark.parametrize(
    ("query", "gallery", "said"), [([1], [], "gallery is empty"), ([], [1], "query is empty"), ([1], [2], "none of 1")]
)
def test_nothing_to_score_is_an_error(query, gallery, said):
    with pytest.raises(UserError, match=said):
        metrics.evaluate(
            np.zeros((len(query), len(gallery))), labels(query), labels(gallery), datasets.protocol("rgbnt")
        )


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_distances_match_the_definition_in_any_chunks(chunk):
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    squared = np.square(query[:, None] - gallery[None]).sum(-1)
    np.testing.assert_allclose(distances.squared_euclidean(query, gallery, chunk), squared, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(distances.whole("euclidean", query, gallery, chunk), np.sqrt(squared), rtol=1e-4)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    np.testing.assert_allclose(distances.cosine(query, gallery, chunk), 1 - unit[0] @ unit[1].T, atol=1e-6)


def test_reranking_blocks_and_precision():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 16))
    features = (centres[rng.integers(0, 8, 90)] + 0.8 * rng.normal(size=(90, 16))).astype(np.float32)
    query, gallery = features[:20], features[20:]
    whole = rerank.k_reciprocal(query, gallery, 10, 4, 0.3)
    np.testing.assert_allclose(rerank.k_reciprocal(query, gallery, 10, 4, 0.3, block=7), whole, atol=1e-5)
    np.testing.assert_allclose(rerank.k_reciprocal(query, gallery, 10, 4, 0.3, precision=np.float16), whole, atol=1e-2)
    alone = rerank.k_reciprocal(query, gallery, 10, 4, 1.0)
    assert (
        np.argsort(alone, axis=1, kind="stable")[:, 0] == distances.squared_euclidean(query, gallery).argmin(1)
    ).all()
    assert rerank.memory_estimate(20, 70) > 0
    with pytest.raises(UserError, match="more than 90 samples"):
        rerank.k_reciprocal(query, gallery, 90, 4)


@pytest.mark.parametrize("name", datasets.protocols())
@pytest.mark.parametrize("size", [1, 4, 300])
def test_blocks_of_rows_score_as_the_whole(name, size):
    apart, query, gallery = drawn(0, 15, 60, ties=True)
    protocol = datasets.protocol(name)
    whole = metrics.evaluate(apart, query, gallery, protocol)
    parts = metrics.evaluate((apart[i : i + size] for i in range(0, 15, size)), query, gallery, protocol)
    assert parts.mAP == whole.mAP
    np.testing.assert_array_equal(parts.first_hit, whole.first_hit)


def test_protocol_gives_its_distances_in_blocks():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(9, 4)), rng.normal(size=(5, 4))
    for protocol in (datasets.protocol("rgbnt"), protocols.Protocol("test", normalise=False, distance="euclidean")):
        rows = list(protocol.blocks(query, gallery, chunk=2))
        np.testing.assert_allclose(np.concatenate(rows), protocol.distances(query, gallery), rtol=1e-5, atol=1e-6)


def test_equal_distances_rank_in_the_order_of_the_gallery():
    """All features collapsed: ranks are positions, without those that the protocol removes."""
    query = labels([1, 2], camera=[0, 0])
    gallery = labels([2, 1, 1, 2, 1], camera=[0, 0, 1, 1, 1])
    scores = metrics.evaluate(np.zeros((2, 5)), query, gallery, datasets.protocol("rgbnt"))
    # Query 0 keeps 2, -, 1, 2, 1; query 1 keeps -, 1, 1, 2, 1.
    assert list(scores.first_hit) == [2, 3]
    np.testing.assert_allclose(scores.average_precision, [(1 / 2 + 2 / 4) / 2, 1 / 3])


@pytest.mark.parametrize(
    ("apart", "said"),
    [
        (np.full((2, 3), np.nan), "distances of query 0 are NaN"),
        (np.zeros((2, 4)), r"distances are \[2, 4\]"),
        (np.zeros((3, 3)), "there are 2 queries"),
        ([np.zeros((1, 3))], "distances for 1 queries, but 2 queries"),
    ],
)
def test_wrong_distances_are_named(apart, said):
    with pytest.raises(UserError, match=said):
        metrics.evaluate(apart, labels([1, 2]), labels([1, 2, 1]), datasets.protocol("plain"))


def test_explanation_names_the_rule_and_ranks_end_with_the_curve():
    query, gallery = labels([1, 2, 3], camera=[0, 0, 0]), labels([1, 2, 2], camera=[1, 0, 0])
    scores = metrics.evaluate(np.zeros((3, 3)), query, gallery, datasets.protocol("rgbnt"))
    assert "1 lose all their right matches" in scores.explain()
    assert "identity and camera are removed" in scores.explain()
    apart = np.array([[1.0, 0.5, 0.7]])
    short = metrics.evaluate(
        apart, labels([1]), labels([1, 2, 2]), protocols.Protocol("test", removes="none", max_rank=2)
    )
    np.testing.assert_array_equal(short.cmc, [0, 0])
    assert short.rank(2) == 0
    for rank in (0, 3):
        with pytest.raises(UserError, match=f"no rank {rank}"):
            short.rank(rank)


@pytest.mark.parametrize("name", datasets.protocols())
def test_description_tells_what_is_removed(name):
    protocol = datasets.protocol(name)
    assert f"{name} v{protocol.version}" in protocol.describe()
    assert protocols.REMOVALS[protocol.removes] in protocol.describe()


def filed(table):
    """A pool whose files are named by identity and camera."""
    names = [
        f"cam{c + 1}/{i:04d}/{n:04d}.jpg" for n, (i, c) in enumerate(zip(table.identity, table.camera, strict=True))
    ]
    return types.SimpleNamespace(**vars(table), file=np.array(names))


def across(seed, ties=False):
    """Distances of 40 queries to a pool of 90, cameras as those of SYSU-MM01, with the tables."""
    apart, query, pool = drawn(seed, 40, 90, people=5, cameras=2, ties=ties)
    # At least four images of every identity and camera, in any order.
    order = np.random.default_rng(seed).permutation(90)
    identity, camera = order // 4 % 5, np.array([0, 1, 3, 4])[order % 4]
    asked = labels(query.identity, np.array([2, 5])[query.camera], query.scene)
    return apart, asked, filed(labels(identity, camera, pool.scene))


def drawing(name):
    """A protocol, with draws that the small pool of `across` allows."""
    protocol = datasets.protocol(name)
    if protocol.gallery is None:
        return protocol
    draw = "trial" if protocol.gallery.draw == "official" else protocol.gallery.draw
    shots = min(protocol.gallery.shots, 2)
    return dataclasses.replace(protocol, gallery=dataclasses.replace(protocol.gallery, draw=draw, shots=shots))


@pytest.mark.parametrize("name", datasets.protocols())
@pytest.mark.parametrize("ties", [False, True])
def test_trials_are_evaluations_of_the_drawn_columns(name, ties):
    protocol = drawing(name)
    apart, query, pool = across(2, ties)
    trials = metrics.evaluate_trials(apart, query, pool, protocol)
    parts = metrics.evaluate_trials((apart[i : i + 7] for i in range(0, 40, 7)), query, pool, protocol)
    assert len(trials.scores) == (10 if protocol.gallery else 1)
    for scores, part, rows in zip(trials.scores, parts.scores, protocol.galleries(pool), strict=True):
        gallery = metrics.Labels(pool.identity[rows], pool.camera[rows], pool.scene[rows])
        sides = (apart[:, rows].T, gallery, query) if protocol.swapped else (apart[:, rows], query, gallery)
        alone = metrics.evaluate(*sides, protocol)
        for one in (scores, part):
            np.testing.assert_array_equal(one.first_hit, alone.first_hit)
            np.testing.assert_array_equal(one.average_precision, alone.average_precision)
            assert (one.mAP, one.mINP, one.absent, one.removed) == (alone.mAP, alone.mINP, alone.absent, alone.removed)
        precision, penalty, cmc = scored_by_loop(*sides, protocol)
        assert (scores.mAP, scores.mINP) == (pytest.approx(precision), pytest.approx(penalty))
        np.testing.assert_allclose(scores.cmc, cmc, atol=1e-12)


def test_trials_average_and_spread():
    apart, query, pool = across(0)
    trials = metrics.evaluate_trials(apart, query, pool, datasets.protocol("sysu_all_single"))
    assert trials.mAP == pytest.approx(np.mean([scores.mAP for scores in trials.scores]))
    assert trials.mINP == pytest.approx(np.mean([scores.mINP for scores in trials.scores]))
    assert trials.rank(2) == pytest.approx(np.mean([scores.cmc[1] for scores in trials.scores]))
    np.testing.assert_allclose(trials.cmc, np.mean([scores.cmc for scores in trials.scores], axis=0))
    ranks = [scores.rank(1) for scores in trials.scores]
    assert trials.std("R1") == pytest.approx(np.sqrt(np.sum(np.square(ranks - np.mean(ranks))) / 9))
    assert trials.std("R1") > 0
    assert f"R1 {100 * np.mean(ranks):.2f} ± {100 * trials.std('R1'):.2f}, " in trials.summary()
    assert trials.summary().endswith("(mean ± standard deviation of 10 trials)")
    assert (trials.num_valid, trials.num_skipped) == (40, 0)
    assert trials.explain() == ""
    for name in ("R", "rank", "map"):
        with pytest.raises(UserError, match="there is no score"):
            trials.values(name)


def test_one_trial_has_no_spread():
    apart, query, pool = across(0)
    trials = metrics.evaluate_trials(apart, query, pool, datasets.protocol("regdb_visible_to_thermal"))
    assert trials.std("mAP") == 0
    assert "±" not in trials.summary()
    assert trials.rank(20) == metrics.evaluate(apart, query, pool, datasets.protocol("plain")).rank(20)


def test_curves_of_trials_that_differ_in_length_keep_their_last_value():
    short, long = (
        metrics.evaluate(np.arange(size)[None], labels([0]), labels([1] * (size - 1) + [0]), datasets.protocol("plain"))
        for size in (2, 4)
    )
    np.testing.assert_allclose(metrics.Trials((short, long)).cmc, [0, 0.5, 0.5, 1])


def test_camera_2_is_hidden_from_camera_3_alone():
    """Camera 2 is number 1 here; the identity makes no difference."""
    query = labels([1, 1], camera=[2, 5])
    gallery = labels([2, 1, 3, 1], camera=[1, 1, 0, 4])
    protocol = datasets.protocol("sysu_all_single")
    assert protocol.ignored(query, gallery, 0).tolist() == [True, True, False, False]
    assert protocol.ignored(query, gallery, 1).tolist() == [False] * 4


def test_people_are_ranked_by_their_nearest_image():
    """Identities appear in the order 2, 3, 1: six images, three people."""
    gallery = labels([1, 2, 2, 3, 2, 3])
    apart = np.array([[0.9, 0.1, 0.2, 0.3, 0.4, 0.5]])
    protocol = datasets.protocol("llcm_ir_to_vis")
    scores = metrics.evaluate(apart, labels([1]), gallery, dataclasses.replace(protocol, removes="none"))
    assert scores.first_hit.tolist() == [3]
    np.testing.assert_allclose(scores.average_precision, [1 / 6])
    np.testing.assert_allclose(scores.cmc, [0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("counts", ["images", "identities"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_infinite_and_whole_distances_are_ranked(counts, dtype):
    rng = np.random.default_rng(0)
    apart = rng.integers(0, 4, (12, 30)).astype(dtype)
    if apart.dtype.kind == "f":
        apart[apart == 3] = np.inf
    query, gallery = (labels(rng.integers(0, 4, n), camera=rng.integers(0, 3, n)) for n in apart.shape)
    protocol = protocols.Protocol("test", counts=counts)
    scores = metrics.evaluate(apart, query, gallery, protocol)
    precision, penalty, cmc = scored_by_loop(apart, query, gallery, protocol)
    assert (scores.mAP, scores.mINP) == (pytest.approx(precision), pytest.approx(penalty))
    np.testing.assert_allclose(scores.cmc, cmc, atol=1e-12)
