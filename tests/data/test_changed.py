"""Files that change while a table is read, and pieces that no worker could hold: named, before they do harm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_em import MixtureModel, MultivariateNormal
from dask_em.data.files import COPIES, LARGE, check_sizes
from dask_em.data.sources import open_source, renamed
from dask_em.errors import DataError
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.local import LocalExecutor

RNG = np.random.default_rng(3)
ROWS = pa.table({"x": np.r_[RNG.normal(size=300), RNG.normal(size=300) + 2.5], "town": ["Bern", "Chur", "Thun"] * 200})

CHANGED = r"b\.(parquet|csv) changed while it was read: run again when nobody writes to it"


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x,town\n1,Bern\n")


def shorter(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def other_bytes(path: Path) -> None:
    before = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"B", b"C"))
    os.utime(path, ns=(before + 1_000_000,) * 2)


def another_file(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_mtime_ns + 1_000_000,) * 2)
    os.replace(other, path)


@pytest.fixture(params=["parquet", "csv"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two files of one kind, a and b."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for i, name in enumerate("ab"):
        part, path = ROWS.slice(300 * i, 300), folder / f"{name}.{request.param}"
        if request.param == "csv":
            part.to_pandas().to_csv(path, index=False)
        else:
            pq.write_table(part, path)
    return folder


def last(folder: Path) -> Path:
    return sorted(folder.iterdir())[-1]


@pytest.mark.parametrize("change", [longer, shorter, other_bytes, another_file])
def test_a_file_that_changed_is_named(change: Callable[[Path], None], folder: Path) -> None:
    source = open_source(folder)
    source.read(("x",))
    change(last(folder))
    with pytest.raises(DataError, match=CHANGED) as caught:
        source.read(("x",))
    assert caught.value.exit_code == 4


def test_a_file_that_is_gone_is_named(folder: Path) -> None:
    source = open_source(folder)
    last(folder).unlink()
    with pytest.raises(DataError, match=r"b\.(parquet|csv) cannot be read, it does not exist"):
        source.read(("x",))


def test_a_file_that_did_not_change_is_read_again(folder: Path) -> None:
    source = open_source(folder)
    last(folder).chmod(0o600)
    assert source.read(("x",)).num_rows == ROWS.num_rows


@pytest.mark.parametrize("kind", ["local", "dask"])
def test_a_fit_stops_when_a_file_changes_between_scans(kind: str, folder: Path) -> None:
    def change(record: Any) -> None:
        if record.scan == 2:
            other_bytes(last(folder))

    own = LocalExecutor(2, blocks="streamed") if kind == "local" else DaskExecutor(n_workers=1, blocks="streamed")
    try:
        model = MixtureModel(2, gaussian=["x"], tol=0.0, max_iter=50, random_state=0, compress=False, executor=own)
        with pytest.raises(DataError, match=CHANGED):
            model.fit_candidates(folder, [2], on_progress=change)
    finally:
        own.close()


def test_a_file_behind_a_url_that_changed_is_named() -> None:
    fs = fsspec.filesystem("memory")
    with fs.open("/changing/b.csv", "wb") as file:
        file.write(b"x\n1\n2\n")
    source = open_source("memory://changing/b.csv")
    assert source.read(("x",)).num_rows == 2
    with fs.open("/changing/b.csv", "wb") as file:
        file.write(b"x\n1\n2\n3\n")
    with pytest.raises(DataError, match=CHANGED):
        source.read(("x",))


# --- pieces that no worker could hold ----------------------------------------------------------------------------


def test_a_row_group_that_does_not_fit_is_named_before_it_is_read(tmp_path: Path) -> None:
    rows = LARGE // 8
    # Next to nothing on disk: what counts is what it becomes in memory.
    pq.write_table(pa.table({"x": np.zeros(rows), "y": np.zeros(rows)}), tmp_path / "b.parquet", row_group_size=rows)
    source = open_source(tmp_path)
    needed = COPIES * 8 * rows
    check_sizes(source.pieces, ["x"], lambda: needed)
    said = r"row group 0 of b\.parquet needs about 0\.5 GB .* has 0\.3 GB: write the file with smaller row groups, use fewer columns"
    for own in (source, renamed(source, ["one", "two"])):
        with pytest.raises(DataError, match=said):
            check_sizes(own.pieces, own.columns, lambda: needed)


def test_a_fit_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = LARGE // 8
    pq.write_table(pa.table({"x": np.zeros(rows)}), tmp_path / "b.parquet", row_group_size=rows)

    class Small(LocalExecutor):
        """Has as much memory as a small machine."""

        def room(self) -> int:
            return LARGE

    for model in (MixtureModel(1, gaussian=["x"], executor=Small(1)), MultivariateNormal(executor=Small(1))):
        with pytest.raises(DataError, match=r"row group 0 of b\.parquet needs about"):
            model.fit(tmp_path)


def test_small_pieces_ask_for_no_memory(folder: Path) -> None:
    check_sizes(open_source(folder).pieces, ["x"], lambda: pytest.fail("asked"))
    check_sizes(open_source(ROWS).pieces, ["x"], lambda: pytest.fail("asked"))


# --- files that differ -------------------------------------------------------------------------------------------


def fitted(folder: Path, *parts: pa.Table) -> float:
    for i, part in enumerate(parts):
        pq.write_table(part, folder / f"{i}.parquet")
    model = MixtureModel(2, gaussian=["x"], categorical=["town"], random_state=0, executor="local")
    return float(model.fit(folder).log_likelihood_)


def test_columns_are_aligned_by_name(tmp_path: Path) -> None:
    one, two = ROWS.slice(0, 300), ROWS.slice(300)
    levels = two.column("town").combine_chunks().dictionary_encode()
    for name, other in {
        "order": two.select(["town", "x"]),
        "more": two.append_column("y", two.column("x")),
        "levels": two.set_column(1, "town", levels),
        "null": two.set_column(0, "x", two.column("x").cast(pa.float64())),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}-as-it-is").mkdir()
        assert fitted(tmp_path / name, one, other) == fitted(tmp_path / f"{name}-as-it-is", one, two)


def test_types_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    one, two = ROWS.slice(0, 300), ROWS.slice(300)
    flags = pa.array([town == "Bern" for town in two.column("town").to_pylist()])
    with pytest.raises(DataError, match="column 'town' has different types in different parts of the table"):
        fitted(tmp_path, one, two.set_column(1, "town", flags))
    with pytest.raises(DataError, match="column 'x' is not numeric"):
        fitted(tmp_path, one, two.set_column(0, "x", two.column("x").cast(pa.string())))
    with pytest.raises(DataError, match=r"1\.parquet has no column 'x', which the files before it have"):
        fitted(tmp_path, one, two.rename_columns(["z", "town"]))
