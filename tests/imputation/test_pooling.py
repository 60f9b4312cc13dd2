"""Rubin's rules: known numbers, intervals and tests that keep their promise, limits, and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dask_em.errors import ConfigurationError, DataError
from dask_em.imputation.pooling import Pooled, n_replicates_needed, pool

Q = (1.0, 1.2, 0.9, 1.1, 1.05)
U = (0.04, 0.05, 0.045, 0.042, 0.048)

seeds = st.integers(0, 2**32 - 1)


def replicates(seed: int, m: int = 6, p: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Estimates (m, p) and covariance matrices (m, p, p) of m made-up fits."""
    rng = np.random.default_rng(seed)
    roots = np.eye(p) + 0.3 * rng.standard_normal((m, p, p))
    return rng.standard_normal((m, p)), roots @ np.swapaxes(roots, 1, 2) + 0.1 * np.eye(p)


def with_r(r: float, p: int, m: int, complete_df: float) -> Pooled:
    """A pooled vector whose relative increase in variance is r in every direction."""
    within, between = np.eye(p), r / (1 + 1 / m) * np.eye(p)
    blank = np.full(p, np.nan)
    return Pooled(m, np.ones(p), within, between, (1 + r) * within, blank, blank, blank, complete_df=complete_df)


# --- numbers ------------------------------------------------------------------------------------------------------


def test_the_numbers_of_rubin() -> None:
    pooled = pool(Q, U)
    found = (pooled.estimate, pooled.within, pooled.between, pooled.total, pooled.r, pooled.df, pooled.fmi)
    assert found == pytest.approx((1.05, 0.045, 0.0125, 0.06, 1 / 3, 64.0, 0.2723880597), abs=1e-8)
    assert pooled.m == 5
    assert pooled.standard_error == pytest.approx(0.06**0.5, abs=1e-12)


def test_the_numbers_of_barnard_and_rubin() -> None:
    pooled = pool(Q, U, n=100, k=1)
    assert pooled.df == pytest.approx(34.0571920, abs=1e-7)
    assert pooled.fmi == pytest.approx(0.2904779725, abs=1e-8)
    # One parameter is the default; a table without end gives Rubin's numbers.
    assert pool(Q, U, n=100).df == pooled.df
    assert pool(Q, U, n=np.inf).df == pytest.approx(64, abs=1e-8)
    assert pool(Q, U, n=1e12).df == pytest.approx(64, abs=1e-6)
    assert pool(Q, U, n=100, k=20).df < pooled.df


def test_an_interval_has_the_quantiles_of_t() -> None:
    pooled = pool(Q, U, n=100)
    low, high = pooled.interval(0.9)
    assert (low + high) / 2 == pytest.approx(1.05)
    assert stats.t.cdf((high - 1.05) / pooled.standard_error, pooled.df) == pytest.approx(0.95)
    assert pooled.interval() == pooled.interval(0.95)


@pytest.mark.parametrize(
    ("r", "p", "m", "complete_df", "df2"),
    [
        # Li, Raghunathan and Rubin (1991), by hand: t = 8 is above 4, t = 4 is not.
        (0.5, 2, 5, np.inf, 4 + 4 * (1 + 0.75 / 0.5) ** 2),
        (0.5, 2, 3, np.inf, 4 * 1.5 * 9 / 2),
        # Reiter (2007), equations 1 and 2, evaluated term by term elsewhere.
        (0.3, 3, 5, 50, 31.398101038987413),
        (0.8, 2, 20, 99, 56.06498230848219),
        (0.5, 5, 2, 60, 6.916497651223507),
        (1.5, 4, 10, 300, 63.638246610022684),
    ],
)
def test_the_degrees_of_freedom_of_d1(r: float, p: int, m: int, complete_df: float, df2: float) -> None:
    found = with_r(r, p, m, complete_df).test()
    assert found.df1 == p
    assert found.df2 == pytest.approx(df2, rel=1e-12)
    assert found.statistic == pytest.approx(1 / (1 + r))
    assert found.pvalue == pytest.approx(stats.f.sf(found.statistic, p, found.df2))


