"""What an output says of itself.

manifest.json    every file: bytes, SHA-256, rows
run.json         of which run: settings, inputs, versions, times, results
_SUCCESS         last of all, for those who wait for it
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dask_em.errors import IntegrityError
from dask_em.operate import disk

MANIFEST, RECORD, SUCCESS = "manifest.json", "run.json", "_SUCCESS"


def seal(parts: Path, record: Mapping[str, Any]) -> None:
    """Check the parts of an output, and lay its manifest and its record beside them, durably."""
    names = sorted(_files(parts))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        entries = dict(zip(names, pool.map(lambda name: _entry(parts / name), names)))
    _check_schemas(parts, names)
    disk.write(parts / RECORD, as_json(record))
    disk.write(parts / MANIFEST, as_json({"run": record["run"], "files": entries}))
    disk.sync_tree(parts)


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of an output."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
    return manifest


def _files(folder: Path) -> Iterator[str]:
    for root, _, names in os.walk(folder):
        for name in names:
            yield (Path(root) / name).relative_to(folder).as_posix()


def _entry(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        entry: dict[str, Any] = {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }
    if path.suffix == ".parquet":
        entry["rows"] = pq.read_metadata(path).num_rows
    return entry


def _check_schemas(parts: Path, names: list[str]) -> None:
    """Parts of one table have one schema."""
    schemas: dict[str, pa.Schema] = {}
    for name in names:
        if name.endswith(".parquet"):
            own = pq.read_schema(parts / name)
            if not schemas.setdefault(os.path.dirname(name), own).equals(own):
                raise IntegrityError(
                    f"the parts of {os.path.dirname(name)} differ in their columns: report this as a bug"
                )


def as_json(value: Any) -> bytes:
    """Bytes for people and machines."""
    return json.dumps(value, indent=1).encode()
