"""A real cluster whose parts can be killed: scheduler and workers as processes, each in a group of its own, all of which end with the block."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from distributed import Client

from dask_em import GaussianMixture
from dask_em.errors import ConvergenceWarning
from dask_em.execution import base, dask

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@dataclass
class Cluster:
    """Processes on this machine.

    folder : for the address, the logs, what workers spill, and the orders to them (see saboteur.py)
    config : settings of Dask, such as {"scheduler.worker-ttl": "5s"}
    """

    folder: Path
    config: dict[str, str] = field(default_factory=dict)
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def orders(self) -> Path:
        return self.folder / "orders"

    @property
    def address(self) -> str:
        file = self.folder / "scheduler.json"
        until(lambda: file.exists() and file.read_text() != "", 30)
        return str(json.loads(file.read_text())["address"])

    def start_scheduler(self, listen: str = "127.0.0.1", prefix: tuple[str, ...] = ()) -> None:
        file = f"--scheduler-file={self.folder / 'scheduler.json'}"
        self.scheduler = self._start("scheduler", "--port=0", "--no-dashboard", file, f"--host={listen}", prefix=prefix)

    def start_worker(self, *options: str, prefix: tuple[str, ...] = (), host: str = "127.0.0.1") -> None:
        own = ("--nthreads=1", "--no-dashboard", f"--host={host}", f"--preload={HERE / 'saboteur.py'}")
        place = () if any(o.startswith("--local-directory") for o in options) else (f"--local-directory={self.folder}",)
        self.workers.append(self._start("worker", self.address, *own, *place, *options, prefix=prefix))

    def _start(self, what: str, *options: str, prefix: tuple[str, ...]) -> subprocess.Popen[bytes]:
        env = {f"DASK_DISTRIBUTED__{k.upper().replace('.', '__').replace('-', '_')}": v for k, v in self.config.items()}
        env |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FAULT_ORDERS": str(self.orders)}
        with (self.folder / f"{what}-{len(self.workers)}.log").open("wb") as log:
            return subprocess.Popen(
                [*prefix, sys.executable, "-m", "dask", what, *options],
                stdout=log, stderr=log, env={**os.environ, **env}, start_new_session=True, cwd=ROOT,
            )  # fmt: skip

    @contextmanager
    def client(self, n_workers: int) -> Iterator[Client]:
        """A client that sees so many workers."""
        client = Client(self.address, set_as_default=False)
        try:
            if n_workers:
                client.wait_for_workers(n_workers, timeout=60)
            yield client
        finally:
            client.close(timeout=2)

    def order(self, phase: str, nth: int = 1, after: float = 0.0, what: str = "SIGKILL") -> None:
        """Send a signal to the worker that is the first to begin the nth task of some name, so many seconds later."""
        self.orders.mkdir(exist_ok=True)
        (self.orders / f"{phase}~{nth}~{after}~{what}").touch()

    def end(self) -> None:
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


@contextmanager
def cluster(
    folder: Path,
    n_workers: int = 2,
    *options: str,
    listen: str = "127.0.0.1",
    prefix: tuple[str, ...] = (),
    **config: str,
) -> Iterator[Cluster]:
    """A scheduler at an address, and workers with nannies and these options."""
    folder.mkdir(parents=True, exist_ok=True)
    # Whoever is left over, for the tests were killed, ends by itself.
    usual = {
        "scheduler.idle-timeout": "300s",
        "comm.timeouts.connect": "10s",
        "comm.timeouts.tcp": "12s",
        "worker.multiprocessing-method": "forkserver",
    }
    own = Cluster(folder, usual | config)
    try:
        own.start_scheduler(listen, prefix)
        for _ in range(n_workers):
            own.start_worker(*options)
        yield own
    finally:
        own.end()


def until(condition: Callable[[], Any], seconds: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def process_of(client: Client) -> dict[str, psutil.Process]:
    """The process of each worker by its address."""
    return {address: psutil.Process(pid) for address, pid in client.run(os.getpid).items()}


def write_table(folder: Path, n_files: int = 8) -> Path:
    """Two overlapping groups in Parquet files of three row groups each."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True)
    for i in range(n_files):
        x = rng.normal(size=(1500, 3)) + 2 * (rng.random((1500, 1)) < 0.4)
        x[rng.random(x.shape) < 0.05] = np.nan
        pq.write_table(pa.table(dict(zip("abc", x.T))), folder / f"part-{i}.parquet", row_group_size=500)
    return folder


@contextmanager
def many_blocks() -> Iterator[None]:
    """A block a row group, and tasks that add two sums, so that a small table has all phases of a large one."""
    saved = base.BLOCK_ROWS, dask.FAN_IN
    base.BLOCK_ROWS, dask.FAN_IN = 500, 2
    try:
        yield
    finally:
        base.BLOCK_ROWS, dask.FAN_IN = saved


def fit(table: Any, executor: Any, max_iter: int = 15) -> tuple[Any, ...]:
    """The bits of a fit of that many scans."""
    with many_blocks(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return bits(GaussianMixture(2, tol=0, max_iter=max_iter, random_state=1, executor=executor).fit(table))


def bits(model: GaussianMixture) -> tuple[Any, ...]:
    """Everything that a fit has found, to compare exactly."""
    arrays = (model.weights_, model.means_, model.covariances_, model.history_["objective"].to_numpy())
    return (model.log_likelihood_, model.n_iter_, *(a.tobytes() for a in arrays))
