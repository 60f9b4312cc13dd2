"""Arguments of the imputer: what cannot be meant is refused in one sentence, before anything is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from dask_em import Imputer, LatentClassAnalysis, MixtureModel, MultivariateNormal
from dask_em.errors import ConfigurationError, DataError


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


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": np.eye(2)}, r"model must be"),
        ({"model": Imputer}, r"model must be"),
        ({"method": np.array(["draw", "donor"])}, r"method must be 'draw' or 'donor'"),
        ({"n_components": 2, "model": "normal"}, r"n_components is for model='mixture'"),
        ({"n_components": 2, "model": MultivariateNormal()}, r"n_components is for model='mixture'"),
        ({"n_components": 1.5}, r"n_components must be an integer"),
        ({"n_components": 0}, r"n_components must be at least 1"),
        ({"n_replicates": 2.5}, r"n_replicates must be an integer"),
        ({"n_replicates": "3"}, r"n_replicates must be an integer"),
        ({"n_init": None}, r"n_init must be an integer"),
        ({"n_init": 0}, r"n_init must be at least 1"),
        ({"max_iter": "a"}, r"max_iter must be an integer"),
        ({"max_iter": 0}, r"max_iter must be at least 1"),
        ({"tol": "a"}, r"tol must be a number"),
        ({"tol": -1.0}, r"tol must be 0 or more"),
        ({"model": MultivariateNormal(tol="a")}, r"tol must be a number"),
        ({"key": 5}, r"key must be the name of a column"),
        ({"key": ["x", 5]}, r"key must be the name of a column"),
        ({"columns": "xy"}, r"columns must be a list of column names"),
        ({"integer": "x"}, r"integer must be a list of column names"),
        ({"integer": None}, r"integer must be a list of column names"),
        ({"predictors": None}, r"predictors must be a list of column names"),
        ({"prior": np.eye(2)}, r"prior must be 'weak', None, Ridge\(df\) or Inv"),
        ({"predictors": "c"}, r"predictors must be a list of column names"),
        ({"bounds": [("y", (0, 1))]}, r"bounds must be a mapping"),
        ({"bounds": {"y": 5}}, r"bounds of 'y' must be two numbers"),
        ({"bounds": {"y": (1, 2, 3)}}, r"bounds of 'y' must be two numbers"),
        ({"bounds": {"y": ("a", None)}}, r"bounds of 'y' must be two numbers"),
        ({"bounds": {"y": (np.nan, 1)}}, r"bounds of 'y' must be two numbers"),
        ({"bounds": {"y": (2, 1)}}, r"bounds of 'y' .* with lowest below highest"),
        ({"transforms": ["log"]}, r"transforms must be a mapping"),
        ({"transforms": {"y": ["log"]}}, r"transform of 'y' must be one of log"),
        (
            {"transforms": {"c": "log"}},
            r"transforms names 'c', which the model takes as a category: transforms is for num",
        ),
        ({"transforms": {"o": "log"}, "columns": ["x", "o"]}, r"transforms names 'o', which .* an ordered column"),
        ({"universe": "y"}, r"universe must be a mapping"),
        ({"universe": {"y": 5}}, r"universe of 'y' must be a condition as text"),
        ({"universe": {"y": "x > 0"}, "columns": ["x", "o"]}, r"universe names 'y', which is not modelled: add it"),
        ({"delta": ["y"]}, r"delta must be a mapping"),
        ({"delta": {5: 1.0}}, r"delta must be a mapping from the names"),
        ({"delta": {"y": np.nan}}, r"delta of 'y' must be a finite number"),
        ({"delta": {"y": "a"}}, r"delta of 'y' must be a finite number"),
        ({"delta": {"o": 1.0}}, r"delta names 'o', which the model takes as a category: delta is for numbers"),
        ({"delta": {"yy": 1.0}}, r"delta names 'yy', which is not in the table; did you mean 'y'"),
        ({"predictors": ["cc"]}, r"'cc' is not in the table; did you mean 'c'"),
        ({"predictors": ["c"], "columns": ["x", "c"]}, r"predictor 'c' is in columns, too"),
        ({"predictors": ["c"], "key": "c"}, r"predictor 'c' is the key or the weights"),
        ({"predictors": ["c"], "model": "mixture"}, r"predictors are for a normal"),
        ({"ordered": ["o"]}, r"ordered must be a mapping"),
        ({"ordered": {"o": "pqr"}}, r"ordered must give the levels of 'o' as a list, in order"),
        ({"ordered": {"o": {"p", "q", "r"}}}, r"ordered must give the levels of 'o' as a list, in order"),
        ({"ordered": {"o": ["p", "q", "q", "r"]}}, r"ordered names a level of 'o' more than once"),
        ({"ordered": {"o": ["p", 1]}}, r"levels of 'o' that are all text"),
        ({"ordered": {"o": [0.5, 1.5]}}, r"levels of 'o' that are all text"),
        ({"ordered": {"o": ["p", "q"]}, "columns": ["x", "o"]}, r"ordered leaves out 1 level\(s\) of column 'o'"),
        ({"ordered": {"o": [0, 1]}, "columns": ["x", "o"]}, r"the levels of 'o' as whole numbers, .* holds text"),
        ({"model": MultivariateNormal()}, r"a normal cannot take unordered categories \('c'\)"),
        (
            {"columns": ["x", "d"]},
            r"column 'd' cannot be modelled \(the model has no place for its type, .*\): leave it out",
        ),
        ({"columns": ["x", "m"]}, r"column 'm' mixes types: give it one type"),
        ({"integer": ["y"], "bounds": {"y": (0.2, 0.9)}}, r"no whole number is within the bounds of 'y'"),
        ({"ordered": {"oo": ["p"]}}, r"ordered names 'oo', which is not in the table; did you mean 'o'"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(settings: dict[str, Any], says: str) -> None:
    table = pair().assign(
        c=np.resize(["a", "b"], 300),
        o=pd.Categorical(np.resize(["p", "q", "r"], 300), ordered=True),
        d=pd.Timestamp("2026-01-01"),
    )
    if "m" in settings.get("columns", ()):
        table["m"] = np.resize(np.array([1, "a"], dtype=object), 300)
    with pytest.raises((ConfigurationError, DataError), match=says) as caught:
        Imputer(**{"n_replicates": 2, "random_state": 0} | settings).fit(table)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("m", "says"), [(0, r"^m must be from 1 to 2, the.*fitted$"), (-1, "from 1 to 2"), ("2", "m must")]
)
def test_draws_are_at_least_one(m: Any, says: str) -> None:
    imputer = Imputer(n_replicates=2, random_state=0).fit(pair())
    with pytest.raises(ConfigurationError, match=says):
        imputer.draw(pair(), m)


def test_a_number_of_components_asks_for_a_mixture() -> None:
    assert Imputer(n_components=2, n_replicates=0, n_init=1).fit(pair()).imputation_.model.n_components == 2


@pytest.mark.parametrize(
    "levels",
    [
        (0.0, 1.0, 2.0),
        np.arange(3),
        np.array([0.0, 1.0, 2.0]),
        [np.int8(0), 1, 2.0],
        pd.Series([0, 1, 2], dtype="Int64"),
    ],
    ids=["floats", "array", "array of floats", "mixed", "series"],
)
@pytest.mark.parametrize("dtype", ["float64", "Int8", "object"])
def test_levels_in_order_may_be_any_whole_numbers(levels: Any, dtype: str) -> None:
    table = pair()
    table["o"] = (table["x"] > -0.5).astype(float) + (table["x"] > 0.5)
    table.loc[::7, "o"] = np.nan
    table["o"] = table["o"].astype(dtype)
    imputer = Imputer(ordered={"o": levels}, n_replicates=2, random_state=0).fit(table)
    assert imputer.roles_.ordered == (("o", (0, 1, 2)),)
    for done in (imputer.transform(table), *imputer.draw(table)):
        assert set(done["o"]) == {0, 1, 2}
        assert done["o"].dtype == table["o"].dtype


def test_an_ordered_category_of_whole_floats_is_modelled() -> None:
    table = pair()
    codes = (table["x"] > 0).astype(int)
    table["o"] = pd.Categorical.from_codes(np.where(np.arange(300) % 7, codes, -1), categories=[0.0, 1.0], ordered=True)
    done = Imputer(n_replicates=2, random_state=0).fit(table).draw(table)[0]
    assert done["o"].notna().all()
    assert done["o"].dtype == table["o"].dtype


def test_the_name_of_an_indicator_is_not_taken_twice() -> None:
    table = pair().assign(c=np.resize(["a", "b"], 300)).rename(columns={"y": "c=b"})
    with pytest.raises(DataError, match=r"column 'c=b' has the name that a level of a predictor gets inside"):
        Imputer(predictors=["c"]).fit(table)


def test_numbers_beyond_what_floats_tell_apart_are_not_called_constant() -> None:
    for step in (0, 1, 7):
        with pytest.raises(DataError, match=r"column 'id' varies too little beside its size .* name it as the key"):
            Imputer().fit(pair().assign(id=2**60 + step * np.arange(300)))
    with pytest.raises(DataError, match=r"column 'k' is constant"):
        Imputer().fit(pair().assign(k=3))


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        ("mixture", ["x", "y", "c"]),
        (MixtureModel(2, gaussian=["x", "y"], categorical=["c"]), ["x", "y", "c"]),
        (LatentClassAnalysis(2), ["c", "d"]),
    ],
)
def test_a_category_with_one_level_is_refused(model: Any, columns: list[str]) -> None:
    table = pair().assign(c="a", d=np.resize(["a", "b"], 300))[columns]
    with pytest.raises(DataError, match=r"column 'c' has one level only"):
        Imputer(model, n_replicates=0).fit(table)


def test_levels_in_order_are_all_of_them_in_a_mixture_too() -> None:
    table = pair().assign(c=np.resize(["a", "b", "c"], 300))
    with pytest.raises(ConfigurationError, match=r"ordered leaves out 1 level\(s\) of column 'c'"):
        Imputer("mixture", ordered={"c": ["a", "b"]}, n_components=1, n_replicates=0).fit(table)
