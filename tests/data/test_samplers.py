import functools
import pickle

import numpy as np
import pytest

from mmreid_jax.data import samplers
from mmreid_jax.errors import UserError

SEEDS = range(12)


def random_labels(seed):
    """Labels of 2 to 30 identities with 1 to 40 images each, shuffled, and a P and K that fit."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 41, rng.integers(2, 31))
    labels = rng.permutation(np.repeat(rng.permutation(1000)[: len(counts)], counts))
    return labels, int(rng.integers(2, len(counts) + 1)), int(rng.integers(1, 6))


def orders(plan):
    """The rows of every epoch."""
    return np.split(np.concatenate([draw.indices for draw in plan]), plan.epoch_ends[:-1] * plan.batch)


def same(first, second):
    return [draw.indices.tolist() for draw in first] == [draw.indices.tolist() for draw in second]


@pytest.mark.parametrize("make", [samplers.pk, samplers.pk_reference])
@pytest.mark.parametrize("seed", SEEDS)
class TestPByKBatches:
    def test_batches_are_p_blocks_of_k_with_distinct_identities(self, make, seed):
        labels, p, k = random_labels(seed)
        plan = make(labels, p, k, 2, seed)
        assert len(plan) > 0
        for draw in plan:
            blocks = labels[draw.indices].reshape(p, k)
            assert (blocks == blocks[:, :1]).all()
            assert len(set(blocks[:, 0])) == p

    def test_images_repeat_in_a_block_only_where_an_identity_has_too_few(self, make, seed):
        labels, p, k = random_labels(seed)
        for draw in make(labels, p, k, 2, seed):
            for block in draw.indices.reshape(p, k):
                if np.sum(labels == labels[block[0]]) >= k:
                    assert len(set(block)) == k

    def test_epochs_differ_and_seeds_differ(self, make, seed):
        labels = np.repeat(np.arange(20), 12)
        first, second = orders(make(labels, 4, 4, 2, seed))
        assert not np.array_equal(first[:16], second[:16])
        assert not np.array_equal(orders(make(labels, 4, 4, 1, seed + 1))[0][:16], first[:16])

    def test_same_arguments_same_plan(self, make, seed):
        labels, p, k = random_labels(seed)
        assert same(make(labels, p, k, 2, seed), make(labels, p, k, 2, seed))


class TestBalanced:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_images_of_an_identity_differ_by_at_most_one_appearance(self, seed):
        labels, p, k = random_labels(seed)
        for order in orders(samplers.pk(labels, p, k, 3, seed)):
            shown = np.bincount(order, minlength=len(labels))
            for identity in np.unique(labels):
                own = shown[labels == identity]
                assert own.max() - own.min() <= 1

    def test_an_epoch_shows_every_image_once_where_the_numbers_divide(self):
        labels = np.repeat(np.arange(12), 8)
        for order in orders(samplers.pk(labels, 4, 4, 3, 0)):
            assert sorted(order) == list(range(len(labels)))

    def test_on_average_every_image_is_shown_once_an_epoch(self):
        counts = np.array([4, 5, 6, 7, 9, 13, 22, 30, 17, 8])
        labels = np.repeat(np.arange(len(counts)), counts)
        epochs = 400
        shown = np.bincount(np.concatenate(orders(samplers.pk(labels, 2, 4, epochs, 1))), minlength=len(labels))
        per_epoch = np.bincount(labels, shown) / counts / epochs
        # 15 batches of 8 hold 120 of the 121 images; rounding to groups adds a standard error of at most 0.01.
        np.testing.assert_allclose(per_epoch, 120 / 121, atol=0.05)

    def test_a_large_identity_is_held_at_one_block_a_batch(self):
        labels = np.repeat(np.arange(4), [400, 8, 8, 8])
        plan = samplers.pk(labels, 3, 4, 1, 0)
        assert all((labels[draw.indices] == 0).sum() == 4 for draw in plan)

    def test_as_many_identities_as_places(self):
        labels = np.repeat(np.arange(3), [5, 1, 9])
        for draw in samplers.pk(labels, 3, 2, 2, 0, steps_per_epoch=7):
            assert set(labels[draw.indices]) == {0, 1, 2}

    @pytest.mark.parametrize("steps", [1, 3, 50])
    def test_steps_per_epoch(self, steps):
        labels, p, k = random_labels(3)
        plan = samplers.pk(labels, p, k, 4, 0, steps_per_epoch=steps)
        assert plan.epoch_ends.tolist() == [steps, 2 * steps, 3 * steps, 4 * steps]
        assert all(len(draw.indices) == p * k for draw in plan)

    def test_an_epoch_does_not_depend_on_how_many_there_are(self):
        labels, p, k = random_labels(5)
        long, short = samplers.pk(labels, p, k, 9, 7), samplers.pk(labels, p, k, 2, 7)
        assert same(long[: len(short)], short)


class TestReference:
    def test_epochs_follow_each_other_and_differ_in_length(self):
        labels = np.repeat(np.arange(9), [3, 4, 5, 9, 12, 1, 8, 4, 30])
        plan = samplers.pk_reference(labels, 3, 4, 6, 1234)
        lengths = np.diff(plan.epoch_ends, prepend=0)
        assert len(set(lengths)) > 1
        assert [draw.epoch for draw in plan] == np.repeat(np.arange(6), lengths).tolist()

    def test_no_image_twice_in_an_epoch_and_only_whole_groups(self):
        labels = np.repeat(np.arange(6), [4, 5, 6, 7, 8, 9])
        for order in orders(samplers.pk_reference(labels, 2, 4, 3, 0)):
            assert len(set(order)) == len(order)
            assert (np.bincount(labels[order]) % 4 == 0).all()


MODALITIES = ("rgb", "nir")


def two_modalities(seed, least=1):
    """Labels and modalities of 8 identities, with `least` to 20 images in each modality, shuffled."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(least, 21, (8, 2))
    label = np.concatenate([np.repeat(np.arange(8), own) for own in counts.T])
    modality = np.repeat(MODALITIES, counts.sum(axis=0))
    order = rng.permutation(len(label))
    return label[order], modality[order]


