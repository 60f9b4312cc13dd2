"""The slow, obvious version of every mixture: the judge of the fast one.

Row by row and component by component, in plain loops: the density of a row is the marginal density of what is seen of
it, an expected statistic is a conditional expectation written out, and an M-step is a weighted mean. No blocks, no
patterns, no standardising, no natural parameters. It knows nothing of the package that it judges.

The weak prior is one pseudo-row per component: a normal scatter gets diag(column variances) / k^(2/d), a category, coin
or count gets one pseudo-observation at the column's margin, mixing weights get nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import Covariance, binom, multivariate_normal, poisson

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """Columns by family, rows first; NaN is a missing cell. A category is its code 0, 1, ... as a float."""

    gaussian: Array = field(default_factory=lambda: np.empty((0, 0)))
    categorical: Array = field(default_factory=lambda: np.empty((0, 0)))
    poisson: Array = field(default_factory=lambda: np.empty((0, 0)))
    successes: Array = field(default_factory=lambda: np.empty((0, 0)))
    trials: Array = field(default_factory=lambda: np.empty((0, 0)))
    weight: Array | None = None

    def __post_init__(self) -> None:
        n = max(len(part) for part in (self.gaussian, self.categorical, self.poisson, self.successes))
        for name in ("gaussian", "categorical", "poisson", "successes", "trials"):
            part = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, part if part.size else np.empty((n, 0)))
        weight = np.ones(n) if self.weight is None else np.asarray(self.weight, dtype=np.float64)
        object.__setattr__(self, "weight", weight)

    def __len__(self) -> int:
        return len(self.gaussian)

    def seen(self, i: int) -> bool:
        """Whether anything of row i is observed."""
        flips = ~np.isnan(self.successes[i]) & ~np.isnan(self.trials[i])
        parts = (self.gaussian[i], self.categorical[i], self.poisson[i])
        return bool(flips.any() or any((~np.isnan(part)).any() for part in parts))


@dataclass(frozen=True)
class Params:
    """weights (k,), means (k, d), covariances (k, d, d), probabilities one (k, levels) a column, rates (k, d), chances (k, d)."""

    weights: Array
    means: Array | None = None
    covariances: Array | None = None
    probabilities: tuple[Array, ...] = ()
    rates: Array | None = None
    chances: Array | None = None

    def arrays(self) -> Iterator[Array]:
        """Every array that is there, for comparisons."""
        yield self.weights
        yield from (a for a in (self.means, self.covariances, self.rates, self.chances) if a is not None)
        yield from self.probabilities


# --- densities ---------------------------------------------------------------------------------------------------


def log_density(data: Data, params: Params, i: int, k: int) -> float:
    """log p(what is seen of row i | component k)."""
    total = 0.0
    x = data.gaussian[i]
    seen = ~np.isnan(x)
    if seen.any():
        assert params.means is not None
        assert params.covariances is not None
        root = np.linalg.cholesky(params.covariances[k][np.ix_(seen, seen)])
        total += multivariate_normal.logpdf(x[seen], params.means[k][seen], Covariance.from_cholesky(root))
    with np.errstate(divide="ignore"):
        for j, code in enumerate(data.categorical[i]):
            if not np.isnan(code):
                total += np.log(params.probabilities[j][k, int(code)])
    for j, count in enumerate(data.poisson[i]):
        if not np.isnan(count):
            assert params.rates is not None
            total += poisson.logpmf(count, params.rates[k, j])
    for j, (successes, trials) in enumerate(zip(data.successes[i], data.trials[i], strict=True)):
        if not np.isnan(successes) and not np.isnan(trials):
            assert params.chances is not None
            total += binom.logpmf(successes, trials, params.chances[k, j])
    return float(total)


def joint(data: Data, params: Params) -> Array:
    """(n, k) of log weight + log density."""
    n_components = len(params.weights)
    rows = [[log_density(data, params, i, k) for k in range(n_components)] for i in range(len(data))]
    return np.log(params.weights) + np.array(rows)


def score_samples(data: Data, params: Params) -> Array:
    """(n,) log density of each row; 0 where nothing is seen."""
    return np.asarray(logsumexp(joint(data, params), axis=1))


def responsibilities(data: Data, params: Params) -> Array:
    """(n, k) posterior probabilities of the components, without row weights."""
    scores = joint(data, params)
    return np.asarray(np.exp(scores - logsumexp(scores, axis=1, keepdims=True)))


def log_likelihood(data: Data, params: Params) -> float:
    """Total over the rows, each times its weight."""
    return float(data.weight @ score_samples(data, params))


# --- the weak prior ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Margins:
    """Of each column over its seen cells: variance, level shares, mean count, share of successes."""

    variances: Array
    shares: tuple[Array, ...]
    counts: Array
    chances: Array


def margins(data: Data) -> Margins:
    """The column margins at which the prior's pseudo-observations lie."""

    def mean(column: Array, weight: Array = data.weight) -> Any:
        seen = ~np.isnan(column)
        return np.average(column[seen], weights=weight[seen])

    columns = data.gaussian.T
    shares = tuple(
        np.array([mean(np.where(np.isnan(c), np.nan, c == level)) for level in range(int(np.nanmax(c)) + 1)])
        for c in data.categorical.T
    )
    both = [(s + 0 * t, t + 0 * s) for s, t in zip(data.successes.T, data.trials.T, strict=True)]
    return Margins(
        np.array([mean((c - mean(c)) ** 2) for c in columns]),
        shares,
        np.array([mean(c) for c in data.poisson.T]),
        np.array([np.nansum(data.weight * s) / np.nansum(data.weight * t) for s, t in both]),
    )


