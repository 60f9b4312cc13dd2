"""A deadline on every wait for a cluster: each ends in what was waited for, or in an error that says what happened and what to do.

A wait is a coroutine on the loop of the client, and a thread that looks at it twice a second. Every few seconds it asks the scheduler for its workers, which tell in
their heartbeats how many pieces and blocks they have finished. From these answers `Patience`, which knows no cluster, judges whether to go on waiting.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as Waiting
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import Any

from distributed import Client, Future

from dask_em.errors import DaskEMError, TryAgainError

POLL = 0.5
"""Seconds between two looks at what is waited for."""

BEAT = 3.0
"""Seconds between the last answer of the scheduler and the next question."""

PAUSED = 20.0
"""Seconds that all workers may be paused with nothing to do: one that can make room by spilling does so within seconds."""

SILENT = 15.0
"""A worker that was heard of so many seconds before the others is told by name."""

PROGRESS = "dask_em"
"""Under this name workers tell how much they have finished."""


@dataclass(frozen=True)
class Limits:
    """How many seconds to wait in trouble.

    worker_ttl : for a worker that is silent, before the scheduler gives it up; set where the cluster is started
    no_workers : for a cluster without any worker
    stalled : for some piece or block to be finished; 20 times the median of the last scans where that is longer
    tcp_timeout : for an answer of the scheduler
    """

    worker_ttl: float = 60
    no_workers: float = 120
    stalled: float = 300
    tcp_timeout: float = 30


class Patience:
    """What one wait has heard of the cluster, and the sentence that ends it.

    Parameters
    ----------
    limits : when to give up
    usual : seconds that a scan takes
    now : when the wait begins; times are in seconds, by any clock
    """

    def __init__(self, limits: Limits, usual: float, now: float) -> None:
        self._limits, self._stalled = limits, max(limits.stalled, 20 * usual)
        self._asked: float | None = None
        self._heard = self._moved = now
        self._empty: float | None = None
        self._paused: float | None = None
        self._workers: Mapping[str, Any] = {}
        self._done: dict[str, Any] = {}

    def wants_to_ask(self, now: float) -> bool:
        """Whether it is time for a question."""
        return now - self._heard >= BEAT

    def ask(self, now: float) -> None:
        """The scheduler is asked, perhaps again."""
        self._asked = now if self._asked is None else self._asked

    def hear(self, now: float, workers: Mapping[str, Any]) -> None:
        """The scheduler has answered."""
        self._heard, self._asked, self._workers = now, None, workers
        done = {address: worker["metrics"].get(PROGRESS) for address, worker in workers.items()}
        if done != self._done or not workers:
            self._done, self._moved = done, now
        self._empty = None if workers else _since(self._empty, now)
        self._paused = _since(self._paused, now) if workers and all(map(_idle, workers.values())) else None

    @property
    def paused(self) -> bool:
        """Whether the trouble is that no worker takes work."""
        return self._paused is not None and self._heard - self._paused >= PAUSED

    def verdict(self, now: float) -> str | None:
        """Why not to wait any longer."""
        limits = self._limits
        if self._asked is not None and now - self._asked > limits.tcp_timeout:
            return f"the scheduler has not answered for {now - self._asked:.0f} s (limit tcp_timeout): look whether it runs, then run again"
        if self._empty is not None and self._heard - self._empty > limits.no_workers:
            return f"the cluster has had no worker for {self._heard - self._empty:.0f} s (limit no_workers): start workers, then run again"
        if self.paused:
            return f"{self._who()} over 80 % of the memory limit and cannot make room on disk: free space in its local directory, or give workers more memory, then run again"
        if self._heard - self._moved > self._stalled:
            return f"nothing was finished for {self._heard - self._moved:.0f} s (limit stalled) on {len(self._workers)} worker(s){self._silent()}: look at their logs, then run again"
        return None

    def _who(self) -> str:
        return "the only worker is" if len(self._workers) == 1 else f"all {len(self._workers)} workers are"

    def _silent(self) -> str:
        seen = {address: worker["last_seen"] for address, worker in self._workers.items()}
        silent = [address for address, at in seen.items() if at < max(seen.values()) - SILENT]
        return f", of which {', '.join(silent[:3])} is silent" if silent else ""


def _since(before: float | None, now: float) -> float:
    return now if before is None else before


def _idle(worker: Mapping[str, Any]) -> bool:
    """Whether a worker is paused, and nothing is at work there that could end that."""
    return worker["status"] == "paused" and not worker["metrics"].get("task_counts", {}).get("executing")


class Watch:
    """All waits for the cluster of a client."""

    def __init__(self, client: Client, limits: Limits) -> None:
        self._client, self.limits = client, limits
        self._scans: deque[float] = deque(maxlen=9)

    def gather(self, futures: Sequence[Future]) -> list[Any]:
        """The results of futures, in order.

        Raises
        ------
        TryAgainError
            The cluster does not come to them within its limits.
        KilledWorker
            A task was given up, for workers died of it.
        Exception
            What a task has raised.
        """
        began = monotonic()
        try:
            results = (
                [self._wait(futures[0]._result)]
                if len(futures) == 1
                else self._wait(self._client._gather, list(futures))
            )
        except (OSError, TimeoutError):
            if any(future.status == "error" for future in futures):  # a task has raised it
                raise
            raise self.lost() from None
        took = monotonic() - began
        if took > POLL:  # what was done already is no scan, and scans as short as this are far from any limit
            self._scans.append(took)
        return results

    def ask(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **options: Any) -> Any:
        """What a coroutine function of the client or of its scheduler returns."""
        try:
            return self._wait(function, *args, **options)
        except (OSError, TimeoutError):
            raise self.lost() from None

    def lost(self) -> TryAgainError:
        """The error for a link that is gone, and all futures with it."""
        return TryAgainError(
            "the connection to the scheduler was lost, and what it held with it: look whether it runs, then run again"
        )

    def _wait(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **options: Any) -> Any:
        if self._client.status != "running":
            raise self.lost()
        patience = Patience(self.limits, median(self._scans or [0.0]), monotonic())
        waiting, beat = self._start(function, *args, **options), None
        try:
            while not _is_done(waiting):
                beat = self._look(patience, beat)
            return waiting.result()
        except CancelledError:
            raise self.lost() from None
        except Exception as error:
            raise _as_ours(error) or error from None
        finally:
            waiting.cancel()
            if beat is not None:
                beat.cancel()

    def _start(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **options: Any) -> Waiting[Any]:
        async def call() -> Any:
            return await function(*args, **options)

        return asyncio.run_coroutine_threadsafe(call(), self._client.loop.asyncio_loop)

    def _look(self, patience: Patience, beat: Waiting[Any] | None) -> Waiting[Any] | None:
        """Hear what the scheduler says, and ask again where it is time; raise where there is nothing to wait for."""
        if self._client.status != "running":
            raise self.lost()
        now = monotonic()
        if beat is not None and beat.done():
            if not beat.cancelled() and beat.exception() is None:
                patience.hear(now, beat.result()["workers"])
            beat = None
        if (trouble := patience.verdict(now)) is not None:
            raise TryAgainError(trouble + (self._disks() if patience.paused else ""))
        if beat is None and patience.wants_to_ask(now):
            patience.ask(now)
            beat = self._start(self._client.scheduler.identity)
        return beat

    def _disks(self) -> str:
        """What is free in the local directories of the workers, where they still tell."""
        try:
            found = self._start(self._client._run, _disk, on_error="ignore").result(BEAT)
        except Exception:
            return ""
        told = sorted({f"{where} has {free / 1e6:.0f} MB" for where, free in found.values()})
        return f" ({', '.join(told[:3])} free)" if told else ""


def _disk(dask_worker: Any) -> tuple[str, int]:
    where = dask_worker.local_directory
    return where, shutil.disk_usage(where).free


def _is_done(waiting: Waiting[Any]) -> bool:
    """Whether it is done within the next moment."""
    try:
        waiting.exception(POLL)
    except TimeoutError:
        return waiting.done()
    except CancelledError:
        pass
    return True


def _as_ours(error: Exception) -> DaskEMError | None:
    """The sentence for what a scheduler with a limit of its own says."""
    if type(error).__name__ in ("NoWorkerError", "NoValidWorkerError"):
        return TryAgainError(
            "the cluster has had no worker for too long (limit no_workers): start workers, then run again"
        )
    return None
