"""Identical rows are one row with a weight: a table collapsed to its distinct rows, in one scan and without loss.

    rows -> words (see packing) -> sorted, each once, and for each the sum of the row weights, and of those in every replicate

EM needs of a row what it holds and how much it weighs, so a fit to the distinct rows is the fit to all of them. They come in the order of their words, whatever the order and the pieces of the table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dask_em.data import columns as col
from dask_em.data.gather import Bootstrap
from dask_em.data.keys import row_keys
from dask_em.data.packing import Layout
from dask_em.data.profile import SAMPLE_ROWS, Profile, weighted_rows
from dask_em.data.reading import prepared
from dask_em.data.schema import Design, Schema
from dask_em.data.sources import Source, cuts
from dask_em.errors import ConfigurationError, DataError
from dask_em.randomness import Words

Compress = Literal["auto"] | bool

MIN_ROWS = SAMPLE_ROWS
"""Smaller tables are scanned in a millisecond, whatever they hold."""

SHARE = 4
"""Rows are collapsed where at least four of them are alike on average. A row takes 15 to 20 ns to collapse (numbers with fractions 90, text 170), 20 to 250 ns to encode, and some 20 ns in every
step of EM. With a quarter of the rows left to encode and scan, that is won back at once, and by the seventh step where it takes longest."""

MAX_BYTES = 1 << 28
"""Distinct rows may take 256 MB, because they meet in one process."""

PILE_BYTES = 1 << 25
"""Rows of several parts of the table that are kept apart: 32 MB."""

log = logging.getLogger("dask_em")


@dataclass(frozen=True)
class Distinct:
    """Distinct rows in the order of their words, with their weights.

    Attributes
    ----------
    words : (W, n)
    weights : (1 + replicates, n) sums of the row weights, and of those in every replicate
    """

    words: Words
    weights: NDArray[np.float64]

    @staticmethod
    def of(words: Words, vectors: Iterable[NDArray[np.float64]]) -> Distinct:
        """Equal rows become one, with the sums of their entries in every vector of weights."""
        order = np.argsort(words[0])
        ordered = words[:, order]
        new = _unlike(ordered[0])
        if len(words) > 1 and (_unlike(*ordered[1:]) & ~new).any():
            # Different rows have the same hash, and equal ones need not stand side by side.
            order = np.lexsort(words[::-1])
            ordered = words[:, order]
            new = _unlike(*ordered)
        first = np.flatnonzero(new)
        return Distinct(ordered[:, first], np.array([np.add.reduceat(v[order], first) for v in vectors]))

    @staticmethod
    def counted(rows: NDArray[np.unsignedinteger]) -> Distinct:
        """Rows of one word that all weigh 1, sorted where they are: with nothing to carry along, that takes a third of the time."""
        rows.sort()
        first = np.flatnonzero(_unlike(rows))
        words, counts = rows[first], np.diff(first, append=len(rows))
        return Distinct(words[None].astype(np.uint64), counts[None].astype(np.float64))

    @staticmethod
    def merged(parts: Sequence[Distinct]) -> Distinct:
        """The distinct rows of several tables. Looking up single words takes a third of the memory that sorting them with their weights does."""
        words = np.concatenate([p.words for p in parts], axis=1)
        if len(words) > 1:
            return Distinct.of(words, np.concatenate([p.weights for p in parts], axis=1))
        (words,) = words
        words.sort()
        words = words[_unlike(words)]
        weights = np.zeros((len(parts[0].weights), len(words)))
        for p in parts:
            weights[:, np.searchsorted(words, p.words[0])] += p.weights
        return Distinct(words[None], weights)

    def __len__(self) -> int:
        return self.words.shape[1]

    @property
    def nbytes(self) -> int:
        return self.words.nbytes + self.weights.nbytes

    def pieces(self, layout: Layout) -> tuple[DistinctPiece, ...]:
        """The rows as pieces of a table."""
        return tuple(
            DistinctPiece(layout, self.words[:, a:b], self.weights[:, a:b], ("", a)) for a, b in cuts(len(self))
        )


def _unlike(*words: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """(n,) whether a row differs from the one before it."""
    out = np.ones(len(words[0]), dtype=bool)
    np.not_equal(words[0][1:], words[0][:-1], out=out[1:])
    for own in words[1:]:
        out[1:] |= own[1:] != own[:-1]
    return out


@dataclass(frozen=True)
class Pile:
    """The rows of several parts of a table; adds up. They are put together where there are many, for one sort of many rows costs less than many of few, and before they travel.

    Attributes
    ----------
    distinct : of each part
    rows : words of further parts, of 32 or 64 bits, for rows that take one word and weigh 1
    """

    distinct: tuple[Distinct, ...] = ()
    rows: tuple[NDArray[np.unsignedinteger], ...] = ()

    def __add__(self, other: Pile) -> Pile:
        both = Pile(self.distinct + other.distinct, self.rows + other.rows)
        size = sum(part.nbytes for part in both.distinct) + sum(part.nbytes for part in both.rows)
        return both if size < PILE_BYTES else Pile((both.together(),))

    def together(self) -> Distinct:
        """The distinct rows of all parts."""
        parts = (*self.distinct, Distinct.counted(np.concatenate(self.rows))) if self.rows else self.distinct
        return parts[0] if len(parts) == 1 else Distinct.merged(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pile, ((self.together(),),)


@dataclass(frozen=True)
class DistinctPiece:
    """Some of the distinct rows, as a piece of a table with a column of weights."""

    layout: Layout
    words: Words
    weights: NDArray[np.float64]
    origin: tuple[str, int]

    def read(self, columns: Sequence[str]) -> pa.Table:
        table = self.layout.unpack(self.words).append_column(col.WEIGHT, pa.array(self.weights[0]))
        return table.select(list(columns))

    @property
    def counts(self) -> NDArray[np.float64]:
        """(replicates, n) how often a row counts in each replicate, on average over the rows that it stands for."""
        return self.weights[1:] / self.weights[0]


@dataclass(frozen=True)
class Collapsed:
    """A table of distinct rows: its pieces, the schema that encodes them, and how many they are."""

    pieces: tuple[DistinctPiece, ...]
    schema: Schema
    rows: int


def collapse(
    source: Source,
    schema: Schema,
    found: Profile,
    bootstrap: Bootstrap,
    compress: Compress,
    n_labels: int,
    reduce: Callable[..., Pile],
) -> Collapsed | None:
    """Collapse a profiled table to its distinct rows, in one scan, where that pays or is asked for.

    Parameters
    ----------
    bootstrap : replicates of the rows, whose weights are carried along
    compress : "auto" for the rule of MIN_ROWS, SHARE and MAX_BYTES; True where only MAX_BYTES counts; False for never
    n_labels : how many starting labels there are, if the design has a column of them: it is one more that tells rows apart
    reduce : (pieces, function) -> the sum of function(i, piece)

    Raises
    ------
    ConfigurationError
        It is asked for, and the distinct rows would need too much memory.
    DataError
        The table is not what was profiled.
    """
    if compress is False:
        return None
    layout = Layout.of(schema, found)
    rows = min(found.n_distinct * (1 if schema.design.labels is None else n_labels), found.rows)
    size = rows * 8 * (layout.n_words + 1 + bootstrap.n_replicates)
    if compress is True and size > MAX_BYTES:
        raise ConfigurationError(
            f"compress=True would hold about {rows:,.0f} distinct rows in memory, more than {MAX_BYTES >> 20} MB: leave compress at 'auto'"
        )
    if compress == "auto" and (found.rows < MIN_ROWS or SHARE * rows > found.rows or size > MAX_BYTES):
        if found.rows >= MIN_ROWS:
            log.info("about %s distinct rows of %s: not collapsed", f"{rows:,.0f}", f"{found.rows:,}")
        return None
    distinct = reduce(source.pieces, partial(_distinct_rows, layout, bootstrap)).together()
    if not np.isclose(distinct.weights[0].sum(), found.weight, rtol=1e-9):
        raise DataError(f"{source.where} has changed since it was first read: leave it as it is while it is fitted")
    n = len(distinct)
    log.info("%s distinct rows of %s: collapsed (%.3g to 1)", f"{n:,}", f"{found.rows:,}", found.rows / n)
    return Collapsed(distinct.pieces(layout), replace(schema, design=_collapsed_design(schema.design)), n)


def _collapsed_design(design: Design) -> Design:
    """Of rows whose cells that were not asked are missing, and whose predictors are columns of 0 and 1, already."""
    return replace(design, universe=(), indicators=(), weight=col.WEIGHT)


def _distinct_rows(layout: Layout, bootstrap: Bootstrap, i: int, piece: Any) -> Pile:
    """The distinct rows of a piece. Its columns are taken as they stand: to make float64 of small integers would cost more than to sort them."""
    design = layout.design
    table = prepared(piece.read(tuple(dict.fromkeys((*design.columns, *bootstrap.key)))), design)
    kept, weight = weighted_rows(table, design)
    words = layout.pack(kept)
    if not bootstrap.n_replicates:
        if design.weight is None and len(words) == 1:
            return Pile(rows=(words[0],))
        return Pile((Distinct.of(words, [weight]),))
    keys = row_keys(table, bootstrap.key, piece.origin)
    if design.weight is not None:
        keys = keys[col.numeric(table, design.weight) > 0]
    return Pile((Distinct.of(words, chain([weight], (own * weight for own in bootstrap.counts(keys)))),))
