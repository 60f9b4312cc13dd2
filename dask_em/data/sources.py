"""Where tables come from: everything becomes a list of pieces, each read as an Arrow table of the wanted columns.

pandas, NumPy, Arrow (or anything with an Arrow stream), and files, which `files` and `listing` know. Pieces come in canonical order, rows in a piece keep theirs, and a
piece can be sent to a worker. A table in memory is cut into pieces without a copy.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from dask_em.data.columns import plain
from dask_em.data.digest import cell_bits
from dask_em.data.files import File
from dask_em.data.listing import open_files
from dask_em.data.pins import Marks, column_marks, differ, read_marked
from dask_em.errors import ColumnTypeError, ConfigurationError, DataError
from dask_em.randomness import mix

PIECE_ROWS = 1 << 17
"""Rows of a piece of a table in memory: large enough for little overhead, small enough to spread over threads."""


class Piece(Protocol):
    """Some consecutive rows of a table."""

    @property
    def origin(self) -> tuple[str, int]:
        """Where the rows come from: a name, and the position of the first row under it."""

    def read(self, columns: Sequence[str]) -> pa.Table:
        """The rows with (at least) these columns."""


@dataclass(frozen=True)
class Source:
    """A table as pieces.

    Attributes
    ----------
    columns : all column names, in order
    pieces : the rows
    where : how messages call the table
    n_rows : number of rows of a table in memory, None for files
    named : whether the names are the columns' own, as opposed to positions or numbers
    files : those that hold it
    token : Dask's name of a dataframe
    folder : of this machine, all of whose files make the table
    """

    columns: tuple[str, ...]
    pieces: tuple[Piece, ...]
    where: str = "the table"
    n_rows: int | None = None
    named: bool = True
    files: tuple[File, ...] = ()
    token: str = ""
    folder: str = field(default="", repr=False)

    def fingerprint(self) -> list[dict[str, Any]]:
        """What tells this table from other versions of it, as plain values: of every file its name below the given folder, bytes, modification (nanoseconds, or ETag) and outline;
        of a table in memory a digest of each column, of a Dask dataframe its token, which Dask makes of where it comes from."""
        if self.files:
            return [file.fingerprint for file in self.files]
        if self.token:
            return [{"name": self.where, "token": self.token}]
        return [{"name": name, "cells": _cells_digest(self.pieces, name)} for name in self.columns]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the fingerprint."""
        return hashlib.sha256(json.dumps(self.fingerprint(), sort_keys=True).encode()).hexdigest()

    def read(self, columns: Sequence[str]) -> pa.Table:
        """All rows at once, for a table that is known to be small."""
        return pa.concat_tables([p.read(columns) for p in self.pieces], promote_options="permissive")


def _cells_digest(pieces: Sequence[Piece], name: str) -> str:
    """A digest of the cells of a column, the same however they are cut; of one that no model can read there is none."""
    total = first = 0
    for piece in pieces:
        try:
            cells = cell_bits(plain(piece.read((name,)).column(name)))
        except DataError:
            return ""
        rows = np.arange(first, first + len(cells), dtype=np.uint64)
        total += int(np.add.reduce(mix(rows, cells), dtype=np.uint64))
        first += len(cells)
    return f"{total % 2**64:016x}"


@dataclass(frozen=True)
class FramePiece:
    """Rows of a pandas frame."""

    frame: pd.DataFrame = field(repr=False)
    names: tuple[str, ...]
    origin: tuple[str, int] = ("", 0)

    def __sizeof__(self) -> int:
        return int(self.frame.memory_usage().sum())

    def read(self, columns: Sequence[str]) -> pa.Table:
        own = [_arrow(self.frame.iloc[:, self.names.index(name)], name) for name in columns]
        return pa.table(own, names=list(columns))


