"""Runs whose driver is on the cluster: real schedulers, workers and drivers, asked by commands of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from distributed import LocalCluster

from dask_em.cli import em
from dask_em.cli_submit import told
from dask_em.errors import ConfigurationError
from dask_em.execution.remote import Board, connected
from dask_em.operate import submission
from dask_em.operate.driver import COMMAND
from tests.operate.processes import Processes, processes, until

JOB = """\
pipeline: customer_segmentation
level: people
output: {output}
cluster: {{executor: dask, insecure: true}}
levels:
  people:
    source: {{kind: table, path: people.parquet}}
    key: id
    n_components: [{k}]
    model: {{gaussian: [x, y, z], n_init: 1, tol: 1.0e-13, max_iter: {scans}}}
"""

HERE = ("--set", "cluster={executor: local}")


class Cluster(Processes):
    """A scheduler and workers in one folder, which holds a table and jobs."""

    address: str
    board: Board

    def ask(self, *words: str, seconds: float = 60) -> dict[str, Any]:
        """What a verb says as JSON."""
        done = self.run(
            "dask-em", *words, "--scheduler", self.address, "--insecure", "--output", "json", seconds=seconds
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def submit(self, name: str, *options: str) -> str:
        return str(self.ask("submit", f"{name}.yaml", *options)["run"])

    def state(self, run_id: str) -> dict[str, Any]:
        return self.ask("status", run_id)

    def scans(self, run_id: str) -> list[int]:
        """The scans that are in its log."""
        told = [json.loads(line) for line in submission.log(self.board, run_id)]
        return [own["scan"] for own in told if "scan" in own]


def write_jobs(folder: Path) -> None:
    """A table, and jobs on it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 3))
    x[:1500] += 1.5
    pd.DataFrame(x, columns=list("xyz")).rename_axis("id").reset_index().to_parquet(folder / "people.parquet")
    for name, k, scans in (("quick", 2, 5), ("long", 6, 3000), ("alone", 2, 5), ("calm", 4, 150), ("hit", 4, 150)):
        (folder / f"{name}.yaml").write_text(JOB.format(output=name, k=k, scans=scans))


@contextmanager
def cluster(folder: Path, n_workers: int = 2) -> Iterator[Cluster]:
    write_jobs(folder)
    with processes(folder) as plain:
        own = Cluster(folder)
        own.all = plain.all
        file = folder / "scheduler.json"
        own.start("dask", "scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard", f"--scheduler-file={file}")
        own.address = str(json.loads(until(lambda: file.exists() and file.read_text(), 30))["address"])
        for _ in range(n_workers):
            own.start(
                "dask", "worker", own.address, "--nthreads=1", "--no-dashboard", "--host=127.0.0.1",
                f"--local-directory={folder}",
            )  # fmt: skip
        with ExitStack() as stack:
            with pytest.warns(UserWarning, match="is not encrypted"):
                own.board = stack.enter_context(connected(own.address))
            yield own


def tables(folder: Path) -> list[Any]:
    return [pq.read_table(path) for path in sorted(folder.rglob("*.parquet"))]


def drivers(own: Cluster) -> list[psutil.Process]:
    """The drivers below the processes of a cluster."""
    below = [child for process in own.all for child in psutil.Process(process.pid).children(recursive=True)]
    return [child for child in below if "dask_em.cli_driver" in child.cmdline()]


