"""Standard errors against printed ones, and against the judge, which takes second differences of the objective."""

from __future__ import annotations

from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client
from numpy.testing import assert_allclose

from dask_em import BinomialMixture, GaussianMixture, LatentClassAnalysis, MixtureModel, PoissonMixture
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError
from dask_em.families.covariance import MODELS
from dask_em.inference import louis_cost
from tests import reference
from tests.inference import judge

EXACT: dict[str, Any] = {"prior": None, "tol": 1e-15, "max_iter": 100_000, "random_state": 0}

# --- printed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "weight", "rates"),
    [("observed", 0.194684, (0.350030, 0.250478)), ("empirical", 0.2063, (0.3696, 0.2655))],
)
def test_deaths(kind: str, weight: float, rates: tuple[float, float]) -> None:
    """R: flexmix and numDeriv."""
    model = PoissonMixture(2, **EXACT).fit(reference.DEATHS, sample_weight=reference.DEATHS_DAYS)
    found = model.standard_errors(reference.DEATHS, kind, sample_weight=reference.DEATHS_DAYS)
    order = np.argsort(model.rates_[:, 0])
    digits = 2e-5 if kind == "observed" else 3e-4
    assert_allclose(found.weights_, weight, rtol=digits)
    assert_allclose(found.rates_[order, 0], rates, rtol=digits)


@pytest.mark.parametrize(
    ("data", "k", "shares"),
    [("carcinoma", 2, (0.0463, 0.0463)), ("carcinoma", 3, (0.0407, 0.0475, 0.0479)), ("cheating", 2, (0.0792, 0.0792))],
)
def test_latent_classes(data: str, k: int, shares: tuple[float, ...]) -> None:
    """R: poLCA, which takes the empirical information."""
    cells, counts = reference.latent_class_cells(data)
    model = LatentClassAnalysis(k, n_init=20, **EXACT).fit(cells, sample_weight=counts)
    found = model.standard_errors(cells, "empirical", sample_weight=counts)
    assert_allclose(found.weights_[np.argsort(model.weights_)], shares, atol=6e-5)
    if (data, k) == ("carcinoma", 3):
        own = int(np.argmin(np.abs(model.weights_ - 0.373564)))
        assert found.probabilities_["B"].loc[own, 2] == pytest.approx(0.0638, abs=6e-5)
        # Ten of the 21 ratings are certain in their class: both of their levels are held there.
        assert len(found.boundary) == 20
        assert found.n_free == 23 - 10


# --- the judge ---------------------------------------------------------------------------------------------------


def normal_table(holes: float, n: int = 160) -> tuple[pd.DataFrame, np.ndarray]:
    """Three correlated columns in different units; two groups that overlap."""
    rng = np.random.default_rng(8)
    side = rng.random(n) < 0.4
    roots = np.array([[[1.0, 0, 0], [0.5, 0.8, 0], [-0.3, 0.4, 0.6]], [[0.6, 0, 0], [-0.3, 1.1, 0], [0.2, 0.3, 0.9]]])
    x = np.einsum("nij,nj->ni", roots[side.astype(int)], rng.standard_normal((n, 3)))
    x = (x + np.where(side, 2.2, 0.0)[:, None]) * [1.0, 2.0, 4.0] + [5.0, -10.0, 200.0]
    if holes:
        x[rng.random(x.shape) < holes] = np.nan
        x[7] = np.nan
    weight = rng.choice([0.0, 0.25, 1.0, 2.0, 3.5], n)
    return pd.DataFrame(x, columns=["a", "b", "c"]), weight


