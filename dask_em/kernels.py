"""When a block is scanned by compiled code, and how.

The compiled scan takes the same steps as Scorer.fold for a mixture of normals with full covariances, in half of the time, and lets go of the GIL for the whole block.
It needs numba (the extra `fast`); without it, and for small blocks, the plain path gives the same sums up to rounding. The choice depends on
the block and the model alone, never on threads or on what ran before, so that results keep their bits.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dask_em import randomness

if TYPE_CHECKING:
    from dask_em.families.base import Array, Family, Mask
    from dask_em.randomness import Words

AVAILABLE = find_spec("numba") is not None

WORTHWHILE_PATTERNS = 1e6
"""Components x patterns x columns cubed from which the inverses of all patterns are compiled work."""

WORTHWHILE = 2e7
"""Rows x components x features of a block from which the compiled scan is used: below, nobody waits for a compiler."""

_importing = threading.Lock()


class Cells(NamedTuple):
    """The cells of a column as Arrow keeps them: values (float64), a bit a cell that says whether it is there (nothing where NaN alone
    means missing), and where the column's first cell stands in both."""

    values: Array
    valid: Any
    first: int


def suits(families: Sequence[Family], n_rows: int, natural: Array, centred: bool) -> bool:
    """Whether the compiled scan is to be used: one gaussian family, nothing scored about its own mean, enough work."""
    return (
        AVAILABLE
        and not centred
        and len(families) == 1
        and families[0].by_pattern
        and n_rows * natural.shape[1] * natural.shape[2] >= WORTHWHILE
    )


_scratch = threading.local()


def reused(name: str, rows: int, columns: int) -> Array:
    """A reused array of this thread: fresh memory is many times slower than memory already mapped."""
    array: Array | None = getattr(_scratch, name, None)
    if array is None or array.shape[0] < rows or array.shape[1] != columns:
        array = np.empty((rows, columns))
        setattr(_scratch, name, array)
    return array[:rows]


def fold(
    natural: Array, values: Array, runs: Any, weight: Array, base: Array, sizes: tuple[int, ...], sums: Array
) -> Array:
    """Add responsibilities times features of a block to the sums (P, K, q) of its patterns.

    Parameters
    ----------
    natural : (P, K, q) natural parameters; features are 1, the d values, and the upper triangle of their products
    values : (d, n) encoded rows, sorted by pattern; runs : (P + 1,)
    weight : (1, n) row weights, or (C, n) of each candidate; base : (n,) what is added to the log densities
    sizes : components of each candidate

    Returns
    -------
    log_likelihood : (C,) of the rows runs[0] to runs[-1]
    """
    compiled = _compiled()
    rows = slice(int(runs[0]), int(runs[-1]))
    own = weight[:, rows]
    even = bool((own == 1.0).all())
    top, total = (reused(name, len(sizes), compiled.TILE if even else weight.shape[1]) for name in ("top", "total"))
    log_likelihood = np.zeros(len(sizes))
    buffer = np.empty((natural.shape[1] + natural.shape[2] + 1, compiled.TILE))
    compiled.scan(natural, values, runs, weight, np.cumsum([0, *sizes]), sums, top, total, log_likelihood, even, buffer)
    if even:
        return log_likelihood + base[rows].sum()
    density: Array = top[:, rows] + np.log(total[:, rows]) + base[rows]
    return (density * own).sum(axis=1)


def precisions(covariances: Array, observed: Mask) -> tuple[Array, Array]:
    """Inverses of the observed parts of covariance matrices, padded with zeros, and half of their log determinants.

    Parameters
    ----------
    covariances : (K, d, d), positive definite; observed : (P, d)

    Returns
    -------
    precision (K, P, d, d), half_log_det (K, P)
    """
    n_components, d = covariances.shape[:2]
    if AVAILABLE and n_components * len(observed) * d**3 >= WORTHWHILE_PATTERNS:
        precision = np.empty((n_components, len(observed), d, d))
        half_log_det = np.empty(precision.shape[:2])
        _compiled().precisions(covariances, observed, precision, half_log_det)
        return precision, half_log_det
    both = (observed[:, :, None] & observed[:, None, :])[None]
    padded = np.where(both, covariances[:, None], np.eye(d))
    root = np.linalg.cholesky(padded)
    return np.linalg.inv(padded) * both, np.log(np.diagonal(root, axis1=2, axis2=3)).sum(axis=2)


MAX_COLUMNS = 16
"""Columns of which all patterns can be counted by their bits."""

WORTHWHILE_ROWS = 1e4
"""Rows of a piece from which its sums by pattern are compiled work."""


PATTERN_TILE = 1 << 13
"""Rows that are standardised and then summed, while they are in cache."""


def sums_by_pattern(
    columns: Sequence[Cells], weight: Array, shift: Array, scale: Array
) -> tuple[Mask, Any, Array, Any]:
    """Sums of a normal's features by missingness pattern, in one pass over the rows as they stand.

    Parameters
    ----------
    columns : the cells of the (d,) columns
    weight : (n,) row weights; shift, scale : (d,) what the columns are standardised with

    Returns
    -------
    observed (P, d), rows (P,), sums (P, 1 + d + d(d + 1)/2), and which columns (d,) hold an infinity
    """
    compiled, d = _compiled(), len(columns)
    values, seen = reused("values", d, PATTERN_TILE), np.empty(PATTERN_TILE + 16, dtype=np.uint8)
    place, n_found = np.full(1 << d, -1, dtype=np.int64), 0
    rows, linear, square = np.zeros(0, dtype=np.int64), np.zeros((0, 1 + d)), np.zeros((0, d, d))
    largest = np.zeros(d)
    for start in range(0, len(weight), PATTERN_TILE):
        own = weight[start : start + PATTERN_TILE]
        pattern = np.zeros(len(own), dtype=np.int64)
        for j, c in enumerate(columns):
            top = compiled.standardise(
                c.values, c.valid, c.first + start, len(own), shift[j], scale[j], 1 << j, seen, values[j], pattern
            )
            largest[j] = max(largest[j], top)
        n_found = compiled.places(pattern, place, n_found)
        if n_found > len(rows):
            more = max(n_found, 2 * len(rows)) - len(rows)
            rows, linear, square = (
                np.concatenate([a, np.zeros((more, *a.shape[1:]), dtype=a.dtype)]) for a in (rows, linear, square)
            )
        compiled.pattern_sums(values, own, pattern, rows, linear, square)
    met = np.argsort(place, kind="stable")[len(place) - n_found :]
    observed = (met[:, None] >> np.arange(d)) & 1 == 1
    upper = np.triu_indices(d)
    sums = np.concatenate([linear, square[:, upper[0], upper[1]]], axis=1)[:n_found]
    return observed, rows[:n_found], sums, np.isinf(largest)


def bootstrap_counts(keys: Words, seed: int, n_replicates: int) -> Any:
    """randomness.bootstrap_counts of the first replicates, compiled where it can be: the same counts."""
    if not AVAILABLE or len(keys) < WORTHWHILE_ROWS:
        return randomness.bootstrap_counts(keys, seed, range(n_replicates))
    base = randomness.mix(keys, seed, randomness.BOOTSTRAP)
    out = np.empty((n_replicates, len(keys)), dtype=np.uint8)
    for replicate, own in enumerate(out):
        _compiled().poisson_counts(base, randomness.word_of(replicate), randomness.POISSON_LIMITS, own)
    return out


def _compiled() -> Any:
    """The compiled functions; the first import compiles, or loads what an earlier process compiled, for all threads."""
    with _importing:
        return import_module("dask_em.compiled")
