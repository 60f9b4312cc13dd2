"""The one-scan multivariate normal: published answers, an obvious likelihood, and what must not matter.

Beyond the published numbers the judge is tests/oracle.py, which evaluates the likelihood row by row. What must not matter are units, origin, order
and cut of the table, its kind, repetition against weights, and whether sums were kept or rows scanned in every step.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import dask_em.data.gather
from dask_em import InverseWishart, MultivariateNormal, Ridge, load, save
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError
from dask_em.normal import distinct
from tests import oracle
from tests.estimators import normal_reference as reference
from tests.estimators.normal_reference import holes, never_together, vector

REL = 1e-6
EXACT: dict[str, Any] = {"prior": None, "tol": 0}


def forced(X: Any, n: int, *, sample_weight: Any = None, **settings: Any) -> MultivariateNormal:
    """The model after exactly n EM steps."""
    with pytest.warns(ConvergenceWarning, match=f"max_iter={n} "):
        model = MultivariateNormal(**{**EXACT, **settings, "max_iter": n}).fit(X, sample_weight=sample_weight)
    assert model.n_iter_ == n
    return model


def fitted(X: Any, **settings: Any) -> MultivariateNormal:
    """The model after the first steps: all that a comparison of two fits needs, in little time."""
    return forced(X, STEPS, **settings)


STEPS = 20
"""Two fits that must be the same are compared after as many steps, as where they stop is a matter of the last bit."""


def parameters(model: MultivariateNormal) -> np.ndarray:
    return vector(model.mean_, model.covariance_)


def assert_same_fit(one: MultivariateNormal, two: MultivariateNormal, rtol: float, errors: bool = True) -> None:
    """Equal answers, each relative to the size of its matrix in units of the deviations."""
    deviation = np.sqrt(np.diagonal(two.covariance_))
    assert_allclose(one.mean_, two.mean_, rtol=rtol, atol=rtol * deviation.min())
    square = deviation[:, None] * deviation
    assert_allclose(one.covariance_ / square, two.covariance_ / square, rtol=rtol, atol=rtol)
    assert one.log_likelihood_ == pytest.approx(two.log_likelihood_, rel=rtol)
    if errors:
        for name in ("standard_errors_", "fraction_missing_information_"):
            a, b = getattr(one, name), getattr(two, name)
            assert_allclose(a.mean, b.mean, rtol=10 * rtol, atol=10 * rtol * (name[0] == "f"))
            assert_allclose(a.covariance, b.covariance, rtol=10 * rtol, atol=10 * rtol * (name[0] == "f"))
        assert one.worst_fraction_missing_ == pytest.approx(two.worst_fraction_missing_, rel=100 * rtol, abs=1e-9)


# --- published answers -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cholesterol() -> MultivariateNormal:
    return MultivariateNormal(**EXACT).fit(reference.CHOLESTEROL_FRAME)


def test_cholesterol_estimates(cholesterol: MultivariateNormal) -> None:
    assert_allclose(cholesterol.mean_, reference.CHOLESTEROL_MEAN, rtol=REL)
    assert_allclose(cholesterol.covariance_, reference.CHOLESTEROL_COVARIANCE, rtol=REL)
    assert cholesterol.log_likelihood_ == pytest.approx(reference.CHOLESTEROL_LOG_LIKELIHOOD, rel=1e-8)
    cells = reference.CHOLESTEROL_FRAME.count().sum()
    without = cholesterol.log_likelihood_ + 0.5 * cells * np.log(2 * np.pi)
    assert without == pytest.approx(reference.CHOLESTEROL_WITHOUT_2PI, rel=1e-8)
    assert cholesterol.converged_
    assert cholesterol.n_scans_ == 1


def test_cholesterol_uncertainty(cholesterol: MultivariateNormal) -> None:
    errors = cholesterol.standard_errors_
    assert_allclose(errors.mean, reference.CHOLESTEROL_MEAN_ERRORS, atol=6e-4)
    assert_allclose(errors.covariance, reference.CHOLESTEROL_COVARIANCE_ERRORS, atol=6e-4)
    low, high = reference.CHOLESTEROL_WORST
    assert low < cholesterol.worst_fraction_missing_ < high


def test_cholesterol_regression(cholesterol: MultivariateNormal) -> None:
    """Y3 on Y1 and Y2: in a monotone pattern, the regression in the rows that have Y3."""
    mean, covariance = cholesterol.mean_, cholesterol.covariance_
    slopes = np.linalg.solve(covariance[:2, :2], covariance[:2, 2])
    intercept, residual = mean[2] - slopes @ mean[:2], covariance[2, 2] - slopes @ covariance[:2, 2]
    # The residual variance was printed after fewer iterations: least squares on the 19 rows give 838.92208.
    assert_allclose([intercept, *slopes, residual], reference.CHOLESTEROL_REGRESSION, rtol=3e-6)
    seen = reference.CHOLESTEROL_FRAME.dropna()
    design = np.column_stack([np.ones(len(seen)), seen[["Y1", "Y2"]]])
    solution, squares, *_ = np.linalg.lstsq(design, seen["Y3"], rcond=None)
    assert_allclose([intercept, *slopes, residual], [*solution, squares[0] / len(seen)], rtol=REL)
    left = seen["Y3"] - intercept - seen[["Y1", "Y2"]] @ slopes
    deviance = len(seen) * np.log(residual) + (left**2).sum() / residual
    assert deviance == pytest.approx(reference.CHOLESTEROL_REGRESSION_DEVIANCE, rel=REL)


@pytest.mark.parametrize("tol", [0, 1e-14])
def test_fitness(tol: float) -> None:
    model = MultivariateNormal(prior=None, tol=tol).fit(reference.FITNESS)
    assert_allclose(model.mean_, reference.FITNESS_MEAN, rtol=REL)
    assert_allclose(model.covariance_, reference.FITNESS_COVARIANCE, rtol=REL)
    assert model.log_likelihood_ == pytest.approx(reference.FITNESS_LOG_LIKELIHOOD, rel=1e-8)
    cells = reference.FITNESS.count().sum()
    deviance = -2 * model.log_likelihood_ - cells * np.log(2 * np.pi)
    assert deviance == pytest.approx(reference.FITNESS_DEVIANCE_WITHOUT_2PI, rel=1e-8)


def test_little_of_airquality() -> None:
    X = reference.AIRQUALITY
    assert X.shape == (153, 6)
    assert X.isna().sum().tolist() == [37, 7, 0, 0, 0, 0]
    test = MultivariateNormal(prior=None, tol=1e-14).fit(X).little_mcar_test()
    assert (round(test.statistic, 3), test.df) == reference.AIRQUALITY_LITTLE
    assert test.pvalue == pytest.approx(0.00142, abs=5e-6)


def test_little_has_no_pvalue_without_holes() -> None:
    test = MultivariateNormal().fit(holes(share=0.0).dropna()).little_mcar_test()
    assert (test.statistic, test.df) == (pytest.approx(0.0, abs=1e-12), 0)
    assert np.isnan(test.pvalue)


def test_little_rejects_only_what_is_not_at_random() -> None:
    """Over tables that are missing completely at random the p-values are uniform; a hole that depends on another column is found."""
    pvalues = [MultivariateNormal().fit(holes(400, seed=s)).little_mcar_test().pvalue for s in range(40)]
    assert 0.3 < np.mean(pvalues) < 0.7
    X = holes(400, share=0.0)
    X.loc[X["c0"] > X["c0"].quantile(0.7), "c1"] = np.nan
    assert MultivariateNormal().fit(X).little_mcar_test().pvalue < 1e-6


# --- the slow, obvious likelihood --------------------------------------------------------------------------------


def slow_objective(data: oracle.Data, theta: np.ndarray, prior: bool) -> float:
    d = data.gaussian.shape[1]
    params = oracle.Params(np.ones(1), theta[None, :d], symmetric(theta[d:], d)[None])
    return oracle.objective(data, params, prior)


def symmetric(upper: np.ndarray, d: int) -> np.ndarray:
    out = np.empty((d, d))
    i, j = np.triu_indices(d)
    out[i, j] = out[j, i] = upper
    return out


def hessian(f: Callable[[np.ndarray], float], at: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Second derivatives by central differences, in units of the steps."""
    p = len(at)
    out, moves, middle = np.empty((p, p)), np.diag(steps), f(at)
    for i in range(p):
        out[i, i] = f(at + moves[i]) - 2 * middle + f(at - moves[i])
        for j in range(i):
            signs = itertools.product((1, -1), repeat=2)
            out[i, j] = out[j, i] = sum(a * b * f(at + a * moves[i] + b * moves[j]) for a, b in signs) / 4
    return out


