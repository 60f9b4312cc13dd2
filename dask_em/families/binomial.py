"""Independent numbers of successes out of known numbers of trials, given the component: coins.

    log p(s | t, k) = s log p_k + (t - s) log(1 - p_k) + log C(t, s)        features (t, s) of the observed cells

Encoded values hold the successes of all columns (NaN where missing), then their trials. The binomial coefficient is part of the
row's base measure.

missing="ignored" leaves a missing cell out. missing="expected" is the textbook's version: its trials are counted
and its successes are taken at their expectation t p_k, so that EM climbs to the same optimum in more steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dask_em.families.base import Array, Mask, Params, Plain, Plan, exp_clipped, log_floored, ratio

TYPICAL_ROWS = 1024
"""Rows whose numbers of trials stand for those of the table when rows are drawn."""


@dataclass(frozen=True)
class BinomialParams(Params):
    """probabilities : (K, d)."""

    probabilities: Array


@dataclass(frozen=True)
class Binomial(Plain):
    """Settings: overall success share of each column, the prior's pseudo-trials, what a missing cell means, and `typical_trials`.

    The trials are no part of the model; drawn rows have those of the table.
    """

    margins: tuple[float, ...]
    prior: float = 0.0
    missing: Literal["ignored", "expected"] = "ignored"
    trials: tuple[tuple[tuple[int, ...], int], ...] = ()

    kind = "pairs"

    @property
    def n_columns(self) -> int:
        return len(self.margins)

    @property
    def n_features(self) -> int:
        return len(self.margins) * (3 if self.missing == "expected" else 2)

    @property
    def n_stats(self) -> int:
        return 2 * len(self.margins)

    def features(self, values: NDArray[Any], out: Array) -> None:
        d = self.n_columns
        successes, trials = values[:d], values[d:]
        missing = np.isnan(successes) | np.isnan(trials)
        out[:d] = np.where(missing, 0.0, trials)
        out[d : 2 * d] = np.where(missing, 0.0, successes)
        if self.missing == "expected":
            out[2 * d :] = np.where(missing & ~np.isnan(trials), trials, 0.0)

    def plan(self, params: BinomialParams, observed: Mask) -> Plan:
        failure = log_floored(1.0 - params.probabilities)
        weights = np.zeros((len(failure), self.n_features))
        weights[:, : self.n_stats] = np.concatenate([failure, log_floored(params.probabilities) - failure], axis=1)
        return Plan(np.zeros((len(observed), len(weights))), np.broadcast_to(weights, (len(observed), *weights.shape)))

    def lift(self, params: BinomialParams, plan: Plan, observed: Mask, weight: Array, sums: Array) -> Array:
        d = self.n_columns
        stats = sums.sum(axis=0)
        if self.missing == "expected":
            unseen = stats[:, 2 * d :]
            stats[:, :d] += unseen
            stats[:, d : 2 * d] += unseen * params.probabilities
        return stats[:, : 2 * d]

    def m_step(self, stats: Array, params: BinomialParams, sizes: Sequence[int]) -> BinomialParams:
        d = self.n_columns
        successes = stats[:, d:] + self.prior * np.asarray(self.margins)
        return BinomialParams(ratio(successes, stats[:, :d] + self.prior, params.probabilities))

    def log_prior(self, params: BinomialParams, sizes: Sequence[int]) -> Array:
        m = np.asarray(self.margins)
        return self.prior * (
            log_floored(params.probabilities) @ m + log_floored(1.0 - params.probabilities) @ (1.0 - m)
        )

    def collapsed(self, params: BinomialParams) -> Mask:
        return np.logical_not(np.all(np.isfinite(params.probabilities), axis=1))

    def coordinates(self, params: BinomialParams) -> Array:
        return log_floored(params.probabilities) - log_floored(1.0 - params.probabilities)

    def at(self, coordinates: Array) -> BinomialParams:
        return BinomialParams(1.0 / (1.0 + exp_clipped(-coordinates)))

    def possible(self, params: BinomialParams) -> bool:
        return bool(((params.probabilities >= 0) & (params.probabilities <= 1)).all())

    def margin(self, n_components: int) -> BinomialParams:
        return BinomialParams(np.tile(np.asarray(self.margins), (n_components, 1)))

    def n_free(self, n_components: int) -> int:
        return n_components * self.n_columns

    def dissimilarity(self, values: NDArray[Any], centres: NDArray[Any]) -> tuple[Array, Array]:
        d = self.n_columns
        with np.errstate(invalid="ignore", divide="ignore"):
            angle = 2 * np.arcsin(np.sqrt(values[:d] / values[d:]))
            centre = 2 * np.arcsin(np.sqrt(centres[:d] / centres[d:]))
        # The arcsine makes a share's variance 1 / trials, whatever its mean (Anscombe 1948).
        difference = (angle[None] - centre.T[:, :, None]) * np.sqrt(np.where(values[d:] > 0, values[d:], 0.0))[None]
        both = ~np.isnan(difference)
        return np.where(both, difference, 0.0).__pow__(2).sum(axis=1), both.sum(axis=1, dtype=np.float64)

    def draw(self, params: BinomialParams, components: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any]:
        rows, times = np.array([row for row, _ in self.trials]), np.array([n for _, n in self.trials])
        trials = rows[rng.choice(len(rows), size=len(components), p=times / times.sum())].T
        return np.concatenate([rng.binomial(trials, params.probabilities[components].T), trials]).astype(np.float64)


def typical_trials(trials: Array, weight: Array) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Rows of a (d, n) table of trials at even steps of weight through their lexicographic order, with how often each comes up."""
    order = np.lexsort(trials[::-1])
    cumulative = np.cumsum(weight[order])
    steps = (np.arange(TYPICAL_ROWS) + 0.5) / TYPICAL_ROWS * cumulative[-1]
    chosen = trials[:, order[np.searchsorted(cumulative, steps)]].astype(np.int64)
    rows, times = np.unique(chosen.T, axis=0, return_counts=True)
    return tuple((tuple(row), n) for row, n in zip(rows.tolist(), times.tolist()))
