"""What it costs to be able to go on: a checkpoint, the integrity checks of a run, and how soon a resumed run is at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import report, watched
from dask_em import GaussianMixture
from dask_em.data import pins
from dask_em.execution.local import LocalExecutor
from dask_em.operate import places
from dask_em.operate.journal import Journal, JournalExecutor

JOB = """\
pipeline: customer_segmentation
level: people
output: out
levels:
  people:
    source: {kind: table, path: people}
    key: id
    n_components: [5]
    model: {gaussian: [x0, x1, x2, x3, x4, x5, x6, x7, x8, x9], tol: 1.0e-8, n_init: 3}
"""


def run(rows: int, rounds: int) -> None:
    """One table; each figure by itself, on one core."""
    with tempfile.TemporaryDirectory() as folder, _one_core():
        home = Path(folder)
        _write(home / "people", rows)
        (home / "job.yaml").write_text(JOB)
        lines = [_checkpoint(home, rounds), *_checks(home, rounds), _resumed(home)]
    report("operate", lines, rows=rows, rounds=rounds)


@contextmanager
def _one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _write(folder: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(4):
        n = rows // 4
        X = rng.normal(size=(n, 10)) + 2.0 * rng.integers(0, 5, (n, 1))
        columns = {"id": np.arange(i * n, (i + 1) * n)} | {f"x{j}": X[:, j] for j in range(10)}
        pq.write_table(pa.table(columns), folder / f"part-{i}.parquet", row_group_size=1 << 17)


class _Last(LocalExecutor):
    """Remembers the last state that it was asked to keep."""

    state: Any = None

    def keep(self, handle: Any) -> None:
        self.state = self.look(handle, lambda state: state)


def _checkpoint(home: Path, rounds: int) -> dict[str, Any]:
    """Ten components of twenty columns after a hundred scans: encoded, written, on the disk, renamed."""
    rng, executor = np.random.default_rng(0), _Last(1)
    X = pd.DataFrame(rng.normal(size=(2000, 20)) + 3 * rng.integers(0, 4, (2000, 1)))
    settings: dict[str, Any] = {"n_init": 1, "max_iter": 100, "tol": 1e-15, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stopped at a hundred
        GaussianMixture(10, executor=executor, acceleration="daarem", **settings).fit(X)
    (home / "journal").mkdir()
    journal = Journal(home / "journal")
    keeper, times = JournalExecutor(LocalExecutor(1), journal), []
    keeper.resume(executor.state, lambda state: 0)
    for _ in range(50 * rounds):
        began = time.perf_counter()
        keeper.keep(executor.state)
        times.append(time.perf_counter() - began)
    size = next((home / "journal").iterdir()).stat().st_size
    return {"what": "a checkpoint, 10 components x 20 columns", "seconds": float(np.median(times)), "bytes": size}


def _checks(home: Path, rounds: int) -> list[dict[str, Any]]:
    """A whole run, and of this what is there to find changes: checksums of what is read, digests of what is written, waiting for the disk."""
    from dask_em.config import Job, load
    from pipelines.customer_segmentation import run as pipeline

    shares, whole = [], []
    for i in range(rounds):
        with ExitStack() as stack:
            stack.enter_context(chdir(home))
            config = load("job.yaml", Job, [f"output=out{i}"])  # type: ignore[arg-type]
            watches = [
                stack.enter_context(watched(pins, "checksum")),
                stack.enter_context(watched(places, "seal")),
                stack.enter_context(watched(Journal, "keep")),
            ]
            began = time.perf_counter()
            pipeline(config, progress=lambda record: None)
            whole.append(time.perf_counter() - began)
        shares.append([sum(float(t[0]) for t in times) for times in watches])
    seconds = float(np.median(whole))
    names = "checksums of what was read", "digests of what is written", "checkpoints"
    lines: list[dict[str, Any]] = [{"what": "a run: fit, score, report", "seconds": seconds}]
    for name, own in zip(names, np.median(shares, axis=0)):
        lines.append({"what": f"of this, {name}", "seconds": float(own), "share": float(own) / seconds})
    checks = float(np.median(np.sum(shares, axis=1, where=[True, True, False])))
    return [*lines, {"what": "of this, both integrity checks", "seconds": checks, "share": checks / seconds}]


def _resumed(home: Path) -> dict[str, Any]:
    """From the start of a process to the record of its first scan, after a kill in the fit."""
    command = [str(Path(sys.executable).parent / "dask-em"), "run", "job.yaml", "--set", "output=killed", "--log-format", "json", "--resume"]  # fmt: skip
    seconds = []
    for kill in (True, False):
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if json.loads(line)["event"] == "scan":
                seconds.append(time.perf_counter() - began)
                break
        if kill:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    return {"what": "a resumed run, until its first scan is done", "seconds": seconds[1]}