@pytest.mark.parametrize("weighted", [False, True], ids=["rows", "weights"])
@pytest.mark.parametrize("prior", [None, "weak"])
def test_log_likelihood_and_errors_are_those_of_the_obvious_likelihood(prior: str | None, weighted: bool) -> None:
    X = holes(40, d=3, share=0.3)
    weight = np.random.default_rng(1).uniform(0.2, 3.0, len(X)) if weighted else np.ones(len(X))
    model = MultivariateNormal(prior=prior, tol=0).fit(X, sample_weight=weight)
    data, best = oracle.Data(gaussian=X.to_numpy(), weight=weight), parameters(model)
    assert model.log_likelihood_ == pytest.approx(slow_objective(data, best, False), rel=1e-12)
    assert model.history_["objective"].iloc[-1] - model.log_likelihood_ == pytest.approx(
        slow_objective(data, best, prior == "weak")
        - slow_objective(data, best, False)
        + _scale_of_prior(X, weight, prior),
        abs=1e-9,
    )
    errors = vector(model.standard_errors_.mean, model.standard_errors_.covariance)
    # In units of the standard errors the inverse has ones on its diagonal. The error of differences is of the order of the squared step,
    # so that of two steps is taken off.
    step = 4e-3
    coarse, fine = (
        -hessian(lambda theta: slow_objective(data, theta, prior == "weak"), best, h * errors) / h**2
        for h in (step, step / 2)
    )
    assert_allclose(np.diagonal(np.linalg.inv((4 * fine - coarse) / 3)), 1.0, rtol=2e-5)


