"""What tells a table from other versions of it: plain values, the same in every process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_em.data.sources import PIECE_ROWS, open_source, renamed, with_columns
from dask_em.estimators.tables import to_source

ROWS = pd.DataFrame({"x": [1.0, np.nan, 3.0], "town": ["Bern", None, "Chur"], "n": [1, 2, 3]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Parquet file beside a folder of one that has no row."""
    pq.write_table(pa.Table.from_pandas(ROWS), tmp_path / "b.parquet")
    (tmp_path / "a").mkdir()
    pq.write_table(pa.Table.from_pandas(ROWS[:0]), tmp_path / "a" / "c.parquet")
    return tmp_path


def test_of_files_are_told_name_size_time_and_footer(folder: Path) -> None:
    found = open_source(folder).fingerprint()
    assert json.loads(json.dumps(found)) == found
    assert [own["name"] for own in found] == ["a/c.parquet", "b.parquet"]
    info = (folder / "b.parquet").stat()
    assert (found[1]["bytes"], found[1]["modified"]) == (info.st_size, str(info.st_mtime_ns))
    assert all(len(own["footer"]) == 64 for own in found)


def test_it_does_not_depend_on_where_the_folder_is(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = open_source(folder).digest
    moved = tmp_path_factory.mktemp("elsewhere") / "rows"
    folder.rename(moved)
    assert open_source(moved).digest == before
    assert open_source(f"file://{moved}").digest == before
    assert renamed(open_source(moved), ["a", "b", "c"]).digest == before


def touched(path: Path) -> None:
    os.utime(path, ns=(path.stat().st_mtime_ns + 1,) * 2)


def other_footer(path: Path) -> None:
    before = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b"pandas", b"PANDAS"))
    os.utime(path, ns=(before, before))


def another_name(path: Path) -> None:
    path.rename(path.with_name("z.parquet"))


@pytest.mark.parametrize("change", [touched, other_footer, another_name, Path.unlink])
def test_other_files_have_another_digest(change: Callable[[Path], None], folder: Path) -> None:
    before = open_source(folder).digest
    assert open_source(folder).digest == before
    change(folder / "b.parquet")
    assert open_source(folder).digest != before


def test_the_ends_of_a_text_count(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("x\n" + "1\n" * 200_000)
    before, info = open_source(path).digest, path.stat()
    for place in (2, info.st_size - 2):
        changed = bytearray(path.read_bytes())
        changed[place : place + 1] = b"2"
        path.write_bytes(changed)
        os.utime(path, ns=(info.st_mtime_ns,) * 2)
        assert open_source(path).digest != before


def test_of_a_table_in_memory_its_cells_count() -> None:
    before = open_source(ROWS).digest
    assert open_source(ROWS.copy()).digest == before
    assert open_source(pa.Table.from_pandas(ROWS)).digest == before
    for column, cell in (("x", 2.0), ("town", "Thun"), ("n", 9)):
        other = ROWS.copy()
        other.loc[1, column] = cell
        assert open_source(other).digest != before
    assert open_source(ROWS[::-1]).digest != before
    weighed = with_columns(open_source(ROWS), weight=[1.0, 2.0, 3.0])
    assert weighed.digest not in (before, with_columns(open_source(ROWS), weight=[1.0, 3.0, 2.0]).digest)


def test_cuts_do_not_count() -> None:
    x = np.random.default_rng(0).normal(size=PIECE_ROWS + 5)
    table = pa.table({"x": x})
    assert len(open_source(table).pieces) == 2
    assert open_source(pa.concat_tables([table[:7], table[7:]])).digest == open_source(table).digest
    swapped = pa.concat_tables([table[PIECE_ROWS : PIECE_ROWS + 1], table[1:PIECE_ROWS], table[:1], table[-4:]])
    assert open_source(swapped).digest != open_source(table).digest


def test_a_column_that_no_model_can_read_is_no_obstacle() -> None:
    assert open_source(ROWS.assign(mixed=[1, "a", None])).digest != open_source(ROWS).digest


def test_a_process_of_its_own_comes_to_the_same() -> None:
    code = (
        "import numpy as np, pandas as pd\nfrom dask_em.data.sources import open_source\n"
        "print(open_source(pd.DataFrame({'x': [1.0, np.nan, 3.0], 'town': ['Bern', None, 'Chur'], 'n': [1, 2, 3]})).digest)"
    )
    own = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=own, timeout=60)
    assert done.stdout.strip() == open_source(ROWS).digest, done.stderr


def test_of_a_dask_dataframe_its_token_counts() -> None:
    dd = pytest.importorskip("dask.dataframe")
    first, second = (dd.from_pandas(ROWS[["x", "n"]], npartitions=n) for n in (1, 2))
    assert to_source(first, None, None, None)[0].digest == to_source(first, None, None, None)[0].digest
    assert to_source(first, None, None, None)[0].digest != to_source(second, None, None, None)[0].digest
