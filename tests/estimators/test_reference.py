"""The estimators against numbers from elsewhere, and against the slow obvious version.

First the judge is judged: tests/oracle.py must reproduce the published numbers by itself. Then the estimators must, and
then they must follow the oracle, update by update, where nobody has published anything: missing cells, weights, priors.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import dask_em
from dask_em import BinomialMixture, GaussianMixture, LatentClassAnalysis, MixtureModel, PoissonMixture
from dask_em.errors import ConvergenceWarning
from tests import oracle, reference
from tests.oracle import Data, Params
from tests.reference import PROBLEMS, Problem, gaussian_problem, holes, row_weights

REL = 1e-6
EXACT: dict[str, Any] = {"prior": None, "tol": 1e-14, "max_iter": 20_000}


def fit_updates(model: Any, X: Any, n: int, **arguments: Any) -> Any:
    """Fit with exactly n EM updates, which the model must say is too few."""
    model.set_params(max_iter=n, tol=0)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        model.fit(X, **arguments)
    assert model.n_iter_ == n
    assert not model.converged_
    return model


# --- the judge itself --------------------------------------------------------------------------------------------


def two_coins() -> tuple[Data, Params]:
    data = Data(successes=reference.TWO_COINS.to_numpy(), trials=np.full((5, 1), 10.0))
    return data, Params(np.full(2, 0.5), chances=np.array([[0.6], [0.5]]))


def test_oracle_one_coin() -> None:
    data = Data(successes=np.array([[6.0], [np.nan]]), trials=np.array([[10.0], [2.0]]))
    coin = Params(np.ones(1), chances=np.array([[0.5]]))
    for n, expected in reference.ONE_COIN_ITERATES.items():
        assert oracle.em(data, coin, n, missing="expected").chances == pytest.approx(expected, abs=1e-8)


def test_oracle_two_coins() -> None:
    data, start = two_coins()
    assert_allclose(oracle.responsibilities(data, start)[:, 0], reference.TWO_COINS_FIRST_RESPONSIBILITIES, atol=5e-5)
    for n, expected in reference.TWO_COINS_ITERATES.items():
        assert_allclose(oracle.em(data, start, n, fix_weights=True).chances[:, 0], expected, atol=1e-8)
    limit = oracle.em(data, start, 100, fix_weights=True)
    assert oracle.log_likelihood(data, limit) == pytest.approx(reference.TWO_COINS_LOG_LIKELIHOOD, abs=1e-8)


def test_oracle_deaths() -> None:
    data = Data(poisson=reference.DEATHS.to_numpy(), weight=reference.DEATHS_DAYS)
    w = reference.DEATHS_WEIGHT
    answer = Params(np.array([w, 1 - w]), rates=np.array(reference.DEATHS_RATES)[:, None])
    assert oracle.log_likelihood(data, answer) == pytest.approx(reference.DEATHS_LOG_LIKELIHOOD, abs=1e-6)
    after = oracle.em_step(data, answer)
    assert_allclose([*after.weights, *after.rates.ravel()], [*answer.weights, *answer.rates.ravel()], rtol=1e-8)


@pytest.mark.parametrize("answer", reference.IRIS_ANSWERS, ids=lambda a: a.model)
def test_oracle_iris(answer: reference.Mclust) -> None:
    X, species = reference.iris()
    data, settings = Data(gaussian=X.to_numpy()), {"covariance_type": answer.name}
    start = oracle.from_labels(data, species, **settings)
    params = oracle.em(data, start, 130 if answer.name == "diag" else 40, **settings)
    assert oracle.log_likelihood(data, params) == pytest.approx(answer.log_likelihood, rel=REL)


def test_oracle_latent_classes() -> None:
    answer = reference.LATENT_CLASS_ANSWERS[-1]
    cells, counts = reference.latent_class_cells(answer.data)
    data = Data(categorical=cells.to_numpy() - 1.0, weight=counts)
    start = tuple(np.array([[0.5, 0.5], [0.95, 0.05]]) for _ in cells)
    params = oracle.em(data, Params(np.array([0.2, 0.8]), probabilities=start), 250)
    assert oracle.log_likelihood(data, params) == pytest.approx(answer.log_likelihood, rel=REL)
    assert_allclose([p[0, 1] for p in params.probabilities], reference.CHEATING_SMALL_CLASS, atol=5e-5)


@pytest.mark.parametrize("covariance_type", reference.COVARIANCE_TYPES)
def test_oracle_climbs_with_the_prior(covariance_type: str) -> None:
    """An M-step with the wrong pseudo-row would lower the objective somewhere."""
    problem = gaussian_problem(covariance_type)
    params, last = problem.start, -np.inf
    for _ in range(5):
        params = oracle.em_step(problem.data, params, prior=True, **problem.settings)
        now = oracle.objective(problem.data, params, prior=True)
        assert now > last
        last = now


# --- coins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["single flips", "one row"])
def test_one_coin_with_missing_flips(rows: str) -> None:
    if rows == "one row":
        X, trials = pd.DataFrame({"heads": [6.0, np.nan], "flips": [10, 2]}), "flips"
    else:
        X, trials = pd.DataFrame({"heads": [1.0] * 6 + [0.0] * 4 + [np.nan] * 2}), 1
    settings = {"successes": "heads", "trials": trials, "missing": "expected", "probabilities_init": [0.5]}
    for n, expected in reference.ONE_COIN_ITERATES.items():
        model = fit_updates(BinomialMixture(1, prior=None, **settings), X, n)
        assert np.ravel(model.probabilities_) == pytest.approx([expected], abs=1e-8)
    model = BinomialMixture(1, **settings, **EXACT).fit(X)
    assert np.ravel(model.probabilities_) == pytest.approx([reference.ONE_COIN_LIMIT], rel=REL)


def test_one_coin_ignoring_missing_flips_is_there_in_one_step() -> None:
    X = pd.DataFrame({"heads": [6.0, np.nan], "flips": [10, 2]})
    model = BinomialMixture(1, successes="heads", trials="flips", probabilities_init=[0.5], **EXACT).fit(X)
    assert np.ravel(model.probabilities_) == pytest.approx([reference.ONE_COIN_LIMIT], rel=1e-12)
    assert model.converged_
    assert model.n_iter_ <= 3


def coins(**settings: Any) -> BinomialMixture:
    return BinomialMixture(2, successes="heads", trials=10, probabilities_init=[0.6, 0.5], **settings)


@pytest.mark.parametrize("n", reference.TWO_COINS_ITERATES)
def test_two_coins_update_by_update(n: int) -> None:
    model = fit_updates(coins(fix_weights=True, prior=None), reference.TWO_COINS, n)
    assert_allclose(model.probabilities_, reference.TWO_COINS_ITERATES[n], atol=1e-8)
    assert_allclose(model.weights_, [0.5, 0.5], atol=1e-15)


def test_two_coins_limit() -> None:
    model = coins(fix_weights=True, **EXACT).fit(reference.TWO_COINS)
    assert_allclose(model.probabilities_, reference.TWO_COINS_LIMIT, rtol=REL)
    assert model.log_likelihood_ == pytest.approx(reference.TWO_COINS_LOG_LIKELIHOOD, rel=REL)
    assert model.aic(reference.TWO_COINS) == pytest.approx(-2 * reference.TWO_COINS_LOG_LIKELIHOOD + 4, rel=REL)


def test_two_coins_with_free_mixing() -> None:
    model = coins(**EXACT).fit(reference.TWO_COINS)
    assert_allclose(model.probabilities_, reference.TWO_COINS_FREE_LIMIT, rtol=REL)
    assert model.weights_[0] == pytest.approx(reference.TWO_COINS_FREE_WEIGHT, rel=REL)
    assert model.log_likelihood_ == pytest.approx(reference.TWO_COINS_FREE_LOG_LIKELIHOOD, rel=REL)
    assert model.aic(reference.TWO_COINS) == pytest.approx(-2 * reference.TWO_COINS_FREE_LOG_LIKELIHOOD + 6, rel=REL)


# --- counts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeated", [False, True], ids=["weights", "repeated rows"])
def test_deaths(repeated: bool) -> None:
    X, weight = reference.DEATHS, reference.DEATHS_DAYS
    arguments: dict[str, Any] = {"sample_weight": weight}
    if repeated:
        X, arguments = X.loc[X.index.repeat(weight)].reset_index(drop=True), {}
    model = PoissonMixture(2, rates_init=[[1.0], [2.5]], **EXACT).fit(X, **arguments)
    assert model.log_likelihood_ == pytest.approx(reference.DEATHS_LOG_LIKELIHOOD, rel=1e-9)
    assert model.bic(X, **arguments) == pytest.approx(-2 * model.log_likelihood_ + 3 * np.log(1096), rel=1e-9)
    # The last digit of a double log-likelihood stands still while π is still 4e-6 from its limit.
    assert_allclose(model.rates_.ravel(), reference.DEATHS_RATES, rtol=1e-4)
    assert model.weights_[0] == pytest.approx(reference.DEATHS_WEIGHT, rel=1e-4)


def test_deaths_stay_at_the_answer() -> None:
    """The published answer is a fixed point to all its digits (EM's rate is .9957 here: 3e-9 a step means 7e-7 away)."""
    weights = [reference.DEATHS_WEIGHT, 1 - reference.DEATHS_WEIGHT]
    rates = np.array(reference.DEATHS_RATES)[:, None]
    model = PoissonMixture(2, weights_init=weights, rates_init=rates, **EXACT)
    model.fit(reference.DEATHS, sample_weight=reference.DEATHS_DAYS)
    assert model.n_iter_ == 1
    assert_allclose(model.rates_, rates, rtol=3e-9)
    assert_allclose(model.weights_, weights, rtol=5e-9)
    assert model.log_likelihood_ == pytest.approx(reference.DEATHS_LOG_LIKELIHOOD, abs=1e-6)


def test_deaths_as_one_poisson() -> None:
    model = PoissonMixture(1, **EXACT).fit(reference.DEATHS, sample_weight=reference.DEATHS_DAYS)
    assert model.rates_.ravel() == pytest.approx([reference.DEATHS_ONE_RATE], rel=1e-8)
    assert model.log_likelihood_ == pytest.approx(reference.DEATHS_ONE_LOG_LIKELIHOOD, rel=1e-9)


# --- iris --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["frame", "array"])
@pytest.mark.parametrize("answer", reference.IRIS_ANSWERS + reference.IRIS_MORE_ANSWERS, ids=lambda a: a.model)
def test_iris(answer: reference.Mclust, kind: str) -> None:
    X, species = reference.iris()
    X = X if kind == "frame" else X.to_numpy()
    model = GaussianMixture(3, covariance_type=answer.model, init=species, **EXACT).fit(X)
    assert model.log_likelihood_ == pytest.approx(answer.log_likelihood, rel=REL)
    assert model.bic(X) == pytest.approx(-answer.bic, abs=1e-3)
    assert model.converged_


@pytest.mark.parametrize("answer", reference.IRIS_ANSWERS, ids=lambda a: a.model)
def test_both_names_of_a_covariance_model_mean_the_same(answer: reference.Mclust) -> None:
    X, species = reference.iris()
    one, other = (GaussianMixture(3, covariance_type=t, init=species).fit(X) for t in (answer.model, answer.name))
    assert one.log_likelihood_ == other.log_likelihood_


def by_majorisation(X: np.ndarray, labels: np.ndarray, volumes: bool = True) -> float:
    """The log-likelihood of VVE by the published algorithm (Browne and McNicholas 2014), slow and obvious, run to its end.

    The axes maximise the likelihood, and then the cost is n_k log of each component's volume. mclust leaves the volumes out: it divides by variances scaled to a product of 1, which lowers the
    sum of n_k times the volumes instead, so that large components decide about the axes.
    """
    k, d = 3, X.shape[1]
    r, axes, last = np.eye(k)[labels].T, np.eye(d), -np.inf
    for _ in range(500):
        n = r.sum(axis=1)
        means = r @ X / n[:, None]
        scatter = np.stack([(own[:, None] * (X - mean)).T @ (X - mean) for own, mean in zip(r, means)])
        largest, before = np.linalg.eigvalsh(scatter)[:, -1], np.inf
        for _ in range(5000):
            along = np.einsum("ji,kjl,li->ki", axes, scatter, axes) / n[:, None]
            volume = np.exp(np.log(along).mean(axis=1))
            cost = float(n @ np.log(volume) if volumes else n @ volume)
            if before - cost < 1e-13 * abs(cost):
                break
            before = cost
            weigh = along if volumes else along / volume[:, None]
            pull = sum((axes.T @ W - top * axes.T) / v[:, None] for v, W, top in zip(weigh, scatter, largest))
            left, _, right = np.linalg.svd(pull)
            axes = -(left @ right).T
        covariances = [(axes * v) @ axes.T for v in along]
        log = [np.log(m / len(X)) + multivariate_normal(mean, c).logpdf(X) for m, mean, c in zip(n, means, covariances)]
        total = logsumexp(log, axis=0)
        r, now = np.exp(log - total), float(total.sum())
        if abs(now - last) < 1e-9:
            break
        last = now
    return now


def test_iris_with_axes_in_common_climbs_beyond_mclust() -> None:
    """mclust's number is that of an M-step without the volumes, to its last digit; the likelihood is higher elsewhere."""
    X, species = reference.iris()
    printed = by_majorisation(X.to_numpy(), species, volumes=False)
    assert printed == pytest.approx(reference.IRIS_VVE_LOG_LIKELIHOOD, abs=1e-6)
    model = GaussianMixture(3, covariance_type="VVE", init=species, **EXACT).fit(X)
    assert model.log_likelihood_ == pytest.approx(-214.053208, rel=REL)
    assert model.log_likelihood_ > reference.IRIS_VVE_LOG_LIKELIHOOD
    # What it claims holds: a likelihood computed elsewhere, of matrices that share their axes.
    densities = [multivariate_normal(m, c).pdf(X) for m, c in zip(model.means_, model.covariances_)]
    assert np.log(model.weights_ @ densities).sum() == pytest.approx(model.log_likelihood_, rel=1e-9)
    one, two, three = model.covariances_
    assert_allclose(one @ two, two @ one, atol=1e-9)
    assert_allclose(two @ three, three @ two, atol=1e-9)
    assert model.log_likelihood_ == pytest.approx(by_majorisation(X.to_numpy(), species), abs=1e-4)
    again = GaussianMixture(3, covariance_type="VVE", init=species, **EXACT).fit(100 * X)
    assert_allclose(again.means_, 100 * model.means_, rtol=1e-6)


@pytest.mark.parametrize("repeated", [False, True], ids=["weights", "repeated rows"])
def test_iris_weighted(repeated: bool) -> None:
    X, species = reference.iris()
    weight = np.tile([1, 2], 75)
    arguments: dict[str, Any] = {"sample_weight": weight}
    if repeated:
        X, species, arguments = X.loc[X.index.repeat(weight)], species.repeat(weight), {}
    model = GaussianMixture(3, init=species, **EXACT).fit(X, **arguments)
    assert_allclose(model.weights_, reference.IRIS_WEIGHTED_PROPORTIONS, atol=1e-6)
    for component, mean in reference.IRIS_WEIGHTED_MEANS.items():
        assert_allclose(model.means_[component], mean, rtol=REL)


# --- latent classes ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::dask_em.errors.ConvergenceWarning")  # one start of the twenty may be dropped
@pytest.mark.parametrize("repeated", [False, True], ids=["weights", "repeated rows"])
@pytest.mark.parametrize("answer", reference.LATENT_CLASS_ANSWERS, ids=lambda a: f"{a.data} {a.n_components}")
def test_latent_classes(answer: reference.PoLCA, repeated: bool) -> None:
    cells, counts = reference.latent_class_cells(answer.data)
    X, arguments = cells, {"sample_weight": counts}
    if repeated:
        X, arguments = cells.loc[cells.index.repeat(counts)].reset_index(drop=True), {}
    model = LatentClassAnalysis(answer.n_components, n_init=20, random_state=0, **EXACT).fit(X, **arguments)
    assert model.log_likelihood_ == pytest.approx(answer.log_likelihood, rel=REL)
    assert model.aic(X, **arguments) == pytest.approx(answer.aic, abs=1e-3)
    assert model.bic(X, **arguments) == pytest.approx(answer.bic, abs=1e-3)
    assert_allclose(model.weights_, sorted(answer.shares, reverse=True), atol=1e-5)
    expected = counts.sum() * np.exp(np.asarray(model.score_samples(cells)))
    assert 2 * counts @ np.log(counts / expected) == pytest.approx(answer.g2, abs=1e-3)
    if answer.data == "cheating":
        two = [model.probabilities_[column][2].to_numpy()[1] for column in cells]
        assert_allclose(two, reference.CHEATING_SMALL_CLASS, atol=1e-5)
    if answer.n_components == 3:
        assert model.probabilities_["B"][2].to_numpy()[1] == pytest.approx(reference.CARCINOMA_ITEM_B, abs=1e-5)


# --- the oracle, where nobody has published anything -------------------------------------------------------------


def build(problem: Problem, **settings: Any) -> Any:
    """The problem's estimator, started where the problem starts."""
    return getattr(dask_em, problem.estimator)(2, **problem.keywords, **settings)


def reported(model: Any, columns: list[str]) -> Params:
    """The fitted attributes as the oracle's parameters."""
    is_coin = isinstance(model, BinomialMixture)
    tables = {} if is_coin else getattr(model, "probabilities_", {})
    return Params(
        model.weights_,
        getattr(model, "means_", None),
        getattr(model, "covariances_", None),
        tuple(tables[c].to_numpy() for c in columns if c in tables),
        getattr(model, "rates_", None),
        np.reshape(model.probabilities_, (-1, 1)) if is_coin else None,
    )


@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("prior", [None, "weak"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_follows_the_oracle(name: str, prior: str | None, weighted: bool) -> None:
    problem = PROBLEMS[name]()
    weight = problem.data.weight if weighted else np.ones(reference.ROWS)
    data = Data(**{**vars(problem.data), "weight": weight})
    params, done = problem.start, 0
    for n in (1, 2, 6):
        params, done = oracle.em(data, params, n - done, prior=prior == "weak", **problem.settings), n
        arguments = {"sample_weight": weight} if weighted else {}
        model = fit_updates(build(problem, prior=prior), problem.X, n, **arguments)
        for ours, theirs in zip(reported(model, list(problem.X)).arrays(), params.arrays(), strict=True):
            scale = np.abs(theirs).max()
            assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10 * scale)
        assert model.log_likelihood_ == pytest.approx(oracle.log_likelihood(data, params), rel=1e-10)
        assert_allclose(
            np.asarray(model.score_samples(problem.X)), oracle.score_samples(data, params), rtol=1e-8, atol=1e-12
        )
        assert_allclose(np.asarray(model.predict_proba(problem.X)), oracle.responsibilities(data, params), atol=1e-8)


def test_a_rate_of_nothing_stays_finite() -> None:
    """Without a prior a component of zeros only has rate 0, and a row that it cannot have made keeps a finite score."""
    X = pd.DataFrame({"calls": [0] * 10 + [50, 52, 49, 51]})
    model = PoissonMixture(2, rates_init=[[0.001], [50.0]], **EXACT).fit(X)
    assert model.rates_.ravel() == pytest.approx([0.0, 50.5], abs=1e-12)
    assert np.isfinite(np.asarray(model.score_samples(X))).all()


@pytest.mark.parametrize("prior", [None, "weak"])
@pytest.mark.parametrize("covariance_type", reference.COVARIANCE_TYPES)
def test_a_product_of_families_ends_at_the_oracles_fixed_point(covariance_type: str, prior: str | None) -> None:
    rng = np.random.default_rng(8)
    side = np.arange(reference.ROWS) % 2
    x = holes(rng, rng.standard_normal((reference.ROWS, 2)) * [1.0, 20.0] + np.outer(side, [4.0, 90.0]) + [0.0, 500.0])
    codes = holes(
        rng, np.column_stack([rng.random(reference.ROWS) < 0.25 + 0.5 * side, rng.integers(0, 3, reference.ROWS)])
    )
    y = holes(rng, rng.poisson(2.0 + 6.0 * side)[:, None])
    weight = row_weights(rng)
    X = pd.DataFrame(x, columns=["spend", "age"])
    X["paid"] = [None if np.isnan(c) else ["no", "yes"][int(c)] for c in codes[:, 0]]
    X["region"] = [None if np.isnan(c) else ["a", "b", "c"][int(c)] for c in codes[:, 1]]
    X["visits"] = y[:, 0]
    model = MixtureModel(
        2,
        gaussian=["spend", "age"],
        categorical=["paid", "region"],
        poisson=["visits"],
        covariance_type=covariance_type,
        init=side,
        **{**EXACT, "prior": prior},
    ).fit(X, sample_weight=weight)
    data = Data(gaussian=x, categorical=codes, poisson=y, weight=weight)
    params = reported(model, list(X))
    after = oracle.em_step(data, params, covariance_type=covariance_type, prior=prior == "weak")
    assert model.log_likelihood_ == pytest.approx(oracle.log_likelihood(data, params), rel=1e-10)
    for ours, theirs in zip(params.arrays(), after.arrays(), strict=True):
        assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * np.abs(theirs).max())
    assert_allclose(np.asarray(model.score_samples(X)), oracle.score_samples(data, params), rtol=1e-8, atol=1e-10)


def test_the_reason_for_stopping_is_a_sentence() -> None:
    model = coins(**EXACT).fit(reference.TWO_COINS)
    assert model.history_ is not None
    assert len(model.history_) > 0
    with pytest.warns(ConvergenceWarning) as caught:
        coins(prior=None, max_iter=2, tol=0).fit(reference.TWO_COINS)
    assert len(caught) == 1
    assert re.search(r"max_iter", str(caught[0].message))