def _scale_of_prior(X: pd.DataFrame, weight: np.ndarray, prior: str | None) -> float:
    """The objective is in standardised units, in which log|Σ| of the prior's pseudo-row is smaller by the log variances."""
    if prior is None:
        return 0.0
    return 0.5 * float(np.log(oracle.margins(oracle.Data(gaussian=X.to_numpy(), weight=weight)).variances).sum())


def test_em_takes_the_obvious_steps() -> None:
    """After 1, 2 and 5 steps from mean and variances of the observed cells."""
    X = holes(40)
    data = oracle.Data(gaussian=X.to_numpy())
    mean, variance = np.nanmean(X, axis=0), oracle.margins(data).variances
    start = oracle.Params(np.ones(1), mean[None], np.diag(variance)[None])
    for prior in (None, "weak"):
        for n in (1, 2, 5):
            slow, fast = oracle.em(data, start, n, prior=prior == "weak"), forced(X, n, prior=prior)
            assert_allclose(fast.mean_, slow.means[0], rtol=1e-9)
            assert_allclose(fast.covariance_, slow.covariances[0], rtol=1e-9, atol=1e-9)


def tables_that_converge_slowly() -> dict[str, pd.DataFrame]:
    return {"cholesterol": reference.CHOLESTEROL_FRAME, "two thirds missing": holes(150, share=0.65, seed=2)}


@pytest.mark.parametrize("name", tables_that_converge_slowly())
def test_worst_fraction_is_the_slope_of_the_obvious_step(name: str) -> None:
    """The largest eigenvalue of the derivative of an EM step at the optimum (Dempster, Laird and Rubin 1977)."""
    X = tables_that_converge_slowly()[name]
    model = MultivariateNormal(**EXACT).fit(X)
    data, best, d = oracle.Data(gaussian=X.to_numpy()), parameters(model), X.shape[1]
    errors = vector(model.standard_errors_.mean, model.standard_errors_.covariance)

    def step(theta: np.ndarray) -> np.ndarray:
        params = oracle.Params(np.ones(1), theta[None, :d], symmetric(theta[d:], d)[None])
        after = oracle.em_step(data, params)
        return vector(after.means[0], after.covariances[0])

    h = 1e-3
    slopes = [(step(best + move) - step(best - move)) / (2 * h * e) for move, e in zip(np.diag(h * errors), errors)]
    rate = np.linalg.eigvals(np.array(slopes).T).real.max()
    assert model.worst_fraction_missing_ == pytest.approx(rate, rel=1e-5)


