"""Choosing the number of components: what cannot be fitted is left out of the choice, not the end of it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dask_em import GaussianMixture, Imputer, LatentClassAnalysis, select_model
from dask_em.data.gather import Folds
from dask_em.data.keys import row_keys
from dask_em.errors import ConfigurationError, ConvergenceWarning, DataError
from dask_em.families.covariance import FULL, MODELS
from tests import reference

RNG = np.random.default_rng(0)
SEPARATE = RNG.normal(size=(40, 1)) + 9 * (np.arange(40) % 2)[:, None]


def test_numbers_beyond_the_distinct_rows_are_left_out() -> None:
    answers = pd.DataFrame({"q1": list("abab") * 10, "q2": list("aabb") * 10})
    with pytest.warns(ConvergenceWarning, match="5, 6"):
        found = select_model(answers, [1, 2, 5, 6], estimator=LatentClassAnalysis(1, random_state=0))
    assert found.table["n_components"].tolist() == [1, 2, 5, 6]
    assert found.table["outcome"].tolist()[2:] == ["dropped", "dropped"]
    assert found.table["starts"].tolist() == [1, 1, 0, 0]
    assert found.best.n_components == 1


def test_a_number_that_collapses_is_left_out() -> None:
    X = np.concatenate([SEPARATE, np.full((20, 1), 4.5)])
    with pytest.warns(ConvergenceWarning, match="3 components"):
        found = select_model(X, [1, 3], estimator=GaussianMixture(1, prior=None, n_init=3, random_state=0))
    dropped = found.table.set_index("n_components").loc[3]
    assert dropped["outcome"] == "dropped"
    assert dropped["starts"] == 3
    assert not dropped["converged"]
    assert dropped[["log_likelihood", "bic", "icl", "aic", "entropy"]].isna().all()
    assert found.best.n_components == 1
    assert "<svg" in found.figure()


def test_it_ends_only_where_nothing_is_left() -> None:
    X = np.repeat(np.arange(4.0), 10)[:, None]
    with pytest.raises(DataError, match="prior='weak'") as caught, warnings.catch_warnings():
        select_model(X, [3, 4], estimator=GaussianMixture(1, prior=None, random_state=0))
    assert "fewer components" in str(caught.value)
    with pytest.raises(DataError, match="distinct row"):
        select_model(X, [5, 6], estimator=GaussianMixture(1, random_state=0))


TINY = {"fewer rows than columns": (5, 6), "two columns": (6, 2), "a row a column": (4, 3), "hardly more": (8, 3)}


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("acceleration", [None, "daarem"])
@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("name", TINY)
def test_what_cannot_be_fitted_does_not_end_the_grid(name: str, share: float, acceleration: Any) -> None:
    """Whatever the rows, no candidate raises, warns of its arithmetic or has a number that is none."""
    for seed in (0, 12):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=TINY[name])
        X[rng.random(X.shape) < share] = np.nan
        model = GaussianMixture(1, prior=None, n_init=2, acceleration=acceleration, random_state=0, max_iter=40)
        found = select_model(X, [1, 2], MODELS, estimator=model)
        kept = found.table[found.table["outcome"] != "dropped"]
        assert np.isfinite(kept[["log_likelihood", "bic", "entropy"]]).all(axis=None)
        assert {"EII", "VVI"} <= set(kept["covariance_type"])


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
    # One row's scatter of the whole table outweighs what six components of 25 flowers gain by being tight.
    with pytest.raises(DataError, match="prior=None") as caught:
        GaussianMixture(6, n_init=3, random_state=0).fit(iris())
    assert "prior='weak'" not in str(caught.value)
    assert GaussianMixture(6, prior=None, random_state=1).fit(iris()).converged_


def test_what_is_told_of_a_collapse_is_what_was_tried() -> None:
    X = np.repeat([0.0, 1.0, 2.0], 20)[:, None]
    with pytest.warns(ConvergenceWarning, match="4, 5 left out"), pytest.raises(DataError) as caught:
        select_model(X, [2, 3, 4, 5], estimator=GaussianMixture(1, prior=None, random_state=0))
    assert "every start with 2 or 3 components" in str(caught.value)
    line = np.c_[np.arange(30.0), 2 * np.arange(30.0)]
    with pytest.warns(ConvergenceWarning, match="^2 of 2 starts of VVV with 1 component collapsed and were dropped$"):
        select_model(line, [1], ["VVI", "VVV"], estimator=GaussianMixture(1, prior=None, n_init=2, random_state=0))


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


# --- the grid ----------------------------------------------------------------------------------------------------

KINDS, SIZES = ["VVV", "EEE", "VVI", "EII"], range(1, 4)


def iris() -> pd.DataFrame:
    return reference.iris()[0]


@pytest.fixture(scope="module")
def grid() -> Any:
    return select_model(iris(), SIZES, KINDS, n_init=3, random_state=0)


def alone_of(k: int, kind: str, n_init: int) -> GaussianMixture:
    """What the grid fits, by itself."""
    return GaussianMixture(k, covariance_type=kind, n_init=n_init, acceleration="daarem", random_state=0)


def test_every_candidate_is_that_of_a_fit_by_itself(grid: Any) -> None:
    assert len(grid.table) == 12
    for row in grid.table.itertuples():
        alone = alone_of(row.n_components, row.covariance_type, 3).fit(iris())
        assert row.log_likelihood == pytest.approx(alone.log_likelihood_, abs=1e-6)
        assert row.bic == pytest.approx(alone.bic(iris()), abs=1e-5)
        assert row.aic == pytest.approx(alone.aic(iris()), abs=1e-5)
        shares = alone.predict_proba(iris()).to_numpy()
        entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum()
        assert row.entropy == pytest.approx(entropy, abs=1e-5)
        assert row.icl == pytest.approx(row.bic + 2 * entropy, abs=1e-4)
        assert row.starts == 3


def test_rows_of_which_nothing_is_seen_are_assigned_by_the_weights() -> None:
    seen = pd.DataFrame(np.concatenate([SEPARATE, SEPARATE + 1.0], axis=1), columns=["a", "b"])
    X = pd.concat([seen, pd.DataFrame(np.nan, index=range(30), columns=["a", "b"])], ignore_index=True)
    weight = np.linspace(0.5, 2.0, len(X))
    found = select_model(X, [1, 2], estimator=GaussianMixture(1, random_state=0), sample_weight=weight)
    shares = found.best.predict_proba(X).to_numpy()
    entropy = -(weight[:, None] * shares * np.log(np.maximum(shares, 1e-300))).sum()
    assert found.table["entropy"].tolist() == pytest.approx([0.0, entropy], abs=1e-6)


def test_all_models_share_scans(grid: Any) -> None:
    longest = max(alone_of(k, kind, 3).fit(iris()).n_scans_ for kind in KINDS for k in SIZES)
    assert grid.best.n_scans_ == longest + 1  # and one for the entropies


def test_the_best_is_fitted_and_is_what_the_criterion_says(grid: Any) -> None:
    row = grid.table.loc[grid.table["bic"].idxmin()]
    assert (grid.best.covariance_type, grid.best.n_components) == (row["covariance_type"], row["n_components"])
    assert grid.best.log_likelihood_ == row["log_likelihood"]
    assert len(grid.best.predict(iris())) == 150


def test_holes_are_the_same_for_every_model_of_the_grid() -> None:
    """Models whose columns are independent read rows that were grouped by pattern for others."""
    X = iris().mask(np.random.default_rng(2).random((150, 4)) < 0.2)
    found = select_model(X, [2, 3], KINDS, n_init=2, random_state=0)
    for row in found.table.itertuples():
        alone = alone_of(row.n_components, row.covariance_type, 2)
        assert row.log_likelihood == pytest.approx(alone.fit(X).log_likelihood_, abs=1e-6)


@pytest.mark.parametrize("criterion", ["bic", "icl", "aic", "held-out"])
def test_every_criterion_chooses_by_its_column(criterion: Any) -> None:
    found = select_model(iris(), [1, 2, 3], ["VVV", "EEE"], criterion=criterion, n_init=2, random_state=0)
    column = found.table[criterion.replace("-", "_")]
    row = found.table.loc[column.idxmax() if criterion == "held-out" else column.idxmin()]
    assert found.best.n_components == row["n_components"]
    assert "<svg" in found.figure()
    assert "<table" in found._repr_html_()


def test_folds_and_sizes_may_be_numbers_of_numpy() -> None:
    found = select_model(SEPARATE, np.arange(1, 3), criterion="held-out", folds=np.int64(3), random_state=0)
    assert found.best.n_components == 2


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")  # four components on two groups may creep
def test_held_out_density_is_that_of_rows_the_fit_did_not_see() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(300, 2)) + 4])
    found = select_model(X, [1, 2, 4], criterion="held-out", n_init=3, random_state=0, folds=4)
    assert found.best.n_components == 2
    held_out = found.table.set_index("n_components")["held_out"]
    inside = found.table.set_index("n_components")["log_likelihood"] / len(X)
    assert (held_out < inside).all()
    fresh = np.concatenate([rng.normal(size=(20_000, 2)), rng.normal(size=(20_000, 2)) + 4])
    assert held_out[2] == pytest.approx(found.best.score(fresh), abs=0.08)
    # One component has a closed form: fit to three parts, score the fourth.
    words = row_keys(pa.table({"a": X[:, 0]}), (), ("", 0))
    part = Folds(8).counts(words)[4:].argmax(axis=0)
    total = 0.0
    for f in range(4):
        own = GaussianMixture(1).fit(X[part != f])
        total += own.score(X[part == f]) * (part == f).sum()
    assert held_out[1] == pytest.approx(total / len(X), abs=2e-3)


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")  # one start may collapse
def test_a_generator_gives_every_model_the_same_starts() -> None:
    kinds = ["VVV", "EEE", "VVI"]
    there, back = (
        select_model(iris(), [3, 4], own, n_init=1, random_state=np.random.default_rng(3)).table
        for own in (kinds, kinds[::-1])
    )
    order = ["covariance_type", "n_components"]
    pd.testing.assert_frame_equal(
        there.sort_values(order, ignore_index=True), back.sort_values(order, ignore_index=True)
    )


def test_equals_are_told_apart_by_the_order_of_the_grid() -> None:
    """With one component all models whose axes turn are the same, and on one column there is no shape."""
    X = np.random.default_rng(0).multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 200)
    for kinds in (FULL, FULL[::-1]):
        found = select_model(X, [1], kinds, random_state=0)
        assert np.ptp(found.table["bic"]) < 1e-6
        assert found.best.covariance_type == kinds[0]
    assert select_model(X[:, :1], [1, 2], MODELS, random_state=0).table["covariance_type"].tolist() == [
        *("EII", "EII", "VII", "VII")
    ]


def test_a_selection_is_short_in_print(grid: Any) -> None:
    assert repr(grid) == "Selection(2 components of VVV, by bic of 12 candidates)"
    classes = select_model(
        pd.DataFrame({"q": list("ab") * 9, "r": list("aab") * 6}), [1], estimator=LatentClassAnalysis(1)
    )
    assert repr(classes) == "Selection(1 component, by bic of 1 candidate)"


def test_a_fold_that_collapsed_is_no_point_of_the_picture(grid: Any) -> None:
    table = grid.table.assign(held_out=-1.0)
    table.loc[[0, 5], "held_out"] = -np.inf
    assert "<svg" in replace(grid, table=table, criterion="held-out").figure()


def test_a_wave_without_a_candidate_does_not_end_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask_em.search.WAVE_BYTES", 1)
    line = np.c_[np.arange(30.0), 2 * np.arange(30.0)]
    model = GaussianMixture(1, prior=None, random_state=0)
    with pytest.warns(ConvergenceWarning, match="of VVV with 1 component"):
        found = select_model(line, [1], ["VVV", "VVI"], estimator=model)
    assert found.best.covariance_type == "VVI"


def test_waves_find_the_same(monkeypatch: pytest.MonkeyPatch, grid: Any) -> None:
    monkeypatch.setattr("dask_em.search.WAVE_BYTES", 20_000)
    waves = select_model(iris(), SIZES, KINDS, n_init=3, random_state=0)
    pd.testing.assert_frame_equal(waves.table, grid.table, rtol=1e-9)


def test_who_cannot_win_is_stopped_and_the_winner_is_the_same() -> None:
    rng = np.random.default_rng(0)
    means = np.array([[0, 0, 0], [4, 0, 1], [0, 5, -1]])
    X = means[rng.choice(3, 70_000)] + rng.normal(size=(70_000, 3))
    found = select_model(X, range(1, 7), n_init=2, random_state=0)
    assert found.best.n_components == 3
    assert found.best.converged_
    assert found.best.n_scans_ <= 9
    stopped = found.best.history_["outcome"].str.startswith("stopped early")
    assert stopped.any()
    alone = GaussianMixture(3, n_init=2, random_state=0).fit(X)
    assert found.best.log_likelihood_ == pytest.approx(alone.log_likelihood_, abs=1e-5 * len(X))


def test_weights_are_rows(grid: Any) -> None:
    X = iris()
    weight = np.tile([1.0, 2.0], 75)
    found = select_model(X, [2, 3], ["VVV"], sample_weight=weight, n_init=2, random_state=0)
    repeated = select_model(X.loc[X.index.repeat(weight.astype(int))], [2, 3], ["VVV"], n_init=2, random_state=0)
    for name in ("log_likelihood", "bic", "entropy"):
        np.testing.assert_allclose(found.table[name], repeated.table[name], rtol=1e-7)


def test_latent_classes_are_chosen_too() -> None:
    cells, counts = reference.latent_class_cells("carcinoma")
    found = select_model(
        cells, [1, 2, 3, 4], estimator=LatentClassAnalysis(1, random_state=0), n_init=10, sample_weight=counts
    )
    assert found.best.n_components == 3
    assert found.table["covariance_type"].isna().all()
    assert "<svg" in found.figure()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to try": ({"n_components": []}, "n_components is empty"),
    "no models": ({"covariance_type": []}, "covariance_type is empty"),
    "no such model": ({"covariance_type": ["VXV"]}, "covariance_type must be"),
    "criterion": ({"criterion": "likelihood"}, "criterion must be"),
    "folds": ({"criterion": "held-out", "folds": 1}, "folds must be"),
    "one number": ({"n_components": 3}, "n_components must be a list"),
    "no numbers": ({"n_components": None}, "n_components must be a list"),
    "a fraction": ({"n_components": [2.0]}, "n_components must be an integer"),
    "text": ({"n_components": ["2"]}, "n_components must be an integer"),
    "true": ({"n_components": [True]}, "n_components must be an integer"),
    "a class": ({"estimator": GaussianMixture}, "estimator must be"),
    "a name": ({"estimator": "GaussianMixture"}, "estimator must be"),
    "another estimator": ({"estimator": Imputer()}, "estimator must be"),
    "a number for a model": ({"covariance_type": 3}, "covariance_type must be"),
    "models in lists": ({"covariance_type": [["VVV"]]}, "covariance_type must be"),
    "no covariance": ({"estimator": LatentClassAnalysis(1), "covariance_type": ["VVV"]}, "has no covariance_type"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_asked_wrongly_is_one_sentence(name: str) -> None:
    arguments, message = WRONG[name]
    with pytest.raises(ConfigurationError, match=message):
        select_model(SEPARATE, **{"n_components": [1, 2], **arguments})


def test_weights_that_sum_to_zero_and_too_few_rows() -> None:
    with pytest.raises(DataError, match="weights are all zero"):
        select_model(SEPARATE, [1, 2], sample_weight=np.zeros(len(SEPARATE)))
    few = np.random.default_rng(0).normal(size=(6, 9))
    with pytest.raises(DataError, match="collapsed"):
        select_model(few, [2], ["VVV"], estimator=GaussianMixture(1, prior=None, random_state=0))
