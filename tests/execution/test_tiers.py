"""Which tier blocks go to: by what they need, the memory and the disk; what is asked for comes first."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from dask_em.config import ClusterConfig
from dask_em.errors import ConfigurationError
from dask_em.execution.base import Unit, make_runs
from dask_em.execution.choose import open_executor
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.local import LocalExecutor
from dask_em.execution.tiers import available_memory, choose, free_disk
from pipelines.cluster import open_cluster


@pytest.mark.parametrize(
    ("wanted", "nbytes", "disk", "tier"),
    [
        ("auto", 400, 0, "resident"),
        ("auto", 401, 401, "mapped"),
        ("auto", 401, 400, "streamed"),
        ("resident", 10**9, 10**10, "resident"),
        ("mapped", 1, 0, "mapped"),
        ("streamed", 1, 10**10, "streamed"),
    ],
)
def test_the_rule(wanted: str, nbytes: int, disk: int, tier: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dask_em"):
        assert choose(wanted, nbytes, 1000, disk, "here") == tier  # type: ignore[arg-type]
    (said,) = caplog.messages
    assert said.startswith(f"blocks are {tier}")
    assert said.endswith("here")
    assert ("as asked" in said) == (wanted != "auto")


def test_another_word_is_refused() -> None:
    for make in (LocalExecutor, DaskExecutor):
        with pytest.raises(ConfigurationError, match="blocks must be auto, resident, mapped or streamed"):
            make(blocks="disk")


def test_memory_and_disk_are_positive(tmp_path: Path) -> None:
    assert available_memory() > 2**20
    assert free_disk(str(tmp_path / "not" / "there")) == free_disk(str(tmp_path)) > 0


def test_a_job_file_says_where(tmp_path: Path) -> None:
    with open_cluster(ClusterConfig(blocks="mapped", scratch=str(tmp_path))) as executor:
        assert isinstance(executor, LocalExecutor)
        assert (executor.blocks, executor.scratch) == ("mapped", str(tmp_path))
    with open_cluster(ClusterConfig(executor="dask", n_workers=1, blocks="streamed")) as executor:
        assert isinstance(executor, DaskExecutor)
        assert (executor.blocks, executor.scratch) == ("streamed", None)
        with open_executor(executor.client, blocks="resident") as other:
            assert isinstance(other, DaskExecutor)
            assert other.blocks == "resident"


@pytest.mark.parametrize(
    ("sizes", "n", "rows"),
    [
        ([1] * 8, 4, [2, 2, 2, 2]),
        ([1] * 3, 8, [1, 1, 1]),
        ([9, 1, 1, 1], 2, [9, 3]),
        ([1, 1, 1, 9], 2, [3, 9]),
        ([1, 1, 6, 1, 1], 2, [2, 8]),
        ([0, 0, 5, 0], 2, [0, 5]),
        ([0], 4, [0]),
        ([], 4, []),
    ],
)
def test_runs_are_as_equal_as_whole_units_allow(sizes: list[int], n: int, rows: list[int]) -> None:
    runs = make_runs(sizes, n)
    assert [i for run in runs for i in range(run.start, run.stop)] == list(range(len(sizes)))
    assert [sum(sizes[run]) for run in runs] == rows


def test_workers_tell_what_they_have(caplog: pytest.LogCaptureFixture) -> None:
    """Two workers of 1 GB take 0.8 GB of blocks, and each thread has half of its worker."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            memory_limit=10**9,
            host="127.0.0.1",
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
        caplog.at_level(logging.INFO, "dask_em"),
    ):
        own = DaskExecutor(client)
        assert own.room() == 5 * 10**8
        for rows, tier in ((10**5, "resident"), (10**7, "mapped"), (10**15, "streamed")):
            units = [Unit((), rows, 0, 1)]
            blocks = own.open(units, lambda unit, pieces: [], row_bytes=1000)
            own.release(blocks)
            assert caplog.messages[-1].startswith(f"blocks are {tier}: ")
            assert "at most 800 MB resident" in caplog.messages[-1]
            assert caplog.messages[-1].endswith("on 2 workers")
    assert LocalExecutor(2).room() > 0