def priors(X: pd.DataFrame) -> dict[str, Any]:
    return {"none": None, "weak": "weak", "ridge": Ridge(20), "Wishart": InverseWishart(30, 20 * np.diag(X.var()))}


@pytest.mark.parametrize("prior", ["none", "weak", "ridge", "Wishart"])
@pytest.mark.parametrize("name", tables_that_converge_slowly())
def test_worst_fraction_is_the_rate_of_convergence(name: str, prior: str) -> None:
    """Successive changes shrink by it, late in the run, when the faster ones have died away."""
    X = tables_that_converge_slowly()[name]
    settings = {"prior": priors(X)[prior]}
    model = MultivariateNormal(**{**EXACT, **settings}).fit(X)
    errors = vector(model.standard_errors_.mean, model.standard_errors_.covariance)
    a, b, c = (parameters(forced(X, model.n_iter_ + k, **settings)) / errors for k in (-4, -3, -2))
    rate = np.linalg.norm(c - b) / np.linalg.norm(b - a)
    assert model.worst_fraction_missing_ == pytest.approx(rate, rel=2e-2)


# --- information -------------------------------------------------------------------------------------------------


def test_a_complete_column_of_a_monotone_pattern_has_lost_nothing(cholesterol: MultivariateNormal) -> None:
    lost = cholesterol.fraction_missing_information_
    assert_allclose(lost.mean[:2], 0.0, atol=1e-10)
    assert_allclose(lost.covariance[:2, :2], 0.0, atol=1e-10)
    assert lost.mean[2] > 0.05
    assert (lost.covariance[2] > 0.05).all()
    assert lost.covariance.max() <= cholesterol.worst_fraction_missing_ + 1e-10


def test_one_column_loses_its_missing_share() -> None:
    x = np.where(np.arange(50) % 5 < 2, np.nan, np.random.default_rng(0).normal(7, 3, 50))
    model = MultivariateNormal(**EXACT).fit(np.column_stack([x, np.random.default_rng(1).normal(size=50)])[:, :1])
    seen = x[~np.isnan(x)]
    assert_allclose([model.mean_[0], model.covariance_[0, 0]], [seen.mean(), seen.var()], rtol=1e-10)
    assert_allclose(model.standard_errors_.mean, seen.std() / np.sqrt(30), rtol=1e-8)
    assert_allclose(model.standard_errors_.covariance, np.sqrt(2 / 30) * seen.var(), rtol=1e-8)
    # A row of which nothing is seen is no row of the model.
    assert_allclose(model.fraction_missing_information_.mean, 0.0, atol=1e-10)


def test_complete_data_are_there_at_once() -> None:
    X = holes(200, share=0.0).dropna()
    model = MultivariateNormal(prior=None).fit(X)
    assert_allclose(model.mean_, X.mean(), rtol=1e-12)
    assert_allclose(model.covariance_, X.cov(ddof=0), rtol=1e-11)
    assert (model.n_scans_, model.n_patterns_, model.n_rows_) == (1, 1, 198)
    assert model.n_iter_ <= 2
    n, variance = len(X), np.diagonal(model.covariance_)
    assert_allclose(model.standard_errors_.mean, np.sqrt(variance / n), rtol=1e-9)
    wishart = np.sqrt((variance[:, None] * variance + model.covariance_**2) / n)
    assert_allclose(model.standard_errors_.covariance, wishart, rtol=1e-9)
    assert_allclose(model.fraction_missing_information_.covariance, 0.0, atol=1e-10)
    assert model.worst_fraction_missing_ == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("prior", ["weak", "ridge", "Wishart"])