@dataclass(frozen=True)
class Partition:
    """A partition of a Dask dataframe: it may be computed again, and must come to the same."""

    frame: pd.DataFrame = field(repr=False)
    names: tuple[str, ...]
    origin: tuple[str, int]
    known: Marks = field(default_factory=dict, repr=False)

    def __sizeof__(self) -> int:
        return int(self.frame.memory_usage().sum())

    def pinned(self, marks: Marks) -> Partition:
        """The same, which must hold what it held when these marks were taken."""
        return replace(self, known=marks)

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self.marked(columns)[0] if self.known else self._rows(columns)

    def marked(self, columns: Sequence[str]) -> tuple[pa.Table, Marks]:
        """The rows, and marks of every column, in which their order does not count: a shuffle may give another."""
        table, marks = self._rows(columns), dict[Any, Any]()
        for name in columns:
            marks |= column_marks(name, table.column(name))
        if differ(self.known, marks):
            raise DataError(
                f"{self.origin[0]} of the dataframe was computed again and is not what it was: make it of files that nobody writes to and without chance, or write it to files first"
            )
        return table, marks

    def _rows(self, columns: Sequence[str]) -> pa.Table:
        return FramePiece(self.frame, self.names, self.origin).read(columns)


@dataclass(frozen=True)
class ArrayPiece:
    """Rows of a two-dimensional NumPy array."""

    array: np.ndarray = field(repr=False)
    names: tuple[str, ...]
    origin: tuple[str, int] = ("", 0)

    def __sizeof__(self) -> int:
        return self.array.nbytes

    def read(self, columns: Sequence[str]) -> pa.Table:
        own = [_arrow(np.ascontiguousarray(self.array[:, self.names.index(name)]), name) for name in columns]
        return pa.table(own, names=list(columns))


def _arrow(values: Any, name: str) -> pa.Array:
    """A column of objects or numbers as one Arrow array."""
    if isinstance(values.dtype, pd.SparseDtype):
        values = values.sparse.to_dense()
    values = _native(values)
    try:
        array = pa.array(values, from_pandas=isinstance(values, pd.Series) or values.dtype == object)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        kind = values.dtype.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
        if isinstance(error, OverflowError):
            raise DataError(f"column {name!r} holds integers beyond 64 bits: convert it to float64 or text") from None
        if pd.api.types.is_object_dtype(kind):
            raise DataError(
                f"column {name!r} mixes types: give it one type (numbers, text or booleans) throughout"
            ) from None
        what = f"has the type {kind}, which cannot be read: convert it to float64, text or booleans"
        refused = ColumnTypeError(f"column {name!r} {what}")
        refused.column, refused.kind = name, str(kind)
        raise refused from None
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def as_array(values: Any) -> np.ndarray:
    """Anything as a NumPy array, in which masked cells are missing: NaN, or None where there is no NaN."""
    if not np.ma.is_masked(values):
        return _native(np.asarray(values))
    if values.dtype.kind == "f":
        return _native(values.filled(np.nan))
    objects: np.ndarray = values.data.astype(object)
    objects[np.ma.getmaskarray(values)] = None
    return objects


def _native(values: Any) -> Any:
    """An array or series of numbers with their bytes in the order of this machine."""
    swapped = isinstance(values.dtype, np.dtype) and not values.dtype.isnative
    return values.astype(values.dtype.newbyteorder("=")) if swapped else values


@dataclass(frozen=True)
class ArrowPiece:
    """Rows of an Arrow table."""

    table: pa.Table = field(repr=False)
    origin: tuple[str, int] = ("", 0)

    def __sizeof__(self) -> int:
        return int(self.table.nbytes)

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self.table.select(list(columns))


@dataclass(frozen=True)
class Renamed:
    """A piece whose columns are called otherwise."""

    piece: Piece
    names: tuple[str, ...]
    own: tuple[str, ...]

    @property
    def origin(self) -> tuple[str, int]:
        return self.piece.origin

    @property
    def column_bytes(self) -> int:
        return getattr(self.piece, "column_bytes", 0)

    def as_large(self) -> tuple[str, str]:
        """What it is, and how to make it smaller."""
        return self.piece.as_large()  # type: ignore[attr-defined]

    def pinned(self, marks: Marks) -> Renamed:
        """The same, which must hold what it held when these marks were taken."""
        return replace(self, piece=self.piece.pinned(marks))  # type: ignore[attr-defined]

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self.marked(columns)[0]

    def marked(self, columns: Sequence[str]) -> tuple[pa.Table, Marks]:
        """The rows, and what `read_marked` gives for them."""
        called = dict(zip(self.names, self.own))
        table, marks = read_marked(self.piece, [called[name] for name in columns])
        return table.rename_columns(list(columns)), marks


