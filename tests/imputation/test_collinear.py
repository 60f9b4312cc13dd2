"""Collinear numbers of a mixture are named before it is fitted."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from dask_em import GaussianMixture, Imputer


def table(noise: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    town = rng.choice(["Bern", "Chur"], 800)
    x = rng.normal(size=800) + 4.0 * (town == "Chur")
    own = pd.DataFrame({"town": town, "x": x, "z": rng.normal(size=800)})
    own["sum"] = own["x"] + 2 * own["z"] + noise * rng.normal(size=800)
    own["rest"] = rng.normal(size=800)
    return own.mask(rng.random(own.shape) < 0.1)


@pytest.mark.parametrize("model", [None, "mixture", GaussianMixture(2, random_state=0)])
def test_collinear_numbers_of_a_mixture_are_named(model: object) -> None:
    own = table() if model in (None, "mixture") else table().drop(columns="town")
    size = {} if isinstance(model, GaussianMixture) else {"n_components": 2, "n_init": 1}
    with pytest.warns(UserWarning, match=r"^columns 'x', 'z', 'sum' are collinear: only the prior"):
        Imputer(model, n_replicates=0, tol=1e-3, random_state=0, **size).fit(own)


def test_numbers_that_hang_together_are_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Imputer("mixture", n_components=1, n_init=1, n_replicates=0, random_state=0).fit(table(0.05))
        diagonal = GaussianMixture(1, covariance_type="diag", random_state=0)
        Imputer(diagonal, n_replicates=0).fit(table().drop(columns="town"))
