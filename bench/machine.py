"""What one core of this machine can do at best: matrix products, reading memory, reading Parquet."""

from __future__ import annotations

from collections.abc import Callable
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from bench.measure import report


def product_rate(n: int = 2000) -> float:
    """GFLOP/s of one core in the product of two large square matrices."""
    a, b = np.random.default_rng(0).normal(size=(2, n, n))
    out = np.empty((n, n))
    with threadpool_limits(1):
        return 2e-9 * n**3 / fastest(lambda: np.matmul(a, b, out=out))


def memory_rate(mb: int = 800) -> float:
    """GB/s that one core reads of an array much larger than the cache: its product with itself."""
    a = np.ones(mb * 125_000)
    with threadpool_limits(1):
        return a.nbytes / 1e9 / fastest(lambda: a.dot(a))


def parquet_rate(rows: int = 1_000_000, dim: int = 10) -> float:
    """GB/s of float64 that one thread decodes from a Parquet file, written with pyarrow's defaults, in the page cache."""
    X = np.random.default_rng(0).normal(size=(rows, dim))
    with TemporaryDirectory() as folder:
        pq.write_table(pa.table({f"x{j}": column for j, column in enumerate(X.T)}), f"{folder}/X.parquet")
        return X.nbytes / 1e9 / fastest(lambda: pq.read_table(f"{folder}/X.parquet", use_threads=False))


def fastest(run: Callable[[], object], repeats: int = 5) -> float:
    """Processor seconds of the fastest of a few runs."""
    seconds = []
    for _ in range(repeats):
        began = process_time()
        run()
        seconds.append(process_time() - began)
    return min(seconds)


def run(scale: float) -> None:
    """All limits; a scale below 1 makes the arrays smaller."""
    lines = [
        {"who": "product of two matrices", "rate": product_rate(int(2000 * scale)), "unit": "GFLOP/s"},
        {"who": "reading memory", "rate": memory_rate(int(800 * scale)), "unit": "GB/s"},
        {"who": "reading Parquet", "rate": parquet_rate(int(1e6 * scale)), "unit": "GB/s of float64"},
    ]
    report("machine", lines)