def prior_scatter(data: Data, n_components: int) -> Array:
    """S0 = diag(column variances) / k^(2/d)."""
    d = data.gaussian.shape[1]
    return np.diag(margins(data).variances / n_components ** (2 / d)) if d else np.zeros((0, 0))


def log_prior(data: Data, params: Params) -> float:
    """What the weak prior adds to the objective."""
    total, margin = 0.0, margins(data)
    for k in range(len(params.weights)):
        if params.means is not None and params.covariances is not None:
            s0 = prior_scatter(data, len(params.weights))
            log_det = np.linalg.slogdet(params.covariances[k])[1]
            total -= 0.5 * (log_det + np.trace(np.linalg.solve(params.covariances[k], s0)))
        for share, p in zip(margin.shares, params.probabilities, strict=True):
            total += share @ np.log(p[k])
        if params.rates is not None:
            total += margin.counts @ np.log(params.rates[k]) - params.rates[k].sum()
        if params.chances is not None:
            total += margin.chances @ np.log(params.chances[k])
            total += (1 - margin.chances) @ np.log1p(-params.chances[k])
    return float(total)


def objective(data: Data, params: Params, prior: bool) -> float:
    """What EM climbs."""
    return log_likelihood(data, params) + (log_prior(data, params) if prior else 0.0)


# --- the M-steps -------------------------------------------------------------------------------------------------


def _full_scatter(data: Data, r: Array, before: Params, k: int) -> tuple[float, Array, Array]:
    """Weight, mean and expected scatter of component k, a missing cell at its conditional expectation."""
    d = data.gaussian.shape[1]
    total, first, rows = 0.0, np.zeros(d), []
    assert before.means is not None
    assert before.covariances is not None
    mean, covariance = before.means[k], before.covariances[k]
    for x, weight in zip(data.gaussian, r[:, k], strict=True):
        o = ~np.isnan(x)
        if not o.any():
            continue
        m = ~o
        filled, residual = x.copy(), np.zeros((d, d))
        regression = np.linalg.solve(covariance[np.ix_(o, o)], covariance[np.ix_(o, m)]).T
        filled[m] = mean[m] + regression @ (x[o] - mean[o])
        residual[np.ix_(m, m)] = covariance[np.ix_(m, m)] - regression @ covariance[np.ix_(o, m)]
        total += weight
        first += weight * filled
        rows.append((weight, filled, residual))
    centre = first / total
    scatter = np.zeros((d, d))
    for weight, filled, residual in rows:
        scatter += weight * (np.outer(filled - centre, filled - centre) + residual)
    return total, centre, scatter


def _diagonal_scatter(data: Data, r: Array, k: int) -> tuple[Array, Array, Array]:
    """Per column: weight, mean and scatter of the seen cells."""
    triples = []
    for column in data.gaussian.T:
        o = ~np.isnan(column)
        total = r[o, k].sum()
        centre = r[o, k] @ column[o] / total
        triples.append((total, centre, r[o, k] @ (column[o] - centre) ** 2))
    n, means, scatter = np.array(triples).T
    return n, means, scatter


