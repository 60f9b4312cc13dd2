"""Mass and means of several bounded cells: against SciPy's distribution function and draws by brute force, bit for bit by row."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import multivariate_normal

from dask_em.errors import ConfigurationError
from dask_em.imputation.truncated import truncated_exp_mean, truncated_moments
from dask_em.imputation.truncated_joint import JointMeans, joint_mass_and_means, lattice

INF = np.inf


def correlated(m: int, seed: int = 0) -> np.ndarray:
    """A covariance with a factor that all cells share."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(m, m + 1))
    return loadings @ loadings.T


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_mass_is_the_distribution_function_of_scipy(m: int) -> None:
    rng = np.random.default_rng(m)
    for seed in range(6):
        C = correlated(m, seed)
        sd = np.sqrt(np.diag(C))
        means = rng.normal(size=(m, 3)) * sd[:, None]
        lower = np.where(rng.random(m) < 0.4, -INF, -0.7 * sd)
        upper = np.where(rng.random(m) < 0.4, INF, 1.2 * sd)
        ours = joint_mass_and_means(means, C, lower, upper)
        for row in range(3):
            theirs = multivariate_normal.cdf(
                upper, means[:, row], C, lower_limit=lower, maxpts=200_000, abseps=1e-9, releps=1e-6
            )
            assert np.exp(ours.log_mass[row]) == pytest.approx(theirs, rel=1e-3)


BOX = {
    "two of four": ([-1.0, -INF, 0.5, -INF], [1.0, INF, INF, INF]),
    "three of four": ([-0.5, 0.0, -INF, -INF], [INF, 2.0, INF, 1.0]),
    "one of four": ([-INF, 0.5, -INF, -INF], [INF, 1.5, INF, INF]),
    "none": ([-INF] * 4, [INF] * 4),
}


@pytest.mark.parametrize("box", BOX)
@pytest.mark.parametrize(
    "function", [np.exp, np.expm1, np.sinh, expit, np.square, np.arctan], ids=lambda function: function.__name__
)
def test_means_are_those_of_a_million_draws(box: str, function) -> None:
    lower, upper = (np.array(side) for side in BOX[box])
    C = 0.15 * correlated(4, 7)
    mean = np.array([0.2, -0.3, 0.1, 0.4])
    ours = joint_mass_and_means(mean[:, None], C, lower, upper, [None, function, function, function])
    draws = np.random.default_rng(5).multivariate_normal(mean, C, size=1_000_000, method="cholesky").T
    kept = draws[:, np.all((draws >= lower[:, None]) & (draws <= upper[:, None]), axis=0)]
    n = kept.shape[1]
    share = n / 1_000_000
    assert np.exp(ours.log_mass[0]) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 1e6) + 1e-12)
    # 3.5 standard errors of the draws, and the accuracy stated for the points.
    close = 3.5 * kept.std(axis=1) / np.sqrt(n) + 2e-4 * kept.std(axis=1)
    assert np.all(np.abs(ours.expected[:, 0] - kept.mean(axis=1)) < close)
    values = function(kept[1:])
    close = 3.5 * values.std(axis=1) / np.sqrt(n) + 1e-3 * values.std(axis=1)
    assert np.all(np.abs(ours.transformed[1:, 0] - values.mean(axis=1)) < close)
    assert ours.transformed[0, 0] == ours.expected[0, 0]


def test_one_bounded_cell_is_exact_and_the_others_follow_by_regression() -> None:
    C = correlated(3, 2)
    means = np.random.default_rng(1).normal(size=(3, 20)) * 3
    lower, upper = np.array([-INF, 0.3, -INF]), np.array([INF, 1.1, INF])
    ours = joint_mass_and_means(means, C, lower, upper, [np.exp, np.exp, None])
    log_mass, bounded = truncated_moments(means[1], np.sqrt(C[1, 1]), 0.3, 1.1)
    np.testing.assert_allclose(ours.log_mass, log_mass, rtol=1e-12)
    np.testing.assert_allclose(ours.expected[1], bounded, rtol=1e-12)
    slope = C[[0, 2], 1] / C[1, 1]
    np.testing.assert_allclose(ours.expected[[0, 2]], means[[0, 2]] + slope[:, None] * (bounded - means[1]), rtol=1e-10)
    np.testing.assert_allclose(
        ours.transformed[1], truncated_exp_mean(means[1], np.sqrt(C[1, 1]), 0.3, 1.1), rtol=1e-10
    )
    # exp of the unbounded cell: given x_1 it is lognormal, so exp(slope x_1) is what is left to average.
    spare = C[0, 0] - slope[0] * C[0, 1]
    side = np.sort(slope[0] * np.array([0.3, 1.1]))
    inner = truncated_exp_mean(slope[0] * means[1], abs(slope[0]) * np.sqrt(C[1, 1]), *side)
    by_hand = np.exp(means[0] - slope[0] * means[1] + 0.5 * spare) * inner
    np.testing.assert_allclose(ours.transformed[0], by_hand, rtol=1e-9)


