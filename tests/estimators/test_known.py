"""Rows whose component is known: they stay where they belong, name their component, and set right what the others get wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from dask_em import MixtureModel, load, save, select_model
from dask_em.errors import ConfigurationError, DataError
from dask_em.families import Categorical
from dask_em.families.categorical import CategoricalParams


def crosses(n: int = 3000, seed: int = 0) -> pd.DataFrame:
    """Two long clouds that cross, and one round one; which cloud a row is of is known of every fiftieth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    spread = np.array([[6.0, 0.4], [0.4, 6.0], [0.7, 0.7]])[truth]
    place = np.array([[0.0, 0.0], [0.0, 0.0], [2.5, 2.5]])[truth]
    frame = pd.DataFrame(place + spread * rng.standard_normal((n, 2)), columns=["x", "y"])
    frame["truth"] = truth
    frame["name"] = pd.array(np.array(["flat", "steep", "round"])[truth], dtype="string")
    frame.loc[np.arange(n) % 50 != 0, "name"] = None
    return frame


def fitted(table: pd.DataFrame, **more: Any) -> MixtureModel:
    settings = {"gaussian": ["x", "y"], "known": "name", "n_init": 2, "random_state": 0, **more}
    return MixtureModel(3, **settings).fit(table)


def test_components_have_the_names_of_their_rows() -> None:
    table = crosses()
    model = fitted(table)
    assert sorted(model.component_names_) == ["flat", "round", "steep"]
    found = np.array(model.component_names_)[model.predict(table[["x", "y"]])]
    truth = np.array(["flat", "steep", "round"])[table["truth"]]
    assert (found == truth).mean() > 0.85
    own = table["name"].notna()
    assert (np.diff(model.weights_) <= 0).all()
    assert model.model_.schema.design.known is None
    # Of the components only what their rows say is left: a mixture as any other.
    proba = model.predict_proba(table)
    assert proba.shape == (3000, 3)
    assert own.sum() == 60


