"""k against k + 1 components: that the test finds what is there, and keeps its level where nothing is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from dask_em import GaussianMixture, MixtureModel, PoissonMixture
from dask_em.errors import ConfigurationError, ConvergenceWarning
from dask_em.inference import k_against_k_plus_1
from dask_em.inference.likelihood_ratio import draw
from tests import reference


def test_deaths_have_two_components() -> None:
    model = PoissonMixture(1, prior=None, n_init=5, random_state=0)
    counts = reference.DEATHS_DAYS
    one = k_against_k_plus_1(reference.DEATHS, model, 1, 19, sample_weight=counts, random_state=0)
    expected = 2 * (reference.DEATHS_LOG_LIKELIHOOD - reference.DEATHS_ONE_LOG_LIKELIHOOD)
    # The stopping rule leaves a little of the ratio to be had.
    assert one.statistic == pytest.approx(expected, abs=0.05)
    assert one.pvalue == 0.05
    two = k_against_k_plus_1(reference.DEATHS, model.set_params(n_init=2), 2, 9, sample_weight=counts, random_state=0)
    assert two.pvalue > 0.1
    assert two.replicates.shape == (9,)
    again = k_against_k_plus_1(reference.DEATHS, model, 2, 2, sample_weight=counts, random_state=0)
    assert_allclose(again.replicates, two.replicates[:2])


def test_one_normal_is_one() -> None:
    """Under k the p-value is uniform: of 8 tables, five or more at the smallest one of 1 / 10 come up once in 2000 times."""
    rng = np.random.default_rng(3)
    model = GaussianMixture(1, random_state=0, tol=1e-4)
    found = [
        k_against_k_plus_1(pd.DataFrame(rng.standard_normal((60, 1))), model, 1, 9, random_state=seed)
        for seed in range(8)
    ]
    assert sum(test.pvalue <= 0.1 for test in found) < 5


def test_drawn_tables_have_the_holes_of_the_table() -> None:
    rng = np.random.default_rng(4)
    n = 400
    frame = pd.DataFrame(
        {"x": rng.normal(size=n), "town": rng.choice(["a", "b"], n), "visits": rng.poisson(2.0, n).astype(float)}
    )
    frame.loc[: n // 4, "x"] = np.nan
    frame.loc[n // 2 :, "town"] = None
    model = MixtureModel(1, gaussian=["x"], categorical=["town"], poisson=["visits"], random_state=0).fit(frame)
    patterns = {bytes([0, 1, 1]): 1.0, bytes([1, 1, 1]): 1.0, bytes([1, 0, 1]): 2.0}
    drawn = draw(model.model_, 20_000, patterns, np.random.default_rng(0))
    assert_allclose(drawn.isna().mean(), [0.25, 0.5, 0.0], atol=0.015)
    assert not (drawn["x"].isna() & drawn["town"].isna()).any()
    found = k_against_k_plus_1(frame, model, 1, 4, random_state=0)
    assert 0 < found.pvalue <= 1


def test_a_drawn_table_that_cannot_be_fitted_is_drawn_again() -> None:
    """Of three cells in forty rows few tables keep none or one."""
    frame = pd.DataFrame({"a": [np.nan] * 37 + [1.0, 2.0, 3.5], "b": np.arange(40.0)})
    with pytest.warns(ConvergenceWarning, match="drawn tables could not be fitted and were drawn again") as told:
        found = k_against_k_plus_1(frame, GaussianMixture(1), 1, 39, random_state=0)
    assert len(found.replicates) == 39
    assert 1 <= found.redrawn < 39
    assert any(str(w.message).startswith(f"{found.redrawn} drawn") for w in told)


def test_bad_arguments() -> None:
    frame = pd.DataFrame({"x": np.arange(20.0)})
    with pytest.raises(ConfigurationError, match="at least 1"):
        k_against_k_plus_1(frame, GaussianMixture(1), 0)
    for wrong in ("GaussianMixture", GaussianMixture, np.ones(3)):
        with pytest.raises(ConfigurationError, match="estimator must be a mixture"):
            k_against_k_plus_1(frame, wrong, 1)
    with pytest.raises(ConfigurationError, match="n_replicates must be an integer"):
        k_against_k_plus_1(frame, GaussianMixture(1), 1, 9.5)
    with pytest.raises(ConfigurationError, match="given values or labels"):
        k_against_k_plus_1(frame, GaussianMixture(2, means_init=[[1.0], [9.0]]), 2)
