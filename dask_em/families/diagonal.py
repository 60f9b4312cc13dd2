"""Normal columns that are independent given the component: the covariance models with the columns as axes (families/covariance.py).

    log p(x | k) = -1/2 sum_j [ log 2π v_kj + (x_j - μ_kj)² / v_kj ]        features (1, x, x²) of the observed cells

Values are standardised (`scale` is the column's standard deviation in the user's units); a missing cell is NaN and contributes
zeros, which is exact because the columns are independent. Spherical models hold in the user's units, so their sums are multiplied back by the scales first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.families.base import (
    COLLAPSED_VARIANCE,
    HIDDEN,
    Array,
    Mask,
    Params,
    Plain,
    Plan,
    exp_clipped,
    per_candidate,
    ratio,
)
from dask_em.families.covariance import IN_USER_UNITS, n_free, variances

EXPANDED_LIMIT = 1e6
"""Mean square over variance beyond which x²/v - 2xμ/v + μ²/v loses more than 1e-9 of the score."""


@dataclass(frozen=True)
class DiagonalParams(Params):
    """means, variances : (K, d), in standardised units."""

    means: Array
    variances: Array


@dataclass(frozen=True)
class DiagonalGaussian(Plain):
    """Settings: covariance model, column scales, and the prior's pseudo-rows."""

    model: str
    scale: tuple[float, ...]
    prior: float = 0.0

    in_patterns = True
    kind = "squares"

    @property
    def n_columns(self) -> int:
        return len(self.scale)

    @property
    def n_features(self) -> int:
        return 3 * len(self.scale)

    n_stats = n_features

    @property
    def n_indicators(self) -> int:
        return len(self.scale)

    def features(self, values: NDArray[Any], out: Array) -> None:
        d = self.n_columns
        missing = np.isnan(values)
        np.logical_not(missing, out=out[:d], casting="unsafe")
        x = out[d : 2 * d]
        x[:] = values
        x[missing] = 0.0
        np.multiply(x, x, out=out[2 * d :])

    def _origins(self, params: DiagonalParams) -> dict[int, Array]:
        far = (params.means**2 > EXPANDED_LIMIT * params.variances).any(axis=1)
        return {int(k): params.means[k] for k in np.flatnonzero(far)}

    def plan(self, params: DiagonalParams, observed: Mask) -> Plan:
        means, precision = params.means.copy(), 1.0 / params.variances
        origins = self._origins(params)
        means[list(origins)] = 0.0
        per_cell = -0.5 * (np.log(2 * np.pi * params.variances) + means**2 * precision)
        weights = np.concatenate([per_cell, means * precision, -0.5 * precision], axis=1)
        weights[list(origins)] = 0.0
        shape = (len(observed), *weights.shape)
        return Plan(np.zeros(shape[:2]), np.broadcast_to(weights, shape), origins, params.variances)

    def log_prob_centred(self, plan: Plan, pattern: int, component: int, centred: Array) -> Array:
        variances = plan.extra[component][:, None]
        return -0.5 * np.nansum(np.log(2 * np.pi * variances) + centred**2 / variances, axis=0)

    def m_step(self, stats: Array, params: DiagonalParams, sizes: Sequence[int]) -> DiagonalParams:
        n, x, xx = np.split(stats, 3, axis=1)
        origin, hidden = np.zeros_like(params.means), HIDDEN * xx
        about_own = self._origins(params)
        for k, mean in about_own.items():
            origin[k], hidden[k] = mean, 0.0
        shift = ratio(x, n, params.means - origin)
        scatter = np.maximum(xx - n * shift**2, 0.0) + self.prior * self._prior_variance(sizes)
        n = n + self.prior
        new = DiagonalParams(origin + shift, self._variances(scatter, n, params, sizes))
        # As in the full covariance: what has lost digits gets them back in the next step, about its own mean.
        wide = replace(new, variances=new.variances + ratio(hidden, n, np.zeros_like(hidden)))
        lost = np.zeros(len(n))
        lost[list(self._origins(wide).keys() - about_own.keys())] = 1.0
        if not lost.any():
            return new
        if self.model != "VVI":
            lost = per_candidate(lost, sizes)
            wide = replace(new, variances=self._variances(scatter + hidden, n, params, sizes))
        return replace(new, variances=np.where(lost[:, None] > 0, wide.variances, new.variances))

    def _variances(self, scatter: Array, n: Array, params: DiagonalParams, sizes: Sequence[int]) -> Array:
        if self.model == "VVI":
            return ratio(scatter, n, params.variances)
        square = np.asarray(self.scale) ** 2 if self.model in IN_USER_UNITS else np.ones(self.n_columns)
        return variances(self.model, scatter * square, n, params.variances * square, sizes) / square

    def _prior_variance(self, sizes: Sequence[int]) -> Array:
        """S0 = column variance / k^(2/d), Fraley and Raftery (2007); the column variance is 1 here."""
        return np.repeat(np.asarray(sizes, dtype=np.float64) ** (-2 / self.n_columns), sizes)[:, None]

    def log_prior(self, params: DiagonalParams, sizes: Sequence[int]) -> Array:
        if not self.prior:
            return np.zeros(len(params.means))
        terms = np.log(params.variances) + self._prior_variance(sizes) / params.variances
        return -0.5 * self.prior * terms.sum(axis=1)

    def collapsed(self, params: DiagonalParams) -> Mask:
        fine = np.isfinite(params.means) & (params.variances > COLLAPSED_VARIANCE)
        return np.logical_not(np.all(fine, axis=1))

    def fragile(self, params: DiagonalParams) -> bool:
        return not (params.variances > HIDDEN).all()

    def coordinates(self, params: DiagonalParams) -> Array:
        return np.concatenate([params.means, np.log(params.variances)], axis=1)

    def at(self, coordinates: Array) -> DiagonalParams:
        d = self.n_columns
        return DiagonalParams(coordinates[:, :d].copy(), exp_clipped(coordinates[:, d:]))

    def project(self, params: DiagonalParams, weight: Array, sizes: Sequence[int]) -> DiagonalParams:
        n = np.repeat(weight[:, None], self.n_columns, axis=1)
        return replace(params, variances=self._variances(n * params.variances, n, params, sizes))

    def possible(self, params: DiagonalParams) -> bool:
        return bool((params.variances > 0).all())

    def margin(self, n_components: int) -> DiagonalParams:
        shape = (n_components, self.n_columns)
        return DiagonalParams(np.zeros(shape), np.ones(shape))

    def n_free(self, n_components: int) -> int:
        return n_components * self.n_columns + n_free(self.model, n_components, self.n_columns)

    def dissimilarity(self, values: NDArray[Any], centres: NDArray[Any]) -> tuple[Array, Array]:
        difference = values[None] - centres.T[:, :, None]
        both = ~np.isnan(difference)
        return np.where(both, difference, 0.0).__pow__(2).sum(axis=1), both.sum(axis=1, dtype=np.float64)

    def draw(self, params: DiagonalParams, components: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
        noise = rng.standard_normal((len(components), self.n_columns))
        return (params.means[components] + noise * np.sqrt(params.variances[components])).T
