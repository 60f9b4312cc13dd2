"""Ordered and yes/no columns given the others: against probit regression by a general optimiser, and against what was hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.stats import norm

from dask_em import Imputer
from dask_em.imputation import ordered
from dask_em.imputation.ordered import Probits

LEVELS = list("abcde")


def table(n: int, cuts: Sequence[float], rho: float, seed: int = 0) -> pd.DataFrame:
    """x, and y cut from a normal that has the correlation rho with x."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    latent = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=n)
    codes = np.digitize(latent, cuts)
    kind = pd.Categorical.from_codes(codes, LEVELS[: len(cuts) + 1], ordered=True)
    return pd.DataFrame({"x": 100 + 15 * x, "y": kind if len(cuts) > 1 else codes == 1})


def by_optimiser(x: np.ndarray, codes: np.ndarray, weight: np.ndarray, n_levels: int) -> np.ndarray:
    """Slope and cuts of a probit regression."""

    def negative(theta: np.ndarray) -> float:
        edges = np.concatenate([[-np.inf], np.sort(theta[1:]), [np.inf]])
        share = norm.cdf(edges[codes + 1] - theta[0] * x) - norm.cdf(edges[codes] - theta[0] * x)
        return -float(weight @ np.log(np.maximum(share, 1e-300)))

    start = np.concatenate([[0.1], np.linspace(-1, 1, n_levels - 1)])
    return minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 20000}).x


@pytest.mark.parametrize("cuts", [[0.4], [-1.0, 0.3], [-1.5, -0.2, 0.4, 1.0]], ids=len)
def test_one_predictor_is_a_probit_regression(cuts: list[float]) -> None:
    frame = table(3000, cuts, 0.6)
    weight = np.random.default_rng(1).integers(1, 4, len(frame)).astype(float)
    imputer = Imputer(n_replicates=0, random_state=0).fit(frame, sample_weight=weight)
    codes = frame["y"].cat.codes.to_numpy() if len(cuts) > 1 else frame["y"].to_numpy().astype(int)
    x = (frame["x"] - 100) / 15
    expected = by_optimiser(x.to_numpy(), codes.astype(int), weight, len(cuts) + 1)
    edges = np.concatenate([[-np.inf], expected[1:], [np.inf]])
    shares = np.diff(norm.cdf(edges[:, None] - expected[0] * x.to_numpy()), axis=0).T
    np.testing.assert_allclose(imputer.predict_proba(frame, "y"), shares, atol=2e-3)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("cuts", [[0.5], [1.2], [-0.5, 0.5, 1.2]], ids=str)
def test_what_was_hidden_given_another_column_is_found_again(cuts: list[float], rho: float) -> None:
    truth = table(20_000, cuts, rho)
    rng = np.random.default_rng(3)
    hidden = rng.random(len(truth)) < np.where(truth["x"] > 100, 0.7, 0.05)
    frame = truth.astype({"y": "boolean"}) if len(cuts) == 1 else truth.copy()
    frame.loc[hidden, "y"] = pd.NA
    imputer = Imputer(n_replicates=5, random_state=0).fit(frame)
    expected = truth.loc[hidden, "y"].value_counts(normalize=True, sort=False)
    found = imputer.predict_proba(frame, "y")[hidden].mean()
    np.testing.assert_allclose(found, expected.sort_index(), atol=0.025)
    drawn = pd.concat(imputer.draw(frame, m=5))["y"].iloc[np.flatnonzero(np.tile(hidden, 5))]
    np.testing.assert_allclose(
        drawn.value_counts(normalize=True, sort=False).sort_index(), expected.sort_index(), atol=0.025
    )


