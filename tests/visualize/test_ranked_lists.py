"""What a ranked list holds, and that its picture frames right matches green and wrong ones red."""

import dataclasses

import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.visualize import ranked_lists as lists
from mmreid_jax.visualize import style


@pytest.fixture
def shown(case):
    return lists.ranked_lists(case.distances, case.query, case.gallery, case.images, [0, 1, 2], case.ignore, top=4)


def runs(row):
    """The colours along a row of pixels, each once for every unbroken run."""
    edges = np.flatnonzero(np.any(row[1:] != row[:-1], axis=-1))
    return [tuple(int(v) for v in row[place]) for place in [0, *(edges + 1)]]


def frames(picture):
    """Colours of the frames from left to right, read from a line of pixels through their upper edges, and that line."""
    colors = {style.RIGHT: "right", style.WRONG: "wrong", style.UNKNOWN: "unknown", style.QUERY: "query"}
    for number, row in enumerate(picture):
        found = [colors[color] for color in runs(row) if color in colors]
        if found:
            return number, found
    raise AssertionError("no frame in the picture")


def test_lists_hold_ranks_labels_and_scores(shown):
    first, second, third = shown
    assert [match.sample.file for match in first.matches] == [
        "gallery3.jpg",
        "gallery1.jpg",
        "gallery2.jpg",
        "gallery4.jpg",
    ]
    assert [match.right for match in first.matches] == [True, False, False, False]
    assert [match.rank for match in first.matches] == [1, 2, 3, 4]
    assert first.matches[0].distance == pytest.approx(0.2)
    assert (first.first_hit, first.average_precision, first.right, first.gallery_size) == (1, 1.0, 1, 5)
    assert (second.first_hit, second.right) == (3, 2)
    assert (third.first_hit, third.average_precision, third.right) == (0, None, 0)
    assert lists.match_lines(first.matches[0]) == ["#1", "id 5", "cam 2", "0.200"]
    assert lists.query_lines(first) == ["query", "id 5", "cam 1"]


def test_images_are_asked_for_only_where_shown(case):
    asked = []

    def images(side, row):
        asked.append((side, row))
        return case.images(side, row)

    lists.ranked_lists(case.distances, case.query, case.gallery, images, [0], case.ignore, top=2)
    assert asked == [("gallery", 3), ("gallery", 1), ("query", 0)]


def test_failure_sentence_names_the_chief_rival(shown):
    sentence = lists.failure_sentence(shown[1])
    assert sentence == (
        "The first of 2 right matches does not come before rank 3: every sample shown before it is of identity 5."
    )
    assert lists.failure_sentence(shown[0]) == "The best-ranked match is right."
    assert "no right match" in lists.failure_sentence(shown[2])
    assert lists.with_failure_sentences(shown)[1].comment == sentence


@pytest.mark.parametrize(
    ("rivals", "expected"),
    [
        ([3], "a sample of identity 3 stands before it"),
        ([3, 3, 4], "of the 3 wrong samples shown before it, 2 are of identity 3 and the rest of 1 other."),
        ([3, 3, 4, 9], "of the 4 wrong samples shown before it, 2 are of identity 3 and the rest of 2 others."),
        ([3, 4, 9], "the 3 wrong samples shown before it are of 3 different identities."),
    ],
)
def test_failure_sentence_says_who_stands_before(rivals, expected, shown):
    sample = shown[0].query
    matches = tuple(
        lists.Match(dataclasses.replace(sample, identity=identity), rank, 0.1, right=False)
        for rank, identity in enumerate(rivals, start=1)
    )
    item = lists.RankedList(sample, matches, first_hit=40, average_precision=0.02, right=1, gallery_size=99)
    sentence = lists.failure_sentence(item)
    assert expected in sentence
    assert sentence.startswith("The only right match does not come before rank 40")


def test_picture_frames_follow_right_and_wrong(shown, pixels):
    for item, expected in ((shown[0], ["right", *["wrong"] * 3]), (shown[1], ["wrong", "wrong", "right", "wrong"])):
        picture = lists.ranked_lists_picture([item])
        _, found = frames(pixels(picture.png))
        assert found == ["query", *expected]


def test_picture_shows_every_modality_and_a_mark(case, shown, pixels):
    image = pixels(lists.ranked_lists_picture([shown[0]]).png)
    top, _ = frames(image)
    column = np.flatnonzero((image[top] == style.QUERY).all(axis=-1))[20]
    stack = runs(image[top : top + 700, column])
    assert stack[:7] == [style.QUERY, (60,) * 3, style.QUERY, (60,) * 3, style.QUERY, (60,) * 3, style.QUERY]
    badges = []
    for color in (style.RIGHT, style.WRONG):
        left = np.flatnonzero((image[top] == color).all(axis=-1))[0]
        badges.append((image[top : top + 22, left : left + 22] > 200).all(axis=-1))
    assert all(badge.sum() > 8 for badge in badges), "a white sign is drawn into both badges"
    assert not np.array_equal(*badges), "a tick is not a cross"


def test_picture_is_reproducible_and_grows_with_the_lists(shown, pixels):
    one, again = (lists.ranked_lists_picture(shown[:1], title="Lists") for _ in range(2))
    assert one.png == again.png
    assert pixels(lists.ranked_lists_picture(shown).png).shape[0] > 2 * pixels(one.png).shape[0]
    assert "3 queries with 12 matches" in lists.ranked_lists_picture(shown).alt


def test_beyond_the_threshold_is_faded(shown, pixels):
    faded = dataclasses.replace(
        shown[0], matches=tuple(dataclasses.replace(match, beyond=match.rank > 1) for match in shown[0].matches)
    )
    image = pixels(lists.ranked_lists_picture([faded]).png)
    top, found = frames(image)
    assert found == ["query", "right"]
    pale = tuple(255 - (255 - channel) // 2 for channel in style.WRONG)
    assert runs(image[top]).count(pale) == 3


def test_rows_align_modalities_by_name_or_by_place(case):
    image = np.zeros((8, 4, 3), np.uint8)

    def item(query, gallery):
        match = lists.Match(lists.RankedSample({name: image for name in gallery}), 1, 0.5)
        return lists.RankedList(lists.RankedSample({name: image for name in query}), (match,))

    assert lists.modality_rows(item(["rgb", "nir"], ["rgb", "nir"])) == (["rgb", "nir"],) * 2
    assert lists.modality_rows(item(["tir"], ["rgb", "nir", "tir"])) == (["rgb", "nir", "tir"],) * 2
    assert lists.modality_rows(item(["ir"], ["rgb"])) == (["ir"], ["rgb"])
    assert lists.row_names(item(["ir"], ["rgb"])) == ["IR → RGB"]
    assert lists.ranked_lists_picture([item(["tir"], ["rgb", "nir", "tir"])]).png


def test_odd_texts_are_drawn_as_they_are(shown):
    odd = dataclasses.replace(
        shown[0], query=dataclasses.replace(shown[0].query, file="cost $5_{a and $\\frac.jpg" * 9)
    )
    assert lists.ranked_lists_picture([odd], title="$\\undefined$").png


def test_bad_images_and_empty_lists_are_refused(case):
    with pytest.raises(UserError, match="gallery sample 3, rgb: an image to draw must be uint8"):
        lists.ranked_lists(
            case.distances, case.query, case.gallery, lambda *_: {"rgb": np.zeros((4, 4, 3))}, [0], case.ignore
        )
    with pytest.raises(UserError, match="at least one query"):
        lists.ranked_lists_picture([])
