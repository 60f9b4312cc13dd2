"""Joint draws within bounds: their distribution against brute force, for likely regions, unlikely ones and singular covariances."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest, norm, truncnorm

from dask_em.imputation import truncated_draws
from dask_em.imputation.truncated_draws import N_PROPOSALS, draw_joint
from dask_em.imputation.truncated_joint import joint_mass_and_means

INF = np.inf
Random = Callable[[int, np.ndarray], np.ndarray]


def keyed(m: int, keys: np.ndarray, seed: int = 0, seen: list[int] | None = None) -> Random:
    """Uniforms that depend on the purpose and a row's key."""

    def random(purpose: int, rows: np.ndarray) -> np.ndarray:
        if seen is not None:
            seen.append(purpose)
        return np.random.default_rng([seed, purpose]).random((keys.max() + 1, m))[keys[rows]].T

    return random


def draws_of(mean, C, lower, upper, n: int, seen: list[int] | None = None) -> np.ndarray:
    means = np.repeat(np.asarray(mean, dtype=float)[:, None], n, axis=1)
    draws = draw_joint(means, C, lower, upper, keyed(len(means), np.arange(n), seen=seen))
    assert np.all(draws >= np.asarray(lower)[:, None])
    assert np.all(draws <= np.asarray(upper)[:, None])
    # Clipped draws would lie on the bounds.
    assert np.mean((draws == np.asarray(lower)[:, None]) | (draws == np.asarray(upper)[:, None])) < 1e-4
    return draws


def alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Margins, sums and differences by Kolmogorov and Smirnov, and correlations, at a fixed seed."""
    assert all(ks_2samp(a, b).pvalue > 0.002 for a, b in zip(ours, theirs))
    assert all(ks_2samp(a - ours[0], b - theirs[0]).pvalue > 0.002 for a, b in zip(ours[1:], theirs[1:]))
    assert ks_2samp(ours.sum(axis=0), theirs.sum(axis=0)).pvalue > 0.002
    error = np.sqrt(1 / ours.shape[1] + 1 / theirs.shape[1])
    assert np.abs(np.corrcoef(ours) - np.corrcoef(theirs)).max() < 4 * error


def rejection(mean: np.ndarray, C: np.ndarray, lower: np.ndarray, upper: np.ndarray, n: int) -> np.ndarray:
    draws = np.random.default_rng(99).multivariate_normal(mean, C, size=n, method="cholesky").T
    return draws[:, np.all((draws >= lower[:, None]) & (draws <= upper[:, None]), axis=0)]


C3 = np.array([[1.0, 0.6, -0.3], [0.6, 2.0, 0.5], [-0.3, 0.5, 1.5]])
MEAN = np.array([0.3, -0.5, 1.0])
LOWER, UPPER = np.array([0.0, -1.0, -INF]), np.array([1.5, INF, INF])


def test_mild_bounds_are_met_by_rejection() -> None:
    seen: list[int] = []
    alike(draws_of(MEAN, C3, LOWER, UPPER, 20_000, seen), rejection(MEAN, C3, LOWER, UPPER, 200_000))
    assert max(seen) < N_PROPOSALS


def test_gibbs_has_the_distribution_of_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same region without any proposals."""
    monkeypatch.setattr(truncated_draws, "N_PROPOSALS", 0)
    alike(draws_of(MEAN, C3, LOWER, UPPER, 20_000), rejection(MEAN, C3, LOWER, UPPER, 200_000))


@pytest.mark.parametrize("correlation", [0.6, 0.95, 0.9999, 0.0])
def test_both_cells_beyond_four_sd(correlation: float) -> None:
    """By brute force: the first cell from its tail, the rest given it, until the second is in its tail too."""
    C = np.array([[1.0, correlation, 0.4], [correlation, 1.0, 0.4], [0.4, 0.4, 1.0]])
    seen: list[int] = []
    ours = draws_of(np.zeros(3), C, [4.0, 4.5, -INF], [INF, INF, INF], 6_000, seen)
    assert max(seen) > N_PROPOSALS
    rng = np.random.default_rng(3)
    first = truncnorm.rvs(4.0, INF, size=3_000_000 if correlation else 10_000, random_state=rng)
    rest = np.sqrt(1 - correlation**2)
    second = correlation * first + rest * rng.standard_normal(len(first))
    if correlation == 0.0:
        second = truncnorm.rvs(4.5, INF, size=len(first), random_state=rng)
    kept = second >= 4.5
    pair = np.stack([first[kept], second[kept]])[:, :60_000]
    weights = np.linalg.solve(C[:2, :2], C[:2, 2])
    third = weights @ pair + np.sqrt(1 - weights @ C[:2, 2]) * rng.standard_normal(pair.shape[1])
    assert pair.shape[1] > 5_000
    alike(ours, np.vstack([pair, third]))


