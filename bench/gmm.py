"""Seconds per EM iteration of a Gaussian mixture: ours and scikit-learn's, same data, same start, one BLAS thread each."""

from __future__ import annotations

import subprocess
import sys
import warnings
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

from bench.data import Start, mixture
from bench.measure import peak_growth_mb, report, seconds_per_iteration
from dask_em import GaussianMixture
from dask_em.execution.local import LocalExecutor


def ours(X: np.ndarray, start: Start, iterations: int, executor: object) -> GaussianMixture:
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
        model.fit(X)
    assert model.n_iter_ == iterations, "converged before the forced number of steps"
    return model


def theirs(X: np.ndarray, start: Start, iterations: int) -> float:
    """scikit-learn's fit with the same number of EM steps; the mean log-likelihood it reached."""
    from sklearn.mixture import GaussianMixture as Peer

    model = Peer(
        len(start.weights),
        reg_covar=0.0,
        tol=0.0,
        max_iter=iterations,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=np.linalg.inv(start.covariances),
    )
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        model.fit(X)
        return float(model.score(X[:100_000]))


def run(rows: int, dim: int, k: int, missing: float, executor: str, workers: int) -> None:
    """One workload; with missing cells the complete table is measured beside it."""
    out = []
    settings = {"rows": rows, "dim": dim, "k": k, "missing": missing, "executor": executor}
    X, start = mixture(rows, dim, k)
    one = LocalExecutor(n_threads=1)
    complete = seconds_per_iteration(lambda n: ours(X, start, n, one), 2, 7)
    score = ours(X, start, 7, one).score(X[:100_000])
    out.append(
        {"who": "dask_em, 1 thread", "s/iteration": complete, "M rows/s": rows / complete / 1e6, "mean ll at 7": score}
    )
    if missing:
        holed, _ = mixture(rows, dim, k, missing)
        seconds = seconds_per_iteration(lambda n: ours(holed, start, n, one), 2, 7)
        out.append({"who": f"dask_em, {missing:.0%} missing", "s/iteration": seconds, "M rows/s": rows / seconds / 1e6,
                    "ratio to complete": seconds / complete})  # fmt: skip
    elif executor == "dask":
        out += _on_dask(X, start, complete, workers)
    else:
        seconds = seconds_per_iteration(lambda n: theirs(X, start, n), 2, 5, repeats=1)
        out.append({"who": "scikit-learn, 1 thread", "s/iteration": seconds, "M rows/s": rows / seconds / 1e6,
                    "mean ll at 7": theirs(X, start, 7), "ratio to ours": seconds / complete})  # fmt: skip
        command = [sys.executable, "-m", "bench", "gmm-memory", f"--rows={rows}", f"--dim={dim}", f"--k={k}"]
        out.append({"who": "memory beyond one encoded copy", "MB": float(subprocess.check_output(command))})
    report("gmm" + ("-missing" if missing else "-dask" if executor == "dask" else ""), out, **settings)


def _on_dask(X: np.ndarray, start: Start, complete: float, workers: int) -> list[dict[str, object]]:
    """The cost of a scan on a cluster beyond the work, with a table so small that there is none."""
    from distributed import Client, LocalCluster

    few, slow = _slow_table(2000, X.shape[1], len(start.weights))
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        empty = seconds_per_iteration(lambda n: ours(few, slow, n, client), 3, 23, clock=perf_counter)
        idle = seconds_per_iteration(lambda n: ours(few, slow, n, LocalExecutor(1)), 2, 7)
        seconds = seconds_per_iteration(lambda n: ours(X, start, n, client), 2, 7, clock=perf_counter)
    return [
        {"who": f"dask_em, {workers} workers", "s/iteration": seconds, "M rows/s": len(X) / seconds / 1e6, "ratio to 1 thread": seconds / complete},
        {"who": "overhead of a scan, ms", "s/iteration": empty, "ms": 1e3 * (empty - idle)},
        {"who": "overhead with the full table, ms", "ms": 1e3 * (seconds - complete / workers)},
    ]  # fmt: skip


def _slow_table(rows: int, dim: int, k: int) -> tuple[np.ndarray, Start]:
    """A table without clusters, on which EM takes hundreds of steps."""
    X = np.random.default_rng(0).normal(size=(rows, dim))
    return X, Start(np.full(k, 1.0 / k), X[:k], np.repeat(np.eye(dim)[None], k, axis=0))


def memory(rows: int, dim: int, k: int) -> None:
    """Print the peak memory of a fit beyond the table given and one encoded copy of it, in MB."""
    X, start = mixture(rows, dim, k)
    one = LocalExecutor(1)
    ours(X[:100_000], start, 2, one)  # libraries are loaded and code is compiled before the measurement
    print(peak_growth_mb(lambda: ours(X, start, 3, one)) - X.nbytes / 2**20)
