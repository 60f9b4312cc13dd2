"""Scans on a Dask cluster.

A scan is a few tasks a worker thread, each walking a run of units, and one root task that completes the tree and does the M-step. The state stays on the
cluster; the driver looks at a small record. Every task is a pure function of its arguments, is pinned to no worker, and can be computed
again from the pieces when a worker is lost.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from time import time
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, default_client

from dask_em.errors import DaskEMError, TryAgainError
from dask_em.execution import blame, tasks
from dask_em.execution.base import Forgetful, Unit, make_runs
from dask_em.execution.blocks import Encode, warn_of_trouble
from dask_em.execution.cluster import connect, start_here, stop
from dask_em.execution.frames import SharedPiece
from dask_em.execution.tiers import Tier, check_wanted, choose
from dask_em.execution.watch import Limits, Watch

RUNS_PER_THREAD = 2
"""Tasks of a scan for each worker thread: enough to balance, few enough that scheduling costs little."""

FAN_IN = 32
"""Sums that one task adds up: where there are more, tasks between the runs and the root add up groups of them, so that no worker receives those of the whole cluster."""

MESSAGES = 0.002
"""Seconds for which a client gathers messages to its scheduler. Dask's 10 ms are made for many small tasks; a scan is two messages, one of which waited for the other: 20 ms in place of 11."""


def active_client() -> Client | None:
    """The client that this process has open, if any."""
    try:
        return default_client()
    except ValueError:
        return None


@dataclass
class _Blocks:
    """Runs of blocks on the cluster, each with the number of its reading and of its first block, and where they could not be kept, until the user was told."""

    runs: list[tuple[int, int, Future]]
    troubles: list[Future]
    scanned: bool = False


