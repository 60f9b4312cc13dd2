"""When a block is scanned by compiled code, and how.

The compiled scan takes the same steps as Scorer.fold in a fraction of the time, and lets go of the GIL for the whole block.
It needs numba (the extra `fast`); without it, and for small tables, the plain path gives the same sums up to rounding. The choice depends on
the table and the model alone, never on threads or on what ran before, so that results keep their bits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
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

WORTHWHILE = 3e7
"""Rows x components x (features + 20) of a table from which its scans are compiled: one takes some 30 ms in plain NumPy, and the compiled code a second to load."""

EXPONENTIAL = 20
"""Features that take as long as the exponential of a score."""

SINGLE_LIMIT = 1e3
"""Natural parameters up to which single precision is used: beyond, a score of that size would lose more than about 1e-4."""

MANY_LEVELS = 12
"""Levels of a column beyond which they are looked up and counted up row by row; fewer are indicators in the two products."""

_importing = threading.Lock()


class Cells(NamedTuple):
    """The cells of a column as Arrow keeps them: values (float64), a bit a cell that says whether it is there (nothing where NaN alone
    means missing), and where the column's first cell stands in both."""

    values: Array
    valid: Any
    first: int


def worthwhile(families: Sequence[Family], n_rows: int, n_components: int) -> bool:
    """Whether scans of a table are to be compiled: the families are known here, and there is enough work."""
    work = n_rows * n_components * (1 + sum(f.n_features for f in families) + EXPONENTIAL)
    return AVAILABLE and all(f.kind for f in families) and work >= WORTHWHILE


_scratch = threading.local()


def reused(name: str, rows: int, columns: int, kind: Any = np.float64) -> Any:
    """A reused array of this thread: fresh memory is many times slower than memory already mapped."""
    array = getattr(_scratch, name, None)
    if array is None or array.shape[0] < rows or array.shape[1] != columns or array.dtype != kind:
        array = np.empty((rows, columns), dtype=kind)
        setattr(_scratch, name, array)
    return array[:rows]


class Layout:
    """How the features of a model are ordered in the compiled scan.

    Values first, then the indicators of observed cells, which a tile without a missing cell does not need; the levels of columns with many of them apart.
    """

    def __init__(self, families: Sequence[Family]) -> None:
        values, indicators, table, levels = [0], list[int](), list[int](), list[int]()
        start = 1
        for family in families:
            own = list(range(start, start + family.n_features))
            start += family.n_features
            indicators += own[: family.n_indicators]
            own = own[family.n_indicators :]
            for n in family.levels:
                level, own = own[:n], own[n:]
                (table if n > MANY_LEVELS else values).extend(level)
                levels.append(n)
            values += own
        self.values, self.indicators, self.table = (
            np.array(own, dtype=np.int64) for own in (values, indicators, table)
        )
        self.levels = np.array(levels, dtype=np.int64)
        self.straight = not indicators and not table
        self.kinds = [f.kind for f in families]
        self.expected = any(f.kind == "pairs" and f.n_features == 3 * f.n_columns for f in families)

    def single(self, values: Sequence[Any]) -> bool:
        """Whether normal columns were encoded in single precision."""
        return any(v.dtype == np.float32 for v in values)

    def columns(self, values: Sequence[Any]) -> Any:
        """The values of a block's families, as the compiled scan takes them."""
        n = values[0].shape[1]
        of = dict(zip(self.kinds, values))
        nothing = np.empty((0, n), dtype=next(iter(values)).dtype)
        return _compiled().Columns(
            of.get("products", of.get("squares", nothing)),
            "products" in of,
            of.get("levels", np.empty((0, n), dtype=np.int16)),
            self.levels,
            self.levels > MANY_LEVELS,
            of.get("counts", nothing),
            of.get("pairs", nothing),
            self.expected,
        )