def test_complete_data_have_lost_nothing_whatever_the_prior(prior: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    X = pd.DataFrame({"x": x, "almost": x + 0.03 * rng.normal(size=100)})
    model = MultivariateNormal(prior=priors(X)[prior]).fit(X)
    assert_allclose(model.fraction_missing_information_.covariance, 0.0, atol=1e-8)
    assert model.worst_fraction_missing_ == pytest.approx(0.0, abs=1e-8)


def test_patterns_are_those_of_the_table() -> None:
    X = holes(300, d=4)
    model = MultivariateNormal().fit(X)
    counted = X.notna().value_counts()
    assert model.n_patterns_ == len(counted)
    patterns = model.patterns_
    assert patterns["rows"].is_monotonic_decreasing
    assert patterns.set_index(list(X.columns))["rows"].to_dict() == counted.to_dict()
    weight = np.arange(len(X)) % 4 + 0.5
    patterns = MultivariateNormal().fit(X, sample_weight=weight).patterns_
    totals = X.notna().assign(weight=weight).groupby(list(X.columns))["weight"].sum()
    own = patterns.set_index(list(X.columns))["weight"].sort_index()
    pd.testing.assert_series_equal(own, totals.sort_index(), check_exact=False, rtol=1e-12)


def test_patterns_of_columns_called_rows_and_weight() -> None:
    X = holes(300, d=2).set_axis(["rows", "weight"], axis=1)
    patterns = MultivariateNormal().fit(X).patterns_
    assert patterns.set_index(["rows", "weight"])["#rows"].to_dict() == X.notna().value_counts().to_dict()
    assert (patterns["#weight"] == patterns["#rows"]).all()


# --- what must not matter ----------------------------------------------------------------------------------------


def test_rows_of_which_nothing_is_seen_change_nothing() -> None:
    X = holes().dropna(how="all")
    more = pd.concat([X, pd.DataFrame(np.nan, index=range(40), columns=X.columns)]).sample(frac=1, random_state=0)
    one, two = (fitted(t) for t in (more, X))
    assert_same_fit(one, two, 1e-9)
    assert_allclose(one.little_mcar_test().statistic, two.little_mcar_test().statistic, rtol=1e-8)
    assert one.little_mcar_test().df == two.little_mcar_test().df
    assert (one.n_rows_, one.sum_of_weights_, one.n_patterns_) == (len(X) + 40, len(X) + 40.0, two.n_patterns_ + 1)


@pytest.mark.parametrize("prior", [None, "weak", Ridge(3.0)], ids=str)
def test_weights_repeat_rows(prior: Any) -> None:
    X, weight = holes(), np.arange(60) % 4
    repeated = X.loc[X.index.repeat(weight)]
    one = fitted(X, prior=prior, sample_weight=weight)
    two = fitted(repeated, prior=prior)
    assert_same_fit(one, two, 1e-10)
    assert one.little_mcar_test().statistic == pytest.approx(two.little_mcar_test().statistic, rel=1e-8)
    assert (one.n_rows_, two.n_rows_) == ((weight > 0).sum(), weight.sum())
    assert one.sum_of_weights_ == two.sum_of_weights_ == weight.sum()
    named = fitted(X.assign(w=weight), prior=prior, sample_weight="w")
    assert_same_fit(named, one, 1e-12)
    assert list(named.feature_names_in_) == list(X.columns)


@pytest.mark.parametrize("offset", [1e8, -1e8])
def test_the_origin_does_not_matter(offset: float) -> None:
    """Whole numbers, so that the moved table is exactly the same one."""
    X = holes(100).round()
    one, two = (fitted(t) for t in (X + offset, X))
    one.mean_ = one.mean_ - offset
    assert_same_fit(one, two, 1e-7)
    assert one.n_scans_ == 1


def test_units_do_not_matter() -> None:
    X, unit = holes(), np.array([1e-6, 1.0, 1e6])
    one, two = (fitted(t) for t in (X * unit, X))
    assert_allclose(one.mean_ / unit, two.mean_, rtol=1e-9)
    square = unit[:, None] * unit
    assert_allclose(one.covariance_ / square, two.covariance_, rtol=1e-8)
    assert_allclose(one.standard_errors_.mean / unit, two.standard_errors_.mean, rtol=1e-8)
    assert_allclose(one.standard_errors_.covariance / square, two.standard_errors_.covariance, rtol=1e-8)
    moved = two.log_likelihood_ - X.count() @ np.log(unit)
    assert one.log_likelihood_ == pytest.approx(moved, rel=1e-10)
    assert one.little_mcar_test().statistic == pytest.approx(two.little_mcar_test().statistic, rel=1e-8)


def two_files(folder: Path, first: pd.DataFrame, rest: pd.DataFrame) -> str:
    for name, part in (("a", first), ("b", rest)):
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), folder / f"{name}.parquet")
    return str(folder)


def test_a_first_piece_far_from_the_others_costs_a_second_scan(tmp_path: Path) -> None:
    X = holes(20_000).round(3)
    X.iloc[0] = [-4e5, 1.0, 1.0]
    first, rest = X.iloc[:1], X.iloc[1:]
    far = fitted(two_files(tmp_path, first, rest))
    near = fitted(pd.concat([rest, first]))
    assert (far.n_scans_, near.n_scans_) == (2, 1)
    assert_same_fit(far, near, 1e-9)


