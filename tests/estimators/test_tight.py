"""Components far tighter than they are far from the origin: sums in the expanded form do not hold their variance, and they are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dask_em import GaussianMixture
from dask_em.errors import DataError

CLOUD, TIGHT = 1000, 1000


def clouds(d: int, deviation: float = 1e-5) -> tuple[np.ndarray, np.ndarray]:
    """Rows about 0 with deviation 1 and about 1000 with a tiny one, and which is which."""
    rng = np.random.default_rng(d)
    wide, tight = rng.normal(size=(CLOUD, d)), 1e3 + deviation * rng.normal(size=(TIGHT, d))
    return np.concatenate([wide, tight]), np.repeat([0, 1], [CLOUD, TIGHT])


@pytest.mark.parametrize("start", ["labels", "kmeans++"])
@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_a_tight_component_of_many_rows_is_found(d: int, kind: str, start: str) -> None:
    X, own = clouds(d)
    init: Any = own if start == "labels" else start
    model = GaussianMixture(2, covariance_type=kind, prior=None, init=init, random_state=0).fit(X)
    assert model.converged_
    for k, rows in enumerate((X[own == 0], X[own == 1])):
        at = int(np.argmin(np.abs(model.means_[:, 0] - rows[:, 0].mean())))
        centred = rows - rows.mean(axis=0)
        expected = centred.T @ centred / len(rows)
        if kind != "full":
            expected = np.diag(np.diag(expected))
        if kind == "spherical":
            expected = np.eye(d) * np.trace(expected) / d
        assert np.abs(model.covariances_[at] - expected).max() <= 1e-6 * expected.max(), k


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_as_many_equal_rows_are_still_a_point(kind: str) -> None:
    X, own = clouds(2, deviation=0.0)
    with pytest.raises(DataError, match="collapsed"):
        GaussianMixture(2, covariance_type=kind, prior=None, init=own).fit(X)


def test_a_tied_covariance_is_not_widened() -> None:
    rng = np.random.default_rng(3)
    own = np.repeat([0, 1], CLOUD)
    X = 1e3 * own[:, None] + 1e-5 * rng.normal(size=(2 * CLOUD, 2))
    model = GaussianMixture(2, covariance_type="tied", prior=None, init=own).fit(X)
    centred = X - np.stack([X[own == k].mean(axis=0) for k in own])
    expected = centred.T @ centred / len(X)
    assert np.abs(model.covariances_[0] - expected).max() <= 1e-6 * expected.max()
