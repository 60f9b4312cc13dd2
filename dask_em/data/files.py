"""Tables in files: pieces of Parquet (a row group) and of CSV or TSV (a file), and how a file is read that must not change."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from dask_em.data.pins import Marks, Watched
from dask_em.data.storage import Options, Stamp, failure
from dask_em.errors import DaskEMError, DataError

NULLS = [
    *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "null", "NULL", "None", "<NA>"),
    *("#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "?"),
]
"""What stands for a missing cell of text: pandas' list, and the question mark of older data sets."""


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
                own = None
                try:
                    own = Watched(raw, self.is_text, marking)
                    if self.outline not in ("", own.digest):
                        raise self._changed()
                    yield own
                finally:
                    # Afterwards too: what changes while it is read may be why it could not be read.
                    if own is not None and own.differs(known or {}):
                        raise self._changed() from None
                    self._compare(raw, options, ask=True)
        except DaskEMError:
            raise
        except Exception as error:
            if type(error).__name__ == "FileExpired":  # S3 was asked for the version that it listed
                raise self._changed() from None
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
            metadata = footer(opened).metadata
            if opened.is_distant:
                opened.fetch(_stored(metadata.row_group(self.row_group), own))
            # One read for each column: what is buffered ahead would depend on which columns are wanted.
            parquet = pq.ParquetFile(opened, metadata=metadata, pre_buffer=False)
            table = parquet.read_row_group(self.row_group, columns=own, use_threads=False)
        return _labelled(table, labels, columns), opened.marks


def _stored(group: pq.RowGroupMetaData, columns: Sequence[str]) -> list[tuple[int, int]]:
    """Where the cells of these columns begin and end in the file."""
    found = []
    for own in map(group.column, range(group.num_columns)):
        wanted = own.path_in_schema in columns or own.path_in_schema.split(".")[0] in columns
        if wanted and own.total_compressed_size:
            start = min(filter(None, (own.dictionary_page_offset, own.data_page_offset)))
            found.append((start, start + own.total_compressed_size))
    return found


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
        parse = pyarrow.csv.ParseOptions(delimiter=delimiter(self.file))
        with self.file.opened(self.options, self.known, marking) as opened, plain_text(opened, self.file.path) as text:
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


def delimiter(file: File) -> str:
    return "\t" if file.kind == "tsv" else ","


def plain_text(opened: Any, path: str) -> Any:
    """The text of an open file, which may be compressed."""
    how = fsspec.utils.infer_compression(path)
    return opened if how is None else fsspec.compression.compr[how](opened, mode="rb")


def footer(opened: Watched) -> pq.ParquetFile:
    """A Parquet file of which the footer alone is there."""
    return pq.ParquetFile(pa.BufferReader(opened.outline))
