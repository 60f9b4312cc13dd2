"""Few scans of a large table: starts run on a sample in memory, the best go on with all rows, and a larger sample tells where each scan leads.

    profile (1 scan) -> its sample of 16,384 rows: all starts of all sizes, to a loose tolerance
                     -> survivors: one scan of all rows, which also takes the rows of the larger sample along
                     -> solve on that sample, corrected; scan; until the gain that it predicts is within tol       (em/coarse.py)

A start survives if it is the best of its size, or another optimum whose log density per row is not lower by more than three standard errors of that difference on the sample; two of a size at
most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dask_em.data.columns import row_hash
from dask_em.data.profile import SAMPLE_ROWS
from dask_em.em import grid, loop
from dask_em.em.coarse import Coarse
from dask_em.execution.base import Executor, itself
from dask_em.execution.threads import single_blas, spread
from dask_em.mixture import Mixture, Parameters
from dask_em.scan import Block

WORTHWHILE_ROWS = 4 * SAMPLE_ROWS
"""Smaller tables are their own sample."""

COARSE_SHARE, COARSE_ROWS, COARSE_BYTES = 8, 1 << 16, 1 << 25
"""The larger sample is an eighth of the rows, at least 65,536, or as many as 32 MB hold."""

COARSE_BLOCK_ROWS = 1 << 15
"""It is cut into blocks of so many rows, for the threads of the root."""

LOOSE = 1e-4
"""Tolerance of the starts on the sample: its optimum is not that of all rows in any case."""

SAME = 0.02
"""Root mean square difference of log densities below which two starts have found the same optimum."""

SURVIVORS = 2
"""Starts of one size that go on at most."""

PATIENCE = 2.0
"""Seconds of scans that a lost worker may cost beyond the one that is running; to bring a state here costs some hundredths."""


def run_on_sample(
    mixture: Mixture, block: Block, sizes: Sequence[int], start: Parameters, settings: loop.Settings
) -> tuple[loop.Candidate, ...]:
    """All starts on a sample in memory, accelerated."""
    weight = float(block.weight.sum())
    own = replace(mixture, patterns=None)
    rules = replace(settings, mixture=own, n_weight=weight, tol=max(settings.tol, LOOSE), acceleration="daarem")
    state = loop.start(rules, sizes, start)
    while not state.done:
        with single_blas():
            state = loop.tell(state, loop.ask(state)(block))
    return state.candidates


def survivors(candidates: Sequence[loop.Candidate], mixture: Mixture, block: Block) -> list[int]:
    """The starts that go on with all rows, see above; those of each size side by side, in the order of the starts."""
    own = replace(mixture, patterns=None)
    kept: list[int] = []
    for k in dict.fromkeys(c.n_components for c in candidates):
        alive = [i for i, c in enumerate(candidates) if c.n_components == k and c.parameters is not None]
        alive.sort(key=lambda i: loop.rank(candidates[i]), reverse=True)
        densities: list[NDArray[np.float64]] = []
        chosen: list[int] = []
        for i in alive:
            parameters = candidates[i].parameters
            assert parameters is not None
            density = own.posterior(parameters, block)[1]
            if not chosen or (_may_be_better(densities[0], density, block) and not _known(densities, density, block)):
                chosen.append(i)
                densities.append(density)
            if len(chosen) == SURVIVORS:
                break
        kept += sorted(chosen)
    return kept


def _may_be_better(best: NDArray[np.float64], other: NDArray[np.float64], block: Block) -> bool:
    share = block.weight / block.weight.sum()
    mean = float(share @ (best - other))
    error = np.sqrt(float(share @ (best - other - mean) ** 2) / block.n_rows)
    return mean <= 3.0 * error


def _known(densities: Sequence[NDArray[np.float64]], other: NDArray[np.float64], block: Block) -> bool:
    share = block.weight / block.weight.sum()
    return any(float(share @ (one - other) ** 2) <= SAME**2 for one in densities)


@dataclass(frozen=True)
class Sampled:
    """Sums over rows, and some of these rows; adds up."""

    sums: grid.Totals
    blocks: tuple[Block, ...]

    def __add__(self, other: Sampled) -> Sampled:
        return Sampled(self.sums + other.sums, self.blocks + other.blocks)


def coarse_rows(rows: int, block: Block) -> int:
    """How many rows the larger sample should have."""
    width = sum(len(v) for v in block.values) + 2
    return min(max(rows // COARSE_SHARE, COARSE_ROWS), COARSE_BYTES // (8 * width))


def ask_and_sample(states: grid.Grid, share: float) -> Callable[[Block], Sampled]:
    """As `grid.ask`, and a share of each block's rows, chosen by a hash of what they hold."""
    step = grid.ask(states)
    assert step is not None
    return lambda block: Sampled(step(block), (some_rows(block, share),))