def mixed_table() -> tuple[pd.DataFrame, np.ndarray]:
    """One column or two of every kind, with holes."""
    rng = np.random.default_rng(9)
    n = 200
    side = (rng.random(n) < 0.45).astype(int)
    frame = pd.DataFrame(
        {
            "x": rng.normal(np.array([0.0, 2.0])[side], 1.0),
            "y": rng.normal(np.array([10.0, 30.0])[side], 15.0),
            "grade": np.array(["high", "low", "mid"], dtype=object)[
                (rng.random(n) * 2.6 + side * 0.5).astype(int).clip(0, 2)
            ],
            "asked": rng.random(n) < np.array([0.3, 0.8])[side],
            "visits": rng.poisson(np.array([2.0, 5.0])[side]).astype(float),
            "heads": rng.binomial(8, np.array([0.3, 0.6])[side]).astype(float),
            "flips": np.full(n, 8.0),
        }
    )
    frame["asked"] = frame["asked"].astype(object)
    for name in ("x", "y", "grade", "asked", "visits", "heads"):
        frame.loc[rng.random(n) < 0.15, name] = None
    return frame, rng.choice([0.5, 1.0, 2.0], n)


def judged(model: Any, frame: pd.DataFrame, weight: Any, kind: str, weight_type: str = "frequency") -> np.ndarray:
    """The covariance of the parameters, in the user's units, by differences."""
    own, table = model.model_, pa.Table.from_pandas(frame, preserve_index=False)
    n, move = judge.moves(own)
    information = -judge.hessian(judge.objective(own, table, weight, move), n)
    if kind != "observed":
        scores = judge.row_scores(own, table, move, n)
        power = 2 if kind == "sandwich" and weight_type == "probability" else 1
        outer = (scores * weight[:, None] ** power).T @ scores
    if kind == "empirical":
        covariance = np.linalg.inv(outer)
    else:
        covariance = np.linalg.inv(information)
        if kind == "sandwich":
            covariance = covariance @ outer @ covariance
    slope = judge.delta(own, move, n)
    if weight_type == "probability" and kind != "sandwich":
        covariance = covariance * weight.mean()
    unit = model.standard_errors(frame, sample_weight=weight).layout.unit[:, None]
    return np.asarray((slope * unit) @ covariance @ (slope * unit).T)


def agree(found: Any, expected: np.ndarray, rtol: float = 2e-4) -> None:
    errors = np.sqrt(np.maximum(np.diagonal(expected), 0))
    assert_allclose(found.errors, errors, rtol=rtol, atol=1e-7 * errors.max())
    both = np.where(errors > 0, errors, 1.0)
    assert_allclose(found.covariance / both[:, None] / both, expected / both[:, None] / both, atol=5 * rtol)


@pytest.mark.parametrize("holes", [0.0, 0.2], ids=["complete", "holes"])
@pytest.mark.parametrize("model", MODELS)
def test_every_covariance_model(model: str, holes: float) -> None:
    frame, weight = normal_table(holes)
    fitted = GaussianMixture(2, covariance_type=model, **EXACT).fit(frame, sample_weight=weight)
    agree(fitted.standard_errors(frame, sample_weight=weight), judged(fitted, frame, weight, "observed"))


@pytest.mark.parametrize("covariance_type", ["VVV", "EEE", "VEV", "VVI", "EVI"])
def test_a_prior_counts(covariance_type: str) -> None:
    frame, weight = normal_table(0.2)
    fitted = GaussianMixture(2, covariance_type=covariance_type, **EXACT | {"prior": "weak"}).fit(
        frame, sample_weight=weight
    )
    agree(fitted.standard_errors(frame, sample_weight=weight), judged(fitted, frame, weight, "observed"))


@pytest.mark.parametrize("kind", ["observed", "empirical", "sandwich"])
@pytest.mark.parametrize("weight_type", ["frequency", "probability"])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_columns_of_every_kind(kind: str, weight_type: str, covariance_type: str) -> None:
    frame, weight = mixed_table()
    fitted = MixtureModel(
        2,
        gaussian=["x", "y"],
        categorical=["grade", "asked"],
        poisson=["visits"],
        binomial={"heads": "flips"},
        covariance_type=covariance_type,
        **EXACT,
    ).fit(frame, sample_weight=weight)
    found = fitted.standard_errors(frame, kind, sample_weight=weight, weight_type=weight_type)
    agree(found, judged(fitted, frame, weight, kind, weight_type))


def test_columns_of_every_kind_with_a_prior() -> None:
    frame, weight = mixed_table()
    fitted = MixtureModel(
        3,
        gaussian=["x", "y"],
        categorical=["grade"],
        poisson=["visits"],
        binomial={"heads": "flips"},
        covariance_type="VVI",
        **EXACT | {"prior": "weak"},
    ).fit(frame, sample_weight=weight)
    agree(fitted.standard_errors(frame, sample_weight=weight), judged(fitted, frame, weight, "observed"))


