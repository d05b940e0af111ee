"""Orders of stripes, the Sinkhorn operator, the loss of permutations and their accuracy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmreid_jax.errors import UserError
from mmreid_jax.losses import permutation


def random_orders(stripes, images=16, seed=0):
    ranks = np.random.default_rng(seed).integers(0, math.factorial(stripes), images)
    return permutation.unrank(jnp.asarray(ranks), stripes)


def on_eight_devices(*arrays):
    """The arrays with their leading axis spread over eight devices."""
    assert len(jax.devices()) >= 8
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:8]), ("data",)), PartitionSpec("data"))
    return jax.device_put(arrays, sharding)


@pytest.mark.parametrize("stripes", range(1, 9))
def test_orders_are_unranked_in_lexicographic_order(stripes):
    expected = np.array(list(itertools.permutations(range(stripes))))
    assert len(expected) == permutation.count(stripes)
    ranks = jnp.arange(len(expected))
    orders = jax.jit(permutation.unrank, static_argnums=1)(ranks, stripes)
    assert orders.dtype == jnp.int32
    np.testing.assert_array_equal(orders, expected)
    if stripes <= permutation.LARGEST_TABLE:
        table = permutation.orders(stripes)
        assert table.dtype == np.int32
        np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize("stripes", [9, 12])
def test_long_orders_at_both_ends_and_around_each_change_of_the_first_stripe(stripes):
    last, block = math.factorial(stripes) - 1, math.factorial(stripes - 1)
    ranks = [0, 1, block - 1, block, 2 * block - 1, last - 1, last]
    ascending = list(range(stripes))
    tail = ascending[2:]
    expected = [
        ascending,
        [*ascending[:-2], stripes - 1, stripes - 2],
        [0, *ascending[:0:-1]],
        [1, 0, *tail],
        [1, *tail[::-1], 0],
        [*ascending[:1:-1], 0, 1],
        ascending[::-1],
    ]
    np.testing.assert_array_equal(permutation.unrank(jnp.asarray(ranks), stripes), expected)


def test_numbers_of_stripes_without_orders_are_refused():
    for stripes in (0, permutation.MOST_STRIPES + 1):
        with pytest.raises(UserError, match="choose 1 to 12"):
            permutation.unrank(jnp.zeros(2, int), stripes)
    with pytest.raises(UserError, match="choose 1 to 6"):
        permutation.orders(7)
    with pytest.raises(UserError, match="choose 1 to 12"):
        permutation.assign(jnp.zeros((1, 13, 13)))


@pytest.mark.parametrize("stripes", [2, 6, 9])
def test_matrices_shuffle_and_their_transposes_restore(stripes):
    orders = random_orders(stripes)
    matrices = np.asarray(permutation.matrices(orders))
    pieces = np.random.default_rng(1).normal(size=(len(orders), stripes, 4)).astype(np.float32)
    shuffled = matrices @ pieces
    np.testing.assert_array_equal(shuffled, np.take_along_axis(pieces, np.asarray(orders)[:, :, None], axis=1))
    np.testing.assert_array_equal(matrices.swapaxes(1, 2) @ shuffled, pieces)
    inverse = np.argsort(orders, axis=1)
    np.testing.assert_array_equal(np.take_along_axis(shuffled, inverse[:, :, None], axis=1), pieces)


def sinkhorn_by_loops(logits, iterations, temperature):
    """Row by row and column by column, in plain numbers instead of logarithms."""
    matrix = np.exp(logits / temperature)
    for _ in range(iterations):
        for row in range(len(matrix)):
            matrix[row] /= matrix[row].sum()
        for column in range(len(matrix)):
            matrix[:, column] /= matrix[:, column].sum()
    return matrix


@pytest.mark.parametrize(("iterations", "temperature"), [(0, 1.0), (1, 2.0), (20, 1.0), (20, 0.3)])
def test_sinkhorn_against_loops(iterations, temperature, x64):
    logits = np.random.default_rng(2).normal(size=(2, 3, 5, 5))
    actual = permutation.sinkhorn(jnp.asarray(logits), iterations, temperature)
    expected = [[sinkhorn_by_loops(z, iterations, temperature) for z in several] for several in logits]
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_columns_sum_to_one_and_rows_nearly(x64):
    logits = 2 * np.random.default_rng(3).normal(size=(50, 6, 6))
    matrix = permutation.sinkhorn(jnp.asarray(logits))
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-13)
    rows = np.abs(np.asarray(matrix.sum(axis=2)) - 1).max()
    assert 1e-12 < rows < 0.05
    # A constant on a row or a column changes nothing.
    shifted = logits + np.arange(6.0)[:, None] - 3.0 * np.arange(6.0)
    ends = [permutation.sinkhorn(jnp.asarray(z), 400) for z in (logits, shifted)]
    np.testing.assert_allclose(*ends, rtol=1e-9)
    more = permutation.sinkhorn(jnp.asarray(logits), 60)
    assert np.abs(np.asarray(more.sum(axis=2)) - 1).max() < rows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_extreme_logits_have_finite_values_and_gradients(dtype):
    logits = jnp.asarray(100.0 * np.sign(np.random.default_rng(4).normal(size=(32, 6, 6))), dtype)
    truth = permutation.matrices(random_orders(6, 32))
    loss = lambda z: permutation.permutation_loss(permutation.sinkhorn(z), truth)  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    assert permutation.sinkhorn(logits).dtype == jnp.float32
    assert np.isfinite(value)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_gradients_go_through_every_iteration(x64):
    rng = np.random.default_rng(5)
    logits, weight = rng.normal(size=(2, 4, 4)), rng.normal(size=(2, 4, 4))
    weighed = lambda z: float(jnp.sum(weight * permutation.sinkhorn(jnp.asarray(z), 3)))  # noqa: E731
    gradient = jax.grad(lambda z: jnp.sum(weight * permutation.sinkhorn(z, 3)))(jnp.asarray(logits))
    for place in [(0, 0, 0), (0, 2, 3), (1, 3, 1)]:
        step = np.zeros_like(logits)
        step[place] = 1e-5
        difference = (weighed(logits + step) - weighed(logits - step)) / 2e-5
        np.testing.assert_allclose(gradient[place], difference, rtol=1e-6, atol=1e-9)


def test_confident_logits_become_permutations():
    orders = random_orders(6)
    matrix = permutation.sinkhorn(30 * permutation.matrices(orders))
    np.testing.assert_allclose(matrix, permutation.matrices(orders), atol=1e-6)


@pytest.mark.parametrize("options", [{"iterations": -1}, {"temperature": 0.0}, {"temperature": math.nan}])
def test_sinkhorn_refuses_what_makes_no_sense(options):
    with pytest.raises(UserError, match="temperature above 0"):
        permutation.sinkhorn(jnp.zeros((1, 3, 3)), **options)


@pytest.mark.parametrize("stripes", [2, 6])
def test_uniform_matrices_have_the_loss_of_the_starting_plateau(stripes, x64):
    truth = permutation.matrices(random_orders(stripes), jnp.float64)
    uniform = permutation.sinkhorn(jnp.zeros(truth.shape))
    np.testing.assert_allclose(permutation.permutation_loss(uniform, truth), stripes - 1, rtol=1e-12)
    mean = permutation.permutation_loss(uniform, truth, "mean")
    np.testing.assert_allclose(mean, (stripes - 1) / stripes**2, rtol=1e-12)
    assert float(permutation.permutation_loss(truth, truth)) == 0.0


def test_the_loss_of_samples_is_the_mean_of_their_losses(x64):
    rng = np.random.default_rng(6)
    truth = permutation.matrices(random_orders(4, 5), jnp.float64)
    predicted = jnp.asarray(rng.random((3, 5, 4, 4)))
    for reduction in permutation.REDUCTIONS:
        losses = [permutation.permutation_loss(sample, truth, reduction) for sample in predicted]
        np.testing.assert_allclose(permutation.permutation_loss(predicted, truth, reduction), np.mean(losses))
    with pytest.raises(UserError, match="unknown reduction 'max'"):
        permutation.permutation_loss(predicted, truth, "max")


def test_noise_is_gumbels_and_its_own_in_every_sample(x64):
    logits = jnp.asarray(np.random.default_rng(7).normal(size=(50, 6, 6)))
    found = permutation.noisy(logits, jax.random.key(0), samples=20, noise=2.0)
    assert found.shape == (20, 50, 6, 6)
    noise = (np.asarray(found) - np.asarray(logits)) / 2.0
    np.testing.assert_allclose(noise.mean(), np.euler_gamma, atol=0.03)
    np.testing.assert_allclose(noise.std(), np.pi / np.sqrt(6), atol=0.03)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1
    np.testing.assert_array_equal(permutation.noisy(logits, jax.random.key(0), 2, 0.0), np.stack([logits] * 2))
    for samples, factor in ((0, 1.0), (1, -1.0)):
        with pytest.raises(UserError, match="1 or more samples"):
            permutation.noisy(logits, jax.random.key(0), samples, factor)


def best_by_search(matrix):
    """The first of the best orders in lexicographic order."""
    rows = range(len(matrix))
    return max(itertools.permutations(rows), key=lambda order: sum(matrix[i][order[i]] for i in rows))


@pytest.mark.parametrize("stripes", [1, 2, 3, 6, 7])
def test_assignment_against_a_search_of_all_orders(stripes, x64):
    # Quarters add without rounding, so ties are ties: many in small matrices of few values.
    matrices = np.random.default_rng(8).integers(0, 4, (8, stripes, stripes)) / 4
    assign = jax.jit(permutation.assign)
    found = assign(jnp.asarray(matrices))
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, [best_by_search(matrix) for matrix in matrices])
    drawn = np.random.default_rng(9).normal(size=matrices.shape)
    np.testing.assert_array_equal(assign(jnp.asarray(drawn)), [best_by_search(matrix) for matrix in drawn])


@pytest.mark.parametrize("stripes", [8, 12])
def test_assignment_of_many_stripes(stripes):
    orders = random_orders(stripes, 6)
    noise = 0.4 * np.random.default_rng(10).random((6, stripes, stripes))
    found = jax.jit(permutation.assign)(permutation.matrices(orders) + noise)
    np.testing.assert_array_equal(found, orders)


@pytest.mark.parametrize("stripes", [3, 6])
def test_of_equal_assignments_that_of_lowest_rank_is_taken(stripes):
    uniform = jnp.full((2, stripes, stripes), 1 / stripes)
    found = jax.jit(permutation.assign)(uniform)
    np.testing.assert_array_equal(found, np.tile(np.arange(stripes), (2, 1)))


def test_accuracies_by_hand(x64):
    orders = jnp.asarray([[0, 1, 2], [0, 1, 2], [2, 0, 1]])
    predicted = jnp.asarray(
        [
            # The first two rows want stripe 0; together they are right all the same.
            [[0.9, 0.1, 0.0], [0.5, 0.4, 0.0], [0.0, 0.0, 1.0]],
            [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
            # A row whose elements are equal points to its first.
            [[0.2, 0.2, 0.9], [0.3, 0.3, 0.3], [0.3, 0.6, 0.2]],
        ]
    )
    found = permutation.accuracies(predicted, orders)
    np.testing.assert_allclose(found["exact"], [1, 0, 1])
    np.testing.assert_allclose(found["stripe"], [1, 1 / 3, 1])
    np.testing.assert_allclose(found["row"], [2 / 3, 1 / 3, 1])


@pytest.mark.slow(short=True)
def test_eight_devices_are_one_device(x64):
    rng = np.random.default_rng(11)
    orders = random_orders(6, 16)
    truth, logits = permutation.matrices(orders, jnp.float64), jnp.asarray(rng.normal(size=(16, 6, 6)))

    def objective(logits, truth, orders):
        predicted = permutation.sinkhorn(logits)
        return permutation.permutation_loss(predicted, truth), permutation.accuracies(predicted, orders)

    run = jax.value_and_grad(objective, has_aux=True)
    plain = run(logits, truth, orders)
    spread = jax.jit(run)(*on_eight_devices(logits, truth, orders))
    for one, eight in zip(jax.tree.leaves(plain), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(one, eight, rtol=1e-12, atol=1e-15)
