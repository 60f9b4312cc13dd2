"""What every estimator promises, whatever its family: attributes, weights, kinds of tables, order, repeatability.

One table of models; every promise is kept for every row of it. Every table has missing cells.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from dask_em import BinomialMixture, GaussianMixture, LatentClassAnalysis, MixtureModel, PoissonMixture

pytestmark = pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")

ROWS, K = 120, 3
NORMAL, CATEGORIES, COUNTS = ["spend", "age"], ["asked", "grade", "member", "size"], ["visits", "calls"]


def people() -> pd.DataFrame:
    """Three kinds of people with holes in every column, an index that is not a range, and one person who said nothing."""
    rng = np.random.default_rng(1)
    kind = rng.choice(K, ROWS, p=[0.5, 0.3, 0.2])
    rate = np.array([1.0, 5.0, 12.0])[kind]
    chance = np.array([0.15, 0.5, 0.85])[kind]
    frame = pd.DataFrame(
        {
            "spend": rng.normal(50 + 30 * kind, 6),
            "age": rng.normal(30 + 12 * kind, 4),
            "asked": pd.Series(np.where(rng.random(ROWS) < chance, "yes", "no"), dtype=object),
            "grade": pd.Categorical.from_codes(np.where(rng.random(ROWS) < 0.2, 0, kind), ["low", "mid", "high"]),
            "member": pd.array(rng.random(ROWS) < chance, dtype="boolean"),
            "size": pd.array(1 + (rng.random(ROWS) < chance), dtype="Int64"),
            "visits": pd.array(rng.poisson(rate), dtype="Int64"),
            "calls": rng.poisson(2 + rate).astype(np.float64),
            "heads": rng.binomial(12, chance).astype(np.float64),
            "flips": np.full(ROWS, 12),
        }
    )
    for column in frame.columns.drop("flips"):
        frame.loc[rng.random(ROWS) < 0.1, column] = None
    frame.loc[17, frame.columns.drop("flips").tolist()] = None
    frame.index = pd.Index(1000 + 3 * np.arange(ROWS), name="id")
    return frame


LABELS = np.random.default_rng(1).choice(K, ROWS, p=[0.5, 0.3, 0.2])
"""The true kinds: the first draw of `people`."""


class Model(NamedTuple):
    """An estimator, the columns that it is given, and the shapes of its fitted attributes at k components."""

    make: Callable[..., Any]
    columns: list[str]
    shapes: Callable[[int], dict[str, tuple[int, ...]]]
    modelled: int
    """How many columns have a distribution."""


def gaussian(covariance_type: str) -> Model:
    def make(k: int, **settings: Any) -> GaussianMixture:
        return GaussianMixture(k, covariance_type=covariance_type, **settings)

    return Model(make, NORMAL, lambda k: {"means_": (k, 2), "covariances_": (k, 2, 2)}, 2)


def coins(k: int, **settings: Any) -> BinomialMixture:
    return BinomialMixture(k, successes="heads", trials="flips", **settings)


def dozen(k: int, **settings: Any) -> BinomialMixture:
    return BinomialMixture(k, successes="heads", trials=12, missing="expected", **settings)


def mixed(k: int, **settings: Any) -> MixtureModel:
    return MixtureModel(k, gaussian=NORMAL, categorical=["asked", "grade"], poisson=["visits"], **settings)


def transformed(k: int, **settings: Any) -> MixtureModel:
    return MixtureModel(k, gaussian=["spend"], transforms={"spend": "asinh"}, covariance_type="diag", **settings)


def ages_and_coins(k: int, **settings: Any) -> MixtureModel:
    return MixtureModel(k, gaussian=["age"], binomial={"heads": "flips"}, categorical=["member"], **settings)


MODELS: dict[str, Model] = {
    **{name: gaussian(name) for name in ["full", "tied", "diag", "spherical", "EII"]},
    "one normal column": Model(GaussianMixture, ["age"], lambda k: {"means_": (k, 1), "covariances_": (k, 1, 1)}, 1),
    "classes": Model(LatentClassAnalysis, CATEGORIES, lambda k: {}, 4),
    "one class column": Model(LatentClassAnalysis, ["grade"], lambda k: {}, 1),
    "counts": Model(PoissonMixture, COUNTS, lambda k: {"rates_": (k, 2)}, 2),
    "one count column": Model(PoissonMixture, ["visits"], lambda k: {"rates_": (k, 1)}, 1),
    "coins": Model(coins, ["heads", "flips"], lambda k: {"probabilities_": (k,)}, 1),
    "coins, expected": Model(dozen, ["heads"], lambda k: {"probabilities_": (k,)}, 1),
    "mixed": Model(
        mixed,
        [*NORMAL, "asked", "grade", "visits"],
        lambda k: {"means_": (k, 2), "covariances_": (k, 2, 2), "rates_": (k, 1)},
        5,
    ),
    "mixed with coins": Model(
        ages_and_coins,
        ["age", "heads", "flips", "member"],
        lambda k: {"means_": (k, 1), "covariances_": (k, 1, 1)},
        3,
    ),
    "transformed": Model(transformed, ["spend"], lambda k: {"means_": (k, 1), "covariances_": (k, 1, 1)}, 1),
}
NUMERIC = ["full", "tied", "diag", "spherical", "EII", "one normal column", "counts", "one count column"]
NAMED = ["coins", "coins, expected", "mixed", "mixed with coins", "transformed"]
"""Models that find their columns by name."""

every_model = pytest.mark.parametrize("name", MODELS)


def table(name: str) -> pd.DataFrame:
    return people()[MODELS[name].columns]


def fit(name: str, X: Any = None, k: int = K, sample_weight: Any = None, **settings: Any) -> Any:
    settings = {"random_state": 0, **settings}
    return MODELS[name].make(k, **settings).fit(table(name) if X is None else X, sample_weight=sample_weight)


ARRAYS = ["weights_", "means_", "covariances_", "rates_", "probabilities_"]


def parameters(model: Any) -> dict[str, NDArray[np.float64]]:
    """Every fitted array by name; what a mixture has no columns for is left out."""
    found = {a: np.asarray(v) for a in ARRAYS if isinstance(v := getattr(model, a, None), np.ndarray) and v.size}
    return found | {f"probabilities of {c}": np.asarray(p) for c, p in category_tables(model).items()}


def category_tables(model: Any) -> dict[str, Any]:
    """`probabilities_` by column: frames for categories, (k,) beside them for coins."""
    tables = getattr(model, "probabilities_", {})
    return tables if isinstance(tables, dict) else {}


def assert_same_fit(one: Any, other: Any) -> None:
    """Equal up to rounding and to the step at which EM stopped because of it."""
    assert one.log_likelihood_ == pytest.approx(other.log_likelihood_, rel=1e-7)
    ours, theirs = parameters(one), parameters(other)
    assert ours.keys() == theirs.keys()
    for attribute, value in ours.items():
        scale = np.abs(theirs[attribute]).max()
        assert_allclose(value, theirs[attribute], rtol=1e-5, atol=1e-5 * scale, err_msg=attribute)


# --- attributes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, K])
@every_model
def test_fitted_attributes(name: str, k: int) -> None:
    X, model = table(name), fit(name, k=k)
    assert model.weights_.shape == (k,)
    assert model.weights_.sum() == pytest.approx(1, abs=1e-12)
    for attribute, shape in MODELS[name].shapes(k).items():
        value = getattr(model, attribute)
        assert isinstance(value, np.ndarray), attribute
        assert value.shape == shape, attribute
        assert np.isfinite(value).all(), attribute
    assert isinstance(model.log_likelihood_, float)
    assert model.converged_ is True
    assert isinstance(model.n_iter_, int)
    assert 0 <= model.n_iter_ < model.n_scans_
    assert len(model.history_) > 0
    assert list(model.feature_names_in_) == list(X.columns)
    assert model.n_features_in_ == X.shape[1]


@pytest.mark.parametrize("name", ["classes", "one class column", "mixed"])
def test_probabilities_are_a_frame_for_each_column(name: str) -> None:
    model = fit(name)
    levels: dict[str, list[Any]] = {
        "asked": ["no", "yes"],
        "grade": ["high", "low", "mid"],
        "member": [False, True],
        "size": [1, 2],
    }
    columns = [c for c in MODELS[name].columns if c in levels]
    assert list(category_tables(model)) == columns
    for column, frame in category_tables(model).items():
        assert isinstance(frame, pd.DataFrame)
        assert sorted(frame.columns) == sorted(levels[column])
        assert frame.shape == (K, len(levels[column]))
        assert_allclose(frame.sum(axis=1), 1, atol=1e-12)


@every_model
def test_scores_belong_together(name: str) -> None:
    X, model = table(name), fit(name)
    proba, density = model.predict_proba(X).to_numpy(), model.score_samples(X).to_numpy()
    assert proba.shape == (ROWS, K)
    assert_allclose(proba.sum(axis=1), 1, atol=1e-12)
    assert (model.predict(X).to_numpy() == proba.argmax(axis=1)).all()
    assert density.sum() == pytest.approx(model.log_likelihood_, rel=1e-10)
    assert model.score(X) * ROWS == pytest.approx(model.log_likelihood_, rel=1e-10)
    n_parameters = (model.aic(X) + 2 * model.log_likelihood_) / 2
    assert n_parameters == pytest.approx(round(n_parameters), abs=1e-6)
    assert n_parameters >= K * MODELS[name].modelled + K - 1
    expected_bic = -2 * model.log_likelihood_ + n_parameters * np.log(ROWS)
    assert model.bic(X) == pytest.approx(expected_bic, rel=1e-10)


@every_model
def test_a_row_that_says_nothing_is_worth_nothing(name: str) -> None:
    X, model = table(name), fit(name)
    empty = X.columns.drop("flips", errors="ignore")
    row = X.index[X[empty].isna().all(axis=1)]
    assert len(row) >= 1
    assert_allclose(model.score_samples(X)[row], 0, atol=1e-12)
    assert_allclose(model.predict_proba(X).loc[row], np.tile(model.weights_, (len(row), 1)), atol=1e-12)


@pytest.mark.parametrize("name", [n for n in MODELS if "coins" not in n])
def test_samples_look_like_the_table(name: str) -> None:
    X, model = table(name), fit(name)
    drawn, component = model.sample(4000)
    assert isinstance(drawn, pd.DataFrame)
    assert list(drawn.columns) == list(X.columns)
    assert len(drawn) == len(component) == 4000
    assert_allclose(np.bincount(component, minlength=K) / 4000, model.weights_, atol=0.04)
    # A model of the sample is a model of the table: its rows are as likely as the table's own.
    complete = model.score(X.dropna())
    assert model.score(drawn) == pytest.approx(complete, abs=0.15 * (1 + abs(complete)))


# --- weights -----------------------------------------------------------------------------------------------------

REPEATS = np.random.default_rng(2).choice([0, 1, 2, 3], ROWS)


@every_model
@pytest.mark.parametrize("init", ["labels", "kmeans++"])
def test_integer_weights_repeat_rows(name: str, init: str) -> None:
    X = table(name)
    repeated = X.loc[X.index.repeat(REPEATS)]
    starts = (LABELS, LABELS.repeat(REPEATS)) if init == "labels" else (init, init)
    weighted = fit(name, X, init=starts[0], sample_weight=REPEATS, tol=1e-12, max_iter=20_000)
    plain = fit(name, repeated, init=starts[1], tol=1e-12, max_iter=20_000)
    assert_same_fit(weighted, plain)
    assert weighted.bic(X, sample_weight=REPEATS) == pytest.approx(plain.bic(repeated), rel=1e-7)
    assert weighted.aic(X, sample_weight=REPEATS) == pytest.approx(plain.aic(repeated), rel=1e-7)


@every_model
def test_the_log_likelihood_is_weighted(name: str) -> None:
    X = table(name)
    weight = np.random.default_rng(3).uniform(0, 3, ROWS)
    model = fit(name, X, sample_weight=weight)
    assert weight @ model.score_samples(X).to_numpy() == pytest.approx(model.log_likelihood_, rel=1e-10)
    total = model.score(X, sample_weight=weight) * weight.sum()
    assert total == pytest.approx(model.log_likelihood_, rel=1e-10)


@every_model
def test_a_constant_weight_changes_no_parameter_without_a_prior(name: str) -> None:
    once = fit(name, prior=None, init=LABELS, tol=1e-10, max_iter=20_000)
    half = fit(name, prior=None, init=LABELS, tol=1e-10, max_iter=20_000, sample_weight=np.full(ROWS, 0.5))
    assert once.log_likelihood_ / 2 == pytest.approx(half.log_likelihood_, rel=1e-9)
    assert_allclose(once.weights_, half.weights_, rtol=1e-5)


@every_model
def test_weights_of_every_kind(name: str) -> None:
    X = table(name)
    expected = fit(name, X, init=LABELS, sample_weight=REPEATS)
    for weight in (REPEATS.tolist(), REPEATS.astype(np.float32), pd.Series(REPEATS, index=X.index)):
        assert_same_fit(fit(name, X, init=LABELS, sample_weight=weight), expected)


@pytest.mark.parametrize("kind", ["pandas", "Arrow", "Dask", "path"])
@every_model
def test_a_weight_may_be_a_column_of_the_table(name: str, kind: str, tmp_path: Path) -> None:
    X = table(name)
    X.assign(w=REPEATS).to_parquet(tmp_path / "rows.parquet", index=False)
    make: dict[str, Callable[[], Any]] = {
        "pandas": lambda: X.assign(w=REPEATS),
        "Arrow": lambda: pa.Table.from_pandas(X.assign(w=REPEATS), preserve_index=False),
        "Dask": lambda: dd.from_pandas(X.assign(w=REPEATS), npartitions=2, sort=False),
        "path": lambda: tmp_path / "rows.parquet",
    }
    model, expected = fit(name, make[kind](), sample_weight="w"), fit(name, X, sample_weight=REPEATS)
    assert_same_fit(model, expected)
    assert list(model.feature_names_in_) == list(X.columns)
    assert model.n_features_in_ == X.shape[1]
    for scored in (make[kind](), X):
        found = model.predict(scored)
        found = found.compute(scheduler="sync") if dask.is_dask_collection(found) else found
        assert (np.asarray(found) == expected.predict(X).to_numpy()).all()
    assert model.score(make[kind](), sample_weight="w") == pytest.approx(expected.score(X, sample_weight=REPEATS))
    assert model.score(make[kind]()) == pytest.approx(expected.score(X))


def test_coins_and_transforms_may_be_given_in_pairs() -> None:
    X, settings = people(), {"gaussian": ["age"], "random_state": 0}
    as_mappings = MixtureModel(K, binomial={"heads": "flips"}, transforms={"age": "log"}, **settings).fit(X)
    as_pairs = MixtureModel(K, binomial=[("heads", "flips")], transforms=[("age", "log")], **settings).fit(X)
    assert as_pairs.log_likelihood_ == as_mappings.log_likelihood_


# --- order and chance --------------------------------------------------------------------------------------------


@every_model
def test_components_come_by_descending_weight(name: str) -> None:
    weights = fit(name, init="random", n_init=3).weights_
    assert (np.diff(weights) <= 0).all()


@every_model
def test_components_keep_the_order_of_the_labels(name: str) -> None:
    forwards, backwards = fit(name, init=LABELS), fit(name, init=K - 1 - LABELS)
    assert_allclose(forwards.weights_, backwards.weights_[::-1], rtol=1e-6)
    for attribute, value in parameters(forwards).items():
        assert_allclose(value, parameters(backwards)[attribute][::-1], rtol=1e-5, atol=1e-6 * np.abs(value).max())


def test_components_keep_the_order_of_given_parameters() -> None:
    X = people()
    means = np.array([[110.0, 54.0], [50.0, 30.0], [80.0, 42.0]])
    normal = GaussianMixture(K, means_init=means).fit(X[NORMAL])
    assert_allclose(normal.means_, means, atol=12)
    counts = PoissonMixture(K, rates_init=[[12, 14], [1, 3], [5, 7]]).fit(X[COUNTS])
    assert list(counts.rates_[:, 0].argsort()) == [1, 2, 0]
    heads = BinomialMixture(K, successes="heads", trials=12, probabilities_init=[0.5, 0.85, 0.15]).fit(X[["heads"]])
    assert list(heads.probabilities_.argsort()) == [2, 0, 1]
    start = {c: [[0.1, 0.9], [0.9, 0.1]] for c in ("asked", "member")}
    classes = LatentClassAnalysis(2, probabilities_init=start).fit(X[["asked", "member"]])
    for c in start:
        assert classes.probabilities_[c].to_numpy()[0, 1] > classes.probabilities_[c].to_numpy()[1, 1]


@pytest.mark.parametrize("init", ["kmeans++", "random"])
@every_model
def test_a_seed_repeats_the_fit(name: str, init: str) -> None:
    one, other = (fit(name, init=init, n_init=2, random_state=5) for _ in range(2))
    assert one.log_likelihood_ == other.log_likelihood_
    for attribute, value in parameters(one).items():
        assert (value == parameters(other)[attribute]).all(), attribute


@every_model
def test_the_order_of_rows_does_not_matter(name: str) -> None:
    X = table(name)
    shuffled = X.sample(frac=1, random_state=0)
    one, other = fit(name, X, tol=1e-12, max_iter=20_000), fit(name, shuffled, tol=1e-12, max_iter=20_000)
    assert_same_fit(one, other)


@every_model
def test_more_starts_are_never_worse(name: str) -> None:
    assert fit(name, init="random", n_init=8, prior=None).log_likelihood_ >= (
        fit(name, init="random", n_init=1, prior=None).log_likelihood_ - 1e-3
    )


# --- kinds of tables ---------------------------------------------------------------------------------------------


@every_model
def test_pandas_keeps_its_index(name: str) -> None:
    X, model = table(name), fit(name)
    for method in ("predict", "score_samples"):
        result = getattr(model, method)(X)
        assert isinstance(result, pd.Series)
        pd.testing.assert_index_equal(result.index, X.index)
    result = model.predict_proba(X)
    assert isinstance(result, pd.DataFrame)
    pd.testing.assert_index_equal(result.index, X.index)
    assert result.shape == (ROWS, K)


@pytest.mark.parametrize("name", NUMERIC)
def test_numpy_gives_numpy(name: str) -> None:
    array = table(name).to_numpy(dtype=np.float64, na_value=np.nan)
    model = fit(name, array)
    assert not hasattr(model, "feature_names_in_")
    for method, shape in (("predict", (ROWS,)), ("score_samples", (ROWS,)), ("predict_proba", (ROWS, K))):
        result = getattr(model, method)(array)
        assert type(result) is np.ndarray
        assert result.shape == shape
    assert np.issubdtype(model.predict(array).dtype, np.integer)
    assert_same_fit(model, fit(name))
    drawn, _ = model.sample(5)
    assert np.shape(drawn) == (5, len(MODELS[name].columns))


@every_model
def test_arrow_gives_arrow(name: str) -> None:
    X = pa.Table.from_pandas(table(name), preserve_index=False)
    model = fit(name, X)
    assert isinstance(model.predict(X), pa.Array | pa.ChunkedArray)
    assert isinstance(model.score_samples(X), pa.Array | pa.ChunkedArray)
    proba = model.predict_proba(X)
    assert isinstance(proba, pa.Table)
    assert proba.shape == (ROWS, K)
    assert_same_fit(model, fit(name))
    assert_allclose(proba.to_pandas().to_numpy(), fit(name).predict_proba(table(name)).to_numpy(), atol=1e-9)


class Stream:
    """Anything with an Arrow stream: this one has nothing else."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


