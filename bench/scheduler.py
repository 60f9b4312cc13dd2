"""What a scan costs beyond its work: against partitions, workers, and the size of the sums.

Kernels do nothing and return sums of a given size. Many workers are simulated, see `bench.crowd`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd

from bench.contestants.process import cpu_seconds
from bench.crowd import crowd
from bench.data import Start
from bench.measure import report, seconds_per_iteration
from bench.scaling import forced
from dask_em.execution.base import Unit
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.local import LocalExecutor

SUMS = 8 * 66
"""Numbers in the sums of 8 components in 10 columns."""

WARM_UP = 3
"""Scans that are not measured."""


def run(
    partitions: tuple[int, ...], workers: tuple[int, ...], megabytes: tuple[float, ...], scans: int, rounds: int
) -> None:
    """Partitions on two real workers, simulated workers, and sums of some size on two real workers: a table each."""
    executor = DaskExecutor(n_workers=2)
    try:
        report(
            "scheduler-partitions", list(_partitions(executor, partitions, scans, rounds)), scans=scans, rounds=rounds
        )
        report("scheduler-sums", list(_sizes(executor, megabytes, scans)), scans=scans)
    finally:
        executor.close()
    report("scheduler-workers", list(_workers(workers, scans)), scans=scans)


def _partitions(
    executor: DaskExecutor, partitions: tuple[int, ...], scans: int, rounds: int
) -> Iterator[dict[str, Any]]:
    for n in partitions:
        cost = scan_cost(executor, n, SUMS, scans)
        yield {"who": "empty scan, 2 workers", "partitions": n, "tasks": cost["tasks"], "ms a scan": cost["wall"]}
    table, start = _slow_table(40_960, 10, 8)
    work = seconds_per_iteration(lambda n: forced(table, start, n, LocalExecutor(1)), 1, 1 + 3 * scans, rounds)
    for n in partitions[1::3] or partitions:
        frame = dd.from_pandas(pd.DataFrame(table).rename(columns=str), npartitions=n)
        seconds = seconds_per_iteration(
            partial(_fit, frame, start, executor), 1, 1 + 3 * scans, rounds, clock=time.perf_counter
        )
        yield {"who": "EM beyond its kernel, 2 workers", "partitions": n, "ms a scan": 1e3 * (seconds - work)}


def _sizes(executor: DaskExecutor, megabytes: tuple[float, ...], scans: int) -> Iterator[dict[str, Any]]:
    for size in megabytes:
        cost = scan_cost(executor, 4, int(size * 2**17), scans)
        yield {"who": "empty scan, 2 workers", "MB a task": size, "tasks": cost["tasks"], "ms a scan": cost["wall"]}


def _fit(frame: Any, start: Start, executor: Any, n: int) -> Any:
    return forced(frame, start, n, executor)


def _workers(workers: tuple[int, ...], scans: int) -> Iterator[dict[str, Any]]:
    for n in workers:
        with crowd(n) as (client, pids):
            cost = scan_cost(DaskExecutor(client), 16 * n, SUMS, scans, pids)
        yield {
            "who": "empty scan, simulated workers", "workers": n, "partitions": 16 * n, "tasks": cost["tasks"], "ms a scan": cost["wall"],
            "scheduler ms": cost["scheduler"], "workers ms": cost["workers"], "client ms": cost["client"],
            "scheduler ms a task": cost["scheduler"] / cost["tasks"],
        }  # fmt: skip


def scan_cost(
    executor: DaskExecutor, partitions: int, size: int, scans: int, pids: dict[str, int] | None = None
) -> dict[str, float]:
    """Milliseconds of a scan: wall, and processor time of the client and of the processes given; and how many tasks walk blocks."""
    units = [Unit((i,), 1, i, 1) for i in range(partitions)]
    blocks = executor.open(units, _no_rows)
    everybody = {"client": os.getpid(), **(pids or {})}
    wall = []
    try:
        state = executor.fold(blocks, partial(_ask, size), _tell, 0)
        for i in range(WARM_UP + scans):
            if i == WARM_UP:
                before = {who: cpu_seconds([pid]) for who, pid in everybody.items()}
            began = time.perf_counter()
            # As a fit does: the next scan is asked for before the last one is looked at.
            ahead = executor.fold(blocks, partial(_ask, size), _tell, state)
            executor.look(state, _seen)
            state = ahead
            wall.append(time.perf_counter() - began)
        spent = {who: 1e3 * (cpu_seconds([pid]) - before[who]) / scans for who, pid in everybody.items()}
        executor.look(state, _seen)
    finally:
        executor.release(blocks)
    return {"wall": 1e3 * median(wall[WARM_UP:]), "tasks": len(blocks.runs), **spent}


def _no_rows(unit: Unit, pieces: Any) -> list[None]:
    return [None] * unit.n_blocks


def _ask(size: int, state: Any) -> Callable[[Any], np.ndarray]:
    return lambda block: np.ones(size)


def _tell(state: int, total: np.ndarray) -> int:
    return state + 1


def _seen(state: int) -> int:
    return state


def _slow_table(rows: int, dim: int, k: int) -> tuple[np.ndarray, Start]:
    """A table without clusters, on which EM takes hundreds of steps."""
    X = np.random.default_rng(0).normal(size=(rows, dim))
    return X, Start(np.full(k, 1.0 / k), X[:k], np.repeat(np.eye(dim)[None], k, axis=0))
