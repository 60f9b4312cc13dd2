"""Where EM starts: labels for the rows of a sample, from which one M-step makes the parameters.

Centres are rows of the sample: drawn by k-means++ (Arthur and Vassilvitskii 2007, each centre the best of a few draws), or at random among distinct rows; every
row joins the nearest centre. Distances are standardised, over the cells that both rows have, so categories, counts and missing cells need
nothing of their own. Restarts differ by their seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.families.base import Array, Family
from dask_em.scan import Block

EXAMPLES = 32
"""Rows of a known component that are looked at for the mean of them."""


def labels(
    families: Sequence[Family],
    block: Block,
    k: int,
    method: str,
    rng: np.random.Generator,
    known: NDArray[Any] | None = None,
) -> NDArray[np.int64]:
    """Component (n,) of every row of the sample, 0 to k-1, each with at least one row where rows differ.

    Parameters
    ----------
    families, block : the model's families and the encoded sample; rows of weight 0 are never centres
    k : number of components
    method : "kmeans++" or "random"
    rng : generator of this restart
    known : (n,) the component of rows for which it is known, -1 for the others; their mean is its centre
    """
    trials = 1 if method == "random" else 2 + int(np.log(k))
    weight, n = block.weight, block.n_rows
    known = np.full(n, -1) if known is None else known
    nearest, out = np.full(n, np.inf), np.zeros(n, dtype=np.int64)
    for c in range(k):
        own = weight * (known == c)
        if own.any():
            distance = _from_mean(families, block, _choose(own, EXAMPLES, rng))
            out[distance < nearest] = c
            nearest = np.minimum(distance, nearest)
            continue
        mass = weight * (nearest if method == "kmeans++" else nearest > 0) if c else weight
        if not mass.sum() > 0:
            mass = weight  # fewer distinct rows than components in the sample
        candidates = _choose(mass, trials if c else 1, rng)
        distances = _distance(families, block, candidates)
        closer = np.minimum(distances, nearest)
        best = int(np.argmin(closer @ weight))
        out[distances[best] < nearest] = c
        nearest = closer[best]
        out[candidates[best]] = c
    return np.where(known >= 0, known, out)


def nearest(families: Sequence[Family], block: Block, centres: Sequence[NDArray]) -> NDArray[np.int64]:
    """The nearest of the given centres, one (d, k) array of encoded values a family, for every row."""
    return np.argmin(_summed(families, block, centres), axis=0)


def _choose(mass: Array, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    cumulative = np.cumsum(mass)
    picks = np.searchsorted(cumulative, rng.random(size) * cumulative[-1], side="right")
    return np.minimum(picks, len(mass) - 1)


def _distance(families: Sequence[Family], block: Block, rows: NDArray[np.int64]) -> Array:
    return _summed(families, block, [v[:, rows] for v in block.values])


def _from_mean(families: Sequence[Family], block: Block, rows: NDArray[np.int64]) -> Array:
    """Squared distance (n,) to the mean of some rows, whatever their cells are: the mean distance to them, less half of that among them."""
    distances = _distance(families, block, rows)
    return np.maximum(distances.mean(axis=0) - 0.5 * distances[:, rows].mean(), 0.0)


def _summed(families: Sequence[Family], block: Block, centres: Sequence[NDArray]) -> Array:
    """Squared distance (m, n), scaled up from the cells seen in both to all columns."""
    total, seen = np.zeros(1), np.zeros(1)
    for family, values, centre in zip(families, block.values, centres):
        distance, cells = family.dissimilarity(values, centre)
        total, seen = total + distance, seen + cells
    n_columns = sum(f.n_columns for f in families)
    return total * n_columns / np.maximum(seen, 1.0)
