"""Which files make a table, what their folders say, and what is read of text."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_em import MixtureModel
from dask_em.data.sources import open_source
from dask_em.errors import DataError
from dask_em.scoring import write_scores

ROWS = pa.table({"x": [1.0, 2.0], "town": ["Bern", "Chur"]})
CSV = "x,town\n1,Bern\n2,Chur\n"


def read(path: Any) -> list[dict[str, Any]]:
    source = open_source(path)
    return source.read(source.columns).to_pylist()


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows[1].parquet", "rows?.parquet", "what*.parquet", "[ab].parquet"])
def test_a_name_that_looks_like_a_glob_is_a_name(name: str, tmp_path: Path) -> None:
    pq.write_table(ROWS.slice(0, 1), tmp_path / name)
    pq.write_table(ROWS, tmp_path / "a.parquet")
    assert read(tmp_path / name) == ROWS.slice(0, 1).to_pylist()


def test_a_folder_that_looks_like_a_glob_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "2024 [final]").mkdir()
    pq.write_table(ROWS, tmp_path / "2024 [final]" / "rows.parquet")
    assert read(tmp_path / "2024 [final]") == ROWS.to_pylist()


def test_brackets_are_a_glob_where_nothing_has_the_name(tmp_path: Path) -> None:
    for i in range(3):
        pq.write_table(ROWS.slice(0, 1), tmp_path / f"{i}.parquet")
    assert len(read(tmp_path / "[01].parquet")) == 2


def test_a_piece_is_called_alike_from_wherever_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers hang on these names."""
    for month in ("may", "june"):
        (tmp_path / "rows" / month).mkdir(parents=True)
        pq.write_table(ROWS, tmp_path / "rows" / month / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    for path in ("rows", "./rows/", str(tmp_path / "rows"), tmp_path / "rows", "rows/*/rows.parquet"):
        origins = [piece.origin for piece in open_source(path).pieces]
        assert origins == [("june/rows.parquet 0", 0), ("may/rows.parquet 0", 0)]
    assert open_source("rows/may/rows.parquet").pieces[0].origin == ("rows.parquet 0", 0)


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.tsv", "a.TSV", "a.csv.gz", "a.tsv.gz", "a.Csv.GZ"])
def test_text_by_its_ending(name: str, tmp_path: Path) -> None:
    text = CSV.replace(",", "\t") if "tsv" in name.lower() else CSV
    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    assert read(tmp_path / name) == ROWS.to_pylist()
    assert read(tmp_path) == ROWS.to_pylist()


@pytest.mark.parametrize("name", ["a.parquet", "a.PARQUET", "a.pq", "a", "part-0000"])
def test_parquet_by_its_ending_or_alone(name: str, tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / name)
    assert read(tmp_path) == ROWS.to_pylist()


def test_a_folder_of_both_kinds_is_refused(tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "a.parquet")
    (tmp_path / "b.csv").write_text(CSV)
    with pytest.raises(DataError, match=r"holds both Parquet and CSV files: name one kind, such as .*/\*\.parquet$"):
        open_source(tmp_path)
    assert read(f"{tmp_path}/*.parquet") == read(f"{tmp_path}/*.csv")


def test_a_file_of_another_kind_is_told_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_text("nothing that is known")
    with pytest.raises(
        DataError, match=r"rows\.xlsx cannot be read, .*: give Parquet, or text that ends in \.csv or \.tsv$"
    ):
        open_source(tmp_path / "rows.xlsx")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"no Parquet or CSV file at .*\.parquet, \.pq, \.csv or \.tsv"):
        open_source(tmp_path)


# --- folders that name a column ----------------------------------------------------------------------------------


@pytest.fixture
def by_region(tmp_path: Path) -> Path:
    """What pandas, Dask, Spark and DuckDB write when they split a table by a column."""
    frame = pd.DataFrame(
        {"x": [1.0, 2.0, 3.0, 4.0], "region": ["north", "north", "far/away", None], "year": [2024, 2025, 2025, 2025]}
    )
    frame.to_parquet(tmp_path / "rows", partition_cols=["region", "year"], index=False)
    return tmp_path / "rows"


def test_folders_give_a_column_of_text(by_region: Path) -> None:
    source = open_source(by_region)
    assert source.columns == ("x", "region", "year")
    rows = sorted(read(by_region), key=lambda row: row["x"])
    assert [row["region"] for row in rows] == ["north", "north", "far/away", None]
    assert [row["year"] for row in rows] == ["2024", "2025", "2025", "2025"]
    assert source.read(["year"]).num_rows == 4
    assert source.read(["year", "x"]).column_names == ["year", "x"]


