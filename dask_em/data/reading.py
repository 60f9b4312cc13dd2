"""The rows of a piece as a model sees them: without the cells of questions that were not asked, in one type a column.

Parts of a table may store a column differently, and a part without a cell of text stores nothing or NaN; parts that were read here can be put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dask_em.data.columns import category, numeric, plain
from dask_em.data.schema import Design
from dask_em.data.universe import asked


def read_rows(piece: Any, design: Design, extra: Sequence[str] = ()) -> pa.Table:
    """The columns of a design and some more, null where a question was not asked: numbers as float64, categories as `category` gives them."""
    table = without_unasked(piece.read(tuple(dict.fromkeys((*design.columns, *extra)))), design)
    own = []
    for name in table.column_names:
        if name in design.categories and name not in extra:
            own.append(category(table, name))
        elif name in design.measures and name not in extra and not pa.types.is_float64(table.column(name).type):
            own.append(pa.array(numeric(table, name), from_pandas=True))
        else:
            own.append(plain(table.column(name)))
    return pa.table(own, names=table.column_names)


def without_unasked(table: pa.Table, design: Design) -> pa.Table:
    """The table with nulls where the universe of a column says that it was not asked."""
    hidden = {}
    for name, condition in design.universe:
        own = plain(table.column(name))
        hidden[name] = pc.if_else(pa.array(asked(table, condition, name)), own, pa.scalar(None, own.type))
    for name, values in hidden.items():
        table = table.set_column(table.column_names.index(name), name, values)
    return table
