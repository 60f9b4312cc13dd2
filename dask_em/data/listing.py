"""Which files make a table: a path is a file, a folder, a glob or an fsspec URL.

Folders called column=value, as Hive, Spark, Dask and pandas write them, give a column of text.
"""

from __future__ import annotations

import csv
import glob
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import takewhile
from urllib.parse import unquote

import fsspec
import pyarrow as pa

from dask_em.data.files import CsvPiece, File, ParquetPiece, delimiter, footer, plain_text
from dask_em.data.pins import Watched
from dask_em.data.storage import Options, Stamp, reached
from dask_em.errors import ConfigurationError, DataError

HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
"""The name of the folder of rows whose value is missing."""

AT_ONCE = 16
"""Files that are looked at together when a table is opened: most of that time is waiting."""


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
    # Without its stamp: storage need not be asked again here, as every read of it compares both.
    with replace(file, stamp=None).opened(options) as opened:
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
        fs.invalidate_cache()  # what it remembers of the storage may be from before others wrote to it
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
    with plain_text(opened, file.path) as bytes_, io.TextIOWrapper(bytes_, encoding="utf-8-sig", newline="") as lines:
        names = next(filter(None, csv.reader(lines, delimiter=delimiter(file))), None)
    if names is None:
        raise DataError(f"{file.basename} is empty: give a file with a header")
    size = 0 if file.stamp is None else file.stamp.size or 0
    return tuple(names), [(size // len(names), None)]


def _metadata(file: File, opened: Watched) -> tuple[tuple[str, ...], list[tuple[int, int | None]]]:
    """Column names of a Parquet file, and of each row group bytes a column (of numbers 8 a cell, which is often stored in less) and rows."""
    parquet = footer(opened)
    groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
    sizes = [(max(g.total_byte_size // max(g.num_columns, 1), 8 * g.num_rows), g.num_rows) for g in groups]
    return tuple(parquet.schema_arrow.names), sizes
