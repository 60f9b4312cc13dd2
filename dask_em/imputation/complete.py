"""Putting values into the holes of a table, and into nothing else.

Columns keep their types; cells that were observed, and columns without holes, are the very same. Both an Arrow table and a pandas frame can be
completed, as a detour would change types (categories, nullable integers, decimals, dates). A value beyond the range of its column's type (an int8, a decimal
of few digits) becomes the nearest one that the type can hold; a column without any cell, which has no type, gets that of its values.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dask_em.imputation.model import Cells

NO_TYPES: Mapping[str, pa.DataType] = MappingProxyType({})

MOST_DIGITS = 38
"""Of the decimals that Arrow and Parquet hold in 128 bits: the range of a column of Python's decimals."""


def complete_arrow(
    table: pa.Table, cells: Mapping[str, Cells], types: Mapping[str, pa.DataType] = NO_TYPES
) -> pa.Table:
    """The table with the holes of these columns filled.

    Parameters
    ----------
    types : of columns that may be without any cell here
    """
    for name, own in cells.items():
        mask, values = _known(own)
        if mask.any():
            index = table.column_names.index(name)
            field = table.schema.field(index)
            column = table.column(name).combine_chunks()
            column = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
            if not _holds(column.type, values):
                kind = types.get(name, pa.null())
                column = pa.nulls(len(column), kind if _holds(kind, values) else _type_of(values))
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
            filled = _filled(frame.iloc[:, positions[name]], mask, values)
            # As a series of its type: pandas would infer another for an array of objects.
            out.isetitem(positions[name], pd.Series(filled, index=out.index, dtype=filled.dtype))
    return out


def _known(own: Cells) -> Cells:
    """Without the cells for which nothing can be said (successes out of an unknown number of trials)."""
    if own.values.dtype.kind != "f" or not np.isnan(own.values).any():
        return own
    known = ~np.isnan(own.values)
    mask = own.mask.copy()
    mask[own.mask] = known
    return Cells(mask, own.values[known])


def _holds(kind: pa.DataType, values: NDArray[Any]) -> bool:
    """Whether a type has room for such values: that of a column without any cell need not."""
    own = kind.value_type if pa.types.is_dictionary(kind) else kind
    number = pa.types.is_integer(own) or pa.types.is_floating(own)
    if values.dtype.kind == "f":
        return number or pa.types.is_decimal(own) or pa.types.is_boolean(own)
    if isinstance(values[0], bool):
        return bool(pa.types.is_boolean(own))
    if isinstance(values[0], int):
        return bool(number)
    return bool(pa.types.is_string(own) or pa.types.is_large_string(own) or pa.types.is_string_view(own))


def _type_of(values: NDArray[Any]) -> pa.DataType:
    """The type of a column of which nothing else is known."""
    return pa.float64() if values.dtype.kind == "f" else pa.infer_type(values.tolist())


# pandas


def _filled(column: pd.Series, mask: NDArray[np.bool_], values: NDArray[Any]) -> Any:
    dtype: Any = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        dense = np.array(column.array)
        dense[mask] = values
        return pd.arrays.SparseArray(dense, dtype=dtype)
    array: Any = column.array.copy() if pd.api.types.is_extension_array_dtype(dtype) else column.to_numpy().copy()
    if isinstance(dtype, pd.CategoricalDtype):
        new = [level for level in dict.fromkeys(values.tolist()) if level not in dtype.categories]
        array = array.add_categories(new) if new else array
    try:
        array[mask] = _of_objects(column, values) if dtype == np.dtype(object) else _typed(values, dtype)
    except NotImplementedError:  # Arrow's views are read, not written
        cells = np.array(pa.array(column.array).to_pylist(), dtype=object)
        cells[mask] = values
        return pd.array(cells, dtype=dtype)
    except (TypeError, ValueError):
        if column.notna().any():
            raise
        array = np.full(len(column), None, dtype=object)
        array[mask] = values
    return array


def _typed(values: NDArray[Any], dtype: Any) -> Any:
    if values.dtype.kind == "f":
        arrow = getattr(dtype, "pyarrow_dtype", None)
        if arrow is not None and pa.types.is_decimal(arrow):
            return pd.array(_decimals(values, arrow.precision, arrow.scale), dtype=dtype)
        return _within(values, np.dtype(getattr(dtype, "numpy_dtype", dtype)))
    return pd.array(values.tolist(), dtype=dtype) if not isinstance(dtype, (np.dtype, pd.CategoricalDtype)) else values


def _of_objects(column: pd.Series, values: NDArray[Any]) -> Any:
    """Values of the kind that the observed cells of a column of objects are."""
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if values.dtype.kind == "f" and kind in ("decimal", "integer"):
        seen = pa.array(column, from_pandas=True).type
        own = _decimals(values, MOST_DIGITS, seen.scale) if kind == "decimal" else np.rint(values).astype(object)
        return np.array([int(v) for v in own] if kind == "integer" else own, dtype=object)
    return values


# Arrow


def _replaced(column: pa.Array, mask: NDArray[np.bool_], values: NDArray[Any]) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return _replaced_levels(column, mask, values)
    return pc.replace_with_mask(column, pa.array(mask), _array(values, column.type))


def _replaced_levels(column: pa.DictionaryArray, mask: NDArray[np.bool_], values: NDArray[Any]) -> pa.Array:
    """A dictionary column keeps its dictionary; levels that it does not have yet come last."""
    dictionary = column.dictionary
    wanted = _array(values, dictionary.type)
    new = pc.unique(wanted)
    new = new.filter(pc.invert(pc.is_in(new, value_set=dictionary)))
    if len(new):
        dictionary = pa.concat_arrays([dictionary, new])
    codes = pc.cast(pc.index_in(wanted, value_set=dictionary), column.type.index_type)
    indices = pc.replace_with_mask(column.indices, pa.array(mask), codes)
    return pa.DictionaryArray.from_arrays(indices, dictionary, ordered=column.type.ordered)


def _array(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    if values.dtype.kind != "f":
        return pa.array(values.tolist(), kind)
    if pa.types.is_decimal(kind):
        return pa.array(_decimals(values, kind.precision, kind.scale), kind)
    return pa.array(_within(values, np.dtype(kind.to_pandas_dtype())), kind)


# Ranges


def _within(values: NDArray[np.float64], kind: np.dtype[Any]) -> NDArray[Any]:
    """Numbers of this type, the nearest ones that it has."""
    if kind.kind == "f":
        limits = np.finfo(kind)
        return np.clip(values, float(limits.min), float(limits.max)).astype(kind)
    if kind.kind not in "iu":
        return values >= 0.5 if kind.kind == "b" else values
    whole = np.iinfo(kind)
    # 2^63 - 1 is no float64: the largest one below is.
    top = float(whole.max) if int(float(whole.max)) == whole.max else np.nextafter(float(whole.max), 0.0)
    return np.clip(np.rint(values), float(whole.min), top).astype(kind)


def _decimals(values: NDArray[np.float64], digits: int, scale: int) -> list[Decimal]:
    """Rounded to the column's number of digits after the point, and of no more digits than it has room for."""
    with decimal.localcontext(prec=400):
        unit = Decimal(1).scaleb(-scale)
        most = (Decimal(10) ** digits - 1) * unit
        return [min(max(Decimal(v).quantize(unit), -most), most) for v in values.tolist()]
