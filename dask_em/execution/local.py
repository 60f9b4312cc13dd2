"""Scans in this process, on threads; no scheduler is started.

Blocks are encoded in the first scan that needs them, while they are in cache. A fold is done when somebody looks at it.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dask_em.execution.base import Forgetful, Unit, make_runs
from dask_em.execution.blocks import Encode, Recipe, Run, make_run, walk, warn_of_trouble
from dask_em.execution.threads import at_root, single_blas
from dask_em.execution.tiers import available_memory, check_wanted, choose, free_disk
from dask_em.execution.tree import insert, join, total

RUNS_PER_THREAD = 16
"""Runs of a scan for each thread, which takes the next one when it is done: so many that threads end together."""

READERS = 2
"""Threads that read row groups of files for each one that computes, in a scan that keeps no blocks: while one waits for storage another works. One of 20 files that are not in memory
takes 1.0 s in place of 1.25, of files that are as long as before."""

SMALL = 1 << 23
"""Bytes of a column of such a row group (a million numbers): of larger ones no more are read at once than there are threads."""


class _Later:
    """A value that is worked out when somebody looks at it, once."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work: Callable[[], Any] | None = work
        self._value: Any = None

    def value(self) -> Any:
        if self._work is not None:
            self._value, self._work = self._work(), None
        return self._value


@dataclass
class _Blocks:
    """Runs, each with the number of its first block, and whether the user was told where they could not be kept."""

    runs: list[tuple[int, Run]]
    told: bool = False


def _value(handle: Any) -> Any:
    return handle.value() if isinstance(handle, _Later) else handle


class LocalExecutor(Forgetful):
    """Threads of this process.

    Parameters
    ----------
    n_threads : int, optional
        Threads to use; by default as many as the process may use cores. Where there are several, twice as many read files in scans that keep no blocks, for storage may answer slowly.
    blocks : "auto", "resident", "mapped" or "streamed"
        Where encoded rows are kept between scans: in memory, in a scratch file, or nowhere, so that the table is read again in each of them. By default as fits, see
        `dask_em.execution.tiers`. The result is the same to the last bit.
    scratch : str, optional
        Folder for scratch files; by default that of temporary files. What is written there is gone after the fit.

    Raises
    ------
    ConfigurationError
        `blocks` is none of these.
    """

    def __init__(self, n_threads: int | None = None, *, blocks: str = "auto", scratch: str | None = None) -> None:
        self.n_threads = n_threads or len(os.sched_getaffinity(0))
        self.blocks, self.scratch = check_wanted(blocks), scratch

    def reduce(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> Any:
        nodes: dict[Any, Any] = {}
        for i, value in enumerate(self._numbered(function, pieces, self._readers(pieces))):
            insert(nodes, (0, i), value)
        return total(nodes)

    def open(self, units: Sequence[Unit], encode: Encode, row_bytes: int = 0) -> _Blocks:
        nbytes = row_bytes * sum(unit.rows for unit in units)
        tier = choose(self.blocks, nbytes, available_memory(), free_disk(self._place()), "in this process")
        cuts = make_runs([unit.rows for unit in units], RUNS_PER_THREAD * self.n_threads)
        runs = [tuple(units[cut]) for cut in cuts]
        return _Blocks([(own[0].first_block, make_run(tier, Recipe(own, encode), self._place)) for own in runs])

    def release(self, blocks: _Blocks) -> None:
        for _, run in blocks.runs:
            run.release()

    def put(self, value: Any) -> Any:
        return value

    def fold(
        self,
        blocks: _Blocks,
        ask: Callable[[Any], Callable[[Any], Any] | None],
        tell: Callable[..., Any],
        state: Any,
        *known: Any,
    ) -> Any:
        return _Later(lambda: self._scan(blocks, ask, tell, _value(state), *map(_value, known)))

    def _scan(
        self,
        blocks: _Blocks,
        ask: Callable[[Any], Callable[[Any], Any] | None],
        tell: Callable[..., Any],
        state: Any,
        *known: Any,
    ) -> Any:
        with single_blas():
            step = ask(state)
            if step is None:
                return state

            nodes = join(self._each(lambda item: walk(item[1], item[0], step), blocks.runs, self.n_threads))
            if not blocks.told:
                warn_of_trouble(run.trouble for _, run in blocks.runs)
                blocks.told = True
            with at_root(self.n_threads):
                return tell(state, total(nodes), *known)

    def then(self, handle: Any, function: Callable[[Any], Any]) -> Any:
        return _Later(lambda: function(_value(handle)))

    def anchor(self, handle: Any) -> Any:
        return handle

    def look(self, handle: Any, function: Callable[[Any], Any]) -> Any:
        return function(_value(handle))

    def map(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> list[Any]:
        return list(self._numbered(function, pieces, self.n_threads))

    def room(self) -> int:
        return available_memory() // self.n_threads

    def close(self) -> None:
        """Nothing to give back."""

    def _readers(self, pieces: Sequence[Any]) -> int:
        """Threads that read these pieces."""
        small = all(0 < getattr(piece, "column_bytes", 0) <= SMALL for piece in pieces)
        return READERS * self.n_threads if small and self.n_threads > 1 else self.n_threads

    def _place(self) -> str:
        return self.scratch or tempfile.gettempdir()

    def _numbered(self, function: Callable[[int, Any], Any], pieces: Sequence[Any], n_threads: int) -> Iterator[Any]:
        return self._each(lambda item: function(*item), list(enumerate(pieces)), n_threads)

    def _each(self, function: Callable[[Any], Any], items: Sequence[Any], n_threads: int) -> Iterator[Any]:
        """function(item) in order, on threads, never more than a few results ahead of the reader."""
        with single_blas():
            if n_threads == 1 or len(items) < 2:
                yield from map(function, items)
                return
            with ThreadPoolExecutor(n_threads) as pool:
                pending: deque[Any] = deque()
                try:
                    for item in items:
                        pending.append(pool.submit(function, item))
                        if len(pending) > 2 * n_threads:
                            yield pending.popleft().result()
                    while pending:
                        yield pending.popleft().result()
                finally:
                    for future in pending:
                        future.cancel()
