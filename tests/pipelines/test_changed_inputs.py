"""A job whose table changes after it was fitted stops before anything of it is to be seen; what was there stays."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dask_em.config import Job
from dask_em.config_loader import load
from dask_em.errors import DataError, OutputError
from dask_em.operate.run import Manner
from pipelines import customer_segmentation, survey_imputation

CHANGED = r"^b\.parquet changed while it was read: run again when nobody writes to it$"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table in two files, of which sizes and footers say nothing about cells."""
    rng = np.random.default_rng(3)
    own = tmp_path / "rows"
    own.mkdir()
    for i, name in enumerate("ab"):
        x = rng.normal(size=(2, 400)) + 5.0 * (np.arange(400) % 2)
        table = pa.table({"id": np.arange(400) + 400 * i, "x": x[0], "y": x[1]})
        pq.write_table(table, own / f"{name}.parquet", compression="none", use_dictionary=False, write_statistics=False)
    return own


def edited(folder: Path) -> None:
    """One cell of y is another; size and time are what they were."""
    path = folder / "b.parquet"
    before = path.stat()
    end = pq.read_metadata(path).row_group(0).column(2)
    with path.open("r+b") as file:
        file.seek(end.data_page_offset + end.total_compressed_size - 8)
        file.write(np.float64(3.25).tobytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


JOBS = {
    "customer_segmentation": {
        "level": "own",
        "levels": {"own": {"key": "id", "n_components": 2, "model": {"gaussian": ["x", "y"]}}},
    },
    "survey_imputation": {
        "survey": "own",
        "surveys": {
            "own": {
                "key": "id",
                "imputer": {
                    "columns": ["x", "y"],
                    "model": "mixture",
                    "n_components": 2,
                    "n_replicates": 2,
                    "n_init": 1,
                },
            }
        },
    },
}


def job(pipeline: str, folder: Path) -> Any:
    """The settings of a job on this table, whose output goes beside it."""
    own = json.loads(json.dumps(JOBS[pipeline]))
    (table,) = own["levels" if pipeline == "customer_segmentation" else "surveys"].values()
    table["source"] = {"kind": "table", "path": str(folder)}
    path = folder.parent / "job.yaml"
    path.write_text(json.dumps({"pipeline": pipeline, "output": str(folder.parent / "out"), **own}))
    return load(path, Job)


RUNS: dict[str, Any] = {
    "customer_segmentation": customer_segmentation.run,
    "survey_imputation": survey_imputation.run,
}


@pytest.mark.parametrize("pipeline", list(JOBS))
def test_an_output_among_the_files_of_the_table(pipeline: str, folder: Path) -> None:
    config = job(pipeline, folder)
    with pytest.raises(OutputError, match="is inside the folder of the table"):
        RUNS[pipeline](config.model_copy(update={"output": str(folder / "out")}), progress=lambda _: None)
    assert sorted(path.name for path in folder.iterdir()) == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize("pipeline", list(JOBS))
def test_a_table_that_changes_while_it_is_fitted(pipeline: str, folder: Path) -> None:
    run, config, scans = RUNS[pipeline], job(pipeline, folder), list[Any]()

    def progress(record: Any) -> None:
        if not scans:
            edited(folder)
        scans.append(record)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=CHANGED):
            run(config, progress=progress)
        assert scans
        assert not (folder.parent / "out").exists()
        run(config, progress=lambda _: None, manner=Manner(replace=True))
        before = sorted(p.stat().st_mtime_ns for p in (folder.parent / "out").rglob("*"))
        pq.write_table(pq.read_table(folder / "b.parquet").slice(1), folder / "b.parquet")
        scans.clear()
        with pytest.raises(DataError, match=CHANGED):
            run(config, progress=progress, manner=Manner(replace=True))
    assert sorted(p.stat().st_mtime_ns for p in (folder.parent / "out").rglob("*")) == before
