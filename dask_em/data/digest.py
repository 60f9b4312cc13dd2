"""Digests that show whether cells are bit for bit what they were.

The digest of a column is the sum, modulo 2^64, of a word for each cell mixed from its bits, its row's place and whether it is null: it adds up over any cut
of the rows, and a swapped, changed or nulled cell changes it. A NaN and a null differ; so do two NaNs of different bits.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dask_em.data.columns import plain
from dask_em.randomness import Words, mix

_NULL = np.uint64(0x6E756C6C)


def column_digest(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> int:
    """The digest of a column's cells at these rows."""
    words = mix(rows.astype(np.uint64), cell_bits(plain(column))[rows])
    return int(np.add.reduce(words, dtype=np.uint64))


def cell_bits(array: pa.Array) -> Words:
    """(n,) a word for each cell: its bits where they are at most 64, a hash of them otherwise."""
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), _NULL)
    if pa.types.is_boolean(kind):
        words = pc.cast(array.fill_null(False), pa.uint8()).to_numpy(zero_copy_only=False).astype(np.uint64)
    elif pa.types.is_decimal(kind) or _width(kind) in (16, 32):
        raw = (
            np.frombuffer(array.buffers()[1], dtype=np.uint64)
            if array.buffers()[1] is not None
            else np.empty(0, np.uint64)
        )
        many = _width(kind) // 8
        own = raw[array.offset * many : (array.offset + len(array)) * many].reshape(-1, many)
        words = mix(np.zeros(len(array), dtype=np.uint64), *np.ascontiguousarray(own.T))
    elif _width(kind) in (1, 2, 4, 8):
        unsigned = {1: pa.uint8(), 2: pa.uint16(), 4: pa.uint32(), 8: pa.uint64()}[_width(kind)]
        view = array.view(unsigned)
        words = (view.fill_null(0) if view.null_count else view).to_numpy(zero_copy_only=False).astype(np.uint64)
    else:
        values = array.to_numpy(zero_copy_only=False)
        text = (
            values
            if pa.types.is_string(kind) or pa.types.is_large_string(kind)
            else np.array([repr(v) for v in values], object)
        )
        text = np.where(pd.isna(text), "", text).astype(object)
        words = pd.util.hash_array(text, categorize=False)
    if array.null_count:
        words = np.where(array.is_null().to_numpy(zero_copy_only=False), _NULL, mix(words, 1))
    else:
        words = mix(words, 1)
    return words


def _width(kind: pa.DataType) -> int:
    """Bytes of a cell of fixed width, 0 for others."""
    try:
        return kind.bit_width // 8
    except ValueError:
        return 0
