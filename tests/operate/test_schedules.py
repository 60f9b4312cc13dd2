"""The examples of scheduled runs, each run as it is by its own scheduler: done, nothing to do, wrong, and another try after 75."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from distributed import Security
from ruamel.yaml import YAML

from dask_em import errors
from tests.operate.processes import BIN, Processes, until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "schedule"

COINS = (ROOT / "conf" / "coin_flips.yaml").read_text()
CDNOW = (ROOT / "conf" / "cdnow.yaml").read_text().replace("n_init: 10", "n_init: 1")
WRONG = COINS.replace("output:", "ouput:")
LOST = f"{CDNOW}\ncluster: {{scheduler: 'tcp://127.0.0.1:1', insecure: true}}\n"
FOUND = CDNOW
"""The same job where it needs no cluster."""


class Jobs(Processes):
    """A folder as the examples expect it: job files in conf/, and output wherever they say."""

    def write(self, text: str) -> None:
        """What the job that runs every night is."""
        for name in ("coin_flips", "cdnow"):
            (self.folder / "new").write_text(text)
            (self.folder / "new").rename(self.folder / "conf" / f"{name}.yaml")

    def stamp(self, output: str) -> tuple[int, int]:
        """What tells a new output from an old one."""
        found = (self.folder / output / "run.json").stat()
        return found.st_ino, found.st_mtime_ns

    def tried_in_vain(self) -> bool:
        return '"exit": 75' in self.logs()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    (tmp_path / "conf").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("dask", "dask-em"):
        (tmp_path / "bin" / name).symlink_to(BIN / name)
    env = {
        "JOBS": str(tmp_path),
        "HOME": str(tmp_path),
        "WAIT": "10",
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s",
        "DO_NOT_TRACK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    own = Jobs(tmp_path, env)
    try:
        own.write(COINS)
        yield own
    finally:
        own.end()


@pytest.fixture
def installed(tmp_path: Path) -> Callable[..., Path]:
    """Makes an environment with these packages, and gives its folder of commands; skips where they cannot be had."""

    def install(*packages: str) -> Path:
        uv = shutil.which("uv", path=f"{BIN}:{os.environ['PATH']}")
        if uv is None:
            pytest.skip("NOT TESTED: there is no uv to install a scheduler with")
        python = tmp_path / "venv" / "bin" / "python"
        for command in (["venv", tmp_path / "venv"], ["pip", "install", "--python", python, *packages]):
            done = subprocess.run([uv, *command], capture_output=True, text=True, timeout=600)
            if done.returncode:
                pytest.skip(f"NOT TESTED: {', '.join(packages)} cannot be installed: {done.stderr.strip()[-300:]}")
        return python.parent

    return install


@pytest.mark.parametrize(
    "path", [p for p in EXAMPLES.rglob("*") if p.is_file() and p.suffix != ".pyc"], ids=lambda p: p.name
)
def test_an_example_fits_on_a_page(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


# --- cron -------------------------------------------------------------------------------------------------------------


@pytest.mark.schedules
def test_cron(jobs: Jobs) -> None:
    (jobs.folder / "run.sh").symlink_to(EXAMPLES / "cron" / "run.sh")
    lines = [own for own in (EXAMPLES / "cron" / "crontab").read_text().splitlines() if own and own[0] not in "#"]
    line = next(own for own in lines if own.startswith("0 3 * * *")).removeprefix("0 3 * * *")
    command = line.replace("\\%", "%").replace("/srv/dask-em", str(jobs.folder)).strip()

    def nightly() -> str:
        return jobs.run("/bin/sh", "-c", command, seconds=120).stdout

    assert nightly() == ""
    (output,) = (jobs.folder / "output").glob("coins-*")
    before = jobs.stamp(f"output/{output.name}")
    assert nightly() == ""
    assert jobs.stamp(f"output/{output.name}") == before
    first, second = (jobs.folder / "coins.jsonl").read_text().splitlines()
    assert json.loads(first) == json.loads(second)
    jobs.write(WRONG)
    assert nightly() == "exit 2, see coins.log\n"


@pytest.mark.schedules
def test_cron_tries_again_after_75_alone(jobs: Jobs) -> None:
    script = str(EXAMPLES / "cron" / "run.sh")
    jobs.write(LOST)
    running = jobs.start(script, "conf/coin_flips.yaml")
    until(jobs.tried_in_vain, 60)
    jobs.write(FOUND)
    assert running.wait(60) == 0
    jobs.write(LOST)
    jobs.env |= {"TRIES": "2", "WAIT": "0"}
    done = jobs.run(script, "conf/coin_flips.yaml", "--set", "output=other")
    assert (done.returncode, done.stderr.count('"exit": 75')) == (75, 2)


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def manifest(name: str) -> Any:
    return YAML(typ="safe").load(EXAMPLES / "kubernetes" / name)


def pods() -> dict[str, Any]:
    """The pods of both manifests."""
    job, cluster = manifest("daskjob.yaml")["spec"]["job"], manifest("daskjob.yaml")["spec"]["cluster"]["spec"]
    return {
        "cronjob": manifest("cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"],
        "job": job["spec"],
        "scheduler": cluster["scheduler"]["spec"],
        "worker": cluster["worker"]["spec"],
    }


@pytest.mark.parametrize("name", ["cronjob", "job", "scheduler", "worker"])
def test_pods_are_locked(name: str) -> None:
    pod = pods()[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    secret = [own for own in container["env"] if "KEY" in own["name"] and "TLS" not in own["name"]]
    assert all("value" not in own for own in secret)
    if name in ("cronjob", "job"):
        assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", 30)


def test_kubernetes_tries_again_where_that_helps() -> None:
    rules = manifest("cronjob.yaml")["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    codes = {own["action"]: set(own["onExitCodes"]["values"]) for own in rules if "onExitCodes" in own}
    classes = [own for own in vars(errors).values() if isinstance(own, type) and issubclass(own, errors.DaskEMError)]
    again = {errors.TryAgainError.exit_code}
    assert codes == {"FailJob": {own.exit_code for own in classes} - again, "Count": again | {130, 143}}


CHECK = """
import sys, pathlib, json, jsonschema, yaml, dask_kubernetes, kubernetes_validate as kubernetes
from dask_kubernetes.operator.controller.controller import build_job_pod_spec
cron, job = (yaml.safe_load(pathlib.Path(path).read_text()) for path in sys.argv[1:])
kubernetes.validate(cron, kubernetes.latest_version(), strict=True)
crd = yaml.safe_load((pathlib.Path(dask_kubernetes.__path__[0]) / "operator/deployment/helm/dask-kubernetes-operator/crds/daskjob.yaml").read_text())
schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
jsonschema.validate(job, schema)
assert set(job["spec"]["cluster"]["spec"]) <= set(schema["properties"]["spec"]["properties"]["cluster"]["properties"]["spec"]["properties"])
cluster = job["spec"]["cluster"]["spec"]
for pod in (job["spec"]["job"]["spec"], cluster["scheduler"]["spec"], cluster["worker"]["spec"]):
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}
    kubernetes.validate(whole, kubernetes.latest_version(), strict=True)
