"""A fit that goes on where another one ended: in other units and another order of columns, from an estimator or a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import dask_em
from dask_em import BinomialMixture, GaussianMixture, MixtureModel, select_model
from dask_em.errors import ConfigurationError
from dask_em.families.covariance import MODELS

ROLES: dict[str, Any] = {
    "gaussian": ["spend", "age"],
    "categorical": ["region"],
    "poisson": ["visits"],
    "binomial": {"won": "played"},
    "transforms": {"spend": "log"},
}


def customers(n: int = 600, seed: int = 0, months: float = 0.0) -> pd.DataFrame:
    """Two groups in every kind of column, with holes; `months` moves them a little."""
    rng = np.random.default_rng(seed)
    group = rng.random(n) < 0.4
    played = rng.integers(1, 9, n)
    frame = pd.DataFrame(
        {
            "spend": np.exp(rng.normal(np.where(group, 5, 3) + 0.05 * months, 0.6)),
            "age": rng.normal(np.where(group, 50, 35), 8),
            "region": np.where(rng.random(n) < np.where(group, 0.8, 0.3), "north", "south"),
            "visits": rng.poisson(np.where(group, 6, 2)).astype(float),
            "won": rng.binomial(played, np.where(group, 0.7, 0.3)).astype(float),
            "played": played.astype(float),
        }
    )
    holes = rng.random((n, 2)) < 0.1
    frame.loc[holes[:, 0], "age"] = np.nan
    frame.loc[holes[:, 1], "region"] = None
    return frame


@pytest.fixture(scope="module")
def fitted() -> MixtureModel:
    return MixtureModel(2, **ROLES, random_state=0, tol=1e-9).fit(customers())


def test_the_same_table_is_done_at_once(fitted: MixtureModel, tmp_path: Path) -> None:
    dask_em.save(fitted, tmp_path / "model")
    for init in (fitted, fitted.model_, tmp_path / "model", str(tmp_path / "model")):
        again = MixtureModel(2, **ROLES, init=init).fit(customers())
        assert again.n_iter_ <= 3
        assert again.log_likelihood_ == pytest.approx(fitted.log_likelihood_, abs=1e-5)
        assert_allclose(again.weights_, fitted.weights_, atol=1e-5)


def test_a_later_table_takes_fewer_steps_and_keeps_the_numbers_of_components(fitted: MixtureModel) -> None:
    later = customers(seed=5, months=1)
    reversed_ = fitted.model_.reordered(np.array([1, 0]))
    cold, warm = (
        MixtureModel(2, **ROLES, random_state=0).fit(later),
        MixtureModel(2, **ROLES, init=reversed_).fit(later),
    )
    assert warm.n_iter_ < cold.n_iter_
    assert warm.log_likelihood_ == pytest.approx(cold.log_likelihood_, abs=1e-3)
    assert_allclose(warm.weights_, cold.weights_[::-1], atol=1e-2)


def test_columns_in_another_order_and_levels_that_come_and_go(fitted: MixtureModel) -> None:
    later = customers(seed=5)
    later.loc[:20, "region"] = "east"
    roles = {**ROLES, "gaussian": ["age", "spend"]}
    warm = MixtureModel(2, **roles, init=fitted, tol=1e-9).fit(later)
    cold = MixtureModel(2, **roles, random_state=0, tol=1e-9).fit(later)
    assert warm.log_likelihood_ == pytest.approx(cold.log_likelihood_, abs=1e-3)
    fewer = customers(seed=5)
    fewer["region"] = fewer["region"].where(fewer["region"] != "south")
    assert np.isfinite(MixtureModel(2, **ROLES, init=fitted).fit(fewer).log_likelihood_)


@pytest.mark.parametrize("then", ["full", "diag", "VEE", "EII"])
@pytest.mark.parametrize("first", ["full", "diag", "EVE"])
def test_another_covariance_model(first: str, then: str) -> None:
    X = np.random.default_rng(0).normal(size=(300, 2)) * [1, 50] + np.repeat([[0, 0], [4, 300]], 150, axis=0)
    earlier = GaussianMixture(2, covariance_type=first, random_state=0).fit(X)
    warm = GaussianMixture(2, covariance_type=then, init=earlier, tol=1e-9).fit(2 * X + 7)
    cold = GaussianMixture(2, covariance_type=then, random_state=0, tol=1e-9).fit(2 * X + 7)
    assert warm.log_likelihood_ >= cold.log_likelihood_ - 0.5


@pytest.mark.parametrize("then", MODELS)
def test_a_start_outside_the_model_is_moved_into_it(then: str) -> None:
    """The parameters of another covariance model, or given ones, need not be reachable: EM climbs from the nearest that are."""
    X = np.random.default_rng(0).normal(size=(60, 2))
    earlier = GaussianMixture(2, random_state=0).fit(X)
    given = {"weights_init": earlier.weights_, "means_init": earlier.means_, "covariances_init": earlier.covariances_}
    warm = GaussianMixture(2, covariance_type=then, init=earlier).fit(X)
    same = GaussianMixture(2, covariance_type=then, **given).fit(X)
    (row,) = select_model(X, [2], [then], estimator=GaussianMixture(2, init=earlier)).table.itertuples()
    assert warm.log_likelihood_ <= earlier.log_likelihood_ + 0.1
    assert same.log_likelihood_ == pytest.approx(warm.log_likelihood_, abs=1e-6)
    assert row.log_likelihood == pytest.approx(warm.log_likelihood_, abs=1e-6)
    assert (np.diff(warm.history_["objective"]) >= -1e-9).all()


@pytest.mark.parametrize("categorical", [[], ["region"]])
def test_components_keep_the_names_of_their_rows(categorical: list[str], tmp_path: Path) -> None:
    """Rows whose component is known are those of the component that had the name before."""
    table = customers().assign(
        kind=lambda own: np.where(own.index % 9, None, np.where(own["age"] > 42, "old", "young"))
    )
    roles: dict[str, Any] = {"gaussian": ["spend", "age"], "categorical": categorical, "known": "kind"}
    earlier = MixtureModel(3, **roles, random_state=0, tol=1e-9).fit(table)
    dask_em.save(earlier, tmp_path / "model")
    for init in (earlier, tmp_path / "model"):
        again = MixtureModel(3, **roles, init=init, tol=1e-9).fit(table)
        assert again.component_names_ == earlier.component_names_
        assert again.n_iter_ <= 3
        assert again.history_["log_likelihood"][0] == pytest.approx(earlier.log_likelihood_, abs=1e-9)
        assert again.history_["objective"].iloc[-1] >= earlier.history_["objective"].iloc[-1] - 1e-9
    fewer = MixtureModel(3, **roles, init=earlier).fit(table.assign(kind=table["kind"].where(table["kind"] == "old")))
    assert set(fewer.component_names_) == {"old", None}
    assert fewer.component_names_.index("old") == earlier.component_names_.index("old")
    free = MixtureModel(3, gaussian=["spend", "age"], categorical=categorical, init=earlier).fit(table)
    assert free.n_iter_ > 0
    for strange in (table.assign(kind="new"), table):
        init = earlier if strange is not table else free
        with pytest.raises(ConfigurationError, match="column 'kind' names a component that has no name in the model"):
            MixtureModel(3, **roles, init=init).fit(strange)


OTHERWISE: dict[str, tuple[Any, str]] = {
    "components": (lambda m: MixtureModel(3, **ROLES, init=m), "2 components and n_components is 3"),
    "a column more": (lambda m: MixtureModel(2, **{**ROLES, "poisson": []}, init=m), "column 'visits'"),
    "another role": (
        lambda m: MixtureModel(2, **{**ROLES, "gaussian": ["spend", "age", "visits"], "poisson": []}, init=m),
        "column 'visits'",
    ),
    "transform": (lambda m: MixtureModel(2, **{**ROLES, "transforms": {}}, init=m), "column 'spend' was transformed"),
    "unfitted": (lambda m: MixtureModel(2, **ROLES, init=MixtureModel(2)), "fit it first"),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_does_not_fit_is_refused_by_name(name: str, fitted: MixtureModel) -> None:
    make, message = OTHERWISE[name]
    with pytest.raises(ConfigurationError, match=message):
        make(fitted).fit(customers())


def test_coins() -> None:
    frame = customers()
    model = BinomialMixture(2, successes="won", trials="played", random_state=0).fit(frame)
    again = BinomialMixture(2, successes="won", trials="played", init=model).fit(frame)
    assert again.n_iter_ <= model.n_iter_
    assert again.log_likelihood_ >= model.log_likelihood_ - 1e-6