@dataclass(frozen=True)
class WithColumns:
    """A piece with further columns, such as row weights given beside the table."""

    piece: Piece
    extra: pa.Table = field(repr=False)

    @property
    def origin(self) -> tuple[str, int]:
        return self.piece.origin

    def read(self, columns: Sequence[str]) -> pa.Table:
        own = [c for c in columns if c not in self.extra.column_names]
        if not own:
            return self.extra.select(list(columns))
        table = self.piece.read(own)
        for name in columns:
            if name in self.extra.column_names:
                table = table.append_column(name, self.extra.column(name))
        return table.select(list(columns))


def open_source(
    X: Any, *, types: Mapping[str, str] | None = None, storage_options: Mapping[str, Any] | None = None
) -> Source:
    """Make a source of anything that holds a table.

    Parameters
    ----------
    X : pandas frame or series, two-dimensional array, Arrow table or stream, or a path or URL of Parquet or CSV
    types : for CSV, Arrow type names by column
    storage_options : for URLs, what fsspec takes

    Raises
    ------
    ConfigurationError
        X is none of these.
    DataError
        The files are not there or cannot be read.
    """
    if isinstance(X, Source):
        return X
    if isinstance(X, (str, os.PathLike)):
        path = os.fspath(X)
        if not path:
            raise ConfigurationError("the path of the table is empty: name a file or a folder")
        names, found, files = open_files(path, types or {}, storage_options or {})
        folder = path.removeprefix("file://")
        folder = folder if os.path.isdir(folder) else ""
        return Source(unique(names), found, path.rstrip("/").rsplit("/", 1)[-1], files=files, folder=folder)
    if isinstance(X, pd.Series):
        X = X.to_frame()
    if isinstance(X, pd.DataFrame):
        names = unique([str(c) for c in X.columns])
        pieces: tuple[Piece, ...] = tuple(FramePiece(X.iloc[a:b], names, ("", a)) for a, b in cuts(len(X)))
        return Source(names, pieces, n_rows=len(X), named=all(isinstance(c, str) for c in X.columns))
    if hasattr(X, "__arrow_c_stream__"):
        table = X if isinstance(X, pa.Table) else pa.RecordBatchReader.from_stream(X).read_all()
        pieces = tuple(ArrowPiece(table.slice(a, b - a), ("", a)) for a, b in cuts(table.num_rows))
        return Source(unique(table.column_names), pieces, n_rows=table.num_rows)
    array = as_array(X)
    if array.ndim != 2:
        raise ConfigurationError(f"Reshape your data to (n_rows, n_columns): it has {array.ndim} dimension(s)")
    if array.dtype.kind == "c":
        raise DataError("Complex data not supported: split it into real and imaginary columns")
    names = positions(array.shape[1])
    pieces = tuple(ArrayPiece(array[a:b], names, ("", a)) for a, b in cuts(len(array)))
    return Source(names, pieces, n_rows=len(array), named=False)


def positions(n: int) -> tuple[str, ...]:
    """What the columns of an array are called."""
    return tuple(f"x{j}" for j in range(n))


def renamed(source: Source, names: Sequence[str]) -> Source:
    """The same table with other column names, in the order of its columns; nothing is read."""
    pieces = tuple(Renamed(piece, tuple(names), source.columns) for piece in source.pieces)
    return replace(source, columns=tuple(names), pieces=pieces, named=True)


def cuts(n: int) -> list[tuple[int, int]]:
    """Row ranges of the pieces of a table in memory."""
    return [(a, min(a + PIECE_ROWS, n)) for a in range(0, n, PIECE_ROWS)]


def with_columns(source: Source, **columns: Any) -> Source:
    """Attach vectors, one entry a row, to a source in memory whose pieces are those of `cuts`."""
    extra = pa.table({name: pa.array(np.asarray(v)) for name, v in columns.items()})
    pieces = tuple(
        WithColumns(piece, extra.slice(a, b - a)) for piece, (a, b) in zip(source.pieces, cuts(len(extra)), strict=True)
    )
    return replace(source, columns=(*source.columns, *columns), pieces=pieces)


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names, refused where two are the same."""
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"the table has two columns named {name!r}: rename one")
    return tuple(names)
