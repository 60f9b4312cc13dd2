"""Completed tables as Parquet parts, proven to hold every observed cell bit for bit.

Each piece of the table is completed, written, read back and compared with what came in: rows, keys, and a digest per column over the cells that were not
filled. Only sums leave the worker. Draws come in long format, as mice writes them: .imp says which draw, .id which row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dask_em.data.columns import plain
from dask_em.data.digest import column_digest
from dask_em.data.keys import KeySet, check_keys, row_keys
from dask_em.data.sinks import ParquetSink, check_apart, staged
from dask_em.data.sources import Source, open_source
from dask_em.errors import ConfigurationError, DataError, IntegrityError
from dask_em.execution.base import Executor
from dask_em.execution.choose import is_dask_frame, open_executor
from dask_em.imputation.complete import complete_arrow
from dask_em.imputation.model import ImputationModel
from dask_em.imputation.roles import count_rows, types_of
from dask_em.imputation.summaries import GroupSums

DRAW, ROW = ".imp", ".id"
"""Which draw and which row, where draws stand in one table: mice's names."""


@dataclass(frozen=True)
class Integrity:
    """What was compared, before and after; adds up over pieces.

    Attributes
    ----------
    rows : (in, out)
    keys : of the rows that came in and of those that were written
    digests : by column, of the cells that were observed (before, after)
    filled : by column, cells that were filled
    """

    rows: tuple[int, int]
    keys: tuple[KeySet, KeySet]
    digests: dict[str, tuple[int, int]]
    filled: dict[str, int]

    def __add__(self, other: Integrity) -> Integrity:
        digests = {
            name: ((a + other.digests[name][0]) % 2**64, (b + other.digests[name][1]) % 2**64)
            for name, (a, b) in self.digests.items()
        }
        filled = {name: n + other.filled[name] for name, n in self.filled.items()}
        rows = (self.rows[0] + other.rows[0], self.rows[1] + other.rows[1])
        return Integrity(rows, (self.keys[0] + other.keys[0], self.keys[1] + other.keys[1]), digests, filled)

    def check(self) -> None:
        """Raise IntegrityError unless everything observed is what it was."""
        if self.rows[0] != self.rows[1]:
            raise IntegrityError(
                f"{self.rows[0]} rows came in and {self.rows[1]} were written: please report this as a bug"
            )
        if self.keys[0].total != self.keys[1].total:
            raise IntegrityError(
                "the keys of the rows that were written are not those that came in: please report this as a bug"
            )
        changed = [name for name, (before, after) in self.digests.items() if before != after]
        if changed:
            raise IntegrityError(
                f"observed cells of column {changed[0]!r} changed on the way: please report this as a bug"
            )

    @property
    def line(self) -> str:
        """One sentence for a report."""
        cells = sum(self.filled.values())
        return (
            f"{self.rows[1]:,} of {self.rows[0]:,} rows written with the same keys; observed cells of all {len(self.digests)} columns compared "
            f"bit for bit after reading them back; {cells:,} cells filled"
        )


@dataclass(frozen=True)
class Written:
    """What was written: the proof, and sums by group for pooled means."""

    integrity: Integrity
    groups: GroupSums | None

    def __add__(self, other: Written) -> Written:
        groups = None if self.groups is None or other.groups is None else self.groups + other.groups
        return Written(self.integrity + other.integrity, groups)


