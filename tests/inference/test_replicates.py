"""The bootstrap: that its spread is that of the estimates, and that replicates are what they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import poisson

from dask_em import GaussianMixture, LatentClassAnalysis, MixtureModel
from dask_em.data.keys import row_keys
from dask_em.data.sources import open_source
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError
from dask_em.inference.replicates import aligned, poisson_counts
from dask_em.randomness import BOOTSTRAP, bootstrap_counts, mix, uniforms
from tests import reference

EXACT: dict[str, Any] = {"prior": None, "tol": 1e-12, "max_iter": 100_000, "random_state": 0}


def two_groups(n: int = 3000, holes: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    side = rng.random(n) < 0.3
    x = rng.standard_normal((n, 2)) @ [[1.0, 0.5], [0.0, 0.8]] + np.where(side, 3.0, 0.0)[:, None]
    x[rng.random(x.shape) < holes] = np.nan
    return pd.DataFrame(x, columns=["a", "b"])


def test_the_spread_is_that_of_the_observed_information() -> None:
    frame = two_groups(holes=0.2)
    model = GaussianMixture(2, **EXACT).fit(frame)
    found, expected = model.bootstrap(frame, 400, random_state=1), model.standard_errors(frame)
    # 400 replicates give a standard deviation to 3.5 %.
    assert_allclose(found.errors, expected.errors, rtol=0.14)
    assert found.means_.shape == (2, 2)
    low, high = found.interval()
    assert ((low < found.estimates) & (found.estimates < high)).all()
    assert_allclose(high - low, 2 * 1.96 * expected.errors, rtol=0.25)
    assert_allclose(np.quantile(found.replicates[:, 3], [0.1, 0.9]), [end[3] for end in found.interval(0.8)])


def test_columns_of_other_kinds() -> None:
    rng = np.random.default_rng(2)
    n = 1500
    side = (rng.random(n) < 0.4).astype(int)
    frame = pd.DataFrame(
        {
            "grade": np.array(["x", "y", "z"], dtype=object)[(rng.random(n) * 2.2 + side * 0.8).astype(int)],
            "visits": rng.poisson(np.array([2.0, 9.0])[side]),
            "heads": rng.binomial(10, np.array([0.2, 0.7])[side]),
        }
    )
    model = MixtureModel(2, categorical=["grade"], poisson=["visits"], binomial={"heads": 10}, **EXACT).fit(frame)
    found, expected = model.bootstrap(frame, 300, random_state=0), model.standard_errors(frame)
    assert_allclose(found.errors, expected.errors, rtol=0.17)
    assert found.boundary == expected.boundary


def test_a_frequency_is_so_many_rows() -> None:
    """Twenty distinct rows stand for 319 people: their counts vary like those of people, not like twenty."""
    cells, counts = reference.latent_class_cells("cheating")
    cells = cells[["lie_exam", "fraud", "copy_exam"]]
    model = LatentClassAnalysis(1, **EXACT).fit(cells, sample_weight=counts)
    expected = model.standard_errors(cells, sample_weight=counts)
    people = cells.loc[np.repeat(cells.index, counts)]
    grouped = model.bootstrap(cells, 300, random_state=0, sample_weight=counts)
    apart = model.bootstrap(people, 300, random_state=0)
    whole = model.bootstrap(cells, 300, random_state=0, sample_weight=counts, weight_type="probability")
    free = expected.errors > 0
    assert_allclose(grouped.errors[free], expected.errors[free], rtol=0.15)
    assert_allclose(apart.errors[free], expected.errors[free], rtol=0.15)
    assert (whole.errors[free] > 1.5 * expected.errors[free]).all()


def test_a_seed_gives_the_same_replicates() -> None:
    frame = two_groups(400)
    model = GaussianMixture(2, **EXACT).fit(frame)
    first, again, other = (model.bootstrap(frame, 5, random_state=seed) for seed in (3, 3, 4))
    assert_array_equal(first.replicates, again.replicates)
    assert (first.replicates != other.replicates).any()
    more = model.set_params(executor="local").bootstrap(frame, 8, random_state=3)
    assert_allclose(more.replicates[:5], first.replicates, rtol=1e-6)


def test_a_replicate_is_the_fit_to_its_counts() -> None:
    frame = two_groups(500)
    weight = np.random.default_rng(5).choice([1.0, 2.0, 0.5, 0.0], 500)
    model = GaussianMixture(2, **EXACT).fit(frame, sample_weight=weight)
    found = model.bootstrap(frame, 3, random_state=7, sample_weight=weight, weight_type="probability")
    (piece,) = open_source(frame).pieces
    counts = bootstrap_counts(row_keys(piece.read(("a", "b")), (), piece.origin), 7, range(3))
    start = {"weights_init": model.weights_, "means_init": model.means_, "covariances_init": model.covariances_}
    for own, values in zip(counts, found.replicates, strict=True):
        again = GaussianMixture(2, **start, **EXACT).fit(frame, sample_weight=weight * own)
        assert_allclose(values[:2], again.weights_, rtol=2e-3)
        assert_allclose(values[2:4], again.means_[0], rtol=1e-2, atol=2e-3)


def test_holes_that_the_fitted_table_did_not_have() -> None:
    model = GaussianMixture(2, **EXACT).fit(two_groups(600))
    assert np.isfinite(model.bootstrap(two_groups(600, holes=0.3), 4, random_state=0).errors).all()


# --- parts -------------------------------------------------------------------------------------------------------


def test_counts_are_poisson() -> None:
    keys = mix(np.arange(4000, dtype=np.uint64))
    mean = np.random.default_rng(0).choice([0.3, 1.0, 4.0, 700.0], 4000)
    counts = poisson_counts(keys, mean, 11, 6)
    base = mix(keys, 11, BOOTSTRAP)
    for r, own in enumerate(counts):
        assert_array_equal(own, poisson.ppf(uniforms(mix(base, r)), mean))
    # Nearly: a count of mean 1 is cut where the exact words of the fast way are.
    assert (poisson_counts(keys, np.ones(4000), 11, 6)[:, mean == 1.0] == counts[:, mean == 1.0]).mean() > 0.9999


def test_components_that_changed_places_are_put_back() -> None:
    rng = np.random.default_rng(1)
    fitted = np.array([0.5, 0.3, 0.2, *[0.0, 10.0], *[5.0, 11.0], *[9.0, 10.5]])
    replicates = fitted + rng.normal(0.0, [0.02] * 3 + [1.0, 0.1] * 3, (50, 9))
    swapped = replicates.copy()
    for r in range(0, 50, 7):
        order = rng.permutation(3)
        swapped[r] = np.concatenate([swapped[r, :3][order], swapped[r, 3:].reshape(3, 2)[order].ravel()])
    assert (swapped != replicates).any()
    assert_array_equal(aligned(fitted, list(swapped), 3), replicates)


# --- bad input ---------------------------------------------------------------------------------------------------


def test_bad_arguments() -> None:
    frame = two_groups(100)
    model = GaussianMixture(1, random_state=0).fit(frame)
    with pytest.raises(ConfigurationError, match="n_replicates must be at least 2"):
        model.bootstrap(frame, 1)
    with pytest.raises(ConfigurationError, match="n_replicates must be an integer"):
        model.bootstrap(frame, 2.5)
    with pytest.raises(ConfigurationError, match="weight_type must be one of"):
        model.bootstrap(frame, weight_type="survey")
    with pytest.raises(DataError, match="no rows"):
        model.bootstrap(frame.iloc[:0])
    with pytest.raises(DataError, match="weights are all zero"):
        model.bootstrap(frame, sample_weight=np.zeros(100))


def test_replicates_without_a_component_are_dropped() -> None:
    """Three far rows make a component; one replicate in six has fewer than two of them."""
    frame = pd.DataFrame({"x": [*np.linspace(0, 1, 40), 100.0, 101.0, 103.0]})
    model = GaussianMixture(2, init=np.repeat([0, 1], [40, 3]), **EXACT).fit(frame)
    with pytest.warns(ConvergenceWarning, match=r"of 60 replicates collapsed onto too few rows and were dropped"):
        found = model.bootstrap(frame, 60, random_state=0)
    assert 30 < len(found.replicates) < 60
    assert np.isfinite(found.errors).all()
