"""Rows as words of 64 bits, so that equal rows are found by sorting integers.

    word = digit_1 + size_1 (digit_2 + size_2 (...))        as many columns to a word as fit

Whole numbers and categories, whose ranges and levels the profile knows, are digits of mixed radix, the last digit of each being a missing cell; another number takes a word for itself, its bits.
Where rows take several words, a hash of them goes in front: what rows are sorted by, while they are told apart by all their words. Everything can be read back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dask_em.data import columns as col
from dask_em.data.encode import codes_of
from dask_em.data.profile import Profile
from dask_em.data.schema import Design, Level, Schema
from dask_em.errors import DataError
from dask_em.randomness import Words

MAX_SIZE = 1 << 40
"""A number with a wider range takes a word for itself, as one that is not whole does: there is little room beside it."""

MAX_LEVEL = 1 << 20
"""Integers that are levels may be as far apart as this to be digits: a wider digit would leave other columns less room than their number does."""


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
