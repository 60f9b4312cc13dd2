"""What no cluster recovers from ends within its limit, in one sentence and exit code 75."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from dask_em.errors import TryAgainError
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.local import LocalExecutor
from dask_em.execution.watch import Limits
from tests.faults.real import cluster, fit, process_of, until, write_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("limits") / "table")


def fails(
    table: Path, client: Client, limits: Limits, break_it: Callable[[], Any], after: float = 2
) -> tuple[str, float]:
    """The message of the fit in the midst of which something breaks, and the seconds from then on."""
    at: list[float] = []
    executor = DaskExecutor(client, limits=limits)

    def later() -> None:
        at.append(time.monotonic())
        break_it()

    def fits() -> None:
        while not at or time.monotonic() < at[0] + 60:  # one after another, for each comes to its end
            fit(table, executor, max_iter=100_000)

    timer = threading.Timer(after, later)
    timer.start()
    try:
        with pytest.raises(TryAgainError) as caught:
            fits()
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
        # Workers that have loaded everything: the limit is 20 times the usual scan where that is more.
        fit(table, DaskExecutor(client))
        message, seconds = fails(table, client, Limits(stalled=20), process.suspend, after=5)
        waited = re.match(r"nothing was finished for (\d+) s \(limit stalled\)", message)
        assert waited
        assert 20 <= int(waited[1]) < 30
        assert f"of which {address} is silent" in message
        assert seconds < 40


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A folder with a file system of its own, which is small."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]).returncode:
        pytest.skip("NOT TESTED: a full disk needs the right to mount one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_workers_whose_spill_disk_is_full(tmp_path: Path, table: Path) -> None:
    """Their memory is full of somebody's results, and there is no room on disk for them: they are paused and stay so."""
    with (
        small_disk(tmp_path / "disk", 60) as disk,
        cluster(tmp_path / "own", 2, "--memory-limit=700MB", f"--local-directory={disk}") as own,
        own.client(2) as client,
    ):
        full = [client.submit(np.ones, 2_000_000, pure=False) for _ in range(84)]
        until(lambda: {w["status"] for w in client.scheduler_info(-1)["workers"].values()} == {"paused"}, 60)
        began = time.monotonic()
        with pytest.raises(
            TryAgainError, match=r"(all 2 workers are|the only worker is) over 80 % of the memory limit"
        ) as caught:
            fit(table, DaskExecutor(client))
        assert time.monotonic() - began < 30
        assert f"{disk}/dask-scratch-space/worker-" in str(caught.value)
        assert " MB free)" in str(caught.value)
        assert full


def ip(*words: str) -> int:
    return subprocess.run(["ip", *words], stderr=subprocess.DEVNULL).returncode


@pytest.fixture
def far_away() -> Iterator[str]:
    """A network of its own behind one link, from 10.99.7.1 to 10.99.7.2, called as is returned."""
    name = f"far{os.getpid()}"
    if not shutil.which("ip") or ip("netns", "add", name):
        pytest.skip("NOT TESTED: a cut network needs ip and the right to make a network namespace")
    try:
        steps = (
            f"link add {name} type veth peer name there netns {name}",
            f"addr add 10.99.7.1/24 dev {name}",
            f"link set {name} up",
            f"-n {name} addr add 10.99.7.2/24 dev there",
            f"-n {name} link set there up",
            f"-n {name} link set lo up",
        )
        if any(ip(*step.split()) for step in steps):
            pytest.skip("NOT TESTED: a cut network needs the right to make a link")
        yield name
    finally:
        ip("link", "del", name)
        ip("netns", "del", name)


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_a_worker_that_is_cut_off(tmp_path: Path, table: Path, far_away: str) -> None:
    """The other one goes on, and no bit changes."""
    expected = fit(table, LocalExecutor(1), max_iter=400)
    with cluster(tmp_path, 0, **{"scheduler.worker-ttl": "8s"}, listen="10.99.7.1") as own:
        own.start_worker(host="10.99.7.1")
        own.start_worker(host="10.99.7.2", prefix=("ip", "netns", "exec", far_away))
        with own.client(2) as client:
            timer = threading.Timer(3, ip, ("link", "set", far_away, "down"))
            timer.start()
            assert fit(table, DaskExecutor(client), max_iter=400) == expected
            timer.join()
            (left,) = client.scheduler_info(-1)["workers"]
            assert left.startswith("tcp://10.99.7.1:")


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_a_driver_that_is_cut_off(tmp_path: Path, table: Path, far_away: str) -> None:
    inside = ("ip", "netns", "exec", far_away)
    with cluster(tmp_path, 0, listen="10.99.7.2", prefix=inside) as own:
        own.start_worker(host="10.99.7.2", prefix=inside)
        with own.client(1) as client:
            cut = ("link", "set", far_away, "down")
            message, seconds = fails(table, client, Limits(tcp_timeout=11), lambda: ip(*cut), after=3)
            assert "connection to the scheduler was lost" in message or "has not answered" in message
            assert seconds < 20