@every_model
def test_any_arrow_stream_can_be_fitted(name: str) -> None:
    X = pa.Table.from_pandas(table(name), preserve_index=False)
    assert_same_fit(fit(name, Stream(X)), fit(name))


@pytest.mark.parametrize("npartitions", [1, 4])
@every_model
def test_dask_gives_lazy_dask(name: str, npartitions: int) -> None:
    X = table(name)
    lazy = dd.from_pandas(X, npartitions=npartitions, sort=False)
    model = fit(name, lazy)
    assert_same_fit(model, fit(name))
    for method in ("predict", "score_samples", "predict_proba"):
        result = getattr(model, method)(lazy)
        assert dask.is_dask_collection(result)
        assert isinstance(result, dd.DataFrame if method == "predict_proba" else dd.Series)
        assert result.npartitions == lazy.npartitions
        computed, expected = result.compute(scheduler="sync"), getattr(model, method)(X)
        pd.testing.assert_index_equal(computed.index, X.index)
        assert_allclose(computed.to_numpy(), expected.to_numpy(), rtol=1e-12, atol=1e-12)
        assert computed.to_numpy().dtype == expected.to_numpy().dtype
    assert model.score(lazy) == pytest.approx(model.score(X), rel=1e-12)


def test_dask_scoring_computes_nothing_until_asked() -> None:
    model, X = fit("full"), table("full")
    seen: list[int] = []

    def spy(frame: pd.DataFrame) -> pd.DataFrame:
        seen.append(len(frame))
        return frame

    lazy = dd.from_pandas(X, npartitions=2, sort=False).map_partitions(spy, meta=X.iloc[:0])
    result = model.predict(lazy)
    assert seen == []
    result.compute(scheduler="sync")
    assert sum(seen) == ROWS