def _gaussian_step(data: Data, r: Array, before: Params, model: str, prior: bool) -> tuple[Array, Array]:
    n_components, d = r.shape[1], data.gaussian.shape[1]
    a0, s0 = float(prior), prior_scatter(data, n_components)
    if model in ("full", "tied"):
        n, means, scatter = (
            np.array(a) for a in zip(*(_full_scatter(data, r, before, k) for k in range(n_components)), strict=True)
        )
        n, scatter = n + a0, scatter + a0 * s0
        if model == "tied":
            return means, np.repeat(scatter.sum(axis=0)[None] / n.sum(), n_components, axis=0)
        return means, scatter / n[:, None, None]
    n, means, scatter = (
        np.array(a) for a in zip(*(_diagonal_scatter(data, r, k) for k in range(n_components)), strict=True)
    )
    n, scatter = n + a0, scatter + a0 * np.diag(s0)
    if model == "diag":
        variances = scatter / n
    elif model == "spherical":
        variances = np.repeat(scatter.sum(axis=1, keepdims=True) / n.sum(axis=1, keepdims=True), d, axis=1)
    elif model == "EII":
        variances = np.full((n_components, d), scatter.sum() / n.sum())
    else:
        raise ValueError(f"no covariance model {model}")
    return means, np.array([np.diag(v) for v in variances])


def _category_step(codes: Array, r: Array, share: Array, prior: bool) -> Array:
    counts = np.array([[r[codes == level, k].sum() for level in range(len(share))] for k in range(r.shape[1])])
    counts += share * prior
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _rate_step(y: Array, r: Array, mean: float, prior: bool) -> Array:
    o = ~np.isnan(y)
    return np.asarray((y[o] @ r[o] + mean * prior) / (r[o].sum(axis=0) + prior))


def _coin_step(s: Array, t: Array, r: Array, chance: float, before: Array, prior: bool, missing: str) -> Array:
    heads, flips = np.full(r.shape[1], chance * prior), np.full(r.shape[1], float(prior))
    for i in range(len(s)):
        if np.isnan(t[i]) or (np.isnan(s[i]) and missing == "ignored"):
            continue
        flips = flips + r[i] * t[i]
        heads = heads + r[i] * (t[i] * before if np.isnan(s[i]) else s[i])
    return heads / flips


def m_step(
    data: Data,
    r: Array,
    before: Params,
    *,
    covariance_type: str = "full",
    prior: bool = False,
    fix_weights: bool = False,
    missing: str = "ignored",
) -> Params:
    """Parameters from (n, k) responsibilities; `before` says what a missing cell is expected to be."""
    margin = margins(data)
    r = r * data.weight[:, None]
    counted = np.array([data.seen(i) for i in range(len(data))])
    if missing == "expected":
        counted |= ~np.isnan(data.trials).all(axis=1)
    after = before if fix_weights else replace(before, weights=r[counted].sum(axis=0) / r[counted].sum())
    if data.gaussian.size:
        means, covariances = _gaussian_step(data, r, before, covariance_type, prior)
        after = replace(after, means=means, covariances=covariances)
    if data.categorical.size:
        steps = (_category_step(c, r, share, prior) for c, share in zip(data.categorical.T, margin.shares, strict=True))
        after = replace(after, probabilities=tuple(steps))
    if data.poisson.size:
        rates = [_rate_step(y, r, mean, prior) for y, mean in zip(data.poisson.T, margin.counts, strict=True)]
        after = replace(after, rates=np.array(rates).T)
    if data.successes.size:
        assert before.chances is not None
        columns = zip(data.successes.T, data.trials.T, margin.chances, before.chances.T, strict=True)
        coins = [_coin_step(s, t, r, chance, old, prior, missing) for s, t, chance, old in columns]
        after = replace(after, chances=np.array(coins).T)
    return after


def em_step(data: Data, params: Params, **settings: Any) -> Params:
    """One EM update; `settings` as in `m_step`."""
    return m_step(data, responsibilities(data, params), params, **settings)


def em(data: Data, params: Params, n_iter: int, **settings: Any) -> Params:
    """`n_iter` EM updates."""
    for _ in range(n_iter):
        params = em_step(data, params, **settings)
    return params


def from_labels(data: Data, labels: NDArray[np.int64], **settings: Any) -> Params:
    """The M-step on rows of known component. Complete data only: nothing says what a missing cell is expected to be."""
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    n_components, d = one_hot.shape[1], data.gaussian.shape[1]
    before = Params(
        np.full(n_components, 1 / n_components),
        np.zeros((n_components, d)),
        np.tile(np.eye(d), (n_components, 1, 1)),
        chances=np.full((n_components, data.successes.shape[1]), 0.5),
    )
    after = m_step(data, one_hot, before, **settings)
    return replace(after, chances=None) if not data.successes.size else after
