"""Files that change while a table is read, and pieces that no worker could hold: named, before they do harm."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_em import Imputer, MixtureModel, MultivariateNormal
from dask_em.data.files import COPIES, LARGE, check_sizes
from dask_em.data.listing import listing
from dask_em.data.pins import ENDS, GAP, column_marks, differ, pinned, read_marked
from dask_em.data.schema import Design
from dask_em.data.sources import open_source, renamed
from dask_em.errors import ConvergenceWarning, DataError, TryAgainError
from dask_em.estimators.tables import to_source
from dask_em.execution.dask import DaskExecutor
from dask_em.execution.frames import SharedPiece
from dask_em.execution.local import LocalExecutor
from dask_em.fitting import profile_source
from dask_em.imputation.writing import write_imputed

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


# --- while a model is fitted -------------------------------------------------------------------------------------


def write(path: Path, seed: int) -> None:
    """A table of which size and footer say nothing about its cells."""
    x = np.random.default_rng(seed).normal(size=300) + 4.0 * (np.arange(300) % 2)
    table = pa.table({"x": x, "y": x[::-1]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False, store_schema=False)


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    """A folder of two such files."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        write(folder / f"{name}.parquet", seed)
    return folder


def one_cell(path: Path) -> None:
    """Another cell in the midst of a page."""
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(bytes(8))


def other_rows(path: Path) -> None:
    """Another file in its place."""
    write(path.with_name("other"), 7)
    os.replace(path.with_name("other"), path)


def unnoticed(change: Callable[[Path], None], path: Path) -> None:
    """A change after which the file has the size and the time that it had."""
    before = path.stat()
    footer = path.read_bytes()[-190:]
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.read_bytes()[-190:]) == (before.st_size, footer)


CHANGES: dict[str, Callable[[Path], None]] = {
    "one cell": partial(unnoticed, one_cell),
    "other rows": partial(unnoticed, other_rows),
    "other rows, later": lambda path: write(path, 7),
    "shorter": shorter,
    "gone": Path.unlink,
}

NAMED = r"^b\.parquet (changed while it was read: run again when nobody writes to it|cannot be read, it does not exist: check the file)$"


def fit(folder: Any, executor: Any, meanwhile: Callable[[], object]) -> tuple[float, ...]:
    """Parameters of a fit in the third scan of which something happens."""

    def progress(record: Any) -> None:
        if record.scan == 2:
            meanwhile()

    settings: dict[str, Any] = {"tol": 0.0, "max_iter": 12, "random_state": 0, "compress": False}
    model = MixtureModel(2, gaussian=["x", "y"], executor=executor, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        selection = model.fit_candidates(folder, [2], on_progress=progress)
    return tuple(selection.best(2).log_likelihoods)


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskExecutor]:
    own = DaskExecutor(n_workers=2)
    yield own
    own.close()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("how", ["streamed", "mapped", "on processes"])
