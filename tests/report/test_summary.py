"""The summary of fitted models: the right numbers, intervals where there are standard errors, warnings where they are deserved and nowhere else."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import binom, norm, poisson
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

import dask_em
from dask_em import (
    BinomialMixture,
    GaussianMixture,
    Imputer,
    LatentClassAnalysis,
    MixtureModel,
    MultivariateNormal,
    PoissonMixture,
    Ridge,
    load,
    save,
)
from dask_em.em.stopping import Verdict
from dask_em.errors import ConfigurationError, ConvergenceWarning
from dask_em.families.covariance import MODELS
from dask_em.report import findings
from dask_em.report.text import covariance_in_words, number, summarise
from tests import reference

HOSTILE = "<script>alert('x')</script> & \"q\""
EXACT: dict[str, Any] = {"prior": None, "tol": 1e-12, "max_iter": 5000, "random_state": 0}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Two clear groups in columns of every kind, with names that try to be HTML, and holes."""
    rng = np.random.default_rng(3)
    n = 600
    side = rng.random(n) < 0.35
    own = pd.DataFrame(
        {
            HOSTILE: 50 + 10 * rng.normal(size=n) + 60 * side,
            "income": np.exp(8 + 0.4 * rng.normal(size=n) + 2 * side),
            "visits": rng.poisson(np.where(side, 9.0, 2.0)),
            "plan": np.where(rng.random(n) < np.where(side, 0.8, 0.2), "<b>bold</b>", "basic"),
            "wins": rng.binomial(10, np.where(side, 0.8, 0.3)),
        }
    )
    own[HOSTILE] = own[HOSTILE].mask(rng.random(n) < 0.2)
    own["plan"] = own["plan"].mask(rng.random(n) < 0.1)
    return own


def mixtures() -> list[tuple[BaseEstimator, list[str]]]:
    mixed = MixtureModel(
        2,
        gaussian=[HOSTILE, "income"],
        poisson=["visits"],
        categorical=["plan"],
        binomial={"wins": 10},
        transforms={"income": "log"},
        random_state=0,
    )
    return [
        (GaussianMixture(2, random_state=0), [HOSTILE, "visits"]),
        (GaussianMixture(2, covariance_type="EVI", random_state=0), [HOSTILE, "visits"]),
        (GaussianMixture(1), [HOSTILE, "visits"]),
        (PoissonMixture(2, random_state=0), ["visits", "wins"]),
        (BinomialMixture(2, trials=10, random_state=0), ["wins"]),
        (LatentClassAnalysis(2, random_state=0), ["plan", "visits"]),
        (mixed, [HOSTILE, "income", "visits", "plan", "wins"]),
    ]


ALL = [*mixtures(), (MultivariateNormal(), [HOSTILE, "visits"]), (Imputer(random_state=0, n_replicates=12), None)]


def name_of(value: Any) -> str:
    return type(value).__name__ if isinstance(value, BaseEstimator) else ""


def fitted(model: Any, table: pd.DataFrame, columns: list[str] | None) -> tuple[Any, pd.DataFrame]:
    X = table if columns is None else table[columns]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return clone(model).fit(X), X


# --- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "columns"), ALL, ids=name_of)
def test_says_what_the_attributes_say(model: Any, columns: list[str] | None, table: pd.DataFrame) -> None:
    own, _ = fitted(model, table, columns)
    text = own.summary()
    inner = own.imputation_.model if isinstance(own, Imputer) else own.model_
    free, objective = inner.mixture.n_free(inner.n_components), own.log_likelihood_
    assert text.startswith(f"{type(own).__name__} with {inner.n_components} component")
    assert f"{free} free parameters" in text
    assert re.search(rf"^table +{own.n_rows_:,} rows$", text, re.MULTILINE)
    assert f"{own.n_scans_:,} scan" in text
    assert " ".join(own.stopped_because_.split()) in " ".join(text.split())
    assert f"{objective:,.2f}\n" in text
    assert f"{-2 * objective + free * np.log(own.sum_of_weights_):,.2f}, {-2 * objective + 2 * free:,.2f}" in text
    if hasattr(own, "n_maps_"):
        assert f"{own.n_maps_:,} evaluations of the EM map" in text
    assert max(map(len, text.splitlines())) <= 120


