"""What a run would read, keep and scan, told without reading a row: from the footers of Parquet files, the settings, and what this machine has.

Bounds hold whatever is in the table. They are wide where only the table can tell: alike rows are collapsed into one, so that a fit may need no scan at all, or it may go on to max_iter.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dask_em.config import ClusterConfig, ImputerConfig
from dask_em.data.compact import MIN_ROWS
from dask_em.data.files import COPIES
from dask_em.data.gather import MAX_BYTES
from dask_em.data.sources import Source
from dask_em.execution.tiers import SHARE, available_memory, choose, free_disk


@dataclass(frozen=True)
class Scans:
    """Fewest and most passes over a table; adds up."""

    at_least: int
    at_most: int

    def __add__(self, other: Scans) -> Scans:
        return Scans(self.at_least + other.at_least, self.at_most + other.at_most)

    def __or__(self, other: Scans) -> Scans:
        return Scans(min(self.at_least, other.at_least), max(self.at_most, other.at_most))

    def told(self) -> dict[str, int]:
        return {"at_least": self.at_least, "at_most": self.at_most}


ONE = Scans(1, 1)


def table(source: Source) -> dict[str, Any]:
    """Rows (None where only reading would tell), bytes and parts of a table."""
    sizes = [None if file.stamp is None else file.stamp.size for file in source.files]
    known = [size for size in sizes if size is not None]
    if source.files:
        size = sum(known) if len(known) == len(sizes) else None
    else:
        size = sum(map(sys.getsizeof, source.pieces))
    return {"rows": rows_of(source), "bytes": size, "partitions": len(source.pieces)}


def rows_of(source: Source) -> int | None:
    """How many rows a table has, where that is known before it is read."""
    if source.n_rows is not None:
        return source.n_rows
    rows = [getattr(piece, "n_rows", None) for piece in source.pieces]
    known = [n for n in rows if n is not None]
    return sum(known) if len(known) == len(rows) else None


def reading(source: Source, n_columns: int) -> int:
    """Bytes that a thread takes to read and encode the largest part of a table in files."""
    return COPIES * n_columns * max((getattr(piece, "column_bytes", 0) for piece in source.pieces), default=0)


def memory(cluster: ClusterConfig, n_bytes: int | None, per_thread: int = 0) -> dict[str, Any]:
    """Where blocks of at most so many bytes would be kept, and what a worker needs; None where only the cluster or the table can tell.

    Returns
    -------
    dict
        Of each worker: `memory_per_worker` bytes for blocks, of at most `memory_for_blocks`, and `reading_per_thread`; `blocks` is resident, mapped or streamed; `scratch_bytes` are written on all disks.
    """
    workers, limit = _workers(cluster)
    tier: str | None = None if cluster.blocks == "auto" else cluster.blocks
    if n_bytes is not None and workers is not None and limit is not None:
        disk = free_disk(cluster.scratch or tempfile.gettempdir())
        tier = choose(cluster.blocks, n_bytes, workers * limit, disk, "in the plan")
    each = None if n_bytes is None or workers is None else -(-n_bytes // workers)
    return {
        "workers": workers,
        "blocks": tier,
        "block_bytes": n_bytes,
        "memory_per_worker": each if tier == "resident" else None if tier is None else 0,
        "memory_for_blocks": None if limit is None else int(SHARE * limit),
        "reading_per_thread": per_thread,
        "scratch_bytes": n_bytes if tier == "mapped" else None if tier is None else 0,
    }


def _workers(cluster: ClusterConfig) -> tuple[int | None, int | None]:
    """How many workers there would be, and the memory of each."""
    if cluster.executor == "local":
        return 1, available_memory()
    if cluster.scheduler is None and cluster.cluster_class is None:
        from dask_em.execution.cluster import workers_here

        return workers_here(cluster.n_workers)
    return cluster.workers or (cluster.adaptive.maximum if cluster.adaptive else None), None


def mixture(rows: int | None, max_iter: int, *, searched: bool = False, held_out: bool = False) -> Scans:
    """Passes of a fit over a profiled table whose candidates fit into one wave; none but one where its rows are collapsed."""
    once = Scans(int(searched), int(searched))
    apart = Scans(2, max_iter + 2) if held_out else Scans(0, 0)
    by_rows = Scans(1, max_iter + 1) + once + apart
    return by_rows if rows is not None and rows < MIN_ROWS else by_rows | ONE


def imputer(settings: ImputerConfig, rows: int | None, columns: Sequence[str]) -> tuple[Scans, int | None]:
    """Passes of the fit of an imputer to these columns, and bytes of its blocks: of a normal there are none, unless its sums by pattern are too large."""
    d, r = len(columns), settings.n_replicates
    twice = mixture(rows, settings.max_iter) + Scans(0, settings.max_iter + 1)  # and from there the replicates
    n_bytes = None if rows is None or settings.predictors else rows * (8 * d + 16 + r)
    if settings.model == "mixture" or (settings.model is None and settings.n_components):
        return ONE + twice, n_bytes
    patterns = 2**d if rows is None else min(2**d, rows)
    normal, kept = Scans(1, 2), 0 if patterns * (1 + r) * 8 * (1 + d + d * (d + 1) // 2) <= MAX_BYTES else n_bytes
    if kept != 0 or settings.predictors:  # the levels of predictors are further columns
        normal, kept = normal | (Scans(2, 2) + twice), n_bytes
    normal = ONE + normal + Scans(0, 1) + (ONE if settings.predictors else Scans(0, 0))
    return (normal, kept) if settings.model == "normal" else (normal | (ONE + twice), n_bytes)
