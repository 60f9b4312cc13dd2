"""Scans in this process, on threads; no scheduler is started.

Blocks are encoded in the first scan that needs them, while they are in cache, and kept in memory.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dask_em.execution.base import Unit
from dask_em.execution.threads import single_blas
from dask_em.execution.tree import insert, total


class _Blocks:
    """Units and, once encoded, their blocks."""

    def __init__(self, units: Sequence[Unit], encode: Callable[[Unit, Sequence[Any]], list[Any]]) -> None:
        self.units, self.encode = units, encode
        self._encoded: list[list[Any] | None] = [None] * len(units)

    def __getitem__(self, i: int) -> list[Any]:
        blocks = self._encoded[i]
        if blocks is None:
            blocks = self._encoded[i] = self.encode(self.units[i], self.units[i].pieces)
        return blocks


class LocalExecutor:
    """Threads of this process.

    Parameters
    ----------
    n_threads : int, optional
        Threads to use; by default as many as the process may use cores.
    """

    def __init__(self, n_threads: int | None = None) -> None:
        self.n_threads = n_threads or len(os.sched_getaffinity(0))

    def reduce(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> Any:
        nodes: dict[Any, Any] = {}
        for i, value in enumerate(self._numbered(function, pieces)):
            insert(nodes, (0, i), value)
        return total(nodes)

    def open(self, units: Sequence[Unit], encode: Callable[[Unit, Sequence[Any]], list[Any]]) -> _Blocks:
        return _Blocks(units, encode)

    def put(self, value: Any) -> Any:
        return value

    def fold(
        self,
        blocks: _Blocks,
        ask: Callable[[Any], Callable[[Any], Any]],
        tell: Callable[..., Any],
        state: Any,
        *known: Any,
    ) -> Any:
        with single_blas():
            step = ask(state)

            def walk(i: int) -> list[Any]:
                return [step(block) for block in blocks[i]]

            nodes: dict[Any, Any] = {}
            block = 0
            for values in self._each(walk, range(len(blocks.units))):
                for value in values:
                    insert(nodes, (0, block), value)
                    block += 1
            return tell(state, total(nodes), *known)

    def then(self, handle: Any, function: Callable[[Any], Any]) -> Any:
        return function(handle)

    def look(self, handle: Any, function: Callable[[Any], Any]) -> Any:
        return function(handle)

    def map(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> list[Any]:
        return list(self._numbered(function, pieces))

    def close(self) -> None:
        """Nothing to give back."""

    def _numbered(self, function: Callable[[int, Any], Any], pieces: Sequence[Any]) -> Iterator[Any]:
        return self._each(lambda item: function(*item), list(enumerate(pieces)))

    def _each(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """function(item) in order, on threads, never more than a few results ahead of the reader."""
        with single_blas():
            if self.n_threads == 1 or len(items) < 2:
                yield from map(function, items)
                return
            with ThreadPoolExecutor(self.n_threads) as pool:
                pending: deque[Any] = deque()
                try:
                    for item in items:
                        pending.append(pool.submit(function, item))
                        if len(pending) > 2 * self.n_threads:
                            yield pending.popleft().result()
                    while pending:
                        yield pending.popleft().result()
                finally:
                    for future in pending:
                        future.cancel()
