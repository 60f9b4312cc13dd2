"""Tables in files: which files make one, and pieces of Parquet (a row group) and of CSV or TSV (a file).

A path is a file, a folder, a glob or an fsspec URL. Folders called column=value, as Hive, Spark, Dask and pandas write them, give a column of text.
"""

from __future__ import annotations

import csv
import glob
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from typing import Any
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dask_em.data.pins import Marks, Watched
from dask_em.data.storage import Options, Stamp, failure, reached
from dask_em.errors import ConfigurationError, DaskEMError, DataError

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
    stamp : what its storage said of it when the table was opened
    outline : digest of its footer, or of both ends of a text
    """

    path: str = field(repr=False)  # it may hold a password
    name: str
    labels: tuple[tuple[str, str | None], ...] = ()
    stamp: Stamp | None = None
    outline: str = ""

    @property
    def basename(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def kind(self) -> str:
        """parquet, csv or tsv, by the ending of the name; nothing where it has another."""
        ending = re.search(r"\.(?:(parquet|pq)|(csv|tsv)(?:\.gz)?)$", self.path.lower())
        return "" if ending is None else "parquet" if ending[1] else ending[2]

    @property
    def is_text(self) -> bool:
        return self.kind in ("csv", "tsv")

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What tells it from other versions of it: plain values, for records and checkpoints."""
        stamp = self.stamp or Stamp(None, "", "")
        return {"name": self.name, "bytes": stamp.size, "modified": stamp.tag, "footer": self.outline}

    @contextmanager
    def opened(self, options: Options, known: Marks | None = None, marking: bool = False) -> Iterator[Watched]:
        """A block that reads it, in which it is what it was when the table was opened, and holds what is known of it; failures get their sentences.

        Raises
        ------
        DataError
            It cannot be read, or has changed.
        """
        try:
            with fsspec.open(self.path, "rb", **options) as raw:
                self._compare(raw, options, ask=False)
                own = Watched(raw, self.is_text, marking)
                if self.outline not in ("", own.digest):
                    raise self._changed()
                try:
                    yield own
                finally:
                    # Afterwards too: what changes while it is read may be why it could not be read.
                    if own.differs(known or {}):
                        raise self._changed() from None
                    self._compare(raw, options, ask=True)
        except DaskEMError:
            raise
        except Exception as error:
            told = failure(self.path, error)
            if told is None and isinstance(error, (pa.ArrowException, OSError, ValueError, csv.Error)):
                told = self._unreadable(error)
            raise told or error from None

    def _compare(self, raw: Any, options: Options, ask: bool) -> None:
        if self.stamp is not None and self.stamp.is_outdated(raw, self.path, options, ask):
            raise self._changed() from None

    def _changed(self) -> DataError:
        return DataError(f"{self.basename} changed while it was read: run again when nobody writes to it")

    def _unreadable(self, error: Exception) -> DataError:
        if isinstance(error, FileNotFoundError):
            return DataError(f"{self.basename} cannot be read, it does not exist: check the file")
        remedy = "check the file" if self.kind else "give Parquet, or text that ends in .csv or .tsv"
        return DataError(f"{self.basename} cannot be read, it is damaged or of another format: {remedy}")


AT_ONCE = 16
"""Files that are looked at together when a table is opened: most of that time is waiting."""

COPIES = 4
"""Bytes of memory for each byte of a piece while it is read, profiled and encoded."""

LARGE = 1 << 26
"""Pieces of fewer bytes fit everywhere."""


@dataclass(frozen=True)
class ParquetPiece:
    """One row group of a Parquet file; column_bytes are what one of its columns takes in memory, on average, and n_rows its rows."""

    file: File
    row_group: int
    options: Options = field(default_factory=dict, repr=False)
    column_bytes: int = 0
    known: Marks = field(default_factory=dict, repr=False)
    n_rows: int | None = None

    @property
    def origin(self) -> tuple[str, int]:
        return f"{self.file.name} {self.row_group}", 0

    def as_large(self) -> tuple[str, str]:
        """What it is, and how to make it smaller."""
        return f"row group {self.row_group} of {self.file.basename}", "write the file with smaller row groups"

    def pinned(self, marks: Marks) -> ParquetPiece:
        """The same, which must hold what it held when these marks were taken."""
        return replace(self, known={**self.known, **marks})

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self._read(columns, marking=bool(self.known))[0]

    def marked(self, columns: Sequence[str]) -> tuple[pa.Table, Marks]:
        """The rows, and a mark of every column of them."""
        return self._read(columns, marking=True)

    def _read(self, columns: Sequence[str], marking: bool) -> tuple[pa.Table, Marks]:
        labels = dict(self.file.labels)
        own = [name for name in columns if name not in labels]
        with self.file.opened(self.options, self.known, marking) as opened:
            # One read for each column: what is buffered ahead would depend on which columns are wanted.
            parquet = pq.ParquetFile(opened, metadata=_parsed(opened).metadata, pre_buffer=False)
            table = parquet.read_row_group(self.row_group, columns=own, use_threads=False)
        return _labelled(table, labels, columns), opened.marks


