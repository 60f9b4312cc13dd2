"""Who was asked: a condition on a row, such as "age >= 20 and sex == 'F'".

A small language, read with Python's own parser and evaluated by Arrow: comparisons of columns and constants, `in` a list, and, or, not, and brackets. Nothing
else is understood, so a condition can run no code. Where the condition cannot be told, because a cell that it needs is missing, the question counts as not asked.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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


def columns_of(condition: str) -> tuple[str, ...]:
    """The columns that a condition looks at."""
    names = [node.id for node in ast.walk(_parse(condition)) if isinstance(node, ast.Name)]
    if not names:
        raise _misunderstood(condition)
    return tuple(dict.fromkeys(names))


def asked(table: pa.Table, condition: str, column: str) -> NDArray[np.bool_]:
    """(n,) which rows of a table were asked for a column."""
    expression = _expression(_parse(condition).body, condition)
    wanted = columns_of(condition)
    own = pa.table({name: plain(table.column(name)) for name in wanted})
    try:
        from pyarrow import dataset

        scanner = dataset.Scanner.from_batches(own.to_batches(), schema=own.schema, columns={"asked": expression})
        mask = scanner.to_table().column("asked")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        raise DataError(
            f"the universe of {column!r} compares a column with a constant of another type: write the constant as the column has it"
        ) from None
    return pc.fill_null(mask, False).to_numpy().astype(bool)


def _parse(condition: str) -> ast.Expression:
    try:
        return ast.parse(condition.strip(), mode="eval")
    except SyntaxError:
        raise _misunderstood(condition) from None


def _misunderstood(condition: str) -> ConfigurationError:
    return ConfigurationError(
        f"the universe {condition!r} is not understood: compare columns with constants, joined by and, or, not, as in age >= 20"
    )


def _expression(node: ast.expr, condition: str) -> pc.Expression:
    if isinstance(node, ast.BoolOp):
        parts = [_expression(value, condition) for value in node.values]
        joined = parts[0]
        for part in parts[1:]:
            joined = joined & part if isinstance(node.op, ast.And) else joined | part
        return joined
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_expression(node.operand, condition)
    if isinstance(node, ast.Name):
        return pc.field(node.id)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        out = None
        for left, how, right in zip(sides, node.ops, sides[1:]):
            if isinstance(how, (ast.In, ast.NotIn)):
                own = _term(left, condition).isin(_constants(right, condition))
                own = ~own if isinstance(how, ast.NotIn) else own
            elif type(how) in _COMPARE:
                own = _COMPARE[type(how)](_term(left, condition), _term(right, condition))
            else:
                raise _misunderstood(condition)
            out = own if out is None else out & own
        return out
    raise _misunderstood(condition)


def _term(node: ast.expr, condition: str) -> Any:
    if isinstance(node, ast.Name):
        return pc.field(node.id)
    return pc.scalar(_constant(node, condition))


def _constant(node: ast.expr, condition: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        raise _misunderstood(condition) from None
    if not isinstance(value, (str, int, float, bool)):
        raise _misunderstood(condition)
    return value


def _constants(node: ast.expr, condition: str) -> list[Any]:
    if not isinstance(node, (ast.List, ast.Tuple)):
        raise _misunderstood(condition)
    return [_constant(item, condition) for item in node.elts]
