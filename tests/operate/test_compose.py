"""The containers: their file, their commands as processes of this machine, and they themselves where there is an engine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import s3fs
from distributed import Client, Security
from ruamel.yaml import YAML

from tests.operate.processes import BIN, Processes, until

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = YAML(typ="safe").load(FILE)
SERVICES: dict[str, Any] = COMPOSE["services"]
FOLDERS = ("certificates", "scratch", "store")
SECRET = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "not-the-usual-one"}


class Services(Processes):
    """The commands of the services, with folders and free ports of this machine in the place of theirs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ports = {port: free_port() for port in ("8786", "8787", "9000")}
        for name in (*FOLDERS, "output"):
            (folder / name).mkdir(parents=True)
        (folder / "conf").symlink_to(ROOT / "conf")
        for name in SECRET | {"AWS_CA_BUNDLE": ""}:
            self.env.pop(name, None)

    def words(self, service: str) -> list[str]:
        command = SERVICES[service]["command"]
        words = shlex.split(command) if isinstance(command, str) else [word.replace("$$", "$") for word in command]
        return [self._here(word) for word in words]

    def environment(self, service: str) -> dict[str, str]:
        return {name: self._here(value) for name, value in SERVICES[service]["environment"].items() if value}

    def serve(self, service: str, **env: str) -> subprocess.Popen[bytes]:
        return self.start(*self.words(service), **self.environment(service), **env)

    def do(self, service: str, seconds: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.words(service), seconds=seconds, **self.environment(service), **env)

    def security(self) -> Security:
        cert, key = (str(self.folder / "certificates" / name) for name in ("cert.pem", "key.pem"))
        return Security(tls_ca_file=cert, tls_client_cert=cert, tls_client_key=key, require_encryption=True)

    def _here(self, text: str) -> str:
        for name in FOLDERS:
            text = re.sub(rf"(^|(?<=\s))/{name}\b", str(self.folder / name), text)
        for port, own in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(own), text)
        return text.replace("scheduler:", "127.0.0.1:").replace("0.0.0.0", "127.0.0.1")

    def listening(self) -> set[tuple[str, int]]:
        """What these processes, and those below them, listen on."""
        tree = [
            own
            for process in self.all
            for own in (psutil.Process(process.pid), *psutil.Process(process.pid).children(True))
        ]
        found = [own for process in tree for own in process.net_connections() if own.status == psutil.CONN_LISTEN]
        return {(own.laddr.ip, own.laddr.port) for own in found}


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    own = Services(tmp_path)
    try:
        yield own
    finally:
        own.end()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# The file


def test_it_fits_the_specification() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", FILE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_publishes_on_the_loopback_address_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8786:8786", "127.0.0.1:9000:9000"]  # and no status pages


def test_no_service_has_rights_that_it_does_not_need() -> None:
    assert "name" not in COMPOSE
    for service in SERVICES.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"deploy", "user", "privileged", "network_mode"} & set(service)
    writers = [name for name, own in SERVICES.items() if "certificates:/certificates" in own["volumes"]]
    assert writers == ["certificates"]


