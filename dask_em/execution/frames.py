"""Partitions of a Dask dataframe as pieces of a table, and lazy results over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dask
import dask.dataframe as dd
from dask.local import get_sync
from dask.optimization import cull
from distributed import futures_of
from distributed.shuffle._core import P2PBarrierTask

SHARED = 2
"""How many times as large as their common graph the graphs of all partitions may be together, for each to be worth computing by itself."""


@dataclass(frozen=True)
class LazyPiece:
    """A partition of a Dask dataframe, as a piece that is computed by whoever reads it and not kept."""

    graph: Mapping[Any, Any]
    key: Any
    wrap: Callable[..., Any]
    origin: tuple[str, int]

    def read(self, columns: Sequence[str]) -> Any:
        """Compute the partition in this thread and read it."""
        return self._computed().read(columns)

    def marked(self, columns: Sequence[str]) -> Any:
        """The same, with marks of what was read."""
        return self._computed().marked(columns)

    def pinned(self, marks: Any) -> LazyPiece:
        """The same partition, which must hold what it held when these marks were taken."""
        return replace(self, wrap=partial(self.wrap, known=marks))

    def _computed(self) -> Any:
        return self.wrap(get_sync(self.graph, self.key), origin=self.origin)


@dataclass(frozen=True)
class SharedPiece:
    """A partition that needs work which others need too, such as a shuffle, or that is in the memory of a cluster: the cluster computes it."""

    delayed: Any
    origin: tuple[str, int]

    def read(self, columns: Sequence[str]) -> Any:
        """Compute the partition in this thread and read it."""
        return self.delayed.compute(scheduler="synchronous").read(columns)

    def marked(self, columns: Sequence[str]) -> Any:
        """The same, with marks of what was read."""
        return self.delayed.compute(scheduler="synchronous").marked(columns)

    def pinned(self, marks: Any) -> SharedPiece:
        """The same partition, which must hold what it held when these marks were taken."""
        pin = dask.delayed(_pinned, pure=True, traverse=False)
        return replace(self, delayed=pin(self.delayed, marks))


def _pinned(piece: Any, marks: Any) -> Any:
    return piece.pinned(marks)


def frame_pieces(frame: Any, wrap: Callable[..., Any]) -> tuple[LazyPiece | SharedPiece, ...]:
    """The partitions of a Dask dataframe, each made a piece by `wrap(partition, origin=...)`."""
    frame = frame.optimize()
    graph, keys = dict(frame.__dask_graph__()), frame.__dask_keys__()
    origins = [(f"partition {i}", 0) for i in range(len(keys))]
    own = None if futures_of(graph) else _graphs(graph, keys)
    if own is not None:
        return tuple(LazyPiece(g, key, wrap, o) for g, key, o in zip(own, keys, origins))
    make = dask.delayed(wrap, pure=True, traverse=False)
    return tuple(SharedPiece(make(p, origin=o), o) for p, o in zip(frame.to_delayed(), origins))


def _graphs(graph: dict[Any, Any], keys: Sequence[Any]) -> list[dict[Any, Any]] | None:
    """What each key needs of a graph, or None where many need the same, or workers trade rows: one alone cannot."""
    if any(isinstance(task, P2PBarrierTask) for task in graph.values()):
        return None
    graphs, left = [], SHARED * len(graph)
    for key in keys:
        graphs.append(cull(graph, [key])[0])
        left -= len(graphs[-1])
        if left < 0:
            return None
    return graphs


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
