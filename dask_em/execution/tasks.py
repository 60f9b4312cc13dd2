"""What a worker does: the tasks of a scan.

Each is a pure function of its arguments and is pinned to no worker, so that another worker can do it again. A worker tells in its heartbeats how many
tasks, pieces and blocks it has finished, so that whoever waits for it knows that it is at work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dask
from distributed import get_worker

from dask_em.execution import blame
from dask_em.execution.base import Unit
from dask_em.execution.blocks import Encode, Recipe, Run, make_run, walk
from dask_em.execution.threads import at_root, single_blas
from dask_em.execution.tiers import Tier, available_memory, free_disk
from dask_em.execution.tree import insert, join, sent, total
from dask_em.execution.watch import PROGRESS

_finished = 0


def _one_more(value: Any = None) -> Any:
    """Count a task, piece or block; whether two threads at once count one or two does not matter."""
    global _finished
    _finished += 1
    return value


def _count(dask_worker: Any) -> int:
    return _finished


def counted(function: Callable[..., Any], *args: Any) -> Any:
    """A task that tells when it is finished."""
    get_worker().metrics.setdefault(PROGRESS, _count)
    return _one_more(function(*args))


@dataclass(frozen=True)
class Room:
    """What a worker has: threads, the limit of its memory (0 for none), and what is free of its host's memory and disk."""

    host: str
    threads: int
    limit: int
    memory: int
    disk: int


def room(scratch: str | None, dask_worker: Any) -> Room:
    """What this worker has."""
    host = dask_worker.address.rpartition(":")[0]
    limit = dask_worker.memory_manager.memory_limit or 0
    disk = free_disk(scratch or dask_worker.local_directory)
    return Room(host, dask_worker.state.nthreads, limit, available_memory(), disk)


def itself(value: Any) -> Any:
    """The value."""
    return value


def call(function: Callable[[int, Any], Any], i: int, piece: Any) -> Any:
    """function(i, piece)."""
    with single_blas():
        return function(i, piece)


def reduce_run(function: Callable[[int, Any], Any], pieces: Sequence[Any], first: int) -> dict[Any, Any]:
    """The sums over consecutive pieces, by complete subtrees or in one."""
    nodes: dict[Any, Any] = {}
    with single_blas():
        for i, piece in enumerate(pieces, first):
            insert(nodes, (0, i), _one_more(function(i, piece)))
    return sent(nodes)


def join_runs(parts: Sequence[dict[Any, Any]]) -> dict[Any, Any]:
    """The subtrees of several runs in one."""
    return sent(join(parts))


def total_of_runs(parts: Sequence[dict[Any, Any]]) -> Any:
    """The sum over all runs."""
    return total(join(parts))


def _place(scratch: str | None) -> str:
    return scratch or get_worker().local_directory


def open_run(
    tier: Tier, scratch: str | None, encode: Encode, units: Sequence[Unit], pieces: Sequence[Sequence[Any]]
) -> Run:
    """A run, encoded where it is to be kept: what a task returns must not grow later, for Dask would not know."""
    recipe = Recipe(tuple(replace(unit, pieces=tuple(own)) for unit, own in zip(units, pieces)), encode)
    run = make_run(tier, recipe, partial(_place, scratch))
    if tier != "streamed":
        with single_blas():
            for _ in run:
                _one_more()
    return run


def encode_alone(encode: Encode, i: int, piece: Any) -> None:
    """Read and encode one piece, for what that does to the process."""
    encode(Unit((piece,), 0, 0, 1), (piece,))


def trouble(run: Run) -> str | None:
    """Why a run could not be kept."""
    return run.trouble


def walk_run(ask: Callable[[Any], Callable[[Any], Any] | None], state: Any, run: Run, first: int) -> dict[Any, Any]:
    """The sums over the blocks of a run, by complete subtrees."""
    with single_blas():
        step = ask(state)
        return {} if step is None else walk(run, first, lambda block: _one_more(step(block)))


def root(tell: Callable[..., Any], state: Any, parts: Sequence[dict[Any, Any]], *known: Any) -> Any:
    """The M-step."""
    with single_blas(), at_root(get_worker().state.nthreads):
        nodes = join(parts)
        return tell(state, total(nodes), *known) if nodes else state


def probe(function: Callable[[int, Any], Any], pieces: Sequence[Any], first: int) -> blame.Finding | None:
    """Which of these pieces ends a process, if one does."""
    share = dask.config.get("distributed.worker.memory.terminate") or 0
    limit = int(share * (get_worker().memory_manager.memory_limit or 0))
    return blame.probe(function, pieces, first, limit, _one_more)