def write_imputed(
    imputer: Any,
    X: Any,
    output: str | os.PathLike[str],
    *,
    m: int = 0,
    layout: str = "long",
    executor: Any = None,
    types: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Complete every row of a table into a new folder: `mean/` with expected values and, for m > 0, `draws/`.

    Parameters
    ----------
    imputer : fitted Imputer, or the folder of a saved one
    X : table, or path or URL of one
    output : folder to make; it must be absent or empty
    m : number of draws, at most the replicates that were fitted
    layout : "long", all draws in one table with .imp and .id, or "folders", one per draw (`draws/imp=1`, ...)
    executor : where to work, as in `fit`
    types : for CSV, Arrow type names by column

    Returns
    -------
    facts : {"rows", "filled", "integrity", "draws", "output"}

    Raises
    ------
    ConfigurationError, DataError, OutputError, IntegrityError
        Nothing is left behind.
    """
    if isinstance(imputer, (str, os.PathLike)):
        from dask_em.artifact import load

        imputer = load(imputer)
    if not hasattr(imputer, "imputation_"):
        raise DataError("the model is not an imputer: give the folder of a saved Imputer, or score tables with predict")
    m = imputer._n_draws(m) if m else 0
    if is_dask_frame(X):
        raise ConfigurationError(
            "a Dask dataframe is completed by the imputer's transform and draw, lazily: write what they give, or give the path of its files"
        )
    source = open_source(X, types=types)
    check_apart(source.folder, output)
    with staged(output) as folder, open_executor(executor) as opened:
        written = write_pieces(imputer.imputation_, source, folder, opened, m=m, layout=layout)
    return {
        "rows": written.integrity.rows[1],
        "filled": written.integrity.filled,
        "draws": m,
        "integrity": written.integrity.line,
        "output": str(output),
    }


def write_pieces(
    model: ImputationModel,
    source: Source,
    folder: Path,
    executor: Executor,
    *,
    m: int,
    layout: str = "long",
    groups: GroupSums | None = None,
) -> Written:
    """Write all pieces into a folder that is under construction, and check what was written.

    `groups` is an empty GroupSums whose columns and groups are to be summed on the way.
    """
    model.schema.design.check(source.columns, source.where)
    check_keys(source, model.key)
    if layout not in ("long", "folders"):
        raise ConfigurationError("layout must be 'long', all draws in one table, or 'folders', one for each")
    taken, what, otherwise = {
        "long": ((DRAW, ROW), "draws in long layout", "give each draw a folder (layout='folders')"),
        "folders": (("imp",), "folders of draws", "write all draws into one table (layout='long')"),
    }[layout]
    for name in taken if m else ():
        if name in source.columns:
            raise DataError(f"column {name!r} has a name that {what} need: rename it, or {otherwise}")
    if not source.pieces:
        raise DataError(f"{source.where} has no rows: give at least one row")
    (folder / "mean").mkdir()
    names = ["draws"] if layout == "long" else [f"draws/imp={i + 1}" for i in range(m)]
    for name in names if m else []:
        (folder / name).mkdir(parents=True)
    firsts = (
        _positions(source, executor) if m and layout == "long" and len(model.key) != 1 else [0] * len(source.pieces)
    )
    types = types_of(source, model.schema.design.features, model.integer, executor)
    write = partial(_write_piece, model, str(folder), source.columns, types, m, layout, groups, firsts)
    total: Written = executor.write(source.pieces, write)
    if model.key:
        total.integrity.keys[0].check_unique(model.key)
    total.integrity.check()
    return total


def _positions(source: Source, executor: Executor) -> list[int]:
    """How many rows stand before each piece."""
    counts = executor.map(source.pieces, partial(count_rows, source.columns[0]))
    return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int).tolist()


def _write_piece(
    model: ImputationModel,
    folder: str,
    columns: tuple[str, ...],
    types: dict[str, pa.DataType],
    m: int,
    layout: str,
    groups: GroupSums | None,
    firsts: list[int],
    i: int,
    piece: Any,
) -> Written:
    table = piece.read(columns)
    keys = row_keys(table, model.key, piece.origin)
    expected = model.mean(table)
    kept = {name: np.arange(table.num_rows) for name in columns}
    kept |= {name: np.flatnonzero(~own.mask) for name, own in expected.items()}
    before = {name: column_digest(table.column(name), rows) for name, rows in kept.items()}

    def compared(path: str, row_group: int) -> Integrity:
        back = pq.ParquetFile(path).read_row_group(row_group) if table.num_rows else pq.read_table(path)
        after = {}
        for name, rows in kept.items():
            column, kind = back.column(name), table.schema.field(name).type
            after[name] = column_digest(_as(column, kind, rows), rows) if len(column) == table.num_rows else -1
        again = row_keys(back, model.key, piece.origin)
        filled = {name: int(own.mask.sum()) for name, own in expected.items()}
        both = (KeySet.of(keys), KeySet.of(again))
        digests = {name: (before[name], after[name]) for name in kept}
        return Integrity((table.num_rows, back.num_rows), both, digests, filled)

    completed = complete_arrow(table, expected, types)
    receipt = ParquetSink(os.path.join(folder, "mean")).write(i, [completed])
    result = compared(receipt.path, 0)
    if groups is not None:
        groups = groups.listwise(table, expected).add(completed, "expected")
    if m:
        identity = table.column(model.key[0]) if len(model.key) == 1 else pa.array(np.arange(len(keys)) + firsts[i] + 1)

        def draws() -> Iterator[pa.Table]:
            nonlocal groups
            for replicate in range(m):
                own = complete_arrow(table, model.draw(table, keys, replicate), types)
                if groups is not None:
                    groups = groups.add(own, replicate)
                if layout == "long":
                    number = pa.array(np.full(len(keys), replicate + 1, dtype=np.int32))
                    own = own.add_column(0, DRAW, number).add_column(1, ROW, identity)
                yield own

        if layout == "long":
            receipt = ParquetSink(os.path.join(folder, "draws")).write(i, draws())
            places = [(receipt.path, r) for r in range(m)]
        else:
            sinks = [ParquetSink(os.path.join(folder, f"draws/imp={r + 1}")) for r in range(m)]
            places = [(sink.write(i, [own]).path, 0) for sink, own in zip(sinks, draws())]
        for path, group in places:
            compared(path, group).check()
    return Written(result, groups)


def _as(column: pa.ChunkedArray, kind: pa.DataType, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    """A column that was read back, with the type that it had: Parquet knows no seconds and no string views.

    One without any cell had no type; it is as it was where the kept rows are still without.
    """
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    array = plain(column)
    if pa.types.is_null(kind):
        return pa.nulls(len(array)) if array.take(pa.array(rows)).null_count == len(rows) else array
    return array if array.type == kind else pc.cast(array, kind)
