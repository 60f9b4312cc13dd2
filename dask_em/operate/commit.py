"""An output appears whole, in one step, and says what it is.

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

OLD = "old"
"""Where an earlier output waits, beside the parts, while the new one takes its place."""


def publish(parts: Path, target: Path, record: Mapping[str, Any]) -> None:
    """Check what is in a folder, and let it take the place of the target."""
    names = sorted(_files(parts))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        entries = dict(zip(names, pool.map(lambda name: _entry(parts / name), names)))
    _check_schemas(parts, names)
    disk.write(parts / RECORD, _json(record))
    disk.write(parts / MANIFEST, _json({"run": record["run"], "files": entries}))
    disk.sync_tree(parts)
    if not target.exists():
        disk.rename(parts, target)
    elif not any(target.iterdir()):
        target.rmdir()
        disk.rename(parts, target)
    elif not disk.exchange(parts, target):  # a file system that cannot: for a moment there is no output
        disk.rename(target, parts.with_name(OLD))
        disk.rename(parts, target)
    disk.sync(target.parent)
    finish(target)


def restore(home: Path, target: Path) -> None:
    """Put an earlier output back whose successor never came."""
    if (home / OLD).exists() and not target.exists():
        disk.rename(home / OLD, target)
        disk.sync(target.parent)


def committed(target: Path) -> dict[str, Any] | None:
    """The record of the run whose output is here, if it is one."""
    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
        record: dict[str, Any] = json.loads((target / RECORD).read_bytes())
        return record if manifest["run"] == record["run"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finish(target: Path) -> None:
    """Say that the output is complete, unless that was said."""
    if not (target / SUCCESS).exists():
        disk.write(target / SUCCESS, b"")
        disk.sync(target)


def check_output(target: Path) -> None:
    """Compare every file of an output with its manifest.

    Raises
    ------
    IntegrityError
        A file is missing or is not what was written.
    """
    manifest = json.loads((target / MANIFEST).read_bytes())
    for name, entry in manifest["files"].items():
        if not (target / name).exists() or _entry(target / name) != entry:
            raise IntegrityError(f"{name} of {target.name} is not what was written: run the job again")


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


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
