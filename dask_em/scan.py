"""One pass over a block of encoded rows: the two matrix products and the softmax between them.

    T      = [1; features of every family]      (q, n)
    scores = W T                                (K, n)    log π_k + log p(x | k)
    R      = softmax per candidate, times row weights
    sums   = R Tᵀ                               (K, q)    kept by missingness pattern, for only W depends on it

Rows of a block come sorted by pattern; features are built for a tile of rows that stays in cache, and each pattern's run of columns
in the tile gets its own W. The module knows blocks and families, not how the sums are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.families.base import Array, Family, Mask, Plan
from dask_em.kernels import Layout, fold, reused

TILE_BYTES = 1 << 21
"""Features and scores of one tile: written once and read twice, so they should stay in the L2 cache."""


@dataclass(frozen=True)
class Block:
    """Encoded rows, sorted by the missingness pattern of the family that needs it.

    Attributes
    ----------
    values : one (d, n) array for each family, rows last
    weight : (n,) row weights; 0 for a row that has nothing to tell
    base : (n,) what a row adds to its log density whatever the component: Jacobians, scales, -log y!
    observed : (P, d) masks of the patterns of that family; a pattern may have no rows here
    runs : (P + 1,) where each pattern's rows start
    labels : (C, n) component of each row in each candidate, for a fit that starts from labels
    replicates : (m, n) how often each row counts in each bootstrap replicate, where candidates are fitted to replicates; not a whole number where the row stands for
        several that differ in it
    """

    values: tuple[NDArray[Any], ...]
    weight: Array
    base: Array
    observed: Mask
    runs: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None
    replicates: NDArray[Any] | None = None

    @property
    def n_rows(self) -> int:
        return len(self.weight)

    def weights(self, rows: slice, replicates: Sequence[int] | None) -> Array:
        """(C, n) weights of some rows in these replicates, or (1, n) in the table itself."""
        own = self.weight[rows]
        if replicates is None:
            return own[None]
        assert self.replicates is not None
        return self.replicates[list(replicates), rows] * own

    def __sizeof__(self) -> int:
        arrays = [*self.values, self.weight, self.base, self.observed, self.runs, self.labels, self.replicates]
        return 256 + sum(a.nbytes for a in arrays if a is not None)


@dataclass(frozen=True)
class PatternSums:
    """Sums of responsibilities times features: log_likelihood (C,), sums (P, K, q)."""

    log_likelihood: Array
    sums: Array

    def __add__(self, other: PatternSums) -> PatternSums:
        return PatternSums(self.log_likelihood + other.log_likelihood, self.sums + other.sums)


@dataclass(frozen=True)
class Sums:
    """Expected complete-data statistics: log_likelihood (C,), weight (K,), and (K, s) for each family."""

    log_likelihood: Array
    weight: Array
    stats: tuple[Array, ...]

    def __add__(self, other: Sums) -> Sums:
        stats = tuple(a + b for a, b in zip(self.stats, other.stats))
        return Sums(self.log_likelihood + other.log_likelihood, self.weight + other.weight, stats)

    def __sub__(self, other: Sums) -> Sums:
        return self + other.scaled(-1.0)

    def scaled(self, factor: float) -> Sums:
        """The sums over rows whose weights are multiplied."""
        return Sums(factor * self.log_likelihood, factor * self.weight, tuple(factor * s for s in self.stats))

    def take(self, candidate: int, components: NDArray[np.int64]) -> Sums:
        """The sums of one candidate, whose components stand at these places."""
        own = self.log_likelihood[candidate : candidate + 1]
        return Sums(own, self.weight[components], tuple(s[components] for s in self.stats))


@dataclass(frozen=True)
class _Centred:
    """A component that is scored, and summed, about its own mean in one family."""

    index: int
    family: Family
    own: slice
    plan: Plan
    component: int
    origin: Array
    sums: Array

    def values(self, block: Block, observed: Mask, rows: slice) -> NDArray[Any]:
        values = block.values[self.index][:, rows] - self.origin[:, None]
        if self.family.in_patterns:
            values[~observed] = np.nan
        return values * observed[:, None] if self.family.by_pattern else values


class Scorer:
    """Stacked parameters made ready for the rows of some patterns."""

    def __init__(self, families: Sequence[Family], log_weights: Array, parts: Sequence[Any], observed: Mask) -> None:
        self.families, self.parts, self.observed = families, parts, observed
        self.columns: list[tuple[int, Family, slice]] = []
        start = 1
        for index, family in enumerate(families):
            self.columns.append((index, family, slice(start, start + family.n_features)))
            start += family.n_features
        nothing = np.ones((1, 0), dtype=bool)
        self.plans = [f.plan(p, observed if f.by_pattern else nothing) for f, p in zip(families, parts)]
        self.natural = np.empty((len(observed), len(log_weights), start))
        self.natural[:, :, 0] = log_weights
        for (_, _, own), plan in zip(self.columns, self.plans):
            self.natural[:, :, 0] += plan.constant
            self.natural[:, :, own] = plan.weights

    def tiles(self, block: Block, runs: NDArray[np.int64]) -> Iterator[Tile]:
        """Walk over the rows runs[0] to runs[-1], whose patterns are those of this scorer."""
        step = tile_rows(*self.natural.shape[1:])
        for start in range(int(runs[0]), int(runs[-1]), step):
            yield Tile(self, block, runs, slice(start, min(start + step, int(runs[-1]))), step)

    def fold(self, block: Block, runs: NDArray[np.int64], n_candidates: int, respond: Respond) -> PatternSums:
        """Sums over those rows, with responsibilities left by `respond` in the scores of each tile."""
        sums = np.zeros_like(self.natural)
        log_likelihood = np.zeros(n_candidates)
        centred = self.centred()
        for tile in self.tiles(block, runs):
            log_likelihood += respond(tile, centred)
            tile.add_to(sums, centred)
        for c in centred:
            sums[:, c.component, c.own] = c.sums
        return PatternSums(log_likelihood, sums)

    def fold_compiled(
        self, block: Block, runs: NDArray[np.int64], sizes: tuple[int, ...], replicates: Sequence[int] | None
    ) -> PatternSums | None:
        """The same under a mixture of these sizes by compiled code, which scores nothing about its own mean."""
        if any(p.origins for p in self.plans):
            return None
        sums = np.zeros_like(self.natural)
        weights = block.weights(slice(None), replicates)
        log_likelihood = fold(
            Layout(self.families), self.natural, block.values, self.observed, runs, weights, block.base, sizes, sums
        )
        return PatternSums(log_likelihood, sums)

    def evaluate(self, sums: Array, base: Array) -> PatternSums:
        """What `fold` returns for candidates of one component, from (P, C, q) sums of weights times features.

        With one component the responsibilities are the row weights, so those sums hold whatever the parameters are: rows are not needed again.
        `base` (C,) is the weighted sum of the rows' base measures.
        """
        log_likelihood = base + np.einsum("pcq,pcq->c", self.natural, sums)
        for c in self.centred():
            sums = sums.copy()
            own, log_prob = c.family.sums_about(
                c.plan, c.component, sums[:, c.component, 0], sums[:, c.component, c.own]
            )
            sums[:, c.component, c.own] = own
            log_likelihood[c.component] += log_prob.sum()
        return PatternSums(log_likelihood, sums)

    def centred(self) -> list[_Centred]:
        """The components that are scored about their own mean, with room for their sums."""
        return [
            _Centred(index, family, own, plan, k, origin, np.zeros((len(self.observed), family.n_features)))
            for (index, family, own), plan in zip(self.columns, self.plans)
            for k, origin in plan.origins.items()
        ]

    def lift(self, total: PatternSums) -> Sums:
        """Expected complete-data statistics from the sums by pattern."""
        weight = total.sums[:, :, 0]
        stats = (
            family.lift(part, plan, self.observed, weight, total.sums[:, :, own])
            for (_, family, own), part, plan in zip(self.columns, self.parts, self.plans)
        )
        return Sums(total.log_likelihood, weight.sum(axis=0), tuple(stats))


class Tile:
    """Consecutive rows of a block, few enough to stay in cache, with their features and scores."""

    def __init__(self, scorer: Scorer, block: Block, runs: NDArray[np.int64], rows: slice, width: int) -> None:
        n_components, q = scorer.natural.shape[1:]
        n = rows.stop - rows.start
        self.scorer, self.block, self.rows = scorer, block, rows
        self.features = reused("features", q, width)[:, :n]
        self.scores = reused("scores", n_components, width)[:, :n]
        first, last = np.searchsorted(runs, [rows.start, rows.stop - 1], side="right") - 1
        edges = np.minimum(np.maximum(runs[first : last + 2] - rows.start, 0), n).tolist()
        self.pieces = [(p, slice(a, b)) for p, a, b in zip(range(first, last + 1), edges, edges[1:]) if b > a]
        self.features[0] = 1.0
        for index, family, own in scorer.columns:
            values = block.values[index][:, rows]
            if family.in_patterns:
                values = self._with_holes(values)
            family.features(values, self.features[own])

    def _with_holes(self, values: NDArray[Any]) -> NDArray[Any]:
        """Rows that were grouped by pattern for another model have 0 where a cell is missing: NaN again."""
        holes = [(p, own) for p, own in self.pieces if not self.scorer.observed[p].all()]
        if holes:
            values = values.copy()
            for p, own in holes:
                values[~self.scorer.observed[p], own] = np.nan
        return values

    def score(self, centred: list[_Centred]) -> None:
        """scores = log π_k + log p(x | k), without the row's base measure."""
        for p, own in self.pieces:
            np.matmul(self.scorer.natural[p], self.features[:, own], out=self.scores[:, own])
        for c in centred:
            for p, own in self.pieces:
                values = c.values(self.block, self.scorer.observed[p], self._in_block(own))
                self.scores[c.component, own] += c.family.log_prob_centred(c.plan, p, c.component, values)

    def add_to(self, sums: Array, centred: list[_Centred]) -> None:
        """Add responsibilities times features to the sums of each pattern."""
        for p, own in self.pieces:
            sums[p] += self.scores[:, own] @ self.features[:, own].T
        for c in centred:
            for p, own in self.pieces:
                features = np.empty((c.family.n_features, own.stop - own.start))
                c.family.features(c.values(self.block, self.scorer.observed[p], self._in_block(own)), features)
                c.sums[p] += features @ self.scores[c.component, own]

    def _in_block(self, own: slice) -> slice:
        return slice(self.rows.start + own.start, self.rows.start + own.stop)