# --- laws ---------------------------------------------------------------------------------------------------------


@given(seed=seeds, n=st.sampled_from([None, 30, 1000]))
def test_scalars_side_by_side_are_pooled_one_by_one(seed: int, n: int | None) -> None:
    q, u = replicates(seed)
    own = np.diagonal(u, axis1=1, axis2=2)
    alone = [pool(q[:, j], own[:, j], n=n) for j in range(3)]
    for together in (pool(q, own, n=n), pool(q, u, n=n)):
        for name in ("estimate", "r", "df", "fmi", "standard_error"):
            np.testing.assert_allclose(getattr(together, name), [getattr(a, name) for a in alone], rtol=1e-10)
        np.testing.assert_allclose(together.interval(), np.transpose([a.interval() for a in alone]), rtol=1e-10)
    full = pool(q, u, n=n)
    np.testing.assert_allclose(full.total, full.within + (1 + 1 / 6) * np.cov(q.T))


@given(seed=seeds, n=st.sampled_from([None, 40]))
def test_the_order_of_replicates_does_not_matter(seed: int, n: int | None) -> None:
    q, u = replicates(seed)
    order = np.random.default_rng(seed).permutation(len(q))
    one, other = pool(q, u, n=n), pool(q[order], u[order], n=n)
    for name in ("estimate", "within", "between", "total", "r", "df", "fmi"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-12)
    assert one.test().pvalue == pytest.approx(other.test().pvalue, rel=1e-8)


@given(seed=seeds, n=st.sampled_from([None, 200]))
def test_d1_does_not_depend_on_the_coordinates(seed: int, n: int | None) -> None:
    q, u = replicates(seed)
    rng = np.random.default_rng(seed)
    # Units far apart, and sums and differences of coefficients.
    change = np.diag([1e-6, 1.0, 1e5]) @ (np.eye(3) + np.triu(rng.uniform(-1, 1, (3, 3)), 1))
    null = rng.standard_normal(3)
    one = pool(q, u, n=n).test(null)
    moved = change @ u @ change.T
    other = pool(q @ change.T, (moved + np.swapaxes(moved, 1, 2)) / 2, n=n).test(change @ null)
    assert (other.statistic, other.df2) == pytest.approx((one.statistic, one.df2), rel=1e-6)


@given(seed=seeds, n=st.sampled_from([None, 40]), null=st.floats(-3, 3))
def test_d1_of_one_coefficient_is_the_squared_t(seed: int, n: int | None, null: float) -> None:
    q, u = replicates(seed, p=1)
    for pooled in (pool(q, u, n=n), pool(q, u[:, 0], n=n), pool(q[:, 0], u[:, 0, 0], n=n)):
        found = pooled.test(null)
        t = float(np.squeeze((pooled.estimate - null) / pooled.standard_error))
        df = float(np.squeeze(pooled.df))
        assert found.statistic == pytest.approx(t**2)
        assert (found.df1, found.df2) == (1, pytest.approx(df))
        assert found.pvalue == pytest.approx(2 * stats.t.sf(abs(t), df))
    # And of a statistic with the same share missing everywhere, D1 of several is the mean of the squares.
    assert with_r(0.7, 1, 9, np.inf).total[0, 0] == pytest.approx(1 / with_r(0.7, 4, 9, np.inf).test().statistic)


@given(r=st.floats(0, 50), p=st.integers(2, 6), m=st.integers(2, 40), complete_df=st.floats(1, 1e4))
def test_a_small_table_never_has_more_degrees_of_freedom(r: float, p: int, m: int, complete_df: float) -> None:
    small, large = (with_r(r, p, m, c).test() for c in (complete_df, np.inf))
    assert 0 < small.df2 <= complete_df
    assert small.df2 <= max(large.df2, 4) * (1 + 1e-12)
    assert 0 <= small.pvalue <= 1


def test_a_large_table_has_the_degrees_of_freedom_of_li() -> None:
    for r in (0.01, 0.5, 3.0):
        assert with_r(r, 3, 10, 1e12).test().df2 == pytest.approx(with_r(r, 3, 10, np.inf).test().df2, rel=1e-4)


