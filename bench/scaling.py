"""Rows times 1, 2, 4, 8 from Parquet, on one and two workers: time a row and memory a worker should stay flat."""

from __future__ import annotations

import warnings
from dataclasses import replace
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.contestants.process import cpu_seconds, memory_mb
from bench.data import Start, mixture
from bench.measure import report, seconds_per_iteration
from dask_em import GaussianMixture
from dask_em.data.sources import Source, open_source
from dask_em.execution.dask import DaskExecutor


def run(
    rows: int, dim: int, k: int, factors: tuple[int, ...], workers: tuple[int, ...], blocks: str, steps: tuple[int, int], rounds: int
) -> None:  # fmt: skip
    """A cluster of processes of its own for every line, so that peaks of memory are its own too."""
    # Components that overlap keep EM going.
    X, start = mixture(rows * max(factors), dim, k, spread=1.0)
    lines = []
    with TemporaryDirectory() as folder:
        for i, part in enumerate(np.split(X, max(factors))):
            pq.write_table(pa.table({f"x{j}": c for j, c in enumerate(part.T)}), f"{folder}/part-{i}.parquet")
        del X, part
        source = open_source(folder)
        for n in workers:
            for factor in factors:
                first = replace(source, pieces=source.pieces[: len(source.pieces) * factor // max(factors)])
                lines.append(_measured(first, rows * factor, start, n, blocks, steps, rounds))
    report("scaling", lines, rows=rows, dim=dim, k=k, blocks=blocks, rounds=rounds)


def _measured(
    source: Source, rows: int, start: Start, workers: int, blocks: str, steps: tuple[int, int], rounds: int
) -> dict[str, Any]:
    executor = DaskExecutor(n_workers=workers, blocks=blocks)
    try:
        pids = list(executor.client.run(_pid).values())
        idle = memory_mb(pids) / workers
        seconds, spent = seconds_per_iteration(
            lambda n: forced(source, start, n, executor),
            *steps,
            repeats=rounds,
            clock=lambda: np.array([perf_counter(), cpu_seconds(pids)]),
        )
        peak = memory_mb(pids, peak=True) / workers
    finally:
        executor.close()
    return {
        "workers": workers,
        "rows": rows,
        "s/iteration": seconds,
        "ns a row, all workers": 1e9 * seconds * workers / rows,
        "of it processor": 1e9 * spent / rows,
        "idle MB a worker": idle,
        "peak MB a worker": peak,
    }


def _pid() -> int:
    import os

    return os.getpid()


def forced(table: Any, start: Start, iterations: int, executor: Any) -> GaussianMixture:
    """Our fit with a forced number of EM steps."""
    model = GaussianMixture(
        len(start.weights),
        prior=None,
        tol=0.0,
        max_iter=iterations,
        weights_init=start.weights,
        means_init=start.means,
        covariances_init=start.covariances,
        executor=executor,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(table)
    assert model.n_iter_ == iterations, "it converged before the forced number of steps"
    return model
