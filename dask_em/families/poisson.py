"""Independent Poisson counts given the component.

    log p(y | k) = y log λ_k - λ_k - log y!        features (1, y) of the observed cells

The term -log y! does not depend on the component: it is part of the row's base measure, computed at encoding.
A missing count is NaN in the encoded values and contributes zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.families.base import Array, Mask, Params, Plain, Plan, exp_clipped, log_floored, ratio


@dataclass(frozen=True)
class PoissonParams(Params):
    """rates : (K, d)."""

    rates: Array


@dataclass(frozen=True)
class Poisson(Plain):
    """Settings: mean count of each column and the prior's pseudo-observations (a Gamma prior at that mean)."""

    margins: tuple[float, ...]
    prior: float = 0.0

    kind = "counts"

    @property
    def n_columns(self) -> int:
        return len(self.margins)

    @property
    def n_features(self) -> int:
        return 2 * len(self.margins)

    n_stats = n_features

    @property
    def n_indicators(self) -> int:
        return len(self.margins)

    def features(self, values: NDArray[Any], out: Array) -> None:
        d = self.n_columns
        missing = np.isnan(values)
        np.logical_not(missing, out=out[:d], casting="unsafe")
        out[d:] = values
        out[d:][missing] = 0.0

    def plan(self, params: PoissonParams, observed: Mask) -> Plan:
        weights = np.concatenate([-params.rates, log_floored(params.rates)], axis=1)
        return Plan(np.zeros((len(observed), len(weights))), np.broadcast_to(weights, (len(observed), *weights.shape)))

    def m_step(self, stats: Array, params: PoissonParams, sizes: Sequence[int]) -> PoissonParams:
        d = self.n_columns
        total = stats[:, d:] + self.prior * np.asarray(self.margins)
        return PoissonParams(ratio(total, stats[:, :d] + self.prior, params.rates))

    def log_prior(self, params: PoissonParams, sizes: Sequence[int]) -> Array:
        return self.prior * (log_floored(params.rates) @ np.asarray(self.margins) - params.rates.sum(axis=1))

    def collapsed(self, params: PoissonParams) -> Mask:
        return np.logical_not(np.all(np.isfinite(params.rates), axis=1))

    def coordinates(self, params: PoissonParams) -> Array:
        return log_floored(params.rates)

    def at(self, coordinates: Array) -> PoissonParams:
        return PoissonParams(exp_clipped(coordinates))

    def possible(self, params: PoissonParams) -> bool:
        return bool((params.rates >= 0).all())

    def margin(self, n_components: int) -> PoissonParams:
        return PoissonParams(np.tile(np.asarray(self.margins), (n_components, 1)))

    def n_free(self, n_components: int) -> int:
        return n_components * self.n_columns

    def dissimilarity(self, values: NDArray[Any], centres: NDArray[Any]) -> tuple[Array, Array]:
        # Twice the square root makes a count's variance 1, whatever its mean (Anscombe 1948).
        difference = 2 * np.sqrt(values)[None] - 2 * np.sqrt(centres).T[:, :, None]
        both = ~np.isnan(difference)
        return np.where(both, difference, 0.0).__pow__(2).sum(axis=1), both.sum(axis=1, dtype=np.float64)

    def draw(self, params: PoissonParams, components: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
        return rng.poisson(params.rates[components].T).astype(np.float64)
