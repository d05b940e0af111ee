import jax
import numpy as np
import pytest

from mmreid_jax.errors import UserError
from mmreid_jax.training import schedules
from mmreid_jax.training.schedules import Schedule


def test_htt_example_rates_of_the_specification():
    weights = schedules.table(Schedule("htt", warmup_epochs=5), 0.001, 6)
    biases = schedules.table(Schedule("htt", warmup_epochs=5), 0.001, 6, factor=2.0)
    np.testing.assert_allclose(weights, [2.08e-4, 4.06e-4, 6.04e-4, 8.02e-4, 6.885e-5, 2e-6], rtol=1e-4)
    np.testing.assert_allclose(biases, [4.08e-4, 8.06e-4, 1.204e-3, 1.602e-3, 1.358e-4, 2e-6], rtol=1e-3)


def test_htt_shorter_than_its_warm_up_never_leaves_it():
    rates = schedules.table(Schedule("htt", warmup_epochs=5), 1.0, 4)
    np.testing.assert_allclose(np.diff(rates), 0.99 / 5)


def test_htt_period_longer_than_the_run_cuts_the_cosine():
    long = schedules.table(Schedule("htt", warmup_epochs=5), 1.0, 80)
    short = schedules.table(Schedule("htt", warmup_epochs=5, period=80), 1.0, 10)
    np.testing.assert_array_equal(short, long[:10])


def test_shared_ends_of_the_specification():
    """DeMo on RGBNT201: new weights, new biases and the transformer, which warms down."""
    schedule = Schedule("shared_ends", warmup_epochs=10, warmup_start=0.1, minimum=0.001, noise=0.67)
    epochs = np.array([1, 5, 9, 10, 20, 49, 50])
    expected = {
        1.0: [2.33813e-5, 3.03318e-4, 4.17474e-4, 2.70531e-4, 2.87652e-4, 7.40812e-7, 3.5e-7],
        2.0: [3.56873e-5, 5.79062e-4, 8.30360e-4, 5.41033e-4, 5.75151e-4, 1.10891e-6, 3.5e-7],
        1 / 70: [1.12512e-5, 3.15136e-5, 1.04860e-5, 3.89287e-6, 4.25890e-6, 3.77973e-7, 3.5e-7],
    }
    for factor, rates in expected.items():
        found = schedules.table(schedule, 3.5e-4, 50, factor)[epochs - 1]
        np.testing.assert_allclose(found, rates, rtol=1e-5)


def test_noises_are_small_and_depend_on_their_epoch_alone():
    drawn = schedules.noises(range(200), limit=0.5, seed=7)
    assert np.abs(drawn).max() < 0.5
    np.testing.assert_array_equal(schedules.noises([150, 3], limit=0.5, seed=7), drawn[[150, 3]])
    # Of a normal number that is smaller than a half.
    assert abs(drawn.mean()) < 0.06
    assert drawn.std() == pytest.approx(0.28, abs=0.03)