def test_forty_sd_out_is_drawn_as_well() -> None:
    """Beyond both corners the density falls as exp(-C⁻¹ corner · distance), to a relative 1/40²."""
    C = np.array([[1.0, 0.4], [0.4, 1.0]])
    ours = draws_of(np.zeros(2), C, [40.0, -INF], [INF, -40.0], 4_000)
    slopes = np.linalg.solve(C, [40.0, -40.0])
    distance = (ours - [[40.0], [-40.0]]) * np.sign(slopes)[:, None]
    np.testing.assert_allclose(distance.mean(axis=1), 1 / np.abs(slopes), rtol=0.06)
    assert kstest(distance[0] * abs(slopes[0]), "expon").pvalue > 0.002


def test_narrow_bounds_across_a_correlation_mix() -> None:
    """A second cell held within a thousandth ties the factors together: moves along the cells are what mixes."""
    C = np.array([[1.0, 0.9], [0.9, 1.0]])
    ours = draws_of(np.zeros(2), C, [1.0, 3.0], [2.0, 3.001], 4_000)
    low, high = (np.array([1.0, 2.0]) - 2.7) / np.sqrt(0.19)
    assert kstest(ours[0], truncnorm(low, high, loc=2.70045, scale=np.sqrt(0.19)).cdf).pvalue > 0.002
    assert abs(ours[1].mean() - 3.0005) < 4 * 0.001 / np.sqrt(12 * 4_000)


def test_one_bounded_cell_is_drawn_at_once_and_exactly() -> None:
    seen: list[int] = []
    ours = draws_of(np.zeros(3), C3, [5.0, -INF, -INF], [INF, INF, INF], 10_000, seen)
    assert seen == [N_PROPOSALS]
    assert kstest(ours[0], truncnorm(5.0, INF).cdf).pvalue > 0.002
    residual = (ours[1] - 0.6 * ours[0]) / np.sqrt(2.0 - 0.36)
    assert kstest(residual, norm.cdf).pvalue > 0.002


def test_the_mean_of_draws_is_the_expected_value() -> None:
    lower, upper = np.array([2.5, 2.0, -INF]), np.array([INF, 2.4, -1.0])
    ours = draws_of(MEAN, C3, lower, upper, 8_000)
    expected = joint_mass_and_means(MEAN[:, None], C3, lower, upper, n_points=4096).expected[:, 0]
    assert np.all(np.abs(ours.mean(axis=1) - expected) < 4 * ours.std(axis=1) / np.sqrt(8_000))


def test_a_total_is_the_sum_of_its_parts_within_all_their_bounds() -> None:
    parts = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    lower, upper = np.array([0.0, 0.0, 8.0]), np.array([5.0, 5.0, 9.0])
    ours = draws_of(np.zeros(3), parts @ parts.T, lower, upper, 4_000)
    np.testing.assert_allclose(ours[0] + ours[1], ours[2], rtol=1e-12)
    expected = joint_mass_and_means(np.zeros((3, 1)), parts @ parts.T, lower, upper, n_points=8192).expected[:, 0]
    np.testing.assert_allclose(ours.mean(axis=1), expected, atol=0.04)


def test_a_cell_without_variance_is_its_mean_or_the_nearest_bound() -> None:
    C = np.zeros((3, 3))
    C[1:, 1:] = [[1.0, 0.5], [0.5, 1.0]]
    means = np.array([[0.5, 3.0, -2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    draws = draw_joint(means, C, [0.0, 0.0, 0.0], [1.0, INF, INF], keyed(3, np.arange(3)))
    np.testing.assert_array_equal(draws[0], [0.5, 1.0, 0.0])
    assert np.all(draws[1:] >= 0)
    assert len(np.unique(draws[1:])) == 6


def test_cells_that_determine_each_other_stay_equal() -> None:
    ours = draws_of(np.zeros(2), np.ones((2, 2)), [0.5, -INF], [INF, 1.0], 5_000)
    np.testing.assert_allclose(ours[0], ours[1], rtol=1e-15)
    assert kstest(ours[0], truncnorm(0.5, 1.0).cdf).pvalue > 0.002


def test_a_draw_depends_on_its_own_row_only() -> None:
    """Alone, in another order, in another batch: the same bits; with rows that rejection, Gibbs and neither draws."""
    rng = np.random.default_rng(0)
    n = 60
    means = rng.normal(size=(3, n)) * 4
    lower = np.where(rng.random((3, n)) < 0.4, -INF, 0.0)
    upper = np.where(rng.random((3, n)) < 0.4, INF, 3.0)

    def drawn(keys: np.ndarray) -> np.ndarray:
        return draw_joint(means[:, keys], C3, lower[:, keys], upper[:, keys], keyed(3, keys))

    whole = drawn(np.arange(n))
    assert np.array_equal(whole, np.concatenate([drawn(np.array([i])) for i in range(n)], axis=1))
    order = rng.permutation(n)
    assert np.array_equal(whole[:, order], drawn(order))
    assert draw_joint(np.empty((3, 0)), C3, LOWER, UPPER, keyed(3, np.arange(1))).shape == (3, 0)
