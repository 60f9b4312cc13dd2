"""The profile scan: what must be known of a table before it can be encoded.

Rows and weights, count, mean and spread of numbers, levels of categories, missingness patterns, and a sketch of the distinct rows: the rows with
the smallest hashes of their contents, with summed weights. The sketch is at once a count of distinct rows (exact while it is not full,
Bar-Yossef et al. 2002 beyond) and the sample on which fits are seeded; because it depends on contents alone, neither the order of rows nor how they
are split nor whether they are repeated or weighted changes it.

Profiles of disjoint rows merge with +; means and spreads by Chan, Golub and LeVeque (1983).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dask_em.data import columns as col
from dask_em.data.pins import Marks
from dask_em.data.schema import Design, Level
from dask_em.errors import DataError

SAMPLE_ROWS = 16384
"""Distinct rows kept as the sample: a few megabytes for tens of columns."""

NAMED_ROWS = 1024
"""Distinct rows whose component is known that are kept beside it."""

MAX_PATTERNS = 8192
"""More missingness patterns than this are not listed: each block then keeps its own."""

PROBE = 256
"""Cells that are looked at first where all would be looked at."""

MAX_LEVELS = 1000
"""A category with more levels is an identifier or a number."""


Range = tuple[float, float] | None


@dataclass(frozen=True)
class Moments:
    """Weight, mean and sum of squared deviations of a column's observed cells, and how many there are."""

    count: int
    weight: float
    mean: float
    m2: float

    @staticmethod
    def of(values: NDArray[np.float64], weight: NDArray[np.float64]) -> Moments:
        missing = np.isnan(values)
        count = len(values) - int(np.count_nonzero(missing))
        if not count:
            return Moments(0, 0.0, 0.0, 0.0)
        total = float(weight.sum()) if count == len(values) else float(weight @ ~missing)
        # Shift by one value before averaging, so that a far column loses no digits.
        first = float(values[np.argmin(missing)])
        mean = first + float(weight @ _about(values, first, missing)) / total
        centred = _about(values, mean, missing)
        with np.errstate(over="ignore"):  # refused by name, once all rows are known
            return Moments(count, total, mean, float(weight @ np.square(centred, out=centred)))

    def __add__(self, other: Moments) -> Moments:
        if not (self.count and other.count):
            return self if self.count else other
        total, delta = self.weight + other.weight, other.mean - self.mean
        mean = self.mean + delta * other.weight / total
        m2 = self.m2 + other.m2 + delta * delta * self.weight * other.weight / total
        return Moments(self.count + other.count, total, mean, m2)

    @property
    def deviation(self) -> float:
        """Standard deviation, divisor n."""
        return float(np.sqrt(self.m2 / self.weight)) if self.weight else 0.0


