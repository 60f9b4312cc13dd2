"""Many simulated workers: each is a real worker of Dask with one thread, connected by TCP, but all live in one process.

The scheduler is in another process and the client in a third, so that the processor time of each can be told.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dask
from distributed import Client, Worker


@contextmanager
def crowd(workers: int) -> Iterator[tuple[Client, dict[str, int]]]:
    """A client of so many workers, and the process numbers of the `scheduler` and the `workers`."""
    with ExitStack() as stack:
        file = Path(stack.enter_context(TemporaryDirectory())) / "scheduler.json"
        modules: dict[str, list[Any]] = {
            "scheduler": ["distributed.cli.dask_scheduler", "--host=127.0.0.1", "--port=0", "--no-dashboard", f"--scheduler-file={file}"],
            "workers": ["bench.crowd", file, workers],
        }  # fmt: skip
        pids = {}
        for name, command in modules.items():
            process = subprocess.Popen([sys.executable, "-m", *map(str, command)], stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            pids[name] = process.pid
        client = stack.enter_context(Client(_address(file), set_as_default=False))
        client.wait_for_workers(workers, timeout=60 + workers)
        yield client, pids


def _address(file: Path) -> str:
    """The address of the scheduler that writes this file."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if file.exists() and (text := file.read_text()):
            return str(json.loads(text)["address"])
        time.sleep(0.05)
    raise SystemExit("no scheduler came up within a minute")


async def _work(address: str, workers: int) -> None:
    # Sampling what every worker does is the work of as many machines, not of one.
    with dask.config.set({"distributed.worker.profile.enabled": False}):
        everybody = [Worker(address, nthreads=1, dashboard=False, host="127.0.0.1") for _ in range(workers)]
        await asyncio.gather(*everybody)
        await asyncio.gather(*(worker.finished() for worker in everybody))


if __name__ == "__main__":
    asyncio.run(_work(_address(Path(sys.argv[1])), int(sys.argv[2])))
