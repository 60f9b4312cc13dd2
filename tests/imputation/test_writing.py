"""Completed tables on disk: every observed cell is bit for bit what it was, and a change would be noticed."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from scipy.stats import ttest_1samp

import dask_em.imputation.writing as writing
from dask_em import Imputer, save
from dask_em.cli import em
from dask_em.data.digest import column_digest
from dask_em.errors import ConfigurationError, DataError, IntegrityError, OutputError
from dask_em.imputation.summaries import LISTWISE, GroupSums
from dask_em.imputation.writing import write_imputed

N = 1500


def table(seed: int = 0) -> pa.Table:
    """Every kind of column: ids that no float holds, NaN beside null, decimals, dates, categories, lists."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=N)
    both = pa.array(np.where(rng.random(N) < 0.1, np.nan, x), mask=rng.random(N) < 0.1)
    return pa.table(
        {
            "id": pa.array(np.arange(N) * 7 + 2**60),
            "parent": pa.array(np.arange(N) + 2**55 + 1, mask=rng.random(N) < 0.3),
            "x": both,
            "y": pa.array(x + rng.normal(size=N), mask=rng.random(N) < 0.3),
            "small": pa.array((x**2).astype("f4"), mask=rng.random(N) < 0.2),
            "count": pa.array(rng.poisson(3, N).astype("int16"), mask=rng.random(N) < 0.1),
            "money": pa.array(
                [decimal.Decimal(int(v)).scaleb(-2) for v in x * 1000 + 5000],
                pa.decimal128(12, 2),
                mask=rng.random(N) < 0.1,
            ),
            "day": pa.array([datetime.date(2020, 1, 1)] * N, mask=rng.random(N) < 0.5),
            "moment": pa.array([datetime.datetime(2020, 1, 1, 12)] * N, pa.timestamp("us")),
            "town": pa.array(
                np.array(["Bern", "Chur", "Genf"])[rng.integers(0, 3, N)], mask=rng.random(N) < 0.1
            ).dictionary_encode(),
            "yes": pa.array(x > 0, mask=rng.random(N) < 0.2),
            "untouched": pa.array(np.where(rng.random(N) < 0.5, np.nan, 1.0), mask=rng.random(N) < 0.2),
            "list": pa.array([[1, i] for i in range(N)]),
        }
    )


MODELLED = ["x", "y", "small", "count", "money", "town", "yes"]


@pytest.fixture(scope="module")
def imputer() -> Imputer:
    settings: dict[str, Any] = {
        "columns": MODELLED,
        "n_components": 1,
        "n_replicates": 3,
        "random_state": 0,
        "key": "id",
    }
    return Imputer(**settings).fit(table())


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "input"
    folder.mkdir()
    for i, start in enumerate(range(0, N, 600)):
        pq.write_table(table().slice(start, 600), folder / f"{i}.parquet", row_group_size=250)
    return folder


def _same(column: pa.ChunkedArray, other: pa.ChunkedArray, rows: np.ndarray) -> bool:
    return column_digest(column, rows) == column_digest(other, rows)


def test_observed_cells_are_the_same_bits(imputer: Imputer, files: Path, tmp_path: Path) -> None:
    facts = write_imputed(imputer, files, tmp_path / "out", m=2)
    before, after = table(), pq.read_table(tmp_path / "out" / "mean")
    assert after.schema.names == before.schema.names
    assert facts["rows"] == N == len(after)
    for name in before.column_names:
        column = before.column(name)
        hole = column.is_null(nan_is_null=pa.types.is_floating(column.type)).to_numpy()
        kept = np.flatnonzero(~hole) if name in MODELLED else np.arange(N)
        assert _same(column, after.column(name).cast(column.type), kept), name
        if name in MODELLED:
            assert after.column(name).is_null(nan_is_null=pa.types.is_floating(column.type)).to_numpy().sum() == 0
            assert facts["filled"][name] == hole.sum()
    assert after.column("untouched").null_count == before.column("untouched").null_count
    assert "compared bit for bit" in facts["integrity"]


