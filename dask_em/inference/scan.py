"""One scan for the information of a mixture at its parameters.

    s_i  = sum_k r_ik s_ik                                              score of a row, s_ik = (e_k / π_k, s_k at k)
    I    = sum_i w_i [ sum_k r_ik (-h_ik) - sum_k r_ik s_ik s_ikᵀ + s_i s_iᵀ ]      observed information (Louis 1982)
    J    = sum_i w_i s_i s_iᵀ                                           empirical information

All of it in stored parameters φ = (π, φ_1, ..., φ_K), before anything ties them together (see charts). Products are matrix products over tiles of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.encode import encode_weighted
from dask_em.data.profile import weighted_rows
from dask_em.data.reading import read_rows
from dask_em.families.base import Array
from dask_em.inference.terms import Terms, reciprocal, terms
from dask_em.model import CHUNK_ROWS, FittedMixture
from dask_em.scan import Block

TILE_BYTES = 1 << 22
"""Scores of one tile of rows; more would leave the cache, less would make the products thin."""


@dataclass(frozen=True)
class Derivatives:
    """Sums over rows; adds up over pieces.

    Attributes
    ----------
    rows, positive, weight : rows, those of positive weight, and their total weight
    gradient : (m,) of the log-likelihood
    outer : (m, m) sum of w s sᵀ; squared : the same with w², zeros where that was not asked for
    within : (K, q, q) sum of w [r (-h) - r s_k s_kᵀ], zeros where only `outer` was asked for
    """

    rows: int
    positive: int
    weight: float
    gradient: Array
    outer: Array
    squared: Array
    within: Array

    def __add__(self, other: Derivatives) -> Derivatives:
        return Derivatives(
            self.rows + other.rows,
            self.positive + other.positive,
            self.weight + other.weight,
            self.gradient + other.gradient,
            self.outer + other.outer,
            self.squared + other.squared,
            self.within + other.within,
        )

    def observed(self, shares: Array) -> Array:
        """I (m, m), given the mixing weights."""
        k, q = self.within.shape[:2]
        out = self.outer.copy()
        for component, (own, inverse) in enumerate(zip(self.within, reciprocal(shares))):
            at = slice(k + component * q, k + (component + 1) * q)
            out[at, at] += own
            # Given the component its share and its parameters have scores whose product is not expected to vanish.
            cross = self.gradient[at] * inverse
            out[component, at] -= cross
            out[at, component] -= cross
        return out


def n_stored(model: FittedMixture) -> int:
    """Parameters of one component as they are stored, the mixing weight left out."""
    nothing = np.ones((1, 0), dtype=bool)
    return sum(
        terms(f, p, np.ones((1, f.n_columns), bool) if f.by_pattern else nothing, model.n_components).n_parameters
        for f, p in zip(model.mixture.families, model.parameters.parts)
    )


def derivatives(
    model: FittedMixture, weight: str | None, louis: bool, squares: bool, i: int, piece: Any
) -> Derivatives:
    """The sums over the rows of one piece.

    Parameters
    ----------
    weight : the column of row weights
    louis, squares : whether `within` and `squared` are needed
    """
    design = replace(model.schema.design, weight=weight, labels=None)
    table = read_rows(piece, design)
    kept, weights = weighted_rows(table, design)
    k, q = model.n_components, n_stored(model)
    m = k + k * q
    total = Derivatives(
        table.num_rows,
        len(weights),
        float(weights.sum()),
        np.zeros(m),
        np.zeros((m, m)),
        np.zeros((m, m)),
        np.zeros((k, q, q)),
    )
    for start in range(0, kept.num_rows, CHUNK_ROWS):
        own = slice(start, min(start + CHUNK_ROWS, kept.num_rows))
        block, _ = encode_weighted(kept.slice(own.start, own.stop - own.start), model.schema, weights[own])
        _add(total, model, block, louis, squares)
    return total


def _add(total: Derivatives, model: FittedMixture, block: Block, louis: bool, squares: bool) -> None:
    """Add a block's rows to sums that nobody else has seen yet."""
    mixture, parameters = model.mixture, model.parameters
    responsibilities, _ = mixture.posterior(parameters, block)
    for own in mixture.slices(parameters, len(block.observed)):
        parts = [
            terms(f, p, block.observed[own], model.n_components) for f, p in zip(mixture.families, parameters.parts)
        ]
        _add_patterns(
            total,
            parts,
            block,
            block.runs[own.start : own.stop + 1],
            responsibilities,
            parameters.weights,
            louis,
            squares,
        )


def _add_patterns(
    total: Derivatives,
    parts: Sequence[Terms],
    block: Block,
    runs: NDArray[np.int64],
    responsibilities: Array,
    shares: Array,
    louis: bool,
    squares: bool,
) -> None:
    k, q = total.within.shape[:2]
    columns = _slices([t.n_parameters for t in parts])
    sums = np.zeros((len(runs) - 1, k, q))
    exposures = [np.zeros((len(runs) - 1, k, t.n_exposures)) for t in parts]
    step = max(128, TILE_BYTES // (8 * (k + k * q)))
    inverse = reciprocal(shares)
    for start in range(int(runs[0]), int(runs[-1]), step):
        rows = slice(start, min(start + step, int(runs[-1])))
        r, w = responsibilities[:, rows], block.weight[rows]
        scores = np.empty((k, q, rows.stop - rows.start))
        for p, run in _pieces(runs, rows):
            here = slice(run.start - rows.start, run.stop - rows.start)
            share = (r * w)[:, here]
            for t, values, own, exposure in zip(parts, block.values, columns, exposures):
                t.scores(p, values[:, run], scores[:, own, here])
                if louis and t.n_exposures:
                    seen = np.empty((t.n_exposures, run.stop - run.start))
                    t.exposure(values[:, run], seen)
                    exposure[p] += share @ seen.T
            sums[p] += (scores[:, :, here] @ share[:, :, None])[:, :, 0]
        if louis:
            total.within[:] -= (scores * (r * w)[:, None, :]) @ scores.swapaxes(1, 2)
        scores *= r[:, None, :]
        row_scores = np.concatenate([r * inverse[:, None], scores.reshape(k * q, -1)])
        total.gradient[:] += row_scores @ w
        row_scores *= np.sqrt(w)
        total.outer[:] += row_scores @ row_scores.T
        if squares:
            row_scores *= np.sqrt(w)
            total.squared[:] += row_scores @ row_scores.T
    if louis:
        for t, own, exposure in zip(parts, columns, exposures):
            total.within[:, own, own] += t.information(sums[:, :, own], exposure)


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum([0, *sizes]).tolist()
    return [slice(a, b) for a, b in pairwise(ends)]


def _pieces(runs: NDArray[np.int64], rows: slice) -> Iterator[tuple[int, slice]]:
    """The patterns of some consecutive rows, and the rows of each."""
    first, last = np.searchsorted(runs, [rows.start, rows.stop - 1], side="right") - 1
    edges = np.clip(runs[first : last + 2], rows.start, rows.stop).tolist()
    for p, a, b in zip(range(first, last + 1), edges, edges[1:]):
        if b > a:
            yield p, slice(a, b)