def test_fixed_weights_have_no_error() -> None:
    rng = np.random.default_rng(2)
    heads = rng.binomial(10, np.where(rng.random(60) < 0.5, 0.3, 0.7)).astype(float)
    heads[3] = np.nan
    frame, weight = pd.DataFrame({"heads": heads}), np.ones(60)
    for missing in ("ignored", "expected"):
        fitted = BinomialMixture(2, trials=10, fix_weights=True, missing=missing, **EXACT).fit(frame)
        found = fitted.standard_errors(frame)
        agree(found, judged(fitted, frame, weight, "observed"))
        assert (found.weights_ == 0).all()
        assert found.boundary == ()


# --- laws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["observed", "empirical", "sandwich"])
def test_weights_repeat_rows_and_partitions_do_not_matter(kind: str) -> None:
    frame, _ = normal_table(0.2)
    times = np.random.default_rng(1).integers(0, 4, len(frame))
    fitted = GaussianMixture(2, **EXACT).fit(frame, sample_weight=times)
    once = fitted.standard_errors(frame, kind, sample_weight=times)
    again = fitted.standard_errors(frame.loc[np.repeat(frame.index, times)], kind)
    assert_allclose(again.covariance, once.covariance, rtol=1e-9, atol=1e-12)
    lazy = dd.from_pandas(frame.assign(times=times), npartitions=5)
    apart = fitted.set_params(executor="local").standard_errors(lazy, kind, sample_weight="times")
    assert_allclose(apart.covariance, once.covariance, rtol=1e-9, atol=1e-12)


