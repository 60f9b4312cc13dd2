"""Timing, memory, and results as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.contestants.process import forget_peaks, memory_mb

RESULTS = Path(__file__).parent / "results"


def seconds_per_iteration(
    run: Callable[[int], Any],
    low: int,
    high: int,
    repeats: int = 3,
    clock: Callable[[], Any] = time.process_time,
) -> Any:
    """Slope between two forced numbers of iterations, so that start-up, copies and closing passes drop out.

    The median of `repeats` pairs, after a first run that loads and compiles code. CPU seconds of this process by default, which a busy neighbour does not change; where other
    processes work, pass time.perf_counter, or a clock that tells several times at once, as an array.
    """
    run(low)
    slopes = []
    for _ in range(repeats):
        times = []
        for n in (low, high):
            start = clock()
            run(n)
            times.append(clock() - start)
        slopes.append((times[1] - times[0]) / (high - low))
    return np.median(slopes, axis=0)


def timed(work: Callable[[], Any]) -> tuple[Any, np.ndarray]:
    """What work comes to, and its seconds by the wall and of this process."""
    wall, processor = time.perf_counter(), time.process_time()
    out = work()
    return out, np.array([time.perf_counter() - wall, time.process_time() - processor])


@contextmanager
def watched(module: Any, name: str) -> Iterator[list[np.ndarray]]:
    """Times of all calls of a function of a module, or of a method of a class."""
    function, times = getattr(module, name), []

    def called(*args: Any, **settings: Any) -> Any:
        out, own = timed(lambda: function(*args, **settings))
        times.append(own)
        return out

    setattr(module, name, called)
    try:
        yield times
    finally:
        setattr(module, name, function)


def peak_growth_mb(run: Callable[[], Any]) -> float:
    """How far the resident memory of this process rises above its present level while `run` works."""
    own = [os.getpid()]
    forget_peaks(own)
    before = memory_mb(own)
    run()
    return memory_mb(own, peak=True) - before


def afresh(work: Callable[..., Any], *args: Any) -> Any:
    """What work comes to in a process of its own, where memory that others have given back is not there to be used again."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *args).result()


def report(name: str, results: list[dict[str, Any]], versions: dict[str, str] | None = None, **settings: Any) -> None:
    """Print a table and write bench/results/NAME.json, or into the folder that BENCH_RESULTS names."""
    table = Table(title=f"{name}  " + "  ".join(f"{key}={value}" for key, value in settings.items()))
    columns = list(dict.fromkeys(key for row in results for key in row))
    for column in columns:
        table.add_column(column, justify="left" if column == "who" else "right")
    for row in results:
        table.add_row(*(f"{row[c]:.4g}" if isinstance(row.get(c), float) else str(row.get(c, "")) for c in columns))
    Console(width=160).print(table)
    own = {p: version(p) for p in ("dask", "distributed", "numba", "numpy", "pandas", "pyarrow") if find_spec(p)}
    document = {
        "settings": settings,
        "results": results,
        "machine": {"cpu": _cpu(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **own, **(versions or {})},
    }
    folder = Path(os.environ.get("BENCH_RESULTS", RESULTS))
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _cpu() -> str:
    """The processor's name (Linux)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
