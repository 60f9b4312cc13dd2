"""The scan that gathers everything a multivariate normal needs: sums by missingness pattern, for the row weights and for bootstrap replicates of them.

Shift and scale are provisional where nothing was profiled before; the sums are turned into those of the right ones afterwards (see normal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dask_em import kernels
from dask_em.data import columns as col
from dask_em.data.encode import encode_weighted, numbers_on_scale
from dask_em.data.keys import row_keys
from dask_em.data.profile import Moments, weighted_rows
from dask_em.data.reading import read_rows
from dask_em.data.schema import Design, Schema
from dask_em.normal import NormalSums, collect
from dask_em.randomness import FOLD, Words, mix
from dask_em.scan import Block

MAX_BYTES = 1 << 27
"""Sums by pattern beyond this (128 MB) are given up: rows are then scanned in every iteration."""


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of a table: how many, from which seed, and the columns that name a row."""

    n_replicates: int = 0
    seed: int = 0
    key: tuple[str, ...] = ()

    def counts(self, keys: Words) -> NDArray[np.uint8]:
        """(n_replicates, n) how often rows with these keys count."""
        return np.asarray(kernels.bootstrap_counts(keys, self.seed, self.n_replicates))


@dataclass(frozen=True)
class Folds(Bootstrap):
    """Parts of the rows by a hash of their keys: replicate f is without part f, replicate n_folds + f is part f alone."""

    def counts(self, keys: Words) -> NDArray[np.uint8]:
        n_folds = self.n_replicates // 2
        part = mix(keys, self.seed, FOLD) % np.uint64(n_folds) == np.arange(n_folds, dtype=np.uint64)[:, None]
        return np.concatenate([~part, part]).astype(np.uint8)


NO_REPLICATES = Bootstrap()


@dataclass(frozen=True)
class Gathered:
    """What the scan found; adds up over rows.

    Attributes
    ----------
    piece_rows : rows of each piece, in order
    rows, weight : rows with a positive weight, and their total weight
    sums : of R = 1 + replicates vectors of weights, the first being the row weights; None where there were too many patterns
    """

    piece_rows: tuple[int, ...]
    rows: int
    weight: float
    sums: NormalSums | None

    def __add__(self, other: Gathered) -> Gathered:
        sums = None
        if self.sums is not None and other.sums is not None:
            sums = _bounded(self.sums + other.sums)
        return Gathered(self.piece_rows + other.piece_rows, self.rows + other.rows, self.weight + other.weight, sums)


def _bounded(sums: NormalSums) -> NormalSums | None:
    return sums if sums.sums.nbytes <= MAX_BYTES else None


def gather(piece: Any, schema: Schema, bootstrap: Bootstrap) -> Gathered:
    """Gather the rows of a piece.

    Raises
    ------
    DataError
        A cell that the model cannot take.
    """
    design = schema.design
    table = read_rows(piece, design, bootstrap.key)
    n = table.num_rows
    kept, weight = weighted_rows(table, design)
    d = len(design.gaussian)
    if (
        kernels.AVAILABLE
        and not bootstrap.n_replicates
        and d <= kernels.MAX_COLUMNS
        and len(kept) >= kernels.WORTHWHILE_ROWS
    ):
        return Gathered((n,), len(kept), float(weight.sum()), _bounded(_compiled_sums(kept, schema, weight)))
    block, weights = _weighted(table, kept, weight, piece, schema, bootstrap)
    sums = collect(block, weights, np.array(schema.shift), np.array(schema.scale))
    return Gathered((n,), kept.num_rows, float(weight.sum()), _bounded(sums))


def weighted_block(piece: Any, schema: Schema, bootstrap: Bootstrap) -> tuple[Block, NDArray[np.float64]]:
    """The rows of a piece as one block, and their (1 + replicates, n) weights."""
    table = read_rows(piece, schema.design, bootstrap.key)
    return _weighted(table, *weighted_rows(table, schema.design), piece, schema, bootstrap)


def _weighted(
    table: pa.Table,
    kept: pa.Table,
    weight: NDArray[np.float64],
    piece: Any,
    schema: Schema,
    bootstrap: Bootstrap,
) -> tuple[Block, NDArray[np.float64]]:
    block, order = encode_weighted(kept, schema, weight)
    weights = block.weight[None]
    if bootstrap.n_replicates:
        keys = row_keys(table, bootstrap.key, piece.origin)
        if schema.design.weight is not None:
            keys = keys[col.numeric(table, schema.design.weight) > 0]
        counts = bootstrap.counts(keys[order])
        weights = np.concatenate([weights, counts * block.weight])
    return block, weights


def _compiled_sums(table: pa.Table, schema: Schema, weight: NDArray[np.float64]) -> NormalSums:
    """The sums under the row weights alone, several times as fast."""
    design, base, columns = schema.design, 0.0, []
    for name in design.gaussian:
        own = col.cells(table, name) if design.untouched(name) else None
        if own is None:
            values, log_slope = numbers_on_scale(table, schema, name)
            if isinstance(log_slope, np.ndarray):
                base += float(np.nansum(log_slope * weight))
            own = kernels.Cells(np.ascontiguousarray(values), np.empty(0, np.uint8), 0)
        columns.append(own)
    shift, scale = np.array(schema.shift), np.array(schema.scale)
    observed, rows, sums, infinite = kernels.sums_by_pattern(columns, weight, shift, scale)
    for j in np.flatnonzero(infinite):
        numbers_on_scale(table, schema, design.gaussian[j])  # counts them and refuses
    base += float((observed @ np.log(1.0 / scale)) @ sums[:, 0])
    return NormalSums(observed, rows, sums[:, None, :], np.array([base]), shift, scale)


def provisional(design: Design, i: int, piece: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shift and scale of the gaussian columns in one piece: good enough to gather with, if the piece is like the others."""
    table, weight = weighted_rows(read_rows(piece, design), design)
    moments = [
        Moments.of(col.transformed(col.numeric(table, name), name, design.transform(name))[0], weight)
        for name in design.gaussian
    ]
    scale = [m.deviation if m.deviation > abs(m.mean) * 1e-15 else 1.0 for m in moments]
    return np.array([m.mean for m in moments]), np.array(scale)
