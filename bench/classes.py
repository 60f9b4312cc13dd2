"""Seconds per EM iteration of latent classes: ours, pypolca's and stepmix's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.contest import Contestant, Task, hold
from bench.data import answers
from bench.measure import report

PYPOLCA = Contestant(
    "pypolca",
    "with_pypolca.py",
    steps=(2, 12),
    remedy="In an environment of its own with Python 3.12: pip install polca; then --pypolca ITS_PYTHON",
)
STEPMIX = Contestant(
    "stepmix", "with_stepmix.py", steps=(1, 4), own_start=True, remedy="pip install 'dask-em[bench]'"
)  # fmt: skip


def run(
    rows: int, items: int, levels: int, k: int, missing: float, rounds: int, pypolca: str | None, without: tuple[str, ...]
) -> None:  # fmt: skip
    """All on one thread."""
    X, start = answers(rows, items, levels, k, missing)
    task = Task(
        X,
        start,
        {"model": "classes", "k": k, "threads": 1, "clock": "processor"},
        lambda found: mean_log_likelihood(X, **found),
    )
    ours = Contestant("dask_em, 1 thread", "with_dask_em.py", steps=(2, 12), settings={"compress": False})
    compressed = replace(ours, who="dask_em, distinct rows", settings={"compress": True})
    contestants = [ours, compressed, replace(PYPOLCA, python=pypolca or PYPOLCA.python), STEPMIX]
    lines, versions = hold(task, [c for c in contestants if c.who not in without], rounds)
    report(
        f"classes-{rows}x{items}-k{k}", lines, versions,
        rows=rows, items=items, levels=levels, k=k, missing=missing, rounds=rounds,
    )  # fmt: skip


def mean_log_likelihood(X: np.ndarray, weights: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean log probability of answers, the slow and obvious way; probabilities as (k, items, levels)."""
    logs = np.log(weights) + np.zeros((len(X), 1))
    for j, column in enumerate(X.T):
        logs += np.where(column[:, None] < 0, 0.0, np.log(probabilities[:, j] + 1e-300).T[column])
    return float(np.logaddexp.reduce(logs, axis=1).mean())
