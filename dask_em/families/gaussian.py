"""The normal distribution with a full covariance matrix: the covariance models whose axes may be turned (families/covariance.py).

    log p(x_o | k) = -1/2 [ p log 2π + log|Σ_oo| + (x_o - μ_o)ᵀ Σ_oo⁻¹ (x_o - μ_o) ]      features (x, upper triangle of x xᵀ)

Rows come grouped by missingness pattern; a missing cell is stored as 0 (the mean, as data are standardised), so the features
never change and only the natural parameters depend on the pattern. The sums of a pattern are *lifted* to the expected complete-data statistics,

    x̂ = μ + Σ P (x - μ),   P = Σ_oo⁻¹ padded with zeros
    sum r x̂ x̂ᵀ + n C,      C = Σ - Σ P Σ

once per pattern and component, never per row (Little and Rubin 2020, section 11.2; Ghahramani and Jordan 1994).
A pattern with nothing observed tells nothing of this distribution and is left out of its statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.families.base import (
    COLLAPSED_VARIANCE,
    HIDDEN,
    Array,
    Mask,
    Params,
    Plan,
    exp_clipped,
    per_candidate,
    ratio,
)
from dask_em.families.covariance import IN_USER_UNITS, covariances, n_free, usable
from dask_em.kernels import precisions

EXPANDED_LIMIT = 1e6
"""Size of the terms of x'Σ⁻¹x relative to their sum beyond which adding them loses more than 1e-9 of the score."""

FRAGILE = 1e-7
"""Smallest eigenvalue λ of a correlation matrix below which what is lifted from incomplete rows may be rounding: of Σ P Σ about 1e-16 / λ is lost, more than λ itself below 1e-8."""


@dataclass(frozen=True)
class GaussianParams(Params):
    """means : (K, d), covariances : (K, d, d), in standardised units."""

    means: Array
    covariances: Array