@pytest.mark.parametrize("centre", [1e4, 1e6, 1e8])
def test_a_first_piece_without_the_column(centre: float, tmp_path: Path) -> None:
    """A question of the later waves of a survey."""
    X = holes(3000).round()
    X["c0"] += centre
    X.loc[:999, "c0"] = np.nan
    split = fitted(two_files(tmp_path, X.iloc[:1000], X.iloc[1000:]))
    whole = fitted(X)
    assert (split.n_scans_, whole.n_scans_) == (2, 1)
    assert_same_fit(split, whole, 1e-8)


def test_a_first_piece_without_a_column_that_lies_very_far(tmp_path: Path) -> None:
    """Such as times in seconds since 1970, of which the first file has none."""
    X = holes(3000).round()
    X["c0"] += 1.7e9
    X.loc[:999, "c0"] = np.nan
    split = fitted(two_files(tmp_path, X.iloc[:1000], X.iloc[1000:]))
    assert split.n_scans_ == 2
    assert_same_fit(split, fitted(X), 1e-7)


def test_two_heaps_of_rows() -> None:
    """The first piece of a table in memory, 131072 rows, lies far from the rest: one scan does, as the spread is as large."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=((1 << 17) + 9000, 2))
    X[1 << 17 :, 0] += 1e6
    X[::7, 0] = np.nan
    one, two = (forced(t, 5) for t in (X, X[::-1]))
    assert one.n_scans_ == two.n_scans_ == 1
    assert_same_fit(one, two, 1e-8)


@pytest.mark.parametrize("prior", [None, "weak", Ridge(5.0), InverseWishart(6.0, np.diag([1.0, 90.0, 9e3]))], ids=str)
def test_scanning_rows_gives_the_same_answer(prior: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, weight = holes(), np.arange(60) % 4
    one = MultivariateNormal(prior=prior, tol=1e-12).fit(X, sample_weight=weight)
    monkeypatch.setattr(dask_em.data.gather, "MAX_BYTES", 100)
    two = MultivariateNormal(prior=prior, tol=1e-12).fit(X, sample_weight=weight)
    assert one.n_scans_ == 1
    assert two.n_scans_ > 2
    assert (two.n_iter_, two.n_rows_, two.sum_of_weights_) == (one.n_iter_, one.n_rows_, one.sum_of_weights_)
    assert_same_fit(two, one, 1e-10, errors=False)
    assert_allclose(two.history_, one.history_, rtol=1e-10)
    for needs_sums in ("standard_errors_", "patterns_", "n_patterns_"):
        with pytest.raises(ConfigurationError, match=r"too many missingness patterns.*fewer columns"):
            getattr(two, needs_sums)


def kinds_of_tables(X: pd.DataFrame, folder: Path) -> dict[str, Any]:
    whole = pa.Table.from_pandas(X, preserve_index=False)
    for i, (a, b) in enumerate(itertools.pairwise([0, 100, 101, 700, len(X)])):
        pq.write_table(whole.slice(a, b - a), folder / f"part-{i}.parquet", row_group_size=250)
    return {
        "Arrow": whole,
        "Arrow in chunks": pa.concat_tables([whole.slice(0, 300), whole.slice(300)]),
        "array": X.to_numpy(),
        "array by columns": np.asfortranarray(X.to_numpy()),
        "nullable": X.convert_dtypes(dtype_backend="pyarrow"),
        "objects": X.astype(object).where(X.notna(), None),
        "folder": str(folder),
        "path": folder,
        "Dask": dd.from_pandas(X, npartitions=7, sort=False),
    }


@pytest.fixture(scope="module")
def surveyed() -> pd.DataFrame:
    return holes(1000, d=4)


@pytest.mark.parametrize(
    "kind",
    ["Arrow", "Arrow in chunks", "array", "array by columns", "nullable", "objects", "folder", "path", "Dask"],
)
def test_every_kind_of_table(kind: str, surveyed: pd.DataFrame, tmp_path: Path) -> None:
    X = kinds_of_tables(surveyed, tmp_path)[kind]
    one, two = (fitted(t) for t in (X, surveyed))
    assert_same_fit(one, two, 1e-11)
    assert one.n_rows_ == 1000
    pd.testing.assert_frame_equal(
        one.patterns_.set_axis(two.patterns_.columns, axis=1).sort_values(["rows", *surveyed], ignore_index=True),
        two.patterns_.sort_values(["rows", *surveyed], ignore_index=True),
    )
    assert hasattr(one, "feature_names_in_") == (not kind.startswith("array"))


def test_processes_of_a_cluster(surveyed: pd.DataFrame, tmp_path: Path) -> None:
    from dask_em.execution.dask import DaskExecutor

    tables, expected = kinds_of_tables(surveyed, tmp_path), fitted(surveyed)
    executor = DaskExecutor(n_workers=2)
    try:
        for kind in ("Dask", "folder", "array"):
            assert_same_fit(fitted(tables[kind], executor=executor), expected, 1e-11)
        with pytest.raises(DataError, match="'c1' is not numeric"):
            MultivariateNormal(executor=executor).fit(surveyed.assign(c1="x"))
    finally:
        executor.close()


def test_weights_of_a_dask_frame(surveyed: pd.DataFrame) -> None:
    weighted = surveyed.assign(w=np.arange(1000) % 3)
    lazy = dd.from_pandas(weighted, npartitions=5, sort=False)
    one = fitted(lazy, sample_weight="w")
    two = fitted(lazy[list(surveyed)], sample_weight=lazy["w"])
    expected = fitted(surveyed, sample_weight=weighted["w"])
    assert_same_fit(one, expected, 1e-11)
    assert_same_fit(two, expected, 1e-11)


def test_compiled_sums_are_the_plain_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    X, weight = holes(12_000), np.arange(12_000) % 3
    one = fitted(X, sample_weight=weight)
    monkeypatch.setattr(dask_em.kernels, "AVAILABLE", False)
    two = fitted(X, sample_weight=weight)
    assert_same_fit(one, two, 1e-11)
    pd.testing.assert_frame_equal(one.patterns_, two.patterns_)


@pytest.mark.parametrize("d", [1, 8, 9, 20, 64, 65])
def test_patterns_are_in_the_order_of_their_bits(d: int) -> None:
    masks = np.random.default_rng(d).random((300, d)) < 0.9
    observed, place = distinct(masks)
    assert (observed == np.unique(masks, axis=0)).all()
    assert (observed[place] == masks).all()


# --- priors ------------------------------------------------------------------------------------------------------

PRIORS = [None, "weak", Ridge(0.0), Ridge(20.0), InverseWishart(6.0, np.diag([1.0, 90.0, 9e3]))]


@pytest.mark.parametrize("prior", PRIORS, ids=str)
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_the_objective_never_falls(prior: Any, share: float) -> None:
    model = MultivariateNormal(prior=prior, tol=0).fit(holes(90, share=share))
    objective = model.history_["objective"].to_numpy()
    assert (np.diff(objective) >= -1e-12 * np.abs(objective[1:])).all()
    assert model.log_likelihood_ == model.history_["log_likelihood"].iloc[-1]
    assert len(objective) == model.n_iter_ + 1


@pytest.mark.parametrize("df", [0.5, 20.0, 500.0])
def test_ridge_of_complete_data(df: float) -> None:
    X = holes(80, share=0.0).dropna()
    S, n = X.cov(ddof=0).to_numpy(), len(X)
    model = MultivariateNormal(prior=Ridge(df)).fit(X)
    assert_allclose(model.covariance_, (n * S + df * np.diag(np.diag(S))) / (n + df), rtol=1e-10)
    assert_allclose(model.mean_, X.mean(), rtol=1e-10)


def test_inverse_wishart_of_complete_data() -> None:
    X, scale = holes(80, share=0.0).dropna(), reference.symmetric((3.0, 1.0, 0.5), (200.0, 10.0), (4e4,))
    S, n = X.cov(ddof=0).to_numpy(), len(X)
    model = MultivariateNormal(prior=InverseWishart(7.5, scale)).fit(X)
    assert_allclose(model.covariance_, (n * S + scale) / (n + 7.5 + 3 + 1), rtol=1e-10)


def test_inverse_wishart_is_stationary_with_holes() -> None:
    """The M-step of the obvious EM, with the prior's pseudo-rows added, stays where the fit ended."""
    X, scale, df = holes(), reference.symmetric((3.0, 1.0, 0.5), (200.0, 10.0), (4e4,)), 7.5
    model = MultivariateNormal(prior=InverseWishart(df, scale), tol=0).fit(X)
    data = oracle.Data(gaussian=X.to_numpy())
    here = oracle.Params(np.ones(1), model.mean_[None], model.covariance_[None])
    after, n = oracle.em_step(data, here), len(X.dropna(how="all"))
    moved = (n * after.covariances[0] + scale) / (n + df + 3 + 1)
    assert_allclose(after.means[0], model.mean_, rtol=1e-6)
    assert_allclose(moved, model.covariance_, rtol=1e-6)


