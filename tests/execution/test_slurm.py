"""A fit on workers that Slurm starts: its own daemons on this machine, a queue of one node, jobs from dask-jobqueue's scripts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from getpass import getuser
from pathlib import Path

import pytest

from dask_em.execution.local import LocalExecutor
from tests.execution.processes import PATIENCE, free_port
from tests.execution.test_cluster import JOB, fitted, jobs, opened

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not all(map(shutil.which, DAEMONS)), reason=f"NOT TESTED: needs {', '.join(DAEMONS)}"),
]

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def queue(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Slurm of one node, found by its commands through the environment."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(mode=0o700)
    (folder / "munge" / "key").write_bytes(os.urandom(128))
    (folder / "munge" / "key").chmod(0o600)
    ports = {"controller": free_port(), "node": free_port()}
    own = {"host": socket.gethostname(), "user": getuser(), "folder": folder, "cpus": os.cpu_count(), **ports}
    (folder / "slurm.conf").write_text(CONF.format(**own))
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder}/munge/{name}" for option, name in names.items()]
    with ExitStack() as stack:
        stack.enter_context(_daemon(folder, "munged", "--force", "--foreground", *munge))
        _until(lambda: (folder / "munge" / "socket").exists())
        stack.enter_context(_daemon(folder, "slurmctld", "-D"))
        stack.enter_context(_daemon(folder, "slurmd", "-D"))
        _until(lambda: "idle" in subprocess.run(["sinfo"], capture_output=True, text=True).stdout)
        yield


@contextmanager
def _daemon(folder: Path, *command: str) -> Iterator[None]:
    with open(folder / f"{command[0]}.out", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


@jobs
@pytest.mark.usefixtures("queue")
def test_a_fit_on_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"cores": 1, "memory": "400MB", "processes": 1, "walltime": "00:05:00", "interface": "lo"}
    with opened(**{"class": "dask_jobqueue.SLURMCluster", "options": options, "workers": 1}) as executor:
        assert executor.client.scheduler.address.startswith("tls://127.0.0.1:")
        assert len(_jobs()) == 1
        assert (fitted(executor) == fitted(LocalExecutor(1))).all()
    _until(lambda: not _jobs())


@pytest.mark.usefixtures("queue")
def test_jobs_that_stand_in_the_queue_go_with_the_run(tmp_path: Path) -> None:
    subprocess.run(["scontrol", "update", "PartitionName=main", "State=DOWN"], check=True)
    options = "{cores: 1, memory: 400MB, processes: 1, interface: lo}"
    (tmp_path / "job.yaml").write_text(
        f"{JOB}cluster: {{class: dask_jobqueue.SLURMCluster, workers: 2, options: {options}}}\n"
    )
    command = [sys.executable, "-m", "dask", "em", "run", "job.yaml", "--quiet"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _until(lambda: len(_jobs()) == 2)
            process.terminate()
            said = process.communicate(timeout=10)[1]
        finally:
            process.kill()
    assert (process.returncode, said) == (143, b"dask-em: error: terminated\n")
    assert _jobs() == []
    assert not list(tmp_path.glob(".dask-em-*"))


def _jobs() -> list[str]:
    return subprocess.run(
        ["squeue", "--noheader", "--states=RUNNING,PENDING"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
