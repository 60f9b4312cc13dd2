"""On complete data scikit-learn's GaussianMixture is the same algorithm: from the same start, the same numbers.

Compared by score after equal numbers of updates. The tables are multiples of 2^-20 and are moved and scaled by powers of
two, so that a shift or a scale changes no digit of them: where scikit-learn itself loses digits far from the origin (it
subtracts squares of means for all but full covariances), it gets the table before the shift, which is the same problem.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sklearn.exceptions
import sklearn.mixture
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from dask_em import GaussianMixture
from dask_em.errors import ConvergenceWarning

COVARIANCE_TYPES = ["full", "tied", "diag", "spherical"]
SHAPES = [(400, 1, 2), (320, 3, 2), (500, 2, 4), (600, 6, 3)]
"""Rows, columns, components."""
MILLION = 2.0**20

Array = NDArray[np.float64]


def table(n: int, d: int, k: int) -> Array:
    """Overlapping clouds, so that twenty updates are far from enough."""
    rng = np.random.default_rng(n + 10 * d + k)
    centres = rng.standard_normal((k, d))
    roots = 0.3 * rng.standard_normal((k, d, d)) + np.eye(d)
    component = rng.integers(0, k, n)
    noise = np.einsum("nij,nj->ni", roots[component], rng.standard_normal((n, d)))
    return np.asarray(np.round((centres[component] + noise) * MILLION) / MILLION)


def start(X: Array, k: int, covariance_type: str) -> tuple[Array, Array, Array]:
    """Weights, means and (k, d, d) covariances to start from, of the kind that the model can have."""
    rng = np.random.default_rng(k)
    means = X[rng.choice(len(X), k, replace=False)]
    covariance = np.cov(X.T).reshape(X.shape[1], X.shape[1])
    if covariance_type in ("diag", "spherical"):
        covariance = np.diag(np.diag(covariance))
    if covariance_type == "spherical":
        covariance = np.eye(len(covariance)) * np.diag(covariance).mean()
    growth = np.ones(k) if covariance_type == "tied" else np.linspace(0.7, 1.3, k)
    weights = np.arange(1.0, k + 1)
    return weights / weights.sum(), means, growth[:, None, None] * covariance


def compact(covariances: Array, covariance_type: str) -> Array:
    """(k, d, d) covariances in scikit-learn's shape for the type."""
    if covariance_type == "tied":
        return covariances[0]
    if covariance_type == "diag":
        return np.diagonal(covariances, axis1=1, axis2=2)
    return covariances[:, 0, 0] if covariance_type == "spherical" else covariances


def theirs(X: Array, covariance_type: str, k: int, n_iter: int) -> sklearn.mixture.GaussianMixture:
    weights, means, covariances = start(X, k, covariance_type)
    model = sklearn.mixture.GaussianMixture(
        k,
        covariance_type=covariance_type,
        reg_covar=0,
        tol=0,
        max_iter=n_iter,
        weights_init=weights,
        means_init=means,
        precisions_init=compact(np.linalg.inv(covariances), covariance_type),
        random_state=0,
    )
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        return model.fit(X)


def ours(X: Array, covariance_type: str, init: tuple[Array, Array, Array], n_iter: int) -> GaussianMixture:
    weights, means, covariances = init
    model = GaussianMixture(
        len(weights),
        covariance_type=covariance_type,
        prior=None,
        tol=0,
        max_iter=n_iter,
        weights_init=weights,
        means_init=means,
        covariances_init=covariances,
    )
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        return model.fit(X)


@pytest.mark.parametrize("n_iter", [1, 5, 20])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_same_updates(covariance_type: str, shape: tuple[int, int, int], n_iter: int) -> None:
    n, d, k = shape
    X = table(n, d, k)
    them = theirs(X, covariance_type, k, n_iter)
    us = ours(X, covariance_type, start(X, k, covariance_type), n_iter)
    assert us.n_iter_ == them.n_iter_ == n_iter
    assert us.score(X) == pytest.approx(them.score(X), abs=1e-8)
    assert us.log_likelihood_ == pytest.approx(n * us.score(X), rel=1e-12)
    assert us.bic(X) == pytest.approx(them.bic(X), rel=1e-8)
    assert us.aic(X) == pytest.approx(them.aic(X), rel=1e-8)
    assert_allclose(us.weights_, them.weights_, rtol=1e-7)
    assert_allclose(us.means_, them.means_, rtol=1e-7, atol=1e-8)
    assert us.covariances_.shape == (k, d, d)
    assert_allclose(compact(us.covariances_, covariance_type), them.covariances_, rtol=1e-7, atol=1e-8)
    assert_allclose(us.predict_proba(X), them.predict_proba(X), atol=1e-7)
    assert_allclose(us.score_samples(X), them.score_samples(X), rtol=1e-7)
    assert (us.predict(X) == them.predict(X)).all()


@pytest.mark.parametrize("n_iter", [1, 20])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_same_updates_in_other_units(covariance_type: str, n_iter: int) -> None:
    """One column a million times larger. A single variance for all columns then means the large column's."""
    X = table(320, 3, 2) * [1.0, MILLION, 1.0]
    them = theirs(X, covariance_type, 2, n_iter)
    us = ours(X, covariance_type, start(X, 2, covariance_type), n_iter)
    assert us.score(X) == pytest.approx(them.score(X), abs=1e-8)


@pytest.mark.parametrize("n_iter", [1, 5, 20])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_same_updates_far_from_the_origin(covariance_type: str, n_iter: int) -> None:
    X = table(320, 3, 2)
    shift = MILLION * np.array([1.0, -1.0, 0.0])
    far = X + shift
    assert ((far - shift) == X).all()
    weights, means, covariances = start(X, 2, covariance_type)
    us = ours(far, covariance_type, (weights, means + shift, covariances), n_iter)
    assert us.score(far) == pytest.approx(theirs(X, covariance_type, 2, n_iter).score(X), abs=1e-8)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_same_updates_scaled_and_far(covariance_type: str) -> None:
    """These models do not care for units: densities change by the scales' product and nothing else does."""
    X = table(320, 3, 2)
    scale, shift = np.array([MILLION, 1.0, 1.0 / MILLION]), np.array([MILLION**2, MILLION, 1.0])
    weights, means, covariances = start(X, 2, covariance_type)
    init = weights, means * scale + shift, covariances * np.outer(scale, scale)
    far = X * scale + shift
    us = ours(far, covariance_type, init, 20)
    expected = theirs(X, covariance_type, 2, 20).score(X) - np.log(scale).sum()
    assert us.score(far) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_new_rows_score_the_same(covariance_type: str) -> None:
    X, new = table(500, 2, 4), table(300, 2, 4) * 1.5
    them = theirs(X, covariance_type, 4, 5)
    us: Any = ours(X, covariance_type, start(X, 4, covariance_type), 5)
    assert_allclose(us.score_samples(new), them.score_samples(new), rtol=1e-7)
    assert us.score(new) == pytest.approx(them.score(new), rel=1e-8)
