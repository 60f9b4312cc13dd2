"""A piece that ends the processes that read it is told by file and row group, and nothing else is blamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest

from dask_em.data.sources import open_source
from dask_em.errors import DataError, TryAgainError
from dask_em.execution import blame
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.local import LocalExecutor
from tests.faults.pieces import with_harmful
from tests.faults.real import cluster, fit, write_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("blame") / "table")


def read(i: int, piece: Any) -> Any:
    return piece.read(("a",))


def test_the_piece_that_ends_the_process_is_found(table: Path) -> None:
    pieces = with_harmful(open_source(str(table)), 4).pieces
    finding = blame.probe(read, pieces, 0, 0, int)
    assert finding is not None
    error = blame.verdict(blame.Reading(None, read, pieces, 0, pieces), finding)
    assert (
        str(error)
        == "row group 1 of part-1.parquet ends every process that reads it (SIGSEGV): check the file, or leave it out"
    )


def test_pieces_that_raise_or_do_no_harm_are_acquitted(table: Path) -> None:
    pieces = [*open_source(str(table)).pieces[:3], "no piece at all"]
    seen: list[int] = []
    assert blame.probe(read, pieces, 0, 0, lambda: seen.append(1)) is None
    assert seen
    reading = blame.Reading(None, read, pieces[:3], 0, pieces[:3])
    assert str(blame.acquitted(reading, ("em-walk_run-token", 7, 3), 4, 2)) == (
        "4 workers died one after another while they worked on row group 0 of part-0.parquet to row group 2 of part-0.parquet, each of which alone ends no process, "
        "2 of them over their memory limit: look at their logs, and give them more memory (memory_limit) or fewer threads"
    )


@pytest.mark.faults
def test_the_piece_that_takes_too_much_memory_is_found(table: Path) -> None:
    pieces = with_harmful(open_source(str(table)), 1, 800).pieces[:3]
    finding = blame.probe(read, pieces, 0, 400_000_000, int)
    assert finding is not None
    error = blame.verdict(blame.Reading(None, read, pieces, 0, pieces), finding)
    assert "row group 1 of part-0.parquet needs more than 400 MB" in str(error)
    assert "smaller row groups" in str(error)
    assert "memory_limit" in str(error)


def end_the_process(i: int) -> pd.DataFrame:
    if i == 3:
        os._exit(1)
    return pd.DataFrame({"a": [float(i), 2.0, 3.0 * i], "b": [1.0, i, 3.0]})


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_poisonous_row_group(tmp_path: Path, table: Path) -> None:
    source = open_source(str(table))
    with cluster(tmp_path, 2) as own, own.client(2) as client:
        executor = DaskExecutor(client)
        for position in (0, 13):
            with pytest.raises(DataError, match=r"ends every process") as caught:
                fit(with_harmful(source, position), executor)
            file, group = divmod(position, 3)
            assert f"row group {group} of part-{file}.parquet" in str(caught.value)
        # The cluster is as good as before, and so is the executor.
        client.wait_for_workers(2, timeout=60)
        assert fit(source, executor) == fit(source, LocalExecutor(1))


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_poisonous_partition_of_a_dataframe(tmp_path: Path) -> None:
    frame = dd.from_map(end_the_process, range(6), meta=pd.DataFrame({"a": [0.0], "b": [0.0]}))
    with (
        cluster(tmp_path, 2) as own,
        own.client(2) as client,
        pytest.raises(DataError, match=r"partition 3 ends every process that reads it \(exit code 1\)"),
    ):
        fit(frame, DaskExecutor(client))


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_poisonous_partition_that_others_need_too(tmp_path: Path) -> None:
    """What a shuffle needs is computed by tasks of the dataframe, and it is they that are told."""
    frame = dd.from_map(end_the_process, range(6), meta=pd.DataFrame({"a": [0.0], "b": [0.0]}))
    with (
        cluster(tmp_path, 2) as own,
        own.client(2) as client,
        pytest.raises(TryAgainError, match=r"workers died one after another of the task .*end_the_process"),
    ):
        fit(frame.shuffle("a"), DaskExecutor(client))


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_row_group_over_the_memory_limit(tmp_path: Path, table: Path) -> None:
    source = with_harmful(open_source(str(table)), 7, 3000)
    with (
        cluster(tmp_path, 2, "--memory-limit=600MB") as own,
        own.client(2) as client,
        pytest.raises(DataError, match=r"row group 1 of part-2.parquet needs more than 570 MB") as caught,
    ):
        fit(source, DaskExecutor(client))
    assert "memory_limit" in str(caught.value)


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_innocent_pieces_are_not_blamed(tmp_path: Path, table: Path) -> None:
    """Workers that are killed again and again from without: no piece did it."""
    with cluster(tmp_path, 2) as own, own.client(2) as client:
        for i in range(40):
            own.order("walk_run", after=i / 1e6)
        with pytest.raises(TryAgainError, match="workers died one after another") as caught:
            fit(table, DaskExecutor(client))
        assert "alone ends no process" in str(caught.value)