@dataclass(frozen=True)
class CsvPiece:
    """A CSV or TSV file, with the declared types of its columns; column_bytes are what one of its columns takes in it, on average."""

    file: File
    types: tuple[tuple[str, str], ...]
    options: Options = field(default_factory=dict, repr=False)
    column_bytes: int = 0
    known: Marks = field(default_factory=dict, repr=False)

    @property
    def origin(self) -> tuple[str, int]:
        return self.file.name, 0

    def as_large(self) -> tuple[str, str]:
        """What it is, and how to make it smaller."""
        return self.file.basename, "split it into several files"

    def pinned(self, marks: Marks) -> CsvPiece:
        """The same, which must hold what it held when these marks were taken."""
        return replace(self, known={**self.known, **marks})

    def read(self, columns: Sequence[str]) -> pa.Table:
        return self._read(columns, marking=bool(self.known))[0]

    def marked(self, columns: Sequence[str]) -> tuple[pa.Table, Marks]:
        """The rows, and a mark of the whole file."""
        return self._read(columns, marking=True)

    def _read(self, columns: Sequence[str], marking: bool) -> tuple[pa.Table, Marks]:
        labels = dict(self.file.labels)
        own = [name for name in columns if name not in labels]
        convert = pyarrow.csv.ConvertOptions(
            column_types={name: pa.type_for_alias(kind) for name, kind in self.types if name in own},
            include_columns=own,
            strings_can_be_null=True,
            null_values=NULLS,
        )
        parse = pyarrow.csv.ParseOptions(delimiter=_delimiter(self.file))
        with self.file.opened(self.options, self.known, marking) as opened, _plain(opened, self.file.path) as text:
            try:
                table = pyarrow.csv.read_csv(text, parse_options=parse, convert_options=convert)
            except pa.ArrowInvalid as error:
                if str(error).startswith("CSV parse error"):
                    what = "has a line with more or fewer cells than its header: correct that line or its quotes"
                else:
                    what = "does not match the declared types of its columns: correct the types or the file"
                raise DataError(f"{self.file.basename} {what}") from None
        return _labelled(table, labels, columns), opened.marks


def _labelled(table: pa.Table, labels: Mapping[str, str | None], columns: Sequence[str]) -> pa.Table:
    """The wanted columns in their order; what the folders say is one value for all rows."""
    for name in columns:
        if name in labels:
            value = pa.scalar(labels[name], pa.string())
            table = table.append_column(name, pa.repeat(value, table.num_rows))
    return table.select(list(columns))


def check_sizes(pieces: Sequence[Any], columns: Sequence[str], room: Callable[[], int], copies: int = COPIES) -> None:
    """Refuse pieces that cannot be read in the memory there is, before they are read.

    Parameters
    ----------
    pieces : of any kind; only those of files tell their size
    columns : which are to be read
    room : asks for the bytes that one thread may take; only where a piece is large
    copies : bytes of memory for each byte of a piece

    Raises
    ------
    DataError
        A piece needs more.
    """
    sizes = [len(columns) * getattr(piece, "column_bytes", 0) for piece in pieces]
    largest = max(sizes, default=0)
    if largest < LARGE or copies * largest <= (have := room()):
        return
    what, remedy = pieces[sizes.index(largest)].as_large()
    raise DataError(
        f"{what} needs about {copies * largest / 1e9:.1f} GB of memory to be read and encoded, and a thread has {have / 1e9:.1f} GB: "
        f"{remedy}, use fewer columns, or give workers more memory or fewer threads"
    )


