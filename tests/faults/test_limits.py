"""What no cluster recovers from ends within its limit, in one sentence and exit code 75."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from dask_em.errors import TryAgainError
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.watch import Limits
from tests.faults.real import cluster, fit, process_of, write_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("limits") / "table")


def fails(
    table: Path, client: Client, limits: Limits, break_it: Callable[[], Any], after: float = 2
) -> tuple[str, float]:
    """The message of a long fit in the midst of which something breaks, and the seconds from then on."""
    at: list[float] = []

    def later() -> None:
        at.append(time.monotonic())
        break_it()

    timer = threading.Timer(after, later)
    timer.start()
    try:
        with pytest.raises(TryAgainError) as caught:
            fit(table, DaskExecutor(client, limits=limits), max_iter=100_000)
        assert caught.value.exit_code == 75
        assert at, "it failed before anything broke"
        return str(caught.value), time.monotonic() - at[0]
    finally:
        timer.cancel()
        timer.join()


@pytest.mark.timeout(60)
def test_a_scheduler_that_is_killed(tmp_path: Path, table: Path) -> None:
    with cluster(tmp_path, 1) as own, own.client(1) as client:
        assert own.scheduler is not None
        message, seconds = fails(table, client, Limits(), own.scheduler.kill)
        assert message.startswith("the connection to the scheduler was lost")
        assert seconds < 5
        # Nothing of the old futures is tried again, and what is asked for next ends as soon.
        with pytest.raises(TryAgainError, match="connection to the scheduler was lost"):
            fit(table, DaskExecutor(client))


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_scheduler_that_freezes(tmp_path: Path, table: Path) -> None:
    with cluster(tmp_path, 1) as own, own.client(1) as client:
        assert own.scheduler is not None
        message, seconds = fails(
            table,
            client,
            Limits(tcp_timeout=11),
            lambda: own.scheduler.send_signal(signal.SIGSTOP),  # type: ignore[union-attr]
        )
        assert "has not answered for 1" in message
        assert "tcp_timeout" in message
        assert 10 < seconds < 20


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_all_workers_are_gone(tmp_path: Path, table: Path) -> None:
    with cluster(tmp_path, 2) as own, own.client(2) as client:

        def break_it() -> None:
            for worker in own.workers:
                os.killpg(worker.pid, signal.SIGKILL)

        message, seconds = fails(table, client, Limits(no_workers=5), break_it)
        assert "no worker for" in message
        assert "no_workers" in message
        assert seconds < 15


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_no_worker_comes(tmp_path: Path, table: Path) -> None:
    with cluster(tmp_path, 0) as own, own.client(0) as client, pytest.raises(TryAgainError, match="no worker for"):
        fit(table, DaskExecutor(client, limits=Limits(no_workers=2)))


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_workers_that_come_late_are_waited_for(tmp_path: Path, table: Path) -> None:
    with cluster(tmp_path, 0) as own, own.client(0) as client:
        timer = threading.Timer(4, own.start_worker)
        timer.start()
        assert fit(table, DaskExecutor(client)) == fit(table, None)
        timer.join()


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_frozen_worker_of_a_patient_scheduler(tmp_path: Path, table: Path) -> None:
    """Where the scheduler would wait for ever, the stall limit ends the wait, and the silent worker is told by name."""
    with cluster(tmp_path, 2, **{"scheduler.worker-ttl": "1h"}) as own, own.client(2) as client:
        address, process = next(iter(process_of(client).items()))
        message, seconds = fails(table, client, Limits(stalled=20), process.suspend)
        assert "nothing was finished for 2" in message
        assert f"of which {address} is silent" in message
        assert seconds < 40