@pytest.mark.parametrize("make", [samplers.cross_modal, samplers.cross_modal_reference])
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("seed", range(4))
class TestCrossModal:
    def test_batches_are_pairs_of_one_identity_and_two_modalities(self, make, replace, seed):
        label, modality = two_modalities(seed, least=5)
        plan = make(label, modality, MODALITIES, 3, 5, 2, seed, replace=replace)
        for draw in plan:
            assert draw.indices.shape == (15, 2)
            assert draw.indices.dtype == np.int64
            assert [set(modality[draw.indices[:, m]]) for m in range(2)] == [{"rgb"}, {"nir"}]
            blocks = label[draw.indices].reshape(3, 10)
            assert (blocks == blocks[:, :1]).all()
            assert len(set(blocks[:, 0])) == 3
            if not replace:
                own = draw.indices.reshape(3, 5, 2)
                assert all(len(set(own[i, :, m])) == 5 for i in range(3) for m in range(2))

    def test_length_follows_the_larger_modality(self, make, replace, seed):
        label, modality = two_modalities(seed, least=2)
        plan = make(label, modality, MODALITIES, 4, 2, 3, seed, replace=replace)
        largest = max(np.sum(modality == name) for name in MODALITIES)
        assert np.diff(plan.epoch_ends, prepend=0).tolist() == [largest // 8 + 1] * 3

    def test_epochs_and_seeds_differ_and_do_not_depend_on_their_number(self, make, replace, seed):
        label, modality = two_modalities(seed, least=4)
        arguments = (label, modality, MODALITIES, 4, 4)
        long, short = make(*arguments, 5, seed, replace=replace), make(*arguments, 2, seed, replace=replace)
        assert same(long[: len(short)], short)
        first, second = orders(short)
        assert not np.array_equal(first, second)
        assert not np.array_equal(orders(make(*arguments, 1, seed + 1, replace=replace))[0], first)

    def test_columns_follow_the_given_modalities_and_others_are_left_out(self, make, replace, seed):
        label, modality = two_modalities(seed, least=4)
        extra = np.concatenate([modality, ["tir"] * 9])
        labels = np.concatenate([label, np.full(9, 77)])
        for draw in make(labels, extra, ("nir", "rgb"), 4, 4, 1, seed, replace=replace):
            assert [set(extra[draw.indices[:, m]]) for m in range(2)] == [{"nir"}, {"rgb"}]


class TestLawOfCrossModal:
    """How often identities and images come, of many draws; limits are five standard errors."""

    label = np.concatenate([np.repeat(np.arange(5), [3, 4, 6, 9, 20]), np.repeat(np.arange(5), [12, 3, 3, 5, 4])])
    modality = np.repeat(MODALITIES, [42, 27])

    @pytest.mark.parametrize("make", [samplers.cross_modal, samplers.cross_modal_reference])
    @pytest.mark.parametrize("replace", [True, False])
    def test_identities_are_even_and_so_are_the_images_of_one(self, make, replace):
        rows = np.concatenate(
            [d.indices for d in make(self.label, self.modality, MODALITIES, 2, 3, 250, 0, replace=replace)]
        )
        blocks = len(rows) // 3
        for m in range(2):
            shown = np.bincount(rows[:, m], minlength=len(self.label))
            for identity in range(5):
                own = shown[(self.label == identity) & (self.modality == MODALITIES[m])]
                assert abs(own.sum() / 3 - blocks / 5) < 5 * np.sqrt(blocks / 5 * 4 / 5)
                expected = own.sum() / len(own)
                assert np.all(np.abs(own - expected) < 5 * np.sqrt(expected))

    def test_with_replacement_an_image_repeats_as_often_as_chance_has_it(self):
        plan = samplers.cross_modal(self.label, self.modality, MODALITIES, 2, 2, 400, 0)
        rows = np.concatenate([draw.indices for draw in plan])[:, 0].reshape(-1, 2)
        own = rows[self.label[rows[:, 0]] == 0]
        share = np.mean(own[:, 0] == own[:, 1])
        assert abs(share - 1 / 3) < 5 * np.sqrt(2 / 9 / len(own))


class TestCrossModalReference:
    label, modality = two_modalities(1, least=4)

    def test_epochs_can_be_asked_for_in_any_order(self):
        make = functools.partial(samplers.cross_modal_reference, self.label, self.modality, MODALITIES, 4, 4, 6, 3)
        forwards = orders(make())
        late = make()
        for epoch in (4, 1, 5, 0, 2, 3):
            start, end = late.epoch_ends[epoch - 1] if epoch else 0, late.epoch_ends[epoch]
            drawn = np.concatenate([late[j].indices for j in range(start, end)])
            np.testing.assert_array_equal(drawn, forwards[epoch])

    def test_the_second_batch_takes_the_place_of_the_first(self):
        make = functools.partial(
            samplers.cross_modal_reference, self.label, self.modality, MODALITIES, 4, 4, 3, 3, replace=False
        )
        right, aliased = orders(make()), orders(make(second_batch_twice=True))
        for first, second in zip(right, aliased, strict=True):
            np.testing.assert_array_equal(second[:16], first[16:32])
            np.testing.assert_array_equal(second[16:], first[16:])

    def test_a_single_batch_has_no_second(self):
        label, modality = np.repeat([0, 1, 0, 1], 2), np.repeat(MODALITIES, 4)
        make = functools.partial(samplers.cross_modal_reference, label, modality, MODALITIES, 2, 4, 1, 0)
        assert len(make()) == 1
        assert same(make(), make(second_batch_twice=True))


class TestShuffled:
    def test_every_sample_once_and_the_odd_one_dropped(self):
        plan = samplers.shuffled(11, 2, 3, 0)
        assert plan.epoch_ends.tolist() == [5, 10, 15]
        for order in orders(plan):
            assert len(order) == len(set(order)) == 10
        assert not np.array_equal(*orders(plan)[:2])

    def test_the_dropped_sample_changes(self):
        assert len({(set(range(11)) - set(order)).pop() for order in orders(samplers.shuffled(11, 2, 20, 0))}) > 3

    def test_without_drop_last_the_last_batch_is_shorter(self):
        plan = samplers.shuffled(11, 4, 2, 0, drop_last=False)
        assert [len(draw.indices) for draw in plan] == [4, 4, 3, 4, 4, 3]
        for epoch in (plan[:3], plan[3:]):
            assert sorted(np.concatenate([draw.indices for draw in epoch])) == list(range(11))


class TestSpreadReference:
    camera = np.random.default_rng(2).integers(0, 4, 90)
    plan = samplers.spread_reference(camera, 3, 5, 4, 7)

    def test_batches_hold_equally_many_images_of_distinct_cameras(self):
        for draw in self.plan:
            cameras = self.camera[draw.indices].reshape(3, 5)
            assert np.all(cameras == cameras[:, :1])
            assert len(set(cameras[:, 0].tolist())) == 3

    def test_an_epoch_uses_no_image_twice_and_ends_when_a_camera_runs_out(self):
        for epoch in range(4):
            rows = np.concatenate([draw.indices for draw in self.plan if draw.epoch == epoch])
            assert len(set(rows.tolist())) == len(rows)
            left = np.bincount(np.delete(self.camera, rows), minlength=4)
            before = np.bincount(np.delete(self.camera, rows[:-15]), minlength=4)
            assert left.min() < 5 <= before.min()

    def test_epochs_differ(self):
        assert not np.array_equal(self.plan[0].indices, self.plan[int(self.plan.epoch_ends[0])].indices)


def test_sequential_is_every_sample_in_order():
    plan = samplers.sequential(5, 2)
    assert [draw.indices.tolist() for draw in plan] == [[0, 1], [2, 3], [4]]
    assert plan.epoch_ends.tolist() == [3]


class TestPlan:
    plans = (
        samplers.pk(np.repeat(np.arange(6), 9), 3, 4, 3, 0),
        samplers.pk_reference(np.repeat(np.arange(6), 9), 3, 4, 3, 0),
        samplers.spread_reference(np.arange(54) % 4, 3, 4, 3, 0),
        samplers.cross_modal(*two_modalities(0), MODALITIES, 3, 4, 3, 0),
        samplers.cross_modal_reference(*two_modalities(0), MODALITIES, 3, 4, 3, 0),
        samplers.shuffled(30, 4, 3, 0),
        samplers.sequential(30, 4),
    )

    @pytest.mark.parametrize("plan", plans)
    def test_access_in_any_order_and_after_pickling(self, plan):
        forwards = list(plan)
        copy = pickle.loads(pickle.dumps(plan))
        for step in np.random.default_rng(0).permutation(len(plan)).tolist():
            for drawn in (plan[step], copy[step], copy[step - len(plan)]):
                assert (drawn.step, drawn.epoch) == (step, forwards[step].epoch)
                np.testing.assert_array_equal(drawn.indices, forwards[step].indices)

    @pytest.mark.parametrize("plan", plans)
    def test_ends(self, plan):
        assert len(plan) == plan.epoch_ends[-1] == len(list(plan))
        assert plan.epoch_ends.dtype == np.int64
        with pytest.raises(IndexError):
            plan[len(plan)]
        with pytest.raises(IndexError):
            plan[-len(plan) - 1]

    def test_indices_are_int64(self):
        assert all(plan[0].indices.dtype == np.int64 for plan in self.plans)


LABELS = np.repeat(np.arange(5), 4)
SEEN = np.tile(["rgb", "rgb", "rgb", "nir"], 5)


def across(p=2, k=1, label=LABELS, modality=SEEN, modalities=MODALITIES, **options):
    return samplers.cross_modal(label, modality, modalities, p, k, 1, 0, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: samplers.identities_per_batch(30, 4), "batch 30 is not P x K with K=4; choose a multiple of 4"),
        (lambda: samplers.identities_per_batch(2, 4), "choose a multiple of 4"),
        (lambda: samplers.pk(LABELS, 8, 4, 1, 0), r"P=8 identities cannot be drawn from 5.*at most 5 x K=4 = 20"),
        (lambda: samplers.pk_reference(LABELS, 6, 2, 1, 0), r"P=6 identities cannot be drawn from 5"),
        (lambda: samplers.spread_reference(LABELS, 6, 2, 1, 0), "batch of 6 cameras or sources cannot be drawn from 5"),
        (lambda: samplers.spread_reference(LABELS, 2, 5, 1, 0), "source 0 has 4 images, fewer than the 5 of a batch"),
        (lambda: samplers.spread_reference(LABELS, 2, 0, 1, 0), "both must be positive"),
        (lambda: samplers.pk(LABELS, 0, 4, 1, 0), "both must be positive"),
        (lambda: samplers.pk(LABELS, 2, 4, 0, 0), "number of epochs is 0"),
        (lambda: samplers.pk(LABELS, 2, 4, 1, -1), "seed is -1"),
        (lambda: samplers.pk(LABELS, 2, 4, 1, 0, steps_per_epoch=0), "steps_per_epoch is 0"),
        (lambda: across(p=6, k=4), r"P=6 identities cannot be drawn from 5"),
        (lambda: across(p=0), "both must be positive"),
        (lambda: across(modalities=("rgb", "tir")), "no image has the modality 'tir'; there is nir, rgb"),
        (lambda: across(label=np.arange(20)), "identity 3 has 0 rgb images, but a batch needs at least 1"),
        (lambda: across(k=2, replace=False), "identity 0 has 1 nir images, but a batch needs at least 2.*fewer images"),
        (lambda: samplers.shuffled(3, 4, 1, 0), "3 samples do not fill a batch of 4"),
        (lambda: samplers.shuffled(3, 0, 1, 0), "batch size is 0"),
        (lambda: samplers.sequential(0, 4), "0 samples"),
    ],
)
def test_what_is_impossible_is_said_in_a_sentence(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_identities_per_batch():
    assert samplers.identities_per_batch(32, 4) == 8


class TestUnpaired:
    MODALITY = np.array(["nir"] * 23 + ["rgb"] * 50)

    def plan(self, epochs=4, seed=3, batch=8):
        return samplers.unpaired(self.MODALITY, ("rgb", "nir"), batch, epochs, seed)

    def test_every_column_is_of_its_modality_and_no_image_comes_twice_in_a_batch(self):
        for draw in self.plan(epochs=30):
            assert draw.indices.shape == (8, 2)
            for column, name in enumerate(("rgb", "nir")):
                assert (self.MODALITY[draw.indices[:, column]] == name).all()
                assert len(set(draw.indices[:, column])) == 8

    def test_an_epoch_is_one_pass_over_the_larger_modality_and_even_over_the_smaller(self):
        plan = self.plan()
        assert np.array_equal(np.diff(plan.epoch_ends, prepend=0), [6] * 4)
        for order in orders(plan):
            assert len(set(order[:, 0])) == 48
            counts = np.bincount(order[:, 1], minlength=23)[:23]
            assert set(counts) <= {2, 3}

    def test_a_function_of_seed_and_epoch(self):
        assert same(self.plan(), self.plan(epochs=9)[: len(self.plan())])
        assert not same(self.plan(), self.plan(seed=4))
        first, second, *_ = orders(self.plan())
        assert not np.array_equal(first, second)
        assert same(pickle.loads(pickle.dumps(self.plan())), self.plan())

    def test_a_modality_smaller_than_a_batch_is_refused(self):
        with pytest.raises(UserError, match="23 images have the modality 'nir', fewer than the 24"):
            self.plan(batch=24)
