"""Identical rows are one row with a weight: a table collapsed to its distinct rows, in one scan and without loss.

    row  ->  words      its cells as digits of mixed radix, code_1 + size_1 (code_2 + size_2 (...)), as many as 64 bits hold
    sort ->  the distinct words in their order, and for each the sum of the row weights, and of those in every replicate

EM needs of a row what it holds and how much it weighs, so a fit to the distinct rows is the fit to all of them. Whole numbers and categories, whose ranges and levels the profile knows, are digits;
another number takes a word for itself. Where rows take several words, a hash of them goes in front: it makes sorting fast, while rows are told apart by all their words.
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
import pyarrow.compute as pc
from numpy.typing import NDArray

from dask_em.data import columns as col
from dask_em.data.encode import codes_of
from dask_em.data.gather import Bootstrap
from dask_em.data.keys import row_keys
from dask_em.data.profile import SAMPLE_ROWS, Profile, weighted_rows
from dask_em.data.reading import prepared
from dask_em.data.schema import Design, Level, Schema
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

MAX_SIZE = 1 << 40
"""A number with a wider range takes a word for itself, as one that is not whole does: there is little room beside it."""

MAX_LEVEL = 1 << 20
"""Integers that are levels may be as far apart as this to be digits: a wider digit would leave other columns less room than their number does."""

PILE_BYTES = 1 << 25
"""Rows of several parts of the table that are kept apart: 32 MB."""

logger = logging.getLogger("dask_em")


@dataclass(frozen=True)
class Column:
    """How the cells of a column are written.

    Attributes
    ----------
    name : of the column
    size : number of different digits, the last of which is a missing cell; 0 for a word of its own, the bits of a float64
    low : the number whose digit is 0
    levels : of a category, whose digits are their places
    """

    name: str
    size: int = 0
    low: int = 0
    levels: tuple[Level, ...] | None = None

    @staticmethod
    def of_levels(name: str, levels: tuple[Level, ...]) -> Column:
        return Column(name, len(levels) + 1, levels=levels)

    @staticmethod
    def of_category(name: str, levels: tuple[Level, ...]) -> Column:
        """Levels that are small integers are their own digits, and need not be looked up."""
        numbers = [level for level in levels if type(level) is int]
        whole = Column.of_range(name, (min(numbers), max(numbers)) if len(numbers) == len(levels) else None)
        return whole if 0 < whole.size <= MAX_LEVEL else Column.of_levels(name, levels)

    @staticmethod
    def of_range(name: str, found: tuple[float, float] | None) -> Column:
        if found is None or not 0 <= found[1] - found[0] < MAX_SIZE or max(map(abs, found)) > 2**53:
            return Column(name)
        return Column(name, int(found[1] - found[0]) + 2, int(found[0]))

    def digits(self, table: pa.Table, unseen: str) -> NDArray[np.int64]:
        """(n,) digit of every cell."""
        missing = self.size - 1
        if self.levels is not None:
            codes = codes_of(table, self.name, self.levels, unseen).astype(np.int64)
            codes[codes < 0] = missing
            return codes
        array = col.plain(table.column(self.name))
        if pa.types.is_integer(array.type):
            digits = pc.fill_null(array, 0).to_numpy(zero_copy_only=False).astype(np.int64)
            digits -= self.low
            holes = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
        else:
            values = col.numeric(table, self.name) - self.low
            holes = np.isnan(values)
            values[holes] = missing
            digits = values.astype(np.int64)
            if (digits != values).any():
                raise changed(self.name)
        if holes is not None:
            digits[holes] = missing
        if digits.min(initial=0) < 0 or digits.max(initial=0) > missing:
            raise changed(self.name)
        return digits

    def cells(self, digits: Words) -> pa.Array:
        """What was written, as `read_rows` would give it; NaN is a missing number."""
        missing = digits == self.size - 1
        if self.levels is None:
            return pa.array(np.where(missing, np.nan, digits.astype(np.float64) + self.low))
        return pa.array(self.levels).take(pa.array(digits.astype(np.int64), mask=missing))


def changed(name: str) -> DataError:
    """What is said where a scan meets cells that the profile has not seen."""
    return DataError(
        f"column {name!r} has changed since the table was first read: leave the table as it is while it is fitted"
    )


@dataclass(frozen=True)
class Layout:
    """How the rows of a design are written as words.

    Attributes
    ----------
    design : of the rows as they stand in the table
    words : the columns that share each word
    """

    design: Design
    words: tuple[tuple[Column, ...], ...]

    @staticmethod
    def of(schema: Schema, found: Profile) -> Layout:
        """As few words as hold the columns of a profiled table, in their order."""
        design = schema.design
        categories = {name: Column.of_levels(name, levels) for name, levels in design.ordered}
        categories |= {name: Column.of_category(name, own) for name, own in zip(design.categorical, schema.levels)}
        trials = (t for _, t in design.binomial if isinstance(t, str))
        labels = () if design.labels is None else (design.labels,)
        names = (*design.gaussian, *design.categorical, *design.poisson, *(s for s, _ in design.binomial), *trials)
        words: list[list[Column]] = []
        filled = 0
        for name in dict.fromkeys((*names, *labels)):
            column = categories.get(name) or Column.of_range(name, found.ranges.get(name))
            if column.size == 0:
                words.insert(0, [column])
                continue
            filled *= column.size
            if not 0 < filled < 2**63:
                words.append([])
                filled = column.size
            words[-1].append(column)
        return Layout(design, tuple(map(tuple, words)))

    @property
    def n_words(self) -> int:
        return len(self.words) + (len(self.words) > 1)

    def pack(self, table: pa.Table) -> Words:
        """(W, n) words of the rows, with a hash of them in front where there are several."""
        own = [self._word(table, columns) for columns in self.words]
        return np.stack(own if len(own) == 1 else [row_hash(own), *own])

    def _word(self, table: pa.Table, columns: Sequence[Column]) -> Words:
        if columns[0].size == 0:
            return col.words(col.numeric(table, columns[0].name))
        out = columns[-1].digits(table, self.design.unseen)
        for column in reversed(columns[:-1]):
            out *= column.size
            out += column.digits(table, self.design.unseen)
        return out.view(np.uint64)

    def unpack(self, words: Words) -> pa.Table:
        """The rows that were packed, as `read_rows` would give them."""
        own: dict[str, pa.Array] = {}
        for word, columns in zip(words[-len(self.words) :], self.words):
            if columns[0].size == 0:
                own[columns[0].name] = pa.array(word.view(np.float64))
                continue
            for column in columns:
                word, digits = np.divmod(word, np.uint64(column.size))
                own[column.name] = column.cells(digits)
        return pa.table(own)


def row_hash(words: Sequence[Words]) -> Words:
    """What rows of several words are sorted by; it need not tell them apart."""
    return col.row_hash(list(words), len(words[0]))


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
        if (
            len(words) > 1 and (_unlike(*ordered[1:]) & ~new).any()
        ):  # rows with the same hash: they need not stand side by side
            order = np.lexsort(words[::-1])
            ordered = words[:, order]
            new = _unlike(*ordered)
        first = np.flatnonzero(new)
        return Distinct(ordered[:, first], np.array([np.add.reduceat(v[order], first) for v in vectors]))

    @staticmethod
    def counted(rows: Words) -> Distinct:
        """Rows of one word that all weigh 1: with nothing to carry along, sorting takes a third of the time."""
        ordered = np.sort(rows)
        first = np.flatnonzero(_unlike(ordered))
        return Distinct(ordered[None, first], np.diff(first, append=len(ordered))[None].astype(np.float64))

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


def _unlike(*words: Words) -> NDArray[np.bool_]:
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
    rows : words of further parts, for rows that take one word and weigh 1
    """

    distinct: tuple[Distinct, ...] = ()
    rows: tuple[NDArray[np.uint64], ...] = ()

    def __add__(self, other: Pile) -> Pile:
        both = Pile(self.distinct + other.distinct, self.rows + other.rows)
        size = sum(part.nbytes for part in both.distinct) + sum(part.nbytes for part in both.rows)
        return both if size < PILE_BYTES else Pile((both.together(),))

    def together(self) -> Distinct:
        """The distinct rows of all parts."""
        parts = (*self.distinct, Distinct.counted(np.concatenate(self.rows))) if self.rows else self.distinct
        if len(parts) == 1:
            return parts[0]
        words, weights = (np.concatenate([getattr(p, name) for p in parts], axis=1) for name in ("words", "weights"))
        return Distinct.of(words, weights)

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
            logger.info("about %s distinct rows of %s: not collapsed", f"{rows:,.0f}", f"{found.rows:,}")
        return None
    distinct = reduce(source.pieces, partial(_distinct_rows, layout, bootstrap)).together()
    if not np.isclose(distinct.weights[0].sum(), found.weight, rtol=1e-9):
        raise DataError(f"{source.where} has changed since it was first read: leave it as it is while it is fitted")
    n = len(distinct)
    logger.info("%s distinct rows of %s: collapsed (%.3g to 1)", f"{n:,}", f"{found.rows:,}", found.rows / n)
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