def test_independent_cells_are_the_product_even_far_out() -> None:
    means = np.array([[0.0, 1.0], [2.0, -1.0], [0.0, 5.0]])
    sd = np.array([1.0, 2.0, 0.5])
    lower, upper = np.array([41.0, -INF, 3.0]), np.array([INF, -90.0, 3.1])
    ours = joint_mass_and_means(means, np.diag(sd**2), lower, upper)
    log_mass, expected = truncated_moments(means, sd[:, None], lower[:, None], upper[:, None])
    np.testing.assert_allclose(ours.log_mass, log_mass.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ours.expected, expected, rtol=1e-5)


def test_more_points_are_more_accurate() -> None:
    C, means = correlated(3, 3), np.zeros((3, 1))
    box = np.zeros(3), np.full(3, INF)
    exact = 1 / 8 + sum(np.arcsin(C[i, j] / np.sqrt(C[i, i] * C[j, j])) for i, j in ((0, 1), (0, 2), (1, 2))) / (
        4 * np.pi
    )
    error = {
        n: abs(np.exp(joint_mass_and_means(means, C, *box, n_points=n).log_mass[0]) / exact - 1) for n in (64, 16384)
    }
    assert error[16384] < 0.1 * error[64]
    assert error[16384] < 1e-5


def test_determined_cells_limit_what_determines_them() -> None:
    """Both cells are the same number: what is left is the intersection of their bounds; and a total has its parts' bounds as well."""
    same = joint_mass_and_means(np.zeros((2, 1)), np.ones((2, 2)), [0.0, -1.0], [INF, 1.0], [np.exp, None])
    log_mass, expected = truncated_moments(0.0, 1.0, 0.0, 1.0)
    assert same.log_mass[0] == pytest.approx(log_mass, rel=1e-12)
    np.testing.assert_allclose(same.expected[:, 0], expected, rtol=1e-12)
    assert same.transformed[0, 0] == pytest.approx(truncated_exp_mean(0.0, 1.0, 0.0, 1.0))

    parts = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    total = joint_mass_and_means(np.zeros((3, 1)), parts @ parts.T, [-1.0, -1.0, 0.5], [1.0, 1.0, INF], n_points=4096)
    draws = parts @ np.random.default_rng(0).standard_normal((2, 1_000_000))
    kept = draws[:, np.all((draws >= [[-1.0], [-1.0], [0.5]]) & (draws <= [[1.0], [1.0], [INF]]), axis=0)]
    assert np.exp(total.log_mass[0]) == pytest.approx(kept.shape[1] / 1e6, rel=5e-3)
    np.testing.assert_allclose(total.expected[:, 0], kept.mean(axis=1), atol=4e-3)


def test_rounding_in_a_singular_covariance_is_not_read_as_a_bound() -> None:
    """A third cell is a multiple of the first; its coefficient on the second's factor is 0 but for rounding."""
    for seed in range(20):
        a, b, c = np.random.default_rng(seed).normal(size=3)
        rows = np.array([[a, 0.0], [b, c], [a / 3, 0.0]])
        C = rows @ rows.T * (1 / 7)
        sd = np.sqrt(np.diag(C))
        C[0, 1] = C[1, 0] = C[0, 1] * (1 + 2e-16)
        C[1, 2] = C[2, 1] = C[1, 2] * (1 - 4e-16)
        with_copy = joint_mass_and_means(np.zeros((3, 1)), C, [-0.3 * sd[0], -sd[1], -INF], [INF, sd[1], 0.5 * sd[2]])
        without = joint_mass_and_means(np.zeros((2, 1)), C[:2, :2], sd[:2] * [-0.3, -1.0], sd[:2] * [0.5, 1.0])
        np.testing.assert_allclose(with_copy.log_mass, without.log_mass, rtol=1e-4)
        np.testing.assert_allclose(with_copy.expected[:2], without.expected, atol=1e-4)