def test_a_fit_that_reads_a_changed_file_stops(
    how: str, change: Callable[[Path], None], quiet: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    if how == "on processes":
        own: Any = request.getfixturevalue("cluster")
        own.blocks = "streamed"
    else:
        own = LocalExecutor(2, blocks=how, scratch=str(scratch))

    def meanwhile() -> None:
        change(quiet / "b.parquet")
        for file in scratch.glob("dask-em-*/blocks-*"):
            file.unlink()  # what was encoded is lost, and made again from the table

    with pytest.raises(DataError, match=NAMED) as caught:
        fit(quiet, own, meanwhile)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("how", ["resident", "mapped"])
def test_a_fit_that_does_not_read_it_again_is_that_of_the_table_as_it_was(how: str, quiet: Path) -> None:
    own = LocalExecutor(2, blocks=how)
    calm = fit(quiet, own, lambda: None)
    assert fit(quiet, own, lambda: unnoticed(other_rows, quiet / "b.parquet")) == calm
    assert fit(quiet, own, lambda: None) != calm


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize("change", ["one cell", "other rows", "gone"])
@pytest.mark.parametrize("blocks", ["resident", "mapped", "streamed"])
def test_workers_that_take_over_do_not_read_other_rows(
    blocks: str, change: str, quiet: Path, cluster: DaskExecutor
) -> None:
    cluster.blocks = blocks
    calm = fit(quiet, cluster, lambda: None)

    def meanwhile() -> None:
        CHANGES[change](quiet / "b.parquet")
        kill(cluster)

    with pytest.raises(DataError, match=NAMED):
        fit(quiet, cluster, meanwhile)
    write(quiet / "b.parquet", 1)
    assert fit(quiet, cluster, lambda: None) == calm


def kill(cluster: DaskExecutor) -> None:
    """The worker that holds the encoded rows; its nanny starts another."""
    held = cluster.client.has_what()
    holders = [worker for worker, keys in held.items() if any("open_run" in str(key) for key in keys)]
    for pid in cluster.client.run(os.getpid, workers=holders[:1]).values():
        os.kill(pid, signal.SIGKILL)


def test_nothing_is_written_of_a_table_that_changed_since_it_was_fitted(quiet: Path, tmp_path: Path) -> None:
    source = open_source(quiet)
    imputer = Imputer(columns=["x", "y"], random_state=0, executor=LocalExecutor(1)).fit(source)
    unnoticed(one_cell, quiet / "b.parquet")
    source = pinned(source, imputer.profile_.marks)
    with pytest.raises(DataError, match=NAMED):
        write_imputed(imputer, source, tmp_path / "out", executor="local")
    assert sorted(os.listdir(tmp_path)) == ["rows"]


def test_columns_that_were_not_read_before_may_be_any(quiet: Path) -> None:
    source = open_source(quiet)
    found = [read_marked(piece, ("x",))[1] for piece in source.pieces]
    source = pinned(renamed(source, ["one", "two"]), found)
    unnoticed(one_cell, quiet / "b.parquet")  # of x
    assert source.read(("two",)).num_rows == 600
    with pytest.raises(DataError, match=NAMED):
        source.read(("two", "one"))


def test_a_text_is_known_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("x,y\n" + "1.25,2\n" * 50_000)
    source = open_source(path)
    source = pinned(source, [read_marked(piece, ("x",))[1] for piece in source.pieces])
    assert source.read(("y",)).num_rows == 50_000

    def edit(text: bytes) -> None:
        with path.open("r+b") as file:
            file.seek(200_001)
            file.write(text)

    for text in (b"7", b"\n"):  # the second leaves a line that cannot be read
        unnoticed(lambda _, own=text: edit(own), path)
        with pytest.raises(DataError, match=CHANGED):
            source.read(("y",))


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


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket of a real S3 server, behind the usual variables of the environment."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()
    fs = fsspec.filesystem("s3")
    if fs.exists("changing"):
        fs.rm("changing", recursive=True)
    fs.mkdir("changing")
    yield fs
    kind.clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("change", ["other rows", "shorter", "gone"])
def test_an_object_that_changed_is_named(change: str, bucket: Any, quiet: Path) -> None:
    bucket.put(str(quiet), "changing/", recursive=True)
    source = open_source("s3://changing/rows")
    assert [own["bytes"] for own in source.fingerprint()] == [p.stat().st_size for p in sorted(quiet.iterdir())]
    source = pinned(source, [read_marked(piece, ("x",))[1] for piece in source.pieces])
    assert source.read(("x",)).num_rows == 600
    other = quiet / "b.parquet"
    CHANGES[change](other)
    if change == "gone":
        bucket.rm("changing/rows/b.parquet")
    else:
        bucket.put(str(other), "changing/rows/b.parquet")
    for _ in range(2):  # with what is remembered of the bucket, and without
        with pytest.raises(DataError, match=NAMED):
            source.read(("x",))
        bucket.invalidate_cache()


def test_a_bucket_is_listed_anew_every_time(bucket: Any, quiet: Path) -> None:
    """What is remembered of it may be hours old; somebody else writes to it in between."""
    bucket.put(str(quiet), "changing/", recursive=True)
    open_source("s3://changing/rows")
    bucket.ls("changing/rows")
    somebody = fsspec.filesystem("s3", skip_instance_cache=True)
    twice = pa.concat_tables([pq.read_table(quiet / "b.parquet")] * 2)
    for name in ("b.parquet", "c.parquet"):
        pq.write_table(twice, quiet / name)
        somebody.put(str(quiet / name), f"changing/rows/{name}")
    for path, rows in {"rows/b.parquet": 600, "rows/*.parquet": 1500, "rows": 1500}.items():
        assert open_source(f"s3://changing/{path}").read(("x",)).num_rows == rows


def test_an_object_that_changes_after_it_was_listed(bucket: Any, quiet: Path) -> None:
    bucket.put(str(quiet), "changing/", recursive=True)
    listed = listing("s3://changing/rows", {})
    bucket.ls("changing/rows")  # what opens it asks for the version that is remembered
    pq.write_table(ROWS, quiet / "b.parquet")
    fsspec.filesystem("s3", skip_instance_cache=True).put(str(quiet / "b.parquet"), "changing/rows/b.parquet")
    with pytest.raises(DataError, match=CHANGED), replace(listed[1], stamp=None).opened({}):
        raise AssertionError


def test_one_request_a_file_opens_a_table(bucket: Any, quiet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put(str(quiet), "changing/", recursive=True)
    asked = requests(bucket, monkeypatch)
    open_source("s3://changing/rows")
    assert [method for method, _ in asked].count("get_object") == len(list(quiet.iterdir()))
    assert "head_object" not in dict(asked)


def requests(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is asked of the storage from now on, and how many bytes of it."""
    asked: list[tuple[str, int]] = []
    call = type(bucket)._call_s3

    async def counted(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        first, _, last = kwargs.get("Range", "bytes=0-0").removeprefix("bytes=").partition("-")
        asked.append((method, int(last) - int(first) + 1))
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(type(bucket), "_call_s3", counted)
    return asked


def test_only_what_is_wanted_of_an_object_is_asked_for(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 60_000
    table = pa.table({
        **{f"x{j}": RNG.normal(size=n) for j in range(4)},
        "nested": [{"a": i, "b": [1, 2]} for i in range(n)],
        "a.b": RNG.normal(size=n),
        "text": [f"row {i}" for i in range(n)],
        "nothing": pa.nulls(n, pa.float64()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "town=Chur.parquet", row_group_size=n // 3)
    (tmp_path / "town=Chur").mkdir()
    (tmp_path / "town=Chur.parquet").rename(tmp_path / "town=Chur" / "b.parquet")
    bucket.put(str(tmp_path / "town=Chur" / "b.parquet"), "changing/wide/town=Chur/b.parquet")
    here, there = open_source(tmp_path), open_source("s3://changing/wide")
    asked = requests(bucket, monkeypatch)
    for columns in (("x0", "x1", "x2", "x3"), ("x2",), ("x3", "x0"), ("nested", "a.b"), ("nothing", "town"), ("town",)):
        for mine, theirs in zip(there.pieces, here.pieces, strict=True):
            asked.clear()
            assert mine.read(columns).equals(theirs.read(columns))
            wanted = sum(table.column(name).nbytes for name in columns if name in table.column_names) / 3
            assert sum(size for method, size in asked if method == "get_object") < 1.3 * wanted + ENDS + GAP
            assert len(asked) <= 4 + len(columns) // 2
    monkeypatch.setattr("dask_em.data.pins.REQUEST", 1 << 16)
    monkeypatch.setattr("dask_em.data.pins.GAP", 0)
    asked.clear()
    assert there.read(("x0", "x1", "x2")).equals(here.read(("x0", "x1", "x2")))
    assert [method for method, _ in asked].count("get_object") == 3 * (1 + 3)


def test_row_groups_without_rows_are_read_from_a_bucket(bucket: Any, tmp_path: Path) -> None:
    """They have no place in the file."""
    with pq.ParquetWriter(tmp_path / "b.parquet", ROWS.schema, use_dictionary=False) as writer:
        for own in (ROWS.slice(0, 9), ROWS.slice(0, 0), ROWS.slice(9)):
            writer.write_table(own)
    bucket.put(str(tmp_path / "b.parquet"), "changing/rows/b.parquet")
    assert open_source("s3://changing/rows").read(("x", "town")).equals(ROWS)


@pytest.mark.parametrize(
    ("found", "error", "says"),
    [
        (TimeoutError, TryAgainError, r"the storage of a\.parquet does not answer \(TimeoutError\)"),
        (FileNotFoundError, DataError, r"a\.parquet changed while it was read"),
    ],
)
def test_storage_that_does_not_say_that_an_object_is_the_same(
    found: type[Exception], error: type[Exception], says: str, bucket: Any, quiet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(str(quiet), "changing/", recursive=True)
    source = open_source("s3://changing/rows")
    told, asked = bucket.info, list[str]()

    def once(path: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(path)
        if len(asked) > 1:
            raise found
        return told(path, *args, **kwargs)

    bucket.invalidate_cache()
    monkeypatch.setattr(bucket, "info", once)
    with pytest.raises(error, match=says):
        source.pieces[0].read(("x",))
    assert len(asked) == 2


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


# --- partitions of a Dask dataframe ------------------------------------------------------------------------------


def test_partitions_that_are_computed_again_must_come_to_the_same(quiet: Path) -> None:
    frame = dd.from_map(pd.read_parquet, [quiet / "a.parquet", quiet / "b.parquet"])
    own = LocalExecutor(1, blocks="streamed")
    assert fit(frame, own, lambda: None) == fit(frame, own, lambda: None)
    said = r"^partition 1 of the dataframe was computed again and is not what it was: .*, or write it to files first$"
    with pytest.raises(DataError, match=said):
        fit(frame, own, lambda: unnoticed(one_cell, quiet / "b.parquet"))


def test_partitions_that_share_work_too(quiet: Path) -> None:
    frame = dd.from_map(pd.read_parquet, [quiet / f"{name}.parquet" for name in 6 * "ab"])
    (source, *_) = to_source(frame.shuffle("x", shuffle_method="tasks"), None, None, None)
    assert isinstance(source.pieces[0], SharedPiece)
    design, own = Design(gaussian=("x", "y")), LocalExecutor(1)
    source = pinned(source, profile_source(source, design, own).marks)
    assert profile_source(source, design, own).rows == 3600
    unnoticed(one_cell, quiet / "b.parquet")
    with pytest.raises(DataError, match=r"^partition \d of the dataframe was computed again and is not what it was"):
        profile_source(source, design, own)


def test_partitions_that_workers_trade_are_computed_by_the_cluster(quiet: Path, cluster: DaskExecutor) -> None:
    frame = dd.from_map(pd.read_parquet, [quiet / "a.parquet", quiet / "b.parquet"])
    (source, *_) = to_source(frame.shuffle("x", shuffle_method="p2p"), None, None, None)
    design = Design(gaussian=("x", "y"))
    source = pinned(source, profile_source(source, design, cluster).marks)
    assert profile_source(source, design, cluster).rows == 600


CELLS = {
    "numbers": (pa.array([1.5, None, -2.0, 0.25]), pa.array([1.5, None, 2.0, 0.25])),
    "holes": (pa.array([0.0, None, 1.0]), pa.array([0.0, 0.0, 1.0])),
    "whole": (pa.array([3, 5, None]), pa.array([4, 4, None])),
    "whole and negative": (pa.array([-3, 5, 0], pa.int32()), pa.array([-3, 4, 1], pa.int32())),
    "not a number": (pa.array([np.nan, 1.0, 0.0]), pa.array([0.0, 1.0, 0.0])),
    "text": (pa.array(["a", "b", "b", None]), pa.array(["a", "a", "b", None])),
    "flags": (pa.array([True, False, True]), pa.array([True, False, False])),
}


@pytest.mark.parametrize("kind", CELLS)
def test_marks_of_cells_know_contents_and_no_order(kind: str) -> None:
    cells, other = (pa.chunked_array([own]) for own in CELLS[kind])
    marks = column_marks("x", cells)
    assert not differ(marks, column_marks("x", pa.chunked_array([cells.chunk(0)[::-1]])))
    assert not differ(marks, column_marks("x", pa.chunked_array([cells.chunk(0)[:1], cells.chunk(0)[1:]])))
    assert differ(marks, column_marks("x", other))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_marks_of_cells_forgive_rounding(kind: type) -> None:
    x = np.random.default_rng(0).normal(size=1000).astype(kind).astype(float)
    turned = [pa.chunked_array([np.r_[own, np.nan, np.inf, -np.inf].astype(kind)]) for own in (x, x[::-1])]
    assert not differ(column_marks("x", turned[0]), column_marks("x", turned[1]))
    marks = column_marks("x", pa.chunked_array([x]))
    assert not differ(marks, column_marks("x", pa.chunked_array([x * (1 + 1e-15)])))
    assert differ(marks, column_marks("x", pa.chunked_array([np.r_[x[:-1], x[-1] + 1e-3]])))
