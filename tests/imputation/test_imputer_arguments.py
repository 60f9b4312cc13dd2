"""Arguments of the imputer: what cannot be meant is refused in one sentence, before anything is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dask_em import Imputer


def pair(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    y = x + rng.normal(size=n)
    return pd.DataFrame({"x": x, "y": np.where(rng.random(n) < 0.3, np.nan, y)})


def test_another_fit_forgets_the_names_of_the_first() -> None:
    imputer = Imputer(n_replicates=0).fit(pair())
    array = pair().assign(z=np.arange(300.0)).to_numpy()
    done = imputer.fit(array).transform(array)
    assert not hasattr(imputer, "feature_names_in_")
    assert done.shape == (300, 3)
    assert not np.isnan(done).any()


def test_rows_of_weight_zero_are_as_if_they_were_not_there() -> None:
    weight = np.repeat([1.0, 0.0], [250, 50])
    imputer = Imputer(n_replicates=0).fit(pair(), sample_weight=weight)
    assert imputer.n_rows_ == imputer.sum_of_weights_ == 250