def _about(values: NDArray[np.float64], centre: float, missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """values - centre, 0 where missing."""
    out = values - centre
    np.copyto(out, 0.0, where=missing)
    return out


@dataclass(frozen=True)
class Profile:
    """What a scan found.

    Attributes
    ----------
    piece_rows : rows of each piece, in order
    rows, weight : rows with a positive weight, and their total weight
    moments : by column: gaussian columns after their transform, counts, successes; trials under "trials of <column>"
    levels : by categorical or ordered column, level -> weight
    patterns : masks of observed gaussian columns, as bytes; None where there are too many
    sample : the distinct rows with the smallest hashes, columns "#hash" and "#weight" beside their contents
    ranges : by column of numbers, the smallest and the largest cell; None where some are not whole
    named : as the sample, of the rows whose component is known, if the design has such: a few of them are enough to start from
    marks : of what was read of each piece, in order
    """

    piece_rows: tuple[int, ...]
    rows: int
    weight: float
    moments: dict[str, Moments]
    levels: dict[str, dict[Level, float]]
    patterns: frozenset[bytes] | None
    sample: pa.Table
    ranges: dict[str, Range]
    named: pa.Table | None = None
    marks: tuple[Marks, ...] = ({},)

    def __add__(self, other: Profile) -> Profile:
        patterns = None
        if self.patterns is not None and other.patterns is not None:
            patterns = self.patterns | other.patterns
            patterns = patterns if len(patterns) <= MAX_PATTERNS else None
        return Profile(
            self.piece_rows + other.piece_rows,
            self.rows + other.rows,
            self.weight + other.weight,
            {name: m + other.moments[name] for name, m in self.moments.items()},
            {name: _merge_levels(name, a, other.levels[name]) for name, a in self.levels.items()},
            patterns,
            _smallest(_together(self.sample, other.sample)),
            {name: _merge_ranges(own, other.ranges[name]) for name, own in self.ranges.items()},
            None if self.named is None else _smallest(_together(self.named, other.named), NAMED_ROWS),
            self.marks + other.marks,
        )

    @property
    def starting(self) -> pa.Table:
        """The rows from which starts are made: the sample, and rows whose component is known, even if few are."""
        if self.named is None or len(self.sample) < SAMPLE_ROWS:
            return self.sample
        largest = self.sample.column("#hash")[-1]
        return _together(self.sample, self.named.filter(pc.greater(self.named.column("#hash"), largest)))

    @property
    def n_distinct(self) -> float:
        """Distinct rows: exact below the size of the sample, estimated from the largest hash kept above."""
        kept = len(self.sample)
        if kept < SAMPLE_ROWS:
            return kept
        largest = int(self.sample.column("#hash")[kept - 1].as_py())
        return (kept - 1) / (largest / 2.0**64)

    def masks(self, n_columns: int) -> NDArray[np.bool_] | None:
        """The patterns as a (P, d) table of observed columns, fewest missing first."""
        if self.patterns is None:
            return None
        rows = [np.frombuffer(p, dtype=bool) for p in sorted(self.patterns)]
        table = np.array(rows, dtype=bool).reshape(len(rows), n_columns)
        return table[np.argsort((~table).sum(axis=1), kind="stable")]


def profile(table: pa.Table, design: Design, marks: Marks | None = None) -> Profile:
    """Profile some rows, of which there may be marks, checking every cell that the model will use.

    Raises
    ------
    DataError
        A column is missing, of the wrong kind, or holds what its family cannot take.
    """
    design.check(table.column_names, "the table")
    piece_rows = table.num_rows
    table, weight = weighted_rows(table, design)
    moments: dict[str, Moments] = {}
    ranges: dict[str, Range] = {}
    words: list[NDArray[np.uint64]] = []
    seen = np.empty((len(design.gaussian), table.num_rows), dtype=bool)
    levels = {}
    for i, name in enumerate(design.gaussian):
        if design.levels(name) is not None:
            array = col.category(table, name)
            levels[name], own = _levels(name, array, weight)
            words.append(own)
            seen[i] = array.is_valid().to_numpy(zero_copy_only=False)
            continue
        raw = col.within(col.numeric(table, name), name, dict(design.bounds).get(name))
        values, _ = col.transformed(raw, name, design.transform(name))
        moments[name] = Moments.of(values, weight)
        ranges[name] = _range(raw)
        words.append(col.words(raw))
        np.logical_not(np.isnan(raw), out=seen[i])
    for name in design.categorical:
        levels[name], own = _levels(name, col.category(table, name), weight)
        words.append(own)
    for name in design.poisson:
        values = col.count(table, name)
        moments[name] = Moments.of(values, weight)
        ranges[name] = _range(values)
        words.append(col.words(values))
    for name, trials in design.binomial:
        successes, n = binomial(table, name, trials)
        both = ~np.isnan(successes) & ~np.isnan(n)
        moments[name] = Moments.of(np.where(both, successes, np.nan), weight)
        moments[trials_of(name)] = Moments.of(np.where(both, n, np.nan), weight)
        ranges[name] = _range(successes)
        if isinstance(trials, str):
            ranges[trials] = _range(n)
        words += [col.words(successes), col.words(n)]
    hashes = col.row_hash(words, table.num_rows)
    sample = table.select([c for c in design.columns if c not in (design.weight, design.labels)])
    sample = pa.table([col.plain(c) for c in sample.columns], names=sample.column_names)
    sample = sample.append_column("#hash", pa.array(hashes)).append_column("#weight", pa.array(weight))
    return Profile(
        (piece_rows,),
        table.num_rows,
        float(weight.sum()),
        moments,
        levels,
        _patterns(seen) if design.pattern else frozenset([np.ones(len(design.gaussian), bool).tobytes()]),
        _smallest(sample),
        ranges,
        None
        if design.known is None
        else _smallest(sample.filter(pc.is_valid(sample.column(design.known))), NAMED_ROWS),
        (marks or {},),
    )


def weighted_rows(table: pa.Table, design: Design) -> tuple[pa.Table, NDArray[np.float64]]:
    """The rows with a positive weight, and their weights. A row of weight 0 is as if it were not there."""
    if design.weight is None:
        return table, np.ones(table.num_rows)
    weight = col.numeric(table, design.weight)
    if np.isnan(weight).any():
        raise DataError("the row weights hold missing values: give every row a weight, 0 to leave it out")
    if (weight < 0).any():
        raise DataError("the row weights hold negative numbers: weights must be 0 or more")
    keep = weight > 0
    return (table, weight) if keep.all() else (table.filter(pa.array(keep)), weight[keep])


def binomial(table: pa.Table, name: str, trials: str | int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Successes and trials of a binomial column."""
    successes = col.count(table, name)
    n = col.count(table, trials) if isinstance(trials, str) else np.full(len(successes), float(trials))
    with np.errstate(invalid="ignore"):
        if (successes > n).any():
            raise DataError(f"column {name!r} holds more successes than trials: check the number of trials")
    return successes, n


def trials_of(name: str) -> str:
    """Under which name the profile keeps the trials that belong to a column of successes."""
    return f"trials of {name}"


def _levels(name: str, array: pa.Array, weight: NDArray[np.float64]) -> tuple[dict[Level, float], NDArray[np.uint64]]:
    """Weight of each level, and a 64-bit word for each row that depends on its level alone."""
    if pa.types.is_null(array.type):
        return {}, np.zeros(len(array), dtype=np.uint64)
    encoded = array.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if len(values) > MAX_LEVELS:
        raise _too_many(name)
    codes = pc.fill_null(encoded.indices, len(values)).to_numpy(zero_copy_only=False)
    totals = np.bincount(codes, weights=weight, minlength=len(values) + 1)
    word = pd.util.hash_array(np.array([repr(v) for v in values], dtype=object), categorize=False)
    return dict(zip(values, totals.tolist())), np.append(word, np.uint64(0))[codes]


def _range(values: NDArray[np.float64]) -> Range:
    """Smallest and largest of whole numbers, (inf, -inf) where there are none; None where some are not whole."""
    for some in (values[:PROBE], values):  # most columns that are not whole say so at once
        seen = some[~np.isnan(some)] if np.isnan(some).any() else some
        if (np.rint(seen) != seen).any():
            return None
    return float(seen.min(initial=np.inf)), float(seen.max(initial=-np.inf))


def _merge_ranges(a: Range, b: Range) -> Range:
    return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))


def _merge_levels(name: str, a: dict[Level, float], b: dict[Level, float]) -> dict[Level, float]:
    if len({type(level) for level in (*a, *b)}) > 1:
        raise DataError(f"column {name!r} has different types in different parts of the table: give it one type")
    merged = dict(a)
    for level, weight in b.items():
        merged[level] = merged.get(level, 0.0) + weight
    if len(merged) > MAX_LEVELS:
        raise _too_many(name)
    return merged


def _too_many(name: str) -> DataError:
    return DataError(
        f"column {name!r} has more than {MAX_LEVELS} levels, which is an identifier or a number rather than a category: "
        "leave it out or group it"
    )


def pattern_groups(seen: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Distinct columns of a (d, n) mask as rows of a (P, d) table, and which one each row of data has."""
    d, n = seen.shape
    if d <= 16:
        # Few enough to be counted instead of sorted.
        key = np.zeros(n, dtype=np.int32)
        for j, row in enumerate(seen):
            key |= row.astype(np.int32) << j
        present = np.flatnonzero(np.bincount(key, minlength=1 << d))
        place = np.zeros(1 << d, dtype=np.int64)
        place[present] = np.arange(len(present))
        return (present[:, None] >> np.arange(d)) & 1 == 1, place[key]
    packed = np.packbits(seen, axis=0)
    _, first, which = np.unique(packed, axis=1, return_index=True, return_inverse=True)
    return np.ascontiguousarray(seen[:, first].T), which.reshape(-1)


def _patterns(seen: NDArray[np.bool_]) -> frozenset[bytes] | None:
    if seen.all():
        return frozenset([np.ones(len(seen), bool).tobytes()] if seen.shape[1] else [])
    table, _ = pattern_groups(seen)
    return frozenset(row.tobytes() for row in table) if len(table) <= MAX_PATTERNS else None


def _together(a: pa.Table, b: Any) -> pa.Table:
    return pa.concat_tables([a, b], promote_options="permissive")


def _smallest(sample: pa.Table, rows: int | None = None) -> pa.Table:
    """Merge equal rows, adding their weights, and keep as many as a sample has, or fewer, with the smallest hashes."""
    rows = SAMPLE_ROWS if rows is None else rows
    hashes = sample.column("#hash").to_numpy()
    weight = sample.column("#weight").to_numpy()
    # Hashes are even, so those below a bound are enough where rows differ; where many are alike, all have to be sorted.
    bound = np.uint64(min(1.2 * rows / max(len(hashes), 1), 1.0) * (2**64 - 2**11))
    near = np.flatnonzero(hashes <= bound)
    kept, first, inverse = np.unique(hashes[near], return_index=True, return_inverse=True)
    if len(kept) < rows and len(near) < len(hashes):
        near = np.arange(len(hashes))
        kept, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    totals: Any = np.bincount(inverse, weights=weight[near], minlength=len(kept))
    few = slice(0, rows)
    out = sample.take(pa.array(near[first[few]]))
    return out.set_column(out.column_names.index("#weight"), "#weight", pa.array(totals[few]))