def test_the_weak_prior_is_one_pseudo_row() -> None:
    X = holes()
    weak, ridge = (MultivariateNormal(prior=p, tol=0).fit(X) for p in ("weak", Ridge(1.0)))
    assert (parameters(weak) == parameters(ridge)).all()
    none, zero = (MultivariateNormal(prior=p, tol=0).fit(X) for p in (None, Ridge(0.0)))
    assert (parameters(none) == parameters(zero)).all()
    assert none.log_likelihood_ > weak.log_likelihood_


def test_ridge_holds_what_the_table_does_not_identify() -> None:
    model = MultivariateNormal(prior=Ridge(5.0)).fit(never_together())
    assert abs(model.covariance_[0, 1]) < 0.5
    assert np.isfinite(vector(model.standard_errors_.mean, model.standard_errors_.covariance)).all()


def test_the_weak_prior_carries_fewer_rows_than_columns() -> None:
    X = np.random.default_rng(0).normal(size=(4, 7))
    model = MultivariateNormal().fit(X)
    assert_allclose(model.mean_, X.mean(axis=0), rtol=1e-9)
    assert np.linalg.eigvalsh(model.covariance_)[0] > 0
    assert np.isfinite(model.standard_errors_.mean).all()


# --- an estimator like others ------------------------------------------------------------------------------------