def weighted_features(family: Family, block: Block, weights: Array) -> Array:
    """(P, R, 1 + q) sums of (R, n) weights times the features of the only family of a block, by pattern."""
    q = 1 + family.n_features
    sums = np.zeros((len(block.observed), len(weights), q))
    runs, step = block.runs, tile_rows(len(weights), q)
    for start in range(0, block.n_rows, step):
        stop = min(start + step, block.n_rows)
        features = reused("features", q, step)[:, : stop - start]
        features[0] = 1.0
        family.features(block.values[0][:, start:stop], features[1:])
        first, last = np.searchsorted(runs, [start, stop - 1], side="right") - 1
        edges = np.clip(runs[first : last + 2], start, stop).tolist()
        for p, a, b in zip(range(first, last + 1), edges, edges[1:]):
            if b > a:
                sums[p] += weights[:, a:b] @ features[:, a - start : b - start].T
    return sums


Respond = Callable[[Tile, list[_Centred]], Array]


def softmax(scores: Array) -> Array:
    """Turn (k, n) scores into responsibilities in place and return the log of their sums, (n,)."""
    top = scores.max(axis=0)
    scores -= top
    np.exp(scores, out=scores)
    total = scores.sum(axis=0)
    scores *= 1.0 / total
    return top + np.log(total)


def tile_rows(n_components: int, n_features: int) -> int:
    """Rows of a tile: a fixed function of the shapes, so that results do not depend on who computes them."""
    rows = TILE_BYTES // (8 * (n_features + n_components))
    # 8 more than a multiple of 64: rows of the buffers must not share cache sets.
    return min(max(rows // 64 * 64, 256), 16384) + 8