def test_dask_weights_and_labels() -> None:
    X, weight = table("full"), pd.Series(REPEATS, index=people().index)
    lazy = dd.from_pandas(X.assign(w=weight, start=LABELS), npartitions=3, sort=False)
    model = fit("full", lazy[NORMAL], init=lazy["start"], sample_weight=lazy["w"])
    assert_same_fit(model, fit("full", X, init=LABELS, sample_weight=REPEATS))


@pytest.mark.parametrize("layout", ["file", "folder", "glob", "row groups", "Path"])
@every_model
def test_a_path_is_a_table(name: str, layout: str, tmp_path: Path) -> None:
    X = table(name)
    if layout in ("folder", "glob"):
        for i in range(3):
            X.iloc[i * 40 : (i + 1) * 40].to_parquet(tmp_path / f"part-{i}.parquet", index=False)
        path = tmp_path if layout == "folder" else tmp_path / "part-*.parquet"
    else:
        path = tmp_path / "people.parquet"
        X.to_parquet(path, index=False, row_group_size=30 if layout == "row groups" else None)
    model = fit(name, path if layout == "Path" else str(path))
    assert_same_fit(model, fit(name))
    assert model.score(str(path)) == pytest.approx(model.score(X), rel=1e-12)
    assert_allclose(np.asarray(model.score_samples(str(path))), model.score_samples(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMED)
def test_other_columns_are_left_alone(name: str) -> None:
    X = people()[people().columns[::-1]].assign(key="nobody's business")
    model = fit(name, X)
    assert_same_fit(model, fit(name))
    assert_allclose(model.predict_proba(X), fit(name).predict_proba(table(name)), atol=1e-9)


@pytest.mark.parametrize("dtype", ["Float64", "double[pyarrow]", "float32"])
@pytest.mark.parametrize("name", ["full", "diag", "counts"])
def test_dtypes_mean_the_same_numbers(name: str, dtype: str) -> None:
    X = table(name).astype("float32").astype("float64")
    assert_same_fit(fit(name, X.astype(dtype)), fit(name, X))


def test_an_array_of_objects_is_its_numbers() -> None:
    array = table("full").to_numpy()
    model = fit("full", array.astype(object))
    assert_same_fit(model, fit("full", array))
    assert (model.predict(array.astype(object)) == model.predict(array)).all()


@pytest.mark.parametrize("dtype", ["str", "string", "string[pyarrow]", "category", "object"])
def test_text_of_every_dtype_is_the_same_category(dtype: str) -> None:
    X = people()[["asked", "grade"]].astype("object")
    assert_same_fit(fit("classes", X.astype(dtype), k=2), fit("classes", X, k=2))


# --- manners -----------------------------------------------------------------------------------------------------


@every_model
def test_nothing_given_is_changed(name: str) -> None:
    X, weight, labels = table(name), REPEATS.astype(np.float64), LABELS.copy()
    given = X.copy(deep=True)
    model = fit(name, X, init=labels, sample_weight=weight)
    for method in ("predict", "predict_proba", "score_samples", "score", "bic", "aic"):
        getattr(model, method)(X)
    pd.testing.assert_frame_equal(X, given)
    assert (weight == REPEATS).all()
    assert (labels == LABELS).all()


def test_arrays_may_be_read_only() -> None:
    array = table("full").to_numpy()
    array.setflags(write=False)
    means = np.array([[50.0, 30.0], [80.0, 42.0]])
    means.setflags(write=False)
    model = GaussianMixture(2, means_init=means).fit(array)
    assert_allclose(model.predict_proba(array).sum(axis=1), 1)


@every_model
def test_settings_are_kept_as_given(name: str) -> None:
    model = MODELS[name].make(2, tol=1e-5, max_iter=77, n_init=3, random_state=11, prior=None, init="random")
    settings = model.get_params()
    shared = {"n_components": 2, "tol": 1e-5, "max_iter": 77, "n_init": 3, "random_state": 11, "prior": None}
    assert shared.items() <= settings.items()
    assert settings["init"] == "random"
    assert settings["executor"] is None
    copy = clone(model)
    assert copy is not model
    assert copy.get_params() == settings
    assert type(model).__name__ in repr(model)
    assert "n_components=2" in repr(model) or "(2" in repr(model)
    assert model.set_params(n_components=K).fit(table(name)) is model
    assert {**settings, "n_components": K} == model.get_params()


@pytest.mark.parametrize("make", [GaussianMixture, LatentClassAnalysis, PoissonMixture])
def test_defaults(make: Any) -> None:
    settings = make(2).get_params()
    expected = {"prior": "weak", "tol": 1e-6, "max_iter": 1000, "n_init": 1, "init": "kmeans++", "random_state": None}
    assert expected.items() <= settings.items()
    with pytest.raises(TypeError):
        make(2, "full")


@every_model
def test_a_fitted_model_survives_pickling_and_cloning_forgets_the_fit(name: str) -> None:
    model, X = fit(name), table(name)
    again = pickle.loads(pickle.dumps(model))
    pd.testing.assert_frame_equal(again.predict_proba(X), model.predict_proba(X))
    assert not hasattr(clone(model), "weights_")


def expected_failures(estimator: Any) -> dict[str, str]:
    return {"check_dtype_object": "a cell that is no number is a DataError that names the column, not a TypeError"}


@parametrize_with_checks(
    [
        GaussianMixture(1, random_state=0),
        *(GaussianMixture(2, covariance_type=t, random_state=0) for t in ("full", "tied", "diag", "spherical", "EII")),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
