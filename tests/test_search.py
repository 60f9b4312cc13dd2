"""Choosing the number of components: what cannot be fitted is left out of the choice, not the end of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dask_em import GaussianMixture, LatentClassAnalysis, select_model
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError

RNG = np.random.default_rng(0)
SEPARATE = RNG.normal(size=(40, 1)) + 9 * (np.arange(40) % 2)[:, None]


def test_numbers_beyond_the_distinct_rows_are_left_out() -> None:
    answers = pd.DataFrame({"q1": list("abab") * 10, "q2": list("aabb") * 10})
    with pytest.warns(ConvergenceWarning, match="5, 6"):
        found = select_model(answers, [1, 2, 5, 6], estimator=LatentClassAnalysis(1, random_state=0))
    assert found.table["n_components"].tolist() == [1, 2]
    assert found.best.n_components == 1


def test_a_number_that_collapses_is_left_out() -> None:
    X = np.concatenate([SEPARATE, np.full((20, 1), 4.5)])
    with pytest.warns(ConvergenceWarning, match="3 components"):
        found = select_model(X, [1, 3], estimator=GaussianMixture(1, prior=None, n_init=3, random_state=0))
    assert found.table["n_components"].tolist() == [1]
    assert found.best.n_components == 1


def test_it_ends_only_where_nothing_is_left() -> None:
    X = np.repeat(np.arange(4.0), 10)[:, None]
    with pytest.raises(DataError, match="prior='weak'") as caught, warnings.catch_warnings():
        select_model(X, [3, 4], estimator=GaussianMixture(1, prior=None, random_state=0))
    assert "fewer components" in str(caught.value)
    with pytest.raises(DataError, match="distinct row"):
        select_model(X, [5, 6], estimator=GaussianMixture(1, random_state=0))


def test_advice_is_not_what_was_done_already() -> None:
    X = np.random.default_rng(1).normal(size=(50, 1))
    line = np.concatenate([X, 2 * X], axis=1)
    with pytest.raises(DataError) as caught:
        GaussianMixture(1, prior=None).fit(line)
    assert "fewer components" not in str(caught.value)
    assert "covariance_type" in str(caught.value)
    points = (np.arange(50) % 4)[:, None] * 1.0
    with pytest.raises(DataError) as caught:
        GaussianMixture(4, prior=None, covariance_type="diag", init=np.arange(50) % 4).fit(points)
    assert "covariance_type" not in str(caught.value)
    assert "prior='weak'" in str(caught.value)


STARTS: dict[str, tuple[Any, str]] = {
    "means": (GaussianMixture(2, means_init=[[0.0], [9.0]]), "means_init"),
    "weights": (GaussianMixture(2, weights_init=[0.5, 0.5]), "weights_init"),
    "labels": (GaussianMixture(2, init=np.arange(40) % 2), "init"),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_for_one_number_is_not_one_for_all(name: str) -> None:
    model, argument = STARTS[name]
    with pytest.raises(ConfigurationError, match=argument):
        select_model(SEPARATE, [1, 2, 3], estimator=model)
    assert select_model(SEPARATE, [2], estimator=model).best.n_components == 2
