"""Marked cells and secrets go into every job, by the real command, also where it fails; every byte that it writes is searched for them.

The tables that are written for their rows (segments/, mean/, draws/) hold them, of course, and the model names the levels that it was fitted on.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dask_em import MixtureModel
from dask_em.errors import DataError

BIN = Path(sys.executable).parent / "dask-em"

NUMBER, KEY, LEVEL, TEXT, SECRET = 73198.46251, "KeyCanary77", "LevelCanary77", "TextCanary77", "SecretCanary77/x+y="

CELLS = [
    b"73198.46",
    b"73,198",
    struct.pack("<d", NUMBER),
    KEY.encode(),
    TEXT.encode(),
    SECRET.encode(),
    SECRET[:14].encode(),
]
RARE = LEVEL.encode()

ROWS = {"segments", "mean", "draws"}

EXECUTORS = {"local": {"executor": "local"}, "dask": {"executor": "dask", "n_workers": 2}}


def people(n: int = 400) -> pd.DataFrame:
    """Two groups, with marked cells in one row, and a level that three rows have."""
    rng = np.random.default_rng(0)
    group = np.arange(n) % 2
    frame = pd.DataFrame(
        {
            "id": [f"p{i}" for i in range(n)],
            "spend": rng.normal(40_000, 4_000, n) + 25_000 * group,
            "visits": rng.poisson(3 + 6 * group).astype(float),
            "town": np.where(rng.random(n) < 0.5, "north", "south"),
            "note": "plain",
        }
    )
    frame.loc[7, ["id", "spend", "note"]] = KEY, NUMBER, TEXT
    frame.loc[[7, 100, 211], "town"] = LEVEL
    frame.loc[::9, "visits"] = np.nan
    return frame


def segmentation(path: Any, **model: Any) -> dict[str, Any]:
    own = {"gaussian": ["spend"], "categorical": ["town"], "n_init": 1} | model
    level = {"source": {"kind": "table", "path": str(path)}, "key": "id", "n_components": [2], "model": own}
    return {"pipeline": "customer_segmentation", "levels": {"people": level}, "level": "people"}


def imputation(path: Any, **imputer: Any) -> dict[str, Any]:
    own = {
        "columns": ["spend", "visits", "town"],
        "model": "mixture",
        "n_components": 2,
        "n_init": 1,
        "n_replicates": 3,
    }
    survey = {"source": {"kind": "table", "path": str(path)}, "key": "id", "imputer": own | imputer}
    surveys = {"people": survey | {"means": ["spend"], "by": "town"}}
    return {"pipeline": "survey_imputation", "surveys": surveys, "survey": "people"}


def run(folder: Path, job: dict[str, Any], executor: str, *arguments: Any) -> tuple[int, bytes]:
    """The exit code of a job, and everything that it said."""
    whole = {"output": str(folder / "out"), "cluster": EXECUTORS[executor], **job}
    (folder / "job.yaml").write_text(json.dumps(whole), encoding="utf-8")
    return command("run", folder / "job.yaml", *arguments, cwd=folder)


def command(*arguments: Any, cwd: Path) -> tuple[int, bytes]:
    secrets = dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "DASK_EM_PASSWORD"), SECRET)
    environment = os.environ | secrets | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([BIN, *map(str, arguments)], capture_output=True, timeout=240, cwd=cwd, env=environment)
    return done.returncode, done.stdout + done.stderr


def leaks(folder: Path, said: bytes) -> dict[str, list[bytes]]:
    """Marks by the file in which they are; what was given is not searched."""
    found = {"what it said": [mark for mark in (*CELLS, RARE) if mark in said]}
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.is_file() and inside[0] not in ("data", "job.yaml") and not ROWS & set(inside):
            marks = CELLS if "model" in inside else [*CELLS, RARE]
            raw = path.read_bytes()
            found["/".join(inside)] = [mark for mark in marks if mark in raw]
    return {name: marks for name, marks in found.items() if marks}


def parts(folder: Path, *frames: pd.DataFrame) -> Path:
    (folder / "data").mkdir()
    for i, frame in enumerate(frames):
        frame.to_parquet(folder / "data" / f"part{i}.parquet")
    return folder / "data"


@pytest.mark.faults
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("job", [segmentation, imputation])
def test_nothing_that_a_run_writes_holds_a_marked_cell(
    job: Callable[[Path], dict[str, Any]], executor: str, tmp_path: Path
) -> None:
    frame = people()
    code, said = run(tmp_path, job(parts(tmp_path, frame[:200], frame[200:])), executor, "--log-format", "json")
    assert code == 0, said.decode()
    assert (tmp_path / "out" / "report.html").exists()
    assert leaks(tmp_path, said) == {}
    assert "rare_levels" in said.decode() or job is imputation
    code, said = command("inspect", "out/model", cwd=tmp_path)
    assert not any(mark in said for mark in CELLS)


@pytest.mark.faults
def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """If it did not, the tests here would prove nothing: with nothing hidden the rare level is named."""
    code, said = run(tmp_path, segmentation(parts(tmp_path, people())) | {"smallest_cell": 0}, "local")
    assert code == 0
    assert leaks(tmp_path, said).keys() >= {"out/report.html", "out/segment_profile.csv"}


def mixed(folder: Path) -> dict[str, Any]:
    """The second part has text where the first has numbers."""
    return segmentation(parts(folder, people(), people().assign(spend=TEXT)))


def text(folder: Path) -> dict[str, Any]:
    return segmentation(parts(folder, people()), gaussian=["note"], categorical=[])


def fractions(folder: Path) -> dict[str, Any]:
    return segmentation(parts(folder, people()), gaussian=["visits"], categorical=["spend"])


def no_types(folder: Path) -> dict[str, Any]:
    (folder / "data").mkdir()
    people().to_csv(folder / "data" / "a.csv", index=False)
    job = segmentation(folder / "data" / "a.csv")
    job["levels"]["people"]["source"]["types"] = {"note": "int64", "town": "double"}
    return job


def ragged(folder: Path) -> dict[str, Any]:
    (folder / "data").mkdir()
    lines = people().to_csv(index=False).splitlines()
    lines[8] += f",{TEXT},{NUMBER}"
    (folder / "data" / "a.csv").write_text("\n".join(lines))
    return segmentation(folder / "data" / "a.csv")


def no_log(folder: Path) -> dict[str, Any]:
    frame = people()
    frame.loc[7, "spend"] = -NUMBER
    return segmentation(parts(folder, frame), transforms={"spend": "log"})


def no_counts(folder: Path) -> dict[str, Any]:
    return segmentation(parts(folder, people()), gaussian=[], poisson=["spend"])


def twice(folder: Path) -> dict[str, Any]:
    return segmentation(parts(folder, people(), people()))


def bounds(folder: Path) -> dict[str, Any]:
    return imputation(parts(folder, people()), bounds={"spend": [0, 70_000]})


def universe(folder: Path) -> dict[str, Any]:
    return imputation(parts(folder, people()), universe={"visits": "note > 3"})


def means(folder: Path) -> dict[str, Any]:
    job = imputation(parts(folder, people()))
    job["surveys"]["people"]["means"] = ["note"]
    return job


def by_key(folder: Path) -> dict[str, Any]:
    frame = people(3000)
    job = imputation(parts(folder, frame))
    job["surveys"]["people"]["by"] = "id"
    return job


def address(folder: Path) -> dict[str, Any]:
    return segmentation(f"https://me:{SECRET}@127.0.0.1:9/rows.parquet?sig={SECRET}")


def bucket(folder: Path) -> dict[str, Any]:
    return segmentation(f"s3://AKIA:{SECRET}@bucket/rows.parquet")


FAILING = (
    mixed,
    text,
    fractions,
    no_types,
    ragged,
    no_log,
    no_counts,
    twice,
    bounds,
    universe,
    means,
    by_key,
    address,
    bucket,
)


TRIED = [(make, "local") for make in FAILING] + [(make, "dask") for make in (mixed, no_types, bounds, twice)]


@pytest.mark.faults
@pytest.mark.parametrize(("make", "executor"), TRIED, ids=lambda own: getattr(own, "__name__", own))
def test_a_run_that_fails_tells_no_marked_cell(
    make: Callable[[Path], dict[str, Any]], executor: str, tmp_path: Path
) -> None:
    code, said = run(tmp_path, make(tmp_path), executor)
    assert code in (2, 4, 75), said.decode()
    # Workers say nothing of a task that failed, whose arguments may be rows.
    assert b"Compute Failed" not in said
    assert leaks(tmp_path, said) == {}


def test_rows_that_cannot_be_scored_are_not_quoted() -> None:
    """A level that the model never saw, and numbers that are text; in this process, for speed."""
    frame = people()
    model = MixtureModel(2, gaussian=["spend"], categorical=["town"], n_init=1, random_state=0)
    model.fit(frame[frame["town"] != LEVEL])
    for bad in (frame, frame.assign(spend=frame["note"]), frame.assign(town=frame["spend"])):
        with pytest.raises(DataError) as caught:
            model.predict(bad)
        assert not any(mark in str(caught.value).encode() for mark in (*CELLS, RARE))
