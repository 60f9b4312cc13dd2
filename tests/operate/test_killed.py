"""The command itself, killed, terminated and interrupted at any moment: it goes on with --resume, and its output is that of a calm run to the last byte."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

BIN = Path(sys.executable).parent / "dask-em"

JOB = """\
pipeline: customer_segmentation
level: people
output: out
levels:
  people:
    source: {kind: table, path: people}
    key: id
    n_components: {minimum: 1, maximum: 3}
    model: {gaussian: [spend, visits], poisson: [items], tol: 1.0e-7, n_init: 2}
cluster: {executor: EXECUTOR}
"""

ROWS = 20_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in four files, with holes, and a job for it on threads and on a cluster of processes."""
    folder = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(3)
    group = rng.integers(0, 3, ROWS)
    frame = pd.DataFrame({"id": np.arange(ROWS)})
    frame["spend"] = rng.normal(size=ROWS) + np.array([0.0, 1.5, 3.0])[group]
    frame["visits"] = np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(size=ROWS) * (1 + group))
    frame["items"] = rng.poisson(1 + group)
    (folder / "people").mkdir()
    for i in range(4):
        frame[i * ROWS // 4 : (i + 1) * ROWS // 4].to_parquet(
            folder / "people" / f"part-{i}.parquet", row_group_size=2500
        )
    for name, executor in {"local": "local", "dask": "dask, n_workers: 2"}.items():
        (folder / f"{name}.yaml").write_text(JOB.replace("EXECUTOR", executor))
    return folder


def start(home: Path, where: str, output: Path, *flags: str) -> subprocess.Popen[str]:
    arguments = [BIN, "run", f"{where}.yaml", "--set", f"output={output}", "--log-format", "json", *flags]
    return subprocess.Popen(arguments, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and events; of a process that was stopped Python itself may have more to say."""
    _, stderr = process.communicate(timeout=200)
    stopped = process.returncode not in (0, 99)
    lines = [line for line in stderr.splitlines() if line.startswith("{") or not stopped]
    return process.returncode, [json.loads(line) for line in lines]


def files(output: Path) -> dict[str, Any]:
    """Every file that the run wrote, by its digest; the report tells which run it was."""
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text())["files"]
    return {name: own for name, own in manifest.items() if name != "report.html"}


@pytest.fixture(scope="module")
def calm(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float, int]:
    """The files of a run that nothing happened to, how long it took, and its scans."""
    output = tmp_path_factory.mktemp("calm") / "out"
    begun = time.monotonic()
    code, events = ended(start(home, "local", output))
    assert code == 0, events[-3:]
    return files(output), time.monotonic() - begun, sum(e["event"] == "scan" for e in events)


def wait_for_scans(process: subprocess.Popen[str], n: int) -> None:
    """Until it has told of so many scans."""
    assert process.stderr is not None
    for line in process.stderr:
        n -= json.loads(line)["event"] == "scan"
        if n <= 0:
            return


SIGNALS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}


def goes_on(home: Path, where: str, output: Path, calm: tuple[dict[str, Any], float, int], before: int) -> None:
    """A run that was stopped after so many scans ends with --resume as the calm one did."""
    code, events = ended(start(home, where, output, "--resume"))
    assert code == 0, events[-3:]
    scans = [e["scan"] for e in events if e["event"] == "scan"]
    assert not scans or scans[0] > before - 1
    assert files(output) == calm[0]
    assert [p.name for p in output.parent.iterdir()] == ["out"]
    assert json.loads((output / "run.json").read_text())["resumed"]


@pytest.mark.parametrize("how", SIGNALS, ids=lambda how: how.name)
def test_a_stopped_run_goes_on(home: Path, calm: Any, tmp_path: Path, how: signal.Signals) -> None:
    output = tmp_path / "out"
    process = start(home, "local", output)
    wait_for_scans(process, 5)
    process.send_signal(how)
    begun = time.monotonic()
    code, _ = ended(process)
    assert code == SIGNALS[how]
    assert time.monotonic() - begun < 10
    assert not output.exists()
    goes_on(home, "local", output, calm, before=5)


@pytest.mark.faults
@pytest.mark.parametrize("where", ["local", "dask"])
@pytest.mark.parametrize("seed", range(6))
def test_stopped_at_any_moment(home: Path, calm: Any, tmp_path: Path, where: str, seed: int) -> None:
    """Several times over, at seeded moments, with a signal each; then it ends."""
    rng, output, found = random.Random(f"{where} {seed}"), tmp_path / "out", 0
    for how in rng.sample(list(SIGNALS), 3):
        process = start(home, where, output, "--resume")
        time.sleep(rng.uniform(0.3, 1.2) * calm[1])
        process.send_signal(how)
        begun = time.monotonic()
        code, events = ended(process)
        assert time.monotonic() - begun < 10
        found = max([found, *(e["scan"] for e in events if e["event"] == "scan")])
        if output.exists():
            break
        assert code == SIGNALS[how], (code, events[-3:])
    code, events = ended(start(home, where, output, "--resume", "--nothing-to-do-exit", "99"))
    assert code in (0, 99), events[-3:]
    assert files(output) == calm[0]
    assert [p.name for p in output.parent.iterdir()] == ["out"]
