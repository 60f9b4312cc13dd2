"""One Arrow column to one NumPy array, the same way in the profile, the fit and the scoring.

Numbers become float64 with NaN where missing (null or NaN); categories become their plain values. What a column cannot be is
refused by name, without showing a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from dask_em.errors import DataError
from dask_em.kernels import Cells

TRANSFORMS = ("log", "log1p", "asinh")

WEIGHT, LABELS, HASH = "#weight", "#labels", "#hash"
"""Columns that are put beside those of the table: row weights and starting labels given as vectors, and the hashes of a sample."""


def plain(column: pa.ChunkedArray) -> pa.Array:
    """One contiguous array, dictionaries decoded and text in the one type that every function takes."""
    if pa.types.is_dictionary(column.type) and not isinstance(column.type.value_type, pa.BaseExtensionType):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    if isinstance(column, pa.ChunkedArray) and column.num_chunks == 1:
        return column.chunk(0)  # as it is: combine_chunks would copy it
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def missing_cells(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """(n,) which cells are null or NaN."""
    return column.is_null(nan_is_null=pa.types.is_floating(column.type)).to_numpy().astype(bool)


def numeric(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A numeric column as float64, NaN where missing.

    Raises
    ------
    DataError
        The column is not numeric or holds an infinity.
    """
    array = plain(table.column(name))
    kind = array.type
    if array.null_count == len(array):
        # What nobody filled in has the type of whatever wrote it.
        return np.full(len(array), np.nan)
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        raise DataError(
            f"{_called(name)} is not numeric (its type is {kind}): convert it to numbers or use it as a category"
        )
    if not pa.types.is_float64(kind):
        array = pc.cast(array, pa.float64(), safe=False)
    values = array.to_numpy(zero_copy_only=False) if array.null_count == 0 else _with_nan(array)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise DataError(f"{_called(name)} holds {infinite} infinite value(s): make them missing or finite")
    return values


def cells(table: pa.Table, name: str) -> Cells | None:
    """A column of float64 as it stands in memory; None where it has to be converted. An infinity is not refused here."""
    array = plain(table.column(name))
    if not pa.types.is_float64(array.type):
        return None
    valid, values = array.buffers()
    bits = np.empty(0, np.uint8) if valid is None or not array.null_count else np.frombuffer(valid, np.uint8)
    return Cells(np.frombuffer(values, np.float64, array.offset + len(array)), bits, array.offset)


def _called(name: str) -> str:
    """What messages call a column: weights given beside the table by their argument."""
    return "sample_weight" if name == WEIGHT else f"column {name!r}"


def _with_nan(array: pa.Array) -> NDArray[np.float64]:
    return pc.fill_null(array, float("nan")).to_numpy(zero_copy_only=False)


def count(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column of counts: whole numbers that are not negative, NaN where missing."""
    values = numeric(table, name)
    with np.errstate(invalid="ignore"):
        if (values < 0).any():
            raise DataError(f"column {name!r} holds negative counts: counts start at 0, so correct or drop those rows")
        if (values != np.floor(values))[~np.isnan(values)].any():
            raise DataError(f"column {name!r} holds fractional counts: use it as a gaussian column, or round it")
    return values


def within(values: NDArray[np.float64], name: str, bounds: tuple[float, float] | None) -> NDArray[np.float64]:
    """The values, refused where one breaks the bounds of its column."""
    if bounds is not None:
        with np.errstate(invalid="ignore"):
            broken = int(((values < bounds[0]) | (values > bounds[1])).sum())
        if broken:
            raise DataError(
                f"column {name!r} holds {broken} value(s) outside its bounds: widen the bounds or correct them"
            )
    return values


def transformed(values: NDArray[np.float64], name: str, how: str | None) -> tuple[NDArray[np.float64], Any]:
    """Apply a transform; returns the values and the log of its derivative (0 where there is no transform)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if how is None:
            return values, 0.0
        if how == "log":
            if (values <= 0).any():
                raise DataError(f"column {name!r} holds values of 0 or less, which have no log: use log1p or asinh")
            out = np.log(values)
            return out, -out
        if how == "log1p":
            if (values <= -1).any():
                raise DataError(f"column {name!r} holds values of -1 or less, which have no log1p: use asinh")
            out = np.log1p(values)
            return out, -out
        return np.arcsinh(values), -0.5 * np.log1p(values * values)


def undo(values: NDArray[np.float64], how: str | None) -> NDArray[np.float64]:
    """The inverse of `transformed`."""
    inverse = {"log": np.exp, "log1p": np.expm1, "asinh": np.sinh}
    return values if how is None else inverse[how](values)


def category(table: pa.Table, name: str) -> pa.Array:
    """A column of categories as text, booleans or 64-bit integers, null where missing; of the null type where all are missing.

    Raises
    ------
    DataError
        The column is of another type, or holds numbers that are not integers.
    """
    array = plain(table.column(name))
    kind = array.type
    if pa.types.is_floating(kind):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, kind), array)
    if array.null_count == len(array):
        return pa.nulls(len(array))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.cast(array, pa.large_string())
    if pa.types.is_boolean(kind):
        return array
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"column {name!r} cannot be a category (its type is {kind}): convert it to text or integers")
    try:
        # Integers with holes arrive as floats from pandas.
        return pc.cast(array, pa.int64())
    except pa.ArrowInvalid:
        raise DataError(
            f"column {name!r} holds integers larger than 64 bits with a sign hold: convert it to text"
            if pa.types.is_integer(kind)
            else f"column {name!r} holds fractional or very large numbers, which are not categories: cut it into classes, "
            "or use it as a gaussian column"
        ) from None


def unseen_level(name: str, cells: int) -> DataError:
    """What is said of new rows with levels that nobody had."""
    return DataError(
        f"column {name!r} holds {cells} cell(s) with a level that the fitted table did not have: "
        "make them missing, or fit again on a table that has the level"
    )


def other_type(name: str, kind: pa.DataType) -> DataError:
    """What is said of new rows whose categories cannot be compared with the fitted ones."""
    return DataError(f"column {name!r} has the type {kind}, which is not what the model was fitted on: convert it")


def row_hash(columns: list[NDArray[np.uint64]], n: int) -> NDArray[np.uint64]:
    """Mix 64-bit words column by column into one hash a row (the finaliser of splitmix64, Steele et al. 2014)."""
    h = np.full(n, 0x9E3779B97F4A7C15, dtype=np.uint64)
    for words in columns:
        h ^= words
        h *= np.uint64(0xBF58476D1CE4E5B9)
        h ^= h >> np.uint64(30)
        h *= np.uint64(0x94D049BB133111EB)
        h ^= h >> np.uint64(27)
    return h


def words(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """The bits of float64 values, with one zero and one NaN."""
    clean = values + 0.0
    clean[np.isnan(clean)] = np.nan
    return clean.view(np.uint64)


def normal_scores(cuts: Sequence[float]) -> NDArray[np.float64]:
    """The mean of a standard normal within each class: what an ordered category counts as (van der Waerden's scores by class)."""
    edges = np.array([-np.inf, *cuts, np.inf])
    density = np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi)
    return (density[:-1] - density[1:]) / np.diff(ndtr(edges))


def cut_points(weights: Sequence[float]) -> tuple[float, ...]:
    """Where a standard normal is cut into classes of these weights."""
    shares = np.cumsum(weights)[:-1] / np.sum(weights)
    return tuple(ndtri(shares).tolist())
