"""The imputer: nothing observed changes, means and draws are those of the model, and a row draws the same wherever it stands."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import integrate, stats
from sklearn.pipeline import make_pipeline

import dask_em.data.gather
from bench.coverage import covered
from dask_em import GaussianMixture, Imputer, MixtureModel, MultivariateNormal, load, save
from dask_em.errors import ConfigurationError, DataError
from dask_em.execution.local import LocalExecutor
from tests.estimators.normal_data import CHOLESTEROL

LEVELS = ["none", "school", "college", "university"]


def survey(n: int = 1200, seed: int = 0, *, unordered: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table with holes and the complete one: numbers, counts, yes/no, ordered and, if asked for, unordered categories."""
    rng = np.random.default_rng(seed)
    age = np.round(rng.uniform(20, 80, n))
    latent = rng.normal(size=n) - 0.01 * (age - 50)
    education = np.digitize(latent, [-1.0, 0.2, 1.1])
    income = np.exp(9.5 + 0.01 * (age - 50) + 0.3 * latent + 0.4 * rng.normal(size=n))
    complete = pd.DataFrame(
        {
            "id": np.arange(n) + 2**60,
            "age": age,
            "education": pd.Categorical.from_codes(education, categories=LEVELS, ordered=True),
            "income": income,
            "children": pd.array(rng.poisson(1.4, n), dtype="Int64"),
            "owner": pd.array(rng.random(n) < stats.norm.cdf(np.log(income) - 9.5), dtype="boolean"),
            "note": [f"note {i}" for i in range(n)],
        }
    )
    if unordered:
        complete["town"] = np.array(["Bern", "Basel", "Chur"])[np.clip(education + rng.integers(-1, 2, n), 0, 2)]
    table = complete.copy()
    table.loc[rng.random(n) < 0.5 * stats.norm.cdf((age - 50) / 15), "income"] = np.nan
    for name in ("age", "education", "children", "owner", "town"):
        if name in table:
            table.loc[rng.random(n) < 0.1, name] = None
    return table, complete


COLUMNS = ["age", "education", "income", "children", "owner"]
SETTINGS: dict[str, Any] = {
    "key": "id",
    "columns": COLUMNS,
    "transforms": {"income": "log"},
    "bounds": {"age": (20, 80), "children": (0, None)},
    "integer": ["age"],
    "n_replicates": 4,
    "random_state": 5,
}


@pytest.fixture(scope="module")
def normal() -> Imputer:
    return Imputer(**SETTINGS).fit(survey()[0])


@pytest.fixture(scope="module")
def mixture() -> Imputer:
    settings = SETTINGS | {"columns": [*COLUMNS, "town"], "n_components": 2, "n_init": 1, "tol": 1e-4}
    return Imputer(**settings).fit(survey(unordered=True)[0])


@pytest.fixture(params=["normal", "mixture"])
def fitted(request: pytest.FixtureRequest) -> tuple[Imputer, pd.DataFrame, pd.DataFrame]:
    table, complete = survey(unordered=request.param == "mixture")
    return request.getfixturevalue(request.param), table, complete


# --- what is observed, and what may be imputed -----------------------------------------------------------------------


def test_nothing_observed_changes_and_every_hole_is_filled(fitted: tuple[Imputer, pd.DataFrame, pd.DataFrame]) -> None:
    imputer, table, _ = fitted
    before = table.copy(deep=True)
    for done in (imputer.transform(table), *imputer.draw(table, 2)):
        assert (done.dtypes == table.dtypes).all()
        assert done.index.equals(table.index)
        for name in table:
            seen = table[name].notna()
            assert done.loc[seen, name].equals(table.loc[seen, name])
            assert done[name].notna().all()
    pd.testing.assert_frame_equal(table, before)


def test_imputed_cells_are_possible(fitted: tuple[Imputer, pd.DataFrame, pd.DataFrame]) -> None:
    imputer, table, _ = fitted
    for done in (imputer.transform(table), *imputer.draw(table)):
        assert done["age"].between(20, 80).all()
        assert (done["age"] == done["age"].round()).all()
        assert (done["income"] > 0).all()
        assert (done["children"] >= 0).all()
        assert set(done["education"]) <= set(LEVELS)
        assert set(done["owner"]) <= {True, False}