@dataclass(frozen=True)
class Gaussian:
    """Settings: covariance model, number of columns, the prior's pseudo-rows and their (d, d) covariance, column scales.

    Without a covariance of its own the prior has the one of the weak prior, see `_prior_covariance`. Scales matter to the models that other units would change.
    """

    model: str
    n_columns: int
    prior: float = 0.0
    prior_covariance: tuple[tuple[float, ...], ...] | None = None
    scale: tuple[float, ...] = ()

    by_pattern = True
    in_patterns = False
    kind = "products"
    n_indicators = 0
    levels: tuple[int, ...] = ()

    @cached_property
    def _triangle(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return np.triu_indices(self.n_columns)

    @property
    def n_features(self) -> int:
        return self.n_columns + self.n_columns * (self.n_columns + 1) // 2

    @property
    def n_stats(self) -> int:
        return 1 + self.n_features

    def features(self, values: NDArray[Any], out: Array) -> None:
        d = self.n_columns
        out[:d] = values
        start = d
        for i in range(d):
            np.multiply(values[i], values[i:], out=out[start : start + d - i])
            start += d - i

    def _origins(self, params: GaussianParams) -> dict[int, Array]:
        # The terms of x'Σ⁻¹x are at most sqrt(Λ_ii Λ_jj) |x_i| |x_j|, with |x| about |mean| plus one deviation.
        own = np.flatnonzero(usable(params.covariances))
        means, covariances = params.means[own], params.covariances[own]
        precision = np.diagonal(np.linalg.inv(covariances), axis1=1, axis2=2)
        deviation = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
        terms = (np.sqrt(np.maximum(precision, 0.0)) * (np.abs(means) + deviation)).sum(axis=1) ** 2
        return {int(k): params.means[k] for k in own[~(terms <= EXPANDED_LIMIT)]}

    def plan(self, params: GaussianParams, observed: Mask) -> Plan:
        d = self.n_columns
        precision, half_log_det = precisions(params.covariances, observed)
        origins = self._origins(params)
        means = params.means.copy()
        means[list(origins)] = 0.0  # values, and so sums, are about the origin there
        linear = (precision @ means[:, None, :, None])[..., 0]
        quadratic = (linear * means[:, None, :]).sum(axis=2)
        constant = -0.5 * (observed.sum(axis=1) * np.log(2 * np.pi) + quadratic) - half_log_det
        i, j = self._triangle
        weights = np.empty((len(observed), len(means), self.n_features))
        weights[:, :, :d] = linear.swapaxes(0, 1)
        weights[:, :, d:] = (precision[..., i, j] * np.where(i == j, -0.5, -1.0)).swapaxes(0, 1)
        weights[:, list(origins)] = 0.0
        pull = np.zeros((len(means), len(observed), d + 1, d + 1))
        pull[..., 0, 0] = 1.0
        pull[..., 0, 1:] = -linear
        pull[..., 1:, 1:] = precision
        return Plan(constant.T, weights, origins, (pull, means, params.covariances, observed))

    def log_prob_centred(self, plan: Plan, pattern: int, component: int, centred: Array) -> Array:
        covariances, observed = plan.extra[2:]
        seen = observed[pattern]
        root = np.linalg.cholesky(covariances[component][np.ix_(seen, seen)])
        whitened = np.linalg.solve(root, centred[seen])
        return -0.5 * (whitened * whitened).sum(axis=0)

    def sums_about(self, plan: Plan, component: int, weight: Array, sums: Array) -> tuple[Array, Array]:
        """For a component with an origin: (P, q) sums of x turned into sums of x - origin, and their (P,) value-dependent log density."""
        origin, observed, d = plan.origins[component], plan.extra[3], self.n_columns
        i, j = self._triangle
        moved = np.where(observed, origin, 0.0)
        out = np.empty_like(sums)
        out[:, :d] = sums[:, :d] - weight[:, None] * moved
        out[:, d:] = sums[:, d:] - moved[:, i] * sums[:, j] - moved[:, j] * out[:, i]
        precision = plan.extra[0][component, :, 1:, 1:][:, i, j] * np.where(i == j, -0.5, -1.0)
        return out, (precision * out[:, d:]).sum(axis=1)

    def lift(self, params: GaussianParams, plan: Plan, observed: Mask, weight: Array, sums: Array) -> Array:
        whole = observed.all(axis=1)
        stats = np.concatenate([weight[whole].sum(axis=0)[:, None], sums[whole].sum(axis=0)], axis=1)
        part = np.flatnonzero(observed.any(axis=1) & ~whole)
        if len(part):
            run = slice(part[0], part[-1] + 1)
            own = run if len(part) == run.stop - run.start else part
            pull, means = plan.extra[:2]
            stats = stats + self._lift_partial(params.covariances, means, pull[:, own], weight[own], sums[own])
        return stats

    def _lift_partial(self, covariances: Array, means: Array, pull: Array, weight: Array, sums: Array) -> Array:
        """Lift the patterns with some cells missing, in homogeneous coordinates (1, x).

        With P = Σ_oo⁻¹ padded with zeros, a row's expectation is (1, x̂) = [[1, 0], [μ, Σ]] [[1, 0], [-Pμ, P]] (1, x). The left factor does not
        depend on the pattern, so only the right one (`pull` holds its transpose) is applied to every pattern's moments.
        """
        d, n_components = self.n_columns, len(means)
        moments = np.empty_like(pull)
        moments[..., 0, 0] = weight.T
        moments[..., 0, 1:] = moments[..., 1:, 0] = sums[:, :, :d].swapaxes(0, 1)
        i, j = self._triangle
        moments[..., i + 1, j + 1] = moments[..., j + 1, i + 1] = sums[:, :, d:].swapaxes(0, 1)
        # The sum over patterns is one long inner product per component.
        flat = pull.reshape(n_components, -1, d + 1)
        inner = flat.swapaxes(1, 2) @ (moments @ pull).reshape(n_components, -1, d + 1)
        left = np.zeros((n_components, d + 1, d + 1))
        left[:, 0, 0] = 1.0
        left[:, 1:, 0] = means
        left[:, 1:, 1:] = covariances
        total = left @ inner @ left.swapaxes(1, 2)
        # The covariance of what is missing is C = Σ - Σ P Σ.
        average = (weight.T[:, None] @ pull.reshape(n_components, -1, (d + 1) ** 2)).reshape(left.shape)[:, 1:, 1:]
        total[:, 1:, 1:] += weight.sum(axis=0)[:, None, None] * covariances - covariances @ average @ covariances
        return np.concatenate([total[:, 0, :], total[:, i + 1, j + 1]], axis=1)

    def m_step(self, stats: Array, params: GaussianParams, sizes: Sequence[int]) -> GaussianParams:
        d = self.n_columns
        n, x = stats[:, :1], stats[:, 1 : d + 1]
        i, j = self._triangle
        scatter = np.empty((len(stats), d, d))
        scatter[:, i, j] = scatter[:, j, i] = stats[:, d + 1 :]
        origin = np.zeros_like(params.means)
        hidden = HIDDEN * np.diagonal(scatter, axis1=1, axis2=2)
        about_own = self._origins(params)
        for k, mean in about_own.items():
            origin[k], hidden[k] = mean, 0.0
        shift = ratio(x, n, params.means - origin)
        scatter -= n[:, :, None] * shift[:, :, None] * shift[:, None, :]
        scatter += self.prior * self._prior_covariance(sizes)
        n = n[:, 0] + self.prior
        new = GaussianParams(origin + shift, self._covariances(scatter, n, params, sizes))
        # What rounding may hide of the variances is added to components whose sums about 0 lost too many digits. Such a component has an origin from here on, so
        # the next step sees its true covariance, or that it has none.
        hidden += COLLAPSED_VARIANCE * n[:, None]
        about_zero = np.setdiff1d(np.arange(len(n)), list(about_own))
        wide = new.covariances + ratio(hidden, n[:, None], hidden)[:, :, None] * np.eye(d)
        lost = np.zeros(len(n))
        lost[about_zero[list(self._origins(GaussianParams(new.means[about_zero], wide[about_zero])))]] = 1.0
        if not lost.any():
            return new
        if self.model != "VVV":
            lost = per_candidate(lost, sizes)
            wide = self._covariances(scatter + hidden[:, :, None] * np.eye(d), n, params, sizes)
        return replace(new, covariances=np.where(lost[:, None, None] > 0, wide, new.covariances))

    def _covariances(self, scatter: Array, n: Array, params: GaussianParams, sizes: Sequence[int]) -> Array:
        unit = np.asarray(self.scale) if self.model in IN_USER_UNITS else np.ones(self.n_columns)
        both = unit[:, None] * unit
        return covariances(self.model, scatter * both, n, params.covariances * both, sizes) / both

    def _prior_covariance(self, sizes: Sequence[int]) -> Array:
        """S0 = diag(column variances) / k^(2/d), Fraley and Raftery (2007); the column variances are 1 here."""
        if self.prior_covariance is not None:
            return np.array(self.prior_covariance)
        scale = np.repeat(np.asarray(sizes, dtype=np.float64) ** (-2 / self.n_columns), sizes)
        return scale[:, None, None] * np.eye(self.n_columns)

    def log_prior(self, params: GaussianParams, sizes: Sequence[int]) -> Array:
        if not self.prior:
            return np.zeros(len(params.means))
        precision = np.linalg.inv(params.covariances)
        trace = (precision * self._prior_covariance(sizes)).sum(axis=(1, 2))
        return -0.5 * self.prior * (np.linalg.slogdet(params.covariances)[1] + trace)

    def collapsed(self, params: GaussianParams) -> Mask:
        return ~(np.isfinite(params.means).all(axis=1) & usable(params.covariances))

    def fragile(self, params: GaussianParams) -> bool:
        return not usable(params.covariances, HIDDEN, FRAGILE).all()

    def coordinates(self, params: GaussianParams) -> Array:
        # Cholesky's factor, with its diagonal as logarithms.
        root = np.linalg.cholesky(params.covariances)
        i, j = self._triangle
        below = root[:, j, i]
        below[:, i == j] = np.log(below[:, i == j])
        return np.concatenate([params.means, below], axis=1)

    def at(self, coordinates: Array) -> GaussianParams:
        d = self.n_columns
        i, j = self._triangle
        root = np.zeros((len(coordinates), d, d))
        root[:, j, i] = np.where(i == j, exp_clipped(coordinates[:, d:]), coordinates[:, d:])
        with np.errstate(over="ignore", invalid="ignore"):
            return GaussianParams(coordinates[:, :d].copy(), root @ root.swapaxes(1, 2))

    def project(self, params: GaussianParams, weight: Array, sizes: Sequence[int]) -> GaussianParams:
        scatter = weight[:, None, None] * params.covariances
        return replace(params, covariances=self._covariances(scatter, weight, params, sizes))

    def possible(self, params: GaussianParams) -> bool:
        c = params.covariances
        return bool(np.allclose(c, c.swapaxes(1, 2)) and usable(c).all())

    def margin(self, n_components: int) -> GaussianParams:
        identity = np.tile(np.eye(self.n_columns), (n_components, 1, 1))
        return GaussianParams(np.zeros((n_components, self.n_columns)), identity)

    def n_free(self, n_components: int) -> int:
        return n_components * self.n_columns + n_free(self.model, n_components, self.n_columns)

    def dissimilarity(self, values: NDArray[Any], centres: NDArray[Any]) -> tuple[Array, Array]:
        # A missing cell is stored as the mean, 0, which draws a row towards the middle and no further.
        difference = values[None] - centres.T[:, :, None]
        return (difference**2).sum(axis=1), np.full(difference.shape[::2], float(self.n_columns))

    def draw(self, params: GaussianParams, components: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
        root = np.linalg.cholesky(params.covariances)
        noise = rng.standard_normal((len(components), self.n_columns))
        return (params.means[components] + np.einsum("nij,nj->ni", root[components], noise)).T
