"""Putting values into the holes of a table, and into nothing else.

Columns keep their types; cells that were observed, and columns without holes, are the very same. Both an Arrow table and a pandas frame can be
completed, as a detour would change types (categories, nullable integers, decimals, dates).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dask_em.imputation.model import Cells


def complete_arrow(table: pa.Table, cells: Mapping[str, Cells]) -> pa.Table:
    """The table with the holes of these columns filled."""
    for name, own in cells.items():
        mask, values = _known(own)
        if mask.any():
            index = table.column_names.index(name)
            field = table.schema.field(index)
            column = table.column(name).combine_chunks()
            column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
            filled = _replaced(column, mask, values)
            table = table.set_column(index, field.with_type(filled.type), filled)
    return table


def complete_pandas(frame: pd.DataFrame, cells: Mapping[str, Cells]) -> pd.DataFrame:
    """The same for a frame: a new one, with the old one's index and types."""
    out = frame.copy()
    positions = {str(c): i for i, c in enumerate(frame.columns)}
    for name, own in cells.items():
        mask, values = _known(own)
        if mask.any():
            column = frame.iloc[:, positions[name]]
            array = (
                column.array.copy() if pd.api.types.is_extension_array_dtype(column.dtype) else column.to_numpy().copy()
            )
            array[mask] = _typed(values, column.dtype)
            out.isetitem(positions[name], array)
    return out


def _known(own: Cells) -> Cells:
    """Without the cells for which nothing can be said (successes out of an unknown number of trials)."""
    if own.values.dtype.kind != "f" or not np.isnan(own.values).any():
        return own
    known = ~np.isnan(own.values)
    mask = own.mask.copy()
    mask[own.mask] = known
    return Cells(mask, own.values[known])


def _typed(values: NDArray[Any], dtype: Any) -> Any:
    if values.dtype.kind == "f":
        arrow = getattr(dtype, "pyarrow_dtype", None)
        if pd.api.types.is_integer_dtype(dtype):
            return np.rint(values).astype(np.int64)
        if arrow is not None and pa.types.is_decimal(arrow):
            return pd.array(_decimals(values, arrow), dtype=dtype)
        if dtype == np.float32 or str(dtype) == "Float32":
            return values.astype(np.float32)
        return values
    return pd.array(values.tolist(), dtype=dtype) if not isinstance(dtype, (np.dtype, pd.CategoricalDtype)) else values


def _replaced(column: pa.Array, mask: NDArray[np.bool_], values: NDArray[Any]) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _replaced_levels(column, mask, values)
    if values.dtype.kind != "f":
        new = pa.array(values.tolist(), kind)
    elif pa.types.is_integer(kind):
        new = pa.array(np.rint(values)).cast(pa.int64()).cast(kind)
    elif pa.types.is_decimal(kind):
        new = _decimals(values, kind)
    else:
        new = pa.array(values).cast(kind, safe=False)
    return pc.replace_with_mask(column, pa.array(mask), new)


def _decimals(values: NDArray[np.float64], kind: pa.DataType) -> pa.Array:
    """Rounded to the column's number of digits."""
    return pc.cast(pa.array([f"{v:.{kind.scale}f}" for v in values.tolist()]), kind)


def _replaced_levels(column: pa.DictionaryArray, mask: NDArray[np.bool_], values: NDArray[Any]) -> pa.Array:
    """A dictionary column keeps its dictionary; levels that it does not have yet come last."""
    dictionary = column.dictionary
    wanted = pa.array(values.tolist(), dictionary.type)
    new = pc.unique(wanted)
    new = new.filter(pc.invert(pc.is_in(new, value_set=dictionary)))
    if len(new):
        dictionary = pa.concat_arrays([dictionary, new])
    codes = pc.cast(pc.index_in(wanted, value_set=dictionary), column.type.index_type)
    indices = pc.replace_with_mask(column.indices, pa.array(mask), codes)
    return pa.DictionaryArray.from_arrays(indices, dictionary, ordered=column.type.ordered)
