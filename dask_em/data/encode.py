"""Arrow rows to blocks: the values that families take, standardised and sorted by missingness pattern.

The row's base measure collects what does not depend on the component, so that log densities are in the user's units: the
Jacobian of standardising and of transforms, -log y! of counts, and binomial coefficients.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import gammaln

from dask_em.data import columns as col
from dask_em.data.profile import binomial, pattern_groups, weighted_rows
from dask_em.data.schema import Design, Level, Schema
from dask_em.scan import Block


def encode_fit(
    table: pa.Table,
    schema: Schema,
    patterns: NDArray[np.bool_] | None,
    n_blocks: int,
    expected: bool,
    counts: NDArray[Any] | None = None,
    single: bool = False,
) -> list[Block]:
    """Encode rows for a fit into `n_blocks` nearly equal blocks.

    Rows of weight 0 are left out, and rows in which nothing is observed get weight 0: they have nothing to tell, unless missing
    successes are `expected`. `counts` (m, n) say how often each row counts in each bootstrap replicate. `single` keeps gaussian columns in
    single precision.
    """
    design = schema.design
    if counts is not None and design.weight is not None:
        counts = counts[:, col.numeric(table, design.weight) > 0]
    table, weight = weighted_rows(table, design)
    values, base, seen = _values(table, schema, np.float32 if single else np.float64)
    if not expected:
        weight = weight * seen.any(axis=0)
    labels = None
    if design.labels is not None:
        labels = col.numeric(table, design.labels).astype(np.int64)
    edges = np.linspace(0, table.num_rows, n_blocks + 1).astype(np.int64).tolist()
    blocks = []
    for a, b in itertools.pairwise(edges):
        own = None if labels is None else labels[a:b]
        block, order = _block([v[:, a:b] for v in values], weight[a:b], base[a:b], seen[:, a:b], schema, patterns, own)
        blocks.append(block if counts is None else replace(block, replicates=counts[:, a:b][:, order]))
    return blocks


def row_bytes(design: Design, n_replicates: int = 0, single: bool = False) -> int:
    """Bytes of an encoded row: its values, weight and base measure, label, and how often it counts in each replicate."""
    numbers = (4 if single else 8) * len(design.gaussian) + 8 * (len(design.poisson) + 2 * len(design.binomial))
    return numbers + 2 * len(design.categorical) + 16 + 8 * (design.labels is not None) + n_replicates


def encode_rows(table: pa.Table, schema: Schema) -> tuple[Block, NDArray[np.int64]]:
    """Encode every row for scoring; returns the block and where each of its rows stood in the table."""
    values, base, seen = _values(table, schema)
    return _block(values, np.ones(table.num_rows), base, seen, schema, None, None)


def encode_weighted(table: pa.Table, schema: Schema, weight: NDArray[np.float64]) -> tuple[Block, NDArray[np.int64]]:
    """Encode rows with their weights for one pass, by the patterns that they have; returns the block and the order of its rows."""
    values, base, seen = _values(table, schema)
    return _block(values, weight, base, seen, schema, None, None)


def encode_sample(sample: pa.Table, schema: Schema) -> Block:
    """Encode the profile's sample, with its summed weights."""
    values, base, seen = _values(sample, schema)
    weight = sample.column("#weight").to_numpy() * seen.any(axis=0)
    return _block(values, weight, base, seen, schema, None, None)[0]


def _block(
    values: list[NDArray[Any]],
    weight: NDArray[np.float64],
    base: NDArray[np.float64],
    seen: NDArray[np.bool_],
    schema: Schema,
    patterns: NDArray[np.bool_] | None,
    labels: NDArray[np.int64] | None,
) -> tuple[Block, NDArray[np.int64]]:
    design, n = schema.design, len(weight)
    if not design.gaussian or not design.pattern:
        observed = np.ones((1, len(design.gaussian)), dtype=bool)
        arrays = tuple(np.ascontiguousarray(v) for v in values)
        runs = np.array([0, n])
        return Block(arrays, weight, base, observed, runs, None if labels is None else labels[None]), np.arange(n)
    own, which = pattern_groups(seen[: len(design.gaussian)])
    observed = own if patterns is None else patterns
    if patterns is not None:
        index = {row.tobytes(): i for i, row in enumerate(patterns)}
        which = np.array([index[row.tobytes()] for row in own], dtype=np.int64)[which] if n else which
    runs = np.concatenate([[0], np.cumsum(np.bincount(which, minlength=len(observed)))]).astype(np.int64)
    if len(observed) == 1 or (np.diff(which) >= 0).all():
        order = np.arange(n)
        arrays = tuple(np.ascontiguousarray(v) for v in values)
    else:
        # Small integers are sorted by their digits, which is many times faster than by comparing.
        order = np.argsort(which.astype(np.uint16) if len(observed) < 1 << 16 else which, kind="stable")
        arrays = tuple(np.take(v, order, axis=1) for v in values)
        weight, base = weight[order], base[order]
        labels = None if labels is None else labels[order]
    return Block(arrays, weight, base, observed, runs, None if labels is None else labels[None]), order


