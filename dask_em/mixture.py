"""A mixture: a product of families times mixing weights, for all components of all candidates at once.

    E-step   sums of responsibilities times features, a function from a block of rows (see scan)
    M-step   π_k = n_k / n, and each family's closed form, from the added sums

Candidates (numbers of components, restarts) lie side by side on the component axis K; `sizes` says how many components each
has. The module knows nothing of loops, tables or clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.families import Family, take
from dask_em.families.base import Array, Mask, exp_clipped, log_floored, per_candidate, ratio
from dask_em.scan import Block, PatternSums, Scorer, Sums, Tile, softmax

PLAN_BYTES = 1 << 26
"""Natural parameters, or sums, by pattern held at once; where the patterns need more, blocks lift their own, in slices."""

SLICE_BYTES = 1 << 23
"""Natural parameters of a slice: EM on the sums of 40,535 patterns of 16 columns takes 2.4 s in slices of 8 MB and 3.4 in slices of 64."""

REACH = 1e100
"""Values of scored rows count at most this much: so far out their order no longer matters, but their squares have to stay finite."""

COLLAPSED_SHARE = 1e-12
"""A component with a smaller share of the rows is gone."""


def edges(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Where each candidate's components start and end."""
    return list(pairwise(np.cumsum([0, *sizes]).tolist()))


_latest: tuple[Parameters, Mixture, Scorer] | None = None

Step = Callable[[Block], PatternSums | Sums]


@dataclass(frozen=True)
class Parameters:
    """weights : (K,) mixing weights, summing to 1 within a candidate; parts : the parameters of each family."""

    weights: Array
    parts: tuple[Any, ...]

    def take(self, index: NDArray[np.int64]) -> Parameters:
        """The components at `index` of the stacked axis."""
        return Parameters(self.weights[index], tuple(take(part, index) for part in self.parts))

    def put(self, index: NDArray[np.int64], other: Parameters) -> Parameters:
        """These parameters with those of others at `index`."""
        weights = self.weights.copy()
        weights[index] = other.weights
        parts = []
        for own, new in zip(self.parts, other.parts, strict=True):
            changed = {f.name: getattr(own, f.name).copy() for f in fields(own)}
            for name, values in changed.items():
                values[index] = getattr(new, name)
            parts.append(replace(own, **changed))
        return Parameters(weights, tuple(parts))


def stacked(parts: Sequence[Parameters | None]) -> Parameters:
    """Candidates side by side."""
    own = [p for p in parts if p is not None]
    families = [
        type(same[0])(**{f.name: np.concatenate([getattr(p, f.name) for p in same]) for f in fields(same[0])})
        for same in zip(*(p.parts for p in own))
    ]
    return Parameters(np.concatenate([p.weights for p in own]), tuple(families))