class DaskExecutor(Forgetful):
    """A cluster behind a client.

    Parameters
    ----------
    client : distributed.Client or str, optional
        A client, which from then on sends its messages after 2 ms in place of 10, or the address of a scheduler, for which certificates come from Dask's configuration. By default a cluster of processes is started, reachable
        from this machine only, encrypted and without a dashboard, and stopped by `close`.
    n_workers : int, optional
        Workers of one thread to start in that case; by default one a core.
    blocks : "auto", "resident", "mapped" or "streamed"
        Where encoded rows are kept between scans: in the memory of the workers, in scratch files, or nowhere, so that the table is read again in each of them. By default
        as fits, see `dask_em.execution.tiers`. The result is the same to the last bit.
    scratch : str, optional
        Folder for scratch files on the workers; by default the one where a worker keeps what it spills. What is written there is gone after the fit.
    limits : Limits
        How many seconds to wait in trouble, see `dask_em.execution.watch`.
    threads : int
        Threads to cut work for, although some are still to come.

    Raises
    ------
    ConfigurationError
        `blocks` is none of these, or the address is none of a scheduler with the same versions.
    TryAgainError
        No scheduler answers, or it has no worker.
    """

    def __init__(
        self,
        client: Client | str | None = None,
        *,
        n_workers: int | None = None,
        blocks: str = "auto",
        scratch: str | None = None,
        limits: Limits = Limits(),  # noqa: B008
        threads: int = 0,
    ) -> None:
        self.blocks, self.scratch, self._expected = check_wanted(blocks), scratch, threads
        self._own: tuple[Any, ...] = ()
        if client is None:
            self._own = start_here(n_workers, limits)
        elif isinstance(client, str):
            self._own = (connect(client, limits=limits),)
        self.client: Any = self._own[0] if self._own else client
        self._token, self._numbers = uuid4().hex[:12], count()
        self._watch, self._began = Watch(self.client, limits), time()
        self._readings: dict[int, blame.Reading] = {}

    def close(self) -> None:
        """Stop what was started here."""
        stop(*self._own)
        self._own = ()

    def reduce(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> Any:
        resolved = self._resolved(pieces)
        runs = self._runs([1] * len(pieces))
        parts = [self._submit(tasks.reduce_run, function, resolved[run], run.start) for run in runs]
        own = [self._read(part, function, pieces[r], resolved[r], r.start) for part, r in zip(parts, runs)]
        try:
            return self._result(self._submit(tasks.total_of_runs, self._joined(parts)))
        finally:
            self._forget(own)

    def open(self, units: Sequence[Unit], encode: Encode, row_bytes: int = 0) -> _Blocks:
        tier = self._tier(row_bytes * sum(u.rows for u in units))
        resolved = iter(self._resolved([piece for unit in units for piece in unit.pieces]))
        runs = []
        for run in self._runs([u.rows for u in units]):
            bare = [Unit((), u.rows, u.first_block, u.n_blocks) for u in units[run]]
            own = [[next(resolved) for _ in u.pieces] for u in units[run]]
            future = self._submit(tasks.open_run, tier, self.scratch, encode, bare, own)
            pieces = [piece for unit in units[run] for piece in unit.pieces]
            number = self._read(
                future, partial(tasks.encode_alone, encode), pieces, [piece for some in own for piece in some], 0
            )
            runs.append((number, bare[0].first_block, future))
        return _Blocks(runs, [self._submit(tasks.trouble, run) for *_, run in runs] if tier == "mapped" else [])

    def release(self, blocks: _Blocks) -> None:
        self._forget([number for number, *_ in blocks.runs])
        for future in (*(run for *_, run in blocks.runs), *blocks.troubles):
            future.release()

    def put(self, value: Any) -> Any:
        return value

    def fold(
        self,
        blocks: _Blocks,
        ask: Callable[[Any], Callable[[Any], Any] | None],
        tell: Callable[..., Any],
        state: Any,
        *known: Any,
    ) -> Future:
        if blocks.scanned:  # the first scan is under way, and nobody waits
            troubles, blocks.troubles = blocks.troubles, []
            warn_of_trouble(self._results(troubles))
        blocks.scanned = True
        parts = [self._submit(tasks.walk_run, ask, state, run, first, of=number) for number, first, run in blocks.runs]
        return self._submit(tasks.root, tell, state, self._joined(parts), *known)

    def _joined(self, parts: list[Future]) -> list[Future]:
        """The sums of few long runs in the place of those of many short ones."""
        while len(parts) > FAN_IN:
            parts = [self._submit(tasks.join_runs, parts[i : i + FAN_IN]) for i in range(0, len(parts), FAN_IN)]
        return parts

    def then(self, handle: Any, function: Callable[[Any], Any]) -> Future:
        return self._submit(function, handle)

    def anchor(self, handle: Any) -> Future:
        return self._submit(tasks.itself, self._result(self._submit(tasks.itself, handle, priority=1)))

    def look(self, handle: Any, function: Callable[[Any], Any]) -> Any:
        # Before the next scan, which may have been asked for already.
        return self._result(self._submit(function, handle, priority=1))

    def map(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> list[Any]:
        resolved = self._resolved(pieces)
        futures = [self._submit(tasks.call, function, i, piece) for i, piece in enumerate(resolved)]
        own = [self._read(f, function, pieces[i : i + 1], resolved[i : i + 1], i) for i, f in enumerate(futures)]
        try:
            return self._results(futures)
        finally:
            self._forget(own)

    def _submit(self, function: Callable[..., Any], *args: Any, priority: int = 0, of: int | None = None) -> Future:
        """A task; its key ends with its number, or with that of the reading that it is part `of`. The scheduler keeps books for each first item of keys."""
        group = f"em-{getattr(function, '__name__', 'call').lstrip('_')}-{self._token}"
        key = (group, next(self._numbers)) if of is None else (group, next(self._numbers), of)
        if self.client.status == "closed":
            raise self._watch.lost()
        messages = self.client.scheduler_comm  # another one after a new connection
        if messages is not None:
            messages.interval = MESSAGES
        with warnings.catch_warnings():
            # The rows of a table in memory are part of the recipe, so that a lost worker costs nothing: they have to travel.
            warnings.filterwarnings("ignore", "(?s).*Sending large graph")
            return self.client.submit(tasks.counted, function, *args, key=key, pure=False, priority=priority)

    def _result(self, future: Future) -> Any:
        return self._results([future])[0]

    def _results(self, futures: Sequence[Future]) -> list[Any]:
        """What futures come to, or the reason why they do not."""
        try:
            return self._watch.gather(futures)
        except KilledWorker as error:
            raise self._blamed(error) from None

    def _read(
        self,
        future: Future,
        call: Callable[[int, Any], Any],
        pieces: Sequence[Any],
        resolved: Sequence[Any],
        first: int,
    ) -> int:
        """Remember what a task reads, under its number, until it is forgotten."""
        number: int = future.key[-1]
        self._readings[number] = blame.Reading(future, call, resolved, first, pieces)
        return number

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._readings.pop(number, None)

    def _blamed(self, error: KilledWorker) -> DaskEMError:
        """The error for the piece that kills workers: perhaps not of the task that Dask gave up, but of one beside it."""
        ours = self._readings.get(error.task[-1]) if self._token in str(error.task) else None
        others = [own for own in self._readings.values() if own is not ours and own.future.status != "finished"]
        for reading in self._readings.values():
            reading.future.release()  # so that it kills nobody beside
        for suspect in [*([ours] if ours else []), *others]:
            try:
                finding = self._watch.gather(
                    [self._submit(tasks.probe, suspect.call, suspect.resolved, suspect.first)]
                )[0]
            except (KilledWorker, TryAgainError):
                break
            if finding is not None:
                return blame.verdict(suspect, finding)
        events = self._watch.ask(self.client.scheduler.events, topic="worker-restart-memory")
        overfull = sum(at >= self._began for at, _ in events)
        return blame.acquitted(ours, error.task, error.allowed_failures + 1, overfull)

    def losses(self) -> dict[str, int]:
        events = self._watch.ask(self.client.scheduler.events, topic="all")
        gone = [e for at, e in events if at >= self._began and e.get("action") == "remove-worker" and not e["expected"]]
        again = {key for event in gone for key in event["lost-computed-tasks"] if self._token in str(key)}
        return {"workers_lost": len(gone), "results_made_again": len(again)}

    def _resolved(self, pieces: Sequence[Any]) -> list[Any]:
        """The pieces, with futures in the place of those that the cluster has to compute: all in one message."""
        futures = iter(self.client.compute([p.delayed for p in pieces if isinstance(p, SharedPiece)]))
        return [next(futures) if isinstance(p, SharedPiece) else p for p in pieces]

    def _runs(self, sizes: Sequence[int]) -> list[slice]:
        """Cut things of these sizes into consecutive runs, a few for each worker thread."""
        return make_runs(sizes, RUNS_PER_THREAD * max(self._expected, self._threads()))

    def _threads(self) -> int:
        """All threads of all workers, of which there may be none before there is work."""
        found = self._watch.ask(self.client.scheduler.ncores)
        if not found:
            self._result(self._submit(tasks.itself, 0))
            found = self._watch.ask(self.client.scheduler.ncores)
        return sum(found.values()) or 1

    def room(self) -> int:
        return min((room.memory // room.threads for room in self._rooms()), default=0)

    def _tier(self, nbytes: int) -> Tier:
        """The tier for blocks of this size: what all workers have together decides."""
        rooms = self._rooms() if nbytes else []
        memory = sum(room.memory for room in rooms)
        disk = min((room.disk for room in rooms), default=0) * len(rooms)
        return choose(self.blocks, nbytes, memory, disk, f"on {len(rooms)} worker{'s' * (len(rooms) > 1)}")

    def _rooms(self) -> list[tasks.Room]:
        """What each worker has; workers of one host share what is limited for none of them."""
        self._threads()
        # A worker may just be lost: the others tell.
        found = self._watch.ask(self.client._run, tasks.room, self.scratch, on_error="ignore")
        rooms: list[tasks.Room] = list(found.values())
        beside = Counter(room.host for room in rooms)
        return [
            replace(room, memory=room.limit or room.memory // beside[room.host], disk=room.disk // beside[room.host])
            for room in rooms
        ]