def fold(
    layout: Layout,
    natural: Array,
    values: Sequence[Any],
    observed: Mask,
    runs: Any,
    weight: Array,
    base: Array,
    sizes: tuple[int, ...],
    sums: Array,
) -> Array:
    """Add responsibilities times features of a block to the sums (P, K, q) of its patterns.

    Parameters
    ----------
    natural : (P, K, q) natural parameters in the order of the families' features
    values : encoded rows of each family, sorted by pattern; observed : (P, d); runs : (P + 1,)
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
    kind = np.float32 if layout.single(values) and np.abs(natural).max() <= SINGLE_LIMIT else np.float64
    columns = compiled.TILE if even else weight.shape[1]
    top, total = (reused(name, len(sizes), columns, kind) for name in ("top", "total"))
    log_likelihood = np.zeros(len(sizes))
    buffer = reused("tile", natural.shape[1] + natural.shape[2] + 1, compiled.TILE, kind)
    if layout.straight:
        ordered = whole = natural
        ordered_sums = whole_sums = sums
        table = table_sums = natural[:, :, :0]
    else:
        ordered = natural[:, :, np.concatenate([layout.values, layout.indicators])]
        whole, table = natural[:, :, layout.values], natural[:, :, layout.table]
        whole[:, :, 0] += natural[:, :, layout.indicators].sum(axis=2)
        ordered_sums, whole_sums, table_sums = (np.zeros_like(a) for a in (ordered, whole, table))
    compiled.scan(
        *(np.ascontiguousarray(a, dtype=kind) for a in (ordered, whole, table)),
        layout.columns(values),
        observed,
        runs,
        weight,
        np.cumsum([0, *sizes]),
        ordered_sums,
        whole_sums,
        table_sums,
        top,
        total,
        log_likelihood,
        even,
        buffer,
    )
    if not layout.straight:
        sums[:, :, np.concatenate([layout.values, layout.indicators])] += ordered_sums
        sums[:, :, layout.values] += whole_sums
        sums[:, :, layout.indicators] += whole_sums[:, :, :1]
        sums[:, :, layout.table] += table_sums
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
        _compiled_sums().precisions(covariances, observed, precision, half_log_det)
        return precision, half_log_det
    both = (observed[:, :, None] & observed[:, None, :])[None]
    padded = np.where(both, covariances[:, None], np.eye(d))
    root = np.linalg.cholesky(padded)
    return np.linalg.inv(padded) * both, np.log(np.diagonal(root, axis1=2, axis2=3)).sum(axis=2)


MAX_COLUMNS = 16
"""Columns of which all patterns can be counted by their bits."""

WORTHWHILE_ROWS = 1e4
"""Rows of a piece from which its sums by pattern are compiled work."""


LINE = 8
"""Numbers in a cache line."""

PATTERN_TILE = 1 << 11
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
    observed (P, d) in the order of their bits, rows (P,), sums (P, 1 + d + d(d + 1)/2), and which columns (d,) hold an infinity
    """
    compiled, d, n = _compiled_sums(), len(columns), len(weight)
    wanted, width = _positions(d, compiled.BLOCK)
    most = min(1 << d, n)  # memory that nothing is added to is not there yet
    place, rows, sums = np.full(1 << d, -1, dtype=np.int64), np.zeros(most, dtype=np.int64), _aligned_zeros(most, width)
    assert all(c.values.dtype == np.float64 and c.values.flags.c_contiguous for c in columns)  # they go by address
    cells = np.array([(c.values.ctypes.data, c.valid.ctypes.data, len(c.valid), c.first) for c in columns])
    infinite = np.zeros(d, dtype=bool)
    compiled.sums_by_pattern(cells, weight, shift, scale, PATTERN_TILE, place, rows, sums, infinite)
    met = np.flatnonzero(place >= 0)
    own = place[met]
    observed = (met[:, None] >> np.arange(d)[::-1]) & 1 == 1
    return observed, rows[own], sums[own[:, None], wanted], infinite


@lru_cache
def _positions(d: int, block: int) -> tuple[Any, int]:
    """Where 1, the columns and the upper triangle of their products stand in the sums of pattern_sums, and how many numbers those are."""
    n_blocks = d // block + 1
    number = np.zeros((n_blocks, n_blocks), dtype=np.int64)
    number[np.triu_indices(n_blocks)] = np.arange(n_blocks * (n_blocks + 1) // 2)
    upper = np.triu_indices(d)
    i, j = np.concatenate([[d], np.arange(d), upper[0]]), np.concatenate([np.full(1 + d, d), upper[1]])
    return (number[i // block, j // block] * block + i % block) * block + j % block, (number.max() + 1) * block**2


def _aligned_zeros(n: int, width: int) -> Array:
    """(n, width) zeros that begin with a cache line: vectors that cross its end take a sixth longer."""
    own = np.zeros(n * width + LINE)
    start = -own.ctypes.data % (8 * LINE) // 8
    return own[start : start + n * width].reshape(n, width)


def bootstrap_counts(keys: Words, seed: int, n_replicates: int) -> Any:
    """randomness.bootstrap_counts of the first replicates, compiled where it can be: the same counts."""
    if not AVAILABLE or len(keys) < WORTHWHILE_ROWS:
        return randomness.bootstrap_counts(keys, seed, range(n_replicates))
    base = randomness.mix(keys, seed, randomness.BOOTSTRAP)
    out = np.empty((n_replicates, len(keys)), dtype=np.uint8)
    for replicate, own in enumerate(out):
        _compiled_sums().poisson_counts(base, randomness.word_of(replicate), randomness.POISSON_LIMITS, own)
    return out


def is_loaded() -> bool:
    """Whether compiled code is there already, for what is not worth loading it."""
    return "dask_em.compiled" in sys.modules or "dask_em.compiled_sums" in sys.modules


def block_sums(words: Words, key: Words, sums: Words) -> None:
    """The sums of blocks of words (n, m) under a key (m,): see checksum."""
    _compiled_sums().block_sums(words, key, sums)


def _compiled() -> Any:
    return _module("dask_em.compiled")


def _compiled_sums() -> Any:
    return _module("dask_em.compiled_sums")


def _module(name: str) -> Any:
    """Compiled functions; the first import compiles, or loads what an earlier process compiled, for all threads."""
    with _importing:
        return import_module(name)
