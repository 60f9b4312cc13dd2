"""Independent categories given the component.

    log p(x | k) = sum_j log p_kj[x_j]        over the observed columns j

The last column may hold the *name* of a row's component where that is known: a component has the names of the rows that it started with, and a row with another name is
impossible under it. There is nothing to estimate about names, so they are no free parameters and have no prior.

Features are the one-hot indicators of all levels of all columns; a missing cell is a column of zeros, so its
term and its counts vanish: the same optimum as imputing it, in fewer steps. Level codes come from the schema; -1 is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.families.base import Array, Mask, Params, Plain, Plan, exp_clipped, log_floored, ratio

IMPOSSIBLE = -1e6
"""Log probability of a name under a component that has it not: beyond what any density makes up for, and finite."""


@dataclass(frozen=True)
class CategoricalParams(Params):
    """probabilities : (K, total number of levels), columns side by side."""

    probabilities: Array


@dataclass(frozen=True)
class Categorical(Plain):
    """Settings: levels per column, their shares in the table (side by side), the prior's pseudo-observations, and whether the last column names components (its shares are 0)."""

    n_levels: tuple[int, ...]
    margins: tuple[float, ...]
    prior: float = 0.0
    names: bool = False

    kind = "levels"

    @property
    def n_columns(self) -> int:
        return len(self.n_levels)

    @property
    def n_features(self) -> int:
        return sum(self.n_levels)

    n_stats = n_features

    @property
    def levels(self) -> tuple[int, ...]:
        return self.n_levels

    @property
    def offsets(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.n_levels)[:-1]]).astype(np.int64)

    def features(self, values: NDArray[Any], out: Array) -> None:
        start = 0
        for codes, levels in zip(values, self.n_levels):
            for level in range(levels):
                out[start + level] = codes == level
            start += levels

    @property
    def _named(self) -> slice:
        """The levels that are names."""
        return slice(self.n_features - self.n_levels[-1] if self.names else self.n_features, None)

    def plan(self, params: CategoricalParams, observed: Mask) -> Plan:
        logs = log_floored(params.probabilities)
        logs[:, self._named] = np.where(params.probabilities[:, self._named] > 0, 0.0, IMPOSSIBLE)
        weights = np.broadcast_to(logs, (len(observed), *logs.shape))
        return Plan(np.zeros(weights.shape[:2]), weights)

    def _column_sums(self, values: Array) -> Array:
        """Sum over the levels of each column, repeated for each of its levels."""
        return np.repeat(np.add.reduceat(values, self.offsets, axis=1), self.n_levels, axis=1)

    def m_step(self, stats: Array, params: CategoricalParams, sizes: Sequence[int]) -> CategoricalParams:
        counts = stats + self.prior * np.asarray(self.margins)
        probabilities = ratio(counts, self._column_sums(counts), params.probabilities)
        if self.names:
            probabilities[:, self._named] = _owners(stats[:, self._named], sizes)
        return CategoricalParams(probabilities)

    def log_prior(self, params: CategoricalParams, sizes: Sequence[int]) -> Array:
        margins = np.asarray(self.margins)
        return self.prior * (log_floored(params.probabilities) @ margins)

    def collapsed(self, params: CategoricalParams) -> Mask:
        return np.logical_not(np.all(np.isfinite(params.probabilities), axis=1))

    def coordinates(self, params: CategoricalParams) -> Array:
        # Up to a constant a column, which must not count as a move.
        logs = log_floored(params.probabilities)
        means = np.add.reduceat(logs, self.offsets, axis=1) / np.array(self.n_levels)
        out = logs - np.repeat(means, self.n_levels, axis=1)
        out[:, self._named] = params.probabilities[:, self._named]
        return out

    def at(self, coordinates: Array) -> CategoricalParams:
        largest = np.maximum.reduceat(coordinates, self.offsets, axis=1)
        share = exp_clipped(coordinates - np.repeat(largest, self.n_levels, axis=1))
        share /= np.repeat(np.add.reduceat(share, self.offsets, axis=1), self.n_levels, axis=1)
        share[:, self._named] = coordinates[:, self._named] > 0.5
        return CategoricalParams(share)

    def possible(self, params: CategoricalParams) -> bool:
        p = params.probabilities
        totals = np.add.reduceat(p, self.offsets, axis=1)
        return bool((p >= 0).all() and np.allclose(totals[:, : self.n_columns - self.names], 1.0))

    def margin(self, n_components: int) -> CategoricalParams:
        return CategoricalParams(np.tile(np.asarray(self.margins), (n_components, 1)))

    def n_free(self, n_components: int) -> int:
        named = self.n_levels[-1] - 1 if self.names else 0
        return n_components * (self.n_features - self.n_columns - named)

    def dissimilarity(self, values: NDArray[Any], centres: NDArray[Any]) -> tuple[Array, Array]:
        both = (values[None] >= 0) & (centres.T[:, :, None] >= 0)
        differs = (values[None] != centres.T[:, :, None]) & both
        # An indicator pair of two different levels is sqrt(2) apart: 2 squared.
        return 2.0 * differs.sum(axis=1, dtype=np.float64), both.sum(axis=1, dtype=np.float64)

    def draw(self, params: CategoricalParams, components: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
        out = np.empty((self.n_columns, len(components)), dtype=np.int32)
        for j, (start, levels) in enumerate(zip(self.offsets, self.n_levels)):
            cumulative = np.cumsum(params.probabilities[:, start : start + levels], axis=1)[components]
            u = rng.random(len(components))[:, None] * cumulative[:, -1:]
            out[j] = (u >= cumulative[:, :-1]).sum(axis=1)
        return out


def _owners(counts: Array, sizes: Sequence[int]) -> Array:
    """1 where a component of a candidate has most of the rows of a name, else 0; (K, names)."""
    out = np.zeros_like(counts)
    first = 0
    for k in sizes:
        own = counts[first : first + k]
        out[first + own.argmax(axis=0), np.arange(own.shape[1])] = own.max(axis=0) > 0
        first += k
    return out
