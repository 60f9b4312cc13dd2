"""Workers that are killed, frozen or lost in any phase change no bit of the result."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from dask_em.execution.dask import DaskExecutor
from dask_em.execution.local import LocalExecutor
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
    own.order("walk_run", 8)
    assert fit(table, DaskExecutor(client)) == calm
    assert not list(own.orders.iterdir()), "nobody was killed"


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("phase", PHASES)
def test_kills_at_any_time_change_no_bit(
    phase: str, shared: tuple[Cluster, Client], table: Path, calm: tuple[Any, ...]
) -> None:
    own, client = shared
    for seed in range(seeds()):
        chance = random.Random(f"{phase} {seed}")
        until(lambda: both_work(client), 30)
        once = phase in ("load", "encode")
        own.order(PHASES[phase], 1 if once else chance.randint(1, 12), chance.choice([0, 0.002, 0.01, 0.03]))
        assert fit(table, DaskExecutor(client)) == calm, f"seed {seed}"
        assert not list(own.orders.iterdir()), f"seed {seed}: nobody was killed"