def test_a_cluster_finds_the_same() -> None:
    frame, weight = mixed_table()
    lazy = dd.from_pandas(frame[["x", "y", "visits"]].assign(weight=weight), npartitions=3)
    with Client(
        processes=False,
        n_workers=1,
        threads_per_worker=2,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as client:
        model = MixtureModel(2, gaussian=["x", "y"], poisson=["visits"], random_state=0, executor=client)
        model.fit(lazy, sample_weight="weight")
        found = model.standard_errors(lazy, "sandwich", sample_weight="weight", weight_type="probability")
        drawn = model.bootstrap(lazy, 5, random_state=0, sample_weight="weight")
    model.set_params(executor="local")
    own = model.standard_errors(frame, "sandwich", sample_weight=weight, weight_type="probability")
    assert_allclose(found.covariance, own.covariance, rtol=1e-6, atol=1e-12)
    assert_allclose(
        drawn.replicates, model.bootstrap(lazy, 5, random_state=0, sample_weight="weight").replicates, rtol=1e-6
    )


def test_the_size_of_probability_weights_does_not_matter() -> None:
    frame, weight = normal_table(0.0)
    fitted = GaussianMixture(2, covariance_type="EEE", **EXACT).fit(frame, sample_weight=weight)
    for kind in ("observed", "empirical", "sandwich"):
        own, larger = (
            fitted.standard_errors(frame, kind, sample_weight=w, weight_type="probability")
            for w in (weight, 100 * weight)
        )
        assert_allclose(larger.errors, own.errors, rtol=1e-9)
    many = GaussianMixture(2, covariance_type="EEE", **EXACT).fit(frame, sample_weight=100 * weight)
    few = many.standard_errors(frame, sample_weight=100 * weight)
    assert_allclose(10 * few.errors, fitted.standard_errors(frame, sample_weight=weight).errors, rtol=1e-5)


@pytest.mark.parametrize("kind", ["observed", "empirical", "sandwich"])
def test_rows_and_weights_that_were_not_fitted(kind: str) -> None:
    """Whoever forgets the weights would get standard errors of another fit."""
    frame, weight = normal_table(0.2)
    fitted = GaussianMixture(2, **EXACT).fit(frame, sample_weight=weight)
    with pytest.raises(DataError, match="sample_weight as in fit"):
        fitted.standard_errors(frame, kind)
    with pytest.raises(DataError, match="give the fitted table"):
        fitted.standard_errors(frame[:50], kind, sample_weight=weight[:50])
    with pytest.raises(DataError, match="sample_weight as in fit"):
        fitted.bootstrap(frame, 3, random_state=0)
    with pytest.warns(ConvergenceWarning, match="no maximum on these rows"):
        fitted.standard_errors(frame, kind, sample_weight=np.roll(weight, 1))
    with pytest.warns(ConvergenceWarning, match="no maximum on these rows"):
        fitted.standard_errors(frame + np.arange(len(frame.columns)) / 2, kind, sample_weight=weight)


def test_they_are_short_in_print_and_a_table_in_a_notebook() -> None:
    frame, weight = normal_table(0.2)
    found = GaussianMixture(2, **EXACT).fit(frame, sample_weight=weight).standard_errors(frame, sample_weight=weight)
    assert repr(found) == f"StandardErrors(observed, of {len(found.names)} parameters)"
    assert found._repr_html_() == found.to_frame().to_html()


def test_units_of_columns_do_not_matter() -> None:
    frame, weight = normal_table(0.2)
    unit = np.array([1.0, 1e3, 1e-4])
    fitted = [GaussianMixture(2, **EXACT).fit(frame * u, sample_weight=weight) for u in (1.0, unit)]
    small, large = (
        f.standard_errors(frame * u, sample_weight=weight) for f, u in zip(fitted, (1.0, unit), strict=True)
    )
    assert small.means_ is not None
    assert small.covariances_ is not None
    assert_allclose(large.means_, small.means_ * unit, rtol=1e-5)
    assert_allclose(large.covariances_, small.covariances_ * unit[:, None] * unit, rtol=1e-5)


def test_one_normal_has_the_textbook_errors() -> None:
    frame, _ = normal_table(0.0)
    fitted = GaussianMixture(1, **EXACT).fit(frame)
    found, n = fitted.standard_errors(frame), len(frame)
    s = fitted.covariances_[0]
    variance = np.diagonal(s)
    assert_allclose(found.means_[0], np.sqrt(variance / n), rtol=1e-9)
    assert_allclose(found.covariances_[0], np.sqrt((s**2 + np.outer(variance, variance)) / n), rtol=1e-9)
    assert found.weights_ == [0.0]


# --- the record --------------------------------------------------------------------------------------------------


def test_shapes_and_names_follow_the_estimator() -> None:
    frame, weight = mixed_table()
    columns: dict[str, Any] = {
        "gaussian": ["y"],
        "categorical": ["grade"],
        "binomial": {"heads": "flips", "visits": 20},
    }
    fitted = MixtureModel(2, **columns, **EXACT | {"prior": "weak"}).fit(frame, sample_weight=weight)
    found = fitted.standard_errors(frame, sample_weight=weight)
    assert found.rates_ is None
    assert found.covariances_.shape == (2, 1, 1)
    assert list(found.probabilities_) == list(fitted.probabilities_)
    assert found.probabilities_["grade"].columns.equals(fitted.probabilities_["grade"].columns)
    table = found.to_frame()
    assert list(table.index) == list(found.names)
    assert table.loc["means[1, y]", "estimate"] == pytest.approx(fitted.means_[1, 0])
    assert table.loc["means[1, y]", "standard_error"] == found.means_[1, 0]
    assert table.loc["covariances[0, y, y]", "standard_error"] == found.covariances_[0, 0, 0]
    assert table.loc["probabilities[1, grade=mid]", "estimate"] == pytest.approx(
        fitted.probabilities_["grade"].loc[1, "mid"]
    )
    assert table.loc["probabilities[1, grade=mid]", "standard_error"] == found.probabilities_["grade"].loc[1, "mid"]
    assert table.loc["probabilities[0, visits]", "standard_error"] == found.probabilities_["visits"][0]
    assert set(table["parameter"]) == {"weights", "means", "covariances", "probabilities"}
    assert found.n_free == fitted.model_.n_parameters


def test_intervals_stay_where_parameters_are_defined() -> None:
    model = PoissonMixture(2, **EXACT).fit(reference.DEATHS, sample_weight=reference.DEATHS_DAYS)
    found = model.standard_errors(reference.DEATHS, sample_weight=reference.DEATHS_DAYS)
    low, high = found.interval(0.9999)
    assert (low > 0).all()
    assert (high[:2] < 1).all()
    assert_allclose(low[:2] + high[1::-1], 1.0)
    narrow = found.to_frame(0.5)
    assert (narrow["low"] > low).all()
    assert (narrow["high"] < high).all()
    rate = found.names.index("rates[1, deaths]")
    middle = np.log([low[rate], high[rate]])
    assert middle.mean() == pytest.approx(np.log(found.estimates[rate]))
    assert np.diff(middle)[0] == pytest.approx(2 * 3.8905919 * found.errors[rate] / found.estimates[rate])


def test_a_boundary_is_held_and_named() -> None:
    """Where one answer gives the class away, all that is left are shares of known groups."""
    rng = np.random.default_rng(3)
    side = rng.random(300) < 0.5
    frame = pd.DataFrame({"q0": side, "q1": rng.random(300) < np.where(side, 0.7, 0.4), "q2": rng.random(300) < 0.5})
    fitted = LatentClassAnalysis(2, init=side.astype(int), **EXACT).fit(frame)
    for kind in ("observed", "empirical"):
        found = fitted.standard_errors(frame, kind)
        assert set(found.boundary) == {f"probabilities[{k}, q0={level}]" for k in (0, 1) for level in (False, True)}
        assert found.n_free == 5
        table = found.to_frame().loc[list(found.boundary)]
        assert (table["standard_error"] == 0).all()
        assert (table["low"] == table["estimate"]).all()
        assert (table["high"] == table["estimate"]).all()
        own = frame["q1"][side]
        assert_allclose(found.weights_, np.sqrt(side.mean() * (1 - side.mean()) / 300), rtol=1e-6)
        # The empirical information has what q1 and q2 happen to have in common.
        digits = 1e-6 if kind == "observed" else 5e-3
        assert found.probabilities_["q1"].loc[1, True] == pytest.approx(own.std(ddof=0) / np.sqrt(len(own)), rel=digits)


# --- bad input ---------------------------------------------------------------------------------------------------


def test_bad_choices() -> None:
    frame, _ = normal_table(0.0)
    fitted = GaussianMixture(1, random_state=0).fit(frame)
    with pytest.raises(ConfigurationError, match="kind must be one of 'observed', 'empirical', 'sandwich'"):
        fitted.standard_errors(frame, "hessian")
    with pytest.raises(ConfigurationError, match="weight_type must be one of"):
        fitted.standard_errors(frame, weight_type="survey")
    with pytest.raises(ConfigurationError, match="level"):
        fitted.standard_errors(frame).interval(95)
    with pytest.raises(ConfigurationError, match="level must be between"):
        fitted.standard_errors(frame).interval("95")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no rows"):
        fitted.standard_errors(frame.iloc[:0])
    with pytest.raises(DataError, match="weights are all zero"):
        fitted.standard_errors(frame, sample_weight=np.zeros(len(frame)))
    with pytest.raises(DataError, match="column 'b' is not in"):
        fitted.standard_errors(frame[["a", "c"]])


def test_parameters_that_the_table_does_not_tell_apart() -> None:
    """Two classes of two yes/no questions have five parameters, but the table only three frequencies."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"a": rng.random(99) < 0.4, "b": rng.random(99) < 0.6})
    fitted = LatentClassAnalysis(2, **EXACT).fit(frame)
    for kind in ("observed", "empirical", "sandwich"):
        with pytest.raises(DataError, match="information is singular"):
            fitted.standard_errors(frame, kind)


def test_too_many_parameters() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((400, 36))
    fitted = GaussianMixture(4, tol=1.0, random_state=0).fit(x)
    q = 36 + 36 * 37 // 2
    m = 4 + 4 * q
    assert louis_cost(fitted.model_) == m * (m + 1) // 2 + 4 * q * (q + 1) // 2
    with pytest.raises(ConfigurationError, match=r"sums a row.*bootstrap"):
        fitted.standard_errors(x)
