"""What a run's report says of its own accord, beside the pictures that `tests/visualize` looks at."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmreid_jax.data.records import Records, View
from mmreid_jax.reports import retrieval
from mmreid_jax.visualize import ranked_lists


def table(captions):
    count = 3
    zeros = np.zeros(count, np.int32)
    files = np.array([f"{row}.jpg" for row in range(count)])
    identity = np.arange(count, dtype=np.int32)
    views = {"nir": View("image")}
    return Records("q", identity, zeros, zeros, files, views, None, np.arange(count), captions=captions)


def lists():
    query = ranked_lists.Sample({}, 1, 0)
    return [ranked_lists.RankedList(query, (), row, gallery_size=5) for row in (2, 0)]


def test_lists_tell_the_captions_of_their_own_query():
    captions = {"rgb": np.array(["red", "green", "blue"], object), "nir": np.array(["a", "b", "c"], object)}
    told = retrieval.with_captions(lists(), table(captions))
    assert [item.comment for item in told] == ["RGB: blue; NIR: c.", "RGB: red; NIR: a."]
    assert [dataclasses.replace(item, comment="") for item in told] == lists()
    assert retrieval.with_captions(lists(), table(None)) == lists()


def test_what_went_wrong_stands_behind_the_captions():
    (first, _) = lists()
    (said,) = ranked_lists.with_failure_sentences([dataclasses.replace(first, comment="RGB: red.")])
    assert said.comment == "RGB: red. The gallery holds no right match that counts for this query."
