"""Several models in the same scans: a loop each, asked together and told together.

Models that differ in more than their number of components, such as covariance models, cannot lie on one axis. They share the reading of rows instead: `ask` gives one function from a block to the
sums of all of them, `tell` hands each loop its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dask_em.em import loop
from dask_em.em.coarse import Coarse
from dask_em.scan import Block


@dataclass(frozen=True)
class Grid:
    """The loops of several models.

    penalty : what a free parameter costs in -2 log-likelihood where the candidates compete by that, such as log n; None where only those of one model and size compete
    """

    states: tuple[loop.State, ...]
    penalty: float | None = None

    @property
    def done(self) -> bool:
        return all(s.done for s in self.states)


@dataclass(frozen=True)
class Totals:
    """The sums of each loop that is running; adds up."""

    each: tuple[Any, ...]

    def __add__(self, other: Totals) -> Totals:
        return Totals(tuple(a + b for a, b in zip(self.each, other.each, strict=True)))


def ask(grid: Grid) -> Callable[[Block], Totals] | None:
    """What to evaluate on every block in the next scan; None when all loops are done."""
    if grid.done:
        return None
    steps = [loop.ask(s) for s in grid.states if not s.done]
    return lambda block: Totals(tuple(step(block) for step in steps))


def tell(grid: Grid, total: Totals, coarse: Coarse | None = None) -> Grid:
    """Hand each loop its sums."""
    each = iter(total.each)
    rivals = loop.Rivals(grid.penalty, min((loop.best_cost(s, grid.penalty) for s in grid.states), default=np.inf))
    states = tuple(s if s.done else loop.tell(s, next(each), coarse, rivals) for s in grid.states)
    return Grid(states, grid.penalty)


def n_scans(grid: Grid) -> int:
    """How far it has come."""
    return max(s.n_scans for s in grid.states)


def progress(grid: Grid) -> loop.Progress:
    """Look at a grid from afar: how many candidates run, and the best of all."""
    records = [loop.progress(s) for s in grid.states]
    best = max(records, key=lambda r: r.objective if np.isfinite(r.objective) else -np.inf)
    scan, running = max(r.scan for r in records), sum(r.candidates for r in records)
    return loop.Progress(scan, running, best.objective, best.change, grid.done)
