"""Cells far outside everything that was fitted: they are scored, as outliers, and never with a NaN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dask_em import GaussianMixture, MixtureModel, PoissonMixture
from dask_em.errors import DataError
from dask_em.families.covariance import FULL
from dask_em.scoring import write_scores


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"a": rng.normal(size=300) + 4 * (np.arange(300) % 2), "b": rng.normal(size=300)})


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("value", [1e90, -1e160, 1e200, 1e300])
def test_huge_cells_have_finite_scores(kind: str, value: float, tmp_path: Path) -> None:
    model = GaussianMixture(2, covariance_type=kind, random_state=0).fit(rows())
    far = pd.DataFrame({"a": [value, 0.0, value, np.nan, value], "b": [0.0, value, value, value, np.nan]})
    probabilities = model.predict_proba(far).to_numpy()
    assert np.isfinite(probabilities).all()
    assert np.allclose(probabilities.sum(axis=1), 1.0)
    assert (model.score_samples(far) < -1e100).all()
    facts = write_scores(model, far, tmp_path / "scores")
    assert facts["outliers"] == len(far)


def test_huge_cells_among_other_families_do_not_silence_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = rows().assign(n=rng.poisson(3, 300))
    model: Any = MixtureModel(2, gaussian=["a", "b"], poisson=["n"], random_state=0).fit(frame)
    far = pd.DataFrame({"a": [1e200], "b": [0.0], "n": [2]})
    assert np.isfinite(model.predict_proba(far).to_numpy()).all()
    counts = PoissonMixture(2, random_state=0).fit(frame[["n"]])
    assert np.isfinite(counts.predict_proba(pd.DataFrame({"n": [1e200, 1e300]})).to_numpy()).all()


@pytest.mark.parametrize("model", FULL)
@pytest.mark.parametrize("k", [1, 2])
def test_columns_that_determine_each_other_collapse_whatever_is_missing(model: str, k: int) -> None:
    """On the way there rounding outweighs what EM gains: that is a collapse, not a bug."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    X = np.stack([a, 2 * a, b], axis=1)
    X[rng.random(X.shape) < 0.12] = np.nan
    with pytest.raises(DataError, match="collapsed"):
        GaussianMixture(k, covariance_type=model, prior=None, random_state=0).fit(X)


def test_a_column_too_large_to_square_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"'a'.*too large"):
        GaussianMixture(2).fit(rows().assign(a=lambda f: f["a"] * 1e200))
