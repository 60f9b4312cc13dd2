"""Single precision ends where double precision ends, to the digits that it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dask_em import GaussianMixture, MixtureModel, kernels
from dask_em.errors import ConfigurationError

K = 3


def rows(n: int, spread: float, holes: float) -> np.ndarray:
    """Three groups in the units of a table, some cells missing."""
    rng = np.random.default_rng(5)
    group = rng.integers(0, K, n)
    X = (spread * rng.normal(size=(K, 4)))[group] + rng.normal(size=(n, 4))
    X[rng.random(X.shape) < holes] = np.nan
    return X * [1.0, 50.0, 0.01, 3.0] + [0.0, 1000.0, 5.0, -2.0]


def both(model: Any, X: Any, **fit: Any) -> list[Any]:
    """The model fitted in either precision, by EM to its end from the same labels."""
    labels = np.random.default_rng(0).integers(0, K, len(X))
    fitted = []
    for precision in ("double", "single"):
        model.set_params(precision=precision, init=labels, tol=1e-7)
        fitted.append(type(model)(**model.get_params()).fit(X, **fit))
    return fitted


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("holes", [0.0, 0.15])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_single_ends_where_double_ends(
    covariance_type: str, holes: float, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "WORTHWHILE", 0 if compiled else np.inf)
    X = rows(3000, 4.0, holes)
    double, single = both(GaussianMixture(K, covariance_type=covariance_type), X)
    scale = np.nanstd(X, axis=0)
    assert single.converged_
    assert abs(single.log_likelihood_ - double.log_likelihood_) < 2e-6 * len(X)
    np.testing.assert_allclose(single.means_ / scale, double.means_ / scale, atol=1e-4)
    units = scale[:, None] * scale
    np.testing.assert_allclose(single.covariances_ / units, double.covariances_ / units, atol=1e-4)
    assert (single.means_ != double.means_).any()


def test_a_tight_component_far_away_is_scanned_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "WORTHWHILE", 0)
    rng = np.random.default_rng(1)
    X = np.concatenate(
        [rng.normal(size=(500, 2)), 40 + 0.01 * rng.normal(size=(500, 2)), rng.normal(size=(500, 2)) - 9]
    )
    double, single = both(GaussianMixture(K, prior=None), X)
    near = double.means_.argmax(axis=0)[0]
    np.testing.assert_allclose(single.means_[near], double.means_[near], atol=1e-5)
    np.testing.assert_allclose(single.covariances_[near], double.covariances_[near], rtol=1e-2)


def test_other_columns_stay_as_they_are() -> None:
    X = pd.DataFrame(rows(2000, 4.0, 0.1)[:, :2], columns=["a", "b"])
    X["kind"] = np.where(np.random.default_rng(2).random(len(X)) < 0.3, "x", "y")
    double, single = both(MixtureModel(K, gaussian=["a", "b"], categorical=["kind"]), X)
    np.testing.assert_allclose(single.weights_, double.weights_, atol=1e-5)


def test_what_precision_can_be() -> None:
    with pytest.raises(ConfigurationError, match="precision must be 'double' or 'single'"):
        GaussianMixture(1, precision="half").fit([[0.0], [1.0]])
