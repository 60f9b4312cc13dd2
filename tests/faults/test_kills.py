"""Workers that are killed, frozen or lost in any phase change no bit of the result."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client
from distributed.chaos import KillWorker

from dask_em import Imputer
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.local import LocalExecutor
from dask_em.imputation.writing import write_imputed
from tests.faults.real import Cluster, cluster, fit, until, write_table

PHASES = {"load": "reduce_run", "encode": "open_run", "E-step": "walk_run", "reduce": "join_runs", "M-step": "root"}
"""The tasks of a fit, by what they do."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("kills") / "table")


@pytest.fixture(scope="module")
def calm(table: Path) -> tuple[Any, ...]:
    """What one thread of this process says."""
    return fit(table, LocalExecutor(1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Client]]:
    """One cluster for many kills: nannies bring workers back."""
    with cluster(tmp_path_factory.mktemp("shared") / "cluster") as own, own.client(2) as client:
        yield own, client


def both_work(client: Client) -> bool:
    return len(client.run(os.getpid, on_error="ignore")) == 2


def seeds() -> int:
    """Kills a phase; more of them by FAULT_SEEDS."""
    return int(os.environ.get("FAULT_SEEDS", "20"))


@pytest.mark.timeout(60)
def test_a_killed_worker_changes_no_bit(shared: tuple[Cluster, Client], table: Path, calm: tuple[Any, ...]) -> None:
    own, client = shared
    own.order("walk_run", 6)
    assert fit(table, DaskExecutor(client)) == calm
    assert not list(own.orders.iterdir()), "nobody was killed"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("error", [FileNotFoundError, TimeoutError, KeyError])
def test_what_a_task_raises_is_not_taken_for_a_fault(shared: tuple[Cluster, Client], error: type[Exception]) -> None:
    def fail(i: int, piece: int) -> int:
        raise error("on purpose")

    executor = DaskExecutor(shared[1])
    for verb in (executor.map, executor.reduce):
        with pytest.raises(error, match="on purpose"):
            verb([1, 2], fail)


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", PHASES)
def test_kills_at_any_time_change_no_bit(
    phase: str, shared: tuple[Cluster, Client], table: Path, calm: tuple[Any, ...]
) -> None:
    own, client = shared
    for seed in range(seeds()):
        chance = random.Random(f"{phase} {seed}")
        until(lambda: both_work(client), 30)
        once = phase in ("load", "encode")
        own.order(PHASES[phase], 1 if once else chance.randint(1, 6), chance.choice([0, 0.002, 0.01, 0.03]))
        executor = DaskExecutor(client, blocks=chance.choice(["resident", "mapped", "streamed"]))
        assert fit(table, executor) == calm, f"seed {seed}"
        assert not list(own.orders.iterdir()), f"seed {seed}: nobody was killed"


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_kills_while_a_table_is_written_change_no_byte(
    shared: tuple[Cluster, Client], table: Path, tmp_path: Path
) -> None:
    own, client = shared
    imputer = Imputer(n_components=1, n_replicates=2, random_state=0).fit(str(table))
    write_imputed(imputer, str(table), tmp_path / "calm", m=2)
    for seed in range(seeds()):
        chance = random.Random(f"write {seed}")
        until(lambda: both_work(client), 30)
        own.order("reduce_run", 1, chance.uniform(0, 0.2))
        write_imputed(imputer, str(table), tmp_path / f"{seed}", m=2, executor=DaskExecutor(client))
        assert written(tmp_path / f"{seed}") == written(tmp_path / "calm"), f"seed {seed}"
        assert not list(own.orders.iterdir()), f"seed {seed}: nobody was killed"


def written(folder: Path) -> dict[str, bytes]:
    """The tables in a folder of output."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.parquet"))}


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_lost_node_changes_no_bit(tmp_path: Path, table: Path) -> None:
    """Nanny and worker die together and nobody takes their place."""
    expected = fit(table, LocalExecutor(1), max_iter=400)
    with cluster(tmp_path, 2) as own, own.client(2) as client:
        timer = threading.Timer(3, os.killpg, (own.workers[0].pid, signal.SIGKILL))
        timer.start()
        assert fit(table, DaskExecutor(client), max_iter=400) == expected
        timer.join()
        assert len(client.run(os.getpid)) == 1


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_frozen_worker_changes_no_bit(tmp_path: Path, table: Path, calm: tuple[Any, ...]) -> None:
    """The scheduler gives it up after worker-ttl, and its nanny replaces it."""
    with cluster(tmp_path, 2, **{"scheduler.worker-ttl": "5s"}) as own, own.client(2) as client:
        own.order("walk_run", 5, what="SIGSTOP")
        assert fit(table, DaskExecutor(client)) == calm
        assert not list(own.orders.iterdir()), "nobody was frozen"


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_a_minute_of_chaos_gives_one_result(tmp_path: Path, table: Path, calm: tuple[Any, ...]) -> None:
    """Every worker lives for some six seconds."""
    with cluster(tmp_path, 2) as own, own.client(2) as client:
        client.register_plugin(KillWorker("6 s", "segfault"))
        end, results = time.monotonic() + 60, []
        while time.monotonic() < end:
            results.append(fit(table, DaskExecutor(client)))
        assert set(results) == {calm}