def test_a_known_row_is_never_elsewhere() -> None:
    """Rows in the very middle of another component, a hundred deviations from their own, are its own all the same."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.standard_normal(500), 100 + rng.standard_normal(500), 100 + 1e-3 * rng.standard_normal(20)])
    name = np.array([None] * 1000 + ["left"] * 20, dtype=object)
    name[:200] = "left"
    table = pd.DataFrame({"x": x, "name": pd.array(name, dtype="string")})
    model = MixtureModel(2, gaussian=["x"], known="name", random_state=0, tol=1e-10).fit(table)
    left = model.component_names_.index("left")
    # Their own component holds the 500 of the left and these 20, which are a hundred deviations off.
    assert model.weights_[left] == pytest.approx(520 / 1020, abs=1e-3)
    assert model.means_[left, 0] == pytest.approx(np.r_[x[:500], x[1000:]].mean(), abs=0.05)
    assert model.component_names_[1 - left] is None


def test_all_rows_known_is_one_m_step() -> None:
    table = crosses(600)
    table["name"] = pd.array(np.array(["flat", "steep", "round"])[table["truth"]], dtype="string")
    model = fitted(table, prior=None, n_init=1)
    for i, name in enumerate(model.component_names_):
        own = table[table["name"] == name][["x", "y"]]
        np.testing.assert_allclose(model.means_[i], own.mean(), rtol=1e-10)
        np.testing.assert_allclose(model.covariances_[i], np.cov(own.T, bias=True), rtol=1e-8)
        assert model.weights_[i] == pytest.approx(len(own) / len(table))


def test_names_set_right_what_is_wrong_without_them() -> None:
    """Two groups far apart, each of two that touch: without names a pair is split along the wrong line."""
    rng = np.random.default_rng(2)
    truth = np.repeat([0, 1], 1000)
    table = pd.DataFrame({"x": rng.choice([0.0, 9.0], 2000), "y": 1.5 * truth}) + 0.5 * rng.standard_normal((2000, 2))
    table.insert(
        0, "name", pd.array(np.where(np.arange(2000) % 100 < 2, np.where(truth, "up", "down"), None), "string")
    )
    own: dict[str, Any] = {"gaussian": ["x", "y"], "random_state": 0, "n_init": 3, "covariance_type": "diag"}
    blind = MixtureModel(2, **own).fit(table)
    seeing = MixtureModel(2, **own, known="name").fit(table)
    assert adjusted_rand_score(truth, blind.predict(table)) < 0.1
    assert adjusted_rand_score(truth, seeing.predict(table)) > 0.7


def test_collapsed_or_not_and_from_few_scans_the_same() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 80_000)
    table = pd.DataFrame(
        {"x": np.rint(4 * rng.standard_normal(80_000) + 12 * truth), "y": rng.integers(0, 5, 80_000) * 1.0}
    )
    table["name"] = pd.array(np.where(np.arange(80_000) < 40, np.where(truth, "b", "a"), None), "string")
    own: dict[str, Any] = {"gaussian": ["x", "y"], "known": "name", "random_state": 0, "covariance_type": "diag"}
    a = MixtureModel(2, **own, compress=False, tol=1e-9).fit(table)
    b = MixtureModel(2, **own, compress=True, tol=1e-9).fit(table)
    assert (a.n_distinct_, b.n_distinct_ is None) == (None, False)
    assert sorted(a.component_names_) == sorted(b.component_names_) == ["a", "b"]
    order = [b.component_names_.index(name) for name in a.component_names_]
    np.testing.assert_allclose(b.means_[order], a.means_, atol=1e-3)


def test_a_search_and_acceleration_keep_the_names() -> None:
    table = crosses()
    found = select_model(
        table,
        [3, 4],
        estimator=MixtureModel(1, gaussian=["x", "y"], known="name", acceleration="daarem", n_init=2, random_state=0),
    )
    assert {"flat", "round", "steep"} <= set(found.best.component_names_)
    plain = fitted(table, acceleration=None, tol=1e-9)
    fast = fitted(table, acceleration="squarem", tol=1e-9)
    assert fast.component_names_ == plain.component_names_
    assert fast.log_likelihood_ == pytest.approx(plain.log_likelihood_, rel=1e-6)


def test_with_categories_beside_them() -> None:
    table = crosses()
    table["colour"] = pd.array(np.where(table["truth"] == 2, "red", "blue"), dtype="string")
    model = fitted(table, categorical=["colour"])
    assert list(model.probabilities_) == ["colour"]
    assert model.model_.n_parameters == 2 + 3 * (2 + 3 + 1)
    assert model.n_features_in_ == 5


def test_names_are_saved(tmp_path: Path) -> None:
    table = crosses()
    model = fitted(table)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.component_names_ == model.component_names_
    assert again.known == "name"
    assert (again.predict(table) == model.predict(table)).all()
    assert clone(model).fit(table).component_names_ == model.component_names_


def test_names_are_no_parameters() -> None:
    family = Categorical((2, 3), (0.5, 0.5, 0.0, 0.0, 0.0), 1.0, names=True)
    assert family.n_free(4) == 4
    stats = np.array([[3.0, 1.0, 2.0, 0.0, 0.0], [1.0, 1.0, 1e-30, 5.0, 0.0]])
    params = family.m_step(stats, family.margin(2), [2])
    assert params.probabilities[:, 2:].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert family.possible(params)
    again = family.at(family.coordinates(params))
    np.testing.assert_allclose(again.probabilities, params.probabilities)
    assert (
        family.log_prior(params, [2])
        == Categorical((2,), (0.5, 0.5), 1.0).log_prior(CategoricalParams(params.probabilities[:, :2]), [2])
    ).all()


@pytest.mark.parametrize(
    ("change", "settings", "error", "message"),
    [
        (lambda t: t, {"n_components": 2}, DataError, "column 'name' names more than n_components=2 components"),
        (lambda t: t.drop(columns="name"), {}, DataError, "column 'name' is not in"),
        (lambda t: t.assign(name=pd.array([None] * len(t), "string")), {}, DataError, "no observed cell"),
        (lambda t: t, {"gaussian": ["x", "name"]}, ConfigurationError, "column 'name' is used twice"),
    ],
)
def test_what_is_refused(change: Any, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    own = {"n_components": 3, "gaussian": ["x", "y"], "known": "name", **settings}
    with pytest.raises(error, match=message):
        MixtureModel(**own).fit(change(crosses(200)))


def test_no_standard_errors() -> None:
    table = crosses()
    model = fitted(table)
    for ask in (model.standard_errors, lambda t: model.bootstrap(t, 10)):
        with pytest.raises(ConfigurationError, match="rows whose component is known"):
            ask(table)
