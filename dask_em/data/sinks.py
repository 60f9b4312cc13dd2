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

from dask_em.errors import OutputError


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
                    writer = pq.ParquetWriter(temporary, table.schema)
                writer.write_table(table, row_group_size=max(table.num_rows, 1))
                rows += table.num_rows
        finally:
            if writer is not None:
                writer.close()
        path = os.path.join(self.folder, name)
        os.replace(temporary, path)
        return Receipt(path, rows)


def check_vacant(folder: str | os.PathLike[str]) -> None:
    """Raise OutputError unless the folder is absent or empty."""
    if "://" in str(folder):
        raise OutputError("the output must be a folder on this machine or a mounted one, not a URL: choose another")
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"output folder {path} is not empty: choose another, or remove it first")


@contextmanager
def staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A staging folder beside `folder` that takes its place when the block ends well, and vanishes when it does not."""
    check_vacant(folder)
    target = Path(folder).absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = target.parent / f".{target.name}.{secrets.token_hex(4)}"
        staging.mkdir()
    except OSError as error:
        raise OutputError(f"output folder {folder} cannot be made ({error.strerror}): choose another") from None
    try:
        yield staging
        if target.exists():
            target.rmdir()
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
