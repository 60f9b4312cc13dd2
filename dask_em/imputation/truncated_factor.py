"""How the bounds of a row's cells limit the independent factors of its normal distribution.

    x = mean + L z,  z ~ N(0, I),  C = L L'        given  lower <= x <= upper

L has its bounded cells first and steps down, so that given z_1 .. z_(k-1) the bounds of some cells limit z_k to one interval: the intersection
over the cells whose last coefficient is on z_k. So a singular C is nothing special (Genz and Kwong 2000, J. Statist. Comput. Simul. 68).
Only elementwise operations in a fixed order touch rows: a row's result has the same bits whatever rows stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dask_em.imputation.truncated import Array

Rows = NDArray[np.intp]

_DETERMINED = 1e-10  # a cell with less than this share of its variance left is a function of the cells before it
_DUST = 1e-8  # coefficients below this many of the cell's sd are rounding, and would be read as bounds of a factor


@dataclass(frozen=True)
class Factor:
    """C = L L', L (m, rank), its rows in the cells' order; the bounded cells depend on the first `n_limited` columns only.

    Attributes
    ----------
    limits : for each of those columns, the bounded cells whose last coefficient it is
    """

    L: Array
    n_limited: int
    limits: tuple[tuple[int, ...], ...]

    @property
    def tested(self) -> tuple[int, ...]:
        """Bounded cells that vary."""
        return tuple(i for cells in self.limits for i in cells)

    def partial(self, mean: Array, i: int, z: Sequence[Array] | Array, n_factors: int) -> Array:
        """Cell i given its first factors: its mean and their share."""
        for k in range(n_factors):
            if self.L[i, k]:
                mean = mean + self.L[i, k] * z[k]
        return mean

    def cells(self, means: Array, z: Sequence[Array] | Array) -> Array:
        """All cells (m, n) at the factors z."""
        return np.stack([self.partial(means[i], i, z, self.L.shape[1]) for i in range(len(means))])


def factorise(C: Array, bounded: NDArray[np.bool_], first: Sequence[int] = ()) -> Factor:
    """Cholesky's factor with the cells `first` and then the other bounded ones on top; a cell that those before it determine gives no column."""
    m = len(C)
    L = np.zeros((m, m))
    pivots: list[int] = []
    n_limited = 0
    for i in dict.fromkeys([*first, *np.flatnonzero(bounded).tolist(), *range(m)]):
        if C[i, i] <= 0:
            continue
        for k, p in enumerate(pivots):
            L[i, k] = (C[i, p] - L[i, :k] @ L[p, :k]) / L[p, k]
        L[i, np.abs(L[i]) < _DUST * np.sqrt(C[i, i])] = 0.0
        rest = C[i, i] - L[i] @ L[i]
        if rest > _DETERMINED * C[i, i]:
            L[i, len(pivots)] = np.sqrt(rest)
            pivots.append(i)
        n_limited = len(pivots) if bounded[i] else n_limited
    last = [int(np.flatnonzero(L[i])[-1]) if bounded[i] and L[i].any() else -1 for i in range(m)]
    limits = tuple(tuple(i for i in range(m) if last[i] == k) for k in range(n_limited))
    return Factor(L[:, : len(pivots)], n_limited, limits)


def interval(
    factor: Factor, k: int, means: Array, lower: Array, upper: Array, z: Sequence[Array]
) -> tuple[Array, Array]:
    """What the bounds leave of factor k given those before it; a point, and so no mass, where they leave nothing."""
    limits = []
    for i in factor.limits[k]:
        centre = factor.partial(means[i], i, z, k)
        limits.append(sides(lower[i] - centre, upper[i] - centre, factor.L[i, k]))
    return common(limits)


def common(intervals: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """What the intervals have in common; where that is nothing, the point between the ends that exclude each other."""
    a, b = intervals[0]
    for low, high in intervals[1:]:
        a, b = np.maximum(a, low), np.minimum(b, high)
    empty = a > b
    between = 0.5 * (np.where(empty, a, 0.0) + np.where(empty, b, 0.0))
    return np.where(empty, between, a), np.where(empty, between, b)


def sides(low: Array, high: Array, coefficient: float) -> tuple[Array, Array]:
    """Where low <= coefficient t <= high."""
    a, b = low / coefficient, high / coefficient
    return (a, b) if coefficient > 0 else (b, a)


def alike(lower: Array, upper: Array) -> Iterator[tuple[Rows, NDArray[np.bool_]]]:
    """Rows with the same cells bounded, and which cells those are: what a row is computed with depends on its own bounds only."""
    bounded = np.isfinite(lower) | np.isfinite(upper)
    if (bounded == bounded[:, :1]).all():  # as it is where all rows share their bounds
        yield np.arange(bounded.shape[1]), np.logical_or.reduce(bounded[:, :1], axis=1)
        return
    patterns, which = np.unique(bounded, axis=1, return_inverse=True)
    for p in range(patterns.shape[1]):
        yield np.flatnonzero(which.ravel() == p), patterns[:, p]


def shaped(means: ArrayLike, C: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> tuple[Array, Array, Array, Array]:
    """The arguments as arrays of floats, both bounds as (m, n)."""
    means, C = np.asarray(means, dtype=np.float64), np.asarray(C, dtype=np.float64)
    lower, upper = (_as_rows(np.asarray(bound, dtype=np.float64), means.shape) for bound in (lower, upper))
    return means, C, lower, upper


def _as_rows(bound: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(bound[:, None] if bound.ndim == 1 else bound, shape)


def taken(rows: Rows, means: Array, lower: Array, upper: Array) -> tuple[Array, Array, Array]:
    """Those rows of (m, n) arrays, contiguous: NumPy's loops for exp and log may differ in the last bit between layouts."""
    return np.take(means, rows, axis=1), np.take(lower, rows, axis=1), np.take(upper, rows, axis=1)