@dataclass(frozen=True)
class Mixture:
    """Settings of a mixture model.

    Attributes
    ----------
    families : the parts of the model, independent of each other given the component
    patterns : (P, d) all masks of the family that has patterns, or None where they are too many to list
    fix_weights : keep the mixing weights as they started
    rounding : share of a log-likelihood's size that is noise, by the precision in which rows are scanned
    compiled : whether rows are scanned by compiled code, see kernels
    """

    families: tuple[Family, ...]
    patterns: Mask | None
    fix_weights: bool = False
    rounding: float = 2.0**-52
    compiled: bool = False

    @property
    def n_features(self) -> int:
        return 1 + sum(f.n_features for f in self.families)

    def n_free(self, n_components: int) -> int:
        """Free parameters of one candidate."""
        mixing = 0 if self.fix_weights else n_components - 1
        return mixing + sum(f.n_free(n_components) for f in self.families)

    def margin(self, sizes: Sequence[int]) -> Parameters:
        """Equal weights, and every family at the margins of its columns."""
        weights = np.concatenate([np.full(k, 1.0 / k) for k in sizes])
        return Parameters(weights, tuple(f.margin(len(weights)) for f in self.families))

    def e_step(self, parameters: Parameters, sizes: Sequence[int], replicates: Sequence[int] | None = None) -> Step:
        """The function from a block to its sums under every candidate.

        `replicates` names the bootstrap replicate of each candidate; without it all are fitted to the rows as they are.
        """
        bounds = np.cumsum([0, *sizes]).tolist()

        def respond(tile: Tile, centred: Any) -> Array:
            tile.score(centred)
            weights, base = tile.block.weights(tile.rows, replicates), tile.block.base[tile.rows]
            log_density = [softmax(tile.scores[a:b]) for a, b in pairwise(bounds)]
            if replicates is None:
                tile.scores *= weights
                return np.array([weights[0] @ (row + base) for row in log_density])
            for (a, b), own in zip(pairwise(bounds), weights):
                tile.scores[a:b] *= own
            return np.array([own @ (row + base) for row, own in zip(log_density, weights)])

        def fold(scorer: Scorer, block: Block, runs: NDArray[np.int64]) -> PatternSums:
            sums = scorer.fold_compiled(block, runs, tuple(sizes), replicates) if self.compiled else None
            return scorer.fold(block, runs, len(sizes), respond) if sums is None else sums

        return self._step(parameters, fold)

    def label_step(self, sizes: Sequence[int]) -> Step:
        """The function from a block with `labels`, one row of them for each candidate, to its sums.

        Missing cells of such rows count as drawn from the column margins: nothing better is known yet.
        """
        first = np.cumsum([0, *sizes[:-1]])[:, None]

        def respond(tile: Tile, centred: Any) -> Array:
            assert tile.block.labels is not None
            own = tile.block.labels[:, tile.rows] + first
            tile.scores[:] = 0.0
            tile.scores[own, np.arange(own.shape[1])] = tile.block.weight[tile.rows]
            return np.zeros(len(sizes))

        def fold(scorer: Scorer, block: Block, runs: NDArray[np.int64]) -> PatternSums:
            return scorer.fold(block, runs, len(sizes), respond)

        return self._step(self.margin(sizes), fold)

    def _step(self, parameters: Parameters, fold: Callable[[Scorer, Block, NDArray[np.int64]], PatternSums]) -> Step:
        if self._holds_patterns(len(parameters.weights)):
            scorer = self._whole(parameters)
            return lambda block: fold(scorer, block, block.runs)

        def lifted(block: Block, own: slice) -> Sums:
            scorer = self.scorer(parameters, block.observed[own])
            return scorer.lift(fold(scorer, block, block.runs[own.start : own.stop + 1]))

        return lambda block: reduce(add, (lifted(block, own) for own in self.slices(parameters, len(block.observed))))

    def _holds_patterns(self, n_components: int) -> bool:
        return self.patterns is not None and len(self.patterns) * self._pattern_bytes(n_components) <= PLAN_BYTES

    def _pattern_bytes(self, n_components: int) -> int:
        d = max((f.n_columns for f in self.families if f.by_pattern), default=0)
        return 8 * n_components * (2 * self.n_features + 5 * d * d)

    def slices(self, parameters: Parameters, n: int) -> list[slice]:
        """Runs of n patterns, few enough at a time that their natural parameters stay small."""
        step = max(1, SLICE_BYTES // self._pattern_bytes(len(parameters.weights)))
        return [slice(start, min(start + step, n)) for start in range(0, n, step)]

    def _whole(self, parameters: Parameters) -> Scorer:
        """The scorer of all patterns; kept for the lift that follows a scan in the same process."""
        global _latest
        latest = _latest
        if latest is None or latest[0] is not parameters or latest[1] is not self:
            assert self.patterns is not None
            latest = _latest = (parameters, self, self.scorer(parameters, self.patterns))
        return latest[2]

    def scorer(self, parameters: Parameters, observed: Mask) -> Scorer:
        """Parameters made ready for rows with these (P, d) masks."""
        with np.errstate(divide="ignore"):
            log_weights = np.maximum(np.log(parameters.weights), -1e300)
        return Scorer(self.families, log_weights, parameters.parts, observed)

    def lift(self, total: PatternSums | Sums, parameters: Parameters | None, sizes: Sequence[int]) -> Sums:
        """Expected statistics of all rows; `parameters` None after a label step."""
        if isinstance(total, Sums):
            return total
        return self._whole(self.margin(sizes) if parameters is None else parameters).lift(total)

    def posterior(self, parameters: Parameters, block: Block) -> tuple[Array, Array]:
        """Responsibilities (k, n) and log densities (n,) of a block's rows under one candidate."""
        near = tuple(np.clip(v, -REACH, REACH) if v.dtype.kind == "f" else v for v in block.values)
        block = replace(block, values=near)
        responsibilities = np.empty((len(parameters.weights), block.n_rows))
        log_density = np.empty(block.n_rows)
        for own in self.slices(parameters, len(block.observed)):
            scorer = self.scorer(parameters, block.observed[own])
            centred = scorer.centred()
            for tile in scorer.tiles(block, block.runs[own.start : own.stop + 1]):
                tile.score(centred)
                log_density[tile.rows] = softmax(tile.scores) + block.base[tile.rows]
                responsibilities[:, tile.rows] = tile.scores
        return responsibilities, log_density

    def entropy(self, parameters: Parameters) -> Callable[[Block], float]:
        """The function from a block to the entropy of its assignments, -sum w r log r, under one candidate."""

        def of(block: Block) -> float:
            total = 0.0
            for own in self.slices(parameters, len(block.observed)):
                scorer = self.scorer(parameters, block.observed[own])
                centred = scorer.centred()
                for tile in scorer.tiles(block, block.runs[own.start : own.stop + 1]):
                    tile.score(centred)
                    softmax(tile.scores)
                    terms = tile.scores * np.log(np.maximum(tile.scores, 1e-300))
                    total -= float(terms.sum(axis=0) @ block.weight[tile.rows])
            return total

        return of

    def m_step(self, sums: Sums, parameters: Parameters | None, sizes: Sequence[int]) -> Parameters:
        """The parameters that maximise the expected log-likelihood plus the log prior."""
        old = self.margin(sizes) if parameters is None else parameters
        weights = old.weights
        if not self.fix_weights:
            weights = ratio(sums.weight, per_candidate(sums.weight, sizes), weights)
        parts = (f.m_step(s, p, sizes) for f, s, p in zip(self.families, sums.stats, old.parts))
        return Parameters(weights, tuple(parts))

    def coordinates(self, parameters: Parameters, sizes: Sequence[int]) -> Array:
        """(K, c) coordinates of the parameters without constraints."""
        # The logarithms of what adds up to 1 are coordinates up to a constant, which must not count as a move.
        logs = log_floored(parameters.weights)
        weights = (
            []
            if self.fix_weights
            else [(logs - np.repeat([logs[a:b].mean() for a, b in edges(sizes)], sizes))[:, None]]
        )
        return np.concatenate([*weights, *(f.coordinates(p) for f, p in zip(self.families, parameters.parts))], axis=1)

    def at(self, coordinates: Array, like: Parameters, sizes: Sequence[int]) -> Parameters:
        """The parameters that have these coordinates, or the nearest to them; mixing weights that are fixed are those of `like`."""
        weights, start = like.weights, 0
        if not self.fix_weights:
            share = exp_clipped(
                coordinates[:, 0] - np.repeat([coordinates[a:b, 0].max() for a, b in edges(sizes)], sizes)
            )
            weights, start = share / per_candidate(share, sizes), 1
        parts = []
        for family, part in zip(self.families, like.parts):
            width = family.coordinates(part).shape[1]
            parts.append(family.at(coordinates[:, start : start + width]))
            start += width
        return self.project(Parameters(weights, tuple(parts)), sizes)

    def project(self, parameters: Parameters, sizes: Sequence[int]) -> Parameters:
        """The parameters of the covariance model that are nearest, where components count by their mixing weights."""
        weight = parameters.weights
        parts = (f.project(p, weight, sizes) for f, p in zip(self.families, parameters.parts))
        return Parameters(weight, tuple(parts))

    def expected(self, sums: Sums, parameters: Parameters) -> float | None:
        """Expected complete-data log-likelihood of statistics that were lifted elsewhere; None where a component has an origin of its own."""
        total = 0.0 if self.fix_weights else float(sums.weight @ log_floored(parameters.weights))
        for family, part, stats in zip(self.families, parameters.parts, sums.stats):
            plan = family.plan(part, np.ones((1, family.n_columns if family.by_pattern else 0), dtype=bool))
            if plan.origins:
                return None
            own = stats[:, 1:] if family.by_pattern else stats
            total += float((stats[:, 0] @ plan.constant[0]) if family.by_pattern else 0.0)
            total += float((own * plan.weights[0][:, : own.shape[1]]).sum())
        return total

    def log_prior(self, parameters: Parameters, sizes: Sequence[int]) -> Array:
        """The (C,) log prior densities of the candidates, up to a constant."""
        terms = sum(f.log_prior(p, sizes) for f, p in zip(self.families, parameters.parts))
        return np.add.reduceat(np.asarray(terms), np.cumsum([0, *sizes[:-1]]))

    def collapsed(self, parameters: Parameters) -> Mask:
        """Which of the (K,) components have vanished or have no usable density."""
        bad = ~np.isfinite(parameters.weights)
        if not self.fix_weights:
            bad |= parameters.weights < COLLAPSED_SHARE
        for family, part in zip(self.families, parameters.parts):
            bad |= family.collapsed(part)
        return bad

    def fragile(self, parameters: Parameters) -> bool:
        """Whether some component is about to collapse, so that rounding may lower the objective."""
        return any(family.fragile(part) for family, part in zip(self.families, parameters.parts))