def test_rows_are_the_parameters_in_the_users_units(table: pd.DataFrame) -> None:
    model, _ = fitted(*mixtures()[-1][:1], table, mixtures()[-1][1])
    rows = {row.label: row.values for row in summarise(model).rows}
    assert_allclose(rows["weight"], model.weights_)
    assert_allclose(rows[f"{HOSTILE} (mean)"], model.means_[:, 0])
    assert_allclose(rows[f"{HOSTILE} (sd)"], np.sqrt(model.covariances_[:, 0, 0]))
    assert_allclose(rows["income (median)"], np.exp(model.means_[:, 1]))
    assert_allclose(rows["income (sd of log)"], np.sqrt(model.covariances_[:, 1, 1]))
    assert_allclose(rows["visits (rate)"], model.rates_[:, 0])
    assert_allclose(rows["wins (probability)"], model.probabilities_["wins"])
    assert_allclose(rows["plan = basic"], model.probabilities_["plan"]["basic"])
    assert len(rows) == 9


def test_weights_of_rows_are_told(table: pd.DataFrame) -> None:
    weight = np.full(len(table), 2.5)
    text = PoissonMixture(2, random_state=0).fit(table[["visits"]], sample_weight=weight).summary()
    assert "600 rows, sum of weights 1,500" in text


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 0.012345, 9999.4, 123456.0, 1e9, 1e-9, -54321.0])
def test_numbers_keep_four_digits(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5e-4)


def test_every_covariance_model_has_words_of_its_own() -> None:
    assert len({covariance_in_words(m, 3) for m in MODELS}) == len(MODELS)
    assert covariance_in_words("VVV", 2) == "full, each component's own (VVV)"
    assert covariance_in_words("VEV", 1) == "full"
    assert covariance_in_words("EEI", 1) == "columns are uncorrelated"


# --- intervals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "columns"), mixtures(), ids=name_of)
@pytest.mark.parametrize("how", ["observed", "bootstrap"])
def test_intervals_of_every_parameter(how: str, model: Any, columns: list[str], table: pd.DataFrame) -> None:
    own, X = fitted(model, table, columns)
    assert "intervals" not in own.summary()
    errors = own.bootstrap(X, 12, random_state=0) if how == "bootstrap" else own.standard_errors(X)
    summary = summarise(own, errors)
    frame = errors.to_frame().groupby("parameter")
    for row in [*summary.rows, *summary.covariances]:
        assert row.low is not None
        assert row.high is not None
        assert (row.low < row.high).all()
        if how == "observed":
            assert ((row.low < row.values) & (row.values < row.high)).all()
    off = frame.get_group("covariances")["column"].nunique() if "covariances" in frame.groups else 0
    d = len(own.model_.schema.design.gaussian)
    assert len(summary.covariances) == max(off - d, 0)
    if hasattr(own, "means_"):
        row = next(r for r in summary.rows if r.what == "sd")
        at = own.model_.schema.design.gaussian.index(row.column)
        name = f"covariances[0, {row.column}, {row.column}]"
        assert at == 0
        assert row.low[0] == pytest.approx(np.sqrt(errors.to_frame().loc[name, "low"]))
    # Kept until the next fit.
    assert own.errors_ is errors
    assert own.summary() == own.summary(errors)
    assert "95 %, from the" in own.summary()
    own.fit(X)
    assert "95 %" not in own.summary()


def test_intervals_of_a_normal(table: pd.DataFrame) -> None:
    X = table[[HOSTILE, "visits"]]
    own = MultivariateNormal().fit(X)
    assert "95 %" not in own.summary()
    given = own.summary(own.standard_errors_)
    assert given == own.summary()  # computed before
    mean, error = own.mean_[1], own.standard_errors_.mean[1]
    assert f"{number(mean)} [{number(mean - 1.959964 * error)}, {number(mean + 1.959964 * error)}]" in given
    with pytest.raises(ConfigurationError, match="standard_errors_ of this fit"):
        own.summary(3)


def test_intervals_of_an_imputer_come_from_its_replicates(table: pd.DataFrame) -> None:
    own = Imputer(random_state=0, n_replicates=12).fit(table)
    assert "95 %, from the bootstrap" in own.summary()
    assert "12 bootstrap replicates; random numbers hang on the position of a row" in own.summary()
    few = Imputer("normal", n_replicates=3, random_state=0).fit(table[["visits", "wins"]])
    assert "95 %" not in few.summary()


