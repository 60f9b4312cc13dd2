"""Many scans of a tiny table: whether they become slower, and how far the memory of scheduler, workers and client grows.

Every scan leaves traces in a scheduler, such as its log of tasks; what counts is that they stay small and that nothing is searched through them.
"""

from __future__ import annotations

import os
import time
import warnings
from statistics import median
from typing import Any

import numpy as np

from bench.contestants.process import memory_mb
from bench.crowd import crowd
from bench.measure import report
from dask_em import GaussianMixture
from dask_em.errors import ConvergenceWarning
from dask_em.execution.dask import DaskExecutor


def run(scans: int, rows: int, dim: int, k: int, workers: int) -> None:
    """One fit of so many scans: a table of the time of a scan and of memory, by tenths of the fit."""
    X = np.random.default_rng(0).normal(size=(rows, dim))
    with crowd(workers) as (client, own):
        pids = {"scheduler": own["scheduler"], "workers": own["workers"], "client": os.getpid()}
        times: list[float] = []
        memory: list[dict[str, float]] = []
        held: list[int] = []

        def look(record: Any) -> None:
            times.append(time.perf_counter())
            if len(times) % (scans // 10) == 0:
                memory.append({who: memory_mb([pid]) for who, pid in pids.items()})
                held.append(client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)))
                times[-1] = time.perf_counter()  # what is measured takes its time, which is none of a scan

        model = GaussianMixture(k, tol=0, max_iter=scans, random_state=0, executor=DaskExecutor(client))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit_candidates(X, [k], on_progress=look)
    report("soak", list(_tenths(times, memory, held)), scans=len(times), rows=rows, workers=workers)


def _tenths(times: list[float], memory: list[dict[str, float]], held: list[int]) -> Any:
    n = len(times) // 10
    spent = np.diff(times)
    first = median(spent[:n])
    for i, (own, tasks) in enumerate(zip(memory, held)):
        typical = median(spent[max(i * n - 1, 0) : (i + 1) * n - 1])
        grown = {f"{who} KB a scan": 1024 * (mb - memory[0][who]) / (i * n) if i else 0.0 for who, mb in own.items()}
        yield {
            "who": f"scans to {(i + 1) * n}", "ms a scan": 1e3 * typical, "times the first": typical / first, "tasks held": tasks,
            **{f"{who} MB": mb for who, mb in own.items()}, **grown,
        }  # fmt: skip
