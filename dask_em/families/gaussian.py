"""The normal distribution with a full covariance matrix: covariance models VVV (one per component) and EEE (one in all).

    log p(x_o | k) = -1/2 [ p log 2π + log|Σ_oo| + (x_o - μ_o)ᵀ Σ_oo⁻¹ (x_o - μ_o) ]      features (x, upper triangle of x xᵀ)

Rows come grouped by missingness pattern; a missing cell is stored as 0 (the mean, as data are standardised), so the features
never change and only the natural parameters depend on the pattern. The sums of a pattern are *lifted* to the expected complete-data statistics,

    x̂ = A x + c,   A = I on observed rows, B = Σ_mo Σ_oo⁻¹ on missing rows,   c = μ_m - B μ_o
    sum r x̂ x̂ᵀ + n C,   C = Σ_mm - B Σ_om

once per pattern and component, never per row (Little and Rubin 2020, section 11.2; Ghahramani and Jordan 1994).
A pattern with nothing observed tells nothing of this distribution and is left out of its statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dask_em.families.base import COLLAPSED_VARIANCE, Array, Mask, Params, Plan, per_candidate, ratio

EXPANDED_LIMIT = 1e6
"""Size of the terms of x'Σ⁻¹x relative to their sum beyond which adding them loses more than 1e-9 of the score."""

COLLINEAR = 1e-13
"""Smallest eigenvalue of a correlation matrix that still has a density in double precision."""


@dataclass(frozen=True)
class GaussianParams(Params):
    """means : (K, d), covariances : (K, d, d), in standardised units."""

    means: Array
    covariances: Array


