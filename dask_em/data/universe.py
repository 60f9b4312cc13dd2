"""Who was asked: a condition on a row, such as "age >= 20 and sex == 'F'".

A small language, read with Python's own parser and evaluated by Arrow: comparisons of columns and constants, `in` a list, and, or, not, and brackets. Nothing
else is understood, so a condition can run no code. Where the condition cannot be told, because a cell that it needs is missing, the question counts as not asked.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import dataset

from dask_em.data.columns import plain
from dask_em.errors import ConfigurationError, DataError

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


_UNKNOWN = pc.scalar(pa.scalar(None, pa.bool_()))
"""What is said of a row whose answer nobody knows."""

_UNDERSTOOD = (
    ast.Expression,
    ast.BoolOp,
    ast.boolop,
    ast.UnaryOp,
    ast.unaryop,
    ast.Compare,
    ast.cmpop,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.List,
    ast.Tuple,
)


def columns_of(condition: str) -> tuple[str, ...]:
    """The columns that a condition looks at."""
    nodes = list(ast.walk(_parse(condition)))
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    if not names or not all(isinstance(node, _UNDERSTOOD) for node in nodes):
        raise _misunderstood(condition)
    return tuple(dict.fromkeys(names))


def asked(table: pa.Table, condition: str, column: str) -> NDArray[np.bool_]:
    """(n,) which rows of a table were asked for a column."""
    own = pa.table({name: _nulls(plain(table.column(name))) for name in columns_of(condition)})
    try:
        expression = _Reader(condition, own.schema).expression(_parse(condition).body)
        scanner = dataset.Scanner.from_batches(own.to_batches(), schema=own.schema, columns={"asked": expression})
        mask = scanner.to_table().column("asked")
    except (pa.ArrowException, OverflowError, TypeError):
        raise _other_type(column) from None
    except RecursionError:
        raise _misunderstood(condition) from None
    if not pa.types.is_boolean(mask.type):
        raise _other_type(column)
    return pc.fill_null(mask, False).to_numpy().astype(bool)


def _nulls(array: pa.Array) -> pa.Array:
    """NaN is a missing cell, too."""
    if not pa.types.is_floating(array.type):
        return array
    return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)


def _parse(condition: str) -> ast.Expression:
    text = condition.strip().replace("\n", " ")
    try:
        parsed = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _misunderstood(condition) from None
    for node in ast.walk(parsed):
        if isinstance(node, ast.Name):  # as it is written: Python takes some letters, as of µg, for others
            node.id = ast.get_source_segment(text, node) or node.id
    return parsed


def _misunderstood(condition: str) -> ConfigurationError:
    shown = condition if len(condition) < 80 else condition[:77] + "..."
    return ConfigurationError(
        f"the universe {shown!r} is not understood: compare columns with constants, joined by and, or, not, as in age >= 20"
    )


def _other_type(column: str) -> DataError:
    return DataError(
        f"the universe of {column!r} compares a column with a constant of another type: write the constant as the column has it"
    )


@dataclass(frozen=True)
class _Reader:
    """Turns a parsed condition on columns of known types into an expression of Arrow's."""

    condition: str
    schema: pa.Schema

    def expression(self, node: ast.expr) -> pc.Expression:
        if isinstance(node, ast.BoolOp):
            parts = [self.expression(value) for value in node.values]
            return reduce(operator.and_ if isinstance(node.op, ast.And) else operator.or_, parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.expression(node.operand)
        if isinstance(node, ast.Name):
            return _UNKNOWN if self._empty(node) else pc.field(node.id)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            return reduce(operator.and_, map(self._compared, sides, node.ops, sides[1:]))
        raise _misunderstood(self.condition)

    def _empty(self, node: ast.expr) -> bool:
        """Whether this is a column of which these rows have no cell, and so no type."""
        return isinstance(node, ast.Name) and pa.types.is_null(self.schema.field(node.id).type)

    def _compared(self, left: ast.expr, how: ast.cmpop, right: ast.expr) -> pc.Expression:
        if isinstance(how, (ast.In, ast.NotIn)):
            if not isinstance(left, ast.Name) or not isinstance(right, (ast.List, ast.Tuple)):
                raise _misunderstood(self.condition)
            constants = pa.array([self._constant(item) for item in right.elts])
            if self._empty(left):
                return _UNKNOWN
            if _kind(constants.type) != _kind(self.schema.field(left.id).type):
                raise TypeError
            own = pc.field(left.id)
            found = own.isin(constants)
            # Arrow says of a missing cell that it is not in the list; nobody knows.
            known = pc.if_else(own.is_valid(), found, _UNKNOWN)
            return ~known if isinstance(how, ast.NotIn) else known
        if type(how) not in _COMPARE:
            raise _misunderstood(self.condition)
        terms = self._term(left), self._term(right)
        return _UNKNOWN if self._empty(left) or self._empty(right) else _COMPARE[type(how)](*terms)

    def _term(self, node: ast.expr) -> Any:
        return pc.field(node.id) if isinstance(node, ast.Name) else pc.scalar(self._constant(node))

    def _constant(self, node: ast.expr) -> Any:
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError):
            raise _misunderstood(self.condition) from None
        if not isinstance(value, (str, int, float, bool)):
            raise _misunderstood(self.condition)
        return value


def _kind(kind: pa.DataType) -> str:
    """Types that may be compared have the same kind."""
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    return (
        "text"
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        else str(kind)
    )
