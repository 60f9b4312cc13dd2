"""Parquet parts, written beside their final place and moved there in one step.

Each part is written by whoever computed it; nothing appears under the final name until all parts are complete.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dask_em.errors import DataError, OutputError


@dataclass(frozen=True)
class Receipt:
    """What was written: the file and its rows."""

    path: str
    rows: int


@dataclass(frozen=True)
class ParquetSink:
    """A folder of Parquet parts under construction."""

    folder: str

    def write(self, part: int, tables: Iterable[pa.Table]) -> Receipt:
        """Write one part, a row group for each table; a repeated write of the same part replaces it."""
        name = f"part-{part:05d}.parquet"
        temporary = os.path.join(self.folder, f".{name}.{secrets.token_hex(4)}")
        writer, rows = None, 0
        try:
            for table in tables:
                if writer is None:
                    writer = _writer(temporary, table.schema)
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
                rows += table.num_rows
        finally:
            if writer is not None:
                writer.close()
        path = os.path.join(self.folder, name)
        os.replace(temporary, path)
        return Receipt(path, rows)


def _writer(path: str, schema: pa.Schema) -> pq.ParquetWriter:
    try:
        return pq.ParquetWriter(path, schema)
    except pa.ArrowNotImplementedError:
        for own in schema:
            try:
                pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([own])).close()
            except pa.ArrowNotImplementedError:
                what = f"column {own.name!r} has the type {own.type}, which Parquet files do not have"
                raise DataError(f"{what}: convert it or leave it out") from None
        raise


def check_vacant(folder: str | os.PathLike[str]) -> None:
    """Raise OutputError unless the folder is absent or empty."""
    if "://" in str(folder):
        raise OutputError("the output must be a folder on this machine or a mounted one, not a URL: choose another")
    path = Path(folder)
    try:
        vacant = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    except (OSError, ValueError) as error:
        raise not_made(folder, error) from None
    if not vacant:
        raise OutputError(f"output folder {path} is not empty: choose another, or remove it first")


def check_apart(tables: str, output: str | os.PathLike[str]) -> None:
    """Raise OutputError if an output would be among the files of the folder that a table is read from; nothing where it is read from another place."""
    if not tables or "://" in str(output):
        return
    try:
        own = Path(os.path.realpath(output))
    except ValueError as error:
        raise not_made(output, error) from None
    if own.is_relative_to(os.path.realpath(tables)):
        raise OutputError(
            f"output folder {output} is inside the folder of the table, which would hold it from then on: choose another"
        )


def not_made(folder: object, error: OSError | ValueError) -> OutputError:
    """What is said where a folder cannot be made; of a name with a NUL Python says a ValueError."""
    why = getattr(error, "strerror", None) or "its name is none"
    return OutputError(f"output folder {str(folder)[:200]!r} cannot be made ({why}): choose another")


@contextmanager
def staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A staging folder beside `folder` that takes its place when the block ends well, and vanishes when it does not."""
    check_vacant(folder)
    target = Path(folder).absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        staging.mkdir()
    except (OSError, ValueError) as error:
        raise not_made(folder, error) from None
    try:
        yield staging
        if target.exists():
            target.rmdir()
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
