"""Seconds per EM iteration of a mixture of normals: ours, scikit-learn's, oneDAL's and Spark's."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from bench.contest import Contestant, Task, hold
from bench.data import mixture
from bench.machine import product_rate
from bench.measure import report

JUDGED_ROWS = 100_000
"""Rows whose mean log-likelihood is told."""

SKLEARN = Contestant("scikit-learn", "with_sklearn.py", steps=(1, 5))
DAAL4PY = Contestant(
    "daal4py",
    "with_daal4py.py",
    remedy="In an environment of its own: pip install daal4py 'numpy<2' 'scikit-learn<1.6' packaging scipy; then --daal4py ITS_PYTHON",
)
SPARK = Contestant(
    "Spark", "with_spark.py", steps=(1, 4), own_start=True, remedy="pip install 'dask-em[bench]', and Java 17 or later"
)  # fmt: skip


def run(
    rows: int, dim: int, k: int, model: str, missing: float, threads: int, rounds: int, daal4py: str | None, without: tuple[str, ...]
) -> None:  # fmt: skip
    """One table; with missing cells ours beside ours, with more threads than one also one thread of ours."""
    # Components that overlap keep EM going; random means are the further apart the more columns there are.
    spread = 10 / max(dim, 10)
    X, start = mixture(rows, dim, k, spread=spread, diagonal=model == "diag")
    settings = {"model": model, "k": k, "threads": threads, "clock": "wall" if threads > 1 else "processor"}
    task = Task(X, asdict(start), settings, lambda found: mean_log_likelihood(X[:JUDGED_ROWS], **found))
    ours = Contestant(f"dask_em, {threads} thread{'s'[: threads > 1]}", "with_dask_em.py", steps=(2, 12))
    contestants = [ours]
    if threads > 1:
        contestants.append(replace(ours, who="dask_em, 1 thread", settings={"threads": 1}))
    if missing:
        holed, _ = mixture(rows, dim, k, missing, spread=spread, diagonal=model == "diag")
        contestants.append(replace(ours, who=f"dask_em, {missing:.0%} of cells missing", X=holed))
    else:
        contestants += [SKLEARN, replace(DAAL4PY, python=daal4py or DAAL4PY.python)]
        contestants += [SPARK] if model == "full" else []
    lines, versions = hold(task, [c for c in contestants if c.who not in without], rounds)
    if threads == 1:
        lines.append(floor(rows, k, 1 + dim + (dim * (dim + 1) // 2 if model == "full" else dim)))
    name = {"full": "gmm", "diag": "diagonal"}[model] + f"-{rows}x{dim}-k{k}"
    name += "-missing" * bool(missing) + f"-{threads}-threads" * (threads > 1)
    report(name, lines, versions, rows=rows, dim=dim, k=k, missing=missing, threads=threads, rounds=rounds)


def floor(rows: int, k: int, features: int) -> dict[str, Any]:
    """What the two matrix products of an iteration take at the rate of large matrices."""
    rate = product_rate()
    seconds = 4e-9 * rows * k * features / rate
    return {
        "who": f"two matrix products at {rate:.0f} GFLOP/s",
        "s/iteration": seconds,
        "M rows/s": rows / seconds / 1e6,
    }


def mean_log_likelihood(X: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> float:
    """Mean log density of rows under a mixture, the slow and obvious way; diagonal covariances as (k, d)."""
    if covariances.ndim == 2:
        covariances = covariances[:, :, None] * np.eye(X.shape[1])
    logs = []
    for weight, mean, covariance in zip(weights, means, covariances):
        root = np.linalg.cholesky(covariance)
        distance = (np.linalg.solve(root, (X - mean).T) ** 2).sum(axis=0)
        constant = np.log(weight) - np.log(np.diag(root)).sum() - len(mean) / 2 * np.log(2 * np.pi)
        logs.append(constant - distance / 2)
    return float(np.logaddexp.reduce(logs, axis=0).mean())
