"""Bad input gets one clear sentence, of the right class, and nothing else.

Every bad cell is a canary: 98765.4321 or CANARY. Data may be personal, so neither may turn up in a message, nor in the
errors behind it, nor on the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dask_em import BinomialMixture, GaussianMixture, LatentClassAnalysis, MixtureModel, PoissonMixture
from dask_em.errors import ConfigurationError, DaskEMError, DataError

NUMBER, TEXT = 98765.4321, "CANARY"
ROWS = 30
REMEDY = re.compile(
    r"\b(add|ask|check|choose|convert|correct|cut|declare|did you mean|drop|fewer|fit|give|group|instead|leave|make|"
    r"must|name|one of|pass|point|put|remove|replace|required|round|set|try|use|write)\b",
    re.IGNORECASE,
)


def good() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "spend": rng.normal(50, 9, ROWS),
            "age": rng.normal(40, 5, ROWS),
            "visits": rng.poisson(3, ROWS),
            "heads": rng.binomial(10, 0.4, ROWS),
            "flips": np.full(ROWS, 10),
            "region": rng.choice(["north", "south"], ROWS),
            "paid": rng.choice(["no", "yes"], ROWS),
        }
    )


def numbers(**columns: Any) -> pd.DataFrame:
    """The two normal columns, some replaced."""
    return good()[["spend", "age"]].assign(**columns)


def spoilt(column: str, value: Any) -> list[Any]:
    """A column of the good table with one bad cell."""
    cells = good()[column].tolist()
    cells[20] = value
    return cells


def weights(value: Any) -> dict[str, Any]:
    return {"sample_weight": [1.0] * (ROWS - 1) + [value]}


def coins(trials: Any = 10, **settings: Any) -> BinomialMixture:
    return BinomialMixture(2, successes="heads", trials=trials, **settings)


def mixture(**columns: Any) -> MixtureModel:
    return MixtureModel(2, **columns)


class Case(NamedTuple):
    """What to fit on what, which class of error it is, and what its sentence must name."""

    error: type[DaskEMError] | tuple[type[DaskEMError], ...]
    names: str
    model: Callable[[], Any]
    X: Callable[[], Any]
    arguments: dict[str, Any] | None = None


def gaussian(**settings: Any) -> Callable[[], GaussianMixture]:
    return lambda: GaussianMixture(2, **settings)


PLAIN = gaussian()
EITHER = (ConfigurationError, DataError)

DATA_CASES: dict[str, Case] = {
    "text among numbers": Case(DataError, "spend", PLAIN, lambda: numbers(spend=spoilt("spend", TEXT))),
    "a text column": Case(DataError, "age", PLAIN, lambda: numbers(age=[TEXT] * ROWS)),
    "a cell that is no number": Case(DataError, "spend", PLAIN, lambda: numbers(spend=spoilt("spend", {TEXT: NUMBER}))),
    "lists": Case(DataError, "age", PLAIN, lambda: numbers(age=[[NUMBER, 1.0]] * ROWS)),
    "dates": Case(DataError, "age", PLAIN, lambda: numbers(age=pd.date_range("2026-01-01", periods=ROWS))),
    "infinity": Case(DataError, "spend", PLAIN, lambda: numbers(spend=spoilt("spend", np.inf))),
    "minus infinity": Case(DataError, "age", PLAIN, lambda: numbers(age=spoilt("age", -np.inf))),
    "all missing": Case(DataError, "age", PLAIN, lambda: numbers(age=np.full(ROWS, np.nan))),
    "all missing, nothing typed": Case(DataError, "age", PLAIN, lambda: numbers(age=[None] * ROWS)),
    "few distinct rows": Case(
        DataError, "distinct", PLAIN, lambda: pd.DataFrame({"spend": [NUMBER] * ROWS, "age": [1.0] * ROWS})
    ),
    "a constant column among others": Case(DataError, "age", PLAIN, lambda: numbers(age=[NUMBER] * ROWS)),
    "no rows": Case(DataError, "row|empty", PLAIN, lambda: numbers().iloc[:0]),
    "no columns": Case(EITHER, "column|feature", PLAIN, lambda: numbers()[[]]),
    "all categories missing": Case(
        DataError,
        "region",
        lambda: LatentClassAnalysis(2),
        lambda: good()[["paid"]].assign(region=pd.Series([None] * ROWS, dtype=object)),
    ),
    "fractions as categories": Case(
        DataError,
        "spend",
        lambda: LatentClassAnalysis(2),
        lambda: good()[["paid"]].assign(spend=spoilt("spend", NUMBER)),
    ),
    "negative counts": Case(
        DataError, "visits", lambda: PoissonMixture(2), lambda: pd.DataFrame({"visits": spoilt("visits", -98765)})
    ),
    "fractional counts": Case(
        DataError, "visits", lambda: PoissonMixture(2), lambda: pd.DataFrame({"visits": spoilt("visits", NUMBER)})
    ),
    "successes above trials": Case(DataError, "heads", coins, lambda: good().assign(heads=spoilt("heads", 98765))),
    "successes above a column of trials": Case(
        DataError, "heads", lambda: coins("flips"), lambda: good().assign(heads=spoilt("heads", 98765))
    ),
    "negative successes": Case(DataError, "heads", coins, lambda: good().assign(heads=spoilt("heads", -98765))),
    "fractional successes": Case(DataError, "heads", coins, lambda: good().assign(heads=spoilt("heads", NUMBER))),
    "fractional trials": Case(
        DataError, "flips", lambda: coins("flips"), lambda: good().assign(flips=spoilt("flips", NUMBER))
    ),
    "no such successes": Case(DataError, "heads", coins, lambda: good().drop(columns="heads")),
    "no such trials": Case(DataError, "flips", lambda: coins("flips"), lambda: good().drop(columns="flips")),
    "no such column": Case(DataError, "spent", lambda: mixture(gaussian=["spent"]), good),
    "log of nothing": Case(
        DataError,
        "spend",
        lambda: mixture(gaussian=["spend", "age"], transforms={"spend": "log"}),
        lambda: good().assign(spend=spoilt("spend", -NUMBER)),
    ),
    "log1p of less than -1": Case(
        DataError,
        "spend",
        lambda: mixture(gaussian=["spend", "age"], transforms={"spend": "log1p"}),
        lambda: good().assign(spend=spoilt("spend", -NUMBER)),
    ),
}

WEIGHT_CASES: dict[str, Case] = {
    "negative weight": Case(DataError, "weight", PLAIN, numbers, weights(-NUMBER)),
    "missing weight": Case(DataError, "weight", PLAIN, numbers, weights(np.nan)),
    "infinite weight": Case(DataError, "^sample_weight holds 1 infinite", PLAIN, numbers, weights(np.inf)),
    "infinite weight by name": Case(
        DataError,
        "^column 'w' holds 1 infinite",
        PLAIN,
        lambda: numbers(w=weights(np.inf)["sample_weight"]),
        {"sample_weight": "w"},
    ),
    "text as weights": Case(DataError, "weight", PLAIN, numbers, weights(TEXT)),
    "no weight at all": Case(DataError, "weight", PLAIN, numbers, {"sample_weight": np.zeros(ROWS)}),
    "a weight of no column": Case(DataError, "'w'", PLAIN, numbers, {"sample_weight": "w"}),
    "a weight by name where columns have none": Case(
        ConfigurationError, "sample_weight", PLAIN, lambda: numbers().to_numpy(), {"sample_weight": "x1"}
    ),
    "a weight that is modelled": Case(
        ConfigurationError, "'age'", lambda: mixture(gaussian=["spend", "age"]), good, {"sample_weight": "age"}
    ),
    "a weight and nothing else": Case(EITHER, "column", PLAIN, lambda: numbers()[["age"]], {"sample_weight": "age"}),
    "too few weights": Case(EITHER, "weight", PLAIN, numbers, {"sample_weight": np.ones(ROWS - 1)}),
}

LABELS = np.arange(ROWS) % 2

ARGUMENT_CASES: dict[str, Case] = {
    "no components": Case(ConfigurationError, "n_components", lambda: GaussianMixture(0), numbers),
    "half a component": Case(ConfigurationError, "n_components", lambda: GaussianMixture(2.5), numbers),
    "components as text": Case(ConfigurationError, "n_components", lambda: GaussianMixture("two"), numbers),
    "unknown covariance model": Case(ConfigurationError, "covariance_type", gaussian(covariance_type="round"), numbers),
    "unknown prior": Case(ConfigurationError, "prior", gaussian(prior="strong"), numbers),
    "negative tol": Case(ConfigurationError, "tol", gaussian(tol=-1.0), numbers),
    "no iterations": Case(ConfigurationError, "max_iter", gaussian(max_iter=0), numbers),
    "no starts": Case(ConfigurationError, "n_init", gaussian(n_init=0), numbers),
    "unknown init": Case(ConfigurationError, "init", gaussian(init="magic"), numbers),
    "known as a list": Case(
        ConfigurationError, "known", lambda: MixtureModel(2, gaussian=["spend"], known=["k"]), numbers
    ),
    "known as a number": Case(
        ConfigurationError, "known", lambda: MixtureModel(2, gaussian=["spend"], known=3), numbers
    ),
    "binomial as a number": Case(ConfigurationError, "binomial", lambda: MixtureModel(2, binomial=3), numbers),
    "transforms as a number": Case(
        ConfigurationError, "transforms", lambda: MixtureModel(2, gaussian=["spend"], transforms=3), numbers
    ),
    "compress as an array": Case(ConfigurationError, "compress", gaussian(compress=np.ones(2)), numbers),
    "unknown executor": Case(ConfigurationError, "executor", gaussian(executor=3.5), numbers),
    "too few labels": Case(EITHER, "init|label", gaussian(init=LABELS[:-1]), numbers),
    "a label of no component": Case(EITHER, "init|label", gaussian(init=LABELS * 2), numbers),
    "a negative label": Case(EITHER, "init|label", gaussian(init=LABELS - 1), numbers),
    "a label that nobody has": Case(EITHER, "init|label|component", gaussian(init=LABELS * 0), numbers),
    "fractional labels": Case(EITHER, "init|label", gaussian(init=LABELS + 0.5), numbers),
    "a list of models": Case(ConfigurationError, "covariance_type", gaussian(covariance_type=["VVV"]), numbers),
    "means that are text": Case(ConfigurationError, "means_init", gaussian(means_init=TEXT), numbers),
    "means of unequal length": Case(ConfigurationError, "means_init", gaussian(means_init=[[1], [1, 2]]), numbers),
    "weights that are text": Case(ConfigurationError, "weights_init", gaussian(weights_init=TEXT), numbers),
    "covariances that are text": Case(ConfigurationError, "covariances_init", gaussian(covariances_init=TEXT), numbers),
    "rates that are text": Case(
        ConfigurationError, "rates_init", lambda: PoissonMixture(2, rates_init=TEXT), lambda: good()[["visits"]]
    ),
    "chances that are text": Case(
        ConfigurationError, "probabilities_init", lambda: coins(probabilities_init=TEXT), good
    ),
    "means of another shape": Case(ConfigurationError, "means_init", gaussian(means_init=np.zeros((3, 2))), numbers),
    "weights that do not add to 1": Case(
        ConfigurationError, "weights_init", gaussian(weights_init=[0.5, 0.6], means_init=[[40, 40], [60, 40]]), numbers
    ),
    "covariances of another shape": Case(
        ConfigurationError,
        "covariances_init",
        gaussian(means_init=[[40, 40], [60, 40]], covariances_init=np.eye(2)[None]),
        numbers,
    ),
    "covariances that are none": Case(
        ConfigurationError,
        "covariances_init",
        gaussian(means_init=[[40, 40], [60, 40]], covariances_init=-np.array([np.eye(2)] * 2)),
        numbers,
    ),
    "negative rates": Case(
        ConfigurationError, "rates_init", lambda: PoissonMixture(2, rates_init=[[1], [-1]]), lambda: good()[["visits"]]
    ),
    "chances above 1": Case(
        ConfigurationError, "probabilities_init", lambda: coins(probabilities_init=[0.5, 1.5]), good
    ),
    "chances of another shape": Case(
        ConfigurationError, "probabilities_init", lambda: coins(probabilities_init=[0.5]), good
    ),
    "probabilities of another column": Case(
        ConfigurationError,
        "probabilities_init",
        lambda: LatentClassAnalysis(2, probabilities_init={"nowhere": [[0.5, 0.5], [0.4, 0.6]]}),
        lambda: good()[["region", "paid"]],
    ),
    "unknown meaning of missing": Case(ConfigurationError, "missing", lambda: coins(missing="maybe"), good),
    "trials below 1": Case(ConfigurationError, "trials|heads", lambda: coins(trials=0), good),
    "half a trial": Case(ConfigurationError, "trials", lambda: coins(trials=2.5), good),
    "half a trial of a mixture": Case(ConfigurationError, "trials", lambda: mixture(binomial={"heads": 2.5}), good),
    "yes as trials": Case(ConfigurationError, "trials", lambda: coins(trials=True), good),
    "nothing as trials": Case(ConfigurationError, "trials", lambda: coins(trials=None), good),
    "trials in a list": Case(ConfigurationError, "trials", lambda: coins(trials=[10, 2.5]), good),
    "coins without trials": Case(ConfigurationError, "binomial .*pairs", lambda: mixture(binomial=["heads"]), good),
    "transforms without names": Case(
        ConfigurationError, "transforms .*pairs", lambda: mixture(gaussian=["age"], transforms=["log"]), good
    ),
    "successes by number": Case(
        ConfigurationError, "successes", lambda: BinomialMixture(2, successes=0, trials=10), good
    ),
    "successes by numbers": Case(
        ConfigurationError, "successes", lambda: BinomialMixture(2, successes=[0], trials=10), good
    ),
    "columns by number": Case(ConfigurationError, "gaussian", lambda: mixture(gaussian=[0]), good),
    "one number as columns": Case(ConfigurationError, "poisson", lambda: mixture(poisson=2), good),
    "one name as columns": Case(ConfigurationError, "categorical", lambda: mixture(categorical="region"), good),
    "a mixture of nothing": Case(ConfigurationError, "column", mixture, good),
    "one column in two families": Case(
        ConfigurationError, "spend", lambda: mixture(gaussian=["spend"], poisson=["spend"]), good
    ),
    "transform of another column": Case(
        ConfigurationError, "visits", lambda: mixture(gaussian=["spend"], transforms={"visits": "log"}), good
    ),
    "unknown transform": Case(
        ConfigurationError, "spend", lambda: mixture(gaussian=["spend"], transforms={"spend": "cube"}), good
    ),
}

BAD_LABELS: dict[str, Any] = {
    "negative": LABELS - 1,
    "too large": LABELS * 2,
    "fractional": LABELS + 0.5,
    "missing": np.where(LABELS, 1.0, np.nan),
    "missing, as pandas has it": pd.array([None, *LABELS[1:]], dtype="Int64"),
    "text": np.where(LABELS, TEXT, "other"),
}

for taken in ("#weight", "#labels", "#hash"):
    ARGUMENT_CASES[f"a column called {taken}"] = Case(
        ConfigurationError, taken, PLAIN, partial(numbers, **{taken: np.arange(ROWS)})
    )

CASES = {**DATA_CASES, **WEIGHT_CASES, **ARGUMENT_CASES}


def expect(error: Any, names: str, call: Callable[[], Any], capfd: pytest.CaptureFixture[str]) -> None:
    """The call must fail with one sentence of this class that names what is wrong and shows no value."""
    with pytest.raises(error) as caught:
        call()
    assert caught.type.__module__ == "dask_em.errors"
    assert caught.value.exit_code == (4 if isinstance(caught.value, DataError) else 2)
    message = str(caught.value)
    assert re.search(names, message), f"does not name {names}: {message}"
    assert REMEDY.search(message), f"no remedy: {message}"
    assert 20 < len(message) < 400, message
    assert not re.search(r"\n|[.!?]\s+[A-Z]", message), f"more than one sentence: {message}"
    for shown in chain(caught.value):
        assert "98765" not in shown, shown
        assert TEXT not in shown, shown
    assert capfd.readouterr() == ("", "")


def chain(error: BaseException | None) -> list[str]:
    """The messages that a traceback would show: the error's and those of the errors behind it."""
    shown: list[str] = []
    while error is not None:
        shown.append(str(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return shown


@pytest.mark.parametrize("name", CASES)
def test_fit_refuses(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    model, X = case.model(), case.X()
    expect(case.error, case.names, lambda: model.fit(X, **(case.arguments or {})), capfd)
    assert not hasattr(model, "weights_"), "half fitted"


@pytest.mark.parametrize("name", DATA_CASES)
def test_fit_refuses_the_same_in_an_arrow_table(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    case = DATA_CASES[name]
    try:
        X = pa.Table.from_pandas(case.X(), preserve_index=False)
    except pa.ArrowException:
        pytest.skip("Arrow has no such column")
    expect(case.error, case.names, lambda: case.model().fit(X), capfd)


@pytest.mark.parametrize("name", DATA_CASES)
def test_fit_refuses_the_same_in_a_dask_frame(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    case = DATA_CASES[name]
    X = dd.from_pandas(case.X(), npartitions=3, sort=False)
    expect(case.error, case.names, lambda: case.model().fit(X), capfd)


@pytest.mark.parametrize("kind", ["pandas", "Dask"])
@pytest.mark.parametrize("name", BAD_LABELS)
def test_fit_refuses_labels_wherever_they_are(name: str, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    X: Any = numbers()
    labels: Any = pd.Series(BAD_LABELS[name], index=X.index)
    if kind == "Dask":
        X, labels = (dd.from_pandas(part, npartitions=3, sort=False) for part in (X, labels))
    expect(ConfigurationError, "init .*integer", lambda: GaussianMixture(2, init=labels).fit(X), capfd)


@pytest.mark.parametrize("given", ["labels", "weights"])
def test_vectors_beside_a_file_are_refused_with_what_works(
    given: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers().assign(w=1.0).to_parquet(tmp_path / "people.parquet", index=False)
    X = tmp_path / "people.parquet"
    if given == "labels":
        names = "init .*a table in memory"
        expect(ConfigurationError, names, lambda: GaussianMixture(2, init=LABELS).fit(X), capfd)
        GaussianMixture(2, init=LABELS).fit(pd.read_parquet(X).drop(columns="w"))
    else:
        names = "sample_weight .*name of one of its columns"
        expect(ConfigurationError, names, lambda: PLAIN().fit(X, sample_weight=np.ones(ROWS)), capfd)
        PLAIN().fit(X, sample_weight="w")


@pytest.mark.parametrize("shape", [(0, 2), (5, 0)])
def test_fit_refuses_an_empty_array(shape: tuple[int, int], capfd: pytest.CaptureFixture[str]) -> None:
    expect(EITHER, "row|sample|column|feature|empty", lambda: GaussianMixture(1).fit(np.empty(shape)), capfd)


def test_fit_refuses_infinity_in_an_array(capfd: pytest.CaptureFixture[str]) -> None:
    X = numbers().to_numpy(copy=True)
    X[3, 1] = np.inf
    expect(DataError, "1", lambda: GaussianMixture(2).fit(X), capfd)


@pytest.mark.parametrize("cell", [TEXT, {TEXT: NUMBER}])
def test_fit_refuses_what_is_no_number_in_an_array(cell: Any, capfd: pytest.CaptureFixture[str]) -> None:
    X = numbers().to_numpy(dtype=object, copy=True)
    X[3, 1] = cell
    expect(DataError, "column", lambda: GaussianMixture(2).fit(X), capfd)


def test_a_failed_fit_leaves_the_earlier_one_alone() -> None:
    model = GaussianMixture(2, random_state=0).fit(numbers())
    before = model.predict_proba(numbers())
    with pytest.raises(DataError):
        model.fit(DATA_CASES["infinity"].X())
    pd.testing.assert_frame_equal(before, model.predict_proba(numbers()))


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["garbage", "cut short", "missing", "empty folder", "nothing matches"])
def test_fit_refuses_an_unreadable_file(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "people.parquet"
    if kind == "garbage":
        path.write_text(f"{TEXT},{NUMBER}\n" * 50)
    elif kind == "cut short":
        numbers(spend=[NUMBER] * ROWS).to_parquet(path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "empty folder":
        path.mkdir()
    elif kind == "nothing matches":
        path = tmp_path / "people-*.parquet"
    expect(DataError, "people", lambda: GaussianMixture(2).fit(str(path)), capfd)


# --- scoring -----------------------------------------------------------------------------------------------------


def fitted(kind: str) -> tuple[Any, pd.DataFrame]:
    models = {
        "gaussian": (GaussianMixture(2, random_state=0), ["spend", "age"]),
        "classes": (LatentClassAnalysis(2, random_state=0), ["region", "paid"]),
        "counts": (PoissonMixture(2, random_state=0), ["visits"]),
        "coins": (coins(random_state=0), ["heads"]),
        "mixed": (
            mixture(gaussian=["spend"], categorical=["region"], poisson=["visits"], random_state=0),
            ["spend", "region", "visits"],
        ),
    }
    model, columns = models[kind]
    X = good()[columns]
    return model.fit(X), X


class Scoring(NamedTuple):
    kind: str
    column: str
    bad: Any


SCORING: dict[str, Scoring] = {
    "text": Scoring("gaussian", "age", spoilt("age", TEXT)),
    "infinity": Scoring("gaussian", "spend", spoilt("spend", np.inf)),
    "unknown category": Scoring("classes", "region", spoilt("region", TEXT)),
    "numbers for text": Scoring("classes", "paid", [98765] * ROWS),
    "unknown category among others": Scoring("mixed", "region", spoilt("region", TEXT)),
    "negative counts": Scoring("counts", "visits", spoilt("visits", -98765)),
    "fractional counts": Scoring("mixed", "visits", spoilt("visits", NUMBER)),
    "successes above trials": Scoring("coins", "heads", spoilt("heads", 98765)),
}


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("method", ["predict", "predict_proba", "score_samples", "score", "bic"])
@pytest.mark.parametrize("name", SCORING)
def test_scoring_refuses(name: str, method: str, capfd: pytest.CaptureFixture[str]) -> None:
    kind, column, bad = SCORING[name]
    model, X = fitted(kind)
    expect(DataError, column, lambda: getattr(model, method)(X.assign(**{column: bad})), capfd)


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("name", SCORING)
def test_lazy_scoring_refuses_when_computed(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    kind, column, bad = SCORING[name]
    model, X = fitted(kind)
    lazy = dd.from_pandas(X.assign(**{column: bad}), npartitions=3, sort=False)
    expect(DataError, column, lambda: model.predict(lazy).compute(scheduler="sync"), capfd)


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("method", ["score", "bic", "aic"])
@pytest.mark.parametrize("name", ["no rows", "no weight", "negative weights", "missing weights", "too few weights"])
def test_means_need_rows(name: str, method: str, capfd: pytest.CaptureFixture[str]) -> None:
    model, X = fitted("gaussian")
    weights: dict[str, Any] = {
        "no weight": np.zeros(ROWS),
        "negative weights": -np.ones(ROWS),
        "missing weights": np.full(ROWS, np.nan),
        "too few weights": np.ones(ROWS - 1),
    }
    X = X.iloc[:0] if name == "no rows" else X
    expect(EITHER, "row|weight", lambda: getattr(model, method)(X, sample_weight=weights.get(name)), capfd)
    lazy = dd.from_pandas(X, npartitions=1)
    if name == "no rows":
        expect(EITHER, "row", lambda: getattr(model, method)(lazy), capfd)


@pytest.mark.parametrize("kind", ["gaussian", "classes", "counts", "coins", "mixed"])
@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
def test_what_was_fitted_scores_whatever_is_set_for_the_next_fit(kind: str) -> None:
    model, X = fitted(kind)
    expected = model.predict_proba(X)
    pd.testing.assert_frame_equal(model.set_params(n_components=3).predict_proba(X), expected)


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["gaussian", "classes", "counts", "coins", "mixed"])
def test_scoring_names_the_missing_column(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    model, X = fitted(kind)
    column = X.columns[0]
    X = X.rename(columns={column: "something_else"})
    expect(DataError, column, lambda: model.predict(X), capfd)


def test_scoring_counts_the_columns_of_an_array(capfd: pytest.CaptureFixture[str]) -> None:
    model = GaussianMixture(2, random_state=0).fit(numbers().to_numpy())
    with pytest.raises(ValueError, match=r"1.*2|2.*1") as caught:
        model.predict(numbers().to_numpy()[:, :1])
    assert caught.type.__module__ == "dask_em.errors"
    assert capfd.readouterr() == ("", "")