def test_a_run_that_cannot_be_done_says_so_by_its_id() -> None:
    here = {"scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}, "protocol": "tcp://", "host": "127.0.0.1"}
    with ExitStack() as stack:
        small = stack.enter_context(LocalCluster(1, processes=False, threads_per_worker=1, **here))
        with pytest.warns(UserWarning, match="is not encrypted"):
            board = stack.enter_context(connected(small.scheduler_address))
        with pytest.raises(ConfigurationError, match="no run 2026 is known to this scheduler"):
            submission.status(board, "2026")
        about = {"job": "bad.yaml", "output": "s3://me:hidden@bucket/out"}
        run_id = submission.submit(board, "pipeline: nothing", ["--log-format", "json"], about)
        record = submission.wait(board, run_id)
        assert (record["run"], record["state"], record["exit"]) == (run_id, "failed", 2)
        assert "pipeline: must be one of" in record["message"]
        assert record["output"] == "s3://***@bucket/out"
        lines = [json.loads(line) for line in submission.log(board, run_id, follow=True)]
        assert [line["event"] for line in lines] == ["message", "ended"]
        assert submission.cancel(board, run_id) == submission.status(board)[run_id] == record


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("status --scheduler tcp://127.0.0.1:1", "is not encrypted: give a tls:// address, or say --insecure"),
        ("cancel 2026 --scheduler tls://127.0.0.1:1", "there are no certificates for tls://127.0.0.1:1"),
        ("status --wait --scheduler tls://127.0.0.1:1", "--wait needs the id of a run"),
        ("submit job.yaml --scheduler tls://127.0.0.1:1", "job.yaml:1:1: pipeline: this key is required"),
        ("submit job.yaml", "Missing option '--scheduler'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text("level: customer_segmentation")
    done = CliRunner().invoke(em, words.split())
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_lines_of_a_log_are_told_in_words() -> None:
    event = {"time": "2026-03-14T02:00:00.000+00:00", "event": "scan", "scan": 3, "objective": -1.5}
    assert told(json.dumps(event)) == "2026-03-14T02:00:00.000+00:00 scan scan=3 objective=-1.5"
    message = {"time": "now", "event": "message", "level": "error", "message": "no worker: start one"}
    assert told(json.dumps(message)) == "now error: no worker: start one"
    for plain in ("Killed", "[1]", '{"time": 1}'):
        assert told(plain) == plain


@pytest.mark.faults
def test_a_submitted_run_does_what_a_local_one_does(tmp_path: Path) -> None:
    with cluster(tmp_path) as own:
        run_id = own.submit("quick")
        ended = own.ask("status", run_id, "--wait", seconds=200)
        assert (ended["state"], ended["exit"], ended["attempt"]) == ("done", 0, 1), own.logs()
        assert own.ask("status")["runs"] == [ended]
        log = own.run("dask-em", "logs", run_id, "--follow", "--scheduler", own.address, "--insecure")
        assert "started" in log.stdout
        assert "scan=5" in log.stdout
        alone = own.run("dask-em", "run", "alone.yaml", *HERE, "--output", "json", seconds=200)
        assert alone.returncode == 0, alone.stderr
        assert ended["facts"]["segments"] == json.loads(alone.stdout)["segments"]
        assert tables(tmp_path / "quick")
        assert all(a.equals(b) for a, b in zip(tables(tmp_path / "quick"), tables(tmp_path / "alone"), strict=True))


@pytest.mark.faults
def test_a_cancelled_run_ends_keeps_its_checkpoint_and_goes_on(tmp_path: Path) -> None:
    with cluster(tmp_path) as own:
        run_id = own.submit("long")
        until(lambda: max(own.scans(run_id), default=0) >= 3, 120)
        ended = own.ask("cancel", run_id)
        assert (ended["state"], ended["exit"]) == ("cancelled", 143)
        assert not drivers(own)
        assert (tmp_path / ".long.run" / "plan.json").exists()
        assert (
            own.run("dask-em", "status", run_id, "--wait", "--scheduler", own.address, "--insecure").returncode == 143
        )
        again = own.submit("long", "--resume")
        assert until(lambda: own.scans(again), 120)[0] > 1  # the first one of many was not made again
        own.ask("cancel", again)


@pytest.mark.faults
def test_a_run_that_waits_for_a_worker_can_be_cancelled(tmp_path: Path) -> None:
    with cluster(tmp_path, n_workers=0) as own:
        run_id = own.submit("quick")
        assert own.state(run_id)["state"] == "queued"
        assert own.ask("cancel", run_id)["state"] == "cancelled"
        assert (
            own.run("dask-em", "status", run_id, "--wait", "--scheduler", own.address, "--insecure").returncode == 143
        )


@pytest.mark.faults
def test_a_driver_lost_with_its_worker_goes_on_elsewhere(tmp_path: Path) -> None:
    with cluster(tmp_path) as own:
        calm = own.run("dask-em", "run", "calm.yaml", *HERE, "--output", "json", seconds=200)
        assert calm.returncode == 0, calm.stderr
        run_id = own.submit("hit")
        until(lambda: max(own.scans(run_id), default=0) >= 20, 120)
        (driver,) = drivers(own)
        worker = driver.parent()
        assert worker is not None
        worker.kill()
        driver.wait(10)
        ended = own.ask("status", run_id, "--wait", seconds=200)
        assert (ended["state"], ended["exit"], ended["attempt"]) == ("done", 0, 2), own.logs()
        record = json.loads((tmp_path / "hit" / "run.json").read_text())
        assert record["resumed"]
        assert record["taken_from_checkpoint"] > 0
        assert ended["facts"]["segments"] == json.loads(calm.stdout)["segments"]
        assert all(a.equals(b) for a, b in zip(tables(tmp_path / "hit"), tables(tmp_path / "calm"), strict=True))


@pytest.mark.faults
def test_a_driver_that_has_nothing_to_say_ends_with_its_worker_too(tmp_path: Path) -> None:
    write_jobs(tmp_path)
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    order = {"text": (tmp_path / "long.yaml").read_text(), "options": [*HERE, "--quiet"], "tls": {}}
    driver = subprocess.Popen(COMMAND, cwd=tmp_path, stdin=subprocess.PIPE, **silent)
    try:
        assert driver.stdin is not None
        driver.stdin.write(json.dumps(order).encode() + b"\n")
        driver.stdin.flush()
        until(lambda: any(tmp_path.glob(".long.run/journal/*")), 60)
        driver.stdin.close()
        assert driver.wait(5) == 1
    finally:
        driver.kill()
        driver.wait()
    assert (tmp_path / ".long.run" / "plan.json").exists()