def tell_and_keep(states: grid.Grid, total: Sampled) -> tuple[grid.Grid, Coarse]:
    """As `grid.tell`, and the sample that came along."""
    blocks = tuple(part for block in merged(total.blocks) for part in cut(block, COARSE_BLOCK_ROWS))
    share = states.states[0].settings.n_weight / sum(float(b.weight.sum()) for b in blocks)
    coarse = Coarse(blocks, share, spread)
    return grid.tell(states, total.sums, coarse), coarse


def some_rows(block: Block, share: float) -> Block:
    """The rows whose contents hash below a share of all hashes: the same ones however the table is cut."""
    columns = [
        (own.astype(np.float64) + 0.0).view(np.uint64) if own.dtype.kind == "f" else own.astype(np.uint64)
        for values in block.values
        for own in values
    ]
    hashes = row_hash(columns, block.n_rows)
    rows = np.flatnonzero((hashes < np.uint64(min(share, 1.0) * (2**64 - 2**11))) & (block.weight > 0))
    return _taken(block, rows)


def merged(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """One block of all rows, where they know the same patterns."""
    first = blocks[0]
    if any(b.observed.shape != first.observed.shape or (b.observed != first.observed).any() for b in blocks):
        return tuple(b for b in blocks if b.n_rows)
    which = np.concatenate([_pattern_of(b) for b in blocks])
    order = np.argsort(which, kind="stable")
    values = tuple(np.concatenate(parts, axis=1)[:, order] for parts in zip(*(b.values for b in blocks)))
    weight, base = (np.concatenate([getattr(b, name) for b in blocks])[order] for name in ("weight", "base"))
    return (Block(values, weight, base, first.observed, _runs(which[order], len(first.observed))),)


def cut(block: Block, rows: int) -> Iterator[Block]:
    """Consecutive rows of a block, as blocks."""
    for start in range(0, block.n_rows, rows):
        own = slice(start, start + rows)
        runs = np.clip(block.runs - start, 0, len(block.weight[own]))
        yield Block(tuple(v[:, own] for v in block.values), block.weight[own], block.base[own], block.observed, runs)


def _taken(block: Block, rows: NDArray[np.int64]) -> Block:
    which = _pattern_of(block)[rows]
    values = tuple(np.take(v, rows, axis=1) for v in block.values)
    observed = block.observed.copy()  # the block itself is overwritten by the next one
    return Block(values, block.weight[rows], block.base[rows], observed, _runs(which, len(observed)))


def _pattern_of(block: Block) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(block.observed)), np.diff(block.runs))


def _runs(which: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.bincount(which, minlength=n))]).astype(np.int64)


def scan(
    executor: Executor,
    blocks: Any,
    states: Sequence[loop.State],
    on_progress: Callable[[loop.Progress], None] | None,
    share: float | None = None,
    penalty: float | None = None,
) -> tuple[loop.State, ...]:
    """Scan until all candidates of all models have stopped; with a share of the rows to sample, the first scan brings them along.

    The next scan is asked for before the record of the last one is looked at, so that a cluster does not wait for that; where the last one was the end, it is none. But once
    PATIENCE has gone by the state is brought here first: on a cluster it would otherwise hang on all scans before it, which a lost worker could make run again.
    A run that was interrupted goes on with the last state that was kept; its first scan brings the same sample along.
    """
    start: grid.Grid = executor.resume(grid.Grid(tuple(states), penalty), grid.n_scans)
    if start.done:
        return start.states
    state, anchored = executor.put(start), monotonic()
    coarse: tuple[Any, ...] = ()
    if share is None:
        state = executor.fold(blocks, grid.ask, grid.tell, state)
    else:
        both = executor.fold(blocks, partial(ask_and_sample, share=share), tell_and_keep, state)
        state, coarse = executor.then(both, itemgetter(0)), (executor.then(both, itemgetter(1)),)
    last = 0.0
    while True:
        begun = monotonic()
        late = begun + last - anchored > PATIENCE
        ahead = None if late else executor.fold(blocks, grid.ask, grid.tell, state, *coarse)
        record = executor.look(state, grid.progress)
        executor.keep(state)
        if on_progress is not None:
            on_progress(record)
        if record.done:
            final: grid.Grid = executor.look(state, itself)
            return final.states
        if ahead is None:
            state, anchored = executor.anchor(state), monotonic()
            ahead = executor.fold(blocks, grid.ask, grid.tell, state, *coarse)
        state, last = ahead, monotonic() - begun