service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": cluster["scheduler"]["service"]}
kubernetes.validate(service, kubernetes.latest_version(), strict=True)
name = job["metadata"]["name"]
pod = build_job_pod_spec(name, name, "default", job["spec"]["job"]["spec"], {}, {})
(address,) = [own["value"] for own in pod["spec"]["containers"][0]["env"] if own["name"] == "DASK_SCHEDULER_ADDRESS"]
assert address == f"tls://{name}-scheduler:8786", address
"""


@pytest.mark.schedules
def test_manifests_are_what_kubernetes_and_the_operator_know(installed: Callable[..., Path]) -> None:
    python = installed("kubernetes-validate", "dask-kubernetes", "jsonschema", "pyyaml") / "python"
    files = [EXAMPLES / "kubernetes" / name for name in ("cronjob.yaml", "daskjob.yaml")]
    done = subprocess.run([python, "-c", CHECK, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def as_process(pod: Mapping[str, Any], changed: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command of a pod and its environment, with the paths and addresses of this machine."""
    (container,) = pod["containers"]

    def here(text: str) -> str:
        for old, new in changed.items():
            text = text.replace(old, new)
        return text

    env = {own["name"]: here(own["value"]) for own in container["env"] if "value" in own}
    given = {f"$({name})": value for name, value in env.items()} | {"$(DASK_WORKER_NAME)": "worker", "$(JOB)": "job-1"}
    words = "\n".join([*container["command"], *container.get("args", [])])
    for name, value in given.items():
        words = words.replace(name, value)
    return here(words).split("\n"), env


