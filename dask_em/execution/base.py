"""What the engine asks of an executor, and how rows are grouped for it.

A *piece* is what a source reads at once; a *unit* is some consecutive pieces that are encoded together into one or more blocks; a *run* of units
is one task. Pieces and units depend on the data alone. Every function handed to an executor is pure and may run twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol

BLOCK_ROWS = 1 << 17
"""Rows of a block: some tens of milliseconds of work, and a fraction of a percent of overhead."""

ROWS_PER_PATTERN = 512
"""Blocks grow until a missingness pattern has about this many rows: each pattern costs a few small matrix products a block."""


@dataclass(frozen=True)
class Unit:
    """Consecutive pieces, encoded together into the blocks first_block to first_block + n_blocks - 1."""

    pieces: tuple[Any, ...]
    rows: int
    first_block: int
    n_blocks: int


def make_units(pieces: Sequence[Any], piece_rows: Sequence[int], n_patterns: int) -> list[Unit]:
    """Group pieces until they fill a block, and cut larger ones into several."""
    target = max(BLOCK_ROWS, ROWS_PER_PATTERN * n_patterns)
    units: list[Unit] = []
    own: list[Any] = []
    rows = first = 0
    for piece, n in zip(pieces, piece_rows, strict=True):
        own.append(piece)
        rows += n
        if rows + n // 2 >= target:
            units.append(Unit(tuple(own), rows, first, max(1, round(rows / target))))
            first += units[-1].n_blocks
            own, rows = [], 0
    if own or not units:
        units.append(Unit(tuple(own), rows, first, 1))
    return units


def make_runs(sizes: Sequence[int], n: int) -> list[slice]:
    """Cut things of these sizes into at most n consecutive runs, as equal as whole things allow."""
    ends = list(accumulate(sizes))
    if not ends:
        return []
    edges = {0, len(ends)}
    for i in range(1, n):
        target = ends[-1] * i / n
        after = bisect_left(ends, target)
        nearer = after if target - (ends[after - 1] if after else 0) <= ends[after] - target else after + 1
        edges.add(nearer)
    return [slice(a, b) for a, b in pairwise(sorted(edges))]


def itself(value: Any) -> Any:
    """The function that brings a value as it is."""
    return value


class Executor(Protocol):
    """Two verbs over a table, fold and map, in this process or on a cluster.

    `read` turns a piece into rows; it is pure. A handle stands for a value that lives where the work is done.
    """

    def reduce(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> Any:
        """The sum of function(i, piece) over all pieces, in the fixed tree."""

    def open(
        self, units: Sequence[Unit], encode: Callable[[Unit, Sequence[Any]], list[Any]], row_bytes: int = 0
    ) -> Any:
        """Blocks, made from the units by `encode` when first needed; what they need for a row decides where they are kept."""

    def release(self, blocks: Any) -> None:
        """Give back what blocks hold; they are not used again."""

    def put(self, value: Any) -> Any:
        """A handle of a value."""

    def fold(
        self,
        blocks: Any,
        ask: Callable[[Any], Callable[[Any], Any] | None],
        tell: Callable[..., Any],
        state: Any,
        *known: Any,
    ) -> Any:
        """One scan: the handle of tell(state, sum over all blocks of ask(state)(block), *known); what is `known` by its handles stays at the root.

        A block is overwritten by the next one: sums must not hold on to its arrays. Where `ask` returns None there is nothing to scan for, and the state stays as it is.
        """

    def then(self, handle: Any, function: Callable[[Any], Any]) -> Any:
        """The handle of function(value)."""

    def anchor(self, handle: Any) -> Any:
        """The handle of the same value, which no longer hangs on what it was made of."""

    def look(self, handle: Any, function: Callable[[Any], Any]) -> Any:
        """function(value), brought here."""

    def map(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> list[Any]:
        """function(i, piece) for every piece, in order."""

    def write(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> Any:
        """As `reduce`, of a function that leaves something on a disk: the same however often it runs."""

    def remember(self, work: Callable[[], Any]) -> Any:
        """What some work with this executor comes to, or came to before the run was interrupted."""

    def resume(self, start: Any, rank: Callable[[Any], int]) -> Any:
        """The state with the highest rank that was kept of the loop that begins here, or its start."""

    def keep(self, handle: Any) -> None:
        """Keep the state of this loop, for a run that is interrupted."""

    def losses(self) -> dict[str, int]:
        """How many workers were lost since it was opened, and how many results were worked out again for it."""

    def room(self) -> int:
        """Bytes of memory that one thread may take to read and encode a piece."""

    def close(self) -> None:
        """Give back what the executor started itself."""


class Forgetful:
    """What an executor does of a run that nobody will resume."""

    def write(self, pieces: Sequence[Any], function: Callable[[int, Any], Any]) -> Any:
        """As `reduce`."""
        return self.reduce(pieces, function)  # type: ignore[attr-defined]

    def remember(self, work: Callable[[], Any]) -> Any:
        """Do it."""
        return work()

    def resume(self, start: Any, rank: Callable[[Any], int]) -> Any:
        """Begin."""
        return start

    def keep(self, handle: Any) -> None:
        """Keep nothing."""

    def losses(self) -> dict[str, int]:
        """None."""
        return {"workers_lost": 0, "results_made_again": 0}