def test_draws_look_like_what_is_missing() -> None:
    table, complete = survey(8000, seed=3)
    imputer = Imputer(**SETTINGS).fit(table)
    hole = table["income"].isna()
    truth = np.log(complete.loc[hole, "income"])
    observed = np.log(table["income"]).mean()
    for done in imputer.draw(table, 2):
        drawn = np.log(done.loc[hole, "income"])
        assert drawn.mean() == pytest.approx(truth.mean(), abs=0.04)
        assert abs(observed - truth.mean()) > 0.05  # what is missing is not like what is there
        assert drawn.std() == pytest.approx(truth.std(), rel=0.06)
        shares = done["education"].value_counts(normalize=True, sort=False)
        expected = complete["education"].value_counts(normalize=True, sort=False)
        np.testing.assert_allclose(shares, expected, atol=0.02)


def test_the_mean_is_in_the_users_units() -> None:
    table, complete = survey(8000, seed=4)
    imputer = Imputer(**SETTINGS).fit(table)
    hole = table["income"].isna()
    filled = imputer.transform(table).loc[hole, "income"]
    truth = complete.loc[hole, "income"]
    # The transformed mean, a median, would be lower by exp(s2 / 2), here some ten per cent.
    assert filled.mean() == pytest.approx(truth.mean(), rel=0.03)


# --- against formulas -------------------------------------------------------------------------------------------------


