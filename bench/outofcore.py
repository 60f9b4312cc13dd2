"""A table of many Parquet files on workers with little memory: seconds a scan after the first, and what each worker takes at its peak."""

from __future__ import annotations

import logging
import os
import warnings
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client, LocalCluster

from bench.contestants.process import cpu_seconds, forget_peaks, memory_mb
from bench.data import Start, mixture
from bench.measure import report
from dask_em import GaussianMixture
from dask_em.execution.dask import DaskExecutor

FILES = 16


def run(rows: int, dim: int, k: int, workers: int, memory: str, tiers: tuple[str, ...], scans: int, group: int) -> None:
    """A cluster of its own for every tier, so that peaks of memory are its own too."""
    with TemporaryDirectory() as folder:
        start = write(Path(folder), rows, dim, k, group)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
        lines = [measured(folder, start, workers, memory, tier, scans) for tier in tiers]
    settings = {"rows": rows, "dim": dim, "k": k, "workers": workers, "memory": memory, "group": group}
    report("outofcore", lines, **settings, parquet_mb=round(size))


def write(folder: Path, rows: int, dim: int, k: int, group: int) -> Start:
    """The table, a file at a time: the same clusters in each, other noise."""
    X, start = mixture(rows // FILES, dim, k)
    noise = np.random.default_rng(1)
    for i in range(FILES):
        columns = {f"x{j}": c + 0.01 * noise.standard_normal(len(c)) for j, c in enumerate(X.T)}
        pq.write_table(pa.table(columns), folder / f"part-{i:02}.parquet", row_group_size=group)
    return start


def measured(folder: str, start: Start, workers: int, memory: str, tier: str, scans: int) -> dict[str, Any]:
    """One fit of a forced number of scans."""
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=memory,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        Client(cluster) as client,
    ):
        pids = sorted(client.run(os.getpid).values())
        idle = max(memory_mb([pid]) for pid in pids)
        fit(folder, start, DaskExecutor(client), 1, first=True)  # libraries are loaded and code is compiled
        ready = max(memory_mb([pid]) for pid in pids)
        forget_peaks(pids)
        begun = perf_counter()
        times, told, spent = fit(folder, start, DaskExecutor(client, blocks=tier), scans, pids=pids)
        peak = max(memory_mb([pid], peak=True) for pid in pids)
        assert sorted(client.run(os.getpid).values()) == pids, "a worker was lost"
    return {
        "blocks": tier,
        "are": told,
        "profile and first scan, s": times[0] - begun,
        "s a scan after": float(np.median([b - a for a, b in pairwise(times)])),
        "processor s a scan": spent,
        "MB idle": idle,
        "after a small fit": ready,
        "peak": peak,
    }


def fit(
    folder: str, start: Start, executor: Any, scans: int, first: bool = False, pids: list[int] | None = None
) -> tuple[list[float], str, float]:
    """When each scan was over, the tier as the log tells it, and the processor time of a scan after the first; where only the `first` file is wanted, of that."""
    model = GaussianMixture(
        len(start.weights), prior=None, tol=0.0, max_iter=scans, compress=False, executor=executor,
        weights_init=start.weights, means_init=start.means, covariances_init=start.covariances,
    )  # fmt: skip
    times, spent = [], []

    def look(record: Any) -> None:
        times.append(perf_counter())
        spent.append(cpu_seconds(pids or []))

    said = _Said()
    logger = logging.getLogger("dask_em")
    logger.addHandler(said)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit_candidates(
                f"{folder}/part-00.parquet" if first else folder, [len(start.weights)], on_progress=look
            )
    finally:
        logger.removeHandler(said)
    return times, said.tier, (spent[-1] - spent[0]) / max(len(spent) - 1, 1)


class _Said(logging.Handler):
    """Remembers which tier was chosen."""

    tier = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("blocks are "):
            self.tier = message.removeprefix("blocks are ").partition(":")[0]
