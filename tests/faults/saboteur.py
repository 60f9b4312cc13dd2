"""Loaded by the workers of a test: ends, freezes or fills them when a task of some name begins, as the files in a folder say; each order is for the first worker that takes it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin


class Saboteur(WorkerPlugin):
    """An order is a file PHASE~NTH~SECONDS~SIGNAL."""

    name = "saboteur"

    def __init__(self) -> None:
        self.orders = Path(os.environ["FAULT_ORDERS"])
        self.seen: Counter[str] = Counter()

    def setup(self, worker: Worker) -> None:
        self.worker = worker

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        if finish != "executing" or not self.orders.exists():
            return
        for order in self.orders.iterdir():
            phase, nth, seconds, name = order.name.split("~")
            if not (isinstance(key, tuple) and key[0].startswith(f"em-{phase}-")):
                continue
            self.seen[order.name] += 1
            with suppress(FileNotFoundError):  # another worker was faster
                if self.seen[order.name] >= int(nth):
                    order.unlink()
                    self.worker.loop.asyncio_loop.call_later(
                        float(seconds), os.kill, os.getpid(), getattr(signal, name)
                    )
                    return


async def dask_setup(worker: Worker) -> None:
    await worker.plugin_add(Saboteur())