def test_draws_in_long_format_are_those_of_the_imputer(imputer: Imputer, files: Path, tmp_path: Path) -> None:
    write_imputed(imputer, files, tmp_path / "out", m=2)
    long = pq.read_table(tmp_path / "out" / "draws")
    assert long.column_names[:2] == [".imp", ".id"]
    assert len(long) == 2 * N
    for i, done in enumerate(imputer.draw(table(), 2), start=1):
        own = long.filter(pc.equal(long.column(".imp"), i)).sort_by(".id").drop_columns([".imp", ".id"])
        assert own.column("id").to_pylist() == done.column("id").to_pylist()
        for name in MODELLED:
            assert own.column(name).to_pylist() == done.column(name).to_pylist()


def test_a_folder_for_each_draw_and_ids_without_a_key(tmp_path: Path, files: Path) -> None:
    settings: dict[str, Any] = {"columns": ["x", "y"], "n_replicates": 2, "random_state": 0}
    imputer = Imputer(**settings).fit(table())
    write_imputed(imputer, table(), tmp_path / "folders", m=2, layout="folders")
    assert sorted(p.name for p in (tmp_path / "folders" / "draws").iterdir()) == ["imp=1", "imp=2"]
    write_imputed(imputer, files, tmp_path / "long", m=2)
    long = pq.read_table(tmp_path / "long" / "draws", columns=[".imp", ".id"]).to_pandas()
    assert (long.groupby(".imp")[".id"].apply(list).map(sorted).map(lambda own: own == list(range(1, N + 1)))).all()


def test_a_saved_imputer_completes_new_files(imputer: Imputer, tmp_path: Path) -> None:
    save(imputer, tmp_path / "model")
    pq.write_table(table(seed=9), tmp_path / "new.parquet")
    facts = write_imputed(tmp_path / "model", tmp_path / "new.parquet", tmp_path / "out")
    assert facts["rows"] == N
    assert not (tmp_path / "out" / "draws").exists()


