"""Files around the code: job files, their schema, set-up. They break silently, so they are checked here."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from dask_em.config import Job, load

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
CONF = sorted((ROOT / "conf").glob("*.yaml"))


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_all_jobs_are_there():
    names = {"customer_segmentation", "cdnow", "coin_flips", "image_segmentation", "survey_imputation"}
    assert {path.stem for path in CONF} == names


def test_the_schema_of_job_files_is_current():
    schema = run(BIN / "dask-em", "schema").stdout
    assert (ROOT / "conf" / "job.schema.json").read_text() == schema, "run make schema"


def test_every_job_file_fits_the_schema_and_the_models():
    done = run(BIN / "check-jsonschema", "--schemafile", "conf/job.schema.json", *CONF)
    assert done.returncode == 0, done.stdout
    for path in CONF:
        load(path, Job)


def test_the_schema_refuses_what_the_models_refuse(tmp_path):
    path = tmp_path / "job.yaml"
    for old, new in (("start: 0.5", "start: 1.5"), ("tosses: 10", "tosses: 10, extra: 1"), ("output:", "outputs:")):
        path.write_text((ROOT / "conf" / "coin_flips.yaml").read_text().replace(old, new))
        assert run(BIN / "check-jsonschema", "--schemafile", "conf/job.schema.json", path).returncode == 1


@pytest.mark.parametrize("path", CONF, ids=lambda path: path.stem)
def test_editors_find_the_schema(path):
    assert path.read_text().splitlines()[0] == "# yaml-language-server: $schema=job.schema.json"


def test_each_job_has_its_own_output_below_output():
    outputs = [load(path, Job).output for path in CONF]
    assert len(set(outputs)) == len(outputs)
    assert all(folder.startswith("output/") for folder in outputs)


def test_ci_starts_clean_and_runs_what_a_user_runs():
    path = ROOT / ".ci" / "run"
    assert path.stat().st_mode & 0o111
    commands = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    verbs = ["make test", "make test-faults", "make demo"]
    assert commands == ["set -eu", 'cd "$(dirname "$0")/.."', "rm -rf .venv", *verbs]


def test_make_sets_up_before_it_works():
    for verb in ("test", "demo"):
        plan = run("make", "--dry-run", "--always-make", "PYTHON=python3.99", verb).stdout
        made, installed, worked = (
            plan.index(word)
            for word in ("python3.99 -m venv", "uv pip install", {"test": "pytest", "demo": "dask-em run"}[verb])
        )
        assert made < installed < worked


def test_the_demo_can_be_repeated():
    plan = run("make", "--dry-run", "demo").stdout
    for name in re.findall(r"dask-em run conf/(\w+)\.yaml", plan):
        folder = load(ROOT / "conf" / f"{name}.yaml", Job).output
        assert re.search(rf"rm -rf .*\b{folder}\b", plan)


def test_constraints_pin_every_dependency_and_hold_no_address():
    text = (ROOT / "constraints.txt").read_text()
    pinned = {name.lower() for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for group in project["optional-dependencies"].values() for name in group]
    wanted = {re.split(r"[\[>]", name)[0].replace(".", "-") for name in [*project["dependencies"], *extras]} - {
        project["name"]
    }
    assert {"pandas", "numba", "pytest"} <= wanted <= pinned
    assert "://" not in text