def test_everything_is_encrypted() -> None:
    for name in ("scheduler", "worker", "job"):
        assert SERVICES[name]["environment"]["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
        assert "tcp://" not in SERVICES[name]["command"]
        assert "--insecure" not in SERVICES[name]["command"]


def test_no_secret_has_a_default() -> None:
    text = FILE.read_text()
    given = {
        name: own for service in SERVICES.values() for name, own in service["environment"].items() if "AWS" in name
    }
    assert set(SECRET) <= set(given)
    assert set(given.values()) == {None}
    assert not re.search(r"\$\{[A-Z_]+:?-", text)


def test_its_jobs_are_there_and_its_options_exist() -> None:
    assert (ROOT / shlex.split(SERVICES["job"]["command"])[2]).exists()
    for name in ("scheduler", "worker", "job"):
        words = shlex.split(SERVICES[name]["command"])
        described = subprocess.run([BIN / words[0], words[1], "--help"], capture_output=True, text=True).stdout
        assert all(re.search(rf"{option}\b", described) for option in words if option.startswith("--")), name


def test_the_image_is_not_run_by_root() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    assert "ARG BASE=python:3.11-slim" in stages[0]
    assert {own.split(" AS ")[1].split()[0] for own in stages[1:]} == {"python", "store", "em"}
    assert all("\nUSER em\n" in own + "\n" for own in stages[2:])


# The commands as processes


def test_certificates_are_made_once_and_their_key_is_for_nobody_else(services: Services) -> None:
    cert, key = (services.folder / "certificates" / name for name in ("cert.pem", "key.pem"))
    assert services.do("certificates").returncode == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = cert.read_bytes()
    assert services.do("certificates").returncode == 0
    assert cert.read_bytes() == before


def test_the_store_does_not_start_without_a_secret(services: Services) -> None:
    for given in ({}, {"AWS_ACCESS_KEY_ID": "somebody"}, SECRET | {"AWS_SECRET_ACCESS_KEY": ""}):
        done = services.do("store", **given)
        assert done.returncode != 0
        assert "has no default, set it before you start the store" in done.stderr
    assert not any((services.folder / "store").iterdir())


@pytest.mark.faults
def test_scheduler_workers_and_job_work_together_and_with_nobody_else(services: Services, tmp_path: Path) -> None:
    assert services.do("certificates").returncode == 0
    services.serve("scheduler")
    health = f"http://127.0.0.1:{services.ports['8787']}/health"
    until(lambda: answers(health), 60)
    for _ in range(2):
        services.serve("worker")
    address = f"127.0.0.1:{services.ports['8786']}"
    with Client(f"tls://{address}", security=services.security(), set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    open_to_others = {port for ip, port in services.listening() if ip != "127.0.0.1"}  # those of the workers
    for port in {services.ports["8786"], *open_to_others}:
        assert shakes_hands(port, services.security())
    stranger = Services(tmp_path / "stranger")
    assert stranger.do("certificates").returncode == 0
    for url, security in ((f"tcp://{address}", None), (f"tls://{address}", stranger.security())):
        with pytest.raises(OSError):
            Client(url, security=security, timeout=3, set_as_default=False)
    job = services.do("job", seconds=280)
    assert job.returncode == 0, job.stderr + services.logs()
    assert (tmp_path / "output" / "customer_segmentation" / "_SUCCESS").exists()


@pytest.mark.faults
def test_the_store_keeps_files_for_who_knows_the_secret(services: Services, tmp_path: Path) -> None:
    (package,) = re.findall(r"uv pip install --no-cache (rclone\S+)", (ROOT / "Dockerfile").read_text())
    subprocess.run([BIN / "uv", "venv", "--quiet", tmp_path / "venv"], check=True, timeout=60)
    python = ["--python", tmp_path / "venv" / "bin" / "python"]
    subprocess.run([BIN / "uv", "pip", "install", "--quiet", *python, package], check=True, timeout=200)
    services.env["PATH"] = f"{tmp_path / 'venv' / 'bin'}:{services.env['PATH']}"
    assert services.do("certificates").returncode == 0
    services.serve("store", **SECRET)
    port = services.ports["9000"]
    until(lambda: answers_port(port), 30)
    where = {
        "endpoint_url": f"https://localhost:{port}",
        "client_kwargs": {"verify": str(tmp_path / "certificates" / "cert.pem")},
        "config_kwargs": {"request_checksum_calculation": "when_required", "retries": {"max_attempts": 1}},
        "skip_instance_cache": True,
    }
    fs = s3fs.S3FileSystem(key=SECRET["AWS_ACCESS_KEY_ID"], secret=SECRET["AWS_SECRET_ACCESS_KEY"], **where)
    fs.pipe("data/a/b", b"hello")
    assert (tmp_path / "store" / "data" / "a" / "b").read_bytes() == b"hello"
    assert fs.cat("data/a/b") == b"hello"
    for wrong in ({"key": SECRET["AWS_ACCESS_KEY_ID"], "secret": "another"}, {"anon": True}):
        with pytest.raises(OSError, match=r"Forbidden|Bad Request"):
            s3fs.S3FileSystem(**wrong, **where).cat("data/a/b")
    assert {ip for ip, _ in services.listening()} == {"127.0.0.1"}


# The containers

ENGINE = ("podman", "runc", "debootstrap", "/usr/libexec/podman/catatonit", "/usr/lib/podman/aardvark-dns")
BASE = "python3,python3-venv,python3-pip,ca-certificates,openssl"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
CONTAINERS = """
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
STORAGE = """
[storage]
driver = "vfs"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""


class Engine(Processes):
    """Podman with everything that it keeps in one folder, and podman-compose."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name, text in (("CONTAINERS_CONF", CONTAINERS), ("CONTAINERS_STORAGE_CONF", STORAGE)):
            (folder / name).write_text(text.format(folder=folder))
            self.env[name] = str(folder / name)
        self.project = f"dask-em-{os.getpid()}"

    def must(self, *command: str, seconds: float = 60) -> str:
        done = self.run(*command, seconds=seconds)
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
        return done.stdout + done.stderr

    def compose(self, *words: str, seconds: float = 60) -> str:
        words = ("--in-pod=false", "-f", str(FILE), "-p", self.project, *words)
        return self.must(str(self.folder / "venv/bin/podman-compose"), *words, seconds=seconds)

    def make_base(self) -> None:
        """An image with Python that trusts whom this machine trusts."""
        root = self.folder / "root"
        self.must("debootstrap", "--variant=minbase", f"--include={BASE}", "bookworm", str(root), seconds=600)
        if AUTHORITIES.exists():
            shutil.copyfile(AUTHORITIES, root / str(AUTHORITIES).lstrip("/"))
        (root / "etc/pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n")
        (root / "etc/uv").mkdir()
        (root / "etc/uv/uv.toml").write_text("native-tls = true\n")
        shutil.rmtree(root / "var/cache/apt/archives")
        self.must("sh", "-c", f"tar -C {root} -c . | podman import - dask-em-base", seconds=120)
        shutil.rmtree(root)

    def end(self) -> None:
        """Remove all containers, one by one as they hold each other, and then what they stood on."""
        for _ in range(10):
            for name in self.run("podman", "ps", "-aq").stdout.split():
                self.run("podman", "rm", "-f", "-t", "2", "--volumes", name, seconds=120)
        left = self.run("podman", "ps", "-aq").stdout
        self.run("podman", "network", "prune", "-f")
        self.run("podman", "rmi", "-af", seconds=300)
        super().end()
        assert not left, "containers are left"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    if missing := [name for name in ENGINE if shutil.which(name) is None]:
        pytest.skip(f"NO CONTAINER WAS STARTED: {', '.join(missing)} not installed")
    own = Engine(tmp_path)
    try:
        if (tried := own.run("podman", "info")).returncode != 0:
            pytest.skip(f"NO CONTAINER WAS STARTED: podman does not work here: {tried.stderr[-300:]}")
        yield own
    finally:
        own.end()


@pytest.mark.containers
@pytest.mark.timeout(2400)
def test_the_containers_do_the_demo(engine: Engine) -> None:
    subprocess.run([BIN / "uv", "venv", "--quiet", engine.folder / "venv"], check=True, timeout=60)
    engine.must("uv", "pip", "install", "--quiet", "--python", "venv/bin/python", "podman-compose", seconds=120)
    engine.make_base()
    build = ("podman", "build", "--layers=false", "--network", "host", "--build-arg", "BASE=dask-em-base")
    engine.must(*build, "--target", "em", "-t", "dask-em", str(ROOT), seconds=900)
    engine.compose("up", "-d", "--scale", "worker=2", seconds=300)
    told = engine.compose("--profile", "job", "run", "--rm", "-T", "job", seconds=900)
    assert "output/customer_segmentation/report.html" in told
    first, second = (f"{engine.project}_worker_{n}" for n in (1, 2))
    for name in (first, second):
        assert engine.must("podman", "exec", name, "id", "-u") == "1000\n"
        assert engine.must("podman", "exec", name, "cat", "output/customer_segmentation/_SUCCESS") == ""
        assert engine.run("podman", "exec", name, "touch", "/app/x").returncode != 0
    assert "-rw-------" in engine.must("podman", "exec", first, "ls", "-l", "/certificates/key.pem")
    ports = engine.must("podman", "ps", "--format", "{{.Ports}}").split()
    assert ports == ["127.0.0.1:8786->8786/tcp"]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def answers_port(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 3).close()
    except OSError:
        return False
    return True


def shakes_hands(port: int, security: Security) -> bool:
    """Whether a listener speaks TLS, and trusts these certificates."""
    context = security.get_connection_args("client")["ssl_context"]
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as one:
        return one.version() is not None