@pytest.mark.parametrize("name", ["parent", "x", "untouched", "money", "list"])
def test_a_changed_cell_is_noticed(
    name: str, imputer: Imputer, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = writing.complete_arrow

    def careless(rows: pa.Table, cells: Any, types: dict[str, pa.DataType]) -> pa.Table:
        done = honest(rows, cells, types)
        values = done.column(name).to_pylist()
        place = next(i for i, v in enumerate(rows.column(name).to_pylist()) if v is not None and v == v)
        values[place] = {"list": [0]}.get(name, values[(place + 1) % len(values)])
        if name == "parent":
            values[place] = int(float(rows.column(name)[place].as_py()))  # what a detour through float64 does
        if name == "untouched":
            values[place] = None
        return done.set_column(done.column_names.index(name), name, pa.array(values, done.schema.field(name).type))

    monkeypatch.setattr(writing, "complete_arrow", careless)
    with pytest.raises(IntegrityError, match=f"column '{name}' changed"):
        write_imputed(imputer, files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_lost_row_is_noticed(imputer: Imputer, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = writing.complete_arrow
    monkeypatch.setattr(writing, "complete_arrow", lambda *given: honest(*given).slice(1))
    with pytest.raises(IntegrityError, match="rows came in"):
        write_imputed(imputer, files, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["input"]


def test_nan_and_null_differ_and_order_matters() -> None:
    rows = np.arange(3)
    a = pa.chunked_array([pa.array([1.0, float("nan"), 2.0])])
    b = pa.chunked_array([pa.array([1.0, None, 2.0])])
    c = pa.chunked_array([pa.array([2.0, float("nan"), 1.0])])
    minus = pa.chunked_array([pa.array([0.0, -0.0, 1.0])])
    plus = pa.chunked_array([pa.array([0.0, 0.0, 1.0])])
    assert column_digest(a, rows) != column_digest(b, rows) != column_digest(c, rows)
    assert column_digest(a, rows) != column_digest(c, rows)
    assert column_digest(minus, rows) != column_digest(plus, rows)
    assert column_digest(a, rows) == column_digest(
        pa.chunked_array([a.chunk(0).slice(0, 1), a.chunk(0).slice(1)]), rows
    )


def test_repeated_keys_and_outputs_in_use(imputer: Imputer, tmp_path: Path) -> None:
    twice = pa.concat_tables([table(), table().slice(3, 1)])
    with pytest.raises(DataError, match="the key 'id' is not unique"):
        write_imputed(imputer, twice, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(OutputError):
        write_imputed(imputer, table(), tmp_path / "full")


@pytest.mark.parametrize("far", [0.0, 1.7e9])
def test_means_by_group_are_those_of_pandas(far: float) -> None:
    frame = table().to_pandas()[["y", "town"]].assign(w=np.random.default_rng(0).uniform(0.5, 2, N))
    frame["y"] += far
    arrow = pa.Table.from_pandas(frame, preserve_index=False)
    empty = GroupSums(("y",), "town", "w")
    whole = empty.add(arrow, 0)
    parts = empty.add(arrow.slice(0, 400), 0) + empty.add(arrow.slice(400), 0)
    for town, own in [(None, frame), *frame.groupby("town", observed=True)]:
        seen = own.dropna(subset="y")
        mean = far + np.average(seen["y"] - far, weights=seen["w"])
        n = len(seen)
        variance = (seen["w"] ** 2 * (seen["y"] - mean) ** 2).sum() / seen["w"].sum() ** 2 * n / (n - 1)
        for sums in (whole, parts):
            assert sums._mean((0, town, "y")) == (pytest.approx(mean), pytest.approx(variance, rel=1e-6), n)


def test_rows_without_weight_are_nobody() -> None:
    """Else a group of one person and many such rows would be published."""
    rows = pa.table({"y": [1.0, 2.0, 4.0, 9.0], "g": ["a", "b", "b", "b"], "w": [1.0, 0.0, 1.0, 2.0]})
    found = GroupSums(("y",), "g", "w").add(rows, LISTWISE).pooled().set_index("group")
    assert found["rows"].to_dict() == {"all": 3, "b": 2}
    kept = GroupSums(("y",), "g", "w").add(rows.filter(pa.array(rows["w"].to_numpy() > 0)), LISTWISE).pooled()
    pd.testing.assert_frame_equal(found.reset_index(), kept, check_like=True)
    assert GroupSums(("y",), "g", "w").add(rows.slice(1, 1), LISTWISE).pooled().empty


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_of_few_complete_rows_are_those_of_student(level: float) -> None:
    y = np.array([3.0, 1.0, 4.0, 1.5])
    found = GroupSums(("y",), None, None).add(pa.table({"y": y}), LISTWISE).pooled(level).iloc[0]
    known = ttest_1samp(y, 0.0).confidence_interval(level)
    assert (found["low"], found["high"]) == pytest.approx((known.low, known.high))


@pytest.mark.parametrize("column", [".imp", ".id"])
def test_draws_may_be_given_back(column: str, imputer: Imputer, tmp_path: Path) -> None:
    again = table().append_column(column, pa.array(np.arange(N)))
    with pytest.raises(DataError, match=rf"column '{column}' has a name that draws in long layout need"):
        write_imputed(imputer, again, tmp_path / "out", m=2)
    assert not (tmp_path / "out").exists()
    write_imputed(imputer, again, tmp_path / "mean")
    write_imputed(imputer, again, tmp_path / "folders", m=1, layout="folders")
    for done in (pq.read_table(tmp_path / "mean" / "mean"), pq.read_table(tmp_path / "folders" / "draws" / "imp=1")):
        assert done.column(column).to_pylist() == list(range(N))


def test_what_parquet_does_not_have_is_named(imputer: Imputer, tmp_path: Path) -> None:
    again = table().append_column("span", pa.array([(1, 2, 3)] * N, pa.month_day_nano_interval()))
    with pytest.raises(
        DataError, match="column 'span' has the type month_day_nano_interval, which Parquet files do not"
    ):
        write_imputed(imputer, again, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_output_among_the_files_of_the_table(imputer: Imputer, tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "part.parquet")
    with pytest.raises(OutputError, match="is inside the folder of the table"):
        write_imputed(imputer, tmp_path, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["part.parquet"]


def test_a_lazy_table_is_sent_where_it_stays_lazy(imputer: Imputer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a Dask dataframe is completed by the imputer's transform and draw"):
        write_imputed(imputer, dd.from_pandas(table().to_pandas(), npartitions=2), tmp_path / "out")


def test_folders_of_draws_need_their_name(imputer: Imputer, tmp_path: Path) -> None:
    again = table().append_column("imp", pa.array(np.arange(N)))
    with pytest.raises(DataError, match="column 'imp' has a name that folders of draws need: rename it, or write all"):
        write_imputed(imputer, again, tmp_path / "out", m=2, layout="folders")
    assert not (tmp_path / "out").exists()
    write_imputed(imputer, again, tmp_path / "long", m=1)


def test_no_fewer_draws_than_none(tmp_path: Path) -> None:
    done = CliRunner().invoke(em, ["impute", "model", "table.parquet", str(tmp_path / "out"), "--draws", "-1"])
    assert done.exit_code == 2
    assert "Invalid value for '--draws'" in done.output


def test_there_are_two_layouts(imputer: Imputer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="layout must be 'long', all draws in one table, or 'folders'"):
        write_imputed(imputer, table(), tmp_path / "out", m=1, layout="wide")


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("empty", [0, 1])
def test_columns_and_parts_without_a_cell_are_written(
    imputer: Imputer, tmp_path: Path, suffix: str, empty: int
) -> None:
    given = tmp_path / "input"
    given.mkdir()
    whole = table().drop_columns(["day", "list", "untouched", "moment", "parent"])
    for i in range(2):
        part = whole.slice(0 if i else 500, 100)
        for name in MODELLED[1:] if i == empty else []:
            index = part.column_names.index(name)
            part = part.set_column(index, name, pa.nulls(100))
        if suffix == "csv":
            pyarrow.csv.write_csv(part, given / f"{i}.csv")
        else:
            pq.write_table(part, given / f"{i}.parquet")
    one = given / f"{empty}.{suffix}"
    facts = write_imputed(imputer, one, tmp_path / "one", m=2)
    done = pq.read_table(tmp_path / "one" / "mean")
    assert all(done.column(name).null_count == 0 for name in MODELLED)
    assert facts["filled"]["town"] == 100
    write_imputed(imputer, given, tmp_path / "both", m=2)
    both = imputer.transform(given)
    for done in (pq.read_table(tmp_path / "both" / "mean"), pq.read_table(tmp_path / "both" / "draws"), both):
        assert all(done.column(name).null_count == 0 for name in MODELLED)
    if suffix == "parquet":
        assert both.schema.types == whole.schema.types


def test_cells_of_an_empty_column_that_were_not_asked_stay_empty(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"columns": ["x", "y"], "universe": {"y": "yes"}, "n_replicates": 0}
    imputer = Imputer(**settings).fit(table())
    index = table().column_names.index("y")
    given = table().set_column(index, "y", pa.nulls(N))
    write_imputed(imputer, given, tmp_path / "out")
    done = pq.read_table(tmp_path / "out" / "mean").column("y")
    assert done.is_valid().to_pylist() == [v is True for v in table().column("yes").to_pylist()]


def test_a_group_may_be_called_as_all_rows_are() -> None:
    rows = pa.table({"y": [1.0, 3.0, 10.0, 20.0, 30.0], "g": ["all", "all", "b", "b", "b"]})
    found = GroupSums(("y",), "g", None).add(rows, "listwise").pooled().set_index("group")
    assert found["rows"].to_dict() == {"all": 5, "b": 3, "g=all": 2}
    assert found["estimate"].to_dict() == pytest.approx({"all": 12.8, "b": 20.0, "g=all": 2.0})


def test_a_number_makes_no_groups() -> None:
    rows = pa.table({"y": np.arange(1200.0), "g": np.arange(1200.0)})
    empty = GroupSums(("y",), "g", None)
    with pytest.raises(DataError, match="column 'g' has more than 1000 groups"):
        empty.add(rows, 0)
    with pytest.raises(DataError, match="column 'g' has more than 1000 groups"):
        empty.add(rows.slice(0, 600), 0) + empty.add(rows.slice(600), 0)


def test_pooled_means_stand_beside_the_complete_rows() -> None:
    frame = pa.table({"y": np.arange(100.0)})
    sums = GroupSums(("y",), None, None)
    for i in range(3):
        sums = sums.add(pa.table({"y": np.arange(100.0) + i}), i)
    found = sums.add(frame, "listwise").pooled().set_index("method")
    assert found.loc["imputed", "estimate"] == pytest.approx(50.5)
    assert found.loc["complete rows only", "estimate"] == pytest.approx(49.5)
    within = np.var(np.arange(100.0), ddof=1) / 100
    assert found.loc["imputed", "standard_error"] == pytest.approx(np.sqrt(within + 4 / 3))
    assert isinstance(found, pd.DataFrame)