def test_a_cell_without_variance_is_a_point() -> None:
    C = np.diag([0.0, 1.0])
    means = np.array([[3.0, 0.5], [0.0, 0.0]])
    ours = joint_mass_and_means(means, C, [0.0, -INF], [1.0, 0.0], [np.exp, None])
    np.testing.assert_allclose(ours.log_mass, [-INF, np.log(0.5)])
    np.testing.assert_allclose(ours.expected, [[1.0, 0.5], [-np.sqrt(2 / np.pi)] * 2])
    np.testing.assert_allclose(ours.transformed[0], np.exp([1.0, 0.5]))


def test_bounds_that_contradict_each_other_have_no_mass_and_no_nan() -> None:
    ours = joint_mass_and_means(np.zeros((2, 1)), np.ones((2, 2)), [1.0, -INF], [INF, 0.0], [np.exp, np.arctan])
    assert ours.log_mass[0] == -INF
    assert np.isfinite(ours.expected).all()
    assert np.isfinite(ours.transformed).all()


def test_a_row_has_its_bits_whatever_stands_beside_it() -> None:
    """Rows with their own bounds, some cells bounded in some rows only; also where the batch is longer than a block."""
    rng = np.random.default_rng(0)
    m, n = 4, 133
    C, means = correlated(m, 4), rng.normal(size=(m, n)) * 3
    lower = np.where(rng.random((m, n)) < 0.5, -INF, means - rng.random((m, n)) * 4 + 1)
    upper = np.where(rng.random((m, n)) < 0.5, INF, np.maximum(lower, means) + rng.random((m, n)) * 3)
    functions = [np.exp, expit, None, np.sinh]

    def everything(rows: np.ndarray, **options: int) -> np.ndarray:
        found = joint_mass_and_means(means[:, rows], C, lower[:, rows], upper[:, rows], functions, **options)
        return np.concatenate([found.log_mass[None], found.expected, found.transformed])

    whole = everything(np.arange(n))
    assert np.isfinite(whole).all()
    assert np.array_equal(whole, np.concatenate([everything(np.array([i])) for i in range(n)], axis=1))
    order = rng.permutation(n)
    assert np.array_equal(whole[:, order], everything(order))
    many = everything(np.arange(n), n_points=16384)
    assert np.array_equal(many[:, 100:], everything(np.arange(100, n), n_points=16384))
    # Bounds for all rows are the same as those bounds in every row.
    shared = joint_mass_and_means(means, C, lower[:, 5], upper[:, 5], functions)
    tiled = joint_mass_and_means(means, C, *(np.repeat(x[:, 5:6], n, axis=1) for x in (lower, upper)), functions)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(shared, tiled))


def test_no_rows_and_points_that_are_no_power_of_two() -> None:
    none = joint_mass_and_means(np.empty((2, 0)), np.eye(2), [0, 0], [1, 1])
    assert isinstance(none, JointMeans)
    assert [part.shape for part in none] == [(0,), (2, 0), (2, 0)]
    with pytest.raises(ConfigurationError, match="power of two"):
        joint_mass_and_means(np.zeros((1, 1)), np.eye(1), [0], [1], n_points=100)


@pytest.mark.parametrize("n_points", [64, 256, 2048])
def test_the_lattice_is_even_in_every_coordinate_and_pair(n_points: int) -> None:
    points = lattice(4, n_points)
    assert points.min() > 0
    assert points.max() < 1
    np.testing.assert_allclose(np.sort(points, axis=1), [(np.arange(n_points) + 0.5) / n_points] * 4, atol=1e-12)
    centred = points - 0.5
    assert np.abs(centred @ centred.T / n_points - np.eye(4) / 12).max() < 20 / n_points / 12
    assert np.array_equal(lattice(2, n_points), points[:2])
