"""Which cells of a published table of counts are left out, so that nobody can be told from it.

    small                 1 to smallest - 1 rows; a cell without rows describes nobody
    complementary         as many more cells as it takes that no small one follows from the rest: in every line of the table, its total included, what is
                          left out is at least two cells and `smallest` rows together, and no cell is a bridge

Take rows and columns of the table (the totals are one more of each) as the nodes of a graph and the cells that are left out as its edges. A cell follows from those that
are shown if and only if its edge is a bridge, that is if it lies on no cycle (Gusfield 1988, SIAM J. Comput. 17, 552). Tables are protected one by one: what several
of them say together, or with what a reader already knows, is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALLEST = 10
"""Fewest rows that a published number rests on: what statistical offices ask for."""

Mask = NDArray[np.bool_]


def is_small(rows: ArrayLike, smallest: int = SMALLEST) -> Mask:
    """Which counts are small: 1 to smallest - 1."""
    given = np.asarray(rows)
    return (given > 0) & (given < smallest)


def hidden_in_line(counts: ArrayLike, smallest: int = SMALLEST) -> Mask:
    """Which cells to leave out of a line whose total is known.

    Parameters
    ----------
    counts : (n,) rows of each cell
    smallest : fewest rows of a cell that is shown

    Returns
    -------
    (n,) mask
    """
    given = np.asarray(counts, dtype=float)
    return _completed(given, is_small(given, smallest), np.ones(len(given), bool), smallest)


def hidden_in_table(
    counts: ArrayLike,
    smallest: int = SMALLEST,
    hidden_columns: ArrayLike | None = None,
    *,
    known_totals: bool = False,
) -> Mask:
    """Which cells to leave out of a table whose totals are shown, too.

    Parameters
    ----------
    counts : (r, c) rows of each cell
    smallest : fewest rows of a cell that is shown
    hidden_columns : (c,) columns of which nothing may be shown, because their totals are left out elsewhere; the totals of all others are known
    known_totals : whether all totals are told elsewhere, so that leaving them out would hide nothing

    Returns
    -------
    (r + 1, c + 1) mask; the last row and column are the totals
    """
    inner = np.asarray(counts, dtype=float)
    wide = np.column_stack([inner, inner.sum(axis=1)])
    full = np.vstack([wide, wide.sum(axis=0)])
    hidden, free = is_small(full, smallest), np.ones(full.shape, bool)
    if hidden_columns is not None:
        hidden[:, :-1] |= np.asarray(hidden_columns, bool)
        free[-1, :-1] = hidden[-1, :-1]
    if known_totals:
        hidden[-1], hidden[:, -1], free[-1], free[:, -1] = False, False, False, False
    while True:
        before = hidden.copy()
        for i in range(full.shape[0]):
            hidden[i] = _completed(full[i], hidden[i], free[i], smallest)
        for j in range(full.shape[1]):
            hidden[:, j] = _completed(full[:, j], hidden[:, j], free[:, j], smallest)
        if (hidden != before).any():
            continue
        alone = next(_bridges(hidden), None)
        if alone is None:
            return hidden
        if not _hide_beside(full, hidden, free, alone):
            hidden[:-1, :-1] = True
            return hidden


def crowds(points: ArrayLike, smallest: int = SMALLEST) -> list[NDArray[np.int64]]:
    """Groups of rows near each other, of `smallest` to 2 smallest - 1 rows, to be drawn as one; none if there are fewer rows.

    Halves of halves along the wider axis, as in Mondrian (LeFevre 2006). With smallest at most 1 every row stands alone.
    """
    given = np.asarray(points, dtype=float)
    scale = np.maximum(np.ptp(given, axis=0), np.finfo(float).tiny) if len(given) else 1.0
    fewest = max(smallest, 1)
    waiting, out = [np.arange(len(given))] if len(given) >= fewest else [], []
    while waiting:
        own = waiting.pop()
        if len(own) < 2 * fewest:
            out.append(own)
            continue
        wide = int((np.ptp(given[own], axis=0) / scale).argmax())
        ordered = own[np.argsort(given[own, wide], kind="stable")]
        waiting += [ordered[: len(own) // 2], ordered[len(own) // 2 :]]
    return out


def _completed(counts: NDArray[np.float64], hidden: Mask, free: Mask, smallest: int) -> Mask:
    """With the smallest further cells, until what is left out of the line is two cells and `smallest` rows."""
    out = hidden.copy()
    if out.any():
        for cell in np.argsort(counts, kind="stable"):
            if out.sum() >= 2 and counts[out].sum() >= smallest:
                break
            out[cell] |= bool(free[cell] and counts[cell] > 0)
    return out


def _hide_beside(full: NDArray[np.float64], hidden: Mask, free: Mask, cell: tuple[int, int]) -> bool:
    """Leave out the smallest cell that is still shown in the row of a cell, or else in its column."""
    beside = np.zeros(full.shape, bool)
    for line in (np.s_[cell[0], :], np.s_[:, cell[1]]):
        beside[:] = False
        beside[line] = True
        beside &= free & ~hidden & (full > 0)
        if beside.any():
            hidden[np.unravel_index(np.where(beside, full, np.inf).argmin(), full.shape)] = True
            return True
    return False


def _bridges(hidden: Mask) -> Iterator[tuple[int, int]]:
    """Cells that are left out but lie on no cycle (Tarjan 1974, without recursion)."""
    rows, columns = hidden.shape
    edges = [(int(i), int(j)) for i, j in np.argwhere(hidden)]
    near: list[list[tuple[int, int]]] = [[] for _ in range(rows + columns)]
    for number, (i, j) in enumerate(edges):
        near[i].append((rows + j, number))
        near[rows + j].append((i, number))
    seen = np.full(rows + columns, -1)
    low = np.zeros(rows + columns, dtype=int)
    clock = 0
    for root in range(rows + columns):
        if seen[root] >= 0:
            continue
        seen[root] = low[root] = clock
        clock += 1
        path = [(root, -1, iter(near[root]))]
        while path:
            node, by, rest = path[-1]
            for other, number in rest:
                if number == by:
                    continue
                if seen[other] < 0:
                    seen[other] = low[other] = clock
                    clock += 1
                    path.append((other, number, iter(near[other])))
                    break
                low[node] = min(low[node], seen[other])
            else:
                path.pop()
                if path:
                    parent = path[-1][0]
                    low[parent] = min(low[parent], low[node])
                    if low[node] > seen[parent]:
                        yield edges[by]
