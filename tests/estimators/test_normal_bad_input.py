"""What the multivariate normal refuses, or warns of, in one clear sentence without a data value."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import dask_em.data.gather
from dask_em import InverseWishart, MultivariateNormal, Ridge
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError, ObjectiveDecreasedError
from tests.estimators.normal_reference import holes, never_together, vector


def collinear(share: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=(3, 100))
    X = pd.DataFrame({"a": a, "other": b, "sum": a + 2 * c, "c": c})
    return X.mask(rng.random(X.shape) < share)


BAD_TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "all missing": ({"c1": np.nan}, "column 'c1' has no observed cell: leave it out"),
    "all null": ({"c1": None}, "column 'c1' has no observed cell: leave it out"),
    "constant": ({"c1": 98765.4321}, "column 'c1' is constant over 60 sample.*leave it out"),
    "constant with holes": ({"c1": [98765.4321, None] * 30}, "column 'c1' is constant.*leave it out"),
    "infinite": ({"c1": [*range(59), -np.inf]}, "column 'c1' holds 1 infinite value.*missing or finite"),
    "text": ({"c1": "CANARY"}, "column 'c1' is not numeric.*convert"),
    "mixed": ({"c1": ["CANARY", *range(59)]}, "column 'c1' mixes types"),
    "dates": ({"c1": pd.date_range("1987-06-05", periods=60)}, "column 'c1' is not numeric"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_column_is_named(name: str) -> None:
    columns, message = BAD_TABLES[name]
    with pytest.raises(DataError, match=message) as caught:
        MultivariateNormal().fit(holes().assign(**columns))
    assert "98765" not in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_no_rows_and_no_columns() -> None:
    with pytest.raises(DataError, match="no rows"):
        MultivariateNormal().fit(holes().iloc[:0])
    with pytest.raises(ConfigurationError, match=r"0 feature.*add columns"):
        MultivariateNormal().fit(holes()[[]])
    with pytest.raises(DataError, match="no observed cell"):
        MultivariateNormal().fit(np.full((5, 2), np.nan))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([0.0] * 60, "row weights are all zero"),
        ([1.0] * 59 + [-1.0], "negative"),
        ([1.0] * 59 + [np.nan], "missing"),
        ([1.0] * 59, "59 entries for 60 rows"),
        ("nowhere", "'nowhere' is not in the table"),
    ],
)
def test_bad_weights(weight: Any, message: str) -> None:
    with pytest.raises((DataError, ConfigurationError), match=message):
        MultivariateNormal().fit(holes(), sample_weight=weight)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_collinear_columns_are_named_and_held_by_the_weak_prior(share: float) -> None:
    with pytest.warns(UserWarning, match="columns 'a', 'sum', 'c' are collinear.*leave one of them out") as caught:
        model = MultivariateNormal().fit(collinear(share))
    assert caught[0].filename == __file__
    assert np.isfinite(vector(model.mean_, model.covariance_)).all()
    assert np.isfinite(vector(model.standard_errors_.mean, model.standard_errors_.covariance)).all()
    assert np.linalg.eigvalsh(model.covariance_)[0] > 0
    assert 0 <= model.worst_fraction_missing_ < 1


def test_collinear_columns_have_no_likelihood() -> None:
    with pytest.raises(DataError, match=r"no maximum, because columns 'a', 'sum', 'c' are collinear.*prior='weak'"):
        MultivariateNormal(prior=None).fit(collinear())


def test_collinear_columns_with_holes_have_no_likelihood() -> None:
    for seed in range(12):
        with pytest.raises(DataError, match="the likelihood has no maximum, because"):
            MultivariateNormal(prior=None).fit(collinear(0.2, seed))


def test_only_collinear_columns_are_named() -> None:
    """Of ten tables that differ in which cells are missing, each may be refused with these columns only."""
    named = set()
    for seed in range(10):
        X = collinear(seed=seed)
        X = pd.DataFrame({"a": X["a"], "double": 2 * X["a"] + 3, "c": X["c"]})
        try:
            MultivariateNormal(prior=None).fit(X.mask(np.random.default_rng(seed).random(X.shape) < 0.2))
        except (DataError, ObjectiveDecreasedError) as error:
            named |= {name for name in X if f"'{name}'" in str(error)}
    assert named == {"a", "double"}


def test_collinear_columns_are_named_whatever_the_unit_of_the_weights() -> None:
    with pytest.warns(UserWarning, match="columns 'a', 'sum', 'c' are collinear"):
        MultivariateNormal().fit(collinear(), sample_weight=np.full(100, 0.01))


def test_collinear_columns_are_named_where_rows_are_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_em.data.gather, "MAX_BYTES", 100)
    with pytest.warns(UserWarning, match="columns 'a', 'sum', 'c' are collinear"):
        MultivariateNormal().fit(collinear())


@pytest.mark.parametrize(
    "X", [collinear(), np.random.default_rng(0).normal(size=(4, 7))], ids=["collinear", "few rows"]
)
def test_no_maximum_where_rows_are_scanned(X: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_em.data.gather, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="the likelihood has no maximum, because"):
        MultivariateNormal(prior=None).fit(X)


def test_a_question_that_follows_from_an_answer_is_not_collinear() -> None:
    """Only smokers are asked how much they smoke, so `smoked` is constant where all is observed."""
    rng = np.random.default_rng(8)
    smoked = rng.integers(0, 2, 400).astype(float)
    X = pd.DataFrame({"smoked": smoked, "number": np.where(smoked == 1, rng.normal(10, 3, 400), np.nan)})
    X["pulse"] = 70 + 5 * smoked + rng.normal(size=400)
    assert np.isfinite(MultivariateNormal().fit(X).covariance_).all()


def test_nearly_collinear_columns_are_not_called_collinear() -> None:
    X = collinear()
    X["sum"] += 1e-3 * np.random.default_rng(5).normal(size=len(X))
    for prior in (None, "weak"):
        model = MultivariateNormal(prior=prior).fit(X)
    assert_allclose(model.mean_, X.mean(), rtol=1e-9)


def test_fewer_rows_than_columns_have_no_likelihood() -> None:
    for seed in range(20):
        with pytest.raises(DataError, match=r"no maximum, because there are too few rows.*prior='weak' or Ridge"):
            MultivariateNormal(prior=None).fit(np.random.default_rng(seed).normal(size=(4, 7)))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("d", [2, 3, 5])
def test_a_pair_that_is_never_seen_together_has_no_errors(d: int, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = MultivariateNormal(prior=None, max_iter=300).fit(never_together(d=d, seed=seed))
    for name in ("standard_errors_", "fraction_missing_information_", "worst_fraction_missing_"):
        with pytest.raises(DataError, match=r"never observed together.*prior=Ridge\(df\)"):
            getattr(model, name)


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"prior": "strong"}, "prior must be 'weak', None, Ridge"),
    ({"prior": 1.0}, "prior must be 'weak', None, Ridge"),
    ({"prior": Ridge}, "prior must be 'weak', None, Ridge"),
    ({"tol": -1e-9}, "tol must be 0 or more"),
    ({"tol": np.nan}, "tol must be 0 or more"),
    ({"tol": np.inf}, "tol must be 0 or more"),
    ({"tol": "small"}, "tol must be a number"),
    ({"max_iter": 0}, "max_iter must be at least 1"),
    ({"max_iter": 2.5}, "max_iter must be an integer"),
    ({"max_iter": True}, "max_iter must be an integer"),
    ({"prior": InverseWishart(9, np.eye(2))}, r"must have the shape \(3, 3\), not \(2, 2\)"),
    ({"prior": InverseWishart(9, np.ones(3))}, r"must have the shape \(3, 3\), not \(3,\)"),
    ({"prior": InverseWishart(2, np.eye(3))}, "needs df above 2"),
    ({"prior": InverseWishart(9, -np.eye(3))}, "symmetric and positive definite"),
    ({"prior": InverseWishart(9, np.tri(3))}, "symmetric and positive definite"),
    ({"prior": InverseWishart(9, np.full((3, 3), np.nan))}, "symmetric and positive definite"),
    ({"executor": "cloud"}, "executor 'cloud' is not known"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS, ids=lambda v: str(v)[:40])
def test_a_bad_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MultivariateNormal(**settings).fit(holes())


@pytest.mark.parametrize("df", [-1.0, np.nan, np.inf, *(pytest.param(v) for v in ("5", None, [1.0]))])
def test_a_bad_ridge(df: Any) -> None:
    with pytest.raises(ConfigurationError, match="Ridge needs df"):
        Ridge(df)


@pytest.mark.parametrize(
    "prior",
    [
        InverseWishart("9", np.eye(3)),
        InverseWishart(None, np.eye(3)),
        InverseWishart(np.inf, np.eye(3)),
        InverseWishart(9, "identity"),
        InverseWishart(9, [[1.0, 0.0], [0.0]]),
    ],
    ids=["df is text", "df is None", "df is infinite", "scale is text", "scale is ragged"],
)
def test_an_inverse_wishart_of_no_numbers(prior: InverseWishart) -> None:
    with pytest.raises(ConfigurationError, match="InverseWishart"):
        MultivariateNormal(prior=prior).fit(holes())


def test_too_few_steps_are_said() -> None:
    X = holes(share=0.5)
    with pytest.warns(ConvergenceWarning, match="max_iter=3 before it converged: raise max_iter or tol") as caught:
        model = MultivariateNormal(max_iter=3).fit(X)
    assert caught[0].filename == __file__
    assert (model.converged_, model.n_iter_) == (False, 3)
    assert "max_iter" in model.stopped_because_