def test_clone_and_parameters() -> None:
    prior = InverseWishart(9, np.eye(3))
    model = MultivariateNormal(prior=prior, tol=1e-5, max_iter=7, executor="local")
    assert clone(model).get_params().keys() == {"prior", "tol", "max_iter", "executor"}
    assert clone(model).tol == 1e-5
    assert MultivariateNormal().set_params(prior=None).prior is None


OF_THE_FIT = [
    "standard_errors_",
    "fraction_missing_information_",
    "worst_fraction_missing_",
    "patterns_",
    "n_patterns_",
]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n) for n in OF_THE_FIT],
)
def test_what_needs_a_fit_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        getattr(MultivariateNormal(), name)
    save(MultivariateNormal().fit(holes()), tmp_path / "model")
    loaded = load(tmp_path / "model")
    with pytest.raises(ConfigurationError, match=r"saved model keeps no sums.*fit it again"):
        getattr(loaded, name)


def test_pickled_fits_answer_alike() -> None:
    model = MultivariateNormal(prior=Ridge(2.0)).fit(holes())
    before = pickle.loads(pickle.dumps(model))
    errors = model.standard_errors_
    after = pickle.loads(pickle.dumps(model))
    for other in (before, after):
        assert (other.mean_ == model.mean_).all()
        assert (other.standard_errors_.covariance == errors.covariance).all()
        assert other.little_mcar_test() == model.little_mcar_test()


def test_a_second_fit_forgets_the_first() -> None:
    model = MultivariateNormal().fit(holes())
    first = model.standard_errors_.mean
    X = holes(90, d=4, seed=3)
    model.fit(X.to_numpy())
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 4
    fresh = MultivariateNormal().fit(X)
    assert (model.standard_errors_.mean == fresh.standard_errors_.mean).all()
    assert len(first) == 3


def test_the_table_is_not_touched() -> None:
    X = holes()
    before = X.copy(deep=True)
    MultivariateNormal().fit(X, sample_weight=np.arange(60))
    pd.testing.assert_frame_equal(X, before)


def test_fits_are_repeatable() -> None:
    one, two = (MultivariateNormal().fit(reference.FITNESS) for _ in range(2))
    assert (parameters(one) == parameters(two)).all()
    assert one.log_likelihood_ == two.log_likelihood_
