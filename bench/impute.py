"""A multivariate normal with missing cells: one scan plus EM, bootstrap replicates, files, and the tool that people would use instead."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import dask.dataframe as dd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from dask import compute, delayed
from threadpoolctl import threadpool_limits

from bench.measure import afresh, peak_growth_mb, report
from dask_em import Imputer, MultivariateNormal, normal_fitting
from dask_em.data.gather import Bootstrap
from dask_em.data.schema import Design
from dask_em.data.sources import open_source
from dask_em.execution.local import READERS, LocalExecutor
from dask_em.normal_fitting import NormalFit

ROUNDS = 3
"""Turns of everything that reads files; the fastest is told."""


def table(rows: int, dim: int, missing: float, seed: int = 5) -> np.ndarray:
    """Correlated normals, cells missing completely at random."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, dim)) @ rng.normal(size=(dim, dim)) + 3.0 * rng.normal(size=dim)
    X[rng.random(X.shape) < missing] = np.nan
    return X


def timed(run: Any) -> tuple[float, Any]:
    """CPU seconds of the second of two runs: the first loads compiled code."""
    run()
    start = process_time()
    result = run()
    return process_time() - start, result


def fitted(X: np.ndarray) -> MultivariateNormal:
    """The normal of a table, on one thread."""
    return MultivariateNormal(executor=LocalExecutor(1)).fit(X)


def replicated(n_replicates: int, X: np.ndarray) -> NormalFit:
    """The same with bootstrap replicates."""
    source, one = open_source(X), LocalExecutor(1)
    design, bootstrap = Design(gaussian=source.columns), Bootstrap(n_replicates, 0)
    return normal_fitting.fit(source, design, "weak", 1e-8, 10000, one, bootstrap=bootstrap)


def imputer(n_replicates: int, X: np.ndarray) -> Imputer:
    """The same as an Imputer, which profiles first."""
    return Imputer("normal", n_replicates=n_replicates, random_state=0, executor=LocalExecutor(1)).fit(X)


def peak(fit: Callable[[np.ndarray], Any], rows: int, dim: int, missing: float) -> float:
    """How far the memory of a process that holds the table rises while it fits, in MB; of compiled code too."""
    X = table(rows, dim, missing)
    return peak_growth_mb(partial(fit, X))


def run(rows: int, dim: int, missing: float, replicates: int, files: int) -> None:
    """Every line of the table, on one thread."""
    # First, for readers allocate: what a process has freed before decides how long that takes.
    read = from_files(rows, dim, missing, files)
    X = table(rows, dim, missing)
    work: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[Any], float]]] = {
        "scan and EM": (fitted, lambda model: model.log_likelihood_),
        f"the same with {replicates} bootstrap replicates": (
            partial(replicated, replicates),
            lambda found: found.best.log_likelihoods[-1],
        ),
        "the same as an Imputer, which profiles first": (
            partial(imputer, replicates),
            lambda model: model.log_likelihood_,
        ),
    }
    out: list[dict[str, Any]] = []
    for who, (fit, log_likelihood) in work.items():
        seconds, model = timed(partial(fit, X))
        out.append({
            "who": f"dask_em, {who}",
            "cpu s": seconds,
            "ratio": seconds / out[0]["cpu s"] if out else 1.0,
            "peak MB": afresh(peak, fit, rows, dim, missing),
            "mean ll": log_likelihood(model) / rows,
        })  # fmt: skip
    out.append(peer(X))
    report("impute", out + read, rows=rows, dim=dim, missing=missing, replicates=replicates, files=files)


def peer(X: np.ndarray) -> dict[str, Any]:
    """scikit-learn's IterativeImputer, with its defaults, and what its filled table says of the observed cells."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    start = process_time()
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        filled = IterativeImputer(random_state=0).fit_transform(X)
    seconds = process_time() - start
    moments = MultivariateNormal(prior=None, executor=LocalExecutor(1)).fit(filled)
    return {
        "who": "scikit-learn IterativeImputer",
        "cpu s": seconds,
        "mean ll": observed_log_likelihood(X, moments) / len(X),
    }


def observed_log_likelihood(X: np.ndarray, moments: MultivariateNormal) -> float:
    """Log-likelihood of the observed cells of X under other parameters."""
    source = open_source(X)
    total = 0.0
    for piece in source.pieces:
        total += float(moments.model_.score(piece.read(source.columns))[1].sum())
    return total


class Scanning(LocalExecutor):
    """Threads that tell how long the last scan took."""

    seconds = 0.0

    def reduce(self, *work: Any) -> Any:
        start = perf_counter()
        found = super().reduce(*work)
        self.seconds = perf_counter() - start
        return found


def from_files(rows: int, dim: int, missing: float, files: int) -> list[dict[str, Any]]:
    """One scan of Parquet files beside readers that do nothing with what they read, with as many threads, wall time; `ratio` is the scan by theirs."""
    if not files:
        return []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(files):
            X = table(rows, dim, missing, seed=5)
            columns = {f"x{j}": pa.array(X[:, j], from_pandas=True) for j in range(dim)}
            pq.write_table(pa.table(columns), Path(folder) / f"part-{i:03d}.parquet", row_group_size=1 << 18)
        executor, source = Scanning(), open_source(folder)

        def dask(n_threads: int) -> int:
            lengths = map(delayed(len), dd.read_parquet(folder).to_delayed())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # what Dask does, pandas is to change
                return sum(compute(*lengths, scheduler="threads", num_workers=n_threads))

        def here(reader: Any) -> Callable[[], int]:
            return lambda: int(executor.reduce(source.pieces, partial(reader, source.columns)))

        def fit() -> int:
            model = MultivariateNormal(executor=executor).fit(source)
            assert model.n_scans_ == 1
            return files * rows

        work: dict[str, Callable[[], int]] = {
            f"read by Dask into partitions, {executor.n_threads} threads": partial(dask, executor.n_threads),
            f"read by Dask into partitions, {READERS * executor.n_threads} threads": partial(
                dask, READERS * executor.n_threads
            ),
            "read into columns of NumPy": here(_read_columns),
            "read into matrices of NumPy": here(_read_matrix),
            "read and dropped as Arrow's columns": here(_read),
            "scanned and fitted": fit,
        }
        out = []
        for where in ("memory", "disk"):
            seconds: dict[str, list[float]] = {name: [] for name in (*work, "scanned")}
            for _ in range(ROUNDS):
                for name, run in work.items():
                    if where == "disk":
                        forget(Path(folder))
                    start = perf_counter()
                    assert run() == files * rows
                    seconds[name].append(perf_counter() - start)
                seconds["scanned"].append(executor.seconds)
            scan = min(seconds["scanned"])
            for name, own in seconds.items():
                who = f"{files} files from {where}: {name}"
                out.append({"who": who, "wall s": min(own), "ratio": scan / min(own)})
    return out


def forget(folder: Path) -> None:
    """Put these files out of the page cache."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(columns: tuple[str, ...], i: int, piece: Any) -> int:
    return int(piece.read(columns).num_rows)


def _read_columns(columns: tuple[str, ...], i: int, piece: Any) -> int:
    return max(len(column.to_numpy()) for column in piece.read(columns).columns)


def _read_matrix(columns: tuple[str, ...], i: int, piece: Any) -> int:
    return len(np.column_stack([column.to_numpy() for column in piece.read(columns).columns]))