def open_files(
    path: str, types: Mapping[str, str], options: Options
) -> tuple[tuple[str, ...], tuple[ParquetPiece | CsvPiece, ...], tuple[File, ...]]:
    """Column names, pieces and files of the table at a path.

    Raises
    ------
    ConfigurationError
        A declared type is none.
    DataError
        There are no files, they cannot be read, or a later one lacks a column.
    """
    for name, kind in types.items():
        try:
            pa.type_for_alias(kind)
        except ValueError:
            raise ConfigurationError(
                f"type of column {name!r} is not an Arrow type: write int64, float64, string or bool"
            ) from None
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(partial(_looked_at, options), listing(path, options)))
    columns: tuple[str, ...] = ()
    pieces: list[ParquetPiece | CsvPiece] = []
    for file, own, sizes in found:
        own = (*own, *(name for name, _ in file.labels))
        if columns and (lost := [name for name in columns if name not in own]):
            raise DataError(f"{file.basename} has no column {lost[0]!r}, which the files before it have")
        columns = columns or own
        if file.is_text:
            pieces.append(CsvPiece(file, tuple(types.items()), options, sizes[0][0]))
        else:
            pieces += [ParquetPiece(file, i, options, size, n_rows=n) for i, (size, n) in enumerate(sizes)]
    return columns, tuple(pieces), tuple(file for file, _, _ in found)


def _looked_at(options: Options, file: File) -> tuple[File, tuple[str, ...], list[tuple[int, int | None]]]:
    """A file with its stamp and outline, its own columns, and of each of its pieces bytes a column, and rows where that is known."""
    with file.opened(options) as opened:
        file = replace(file, stamp=Stamp.of_open(opened.raw) or file.stamp, outline=opened.digest)
        own, sizes = (_header if file.is_text else _metadata)(file, opened)
    # Where a file has the column itself, its folder says nothing new.
    return (
        replace(file, labels=tuple((name, value) for name, value in file.labels if name not in own)),
        own,
        sizes,
    )


def listing(path: str, options: Options) -> list[File]:
    """The data files at a path, folder, glob or URL, in a fixed order; what exists under exactly this name is no glob."""
    with reached(path):
        fs, inner = fsspec.core.url_to_fs(path, **options)
        inner = inner.rstrip("/")
        if fs.isdir(inner):
            root, found = inner, fs.find(inner, detail=True)
        elif fs.exists(inner) or not glob.has_magic(path):
            root, found = inner.rpartition("/")[0], {inner: fs.info(inner)} if fs.exists(inner) else {}
        else:
            root = "/".join(takewhile(lambda part: not glob.has_magic(part), inner.split("/")))
            found = fs.glob(inner, detail=True)
    remote, here = "://" in path, getattr(fs, "local_file", False)
    files = []
    for each in sorted(found):
        name = each.removeprefix(f"{root}/")
        stamp = None if here else Stamp.of(found[each])
        file = File(fs.unstrip_protocol(each) if remote else each, name, _labels(name), stamp)
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


def _header(file: File, opened: Watched) -> tuple[tuple[str, ...], list[tuple[int, int | None]]]:
    """Column names of a CSV or TSV file, its first line that is not empty, and bytes a column of the whole."""
    with _plain(opened, file.path) as bytes_, io.TextIOWrapper(bytes_, encoding="utf-8-sig", newline="") as lines:
        names = next(filter(None, csv.reader(lines, delimiter=_delimiter(file))), None)
    if names is None:
        raise DataError(f"{file.basename} is empty: give a file with a header")
    size = 0 if file.stamp is None else file.stamp.size or 0
    return tuple(names), [(size // len(names), None)]


def _delimiter(file: File) -> str:
    return "\t" if file.kind == "tsv" else ","


def _plain(opened: Any, path: str) -> Any:
    """The text of an open file, which may be compressed."""
    how = fsspec.utils.infer_compression(path)
    return opened if how is None else fsspec.compression.compr[how](opened, mode="rb")


def _metadata(file: File, opened: Watched) -> tuple[tuple[str, ...], list[tuple[int, int | None]]]:
    """Column names of a Parquet file, and of each row group bytes a column (of numbers 8 a cell, which is often stored in less) and rows."""
    parquet = _parsed(opened)
    groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
    sizes = [(max(g.total_byte_size // max(g.num_columns, 1), 8 * g.num_rows), g.num_rows) for g in groups]
    return tuple(parquet.schema_arrow.names), sizes


def _parsed(opened: Watched) -> pq.ParquetFile:
    """A Parquet file of which the footer alone is there."""
    return pq.ParquetFile(pa.BufferReader(opened.outline))