def test_ordered_columns_that_are_missing_together_keep_their_table() -> None:
    rng = np.random.default_rng(5)
    n = 20_000
    one = rng.normal(size=n)
    two, x = 0.7 * one + np.sqrt(0.51) * rng.normal(size=n), 0.6 * one + 0.8 * rng.normal(size=n)
    truth = pd.DataFrame(
        {
            "x": x,
            "a": pd.Categorical.from_codes(np.digitize(one, [-1, 0.5, 1.5]), list("abcd"), ordered=True),
            "b": pd.Categorical.from_codes(np.digitize(two, [0.3, 1.8]), list("pqr"), ordered=True),
        }
    )
    hidden = rng.random(n) < norm.cdf(x)
    frame = truth.copy()
    frame.loc[hidden, ["a", "b"]] = None
    drawn = Imputer(n_replicates=2, random_state=0).fit(frame).draw(frame, m=2)
    expected = pd.crosstab(truth["a"][hidden], truth["b"][hidden], normalize=True)
    for own in drawn:
        found = pd.crosstab(own["a"][hidden], own["b"][hidden], normalize=True)
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_level_that_follows_from_the_others_has_finite_answers() -> None:
    frame = table(500, [0.0], 0.5)
    frame["y"] = frame["x"] > 100
    frame = frame.astype({"y": "boolean"})
    frame.loc[::5, "y"] = pd.NA
    imputer = Imputer(n_replicates=3, random_state=0).fit(frame)
    probability = imputer.predict_proba(frame, "y").to_numpy()
    assert np.isfinite(probability).all()
    far = np.abs(frame["x"] - 100) > 8
    assert (probability[far, 1] > 0.5).tolist() == (frame["x"][far] > 100).tolist()


def test_a_rare_level_may_be_absent_from_a_replicate() -> None:
    frame = table(300, [2.4], 0.3, seed=1)
    assert 0 < frame["y"].sum() < 4
    frame = frame.astype({"y": "boolean"})
    frame.loc[::3, "y"] = frame["y"][::3].where(frame["y"][::3])
    imputer = Imputer(n_replicates=10, random_state=0).fit(frame)
    assert all(p.possible for p in imputer.imputation_.probits)
    assert len(imputer.imputation_.probits) == 11


@pytest.mark.parametrize("spare", [0.0, 0.4])
def test_the_gradient_is_that_of_the_log_likelihood(spare: float) -> None:
    rng = np.random.default_rng(0)
    n, cuts = 400, np.array([-0.7, 0.1, 1.4])
    centre, level, weight = rng.normal(size=n), rng.integers(0, 4, n), rng.random(n)

    def sums(theta: Any) -> tuple[float, np.ndarray, np.ndarray]:
        probits = Probits(theta[:1], theta[None, 1:])
        log_likelihood, gradient, information = np.zeros(1), np.zeros((1, 4)), np.zeros((1, 4, 4))
        ordered._accumulate(probits, 0, centre, np.full(n, spare), level, weight, log_likelihood, gradient, information)
        return float(log_likelihood[0]), gradient[0], information[0]

    theta = np.concatenate([[0.8], cuts])
    expected = approx_fprime(theta, lambda t: sums(t)[0], 1e-6)
    _, gradient, information = sums(theta)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4)
    assert np.linalg.eigvalsh(information).min() > 0
    np.testing.assert_array_equal(information, information.T)


def test_rows_with_other_holes_do_not_flatten_the_slope() -> None:
    """What a missing predictor leaves open widens the answers of its row, and of no other."""
    rng = np.random.default_rng(0)
    n = 20_000
    x = rng.normal(size=(n, 2))
    y = x @ [0.9, 1.2] + rng.normal(size=n) > 0.5
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": pd.array(y, dtype="boolean")})
    without = rng.random(n) < 0.6
    frame.loc[without, "b"] = np.nan
    found = Imputer(n_replicates=0, random_state=0).fit(frame).predict_proba(frame, "y")[True].to_numpy()
    whole = norm.cdf(x @ [0.9, 1.2] - 0.5)
    margin = norm.cdf((0.9 * x[:, 0] - 0.5) / np.sqrt(1 + 1.2**2))
    np.testing.assert_allclose(found[~without], whole[~without], atol=0.03)
    np.testing.assert_allclose(found[without], margin[without], atol=0.03)
