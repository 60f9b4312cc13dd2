"""Every kind of source holds the same rows in the same order, and leads to the same fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from dask_em import GaussianMixture, MixtureModel, load, save
from dask_em.data import sources
from dask_em.data.sinks import ParquetSink, staged
from dask_em.data.sources import Source, open_source
from dask_em.errors import ConfigurationError, DataError, OutputError
from dask_em.scoring import write_scores

N = 240
COLUMNS = ("x", "y", "town", "children")
BIG = 2**53 + 1
"""The first integer that float64 does not have."""


def table() -> pa.Table:
    """Numbers, text, counts and an integer key with nulls; a null here is a missing cell in every other kind."""
    rng = np.random.default_rng(31)
    group = rng.random(N) < 0.4
    holes = rng.random((4, N)) < 0.15
    return pa.table(
        {
            "id": pa.array((BIG + 2 * np.arange(N)).tolist(), mask=rng.random(N) < 0.1, type=pa.int64()),
            "x": pa.array(np.where(group, 5.0, 0.0) + rng.standard_normal(N), mask=holes[0]),
            "y": pa.array(np.where(group, -3.0, 1.0) + rng.standard_normal(N), mask=holes[1]),
            "town": pa.array(np.where(rng.random(N) < np.where(group, 0.9, 0.3), "Bern", "Genève"), mask=holes[2]),
            "children": pa.array(rng.poisson(np.where(group, 4.0, 1.0)), mask=holes[3]),
        }
    )


def fit(X: Any) -> MixtureModel:
    model = MixtureModel(
        2, gaussian=["x", "y"], categorical=["town"], poisson=["children"], random_state=0, executor="local"
    )
    return model.fit(X)


def plain_rows(source: Source, columns: tuple[str, ...] = COLUMNS) -> list[tuple[Any, ...]]:
    """The rows as Python values, None where missing."""
    read = source.read(columns).select(list(columns))
    return [
        tuple(None if isinstance(v, float) and np.isnan(v) else v for v in row.values()) for row in read.to_pylist()
    ]


# --- kinds -------------------------------------------------------------------------------------------------------

Make = Callable[[Path], Any]


def _pandas_nan(folder: Path) -> Any:
    return table().to_pandas()


def _pandas_na(folder: Path) -> Any:
    return table().to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.float64(): pd.Float64Dtype()}.get)


def _pandas_none(folder: Path) -> Any:
    return pd.DataFrame({name: pd.Series(table().column(name).to_pylist(), dtype=object) for name in COLUMNS})


def _pandas_arrow(folder: Path) -> Any:
    return table().to_pandas(types_mapper=pd.ArrowDtype)


def _pandas_category(folder: Path) -> Any:
    return table().to_pandas().astype({"town": "category"})


def _pandas_odd_index(folder: Path) -> Any:
    return table().to_pandas().set_index(pd.Index(np.arange(N)[::-1] // 2))


def _dictionary(folder: Path) -> Any:
    return table().set_column(3, "town", table().column("town").dictionary_encode())


def _chunks(folder: Path) -> Any:
    return pa.concat_tables([table().slice(0, 10), table().slice(10, 0), table().slice(10)])


class _Stream:
    """Anything with an Arrow stream."""

    def __arrow_c_stream__(self, schema: Any = None) -> Any:
        return table().__arrow_c_stream__(schema)


def _file(folder: Path) -> Any:
    pq.write_table(table(), folder / "rows.parquet")
    return folder / "rows.parquet"


def _row_groups(folder: Path) -> Any:
    pq.write_table(table(), folder / "rows.parquet", row_group_size=50)
    return str(folder / "rows.parquet")


def _folder(folder: Path) -> Any:
    for i, start in enumerate(range(0, N, 70)):
        pq.write_table(table().slice(start, 70), folder / f"part-{i}.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.parquet.crc").touch()
    return folder


def _nested_folder(folder: Path) -> Any:
    for month, start in (("2024-01", 0), ("2024-02", 100)):
        (folder / month).mkdir()
        pq.write_table(table().slice(start, 100 if not start else None), folder / month / "rows.parquet")
    return folder


def _glob(folder: Path) -> Any:
    _folder(folder)
    (folder / "notes.txt").write_text("not a table")
    return str(folder / "part-*.parquet")


def _other_order(folder: Path) -> Any:
    """The second file has its columns in another order, and one more."""
    pq.write_table(table().slice(0, 100), folder / "a.parquet")
    rest = table().slice(100)
    pq.write_table(rest.select(rest.column_names[::-1]).append_column("more", rest.column("x")), folder / "b.parquet")
    return folder


TYPES = {"id": "int64", "x": "float64", "y": "float64", "town": "string", "children": "int64"}


def _write_csv(path: Path, start: int = 0, stop: int = N, names: list[str] | None = None) -> None:
    own = table().slice(start, stop - start)
    pyarrow.csv.write_csv(own.select(names or own.column_names), path)


def _csv(folder: Path) -> Any:
    _write_csv(folder / "rows.csv")
    return open_source(str(folder / "rows.csv"), types=TYPES)


def _csv_undeclared(folder: Path) -> Any:
    _write_csv(folder / "rows.csv")
    return str(folder / "rows.csv")


def _csv_compressed(folder: Path) -> Any:
    _write_csv(folder / "rows.csv")
    pd.read_csv(folder / "rows.csv", dtype="string").to_csv(folder / "rows.csv.gz", index=False)
    (folder / "rows.csv").unlink()
    return open_source(str(folder / "rows.csv.gz"), types=TYPES)


def _csv_folder(folder: Path) -> Any:
    _write_csv(folder / "a.csv", 0, 90)
    _write_csv(folder / "b.csv", 90, N, table().column_names[::-1])
    return open_source(str(folder), types=TYPES)


KINDS: dict[str, Make] = {
    "pandas NaN": _pandas_nan,
    "pandas NA": _pandas_na,
    "pandas None": _pandas_none,
    "pandas Arrow": _pandas_arrow,
    "pandas category": _pandas_category,
    "pandas odd index": _pandas_odd_index,
    "Arrow": lambda folder: table(),
    "Arrow dictionary": _dictionary,
    "Arrow chunks": _chunks,
    "Arrow stream": lambda folder: _Stream(),
    "Parquet file": _file,
    "Parquet row groups": _row_groups,
    "Parquet folder": _folder,
    "Parquet nested folder": _nested_folder,
    "Parquet glob": _glob,
    "Parquet columns in another order": _other_order,
    "CSV": _csv,
    "CSV undeclared": _csv_undeclared,
    "CSV compressed": _csv_compressed,
    "CSV folder": _csv_folder,
}


@pytest.fixture(scope="module")
def expected() -> MixtureModel:
    return fit(table())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_holds_the_same_rows_and_leads_to_the_same_fit(
    kind: str, expected: MixtureModel, tmp_path: Path
) -> None:
    X = KINDS[kind](tmp_path)
    source = open_source(X)
    assert plain_rows(source) == plain_rows(open_source(table()))
    fitted = fit(X)
    # Pieces are profiled one by one, so means and scales may differ in the last bit.
    assert fitted.log_likelihood_ == pytest.approx(expected.log_likelihood_, rel=1e-12)
    np.testing.assert_allclose(fitted.means_, expected.means_, rtol=1e-9)
    np.testing.assert_allclose(fitted.rates_, expected.rates_, rtol=1e-9)
    pd.testing.assert_frame_equal(fitted.probabilities_["town"], expected.probabilities_["town"], rtol=1e-9)
    if len(source.pieces) == 1:
        assert fitted.log_likelihood_ == expected.log_likelihood_


def test_arrays_are_the_same_numbers(tmp_path: Path) -> None:
    frame = table().select(["x", "y"]).to_pandas()
    named = GaussianMixture(2, random_state=0).fit(frame)
    for X in (
        frame.to_numpy(),
        frame.to_numpy().astype(object),
        np.asfortranarray(frame.to_numpy()),
        frame.to_numpy()[::1],
    ):
        assert GaussianMixture(2, random_state=0).fit(X).log_likelihood_ == named.log_likelihood_


def test_pieces_of_a_table_in_memory_are_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PIECE_ROWS", 70)
    for X in (table(), table().to_pandas(), table().to_pandas()[["x", "y"]].to_numpy()):
        source = open_source(X)
        assert len(source.pieces) == 4
        names = source.columns if len(source.columns) == 2 else COLUMNS
        whole = table().select(["x", "y"] if len(source.columns) == 2 else COLUMNS)
        assert list(plain_rows(source, names)) == [tuple(r.values()) for r in whole.to_pylist()]


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for i in (3, 1, 2):
        pq.write_table(pa.table({"x": [i]}), tmp_path / f"{i}.parquet")
    assert open_source(str(tmp_path)).read(["x"]).column("x").to_pylist() == [1, 2, 3]


# --- object storage ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, Any]]:
    """A bucket on a server of this machine; what a user would pass as storage_options stands in the environment."""
    moto = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "nobody", "secret": "nothing", "endpoint_url": f"http://{host}:{port}"}
    try:
        filesystem = s3fs.S3FileSystem(**options)
        filesystem.mkdir("shop")
        for i, start in enumerate(range(0, N, 100)):
            with filesystem.open(f"shop/customers/part-{i}.parquet", "wb") as file:
                pq.write_table(table().slice(start, 100), file, row_group_size=40)
        yield options
    finally:
        server.stop()


@pytest.mark.parametrize("path", ["s3://shop/customers", "s3://shop/customers/*.parquet"])
def test_a_bucket_is_a_folder(path: str, bucket: dict[str, Any], expected: MixtureModel) -> None:
    source = open_source(path, storage_options=bucket)
    assert len(source.pieces) == 7
    assert plain_rows(source) == plain_rows(open_source(table()))
    assert fit(source).log_likelihood_ == pytest.approx(expected.log_likelihood_, rel=1e-12)


def test_an_object_that_changed_is_named(bucket: dict[str, Any]) -> None:
    import s3fs

    filesystem = s3fs.S3FileSystem(**bucket)
    for size in (80, 81):
        with filesystem.open("shop/changing/b.parquet", "wb") as file:
            pq.write_table(table().slice(0, size), file)
        if size == 80:
            source = open_source("s3://shop/changing", storage_options=bucket)
            assert source.read(["x"]).num_rows == 80
            assert source.read(["x"]).num_rows == 80
    with pytest.raises(DataError, match=r"b\.parquet changed while it was read"):
        source.read(["x"])


def test_an_object_that_is_not_there(bucket: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="no Parquet or CSV file at s3://shop/nothing"):
        open_source("s3://shop/nothing", storage_options=bucket)


# --- keys --------------------------------------------------------------------------------------------------------


def ids_after(X: Any, folder: Path) -> pa.ChunkedArray:
    model = GaussianMixture(2, random_state=0).fit(table().select(["x", "y"]))
    facts = write_scores(model, X, folder / "out", key="id")
    assert facts["rows"] == N
    return open_source(str(folder / "out")).read(["id"]).column("id")


@pytest.mark.parametrize(
    "kind", ["pandas NA", "pandas Arrow", "Arrow", "Parquet row groups", "Parquet folder", "CSV", "CSV folder"]
)
def test_large_integer_keys_with_nulls_survive(kind: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    ids = ids_after(KINDS[kind](tmp_path / "in"), tmp_path)
    assert ids.type == pa.int64()
    assert ids.to_pylist() == table().column("id").to_pylist()
    assert ids.null_count > 0


def test_keys_of_every_type_are_carried_as_they_are(tmp_path: Path) -> None:
    rows = table().append_column("when", pa.array(np.arange(N), pa.timestamp("us", tz="UTC")))
    rows = rows.append_column("code", pa.array([f"{i:05d}" for i in range(N)]))
    model = GaussianMixture(2, random_state=0).fit(rows.select(["x", "y"]))
    write_scores(model, rows, tmp_path / "out", key=["when", "code", "id"])
    written = open_source(str(tmp_path / "out"))
    assert written.columns[:3] == ("when", "code", "id")
    assert written.read(["when", "code", "id"]).equals(rows.select(["when", "code", "id"]))


def test_scores_are_written_from_a_saved_model(tmp_path: Path) -> None:
    model = fit(table())
    save(model, tmp_path / "model")
    facts = write_scores(str(tmp_path / "model"), table(), tmp_path / "out", key="id")
    scores = pd.read_parquet(tmp_path / "out")
    assert facts == {"rows": N, "parts": 1, "outliers": scores["outlier"].sum(), "output": str(tmp_path / "out")}
    assert (scores["segment"] == load(tmp_path / "model").predict(table()).to_numpy()).all()


# --- what goes wrong ---------------------------------------------------------------------------------------------


def _says(X: Any, message: str, error: type[Exception] = DataError) -> None:
    with pytest.raises(error, match=message) as caught:
        fit(X)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    _folder(tmp_path)
    (tmp_path / "part-2.parquet").write_bytes(b"PAR1 and no more")
    _says(tmp_path, r"^part-2\.parquet cannot be read, it is damaged or of another format: check the file$")


def test_a_file_that_goes_away_is_named(tmp_path: Path) -> None:
    source = open_source(str(_folder(tmp_path)))
    (tmp_path / "part-1.parquet").unlink()
    _says(source, r"^part-1\.parquet cannot be read, it does not exist: check the file$")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = _file(tmp_path)
    path.chmod(0)
    _says(path, r"rows\.parquet cannot be read")


def test_a_column_that_a_later_file_lacks_is_named(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(table().drop_columns(["town"]), tmp_path / "b.parquet")
    _says(tmp_path, r"^b\.parquet has no column 'town', which the files before it have$")


@pytest.mark.parametrize("kind", ["Arrow", "pandas NaN", "Parquet file", "CSV"])
def test_a_missing_column_is_named_with_the_nearest(kind: str, tmp_path: Path) -> None:
    model = MixtureModel(2, categorical=["twon"], poisson=["children"])
    with pytest.raises(DataError, match=r"column 'twon' is not in .*; did you mean 'town'\?"):
        model.fit(KINDS[kind](tmp_path))


def test_nothing_at_a_path(tmp_path: Path) -> None:
    _says(str(tmp_path / "nobody"), "no Parquet or CSV file at")
    _says(str(tmp_path), "no Parquet or CSV file at")


def test_a_csv_that_contradicts_its_types(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("x,y,town,children\n1,2,Bern,3\nsecret,2,Bern,3\n")
    source = open_source(str(tmp_path / "rows.csv"), types=TYPES)
    with pytest.raises(DataError, match=r"rows\.csv does not match the declared types") as caught:
        fit(source)
    assert "secret" not in str(caught.value)


def test_a_type_that_is_none(tmp_path: Path) -> None:
    _write_csv(tmp_path / "rows.csv")
    with pytest.raises(ConfigurationError, match="type of column 'x' is not an Arrow type"):
        open_source(str(tmp_path / "rows.csv"), types={"x": "number"})


def test_leading_zeros_survive_where_text_is_declared(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("zip,x\n03011,1\n00850,2\n,3\n")
    read = open_source(str(tmp_path / "rows.csv"), types={"zip": "string"}).read(["zip"])
    assert read.column("zip").to_pylist() == ["03011", "00850", None]


def test_two_columns_of_one_name() -> None:
    with pytest.raises(DataError, match="two columns named 'x'"):
        open_source(pd.DataFrame([[1, 2]], columns=["x", "x"]))


# --- sinks -------------------------------------------------------------------------------------------------------


def test_nothing_appears_before_all_is_written(tmp_path: Path) -> None:
    with staged(tmp_path / "out") as folder:
        ParquetSink(str(folder)).write(0, [table()])
        assert not (tmp_path / "out").exists()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["part-00000.parquet"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staged(tmp_path / "new" / "out") as folder:
            ParquetSink(str(folder)).write(0, [table()])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list((tmp_path / "new").iterdir())


def test_a_part_may_be_written_twice(tmp_path: Path) -> None:
    sink = ParquetSink(str(tmp_path))
    assert sink.write(3, [table()]) == sink.write(3, [table()])
    assert [p.name for p in tmp_path.iterdir()] == ["part-00003.parquet"]


def test_a_folder_in_use_or_a_url_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file", "s3://bucket/out"):
        with pytest.raises(OutputError), staged(folder):
            pass
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
