"""Timing, memory, and results as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def seconds_per_iteration(
    run: Callable[[int], Any],
    low: int,
    high: int,
    repeats: int = 3,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """Slope between two forced numbers of iterations, so that start-up, copies and closing passes drop out.

    The median of `repeats` pairs. CPU seconds of this process by default, which a busy neighbour does not change; where other
    processes work, pass time.perf_counter.
    """
    slopes = []
    for _ in range(repeats):
        times = []
        for n in (low, high):
            start = clock()
            run(n)
            times.append(clock() - start)
        slopes.append((times[1] - times[0]) / (high - low))
    return sorted(slopes)[len(slopes) // 2]


def peak_growth_mb(run: Callable[[], Any]) -> float:
    """How far the resident memory of this process rises above its present level while `run` works (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status_mb("VmRSS")
    run()
    return _status_mb("VmHWM") - before


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def report(name: str, results: list[dict[str, Any]], **settings: Any) -> None:
    """Print a table and write bench/results/NAME.json."""
    table = Table(title=f"{name}  " + "  ".join(f"{key}={value}" for key, value in settings.items()))
    columns = list(dict.fromkeys(key for row in results for key in row))
    for column in columns:
        table.add_column(column, justify="left" if column == "who" else "right")
    for row in results:
        table.add_row(*(f"{row[c]:.4g}" if isinstance(row.get(c), float) else str(row.get(c, "")) for c in columns))
    Console(width=160).print(table)
    RESULTS.mkdir(exist_ok=True)
    versions = {p: version(p) for p in ("dask", "numpy", "pandas", "pyarrow", "scikit-learn")}
    document = {
        "settings": settings,
        "results": results,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
