"""Predictive mean matching: what is drawn was observed, and a shift for those who did not answer is felt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dask_em import Imputer


def pair(n: int = 2000, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = x + 0.7 * rng.normal(size=n)
    return pd.DataFrame({"x": x, "y": np.where(rng.random(n) < 0.3, np.nan, y)})


def test_a_delta_shifts_those_who_did_not_answer_and_not_their_donors() -> None:
    table = pair()
    hole = table["y"].isna()
    settings: dict[str, Any] = {"method": "donor", "n_replicates": 2, "random_state": 0}
    plain, shifted = (Imputer(delta=d, **settings).fit(table).draw(table, 1)[0] for d in (None, {"y": 0.5}))
    moved = shifted.loc[hole, "y"].mean() - plain.loc[hole, "y"].mean()
    # Donors end where observations end, so that the largest shifts are not fully felt.
    assert moved == pytest.approx(0.5, abs=0.1)
    assert set(shifted["y"]) <= set(table["y"].dropna())


def test_donors_go_with_categories_that_predict() -> None:
    rng = np.random.default_rng(1)
    table = pair().assign(town=rng.choice(["Bern", "Chur", "Genf"], 2000))
    table["y"] += 10.0 * (table["town"] == "Chur")
    imputer = Imputer(predictors=["town"], method="donor", n_replicates=2, random_state=0).fit(table)
    done = imputer.draw(table, 1)[0]
    assert set(done["y"]) <= set(table["y"].dropna())
    hole = table["y"].isna()
    means = done[hole].groupby("town")["y"].mean()
    assert means["Chur"] - means["Bern"] == pytest.approx(10.0, abs=0.5)
