"""The rows of a piece as a model sees them: without the cells of questions that were not asked, in one type a column.

Parts of a table may store a column differently, and a part without a cell of text stores nothing or NaN; parts that were read here can be put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dask_em.data.columns import category, numeric, other_type, plain, unseen_level
from dask_em.data.pins import Marks, read_marked
from dask_em.data.schema import Design, Level, indicator
from dask_em.data.universe import asked


def read_rows(piece: Any, design: Design, extra: Sequence[str] = ()) -> pa.Table:
    """The columns of a design and some more, null where a question was not asked: numbers as float64, categories as `category` gives them."""
    return _as_rows(piece.read(_columns(design, extra)), design, extra)


def read_marked_rows(piece: Any, design: Design, extra: Sequence[str] = ()) -> tuple[pa.Table, Marks]:
    """The same, and marks of what was read."""
    table, marks = read_marked(piece, _columns(design, extra))
    return _as_rows(table, design, extra), marks


def _columns(design: Design, extra: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*design.columns, *extra)))


def _as_rows(table: pa.Table, design: Design, extra: Sequence[str]) -> pa.Table:
    table = prepared(table, design)
    own = []
    for name in table.column_names:
        if name in design.categories and name not in extra:
            own.append(category(table, name))
        elif name in design.measures and name not in extra and not pa.types.is_float64(table.column(name).type):
            own.append(pa.array(numeric(table, name), from_pandas=True))
        else:
            own.append(plain(table.column(name)))
    return pa.table(own, names=table.column_names)


def prepared(table: pa.Table, design: Design) -> pa.Table:
    """The table with nulls where a column was not asked, and with 0/1 columns for the levels of categories that predict."""
    hidden = {}
    for name, condition in design.universe:
        own = plain(table.column(name))
        hidden[name] = pc.if_else(pa.array(asked(table, condition, name)), own, pa.scalar(None, own.type))
    for name, values in hidden.items():
        table = table.set_column(table.column_names.index(name), name, values)
    for name, levels in design.indicators:
        own = category(table, name)
        empty = pa.types.is_null(own.type)
        known = own if empty else _known(own, levels, name, design.unseen)
        for level in levels[1:]:
            flags = known if empty else pc.equal(known, pa.scalar(level, known.type))
            flags = pc.cast(flags, pa.float64())
            table = table.append_column(indicator(name, level), flags)
    return table


def _known(cells: pa.Array, levels: Sequence[Level], name: str, unseen: str) -> pa.Array:
    """The cells of a category, null where the level is none of these."""
    try:
        values = pa.array(levels, cells.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        raise other_type(name, cells.type) from None
    found = pc.is_in(cells, value_set=values)
    strange = len(cells) - cells.null_count - pc.sum(found, min_count=0).as_py()
    if strange and unseen == "error":
        raise unseen_level(name, strange)
    return pc.if_else(found, cells, pa.scalar(None, cells.type))
