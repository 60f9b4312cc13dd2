"""Segments after the fit: who is in them, and which of last month's they are.

The profile of segments is a sum over rows, so it is gathered like everything else, piece by piece: for a number its weight, sum and
sum of squares in every segment, for a category the weight of every level. Numbers that rest on fewer than ten rows are left out, since
they could describe a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from dask_em.data import columns as col
from dask_em.data.profile import Profile
from dask_em.data.sources import Source, open_source
from dask_em.errors import DataError
from dask_em.execution.base import Executor
from dask_em.scoring import Scorer

MINIMUM_ROWS = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SegmentSums:
    """Sums over rows by segment; those of disjoint rows add up.

    Attributes
    ----------
    size : (k,) rows in each segment
    outliers : (k,) rows flagged as outliers
    numbers : {column: (k, 3)} rows with a value, sum and sum of squares about the column's centre
    levels : {column: {level: (k,) rows}}
    centres : {column: value near its mean, about which squares are summed}
    """

    size: Floats
    outliers: Floats
    numbers: dict[str, Floats]
    levels: dict[str, dict[Any, Floats]]
    centres: dict[str, float]

    def __add__(self, other: SegmentSums) -> SegmentSums:
        levels = {}
        for name, own in self.levels.items():
            merged = dict(own)
            for level, rows in other.levels[name].items():
                merged[level] = merged[level] + rows if level in merged else rows
            levels[name] = merged
        numbers = {name: a + other.numbers[name] for name, a in self.numbers.items()}
        return SegmentSums(self.size + other.size, self.outliers + other.outliers, numbers, levels, self.centres)

    def sizes(self, segments: Sequence[int]) -> pd.DataFrame:
        """One row a segment: rows, share of all, outliers."""
        frame = pd.DataFrame(
            {"segment": list(segments), "rows": self.size.astype(int), "outliers": self.outliers.astype(int)}
        )
        frame.insert(2, "share", self.size / self.size.sum())
        return frame

    def table(self, segments: Sequence[int]) -> pd.DataFrame:
        """One row per column, level (null for numbers) and segment.

        Columns: size and missing share of the segment; mean and z = (mean - mean of all) / standard deviation of all for
        numbers; share and lift = share / share of all for levels; overall, the mean or share among all.
        """
        rows = [
            {"segment": segment, "size": self.size[j], **cell}
            for j, segment in enumerate(segments)
            for cell in (*self._number_cells(j), *self._level_cells(j))
        ]
        frame = pd.DataFrame(
            rows, columns=["column", "level", "segment", "size", "missing", "mean", "share", "overall", "lift", "z"]
        )
        order = {name: i for i, name in enumerate((*self.numbers, *self.levels))}
        return frame.sort_values("column", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)

    def _number_cells(self, j: int) -> list[dict[str, Any]]:
        cells = []
        for name, sums in self.numbers.items():
            n, first, second = sums.sum(axis=0)
            cell: dict[str, Any] = {"column": name}
            if sums[j, 0] >= MINIMUM_ROWS:
                overall, mean = self.centres[name] + first / n, self.centres[name] + sums[j, 1] / sums[j, 0]
                spread = np.sqrt(max(second / n - (first / n) ** 2, 0.0))
                cell |= {"missing": 1 - sums[j, 0] / self.size[j], "mean": mean, "overall": overall}
                cell["z"] = (mean - overall) / spread if spread > 0 else np.nan
            cells.append(cell)
        return cells

    def _level_cells(self, j: int) -> list[dict[str, Any]]:
        cells = []
        for name, levels in self.levels.items():
            known = np.sum(list(levels.values()), axis=0)
            for level in sorted(levels, key=str):
                cell: dict[str, Any] = {"column": name, "level": str(level)}
                if known[j] >= MINIMUM_ROWS:
                    share, overall = levels[level][j] / known[j], levels[level].sum() / known.sum()
                    cell |= {"missing": 1 - known[j] / self.size[j], "share": share, "overall": overall}
                    cell["lift"] = share / overall
                cells.append(cell)
        return cells


def segment_sums(
    table: pa.Table, which: NDArray[np.int64], k: int, centres: Mapping[str, float], categories: Sequence[str]
) -> SegmentSums:
    """The sums of some rows.

    Parameters
    ----------
    table : the rows
    which : (n,) the segment of each row, 0 to k - 1
    centres : a value near the middle of every column of numbers: squares about it lose no digits
    categories : columns whose levels are counted
    """

    def count(rows: NDArray[np.int64], weights: Floats | None = None) -> Floats:
        return np.bincount(rows, weights, minlength=k).astype(np.float64)

    numbers = {}
    for name, centre in centres.items():
        values = col.numeric(table, name) - centre
        seen = ~np.isnan(values)
        own, values = which[seen], values[seen]
        numbers[name] = np.stack([count(own), count(own, values), count(own, values**2)], axis=1)
    levels = {}
    for name in categories:
        array = col.category(table, name).dictionary_encode()
        codes = pc.fill_null(array.indices, -1).to_numpy(zero_copy_only=False)
        levels[name] = {level: count(which[codes == i]) for i, level in enumerate(array.dictionary.to_pylist())}
    return SegmentSums(count(which), np.zeros(k), numbers, levels, dict(centres))


def describe_segments(source: Source, scorer: Scorer, found: Profile, executor: Executor) -> SegmentSums:
    """Gather the profile of the segments in one pass over a table."""
    design = scorer.model.schema.design
    numbers = (*design.gaussian, *design.poisson, *(name for name, _ in design.binomial))
    centres = {name: _middle(col.numeric(found.sample, name)) for name in numbers}
    return executor.reduce(source.pieces, partial(_scored_sums, scorer, centres))


def _scored_sums(scorer: Scorer, centres: dict[str, float], i: int, piece: Any) -> SegmentSums:
    design, k = scorer.model.schema.design, scorer.model.n_components
    table = piece.read(design.columns)
    scores = scorer.score(table)
    order = np.argsort(scorer.segments)
    which = order[np.searchsorted(np.asarray(scorer.segments)[order], scores["segment"])]
    sums = segment_sums(table, which, k, centres, design.categorical)
    return replace(sums, outliers=np.bincount(which[scores["outlier"]], minlength=k).astype(np.float64))


def _middle(values: Floats) -> float:
    seen = values[~np.isnan(values)]
    return float(np.median(seen)) if len(seen) else 0.0


def segment_profile(frame: pd.DataFrame, segments: Any, key: str | None = None) -> pd.DataFrame:
    """Describe every column of a dataframe in every segment.

    Parameters
    ----------
    frame : rows; numbers are averaged, text, booleans and categories are counted
    segments : (n,) the segment of each row
    key : a column that identifies rows and is passed over

    Returns
    -------
    DataFrame : see `SegmentSums.table`
    """
    codes, names = pd.factorize(np.asarray(segments), sort=True)
    if len(codes) != len(frame):
        raise DataError("table and segments differ in length: give one segment a row")
    columns = [str(c) for c in frame.columns if str(c) != key]
    table = open_source(frame).read(columns)
    counted = [c for c in columns if not _is_number(table.schema.field(c).type)]
    centres = {c: _middle(col.numeric(table, c)) for c in columns if c not in counted}
    return segment_sums(table, codes, len(names), centres, counted).table(list(names))


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def match_segments(previous: Any, current: Any, sample: pa.Table) -> tuple[int, ...]:
    """Numbers for the components of a new model, so that segments keep the numbers of an earlier one.

    Components are paired so that as many rows of the sample as possible stay in their segment (Hungarian method on the overlap of posterior
    probabilities); what has no partner gets the next number that was never used.

    Parameters
    ----------
    previous, current : fitted estimators on the same columns
    sample : rows to compare them on, with their weights in "#weight"
    """
    weight = sample.column("#weight").to_numpy()
    before, now = previous.model_.score(sample)[0], current.model_.score(sample)[0]
    old = _segments(previous)
    overlap = (before * weight[:, None]).T @ now
    rows, columns = linear_sum_assignment(-overlap)
    kept = {int(c): old[r] for r, c in zip(rows, columns)}
    first = highest_segment(previous, ()) + 1
    unused = iter(range(first, first + current.n_components))
    return tuple(kept[c] if c in kept else next(unused) for c in range(current.n_components))


def highest_segment(previous: Any | None, segments: Sequence[int]) -> int:
    """The highest number that a segment of a model, or of those before it, ever had.

    Parameters
    ----------
    previous : the fitted estimator whose numbers were taken over, or None
    segments : the numbers of the new model
    """
    if previous is None:
        return max(segments)
    return max(*_segments(previous), *segments, getattr(previous, "notes_", {}).get("highest_segment", -1))


def _segments(model: Any) -> list[int]:
    return list(getattr(model, "notes_", {}).get("segments", range(model.n_components)))
