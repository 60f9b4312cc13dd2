"""Seconds and scans to the best optimum, and to the best model: overlapping components, several starts."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bench.data import mixture
from bench.measure import report
from dask_em import GaussianMixture, select_model
from dask_em.execution.local import LocalExecutor

OVERLAP = 0.3
"""Spread of the means, as a share of that of the workload `gmm`: components overlap, and EM creeps."""


def run_solve(rows: int, dim: int, k: int, n_init: int, tol: float, overlap: float, daal4py: str | None) -> None:
    """One number of components, several starts, beside scikit-learn's usual way with a large table."""
    X, _ = mixture(rows, dim, k, spread=2.0 * overlap)
    one = LocalExecutor(n_threads=1)
    _warm_up(X, one)

    def ours(**settings: Any) -> GaussianMixture:
        return GaussianMixture(k, tol=tol, random_state=0, executor=one, **settings).fit(X)

    model, seconds = _timed(lambda: ours(n_init=n_init))
    out = [{"who": f"dask_em, {n_init} starts", "cpu s": seconds, "scans": model.n_scans_,
            "mean ll": model.log_likelihood_ / rows}]  # fmt: skip
    peer, seconds = _timed(lambda: _theirs(X, k, n_init))
    out.append({"who": f"scikit-learn, {n_init} starts on 50,000 rows, then all at 1e-3", "cpu s": seconds,
                "scans": peer.n_iter_, "mean ll": float(peer.score(X))})  # fmt: skip
    if daal4py is not None:
        out.append(_daal4py(daal4py, X, k, n_init, tol))
    report("solve", out, rows=rows, dim=dim, k=k, n_init=n_init, tol=tol, overlap=overlap)


def run_sweep(rows: int, dim: int, k: tuple[int, int], n_init: int, true_k: int) -> None:
    """Every number of components with several starts, chosen by BIC; and what a scan of all of them costs."""
    X, _ = mixture(rows, dim, true_k)
    one = LocalExecutor(n_threads=1)
    _warm_up(X, one)
    sizes = range(k[0], k[1] + 1)
    found, seconds = _timed(lambda: select_model(X, sizes, n_init=n_init, random_state=0, executor=one))
    out = [{"who": f"dask_em, k={k[0]}..{k[1]}, {n_init} starts each", "cpu s": seconds, "scans": found.best.n_scans_,
            "k": found.best.n_components}]  # fmt: skip
    together, alone = _scan_of(X, list(sizes), one), _scan_of(X, [sum(sizes)], one)
    out.append({"who": "one scan with all candidates", "cpu s": together, "ratio": together / alone})
    out.append({"who": f"one scan with {sum(sizes)} components in one", "cpu s": alone})
    report("sweep", out, rows=rows, dim=dim, k=f"{k[0]}..{k[1]}", n_init=n_init, true_k=true_k)


def _scan_of(X: np.ndarray, sizes: list[int], executor: Any) -> float:
    """CPU seconds of one scan of these candidates, the best of a few."""
    from dask_em.families import Gaussian
    from dask_em.mixture import Mixture
    from dask_em.scan import Block

    d = X.shape[1]
    standard = (X - X.mean(axis=0)) / X.std(axis=0)
    model = Mixture((Gaussian("VVV", d),), np.ones((1, d), dtype=bool), compiled=True)
    blocks = [
        Block((np.ascontiguousarray(part.T),), np.ones(len(part)), np.zeros(len(part)), np.ones((1, d), dtype=bool),
              np.array([0, len(part)]))
        for part in np.array_split(standard, max(1, len(X) // 131_072))
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    start = model.margin(sizes)
    start.parts[0].means[:] = rng.normal(size=(sum(sizes), d))
    seconds = []
    with threadpool_limits(1):
        for _ in range(4):
            began = process_time()
            step = model.e_step(start, sizes)
            for block in blocks:
                step(block)
            seconds.append(process_time() - began)
    return min(seconds)


def _theirs(X: np.ndarray, k: int, n_init: int) -> Any:
    from sklearn.mixture import GaussianMixture as Peer

    rng = np.random.default_rng(0)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        sample = X[rng.choice(len(X), min(50_000, len(X)), replace=False)]
        first = Peer(k, n_init=n_init, random_state=0).fit(sample)
        return Peer(
            k, weights_init=first.weights_, means_init=first.means_, precisions_init=first.precisions_, random_state=0
        ).fit(X)


DAAL4PY = """
import sys, time
import daal4py, numpy
X = numpy.load(sys.argv[1]); k, n_init, tol = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
daal4py.daalinit(1)
began, best, steps = time.process_time(), -numpy.inf, 0
for seed in range(n_init):
    means = X[numpy.random.default_rng(seed).choice(len(X), k, replace=False)]
    fit = daal4py.em_gmm(nComponents=k, maxIterations=500, accuracyThreshold=tol * len(X), covarianceStorage="full")
    found = fit.compute(X, numpy.full((1, k), 1 / k), means, [numpy.cov(X[:20000].T)] * k)
    steps += int(numpy.ravel(found.nIterations)[0])
    best = max(best, float(numpy.ravel(found.goalFunction)[0]) / len(X))
print(time.process_time() - began, steps, best)
"""


def _daal4py(python: str, X: np.ndarray, k: int, n_init: int, tol: float) -> dict[str, Any]:
    """oneDAL's EM on all rows from random starts, in a Python that has it: it needs an older NumPy than ours."""
    with TemporaryDirectory() as folder:
        np.save(f"{folder}/X.npy", X)
        command = [python, "-c", DAAL4PY, f"{folder}/X.npy", str(k), str(n_init), str(tol)]
        seconds, steps, mean = map(float, subprocess.check_output(command).split())
    return {"who": f"daal4py, {n_init} starts on all rows", "cpu s": seconds, "scans": int(steps), "mean ll": mean}


def _warm_up(X: np.ndarray, executor: Any) -> None:
    """Compiled code is loaded once."""
    GaussianMixture(2, random_state=0, executor=executor, max_iter=50).fit(X[:200_000])


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    began = process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = run()
    return found, process_time() - began