# --- promises -----------------------------------------------------------------------------------------------------


def surveys(n: int, missing: float, m: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means (m, count) and their variances over tables of n standard normal rows, completed by Bayesian draws."""
    rng = np.random.default_rng(seed)
    seen = n - round(missing * n)
    x = rng.standard_normal((count, seen))
    variance = x.var(axis=1, ddof=1) * (seen - 1) / rng.chisquare(seen - 1, (m, count))
    mean = x.mean(axis=1) + np.sqrt(variance / seen) * rng.standard_normal((m, count))
    drawn = mean[..., None] + np.sqrt(variance)[..., None] * rng.standard_normal((m, count, n - seen))
    full = np.concatenate([np.broadcast_to(x, (m, *x.shape)), drawn], axis=2)
    return full.mean(axis=2), full.var(axis=2, ddof=1) / n


def test_a_95_percent_interval_covers_95_percent() -> None:
    n = 30
    q, u = surveys(n=n, missing=0.4, m=5, count=4000, seed=7)
    low, high = pool(q, u, n=n).interval()
    assert np.mean((low < 0) & (high > 0)) == pytest.approx(0.95, abs=0.015)
    # What one completed table claims is far too sure, so the test above can fail.
    reach = stats.t.ppf(0.975, n - 1) * np.sqrt(u[0])
    assert np.mean(np.abs(q[0]) < reach) < 0.9
    # So is ignoring that the table is small: a wider interval is due to n, not to luck.
    assert np.all(pool(q, u).df > pool(q, u, n=n).df)


@pytest.mark.parametrize("n", [30, 3000])
def test_d1_rejects_what_is_true_at_its_level(n: int) -> None:
    q, u = surveys(n=n, missing=0.4, m=5, count=3 * 800, seed=n)
    together = [(q[:, j : j + 3], u[:, j : j + 3, None] * np.eye(3)) for j in range(0, q.shape[1], 3)]
    rejected = np.mean([pool(a, b, n=n).test().pvalue < 0.05 for a, b in together])
    assert rejected == pytest.approx(0.05, abs=0.025)
    wrong = np.mean([pool(a, b, n=n).test([0, 0, 5 / n**0.5]).pvalue < 0.05 for a, b in together[:200]])
    assert wrong > 0.5


# --- limits -------------------------------------------------------------------------------------------------------


def test_replicates_that_agree_have_nothing_missing() -> None:
    pooled = pool([2.0, 2.0, 2.0], [0.5, 0.5, 0.5])
    assert (pooled.r, pooled.df, pooled.fmi, pooled.total) == (0, np.inf, 0, 0.5)
    assert pooled.interval()[1] == pytest.approx(2 + stats.norm.ppf(0.975) * 0.5**0.5)
    small = pool([2.0, 2.0, 2.0], [0.5, 0.5, 0.5], n=21)
    assert small.df == pytest.approx(21 / 23 * 20)
    assert small.fmi == 0


def test_d1_of_replicates_that_agree_is_a_chi_square() -> None:
    q, u = [[1.0, 2.0]] * 3, [np.eye(2)] * 3
    found = pool(q, u).test()
    assert (found.statistic, found.df2) == (2.5, np.inf)
    assert found.pvalue == pytest.approx(stats.chi2.sf(5, 2))
    assert pool(q, u, n=51).test().df2 == pytest.approx(51 / 53 * 50)


@pytest.mark.parametrize("gap", [1e-9, 1e-90, 1e-160, 1e-200])
def test_replicates_that_nearly_agree_are_no_trouble(gap: float) -> None:
    pooled = pool([0.0, gap, 0.0], [1.0, 1.0, 1.0])
    assert pooled.df > 1e15
    assert pooled.fmi == pytest.approx(0, abs=1e-15)
    vector = pool([[0.0, 1.0], [gap, 1.0], [0.0, 1.0]], [np.eye(2)] * 3)
    assert vector.test().pvalue == pytest.approx(stats.chi2.sf(1, 2))


def test_all_variance_between() -> None:
    """Nothing was known but for the imputations: the t of a sample of them, or no knowledge at all in a small table."""
    pooled = pool([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    assert (pooled.r, pooled.df, pooled.fmi) == (np.inf, 2, 1)
    small = pool([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], n=10)
    assert (small.df, small.fmi) == (0, 1)
    assert small.interval() == (-np.inf, np.inf)
    assert small.test().pvalue == 1
    assert small.table()["pvalue"].item() == 1


def test_a_record_is_a_value() -> None:
    with pytest.raises(AttributeError):
        pool(Q, U).estimate = 3.0  # type: ignore[misc]


# --- names --------------------------------------------------------------------------------------------------------


def test_a_table_keeps_the_names() -> None:
    q, u = replicates(0)
    names = ["age", "income", "sex"]
    frame = pd.DataFrame(q, columns=names)
    plain = pool(q, u, n=80)
    table = pool(frame, u, n=80).table(level=0.9)
    assert list(table.index) == names
    assert list(table.columns) == ["estimate", "standard_error", "df", "pvalue", "low", "high", "fmi"]
    np.testing.assert_array_equal(table[["low", "high"]].T, plain.interval(0.9))
    np.testing.assert_allclose(table["pvalue"], [pool(q[:, j], u[:, j, j], n=80).test().pvalue for j in range(3)])
    # As regression libraries hand them over: a Series and a labelled matrix of each fit.
    fits = [pd.Series(row, index=names) for row in q]
    matrices = [pd.DataFrame(matrix, index=names, columns=names) for matrix in u]
    pd.testing.assert_frame_equal(pool(fits, matrices, n=80).table(level=0.9), table)
    assert list(pool(q, matrices).table().index) == names
    assert list(plain.table().index) == [0, 1, 2]


def test_a_scalar_keeps_its_name() -> None:
    assert list(pool(pd.Series(Q, name="income"), pd.Series(U, name="variance")).table().index) == ["income"]
    assert pool(pd.Series(Q), U).names is None
    assert len(pool(Q, U).table()) == 1


def test_names_in_another_order_are_refused() -> None:
    q = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    with pytest.raises(ConfigurationError, match="same order"):
        pool(q, pd.DataFrame({"b": [1.0, 1.0], "a": [9.0, 9.0]}))
    with pytest.raises(ConfigurationError, match="same order"):
        pool([pd.Series({"a": 1.0, "b": 2.0}), pd.Series({"b": 2.0, "a": 1.0})], [np.eye(2)] * 2)


# --- bad input ----------------------------------------------------------------------------------------------------

E2 = np.eye(2)
SKEW = np.array([[1.0, 0.5], [0.4, 1.0]])


@pytest.mark.parametrize(
    ("q", "u", "options", "error", "words"),
    [
        ([1.0], [1.0], {}, ConfigurationError, "at least 2"),
        (1.0, 1.0, {}, ConfigurationError, "at least 2"),
        (np.ones((3, 0)), np.ones((3, 0)), {}, ConfigurationError, "at least 2"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], {}, ConfigurationError, "do not fit"),
        (np.ones((3, 2)), np.ones(3), {}, ConfigurationError, "do not fit"),
        (np.ones((3, 2)), np.ones((3, 3, 3)), {}, ConfigurationError, "do not fit"),
        (np.ones(2), np.ones((2, 2, 2)), {}, ConfigurationError, "do not fit"),
        (["one", "two"], [1.0, 2.0], {}, ConfigurationError, "must be numbers"),
        ([[1.0, 2.0], [3.0]], [[1.0, 2.0], [3.0]], {}, ConfigurationError, "equally many"),
        (Q, U, {"n": 5, "k": 5}, ConfigurationError, "above k"),
        (Q, U, {"n": np.nan}, ConfigurationError, "above k"),
        (Q, U, {"n": "many"}, ConfigurationError, "n must be a number"),
        (Q, U, {"n": 9, "k": [1]}, ConfigurationError, "k must be a number"),
        ([1.0, np.nan], [1.0, 1.0], {}, DataError, "finite"),
        ([1.0, 2.0], [1.0, np.inf], {}, DataError, "finite"),
        ([1.0, 2.0], [1.0, -1.0], {}, DataError, "negative"),
        (np.ones((2, 2)), np.array([E2, -E2]), {}, DataError, "negative"),
        (np.ones((2, 2)), np.array([E2, SKEW]), {}, DataError, "symmetric"),
    ],
)
def test_bad_input_is_one_sentence(q: Any, u: Any, options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        pool(q, u, **options)
    assert "\n" not in str(caught.value)


def test_mirrored_covariances_may_differ_by_rounding() -> None:
    nearly = np.array([[4e10, 1e-9], [0.0, 4.0]])
    assert pool(np.ones((2, 2)), [nearly, nearly]).m == 2


def test_what_cannot_be_tested_is_refused() -> None:
    q, u = replicates(1)
    with pytest.raises(ConfigurationError, match="covariance matrices"):
        pool(q, np.diagonal(u, axis1=1, axis2=2)).test()
    for shape in (2, (1, 3), 4):
        with pytest.raises(ConfigurationError, match="shape"):
            pool(q, u).test(np.zeros(shape))
    # The third is the sum of the others; or known without error.
    sums = np.array([[1.0, 0, 1], [0, 1, 1], [1, 1, 2]])
    for within in (sums, np.diag([1.0, 1.0, 0.0]), np.ones((3, 3)) + np.diag([1, 0, -0.5])):
        with pytest.raises(DataError, match="singular"):
            pool(q, [within] * len(q)).test()
    with pytest.raises(DataError, match="without variance"):
        pool([1.0, 1.0], [0.0, 0.0]).test()
    with pytest.raises(ConfigurationError, match="the hypothesis must be numbers"):
        pool(q, u).test("none")
    with pytest.raises(ConfigurationError, match="level must be a number"):
        pool(q, u).interval("wide")  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0, 1, 95, np.nan])
def test_a_level_is_a_probability(level: float) -> None:
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        pool(Q, U).interval(level)


# --- how many -----------------------------------------------------------------------------------------------------


def test_replicates_needed() -> None:
    # By hand: 1 + 0.3² / (2 · 0.05²) = 19; the logit of 0.5 is 0, and of its limit 1.96 · sqrt(2 / 8) = 0.98.
    assert n_replicates_needed(0.3) == 19
    assert n_replicates_needed(0.3, cv=0.1) == 6
    limit = 1 / (1 + np.exp(-0.98))
    assert n_replicates_needed(0.5, pilot=8) == int(np.ceil(1 + 0.5 * (limit / 0.05) ** 2))
    assert n_replicates_needed(0.0) == n_replicates_needed(0.0, pilot=5) == 2
    assert n_replicates_needed(1.0) == n_replicates_needed(1.0, pilot=5) == 201


@given(fmi=st.floats(0.01, 0.99), pilot=st.integers(2, 1000))
def test_a_pilot_asks_for_more(fmi: float, pilot: int) -> None:
    known, unsure, sure = (n_replicates_needed(fmi, pilot=p) for p in (None, pilot, 100 * pilot))
    assert 2 <= known <= sure <= unsure <= 201


def test_as_many_as_needed_repeat_the_standard_error() -> None:
    """The promise itself: over repeated imputations of one table the standard error varies by cv, about."""
    fmi, cv = 0.4, 0.05
    m = n_replicates_needed(fmi, cv)
    draws = np.random.default_rng(3).standard_normal((m, 4000)) * (fmi / (1 - fmi)) ** 0.5
    errors = pool(draws, np.ones_like(draws)).standard_error
    assert errors.std() / errors.mean() == pytest.approx(cv, rel=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"fmi": 1.2},
        {"fmi": -0.1},
        {"fmi": np.nan},
        {"cv": 0},
        {"cv": np.nan},
        {"pilot": 1},
        {"pilot": 0},
        {"fmi": "high"},
        {"pilot": "2"},
    ],
)
def test_replicates_needed_refuses(options: dict) -> None:
    with pytest.raises(ConfigurationError):
        n_replicates_needed(**{"fmi": 0.3, **options})