def test_multi_step_with_ramp():
    schedule = Schedule("multi_step", warmup_epochs=10, milestones=(20, 50))
    rates = schedules.table(schedule, 0.1, 81)
    expected = [0.01 * (e + 1) if e < 10 else 0.1 if e < 20 else 0.01 if e < 50 else 0.001 for e in range(81)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_multi_step_with_start_share():
    rates = schedules.table(Schedule("multi_step", warmup_epochs=10, warmup_start=0.01, milestones=(40,)), 1.0, 45)
    expected = [0.01 * (1 - e / 10) + e / 10 if e < 10 else 1.0 if e < 40 else 0.1 for e in range(45)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_single_step_falls_every_last_milestone():
    rates = schedules.table(Schedule("single_step", milestones=(3, 4), gamma=0.5), 1.0, 10)
    np.testing.assert_allclose(rates, [1] * 4 + [0.5] * 4 + [0.25] * 2)


def test_cosine_is_not_shifted_by_the_warm_up():
    rates = schedules.table(Schedule("cosine", warmup_epochs=10), 0.1, 100)
    expected = [0.01 * (e + 1) if e < 10 else 0.05 * (1 + np.cos(np.pi * e / 100)) for e in range(100)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_cosine_ends_at_its_minimum_and_stays():
    rates = schedules.table(Schedule("cosine", minimum=0.1, period=4), 2.0, 7)
    np.testing.assert_allclose(rates[[0, 2, 4, 5, 6]], [2.0, 1.1, 0.2, 0.2, 0.2])


def test_factor_is_a_product_except_for_htt():
    for name in ("constant", "multi_step", "cosine"):
        schedule = Schedule(name, warmup_epochs=3, milestones=(4,))
        np.testing.assert_allclose(
            schedules.table(schedule, 0.5, 9, factor=0.1), 0.1 * schedules.table(schedule, 0.5, 9), rtol=1e-12
        )
    last = [schedules.table(Schedule("htt"), 0.5, 9, factor=factor)[-1] for factor in (1.0, 2.0)]
    assert last[0] == last[1]


def test_by_epoch_with_epochs_of_different_length():
    schedule = jax.jit(schedules.by_epoch(np.array([1.0, 2.0, 3.0]), np.array([2, 3, 7])))
    got = [float(schedule(step)) for step in range(10)]
    assert got == [1, 1, 2, 3, 3, 3, 3, 3, 3, 3]


def test_by_epoch_takes_the_value_after_the_last_epoch():
    schedule = schedules.by_epoch(np.array([1.0, 2.0, 9.0]), np.array([2, 3]))
    np.testing.assert_array_equal(schedule(np.array([1, 2, 3, 50])), [1, 2, 9, 9])


def test_by_epoch_skips_an_empty_epoch():
    schedule = schedules.by_epoch(np.array([1.0, 2.0, 3.0]), np.array([2, 2, 4]))
    np.testing.assert_array_equal(schedule(np.arange(4)), [1, 1, 3, 3])


def test_by_epoch_refuses_too_few_values_and_decreasing_ends():
    with pytest.raises(ValueError, match="1 values for 2 epochs"):
        schedules.by_epoch(np.ones(1), np.array([2, 3]))
    with pytest.raises(ValueError, match="decrease"):
        schedules.by_epoch(np.ones(2), np.array([3, 2]))


def test_float64_rates_are_exact_under_x64():
    values = np.array([0.1, 0.008 * 0.3])
    with jax.enable_x64(True):
        got = jax.jit(schedules.by_epoch(values, np.array([1, 2])))(np.arange(2))
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, values)


def test_cosine_per_step():
    schedule = jax.jit(schedules.cosine_per_step(2.0, steps=20, warmup_steps=4, minimum=0.1))
    got = np.array([schedule(step) for step in range(24)])
    np.testing.assert_allclose(got[:5], [0.5, 1.0, 1.5, 2.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(got[12], 1.1, rtol=1e-6)
    np.testing.assert_allclose(got[20:], 0.2, rtol=1e-5)
    assert np.all(np.diff(got[4:21]) < 0)


def test_make_counts_the_warm_up_of_a_per_step_cosine_in_epochs():
    ends = np.array([3, 8, 10])
    got = schedules.make(Schedule("cosine_per_step", warmup_epochs=2), 1.0, ends, factor=0.5)(np.arange(10))
    np.testing.assert_allclose(got, schedules.cosine_per_step(0.5, 10, 8)(np.arange(10)))


def test_warm_up_longer_than_the_run_is_one_sentence():
    with pytest.raises(UserError, match="warm-up takes 10 of 10 steps"):
        schedules.make(Schedule("cosine_per_step", warmup_epochs=5), 1.0, np.array([5, 10]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cosin"}, "unknown schedule 'cosin'; available: constant"),
        ({"name": "htt", "warmup_epochs": -1}, "warmup_epochs is -1"),
        ({"name": "multi_step", "milestones": (50, 20)}, "ascending"),
        ({"name": "single_step"}, "must end with 1 or more"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        Schedule(**options)


def test_a_schedule_per_step_has_no_table():
    with pytest.raises(UserError, match="every step"):
        schedules.table(Schedule("cosine_per_step"), 1.0, 3)
