"""The imputation of surveys from end to end, as a user runs it: what lands in the folder is what the imputer says, and nothing observed changed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import dask_em
from pipelines import generate, surveys

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent / "dask-em"

FEW = (
    "--set",
    "surveys.nhanes.imputer.n_replicates=3",
    "--set",
    "surveys.generated.imputer.n_replicates=5",
    "--set",
    "surveys.nhanes.imputer.tol=1e-5",
)


def run(*arguments: Any, cwd: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [BIN, *map(str, arguments)], cwd=cwd, text=True, capture_output=True, timeout=250, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout, done.stderr


def job(folder: Path, *options: str) -> dict[str, Any]:
    conf = ROOT / "conf" / "survey_imputation.yaml"
    code, stdout, stderr = run(
        "run", conf, "--set", f"output={folder}", "--output", "json", *FEW, *options, cwd=folder.parent
    )
    assert code == 0, stderr
    assert not [line for line in stderr.splitlines() if "warning" in line.lower()]
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def nhanes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("nhanes") / "out"
    return folder, job(folder, "--set", "draws=3")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    base = tmp_path_factory.mktemp("generated")
    generate.write(base / "made", 10_000, 3)
    options = (
        "survey=generated",
        f"surveys.generated.source.path={base / 'made' / 'survey'}",
        f"surveys.generated.truth={base / 'made' / 'truth.json'}",
        "draws=5",
    )
    return base / "out", job(base / "out", *(word for option in options for word in ("--set", option)))


def test_nothing_observed_changed(nhanes: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = nhanes
    before, after = surveys.nhanes(), pd.read_parquet(folder / "mean")
    assert "compared bit for bit" in facts["integrity"]
    assert after["respondent"].tolist() == before["respondent"].tolist()
    for name in before:
        seen = before[name].notna()
        assert after.loc[seen, name].astype(str).tolist() == before.loc[seen, name].astype(str).tolist(), name


def test_holes_are_filled_and_who_was_not_asked_is_left_alone(nhanes: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = nhanes
    before, after = surveys.nhanes(), pd.read_parquet(folder / "mean")
    for name in ("household_income", "education", "systolic", "diastolic"):
        assert before[name].isna().any()
        assert after[name].notna().all()
    young = before["age"] < 60
    assert after.loc[young, "marijuana"].notna().all()
    assert after.loc[~young, "marijuana"].isna().all()
    assert (after["sleep_hours"].between(2, 14)).all()
    assert facts["complete_rows"] < facts["rows"] == len(before)
    missing = pd.read_csv(folder / "missingness.csv").set_index("column")
    assert missing.loc["marijuana", "not_asked"] == (~young).sum()


def test_draws_are_those_of_the_saved_imputer(nhanes: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = nhanes
    imputer = dask_em.load(folder / "model")
    long = pq.read_table(folder / "draws").to_pandas()
    assert sorted(long[".imp"].unique()) == [1, 2, 3]
    second = imputer.draw(surveys.nhanes(), 2)[1]
    own = long[long[".imp"] == 2].sort_values(".id")
    assert own[".id"].tolist() == sorted(second["respondent"])
    for name in ("household_income", "systolic", "depressed"):
        assert own[name].astype(str).tolist() == second.sort_values("respondent")[name].astype(str).tolist()


def test_the_report_shows_that_listwise_deletion_is_biased_and_imputation_is_not(
    generated: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = generated
    means = pd.read_csv(folder / "pooled_means.csv").set_index(["group", "method"]).loc["all"]
    truth = means.loc["imputed", "truth"]
    imputed, listwise = means.loc["imputed"], means.loc["complete rows only"]
    assert abs(imputed["estimate"] - truth) < 3 * imputed["standard_error"]
    assert abs(listwise["estimate"] - truth) > 10 * listwise["standard_error"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "complete rows only" in page
    assert "true mean" in page


@pytest.mark.parametrize("name", ["nhanes", "generated"])
def test_the_report_is_one_file_that_runs_and_fetches_nothing(name: str, request: pytest.FixtureRequest) -> None:
    folder, facts = request.getfixturevalue(name)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert facts["integrity"] in text
    assert not re.search(r"<(script|iframe|object|embed|link)\b|@import|url\(\s*['\"]?(https?:)?//", text)
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert {"missingness", "densities", "level_shares", "overimputation", "pooled_means", "convergence"} <= figures
    assert text.count("<svg") == len(figures)


def test_the_coverage_of_hidden_cells_is_as_promised(nhanes: tuple[Path, dict[str, Any]]) -> None:
    _, facts = nhanes
    coverage = np.array(list(facts["coverage_of_90_percent_intervals"].values()))
    assert len(coverage) >= 4
    assert ((coverage > 0.82) & (coverage < 0.98)).all()


def test_impute_completes_a_new_file(generated: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = generated
    holes, _ = generate.survey(500, 99)
    holes.to_parquet(tmp_path / "new.parquet")
    code, stdout, stderr = run("impute", folder / "model", "new.parquet", "out", "--draws", "2", cwd=tmp_path)
    assert code == 0, stderr
    assert "compared bit for bit" in stdout
    after = pd.read_parquet(tmp_path / "out" / "mean")
    assert after["income"].notna().all()
    assert after["id"].tolist() == holes["id"].tolist()
    assert len(pd.read_parquet(tmp_path / "out" / "draws")) == 1000
    code, _, stderr = run("impute", folder / "model", "new.parquet", "out", cwd=tmp_path)
    assert code == 5
    code, _, stderr = run("inspect", folder / "model", cwd=tmp_path)
    assert code == 0


def test_bad_jobs_end_with_a_sentence_and_leave_nothing(tmp_path: Path) -> None:
    conf = ROOT / "conf" / "survey_imputation.yaml"
    for change, expected in (
        ("surveys.nhanes.imputer.transforms={diastolic: log, meals_out: log}", 4),
        ("surveys.nhanes.imputer.bounds={age: [30, 80]}", 4),
        ("surveys.nhanes.imputer.universe={marijuana: 'age.max() < 60'}", 2),
        ("surveys.nhanes.means=[nobody]", 2),
        ("survey=nobody", 2),
        ("draws=50", 2),
    ):
        code, stdout, stderr = run(
            "run", conf, "--set", f"output={tmp_path / 'out'}", "--quiet", "--set", change, cwd=tmp_path
        )
        assert (code, stdout) == (expected, ""), (change, stderr)
        assert "Traceback" not in stderr
        assert list(tmp_path.iterdir()) == []
