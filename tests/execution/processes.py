"""A scheduler and workers of Dask as processes on the loopback address, with certificates, which all end with the block."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from distributed import Security

PATIENCE = 60.0
"""Seconds that a process may take to start."""


def write_certificates(folder: Path) -> dict[str, str]:
    """New certificates, by the keys of `cluster.security`."""
    folder.mkdir()
    security = Security.temporary()
    texts = {
        "ca_file": security.tls_ca_file,
        "cert_file": security.tls_client_cert,
        "key_file": security.tls_client_key,
    }
    for key, text in texts.items():
        (folder / key).write_text(text)
    return {key: str(folder / key) for key in texts}


@contextmanager
def scheduler(folder: Path, security: dict[str, str] | None) -> Iterator[str]:
    """A scheduler by itself, and its address."""
    file = folder / f"scheduler-{time.monotonic_ns()}.json"
    words = ["scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]
    with _running(words, folder, security):
        yield json.loads(_appeared(file))["address"]


@contextmanager
def worker(address: str, folder: Path, security: dict[str, str] | None, path: Path | None = None) -> Iterator[None]:
    """A worker of one thread; a folder in front of its import path may change what it finds."""
    words = ["worker", address, "--nthreads", "1", "--no-dashboard", "--worker-class", "dask_em.execution.quiet.Worker"]
    with _running(words, folder, security, {} if path is None else {"PYTHONPATH": str(path)}):
        yield


@contextmanager
def _running(
    words: list[str], folder: Path, security: dict[str, str] | None, environment: dict[str, str] | None = None
) -> Iterator[None]:
    command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1"]
    if security is not None:
        names = {"ca_file": "--tls-ca-file", "cert_file": "--tls-cert", "key_file": "--tls-key"}
        command += ["--protocol", "tls", *(word for key, file in security.items() for word in (names[key], file))]
    with open(folder / f"{words[0]}.log", "ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=os.environ | (environment or {}), start_new_session=True
        )
    try:
        yield
    finally:
        family = [process, *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        for one in family:
            one.kill()
        process.wait(PATIENCE)


def _appeared(file: Path) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if file.exists() and (text := file.read_text()).endswith("}"):
            return text
        time.sleep(0.05)
    raise TimeoutError(f"{file} did not appear")


def free_port() -> int:
    """A port of the loopback address that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listeners(pid: int) -> set[tuple[str, int]]:
    """Addresses at which a process and those below it accept connections."""
    found = set()
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            own = process.net_connections(kind="inet")
        except psutil.Error:  # it has just ended
            continue
        found |= {(str(c.laddr.ip), int(c.laddr.port)) for c in own if c.status == psutil.CONN_LISTEN}
    return found


def speaks_tls(host: str, port: int) -> bool:
    """Whether a listener answers in TLS and in nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, port), 10) as plain:
        try:
            context.wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLError as error:  # an alert for want of a certificate is TLS, too
            return "ALERT" in str(error).upper()
        except (ConnectionError, TimeoutError):
            return False
    return True