def test_errors_of_another_fit_are_refused(table: pd.DataFrame) -> None:
    X = table[["visits", "wins"]]
    one, other = (PoissonMixture(k, random_state=0).fit(X) for k in (2, 1))
    for errors in (other.standard_errors(X), 0.95, "observed"):
        with pytest.raises(ConfigurationError, match="errors"):
            one.summary(errors)
    half = PoissonMixture(2, random_state=0).fit(X[:300])
    with pytest.raises(ConfigurationError, match="another fit"):
        one.summary(half.standard_errors(X[:300]))


def test_too_many_covariances_are_left_to_the_dataframe() -> None:
    x = np.random.default_rng(0).normal(size=(400, 15))
    own = MultivariateNormal().fit(x)
    text = own.summary(own.standard_errors_)
    assert "too many to list" in text
    assert "Covariances\n" not in text


# --- HTML --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags in order, text of cells, and whether all that was opened was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize(("model", "columns"), ALL, ids=name_of)
def test_html_is_well_formed_escaped_and_runs_nothing(model: Any, columns: Any, table: pd.DataFrame) -> None:
    own, _ = fitted(model, table, columns)
    html = own._repr_html_()
    page = Page(html)
    assert not page.open
    assert not {"script", "img", "link", "iframe", "b", "a"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", html)
    for row in summarise(own).rows:
        assert row.column in page.text or not row.column
        assert row.what in page.text
        assert all(re.sub("^-", "−", number(v)) in page.text for v in row.values)
    assert own._repr_mimebundle_()["text/html"] == html


def test_html_has_intervals_and_warnings(table: pd.DataFrame) -> None:
    X = table[[HOSTILE, "visits"]]
    own = GaussianMixture(2, random_state=0, max_iter=2, tol=1e-12)
    with pytest.warns(ConvergenceWarning):
        own.fit(X)
    own.standard_errors(X, "empirical")
    html = own._repr_html_()
    assert "not converged" in html
    assert html.count("<small>") == 2 * (1 + 4 + 1)
    assert "<details>" in html


def test_a_notebook_is_spared_thousands_of_levels() -> None:
    own = LatentClassAnalysis(1).fit(pd.DataFrame({"code": [f"level{i}" for i in range(1000)]}))
    page = Page(own._repr_html_())
    assert page.tags.count("tr") == 301
    assert any("700 more rows" in t for t in page.text)
    assert own.summary().count("code = level") == 1000


@pytest.mark.parametrize("model", [GaussianMixture(2), MultivariateNormal(), Imputer()], ids=name_of)
def test_an_unfitted_estimator_has_the_picture_of_scikit_learn(model: Any) -> None:
    assert "sk-container-id" in model._repr_html_()
    assert "sk-container-id" in model._repr_mimebundle_()["text/html"]
    with pytest.raises(NotFittedError):
        model.summary()


def test_display_as_text_is_respected(table: pd.DataFrame) -> None:
    own = PoissonMixture(1).fit(table[["visits"]])
    with config_context(display="text"):
        assert not hasattr(own, "_repr_html_")
        assert set(own._repr_mimebundle_()) == {"text/plain"}


def test_a_saved_model_says_the_same(table: pd.DataFrame, tmp_path: Any) -> None:
    own, _ = fitted(*mixtures()[-1][:1], table, mixtures()[-1][1])
    save(own, tmp_path / "model", segments=["high", "<low>"])
    again = load(tmp_path / "model")
    assert summarise(again).components == ("component high", "component <low>")
    assert again.summary().splitlines()[:8] == own.summary().splitlines()[:8]
    for row, same in zip(summarise(again).rows, summarise(own).rows, strict=True):
        assert row.label == same.label
        assert_allclose(row.values, same.values)
    assert "component &lt;low&gt;" in again._repr_html_()


# --- warnings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "columns"), ALL, ids=name_of)
def test_a_good_fit_has_no_warnings(model: Any, columns: Any, table: pd.DataFrame) -> None:
    own, _ = fitted(model, table, columns)
    if isinstance(own, Imputer):
        own = Imputer("normal", n_replicates=12, random_state=0).fit(table[[HOSTILE, "visits", "wins"]])
    if isinstance(own, LatentClassAnalysis):
        own = LatentClassAnalysis(1).fit(table[["plan"]])
    assert summarise(own).warnings == ()
    assert "Beware" not in own.summary()


def test_who_was_stopped_early_is_not_told_to_raise_max_iter() -> None:
    (told,) = findings.not_converged(False, Verdict.OUTRUN)
    assert "stopped early" in told
    assert "init" in told
    assert "max_iter" not in told


def test_not_converged(table: pd.DataFrame) -> None:
    with pytest.warns(ConvergenceWarning):
        own = GaussianMixture(2, random_state=0, max_iter=1).fit(table[["visits", "wins"]])
    assert any("has not converged (stopped at max_iter" in w for w in summarise(own).warnings)


def test_small_components() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(4000, 2)), rng.normal(size=(30, 2)) + 30])
    few = GaussianMixture(2, n_init=3, random_state=0).fit(x)
    (told,) = summarise(few).warnings
    assert told.startswith("Component 1 holds about 30 rows (0.74 % of the weight): ")
    x = np.concatenate([x[:100], x[-4:]])
    told = summarise(GaussianMixture(2, n_init=3, random_state=0).fit(x)).warnings[0]
    assert told.startswith("Component 1 holds about 4 rows (3.8 % of the weight), fewer than its 5 parameters")
    # The covariance is everybody's: a component has its mean alone.
    tied = summarise(GaussianMixture(2, covariance_type="tied", n_init=3, random_state=0).fit(x)).warnings
    assert not any("fewer than its" in w for w in tied)
    normal = MultivariateNormal().fit(rng.normal(size=(12, 4)))
    assert summarise(normal).warnings[0].startswith("The table has 12 rows, fewer than the 14 parameters")


