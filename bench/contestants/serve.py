"""One contestant of a benchmark, in a process of its own: it loads the task once and runs as many EM steps as it is told, on request.

A line with a number on standard input asks for a fit with that many steps, and is answered by {"seconds", "iterations"}; `found` asks for the
parameters that the last fit found, which are saved as FOLDER/found.npz, and for the peak memory. Standard output carries nothing
but these answers, so what a library prints goes to standard error. Contestants may live in another Python with other packages: this
file needs NumPy and nothing else.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from process import children, cpu_seconds, forget_peaks, memory_mb

WARM_UP_ROWS = 100_000
"""Rows of a first fit that is not measured: it loads libraries and compiles code."""


def serve(
    package: str,
    prepare: Callable[[np.ndarray, dict[str, Any], dict[str, np.ndarray]], Any],
    fit: Callable[[Any, int], Any],
    found: Callable[[Any], tuple[int, dict[str, np.ndarray]]],
) -> None:
    """Answer requests until standard input ends.

    Parameters
    ----------
    package : whose version is told
    prepare : what the table (rows, columns), the settings and the start become, once
    fit : a fit of what was prepared with so many EM steps; the only thing that is timed
    found : the EM steps that a fit really took, and its parameters
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    settings = json.loads((folder / "settings.json").read_text())
    with np.load(folder / "start.npz") as file:
        start = dict(file)
    X = np.load(folder / "X.npy")
    found(fit(prepare(X[:WARM_UP_ROWS], settings, start), 2))
    everybody = [os.getpid(), *children()]
    forget_peaks(everybody)
    before = memory_mb(everybody)
    prepared = prepare(X, settings, start)

    def clock() -> float:
        # Alone on a core, processor time is what counts: a busy neighbour does not change it. A Java machine is a child.
        return time.perf_counter() if settings["clock"] == "wall" else time.process_time() + cpu_seconds(everybody[1:])

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    answer(version=version(package), python=platform.python_version())
    last: dict[str, np.ndarray] = {}
    for line in sys.stdin:
        if line.strip() == "found":
            np.savez(folder / "found.npz", **last)
            answer(mb=memory_mb(everybody, peak=True) - before)
            continue
        began = clock()
        model = fit(prepared, int(line))
        seconds = clock() - began
        iterations, last = found(model)
        answer(seconds=seconds, iterations=iterations)
