"""Unordered categories that help a normal to predict: what a level that nobody had means, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dask_em import Imputer, load, save
from dask_em.errors import DataError


def table(n: int = 600) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    c, x = rng.choice(["a", "b"], n), rng.normal(size=n)
    y = 10.0 * (c == "b") + x + 0.1 * rng.normal(size=n)
    return pd.DataFrame({"x": x, "c": c, "y": np.where(rng.random(n) < 0.3, np.nan, y)})


NEW = pd.DataFrame({"x": [0.0, 0.0, 0.0, 0.0], "c": ["a", "b", None, "zzz"], "y": np.nan})


def test_a_level_that_nobody_had_is_refused_or_missing() -> None:
    with pytest.raises(
        DataError, match=r"column 'c' holds 1 cell\(s\) with a level that the fitted table did not have"
    ):
        Imputer(predictors=["c"], n_replicates=0).fit(table()).transform(NEW)
    done = Imputer(predictors=["c"], n_replicates=0, unseen="missing").fit(table()).transform(NEW)
    a, b, missing, unseen = done["y"]
    assert a == pytest.approx(0.0, abs=0.2)
    assert b == pytest.approx(10.0, abs=0.2)
    assert 3.0 < missing == unseen < 7.0
    assert done["c"].equals(NEW["c"])


def test_other_types_are_refused_and_empty_columns_are_missing() -> None:
    imputer = Imputer(predictors=["c"], n_replicates=0).fit(table())
    with pytest.raises(DataError, match=r"column 'c' has the type int64, which is not what the model was fitted on"):
        imputer.transform(NEW.assign(c=1))
    assert imputer.transform(NEW.assign(c=None))["y"].nunique() == 1


def test_ordered_columns_follow_from_categories_that_predict() -> None:
    complete = table(2000)
    rng = np.random.default_rng(1)
    complete["yes"] = pd.array((complete["c"] == "b") ^ (rng.random(2000) < 0.1), dtype="boolean")
    complete.loc[rng.random(2000) < 0.3, "yes"] = pd.NA
    done = (
        Imputer(predictors=["c"], columns=["x", "yes"], n_replicates=2, random_state=0).fit(complete).draw(complete)[0]
    )
    shares = done[complete["yes"].isna()].groupby("c")["yes"].mean()
    assert shares["a"] == pytest.approx(0.1, abs=0.06)
    assert shares["b"] == pytest.approx(0.9, abs=0.06)


def test_a_saved_imputer_knows_all_levels(tmp_path: Path) -> None:
    imputer = Imputer(predictors=["c"], n_replicates=2, random_state=0).fit(table())
    save(imputer, tmp_path / "model")
    again = load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.draw(NEW.head(3))[1], imputer.draw(NEW.head(3))[1])
    with pytest.raises(DataError, match="a level that the fitted table did not have"):
        again.transform(NEW)


def test_a_predictor_with_one_level_tells_nothing() -> None:
    with pytest.raises(DataError, match=r"predictor 'c' has one level only"):
        Imputer(predictors=["c"], n_replicates=0).fit(table().assign(c="a"))
