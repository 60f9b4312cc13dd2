"""First and second derivatives of the log density of a component, family by family.

    s_k = d log p(x_o | k) / dφ_k        -h_k = -d² log p(x_o | k) / dφ_k²

φ_k are the parameters of a component as they are stored, without regard to what ties them together: means and variances, upper triangles of covariances,
probabilities of all levels, rates, chances. -h is linear in s and in what a row was exposed to (its weight, its trials), so sums of those over rows give sums of -h.
Missing cells are integrated out: the derivatives are those of the density of what was observed.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dask_em.families import Binomial, Categorical, DiagonalGaussian, Family, Gaussian, Poisson
from dask_em.families.base import Array, Mask
from dask_em.kernels import precisions
from dask_em.normal import _assembled, _paired


class Terms(Protocol):
    """The derivatives of one family at its parameters, for some missingness patterns: q parameters and e exposures."""

    n_parameters: int
    n_exposures: int

    def scores(self, pattern: int, values: NDArray[Any], out: Array) -> None:
        """Write the (K, q, n) scores of rows with one pattern."""

    def exposure(self, values: NDArray[Any], out: Array) -> None:
        """Write the (e, n) exposures of rows."""

    def information(self, scores: Array, exposure: Array) -> Array:
        """The (K, q, q) sum of -h, from (P, K, q) sums of scores and (P, K, e) sums of exposures, by pattern."""

    def prior(self) -> tuple[Array, Array]:
        """The (K, q) gradient of the log prior, and minus its (K, q, q) second derivatives."""


def terms(family: Family, params: Any, observed: Mask, size: int) -> Terms:
    """The terms of a family; `size` is the number of components, `observed` the (P, d) masks of the gaussian columns."""
    if isinstance(family, Gaussian):
        return GaussianTerms(family, params, observed, size)
    if isinstance(family, DiagonalGaussian):
        return DiagonalTerms(family, params, size)
    if isinstance(family, Categorical):
        return CategoricalTerms(family, params)
    if isinstance(family, Poisson):
        return PoissonTerms(family, params)
    assert isinstance(family, Binomial)
    return BinomialTerms(family, params)


class GaussianTerms:
    """φ = (μ, upper triangle of Σ); with P = Σ_oo⁻¹ and u = P(x - μ): s = (u, u_i u_j - P_ij), halved on the diagonal."""

    n_exposures = 1

    def __init__(self, family: Gaussian, params: Any, observed: Mask, size: int) -> None:
        self.family, self.params, self.sizes = family, params, [size]
        self.precision = precisions(params.covariances, observed)[0]
        self.triangle = np.triu_indices(family.n_columns)
        self.once = np.where(self.triangle[0] == self.triangle[1], 0.5, 1.0)
        self.n_parameters = family.n_features

    def scores(self, pattern: int, values: NDArray[Any], out: Array) -> None:
        d, precision, (i, j) = self.family.n_columns, self.precision[:, pattern], self.triangle
        pulled = precision @ (values - self.params.means[:, :, None])
        out[:, :d] = pulled
        np.multiply(pulled[:, i], pulled[:, j], out=out[:, d:])
        out[:, d:] -= precision[:, i, j][:, :, None]
        out[:, d:] *= self.once[:, None]

    def exposure(self, values: NDArray[Any], out: Array) -> None:
        out[:] = 1.0

    def information(self, scores: Array, exposure: Array) -> Array:
        d, (i, j) = self.family.n_columns, self.triangle
        out = []
        for k, precision in enumerate(self.precision):
            n, pulled = exposure[:, k, 0], scores[:, k, :d]
            square = np.empty_like(precision)
            square[:, i, j] = square[:, j, i] = scores[:, k, d:] / self.once
            # The square is sum u uᵀ - n P; what normal.information pairs with P is sum u uᵀ - n/2 P.
            curved = square + 0.5 * n[:, None, None] * precision
            flat = precision.reshape(len(n), -1)
            mean, cross = (n @ flat).reshape(d, d), (flat.T @ pulled).reshape(d, d, d)
            out.append(_assembled(mean, cross, _paired(precision, curved)))
        return np.array(out)

    def prior(self) -> tuple[Array, Array]:
        d, (i, j) = self.family.n_columns, self.triangle
        size = len(self.params.means)
        gradient, information = (
            np.zeros((size, self.n_parameters)),
            np.zeros((size, self.n_parameters, self.n_parameters)),
        )
        if not self.family.prior:
            return gradient, information
        inverse = np.linalg.inv(self.params.covariances)
        scatter = np.broadcast_to(self.family._prior_covariance(self.sizes), inverse.shape)
        leaning = self.family.prior * (inverse @ scatter @ inverse)
        slope = leaning - self.family.prior * inverse
        gradient[:, d:] = slope[:, i, j] * self.once
        flat, none = np.zeros((d, d)), np.zeros((d, d, d))
        for k in range(size):
            curved = leaning[k] - 0.5 * self.family.prior * inverse[k]
            information[k] = _assembled(flat, none, _paired(inverse[k][None], curved[None]))
        return gradient, information


class DiagonalTerms:
    """φ = (μ, v) of every column; with u = (x - μ) / v: s = (u, (u² - 1/v) / 2)."""

    def __init__(self, family: DiagonalGaussian, params: Any, size: int) -> None:
        self.family, self.params, self.sizes = family, params, [size]
        self.n_exposures = family.n_columns
        self.n_parameters = 2 * family.n_columns

    def scores(self, pattern: int, values: NDArray[Any], out: Array) -> None:
        d, v = self.family.n_columns, self.params.variances[:, :, None]
        pulled = (values - self.params.means[:, :, None]) / v
        out[:, :d] = pulled
        out[:, d:] = 0.5 * (pulled * pulled - 1.0 / v)
        out[np.isnan(out)] = 0.0

    def exposure(self, values: NDArray[Any], out: Array) -> None:
        out[:] = ~np.isnan(values)

    def information(self, scores: Array, exposure: Array) -> Array:
        d, v = self.family.n_columns, self.params.variances
        total, n = scores.sum(axis=0), exposure.sum(axis=0)
        square = 2.0 * total[:, d:] + n / v
        return self._columnwise(n / v, total[:, :d] / v, square / v - 0.5 * n / v**2)

    def _columnwise(self, mean: Array, cross: Array, variance: Array) -> Array:
        d = self.family.n_columns
        out, own = np.zeros((len(mean), 2 * d, 2 * d)), np.arange(d)
        out[:, own, own], out[:, own + d, own + d] = mean, variance
        out[:, own, own + d] = out[:, own + d, own] = cross
        return out

    def prior(self) -> tuple[Array, Array]:
        a, v = self.family.prior, self.params.variances
        scatter = self.family._prior_variance(self.sizes)
        none = np.zeros_like(v)
        gradient = np.concatenate([none, 0.5 * a * (scatter / v**2 - 1.0 / v)], axis=1)
        return gradient, self._columnwise(none, none, a * (scatter / v**3 - 0.5 / v**2))


class CategoricalTerms:
    """φ = probabilities of all levels: s = 1[x = level] / p."""

    n_exposures = 0

    def __init__(self, family: Categorical, params: Any) -> None:
        self.family = family
        self.inverse = reciprocal(params.probabilities)
        self.n_parameters = family.n_features

    def scores(self, pattern: int, values: NDArray[Any], out: Array) -> None:
        self.family.features(values, out[0])
        np.multiply(self.inverse[:, :, None], out[0].copy(), out=out)

    def exposure(self, values: NDArray[Any], out: Array) -> None: ...

    def information(self, scores: Array, exposure: Array) -> Array:
        return diagonal(scores.sum(axis=0) * self.inverse)

    def prior(self) -> tuple[Array, Array]:
        counts = self.family.prior * np.asarray(self.family.margins)
        return counts * self.inverse, diagonal(counts * self.inverse**2)


class PoissonTerms:
    """φ = rates: s = y/λ - 1."""

    def __init__(self, family: Poisson, params: Any) -> None:
        self.family = family
        self.inverse = reciprocal(params.rates)
        self.n_parameters = self.n_exposures = family.n_columns

    def scores(self, pattern: int, values: NDArray[Any], out: Array) -> None:
        np.multiply(self.inverse[:, :, None], values, out=out)
        out -= 1.0
        out[:, np.isnan(values)] = 0.0

    def exposure(self, values: NDArray[Any], out: Array) -> None:
        out[:] = ~np.isnan(values)

    def information(self, scores: Array, exposure: Array) -> Array:
        return diagonal((scores + exposure).sum(axis=0) * self.inverse)

    def prior(self) -> tuple[Array, Array]:
        a, counts = self.family.prior, self.family.prior * np.asarray(self.family.margins)
        return counts * self.inverse - a, diagonal(counts * self.inverse**2)


class BinomialTerms:
    """φ = chances: s = y/p - (t - y)/(1 - p)."""

    def __init__(self, family: Binomial, params: Any) -> None:
        self.family = family
        self.hit, self.miss = reciprocal(params.probabilities), reciprocal(1.0 - params.probabilities)
        self.n_parameters = self.n_exposures = family.n_columns

    def scores(self, pattern: int, values: NDArray[Any], out: Array) -> None:
        successes, trials = np.split(values, 2)
        out[:] = self.hit[:, :, None] * successes - self.miss[:, :, None] * (trials - successes)
        out[np.isnan(out)] = 0.0

    def exposure(self, values: NDArray[Any], out: Array) -> None:
        successes, trials = np.split(values, 2)
        out[:] = np.where(np.isnan(successes) | np.isnan(trials), 0.0, trials)

    def information(self, scores: Array, exposure: Array) -> Array:
        # s = y (1/p + 1/(1-p)) - t/(1-p) gives back the successes.
        total, trials = scores.sum(axis=0), exposure.sum(axis=0)
        successes = (total + trials * self.miss) / (self.hit + self.miss)
        return diagonal(successes * self.hit**2 + (trials - successes) * self.miss**2)

    def prior(self) -> tuple[Array, Array]:
        hits = self.family.prior * np.asarray(self.family.margins)
        misses = self.family.prior - hits
        return hits * self.hit - misses * self.miss, diagonal(hits * self.hit**2 + misses * self.miss**2)


def reciprocal(values: Array) -> Array:
    """1 / values, and 0 where that is not finite: such parameters are on a boundary and are not free."""
    out = np.zeros_like(values)
    return np.divide(1.0, values, out=out, where=values > 1e-100)


def diagonal(values: Array) -> Array:
    """(K, q) values on the diagonals of (K, q, q)."""
    return values[:, :, None] * np.eye(values.shape[1])
