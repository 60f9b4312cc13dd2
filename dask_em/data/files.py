"""Tables in files: which files make one, and pieces of Parquet (a row group) and of CSV or TSV (a file).

A path is a file, a folder, a glob or an fsspec URL. Folders called column=value, as Hive, Spark, Dask and pandas write them, give a column of text.
"""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dask_em.data.storage import failure, reached
from dask_em.errors import ConfigurationError, DaskEMError, DataError

Options = Mapping[str, Any]

NULLS = [
    *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None", "<NA>"),
    *("#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "?"),
]
"""What stands for a missing cell of text: pandas' list, and the question mark of older data sets."""

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""The name of the folder of rows whose value is missing."""


@dataclass(frozen=True)
class File:
    """One file of a table.

    Attributes
    ----------
    path : what fsspec opens
    name : its path below what was given, so that it does not depend on where that is
    labels : (column, value) of the folders that it is in
    """

    path: str
    name: str
    labels: tuple[tuple[str, str | None], ...] = ()

    @property
    def basename(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def kind(self) -> str:
        """parquet, csv or tsv, by the ending of the name; nothing where it has another."""
        ending = re.search(r"\.(?:(parquet|pq)|(csv|tsv)(?:\.gz)?)$", self.path.lower())
        return "" if ending is None else "parquet" if ending[1] else ending[2]

    @contextmanager
    def read(self) -> Iterator[None]:
        """A block that reads it; its failures get their sentences."""
        try:
            yield
        except DaskEMError:
            raise
        except Exception as error:
            told = failure(self.path, error)
            if told is None and isinstance(error, (pa.ArrowException, OSError, ValueError, csv.Error)):
                told = self._unreadable(error)
            raise told or error from None

    def _unreadable(self, error: Exception) -> DataError:
        if isinstance(error, FileNotFoundError):
            return DataError(f"{self.basename} cannot be read, it does not exist: check the file")
        remedy = "check the file" if self.kind else "give Parquet, or text that ends in .csv or .tsv"
        return DataError(f"{self.basename} cannot be read, it is damaged or of another format: {remedy}")


@dataclass(frozen=True)
class ParquetPiece:
    """One row group of a Parquet file."""

    file: File
    row_group: int
    options: Options = field(default_factory=dict)

    @property
    def origin(self) -> tuple[str, int]:
        return f"{self.file.name} {self.row_group}", 0

    def read(self, columns: Sequence[str]) -> pa.Table:
        labels = dict(self.file.labels)
        own = [name for name in columns if name not in labels]
        with self.file.read(), fsspec.open(self.file.path, "rb", **self.options) as opened:
            table = pq.ParquetFile(opened).read_row_group(self.row_group, columns=own, use_threads=False)
        return _labelled(table, labels, columns)


@dataclass(frozen=True)
class CsvPiece:
    """A CSV or TSV file, with the declared types of its columns."""

    file: File
    types: tuple[tuple[str, str], ...]
    options: Options = field(default_factory=dict)

    @property
    def origin(self) -> tuple[str, int]:
        return self.file.name, 0

    def read(self, columns: Sequence[str]) -> pa.Table:
        labels = dict(self.file.labels)
        own = [name for name in columns if name not in labels]
        convert = pyarrow.csv.ConvertOptions(
            column_types={name: pa.type_for_alias(kind) for name, kind in self.types if name in own},
            include_columns=own,
            strings_can_be_null=True,
            null_values=NULLS,
        )
        parse = pyarrow.csv.ParseOptions(delimiter=_delimiter(self.file))
        with self.file.read(), fsspec.open(self.file.path, "rb", compression="infer", **self.options) as opened:
            try:
                table = pyarrow.csv.read_csv(opened, parse_options=parse, convert_options=convert)
            except pa.ArrowInvalid as error:
                if str(error).startswith("CSV parse error"):
                    what = "has a line with more or fewer cells than its header: correct that line or its quotes"
                else:
                    what = "does not match the declared types of its columns: correct the types or the file"
                raise DataError(f"{self.file.basename} {what}") from None
        return _labelled(table, labels, columns)


def _labelled(table: pa.Table, labels: Mapping[str, str | None], columns: Sequence[str]) -> pa.Table:
    """The wanted columns in their order; what the folders say is one value for all rows."""
    for name in columns:
        if name in labels:
            value = pa.scalar(labels[name], pa.string())
            table = table.append_column(name, pa.repeat(value, table.num_rows))
    return table.select(list(columns))


def open_files(
    path: str, types: Mapping[str, str], options: Options
) -> tuple[tuple[str, ...], tuple[ParquetPiece | CsvPiece, ...], str]:
    """Column names, pieces and the name of the table at a path.

    Raises
    ------
    ConfigurationError
        A declared type is none.
    DataError
        There are no files, they cannot be read, or a later one lacks a column.
    """
    files = listing(path, options)
    for name, kind in types.items():
        try:
            pa.type_for_alias(kind)
        except ValueError:
            raise ConfigurationError(
                f"type of column {name!r} is not an Arrow type: write int64, float64, string or bool"
            ) from None
    columns: tuple[str, ...] = ()
    pieces: list[ParquetPiece | CsvPiece] = []
    for file in files:
        if file.kind in ("csv", "tsv"):
            own, groups = _header(file, options), 0
        else:
            own, groups = _metadata(file, options)
        # Where a file has the column itself, its folder says nothing new.
        file = File(file.path, file.name, tuple((name, value) for name, value in file.labels if name not in own))
        own = (*own, *(name for name, _ in file.labels))
        if columns and (lost := [name for name in columns if name not in own]):
            raise DataError(f"{file.basename} has no column {lost[0]!r}, which the files before it have")
        columns = columns or own
        if file.kind in ("csv", "tsv"):
            pieces.append(CsvPiece(file, tuple(types.items()), options))
        else:
            pieces += [ParquetPiece(file, i, options) for i in range(groups)]
    return columns, tuple(pieces), path.rstrip("/").rsplit("/", 1)[-1]


def listing(path: str, options: Options) -> list[File]:
    """The data files at a path, folder, glob or URL, in a fixed order; what exists under exactly this name is no glob."""
    with reached(path):
        fs, inner = fsspec.core.url_to_fs(path, **options)
        inner = inner.rstrip("/")
        if fs.isdir(inner):
            root, found = inner, fs.find(inner)
        elif fs.exists(inner) or not glob.has_magic(path):
            root, found = inner.rpartition("/")[0], [inner] if fs.exists(inner) else []
        else:
            root, found = "/".join(takewhile(lambda part: not glob.has_magic(part), inner.split("/"))), fs.glob(inner)
    remote = "://" in path
    files = []
    for each in sorted(found):
        name = each.removeprefix(f"{root}/")
        file = File(fs.unstrip_protocol(each) if remote else each, name, _labels(name))
        if not file.basename.startswith(("_", ".")):
            files.append(file)
    data = [file for file in files if file.kind] or (files if len(files) == 1 else [])
    if not data:
        raise DataError(
            f"no Parquet or CSV file at {path}: check the path, names must end in .parquet, .pq, .csv or .tsv"
        )
    if len({file.kind == "parquet" for file in data}) > 1:
        raise DataError(f"{path} holds both Parquet and CSV files: name one kind, such as {path.rstrip('/')}/*.parquet")
    return data


def _labels(name: str) -> tuple[tuple[str, str | None], ...]:
    """What the folders of a file say: region=north/rows.parquet has the region north."""
    pairs = (folder.split("=", 1) for folder in name.split("/")[:-1] if "=" in folder)
    return tuple((unquote(column), None if value == HIVE_NULL else unquote(value)) for column, value in pairs)


def _header(file: File, options: Options) -> tuple[str, ...]:
    """Column names of a CSV or TSV file: its first line that is not empty."""
    with (
        file.read(),
        fsspec.open(file.path, "rt", encoding="utf-8-sig", newline="", compression="infer", **options) as lines,
    ):
        names = next(filter(None, csv.reader(lines, delimiter=_delimiter(file))), None)
    if names is None:
        raise DataError(f"{file.basename} is empty: give a file with a header")
    return tuple(names)


def _delimiter(file: File) -> str:
    return "\t" if file.kind == "tsv" else ","


def _metadata(file: File, options: Options) -> tuple[tuple[str, ...], int]:
    """Column names and number of row groups of a Parquet file."""
    with file.read(), fsspec.open(file.path, "rb", **options) as opened:
        parquet = pq.ParquetFile(opened)
        return tuple(parquet.schema_arrow.names), parquet.num_row_groups
