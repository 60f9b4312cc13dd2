"""One run at a time for an output: a lock that its owner holds while it lives, and that says who that is."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dask_em.errors import OutputError


@contextmanager
def locked(path: Path, run_id: str, output: str) -> Iterator[None]:
    """Hold the lock of an output. The system gives it back when its owner ends, however that happens.

    Raises
    ------
    OutputError
        Another run holds it; the message names that run.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(descriptor, 4096)
            os.close(descriptor)
            raise OutputError(f"output folder {output} is in use by {_told(owner)}: wait for it to end") from None
        if _same(path, descriptor):
            break
        os.close(descriptor)  # its owner has just removed it
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"run": run_id, "pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _told(owner: bytes) -> str:
    try:
        own = json.loads(owner)
        return f"run {own['run']} (process {own['pid']} on {own['host']})"
    except (ValueError, KeyError):
        return "another run"
