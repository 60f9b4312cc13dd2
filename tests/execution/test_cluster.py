"""Where clusters come from: real schedulers and workers, found at an address or started here or by a class, encrypted, and refused in a sentence."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from distributed import Client, SpecCluster

from dask_em import GaussianMixture
from dask_em.config import ClusterConfig
from dask_em.errors import ConfigurationError, TryAgainError
from dask_em.execution import quiet
from dask_em.execution.choose import open_executor
from dask_em.execution.cluster import differences, reach
from dask_em.execution.dask import MESSAGES, DaskExecutor
from dask_em.execution.local import LocalExecutor
from pipelines.cluster import open_cluster
from tests.execution.processes import listeners, scheduler, speaks_tls, worker, write_certificates

JOBS = {
    "class": "dask_jobqueue.local.LocalCluster",
    "options": {"cores": 1, "memory": "500MB", "processes": 1, "interface": "lo"},
}
"""dask-jobqueue with jobs that are processes of this machine, from real job scripts."""


def fitted(executor: Any) -> np.ndarray:
    """What a small fit finds."""
    rng = np.random.default_rng(5)
    x = np.r_[rng.normal(size=300), rng.normal(4, 1, size=500)]
    return GaussianMixture(2, random_state=0, tol=1e-4, executor=executor).fit(pd.DataFrame({"x": x})).means_


def opened(**config: Any) -> Any:
    return open_cluster(ClusterConfig.model_validate_json(json.dumps(config)))


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_certificates(tmp_path_factory.mktemp("tls") / "own")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tls: dict[str, str]) -> Iterator[str]:
    """A plain scheduler with one worker, encrypted."""
    folder = tmp_path_factory.mktemp("running")
    with scheduler(folder, tls) as where, worker(where, folder, tls):
        yield where


# --- on this machine ---------------------------------------------------------------------------------------------


def test_processes_of_this_machine_listen_on_loopback_and_in_tls_only() -> None:
    before = listeners(os.getpid())
    with opened(executor="dask", n_workers=2, worker_ttl=30, tcp_timeout=20) as executor:
        found = listeners(os.getpid()) - before
        assert len(found) == 5  # a scheduler, two workers, and what watches over each
        assert {host for host, _ in found} == {"127.0.0.1"}
        assert all(speaks_tls(*listener) for listener in found)
        assert (fitted(executor) == fitted(LocalExecutor(1))).all()
        limits = executor.client.run_on_scheduler(_limits)
        assert limits == (30, 120, {"20s"})
        assert executor.client.run(_timeout) == dict.fromkeys(executor.client.nthreads(), "20s")
    assert listeners(os.getpid()) == before


def _limits(dask_scheduler: Any) -> Any:
    return dask_scheduler.worker_ttl, dask_scheduler.no_workers_timeout, {_timeout()}


def _timeout() -> Any:
    import dask

    return dask.config.get("distributed.comm.timeouts.tcp")


def test_a_plain_listener_is_recognised() -> None:
    """If it were not, the test above would prove nothing."""
    import http.server
    import threading

    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert ("127.0.0.1", server.server_port) in listeners(os.getpid())
        assert not speaks_tls("127.0.0.1", server.server_port)
        server.shutdown()


JOB = """\
pipeline: image_segmentation
picture: regions
pictures: {regions: {source: {kind: generated, height: 60, width: 80}, n_segments: 3}}
output: out
"""


@pytest.mark.faults
def test_a_whole_run_never_listens_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    command = [sys.executable, "-m", "dask", "em", "run", "job.yaml", "--quiet", "--set", "cluster.n_workers=2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        seen: set[tuple[str, int]] = set()
        try:
            while process.poll() is None:
                new = listeners(process.pid) - seen
                assert all(speaks_tls(*listener) for listener in new)
                seen |= new
        finally:
            process.kill()
    assert process.returncode == 0
    assert len(seen) == 5
    assert {host for host, _ in seen} == {"127.0.0.1"}
    record = json.loads((tmp_path / "out" / "run.json").read_text())["cluster"]
    assert record.items() >= {"executor": "dask", "n_workers": 2}.items()


@pytest.mark.faults
def test_a_run_without_encryption_warns_and_records_it(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    with scheduler(tmp_path, None) as where, worker(where, tmp_path, None):
        command = [sys.executable, "-m", "dask", "em", "run", "job.yaml", "--quiet", "--scheduler", where, "--insecure"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"dask-em: warning: the cluster at {where} is not encrypted" in done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["cluster"]["insecure"] is True


# --- at an address -----------------------------------------------------------------------------------------------


def test_an_address_with_certificates(address: str, tls: dict[str, str]) -> None:
    with opened(scheduler=address, security=tls) as executor:
        assert isinstance(executor, DaskExecutor)
        assert (fitted(executor) == fitted(LocalExecutor(1))).all()


def test_certificates_may_come_from_the_configuration_of_dask(address: str, tls: dict[str, str]) -> None:
    import dask

    own = {"ca-file": tls["ca_file"], "client.cert": tls["cert_file"], "client.key": tls["key_file"]}
    settings = {f"distributed.comm.tls.{key}": file for key, file in own.items()}
    with dask.config.set(settings), open_executor(address) as executor:
        assert executor.map([1], lambda i, piece: piece) == [1]


def test_an_address_without_certificates_is_a_mistake(address: str) -> None:
    with pytest.raises(ConfigurationError, match="there are no certificates for tls://"), opened(scheduler=address):
        pass


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ca_file": "nowhere.pem"}, r"cluster.security.ca_file: nowhere.pem cannot be read \(No such file"),
        ({"key_file": "nowhere.pem"}, "cluster.security.key_file: nowhere.pem cannot be read"),
        ({"cert_file": __file__}, "is no certificate in PEM form, or the key is that of another one"),
        ({"ca_file": __file__}, "is no certificate in PEM form, or the key is that of another one"),
    ],
)
def test_files_that_are_no_certificates(
    address: str, tls: dict[str, str], change: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint), opened(scheduler=address, security=tls | change):
        pass


def test_a_scheduler_with_other_certificates_is_not_trusted(address: str, tmp_path: Path) -> None:
    other = write_certificates(tmp_path / "other")
    with (
        pytest.raises(TryAgainError, match=r"no scheduler answers at tls://.*check that it runs and trusts these"),
        _impatient(),
        opened(scheduler=address, security=other),
    ):
        pass


def test_no_scheduler_at_an_encrypted_address(tls: dict[str, str]) -> None:
    with (
        pytest.raises(TryAgainError, match=r"no scheduler answers at tls://127.0.0.1:9"),
        _impatient(),
        opened(scheduler="tls://127.0.0.1:9", security=tls),
    ):
        pass


def test_a_frozen_scheduler_does_not_answer(tmp_path: Path, tls: dict[str, str]) -> None:
    before = set(psutil.Process().children())
    with scheduler(tmp_path, tls) as where:
        (process,) = set(psutil.Process().children()) - before
        process.suspend()
        with (
            pytest.raises(TryAgainError, match="no scheduler answers at"),
            _impatient(),
            opened(scheduler=where, security=tls),
        ):
            pass


@pytest.mark.parametrize("wrong", ["tls://", "tls://127.0.0.1:port", "tcp://127.0.0.1:9"])
def test_what_is_no_address(tls: dict[str, str], wrong: str) -> None:
    import dask

    more = {"security": tls} if wrong.startswith("tls") else {"insecure": True}
    with (
        pytest.raises(ConfigurationError, match="is no address to connect to: "),
        dask.config.set({"distributed.comm.require-encryption": True}),
        opened(scheduler=wrong, **more),
    ):
        pass


def test_a_client_that_was_not_made_is_gone() -> None:
    """Collected later, it would be closed in any thread: in the one that starts the loop of the next client both would wait for each other."""
    before = {id(o) for o in gc.get_objects() if isinstance(o, Client)}
    gc.disable()
    try:
        with pytest.raises(ConfigurationError):
            reach("tcp://127.0.0.1:port")
        assert not [o for o in gc.get_objects() if isinstance(o, Client) and id(o) not in before]
    finally:
        gc.enable()


def _impatient() -> Any:
    import dask

    return dask.config.set({"distributed.comm.timeouts.connect": "1s"})


@pytest.mark.faults
def test_a_plain_scheduler_is_told_of_and_needs_a_worker(tmp_path: Path) -> None:
    with scheduler(tmp_path, None) as where:
        with (
            pytest.raises(TryAgainError, match=r"has had no worker for .* s \(limit no_workers\): start workers"),
            opened(scheduler=where, insecure=True, no_workers=1),
        ):
            pass
        with (
            worker(where, tmp_path, None),
            pytest.warns(UserWarning, match=f"the cluster at {where} is not encrypted: whoever reaches it can run"),
            opened(scheduler=where, insecure=True) as executor,
        ):
            assert executor.map([1], lambda i, piece: piece) == [1]


def test_in_code_an_address_of_another_machine_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.warns(UserWarning, match=r"the cluster at tcp://192.0.2.1:9 is not encrypted"),
        pytest.raises(TryAgainError, match=r"no scheduler answers at tcp://192.0.2.1:9"),
        _impatient(),
        open_executor("tcp://192.0.2.1:9"),
    ):
        pass


# --- versions ----------------------------------------------------------------------------------------------------


def test_a_worker_with_other_versions_is_refused_by_name(tmp_path: Path, tls: dict[str, str]) -> None:
    for name in ("pandas-0.1", "dask_em-0.0"):
        info = tmp_path / "path" / f"{name}.dist-info"
        info.mkdir(parents=True)
        package, version = name.split("-")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    with ExitStack() as stack:
        where = stack.enter_context(scheduler(tmp_path, tls))
        stack.enter_context(worker(where, tmp_path, tls, tmp_path / "path"))
        with pytest.raises(ConfigurationError) as caught, opened(scheduler=where, security=tls):
            pass
    assert str(caught.value).startswith("versions differ: dask-em is ")
    assert f"; pandas is {pd.__version__} here, 0.1 on worker tls://127.0.0.1:" in str(caught.value)
    assert str(caught.value).endswith(": install the same everywhere")


def test_what_is_missing_is_said_so() -> None:
    packages = {"dask-em": "1", "dask": "2", "distributed": "2", "numpy": "3", "pandas": "4", "pyarrow": "5"}
    here = {"host": {"python": "3.11.7.final.0"}, "packages": packages}
    bare = {"host": {"python": "3.11.9.final.0"}, "packages": packages | {"dask-em": None}}
    other = {"host": {"python": "3.12.1.final.0"}, "packages": packages}
    assert differences({"client": here, "scheduler": here, "workers": {"a": here}}) == []
    assert differences({"client": here, "scheduler": other, "workers": {"a": bare, "b": bare, "c": bare}}) == [
        "python is 3.11 here, 3.12 on the scheduler",
        "dask-em is 1 here, missing on worker a and 2 more",
    ]


# --- by a class --------------------------------------------------------------------------------------------------


class Plain(SpecCluster):
    """A class that cannot encrypt."""

    def __init__(self, secret: str = "") -> None:
        if secret:
            raise ValueError(f"{secret} is refused\nwith all its letters")
        options = {"host": "127.0.0.1", "protocol": "tcp://", "port": 0, "dashboard": False}
        super().__init__(scheduler={"cls": quiet.Scheduler, "options": options})


def jobs(test: Any) -> Any:
    """A test that leaves what nobody closes: processes of the local class of jobs, and clusters that their class has refused to make."""
    filters = (
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "ignore:subprocess:ResourceWarning",
        "ignore:unclosed:ResourceWarning",
    )
    return pytest.mark.usefixtures("swept")(pytest.mark.filterwarnings(*filters)(test))


@jobs
def test_job_scripts_start_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = listeners(os.getpid())
    with opened(**JOBS, workers=2) as executor:
        assert len(executor.client.nthreads()) == 2
        found = listeners(os.getpid()) - before
        assert {host for host, _ in found} == {"127.0.0.1"}
        assert all(speaks_tls(*listener) for listener in found)
        assert (fitted(executor) == fitted(LocalExecutor(1))).all()
        assert [path.name[:9] for path in tmp_path.iterdir()] == [".dask-em-"]
        assert (next(tmp_path.iterdir()).stat().st_mode & 0o777) == 0o700
    assert list(tmp_path.iterdir()) == []


@jobs
@pytest.mark.faults
def test_the_number_of_workers_may_follow_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with opened(**JOBS, adaptive={"minimum": 1, "maximum": 2}) as executor:
        assert len(executor.client.nthreads()) == 1
        assert executor._expected == 2
        waiting = executor.client.map(time.sleep, [2 + i / 1000 for i in range(60)])
        executor.client.wait_for_workers(2, timeout=60)
        del waiting
        assert (fitted(executor) == fitted(LocalExecutor(1))).all()


@pytest.mark.parametrize(
    ("path", "options", "complaint"),
    [
        ("no_such_package.Cluster", {}, "cluster.class: no_such_package cannot be imported: install it beside dask-em"),
        ("dask_jobqueue.Slurm", {}, "cluster.class: dask_jobqueue.Slurm is not a class of Dask clusters"),
        ("dask_jobqueue.core", {}, "cluster.class: dask_jobqueue.core is not a class of Dask clusters"),
        ("distributed.Client", {}, "cluster.class: distributed.Client is not a class of Dask clusters"),
        (
            "dask_jobqueue.PBSCluster",
            {},
            "cluster.options: dask_jobqueue.PBSCluster refuses them: You must specify how",
        ),
        ("tests.execution.test_cluster.Plain", {"n": 1}, "refuses them: .*unexpected keyword argument 'n'"),
        ("tests.execution.test_cluster.Plain", {}, "is not encrypted .*: give it certificates .*insecure: true"),
    ],
)
@jobs
def test_a_class_is_refused_in_a_sentence(path: str, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint), opened(**{"class": path, "options": options}):
        pass


@jobs
def test_a_class_that_takes_no_certificates(tls: dict[str, str]) -> None:
    plain = {"class": "tests.execution.test_cluster.Plain"}
    with pytest.raises(ConfigurationError, match="takes no certificates"), opened(**plain, security=tls):
        pass
    with (
        pytest.raises(TryAgainError, match="no worker"),
        opened(**plain, insecure=True, no_workers=1),
    ):
        pass


@jobs
def test_an_option_is_not_repeated() -> None:
    plain = {"class": "tests.execution.test_cluster.Plain", "options": {"secret": "hunter2"}}
    with pytest.raises(ConfigurationError) as caught, opened(**plain):
        pass
    assert str(caught.value) == "cluster.options: tests.execution.test_cluster.Plain refuses them: *** is refused"


@jobs
def test_a_queue_that_is_not_there_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    slurm = {"class": "dask_jobqueue.SLURMCluster", "options": JOBS["options"]}
    with (
        pytest.raises(TryAgainError, match=r"SLURMCluster cannot start workers .*'sbatch'"),
        opened(**slurm, workers=1),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_client_of_ones_own_is_taken_and_sends_without_delay(address: str, tls: dict[str, str]) -> None:
    from dask_em.execution.cluster import certificates

    security = certificates(**tls)
    with Client(address, security=security, set_as_default=False) as client:
        before = client.scheduler_comm.interval
        with open_executor(client) as executor:
            assert executor.map([1], lambda i, piece: piece) == [1]
            assert client.scheduler_comm.interval == MESSAGES < before