@dataclass(frozen=True)
class Gaussian:
    """Settings: covariance model, number of columns, and the prior's pseudo-rows."""

    model: Literal["VVV", "EEE"]
    n_columns: int
    prior: float = 0.0

    by_pattern = True

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
        precision = np.diagonal(np.linalg.inv(params.covariances), axis1=1, axis2=2)
        deviation = np.sqrt(np.diagonal(params.covariances, axis1=1, axis2=2))
        terms = (np.sqrt(np.maximum(precision, 0.0)) * (np.abs(params.means) + deviation)).sum(axis=1) ** 2
        return {int(k): params.means[k] for k in np.flatnonzero(~(terms <= EXPANDED_LIMIT))}

    def plan(self, params: GaussianParams, observed: Mask) -> Plan:
        both = observed[:, None, :, None] & observed[:, None, None, :]
        padded = np.where(both, params.covariances, np.eye(self.n_columns))
        root = np.linalg.cholesky(padded)
        half_log_det = np.log(np.diagonal(root, axis1=2, axis2=3)).sum(axis=2)
        precision = np.linalg.inv(padded)
        precision *= both
        origins = self._origins(params)
        means = params.means.copy()
        means[list(origins)] = 0.0
        linear = (precision @ means[:, :, None])[..., 0]
        quadratic = (linear * means).sum(axis=2)
        constant = -0.5 * (observed.sum(axis=1)[:, None] * np.log(2 * np.pi) + quadratic) - half_log_det
        i, j = self._triangle
        weights = np.concatenate([linear, precision[..., i, j] * np.where(i == j, -0.5, -1.0)], axis=2)
        weights[:, list(origins)] = 0.0
        return Plan(constant, weights, origins, (precision, root))

    def log_prob_centred(self, plan: Plan, pattern: int, component: int, centred: Array) -> Array:
        whitened = np.linalg.solve(plan.extra[1][pattern, component], centred)
        return -0.5 * (whitened * whitened).sum(axis=0)

    def lift(self, params: GaussianParams, plan: Plan, observed: Mask, weight: Array, sums: Array) -> Array:
        whole = observed.all(axis=1)
        stats = np.concatenate([weight[whole].sum(axis=0)[:, None], sums[whole].sum(axis=0)], axis=1)
        part = observed.any(axis=1) & ~whole
        if part.any():
            stats = stats + self._lift_partial(params, plan, observed, weight, sums, np.flatnonzero(part))
        return stats

    def _lift_partial(
        self,
        params: GaussianParams,
        plan: Plan,
        observed: Mask,
        weight: Array,
        sums: Array,
        which: NDArray[np.intp],
    ) -> Array:
        """Lift in homogeneous coordinates: Â = [[1, 0], [c, A]] and M̂ = Â M Âᵀ + n [[0, 0], [0, C]]."""
        d, n_components = self.n_columns, params.means.shape[0]
        means = params.means.copy()
        means[list(plan.origins)] = 0.0  # sums are about the origin there
        n, seen = weight[which], observed[which][:, None, :, None]
        mapping = np.where(seen, np.eye(d), params.covariances @ plan.extra[0][which])
        lifted = np.zeros((len(which), n_components, d + 1, d + 1))
        lifted[:, :, 0, 0] = 1.0
        lifted[:, :, 1:, 1:] = mapping
        lifted[:, :, 1:, 0] = np.where(seen[..., 0], 0.0, means - (mapping @ means[:, :, None])[..., 0])
        moments = np.empty_like(lifted)
        moments[:, :, 0, 0] = n
        moments[:, :, 0, 1:] = moments[:, :, 1:, 0] = sums[which][:, :, :d]
        i, j = self._triangle
        moments[:, :, i + 1, j + 1] = moments[:, :, j + 1, i + 1] = sums[which][:, :, d:]
        # The sum over patterns is one long inner product per component.
        left = np.moveaxis(lifted @ moments, 0, 2).reshape(n_components, d + 1, -1)
        right = np.moveaxis(lifted, 0, 2).reshape(n_components, d + 1, -1)
        total = left @ np.swapaxes(right, 1, 2)
        # C = Σ - A Σ, so its weighted sum needs only that of A.
        average = (n[:, :, None, None] * mapping).sum(axis=0)
        total[:, 1:, 1:] += n.sum(axis=0)[:, None, None] * params.covariances - average @ params.covariances
        return np.concatenate([total[:, 0, :], total[:, i + 1, j + 1]], axis=1)

    def m_step(self, stats: Array, params: GaussianParams, sizes: Sequence[int]) -> GaussianParams:
        d = self.n_columns
        n, x = stats[:, :1], stats[:, 1 : d + 1]
        i, j = self._triangle
        scatter = np.empty((len(stats), d, d))
        scatter[:, i, j] = scatter[:, j, i] = stats[:, d + 1 :]
        origin = np.zeros_like(params.means)
        for k, mean in self._origins(params).items():
            origin[k] = mean
        shift = ratio(x, n, params.means - origin)
        scatter -= n[:, :, None] * shift[:, :, None] * shift[:, None, :]
        scatter += self.prior * self._prior_scale(sizes)[:, None, None] * np.eye(d)
        n = n + self.prior
        if self.model == "EEE":
            scatter, n = per_candidate(scatter, sizes), per_candidate(n, sizes)
        return GaussianParams(origin + shift, ratio(scatter, n[:, :, None], params.covariances))

    def _prior_scale(self, sizes: Sequence[int]) -> Array:
        """S0 = diag(column variances) / k^(2/d), Fraley and Raftery (2007); the column variances are 1 here."""
        return np.repeat(np.asarray(sizes, dtype=np.float64) ** (-2 / self.n_columns), sizes)

    def log_prior(self, params: GaussianParams, sizes: Sequence[int]) -> Array:
        if not self.prior:
            return np.zeros(len(params.means))
        trace = np.trace(np.linalg.inv(params.covariances), axis1=1, axis2=2)
        log_det = np.linalg.slogdet(params.covariances)[1]
        return -0.5 * self.prior * (log_det + self._prior_scale(sizes) * trace)

    def collapsed(self, params: GaussianParams) -> Mask:
        variances = np.diagonal(params.covariances, axis1=1, axis2=2)
        fine_cells = np.isfinite(params.means) & (variances > COLLAPSED_VARIANCE)
        bad = np.logical_not(np.all(fine_cells, axis=1))
        fine = np.flatnonzero(~bad)
        deviations = np.sqrt(variances[fine])
        correlation = params.covariances[fine] / (deviations[:, :, None] * deviations[:, None, :])
        bad[fine] = np.linalg.eigvalsh(correlation)[:, 0] < COLLINEAR
        return bad

    def margin(self, n_components: int) -> GaussianParams:
        identity = np.tile(np.eye(self.n_columns), (n_components, 1, 1))
        return GaussianParams(np.zeros((n_components, self.n_columns)), identity)

    def n_free(self, n_components: int) -> int:
        triangle = self.n_columns * (self.n_columns + 1) // 2
        return n_components * self.n_columns + triangle * (n_components if self.model == "VVV" else 1)

    def dissimilarity(self, values: NDArray[Any], centres: NDArray[Any]) -> tuple[Array, Array]:
        # A missing cell is stored as the mean, 0, which draws a row towards the middle and no further.
        difference = values[None] - centres.T[:, :, None]
        return (difference**2).sum(axis=1), np.full(difference.shape[::2], float(self.n_columns))

    def draw(self, params: GaussianParams, components: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
        root = np.linalg.cholesky(params.covariances)
        noise = rng.standard_normal((len(components), self.n_columns))
        return (params.means[components] + np.einsum("nij,nj->ni", root[components], noise)).T