def _pair(seed: int = 0, n: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = 1.0 + 0.5 * x + 0.7 * rng.normal(size=n)
    return pd.DataFrame({"x": x, "y": np.where(rng.random(n) < 0.3, np.nan, y)})


def _conditional(imputer: Imputer, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean and standard deviation of y given x, by the fitted moments."""
    mean, covariance = imputer.imputation_.model.means[0], imputer.imputation_.model.covariances[0]
    slope = covariance[0, 1] / covariance[0, 0]
    return mean[1] + slope * (x - mean[0]), float(np.sqrt(covariance[1, 1] - slope * covariance[0, 1]))


def test_the_mean_is_the_regression() -> None:
    table = _pair()
    imputer = Imputer("normal", prior=None, n_replicates=0).fit(table)
    hole = table["y"].isna()
    expected, _ = _conditional(imputer, table.loc[hole, "x"].to_numpy())
    np.testing.assert_allclose(imputer.transform(table).loc[hole, "y"], expected, rtol=1e-10)


@pytest.mark.parametrize(("how", "inverse"), [("log", np.exp), ("log1p", np.expm1), ("asinh", np.sinh)])
@pytest.mark.parametrize("bounded", [False, True])
def test_means_under_transforms_and_bounds_are_integrals(how: str, inverse: Any, bounded: bool) -> None:
    table = _pair(1)
    table["y"] = inverse(table["y"])
    top = float(np.nanmax(table["y"]))
    bounds = {"y": (None, top)} if bounded else None
    imputer = Imputer("normal", transforms={"y": how}, bounds=bounds, n_replicates=0).fit(table)
    hole = table["y"].isna()
    centre, spread = _conditional(imputer, table.loc[hole, "x"].to_numpy())
    filled = imputer.transform(table).loc[hole, "y"].to_numpy()
    forward = {"log": np.log, "log1p": np.log1p, "asinh": np.arcsinh}[how]
    high = forward(top) if bounded else np.inf
    for mean, value in list(zip(centre, filled))[:15]:
        edges = (mean - 12 * spread, min(high, mean + 12 * spread))
        mass = stats.norm.cdf(high, mean, spread)
        total, _ = integrate.quad(lambda z, m=mean: inverse(z) * stats.norm.pdf(z, m, spread), *edges)
        assert value == pytest.approx(total / mass, rel=1e-7)


def test_draws_have_the_conditional_distribution() -> None:
    table = _pair(2, 6000)
    imputer = Imputer("normal", n_replicates=2, random_state=0).fit(table)
    hole = table["y"].isna()
    part = imputer.imputation_.replicates[0].parts[0]
    scale, shift = np.array(imputer.imputation_.schema.scale), np.array(imputer.imputation_.schema.shift)
    mean, covariance = shift + scale * part.means[0], part.covariances[0] * np.outer(scale, scale)
    slope = covariance[0, 1] / covariance[0, 0]
    centre = mean[1] + slope * (table.loc[hole, "x"] - mean[0])
    spread = np.sqrt(covariance[1, 1] - slope * covariance[0, 1])
    z = (imputer.draw(table, 1)[0].loc[hole, "y"] - centre) / spread
    assert stats.kstest(z, "norm").pvalue > 0.01


def test_probabilities_of_levels_add_up_and_the_most_probable_is_filled(normal: Imputer) -> None:
    table, _ = survey()
    shares = normal.predict_proba(table, "education")
    assert list(shares.columns) == LEVELS
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    hole = table["education"].isna()
    filled = normal.transform(table).loc[hole, "education"]
    assert (shares.loc[hole].idxmax(axis=1).to_numpy() == filled.to_numpy()).all()


# --- repeatable, whatever the partitioning ----------------------------------------------------------------------------


def test_a_row_draws_the_same_wherever_it_stands(fitted: tuple[Imputer, pd.DataFrame, pd.DataFrame]) -> None:
    imputer, table, _ = fitted
    whole = imputer.draw(table, 2)
    shuffled = table.sample(frac=1, random_state=1)
    for i, done in enumerate(imputer.draw(shuffled, 2)):
        pd.testing.assert_frame_equal(done.sort_index(), whole[i])
    pd.testing.assert_frame_equal(imputer.draw(table.iloc[100:101], 1)[0], whole[0].iloc[100:101])
    assert not whole[0]["income"].equals(whole[1]["income"])


def test_every_kind_of_table_is_filled_alike(normal: Imputer, tmp_path: Path) -> None:
    table, _ = survey()
    expected = normal.draw(table, 1)[0]
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(arrow, tmp_path / "survey.parquet", row_group_size=500)
    with dask.config.set({"dataframe.convert-string": False}):
        lazy = normal.draw(dd.from_pandas(table, npartitions=3), 1)[0]
    assert isinstance(lazy, dd.DataFrame)
    pd.testing.assert_frame_equal(lazy.compute(scheduler="synchronous"), expected)
    for given in (arrow, tmp_path / "survey.parquet"):
        done = normal.draw(given, 1)[0]
        assert isinstance(done, pa.Table)
        assert done.schema.types == (given if given is arrow else pq.read_table(given)).schema.types
        pd.testing.assert_frame_equal(done.to_pandas(), pa.Table.from_pandas(expected).to_pandas())


def test_a_fit_does_not_depend_on_the_cut(normal: Imputer, tmp_path: Path) -> None:
    table, _ = survey()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), tmp_path / "a.parquet", row_group_size=250)
    again = Imputer(**SETTINGS).fit(tmp_path / "a.parquet")
    for one, two in zip(normal.imputation_.replicates, again.imputation_.replicates, strict=True):
        np.testing.assert_allclose(one.parts[0].covariances, two.parts[0].covariances, rtol=1e-9, atol=1e-12)
    assert normal.n_scans_ == again.n_scans_ == 3


def test_arrays_come_back_as_arrays() -> None:
    X = _pair().to_numpy()
    done = Imputer(n_replicates=0).fit(X).transform(X)
    assert isinstance(done, np.ndarray)
    assert not np.isnan(done).any()
    np.testing.assert_array_equal(done[~np.isnan(X)], X[~np.isnan(X)])


def test_tables_without_rows_are_given_back(normal: Imputer, tmp_path: Path) -> None:
    frame = survey()[0].head(0)
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(arrow, tmp_path / "none.parquet")
    pd.testing.assert_frame_equal(normal.transform(frame), frame)
    for given in (arrow, tmp_path / "none.parquet"):
        for done in (normal.transform(given), *normal.draw(given, 1)):
            assert (done.column_names, done.num_rows) == (arrow.column_names, 0)
    with pytest.raises(DataError, match="the table has no rows"):
        normal.pooled(lambda own: (own["age"].mean(), 1.0), arrow)


def test_an_imputer_is_a_transformer_of_scikit_learn() -> None:
    table = _pair().set_index(pd.Index(np.arange(500) + 7))
    imputer = Imputer(n_replicates=0)
    assert make_pipeline(imputer).fit(table).get_feature_names_out().tolist() == ["x", "y"]
    expected = imputer.fit_transform(table)
    done = imputer.set_output(transform="pandas").fit_transform(table.to_numpy())
    assert done.columns.tolist() == ["x0", "x1"]
    np.testing.assert_array_equal(done, expected)
    pd.testing.assert_frame_equal(imputer.fit_transform(table), expected)


def test_a_saved_imputer_says_the_same(fitted: tuple[Imputer, pd.DataFrame, pd.DataFrame], tmp_path: Path) -> None:
    imputer, table, _ = fitted
    save(imputer, tmp_path / "model")
    again = load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.transform(table), imputer.transform(table))
    pd.testing.assert_frame_equal(again.draw(table, 2)[1], imputer.draw(table, 2)[1])
    assert again.roles_ == imputer.roles_
    assert "replicates" in again.summary()


# --- uncertainty ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b", "truth", "error"), [("Y3", "Y1", -31.691, 10.45), ("Y3", "Y2", -8.405, 7.4)])
def test_multiple_imputation_of_cholesterol(a: str, b: str, truth: float, error: float) -> None:
    table = pd.DataFrame(CHOLESTEROL, columns=["Y1", "Y2", "Y3"])
    imputer = Imputer("normal", n_replicates=200, random_state=0).fit(table)

    def contrast(frame: pd.DataFrame) -> tuple[float, float]:
        difference = frame[a] - frame[b]
        return difference.mean(), difference.var() / len(difference)

    pooled = imputer.pooled(contrast, table)
    assert pooled.estimate == pytest.approx(truth, abs=1.0)
    assert pooled.standard_error == pytest.approx(error, abs=0.6)


def test_a_statistic_finds_the_index_of_the_table() -> None:
    table = _pair().set_axis([f"row {i}" for i in range(500)])
    imputer = Imputer("normal", n_replicates=2, random_state=0).fit(table)
    weight = pd.Series(np.linspace(1.0, 2.0, 500), index=table.index)

    def weighted(frame: pd.DataFrame) -> tuple[float, float]:
        return float((frame["x"] * weight).sum() / weight.sum()), 0.01

    assert imputer.pooled(weighted, table).estimate == pytest.approx(np.average(table["x"], weights=weight))


def test_a_statistic_gets_the_table_that_is_drawn() -> None:
    """Whatever stands beside what is modelled, and whatever columns are called."""
    table = _pair().assign(
        c=lambda own: pd.cut(own["x"], 3),
        m=np.resize(np.array([1, "a"], dtype=object), 500),
        n=np.resize([2**70, None], 500),
        i=pd.array(np.resize([1, 2], 500), dtype="Int8"),
    )
    table.columns = pd.Index([0, *table.columns[1:]], dtype=object)
    imputer = Imputer("normal", columns=["0", "y"], n_replicates=2, random_state=0).fit(table)
    seen: list[pd.DataFrame] = []

    def first(frame: pd.DataFrame) -> tuple[float, float]:
        seen.append(frame)
        return float(frame[0].mean()), 0.01

    def total(frame: pd.DataFrame) -> float:
        return float(frame["y"].sum())

    imputer.pooled(first, table)
    for drawn, own in zip(sorted(imputer.draw(table), key=total), sorted(seen, key=total), strict=True):
        pd.testing.assert_frame_equal(own, drawn)


def test_a_statistic_gives_the_same_estimates_for_every_draw() -> None:
    table, sizes = _pair(), iter(range(1, 9))
    imputer = Imputer("normal", n_replicates=2, random_state=0, executor=LocalExecutor(1)).fit(table)

    def another(frame: pd.DataFrame) -> tuple[Any, Any]:
        n = next(sizes)
        return np.ones(n), np.ones(n)

    with pytest.raises(ConfigurationError, match="different numbers of estimates for different draws"):
        imputer.pooled(another, table)


def test_a_series_comes_back_as_a_series() -> None:
    y = _pair()["y"]
    imputer = Imputer(n_replicates=2, random_state=0).fit(y)
    for done in (imputer.transform(y), *imputer.draw(y)):
        assert (done.name, done.dtype, done.isna().sum()) == ("y", y.dtype, 0)
    levels = pd.Series(np.resize(["a", "b", "b", None], 500), index=np.arange(500)[::-1], name="c")
    imputer_of_levels = Imputer(n_components=1, n_replicates=0).fit(levels)
    found = imputer_of_levels.predict_proba(levels, "c")
    assert found.index.equals(levels.index)
    assert imputer_of_levels.predict_proba(dd.from_pandas(levels, npartitions=3), "c").compute().shape == (500, 2)
    lazy = imputer.transform(dd.from_pandas(y, npartitions=3))
    pd.testing.assert_series_equal(lazy.compute(), imputer.transform(y))


def test_columns_that_no_model_takes_are_handed_through() -> None:
    table = _pair().assign(
        c=lambda own: pd.cut(own["x"], 3),
        day=pd.Categorical(np.resize(pd.to_datetime(["2026-01-01", "2026-01-02"]), 500), ordered=True),
    )
    imputer = Imputer(n_replicates=0).fit(table)
    assert [name for name, _ in imputer.roles_.other] == ["c", "day"]
    assert "interval" in imputer.roles_.other[0][1]
    pd.testing.assert_frame_equal(imputer.transform(table).drop(columns="y"), table.drop(columns="y"))
    lazy = dd.from_pandas(table, npartitions=3)
    pd.testing.assert_frame_equal(
        imputer.fit(lazy).transform(lazy).compute().drop(columns="y"), table.drop(columns="y")
    )


@pytest.mark.parametrize("at", [0, 499])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_column_that_mixes_types_is_refused_wherever_it_does(at: int, lazy: bool) -> None:
    table = _pair().astype({"y": object})
    table.loc[at, "y"] = "five"
    as_it_is = dask.config.set({"dataframe.convert-string": False})
    with as_it_is, pytest.raises(DataError, match="column 'y' mixes types"):
        Imputer(n_replicates=0).fit(dd.from_pandas(table, npartitions=2) if lazy else table)


def test_tables_without_rows_are_said_to_have_none(tmp_path: Path) -> None:
    none = _pair().head(0)
    none.to_parquet(tmp_path / "none.parquet")
    for given in (none, pa.Table.from_pandas(none), tmp_path / "none.parquet", dd.from_pandas(none, npartitions=1)):
        with pytest.raises(DataError, match="the table has no rows"):
            Imputer().fit(given)


def test_no_rows_have_no_probabilities(mixture: Imputer) -> None:
    found = mixture.predict_proba(survey(unordered=True)[0].head(0), "town")
    assert found.shape == (0, len(mixture.imputation_.levels("town")))


def test_yes_and_no_as_numbers_stay_so_where_they_are_named_ordered() -> None:
    table = _pair()
    table["yes"] = pd.array((table["x"] > 0).astype(int), dtype="Int64")
    table.loc[::7, "yes"] = pd.NA
    imputer = Imputer(ordered={"yes": (0, 1)}, n_replicates=2, random_state=0).fit(table)
    for done in (imputer.transform(table), *imputer.draw(table)):
        assert set(done["yes"]) == {0, 1}
        assert done["yes"].dtype == "Int64"


def test_intervals_cover_the_truth() -> None:
    imputed, listwise = covered(surveys=200, rows=500, missing=0.3, m=20, seed=1)
    # Three standard errors of a share of 0.95 over 200 surveys are 4.6 points.
    assert imputed.mean() >= 0.904
    assert imputed.mean() < 1.0
    assert listwise.mean() < 0.6


def test_replicates_of_rows_scanned_are_those_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    table = _pair(5)
    one = Imputer("normal", n_replicates=3, tol=1e-15, random_state=0).fit(table)
    monkeypatch.setattr(dask_em.data.gather, "MAX_BYTES", 100)
    two = Imputer("normal", n_replicates=3, tol=1e-15, random_state=0).fit(table)
    assert two.n_scans_ > 3
    for a, b in zip(one.imputation_.replicates, two.imputation_.replicates, strict=True):
        np.testing.assert_allclose(a.parts[0].covariances, b.parts[0].covariances, rtol=1e-6)


def test_mixture_replicates_are_fits_to_repeated_rows() -> None:
    """A replicate is the same mixture fitted to rows repeated as often as the bootstrap says."""
    from dask_em.data.keys import row_keys
    from dask_em.randomness import bootstrap_counts

    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": np.r_[rng.normal(0, 1, 300), rng.normal(6, 1, 200)], "y": rng.normal(size=500)})
    table.loc[rng.random(500) < 0.2, "y"] = np.nan
    model = GaussianMixture(2, random_state=0, tol=1e-10)
    imputer = Imputer(model, n_replicates=2, random_state=1).fit(table)
    keys = row_keys(pa.table({"x": table["x"]}), (), ("", 0))
    counts = bootstrap_counts(keys, 1, range(2))
    best = imputer.imputation_.model
    for replicate, weight in zip(imputer.imputation_.replicates, counts, strict=True):
        own = GaussianMixture(
            2, means_init=best.means, covariances_init=best.covariances, weights_init=best.parameters.weights, tol=1e-10
        ).fit(table, sample_weight=weight.astype(float))
        # The priors lean on slightly different column variances.
        np.testing.assert_allclose(replicate.weights, own.weights_, rtol=1e-3)


# --- universe, delta, donors -------------------------------------------------------------------------------------------


def test_who_was_not_asked_is_left_alone_and_kept_out_of_the_fit() -> None:
    table = _pair(6)
    table["asked"] = np.arange(len(table)) % 2 == 0
    table.loc[~table["asked"], "y"] = np.nan
    strange = table.copy()
    strange.loc[~table["asked"], "y"] = 1e6  # contradictory answers are neither used nor changed
    settings: dict[str, Any] = {"columns": ["x", "y"], "universe": {"y": "asked"}, "n_replicates": 2, "random_state": 0}
    one, two = Imputer(**settings).fit(table), Imputer(**settings).fit(strange)
    assert one.log_likelihood_ == two.log_likelihood_
    done = one.transform(table)
    assert done.loc[~table["asked"], "y"].isna().all()
    assert done.loc[table["asked"], "y"].notna().all()
    assert (two.transform(strange).loc[~table["asked"], "y"] == 1e6).all()


def test_delta_shifts_what_is_imputed_and_nothing_else() -> None:
    table = _pair(7)
    hole = table["y"].isna()
    settings: dict[str, Any] = {"n_replicates": 2, "random_state": 0}
    plain, shifted = Imputer(**settings).fit(table), Imputer(delta={"y": 0.7}, **settings).fit(table)
    for a, b in ((plain.transform(table), shifted.transform(table)), (plain.draw(table)[1], shifted.draw(table)[1])):
        np.testing.assert_allclose(b.loc[hole, "y"], a.loc[hole, "y"] + 0.7, rtol=1e-12)
        assert b.loc[~hole].equals(a.loc[~hole])


def test_donors_give_what_was_observed() -> None:
    table, complete = survey(12000, seed=8)
    table["income"] = (table["income"] / 500).round() * 500  # people round
    imputer = Imputer(**SETTINGS | {"method": "donor"}).fit(table)
    hole = table["income"].isna()
    for done in imputer.draw(table, 2):
        assert set(done["income"]) <= set(table["income"].dropna())
        assert set(done["age"]) <= set(table["age"].dropna())
        assert done.loc[hole, "income"].mean() == pytest.approx(complete.loc[hole, "income"].mean(), rel=0.06)


# --- models -----------------------------------------------------------------------------------------------------------


def test_the_model_is_chosen_by_the_columns(normal: Imputer, mixture: Imputer) -> None:
    assert normal.imputation_.model.n_components == 1
    assert normal.roles_.ordered == (("education", tuple(LEVELS)), ("owner", (False, True)))
    assert mixture.imputation_.model.n_components == 2
    assert mixture.roles_.categories == ("town",)
    with pytest.raises(ConfigurationError, match=r"unordered categories \('town'\)"):
        Imputer("normal", columns=["age", "town"]).fit(survey(unordered=True)[0])


@pytest.mark.parametrize(
    "model",
    [
        MultivariateNormal(prior=None),
        GaussianMixture(2, random_state=0),
        GaussianMixture(2, covariance_type="diag", random_state=0),
        MixtureModel(2, gaussian=["x"], poisson=["c"], binomial={"s": "t"}, tol=1e-3, random_state=0),
    ],
    ids=["normal", "full", "diag", "mixed"],
)
def test_an_estimator_is_taken_as_it_is(model: Any) -> None:
    table = _pair(9)
    if isinstance(model, MixtureModel):
        rng = np.random.default_rng(0)
        table["c"] = np.where(rng.random(500) < 0.2, np.nan, rng.poisson(2, 500))
        table["t"] = 10
        table["s"] = np.where(rng.random(500) < 0.2, np.nan, rng.binomial(10, 0.4, 500))
        table = table.drop(columns="y")
    imputer = Imputer(model, n_replicates=2, random_state=0).fit(table)
    for done in (imputer.transform(table), *imputer.draw(table)):
        assert done.notna().all().all()
    if "s" in table:
        drawn = imputer.draw(table)[0]
        assert (drawn["s"] <= 10).all()
        assert (drawn["c"] == drawn["c"].round()).all()


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "settings", "error", "says"),
    [
        ({"y": np.nan}, {}, DataError, r"column 'y' has no observed cell"),
        ({}, {"bounds": {"y": (5, None)}}, DataError, r"column 'y' holds \d+ value\(s\) outside its bounds"),
        ({}, {"transforms": {"y": "log"}}, DataError, r"column 'y' holds values of 0 or less"),
        ({"k": True}, {}, DataError, r"column 'k' has one level only"),
        ({"k": 1}, {"key": "k"}, DataError, r"the key 'k' is not unique"),
        (
            {"y": np.r_[np.full(250, 1e-300), np.full(250, 3e-300)]},
            {},
            DataError,
            r"'y' holds values too small to square",
        ),
        (
            {"y": np.r_[np.full(250, 1e300), np.full(250, 3e300)]},
            {},
            DataError,
            r"'y' holds values too large to square",
        ),
        ({}, {"key": "nobody"}, DataError, r"'nobody' is not in"),
        ({}, {"columns": ["x", "yy"]}, DataError, r"'yy' is not in .*did you mean 'y'"),
        ({}, {"universe": {"y": "x.max() > 3"}}, ConfigurationError, r"is not understood"),
        ({}, {"universe": {"y": "age >= 20"}}, DataError, r"'age' is not in"),
        ({}, {"delta": {"z": 1}}, ConfigurationError, r"delta names 'z'"),
        ({}, {"bounds": {"z": (0, 1)}}, ConfigurationError, r"bounds names 'z'"),
        ({}, {"bounds": {"y": (1, 0)}}, ConfigurationError, r"bounds of 'y'"),
        ({}, {"model": "knn"}, ConfigurationError, r"model must be"),
        ({}, {"method": "nearest"}, ConfigurationError, r"method must be"),
        ({}, {"n_replicates": 1}, ConfigurationError, r"n_replicates must be 0 or at least 2"),
        ({"k": np.arange(500) * 2.0, "l": np.arange(500.0)}, {"prior": None}, DataError, r"'k', 'l' are collinear"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, Any], settings: dict[str, Any], error: type, says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        Imputer(**settings).fit(_pair().assign(**change))
    assert "\n" not in str(caught.value)


def test_collinear_columns_are_named_and_the_prior_gives_finite_answers() -> None:
    table = _pair().assign(twice=lambda t: 2 * t["x"])
    table.loc[:40, "twice"] = np.nan
    with pytest.warns(UserWarning, match=r"columns 'x', 'twice' are collinear"):
        imputer = Imputer(n_replicates=2, random_state=0).fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = imputer.transform(table)
    np.testing.assert_allclose(done["twice"], 2 * done["x"], atol=0.05)


def test_new_rows_with_an_unseen_level() -> None:
    table, _ = survey(unordered=True)
    settings = SETTINGS | {"columns": [*COLUMNS, "town"], "n_components": 1, "n_replicates": 0}
    new = table.head(20).assign(town="Zug")
    with pytest.raises(
        DataError, match=r"column 'town' holds 20 cell\(s\) with a level that the fitted table did not have"
    ):
        Imputer(**settings).fit(table).transform(new)
    done = Imputer(**settings, unseen="missing").fit(table).transform(new)
    assert (done["town"] == "Zug").all()
    assert done["income"].notna().all()


def test_more_draws_than_replicates(normal: Imputer) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 4"):
        normal.draw(survey()[0], 5)