@pytest.mark.schedules
def test_the_command_of_the_cron_job(jobs: Jobs) -> None:
    command, env = as_process(pods()["cronjob"], {"/app/": f"{jobs.folder}/"})
    jobs.env |= env
    assert jobs.run(*command).returncode == 0
    before = jobs.stamp("output/job-1")
    assert jobs.run(*command).returncode == 0
    assert jobs.stamp("output/job-1") == before
    jobs.write(WRONG)
    assert jobs.run(*command).returncode == errors.ConfigurationError.exit_code


@pytest.mark.schedules
def test_the_commands_of_the_dask_job(jobs: Jobs) -> None:
    jobs.write(CDNOW)
    own, port = Security.temporary(), free_port()
    (jobs.folder / "tls").mkdir()
    for name, text in {
        "ca.crt": own.tls_ca_file,
        "tls.crt": own.tls_worker_cert,
        "tls.key": own.tls_worker_key,
    }.items():
        (jobs.folder / "tls" / name).write_text(text)
    here = {
        "/tls/": f"{jobs.folder}/tls/",
        "/app/": f"{jobs.folder}/",
        "cdnow-scheduler": "127.0.0.1",
        "8786": f"{port}",
    }
    here |= {":8787": ":0"}
    for name in ("scheduler", "worker"):
        command, env = as_process(pods()[name], here)
        jobs.start(*command, **env)
    command, env = as_process(pods()["job"], here)
    jobs.env |= env
    until(lambda: "Registered to" in jobs.logs(), 60)
    done = jobs.run(*command, seconds=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["rows"] == 2357
    before = jobs.stamp("output/cdnow")
    assert jobs.run(*command).returncode == 0
    assert jobs.stamp("output/cdnow") == before


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


# --- orchestrators ----------------------------------------------------------------------------------------------------


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    """What a scheduler has written down."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.schedules
@pytest.mark.timeout(900)
def test_airflow(jobs: Jobs, installed: Callable[..., Path]) -> None:
    airflow = str(installed("apache-airflow>=3.3,<4", "apache-airflow-providers-standard") / "airflow")
    jobs.env |= {
        "AIRFLOW_HOME": str(jobs.folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }

    def told(day: str) -> tuple[Any, ...]:
        """State and number of tries of a day's task, and its result."""
        query = f"""select t.state, t.try_number, x.value from task_instance t join dag_run d using (run_id)
                    left join xcom x on x.run_id = d.run_id where d.logical_date like '{day}%'"""
        ((state, tries, result),) = rows(jobs.folder / "airflow" / "airflow.db", query)
        return state, tries, result and json.loads(result)

    assert jobs.run(airflow, "db", "migrate", seconds=200).returncode == 0
    test = (airflow, "dags", "test", "coin_flips")
    assert jobs.run(*test, "2026-01-01", seconds=200).returncode == 0
    state, tries, facts = told("2026-01-01")
    assert (state, tries, facts["output"]) == ("success", 1, "output/coins-2026-01-01")
    before = jobs.stamp("output/coins-2026-01-01")

    assert jobs.run(*test, "2026-01-01", seconds=200).returncode == 0
    assert told("2026-01-01") == ("skipped", 1, None)
    assert jobs.stamp("output/coins-2026-01-01") == before

    jobs.write(WRONG)
    assert jobs.run(*test, "2026-01-02", seconds=200).returncode == 1
    assert told("2026-01-02") == ("failed", 1, None)

    jobs.write(LOST)
    running = jobs.start(*test, "2026-01-03")
    until(lambda: "exit code 75" in jobs.logs(), 200)
    jobs.write(FOUND)
    assert running.wait(200) == 0
    assert told("2026-01-03")[:2] == ("success", 2)


MATERIALIZED = """
import dagster, json
instance = dagster.DagsterInstance.get()
last = instance.get_latest_materialization_event(dagster.AssetKey("coin_flips"))
found = {name: value.value for name, value in last.asset_materialization.metadata.items()}
print(json.dumps([[run.status.value for run in instance.get_runs()], last.asset_materialization.partition, found["output"]]))
"""


@pytest.mark.schedules
@pytest.mark.timeout(900)
def test_dagster(jobs: Jobs, installed: Callable[..., Path]) -> None:
    commands = installed("dagster>=1.13,<2")
    (jobs.folder / "dagster").mkdir()
    (jobs.folder / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    jobs.env |= {"DAGSTER_HOME": str(jobs.folder / "dagster")}
    assets = str(EXAMPLES / "dagster" / "assets.py")
    materialize = (
        str(commands / "dagster"),
        "asset",
        "materialize",
        "-f",
        assets,
        "--select",
        "coin_flips",
        "--partition",
    )

    def told() -> Any:
        """States of all runs, the newest first, and the day and output of the newest materialization."""
        return json.loads(jobs.run(str(commands / "python"), "-c", MATERIALIZED).stdout.splitlines()[-1])

    assert jobs.run(*materialize, "2026-01-01", seconds=200).returncode == 0
    before, first = jobs.stamp("output/coins-2026-01-01"), ["2026-01-01", "output/coins-2026-01-01"]
    assert told() == [["SUCCESS"], *first]

    assert jobs.run(*materialize, "2026-01-01", seconds=200).returncode == 0
    assert told() == [["SUCCESS", "SUCCESS"], *first]
    assert jobs.stamp("output/coins-2026-01-01") == before

    jobs.write(WRONG)
    failed = jobs.run(*materialize, "2026-01-02", seconds=200)
    assert failed.returncode == 1
    assert "STEP_UP_FOR_RETRY" not in failed.stderr
    assert told() == [["FAILURE", "SUCCESS", "SUCCESS"], *first]

    jobs.write(LOST)
    running = jobs.start(*materialize, "2026-01-03")
    until(lambda: "STEP_UP_FOR_RETRY" in jobs.logs(), 200)
    jobs.write(FOUND)
    assert running.wait(200) == 0
    assert told()[1:] == ["2026-01-03", "output/coins-2026-01-03"]


@pytest.mark.schedules
@pytest.mark.timeout(900)
def test_prefect(jobs: Jobs, installed: Callable[..., Path]) -> None:
    python = str(installed("prefect>=3.8,<4", "fastapi<0.154") / "python")
    jobs.env |= {
        "PREFECT_HOME": str(jobs.folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PYTHONPATH": str(EXAMPLES / "prefect"),
    }
    address = f"tcp://127.0.0.1:{free_port()}"
    once = python, "-c", f"from flow import cdnow; print(cdnow({address!r})['rows'])"

    def told() -> list[tuple[Any, ...]]:
        """State and number of tries of every task, the first one first."""
        query = "select state_type, run_count from task_run order by created"
        return rows(jobs.folder / "prefect" / "prefect.db", query)

    jobs.write(f"{CDNOW}\ncluster: {{insecure: true}}\n")
    running = jobs.start(*once)
    until(jobs.tried_in_vain, 200)
    scheduler = ("dask", "scheduler", "--host", address, "--dashboard-address", "127.0.0.1:0")
    jobs.start(*scheduler)
    jobs.start("dask", "worker", address, "--nthreads", "1", "--no-dashboard")
    assert running.wait(300) == 0
    (only,) = told()
    assert only[0] == "COMPLETED"
    assert only[1] > 1
    (output,) = (own.name for own in (jobs.folder / "output").glob("cdnow-*"))
    before = jobs.stamp(f"output/{output}")

    again = jobs.run(*once, seconds=200)
    assert again.stdout.splitlines()[-1] == "2357"
    assert told()[1:] == [("COMPLETED", 1)]
    assert jobs.stamp(f"output/{output}") == before

    jobs.write(WRONG)
    assert jobs.run(*once, seconds=200).returncode == 1
    assert told()[2:] == [("FAILED", 1)]
