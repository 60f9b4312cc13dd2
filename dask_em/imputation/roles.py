"""Which column is what, told from its type: numbers, yes/no, ordered and unordered categories, and what is left alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from dask_em.data.columns import plain
from dask_em.data.schema import Level
from dask_em.data.sources import Source
from dask_em.errors import ColumnTypeError, DataError
from dask_em.execution.base import Executor


@dataclass(frozen=True)
class Roles:
    """Columns by role.

    Attributes
    ----------
    numbers, categories : names
    integers : the numbers whose type holds whole numbers only
    ordered : pairs (name, levels in order); yes/no columns are among them
    other : pairs (name, why it is left alone)
    """

    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    ordered: tuple[tuple[str, tuple[Level, ...]], ...] = ()
    other: tuple[tuple[str, str], ...] = ()


def roles_of(
    source: Source, columns: Sequence[str], ordered: Mapping[str, Sequence[Level]], executor: Executor
) -> Roles:
    """Roles by type; `ordered` names columns whose type does not say that they are ordered, with their levels.

    A piece in which a column is empty says nothing of its type, so further pieces are asked until all are known.
    """
    seen = _seen(source, columns, executor)
    for name in columns:
        if name not in seen:
            if not any(executor.map(source.pieces, partial(count_rows, name))):
                raise DataError("the table has no rows (0 sample(s)): give at least one row")
            raise DataError(f"column {name!r} has no observed cell: leave it out of the model")
    numbers, integers, categories, other, classes = [], [], [], [], dict(ordered)
    for name in columns:
        kind, levels = seen[name]
        if name in ordered:
            continue
        if isinstance(kind, str) or (pa.types.is_dictionary(kind) and not _are_levels(kind.value_type)):
            other.append((name, f"the model has no place for its type, {kind}"))
        elif pa.types.is_boolean(kind):
            classes[name] = (False, True)
        elif levels:
            classes[name] = levels
        elif pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            categories.append(name)
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            numbers.append(name)
            if pa.types.is_integer(kind):
                integers.append(name)
        else:
            other.append((name, f"the model has no place for its type, {kind}"))
    classes_in_order = tuple((name, tuple(classes[name])) for name in columns if name in classes)
    return Roles(tuple(numbers), tuple(categories), tuple(integers), classes_in_order, tuple(other))


def types_of(
    source: Source, columns: Sequence[str], integer: Collection[str], executor: Executor
) -> dict[str, pa.DataType]:
    """The types of columns, for parts of a table in which they are empty and have none of their own.

    Whole numbers are int64 where no part of the table says; others are then left to their values.
    """
    # A single part has nothing to learn from others.
    found = _seen(source, columns, executor) if len(source.pieces) > 1 else {}
    return dict.fromkeys(integer, pa.int64()) | {
        name: kind for name, (kind, _) in found.items() if isinstance(kind, pa.DataType)
    }


def _seen(
    source: Source, columns: Sequence[str], executor: Executor
) -> dict[str, tuple[pa.DataType | str, tuple[Level, ...]]]:
    """Type and ordered levels of each column, from the first piece in which it is not empty; of a type that cannot be read its name."""
    seen: dict[str, tuple[pa.DataType | str, tuple[Level, ...]]] = {}
    for piece in source.pieces:
        unknown = tuple(c for c in columns if c not in seen)
        if not unknown:
            break
        seen |= executor.map([piece], partial(_look, unknown))[0]
    return seen


def as_level(value: Any) -> Any:
    """A level as `category` reads it: whole floats, which is what integers with holes often are, as integers."""
    own = value.item() if isinstance(value, np.generic) else value
    return int(own) if isinstance(own, float) and own.is_integer() else own


def _are_levels(kind: pa.DataType) -> bool:
    """Whether values of this type can be the levels of a category."""
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(text or pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def count_rows(column: str, i: int, piece: Any) -> int:
    """Rows of a piece, one column of which is read."""
    return int(piece.read((column,)).num_rows)


def _look(columns: tuple[str, ...], i: int, piece: Any) -> dict[str, tuple[pa.DataType | str, tuple[Level, ...]]]:
    """Type, and levels where they are ordered, of the columns that are not empty here."""
    try:
        table = piece.read(columns)
    except ColumnTypeError as error:
        if error.column not in columns:
            raise
        rest = tuple(name for name in columns if name != error.column)
        return {error.column: (error.kind, ()), **_look(rest, i, piece)}
    out: dict[str, tuple[pa.DataType | str, tuple[Level, ...]]] = {}
    for name in columns:
        column = table.column(name)
        if column.null_count < len(column) and not pa.types.is_null(column.type):
            levels: tuple[Level, ...] = ()
            if pa.types.is_dictionary(column.type) and column.type.ordered:
                levels = tuple(map(as_level, column.chunk(0).dictionary.to_pylist()))
            kind = column.type if pa.types.is_dictionary(column.type) else plain(column).type
            out[name] = (pa.string() if pa.types.is_string_view(kind) else kind, levels)
    return out