def test_a_glob_over_such_folders_gives_the_column_too(by_region: Path) -> None:
    assert {row["year"] for row in read(f"{by_region}/region=north/year=*/*.parquet")} == {"2024", "2025"}
    assert open_source(f"{by_region}/region=north/year=*/*.parquet").columns == ("x", "year")
    assert open_source(f"{by_region}/region=north").columns == ("x", "year")


def test_text_files_have_such_folders_too(tmp_path: Path) -> None:
    for region in ("north", "south"):
        (tmp_path / f"region={region}").mkdir()
        (tmp_path / f"region={region}" / "rows.csv").write_text(CSV)
    assert [row["region"] for row in read(tmp_path)] == ["north", "north", "south", "south"]
    assert open_source(tmp_path).read(["region"]).num_rows == 4


def test_a_column_of_the_files_goes_before_that_of_the_folders(tmp_path: Path) -> None:
    (tmp_path / "town=Basel").mkdir()
    pq.write_table(ROWS, tmp_path / "town=Basel" / "rows.parquet")
    assert read(tmp_path) == ROWS.to_pylist()


def test_a_folder_without_the_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "region=north").mkdir()
    pq.write_table(ROWS, tmp_path / "region=north" / "a.parquet")
    pq.write_table(ROWS, tmp_path / "z.parquet")
    with pytest.raises(DataError, match=r"^z\.parquet has no column 'region', which the files before it have$"):
        open_source(tmp_path)


def test_the_column_of_the_folders_is_modelled_and_carried(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"x": rng.standard_normal(60), "region": rng.choice(["north", "south"], 60), "id": range(60)})
    frame.sort_values("region", kind="stable").to_parquet(tmp_path / "in", partition_cols=["region"], index=False)
    model = MixtureModel(1, gaussian=["x"], categorical=["region"])
    found = model.fit(tmp_path / "in").log_likelihood_
    assert found == pytest.approx(model.fit(frame).log_likelihood_, rel=1e-12)
    write_scores(model, tmp_path / "in", tmp_path / "out", key=["region", "id"])
    assert sorted(pd.read_parquet(tmp_path / "out")["region"]) == sorted(frame["region"])


# --- text --------------------------------------------------------------------------------------------------------


def text(folder: Path, content: str, name: str = "rows.csv") -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def test_two_columns_of_one_name_in_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two columns named 'a'"):
        open_source(text(tmp_path, "a,b,a\n1,2,3\n"))


@pytest.mark.parametrize("header", ["\ufeffx,town", '"x","town"', "\n\nx,town"])
def test_headers_as_they_come(header: str, tmp_path: Path) -> None:
    assert read(text(tmp_path, f"{header}\n1,Bern\n2,Chur\n")) == ROWS.to_pylist()


def test_text_without_a_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^rows\.csv is empty: give a file with a header$"):
        open_source(text(tmp_path, ""))


@pytest.mark.parametrize("line", ["3", "3,Basel,CANARY"])
@pytest.mark.parametrize("types", [None, {"x": "float64"}])
def test_a_line_of_another_length_is_said_to_be_one(line: str, types: Any, tmp_path: Path) -> None:
    source = open_source(text(tmp_path, f"{CSV}{line}\n"), types=types)
    with pytest.raises(DataError, match=r"^rows\.csv has a line with more or fewer cells than its header: ") as caught:
        source.read(["x"])
    assert "CANARY" not in str(caught.value)


def test_a_later_file_without_a_column_is_named(tmp_path: Path) -> None:
    text(tmp_path, CSV, "a.csv")
    text(tmp_path, "x\n1\n", "b.csv")
    with pytest.raises(DataError, match=r"^b\.csv has no column 'town', which the files before it have$"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    "cell", ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A", "?", '""', '"NA"']
)
def test_what_stands_for_nothing_is_missing(cell: str, tmp_path: Path) -> None:
    path = text(tmp_path, f"x,town\n1,Bern\n{cell},{cell}\n")
    assert read(path)[1] == {"x": None, "town": None}
    assert open_source(path, types={"x": "float64", "town": "string"}).read(["x", "town"]).to_pylist()[1] == {
        "x": None,
        "town": None,
    }


@pytest.mark.skipif(os.name == "nt", reason="no such names")
@pytest.mark.parametrize("cell", ["no", "none of these", "Nanterre", "-", "0"])
def test_what_only_looks_like_nothing_is_something(cell: str, tmp_path: Path) -> None:
    assert read(text(tmp_path, f"x,town\n1,Bern\n2,{cell}\n"))[1]["town"] == cell