def test_overlap_is_that_of_the_densities() -> None:
    x = np.random.default_rng(1).normal(size=(3000, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        same = GaussianMixture(2, means_init=[[-1.0], [1.0]], random_state=0, max_iter=3).fit(x)
    overlap = findings.normal_overlap(same.model_, 0, np.array([1]))[0]
    grid = np.linspace(-8, 8, 20001)
    p, q = (norm(same.means_[c, 0], np.sqrt(same.covariances_[c, 0, 0])).pdf(grid) for c in (0, 1))
    assert overlap == pytest.approx(np.trapezoid(np.sqrt(p * q), grid), abs=1e-6)


@pytest.mark.parametrize("kind", ["normal", "category", "count", "coins"])
def test_components_from_labels_without_meaning_coincide(kind: str) -> None:
    """One group, cut in two at random: one step of EM leaves the halves as alike as they are."""
    rng = np.random.default_rng(2)
    n = 40_000
    values = {
        "normal": rng.normal(size=n),
        "category": rng.choice(["a", "b", "c"], n),
        "count": rng.poisson(3.0, n),
        "coins": rng.binomial(7, 0.4, n),
    }
    X = pd.DataFrame({"x": values[kind]})
    settings = {"max_iter": 1, "init": np.arange(n) % 2, "prior": None}
    own: Any = {
        "normal": GaussianMixture(2, **settings),
        "category": LatentClassAnalysis(2, **settings),
        "count": PoissonMixture(2, **settings),
        "coins": BinomialMixture(2, trials=7, **settings),
    }[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        own.fit(X)
    (told,) = (w for w in summarise(own).warnings if "coincide" in w)
    assert told.startswith("Components 0 and 1 nearly coincide (their ")


def test_a_mixture_coincides_only_where_all_its_columns_do(table: pd.DataFrame) -> None:
    rng = np.random.default_rng(5)
    n = 4000
    side = np.arange(n) % 2
    X = pd.DataFrame({"same": rng.normal(size=n), "other": rng.poisson(np.where(side, 20.0, 1.0))})
    own = MixtureModel(2, gaussian=["same"], poisson=["other"], init=side, random_state=0).fit(X)
    assert findings.normal_overlap(own.model_, 0, np.array([1]))[0] > 0.99
    assert summarise(own).warnings == ()


def test_total_variation_is_that_of_the_distributions() -> None:
    rng = np.random.default_rng(6)
    X = pd.DataFrame({"x": np.r_[rng.poisson(2.0, 300), rng.poisson(4.0, 300)]})
    own = PoissonMixture(2, random_state=0).fit(X)
    at = np.arange(200)
    p, q = (poisson.pmf(at, rate) for rate in own.rates_[:, 0])
    found = findings.total_variation(own.model_, 0, np.array([1]))
    assert found == pytest.approx(np.abs(p - q).sum() / 2)
    X = pd.DataFrame({"x": np.r_[rng.binomial(9, 0.3, 300), rng.binomial(9, 0.5, 300)]})
    coins = BinomialMixture(2, trials=9, random_state=0).fit(X)
    p, q = (binom.pmf(at, 9, chance) for chance in coins.probabilities_)
    found = findings.total_variation(coins.model_, 0, np.array([1]))
    assert found == pytest.approx(np.abs(p - q).sum() / 2)


def test_boundaries() -> None:
    X = pd.DataFrame({"a": ["x"] * 50 + ["y"] * 50, "b": ["u", "v"] * 25 + ["u"] * 50, "c": ["x"] * 50 + ["y"] * 50})
    own = LatentClassAnalysis(2, **EXACT).fit(X)
    (told,) = summarise(own).warnings
    assert told.startswith("On the boundary")
    assert "b is always u in component" in told
    assert "a is always y in component" in told
    weak = LatentClassAnalysis(2, random_state=0).fit(X)
    assert not any("boundary" in w for w in summarise(weak).warnings)
    rng = np.random.default_rng(0)
    counts = np.r_[np.zeros(60), rng.poisson(30.0, 60)]
    none = PoissonMixture(2, **EXACT).fit(pd.DataFrame({"n": counts, "m": counts}))
    assert any("n is always 0 in component" in w for w in summarise(none).warnings)
    coins = BinomialMixture(2, trials=20, **EXACT).fit(pd.DataFrame({"s": np.r_[np.full(40, 20), np.full(40, 3)]}))
    assert any("s always succeeds in component" in w for w in summarise(coins).warnings)


@pytest.mark.parametrize("prior", ["weak", Ridge(1.0), None])
def test_columns_that_determine_each_other(prior: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    near = np.column_stack([x, x[:, 0] + x[:, 1] + 1e-3 * rng.normal(size=500)])
    frame = pd.DataFrame(near, columns=["a", "b", "c", "sum"])
    own = MultivariateNormal(prior=prior).fit(frame)
    (told,) = summarise(own).warnings
    assert told.startswith("The covariance is close to singular: ")
    assert "a, b and sum" in told
    assert summarise(MultivariateNormal(prior=prior).fit(frame[["a", "b", "c"]])).warnings == ()


def test_a_component_without_width() -> None:
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"a": np.r_[rng.normal(size=300), 9.0 + 1e-4 * rng.normal(size=300)], "b": rng.normal(size=600)})
    for prior, how in ((None, "a hardly varies"), ("weak", "along a nearly all of its variance comes from the prior")):
        own = GaussianMixture(2, covariance_type="diag", n_init=3, random_state=0, prior=prior).fit(x)
        narrow = int(np.argmin(own.covariances_[:, 0, 0]))
        assert summarise(own).warnings == (f"The covariance of component {narrow} is close to singular: {how}.",)


@pytest.mark.parametrize("kind", ["VVV", "VVI", "EEE", "EVE"])
def test_narrow_flowers_are_no_singular_ones(kind: str) -> None:
    x, _ = reference.iris()
    assert summarise(GaussianMixture(3, covariance_type=kind, n_init=5, random_state=0).fit(x)).warnings == ()


def test_long_lists_are_cut() -> None:
    n = 3000
    x = np.random.default_rng(0).normal(size=(n, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        own = GaussianMixture(8, init=np.arange(n) % 8, max_iter=1).fit(x)
    told = summarise(own).warnings
    assert sum("nearly coincide (" in w for w in told) == 5
    assert any(re.fullmatch(r"\d+ more pairs of components nearly coincide\.", w) for w in told)


def test_the_package_offers_the_test_of_one_component_more() -> None:
    assert callable(dask_em.k_against_k_plus_1)
    assert "k_against_k_plus_1" in dask_em.__all__
