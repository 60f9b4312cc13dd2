"""Scans on a Dask cluster: the only place that knows Dask.

A scan is a few tasks a worker thread, each walking a run of units, and one root task that completes the tree and does the M-step. The state stays on the
cluster; the driver looks at a small record. Every task is a pure function of its arguments, is pinned to no worker, and can be computed
again from the pieces when a worker is lost.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any
from uuid import uuid4

import dask
import dask.dataframe as dd
from distributed import Client, Future, LocalCluster, default_client

from dask_em.execution.base import Unit
from dask_em.execution.threads import single_blas
from dask_em.execution.tree import insert, join, total

RUNS_PER_THREAD = 2
"""Tasks of a scan for each worker thread: enough to balance, few enough that scheduling costs little."""


@dataclass(frozen=True)
class LazyPiece:
    """A partition of a Dask dataframe, as a piece that is computed when it is needed."""

    delayed: Any
    origin: tuple[str, int]

    def read(self, columns: Sequence[str]) -> Any:
        """Compute the partition in this thread and read it."""
        return self.delayed.compute(scheduler="synchronous").read(columns)


def frame_pieces(frame: Any, wrap: Callable[..., Any]) -> tuple[LazyPiece, ...]:
    """The partitions of a Dask dataframe, each made a piece by `wrap(partition, origin=...)`."""
    make = dask.delayed(wrap, pure=True, traverse=False)
    origins = ((f"partition {i}", 0) for i in range(frame.npartitions))
    return tuple(LazyPiece(make(p, origin=o), o) for p, o in zip(frame.to_delayed(), origins))


def is_frame(X: Any) -> bool:
    """Whether X is a Dask dataframe or series."""
    return isinstance(X, (dd.DataFrame, dd.Series))


def map_frame(frame: Any, function: Callable[[Any], Any], meta: Any) -> Any:
    """A lazy Dask result: the function of every partition."""
    return frame.map_partitions(function, meta=meta, enforce_metadata=False)


def map_numbered(frame: Any, function: Callable[[Any, int], Any]) -> Any:
    """A lazy Dask dataframe like `frame`: the function of every partition and its number."""
    apply = dask.delayed(function, pure=True, traverse=False)
    parts = [apply(partition, i) for i, partition in enumerate(frame.to_delayed())]
    return dd.from_delayed(parts, meta=frame._meta, divisions=frame.divisions, verify_meta=False)


def active_client() -> Client | None:
    """The client that this process has open, if any."""
    try:
        return default_client()
    except ValueError:
        return None


class DaskExecutor:
    """A cluster behind a client.

    Parameters
    ----------
    client : distributed.Client or str, optional
        A client, or the address of a scheduler. By default a cluster of processes on this machine is started, reachable from
        this machine only and without a dashboard, and stopped by `close`.
    n_workers : int, optional
        Workers of one thread to start in that case; by default one a core.
    """

    def __init__(self, client: Client | str | None = None, *, n_workers: int | None = None) -> None:
        self._own: list[Any] = []
        if client is None:
            cluster = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                # Status pages stay, without the dashboard, on any free port: the usual one may be another cluster's.
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            )
            client = Client(cluster)
            self._own = [client, cluster]
        elif isinstance(client, str):
            client = Client(client, set_as_default=False)
            self._own = [client]
        self.client: Any = client
        self._token, self._names = uuid4().hex[:12], count()

    def close(self) -> None:
        """Stop what was started here."""
        for thing in self._own:
            thing.close()
        self._own = []

    def reduce(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> Any:
        parts = [
            self._submit(_reduce_run, function, [self._resolved(p) for p in pieces[run]], run.start)
            for run in self._runs(len(pieces))
        ]
        return self._submit(_total, parts).result()

    def open(
        self, units: Sequence[Unit], encode: Callable[[Unit, Sequence[Any]], list[Any]]
    ) -> list[tuple[int, Future]]:
        blocks = []
        for run in self._runs(len(units)):
            own = units[run]
            bare = [Unit((), u.rows, u.first_block, u.n_blocks) for u in own]
            pieces = [[self._resolved(p) for p in u.pieces] for u in own]
            blocks.append((own[0].first_block, self._submit(_encode_run, encode, bare, pieces)))
        return blocks

    def put(self, value: Any) -> Any:
        return value

    def fold(
        self,
        blocks: list[tuple[int, Future]],
        ask: Callable[[Any], Callable[[Any], Any]],
        tell: Callable[..., Any],
        state: Any,
        *known: Any,
    ) -> Future:
        parts = [self._submit(_walk, ask, state, own, first) for first, own in blocks]
        return self._submit(_root, tell, state, parts, *known)

    def then(self, handle: Any, function: Callable[[Any], Any]) -> Future:
        return self._submit(function, handle)

    def look(self, handle: Any, function: Callable[[Any], Any]) -> Any:
        return self._submit(function, handle).result()

    def map(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> list[Any]:
        return self.client.gather([self._submit(_call, function, i, self._resolved(p)) for i, p in enumerate(pieces)])

    def _submit(self, function: Callable[..., Any], *args: Any) -> Future:
        name = getattr(function, "__name__", "call").lstrip("_")
        with warnings.catch_warnings():
            # The rows of a table in memory are part of the recipe, so that a lost worker costs nothing: they have to travel.
            warnings.filterwarnings("ignore", "(?s).*Sending large graph")
            return self.client.submit(function, *args, key=f"em-{name}-{self._token}-{next(self._names)}", pure=False)

    def _resolved(self, piece: Any) -> Any:
        return self.client.compute(piece.delayed) if isinstance(piece, LazyPiece) else piece

    def _runs(self, n: int) -> list[slice]:
        """Cut n things into consecutive runs, a few for each worker thread."""
        threads = sum(self.client.nthreads().values()) or 1
        tasks = max(1, min(n, RUNS_PER_THREAD * threads))
        edges = [n * i // tasks for i in range(tasks + 1)]
        return [slice(a, b) for a, b in pairwise(edges)]


def _call(function: Callable[[int, Any], Any], i: int, piece: Any) -> Any:
    with single_blas():
        return function(i, piece)


def _reduce_run(function: Callable[[int, Any], Any], pieces: Sequence[Any], first: int) -> dict[Any, Any]:
    nodes: dict[Any, Any] = {}
    with single_blas():
        for i, piece in enumerate(pieces, first):
            insert(nodes, (0, i), function(i, piece))
    return nodes


def _total(parts: Sequence[dict[Any, Any]]) -> Any:
    return total(join(parts))


def _encode_run(
    encode: Callable[[Unit, Sequence[Any]], list[Any]], units: Sequence[Unit], pieces: Sequence[Sequence[Any]]
) -> list[Any]:
    return [block for unit, own in zip(units, pieces) for block in encode(unit, own)]


def _walk(ask: Callable[[Any], Callable[[Any], Any]], state: Any, blocks: Sequence[Any], first: int) -> dict[Any, Any]:
    nodes: dict[Any, Any] = {}
    with single_blas():
        step = ask(state)
        for i, block in enumerate(blocks, first):
            insert(nodes, (0, i), step(block))
    return nodes


def _root(tell: Callable[..., Any], state: Any, parts: Sequence[dict[Any, Any]], *known: Any) -> Any:
    with single_blas():
        return tell(state, total(join(parts)), *known)