def _values(
    table: pa.Table, schema: Schema, kind: type[np.floating] = np.float64
) -> tuple[list[NDArray[Any]], NDArray[np.float64], NDArray[np.bool_]]:
    """Encoded values of each family in the order of the design, the base measure, and which features are observed."""
    design, n = schema.design, table.num_rows
    base = np.zeros(n)
    parts = (design.gaussian, design.categorical, design.poisson, design.binomial)
    seen = np.ones((sum(map(len, parts)), n), dtype=bool)
    out: list[NDArray[Any]] = []
    row = 0
    if design.gaussian:
        values = np.empty((len(design.gaussian), n), dtype=kind)
        for i, name in enumerate(design.gaussian):
            own, log_slope = numbers_on_scale(table, schema, name)
            centred = np.subtract(own, schema.shift[i])
            np.divide(centred, schema.scale[i], out=values[i], casting="same_kind")
            np.logical_not(np.isnan(own), out=seen[i])
            jacobian = log_slope - np.log(schema.scale[i])
            base += jacobian if seen[i].all() else np.where(seen[i], jacobian, 0.0)
            if design.pattern and not seen[i].all():
                values[i][~seen[i]] = 0.0
        out.append(values)
        row += len(values)
    if design.categorical:
        codes = np.stack(
            [codes_of(table, name, levels, design.unseen) for name, levels in zip(design.categorical, schema.levels)]
        )
        seen[row : row + len(codes)] = codes >= 0
        out.append(codes)
        row += len(codes)
    if design.poisson:
        counts = np.stack([col.count(table, name) for name in design.poisson])
        seen[row : row + len(counts)] = ~np.isnan(counts)
        base -= np.nansum(gammaln(counts + 1), axis=0)
        out.append(counts)
        row += len(counts)
    if design.binomial:
        pairs = [binomial(table, name, trials) for name, trials in design.binomial]
        successes, trials = (np.stack(side) for side in zip(*pairs))
        seen[row:] = ~np.isnan(successes) & ~np.isnan(trials)
        log_choose = gammaln(trials + 1) - gammaln(successes + 1) - gammaln(trials - successes + 1)
        base += np.nansum(log_choose, axis=0)
        out.append(np.concatenate([successes, trials]))
    return out, base, seen


def numbers_on_scale(table: pa.Table, schema: Schema, name: str) -> tuple[NDArray[np.float64], Any]:
    """A gaussian column on the scale of the model, and the log of the slope of its transform."""
    design = schema.design
    levels = design.levels(name)
    if levels is not None:
        codes = codes_of(table, name, levels, design.unseen)
        # A code of -1, missing, takes the last entry.
        return np.append(col.normal_scores(dict(schema.cuts)[name]), np.nan)[codes], 0.0
    values = col.within(col.numeric(table, name), name, dict(design.bounds).get(name))
    return col.transformed(values, name, design.transform(name))


def codes_of(table: pa.Table, name: str, levels: tuple[Level, ...], unseen: str) -> NDArray[np.int16]:
    """The place of each cell of a category among its levels, -1 where it is missing."""
    array = col.category(table, name)
    if pa.types.is_null(array.type):
        return np.full(len(array), -1, dtype=np.int16)
    known = pa.array(levels, type=array.type) if _same_kind(array.type, levels[0]) else None
    if known is None:
        raise col.other_type(name, array.type)
    codes = pc.index_in(array, value_set=known)
    if codes.null_count > array.null_count and unseen == "error":
        raise col.unseen_level(name, codes.null_count - array.null_count)
    return pc.fill_null(codes, -1).to_numpy(zero_copy_only=False).astype(np.int16)


def _same_kind(kind: pa.DataType, level: Level) -> bool:
    if isinstance(level, bool):
        return pa.types.is_boolean(kind)
    if isinstance(level, int):
        return pa.types.is_integer(kind)
    return pa.types.is_large_string(kind)
