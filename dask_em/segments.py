"""Segments after the fit: who is in them, and which of last month's they are.

The profile of segments is a sum over rows, so it is gathered like everything else, piece by piece: for a number its weight, sum and
sum of squares in every segment, for a category the weight of every level. What rests on fewer than ten rows is left out, since it could describe
a person, and so is that from which it would follow (`disclosure`); levels of so few rows are not named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from dask_em.disclosure import SMALLEST, hidden_in_line, hidden_in_table, is_small
from dask_em.errors import DataError
from dask_em.execution.base import Executor
from dask_em.scoring import Scorer

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


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
    smallest : fewest rows that a number in a table rests on; 0 shows everything
    """

    size: Floats
    outliers: Floats
    numbers: dict[str, Floats]
    levels: dict[str, dict[Any, Floats]]
    centres: dict[str, float]
    smallest: int = SMALLEST

    def __add__(self, other: SegmentSums) -> SegmentSums:
        levels = {}
        for name, own in self.levels.items():
            merged = dict(own)
            for level, rows in other.levels[name].items():
                merged[level] = merged[level] + rows if level in merged else rows
            levels[name] = merged
        numbers = {name: a + other.numbers[name] for name, a in self.numbers.items()}
        size, outliers = self.size + other.size, self.outliers + other.outliers
        return replace(self, size=size, outliers=outliers, numbers=numbers, levels=levels)

    def sizes(self, segments: Sequence[int]) -> pd.DataFrame:
        """One row a segment: rows, share of all, outliers; null where a number would be too small, or give one away."""
        hidden = self._hidden()
        frame = pd.DataFrame(
            {
                "segment": list(segments),
                "rows": pd.array(self.size.astype(int), "Int64"),
                "share": self.size / self.size.sum(),
                "outliers": pd.array(self.outliers.astype(int), "Int64"),
            }
        )
        frame.loc[hidden[-1, :-1], ["rows", "share", "outliers"]] = None
        frame.loc[hidden[0, :-1], "outliers"] = None
        return frame if hidden.any() else frame.astype({"rows": "int64", "outliers": "int64"})

    def small(self, segments: Sequence[int]) -> list[int]:
        """The segments of so few rows that they describe persons rather than a group."""
        return [int(segment) for segment, few in zip(segments, is_small(self.size, self.smallest)) if few]

    def rare(self) -> dict[str, int]:
        """How many levels of each category have so few rows that they are not named."""
        found = {
            name: int(is_small([rows.sum() for rows in own.values()], self.smallest).sum())
            for name, own in self.levels.items()
        }
        return {name: n for name, n in found.items() if n}

    def facts(self, segments: Sequence[int]) -> dict[str, Any]:
        """The sizes as plain values, and what the reader of a report must know about small groups."""
        records = self.sizes(segments).astype(object)
        return {
            "outliers": None if self._hidden()[0, -1] else int(self.outliers.sum()),
            "segments": records.where(records.notna(), None).to_dict("records"),
            "small_segments": self.small(segments),
            "rare_levels": self.rare(),
        }

    def table(self, segments: Sequence[int]) -> pd.DataFrame:
        """One row per column, level (null for numbers) and segment.

        Columns: size and missing share of the segment; mean and z = (mean - mean of all) / standard deviation of all for
        numbers; share and lift = share / share of all for levels; overall, the mean or share among all.
        """
        hidden = self._hidden()[-1, :-1]
        cells = [*self._number_cells(hidden), *self._level_cells(hidden)]
        rows = [
            {"segment": segment, "size": np.nan if hidden[j] else self.size[j], **own[j]}
            for j, segment in enumerate(segments)
            for own in cells
        ]
        names = ["column", "level", "segment", "size", "missing", "mean", "share", "overall", "lift", "z"]
        order = {name: i for i, name in enumerate((*self.numbers, *self.levels))}
        frame = pd.DataFrame(rows, columns=names)
        return frame.sort_values("column", key=lambda own: own.map(order), kind="stable").reset_index(drop=True)

    def _hidden(self) -> Mask:
        """Of outliers, other rows and both, by segment and in all: which counts are left out."""
        return hidden_in_table([self.outliers, self.size - self.outliers], self.smallest)

    def _number_cells(self, hidden: Mask) -> Iterator[list[dict[str, Any]]]:
        """For every column of numbers the cell of each segment."""
        for name, sums in self.numbers.items():
            n, first, second = sums.sum(axis=0)
            missing = self.size - sums[:, 0]
            vague = is_small(missing, self.smallest)
            few = hidden | (sums[:, 0] == 0) | hidden_in_line(sums[:, 0], self.smallest)
            mean = self.centres[name] + sums[:, 1] / np.maximum(sums[:, 0], 1)
            overall = self.centres[name] + first / max(n, 1)
            spread = np.sqrt(max(second / max(n, 1) - (first / max(n, 1)) ** 2, 0.0))
            own: list[dict[str, Any]] = [{"column": name} for _ in hidden]
            for j in np.flatnonzero(~few):
                # The mean of whole numbers would give their number away.
                told = float(f"{mean[j]:.4g}") if vague[j] else mean[j]
                own[j] |= {"missing": np.nan if vague[j] else missing[j] / self.size[j], "mean": told}
                if not is_small(n, self.smallest):
                    own[j] |= {"overall": overall, "z": (told - overall) / spread if spread > 0 else np.nan}
            yield own

    def _level_cells(self, hidden: Mask) -> Iterator[list[dict[str, Any]]]:
        """For every level of every category the cell of each segment."""
        for name, levels in self._named_levels().items():
            counts = np.array(list(levels.values())).reshape(-1, len(hidden))
            known, missing = counts.sum(axis=0), self.size - counts.sum(axis=0)
            vague = is_small(missing, self.smallest)
            left_out = hidden_in_table(counts, self.smallest, hidden)
            for level, row, own, all_hidden in zip(levels, counts, left_out, left_out[:, -1]):
                cells: list[dict[str, Any]] = [{"column": name, "level": level} for _ in hidden]
                overall = np.nan if all_hidden else row.sum() / counts.sum()
                for j in np.flatnonzero(~own[:-1] & (known > 0)):
                    # Exact shares would give the number of the missing away.
                    share = round(row[j] / known[j], 2) if vague[j] else row[j] / known[j]
                    unknown = vague[j] or left_out[-1, j]
                    cells[j] |= {"missing": np.nan if unknown else missing[j] / self.size[j], "share": share}
                    cells[j] |= {"overall": overall, "lift": share / overall}
                yield cells

    def _named_levels(self) -> dict[str, dict[str, Floats]]:
        """The levels by their names, in order; the rare ones together under a name that is none of theirs."""
        out: dict[str, dict[str, Floats]] = {}
        for name, levels in self.levels.items():
            rare = {level for level, rows in levels.items() if is_small(rows.sum(), self.smallest)}
            out[name] = {str(level): levels[level] for level in sorted(set(levels) - rare, key=str)}
            if rare:
                out[name][f"(rare: fewer than {self.smallest} rows)"] = np.sum([levels[o] for o in rare], axis=0)
        return out


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


def describe_segments(
    source: Source, scorer: Scorer, found: Profile, executor: Executor, smallest: int = SMALLEST
) -> SegmentSums:
    """Gather the profile of the segments in one pass over a table; `smallest` is the fewest rows that a published number rests on."""
    design = scorer.model.schema.design
    numbers = (*design.gaussian, *design.poisson, *(name for name, _ in design.binomial))
    centres = {name: _middle(col.numeric(found.sample, name)) for name in numbers}
    sums: SegmentSums = executor.reduce(source.pieces, partial(_scored_sums, scorer, centres))
    return replace(sums, smallest=smallest)


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


def segment_profile(
    frame: pd.DataFrame, segments: Any, key: str | None = None, smallest: int = SMALLEST
) -> pd.DataFrame:
    """Describe every column of a dataframe in every segment.

    Parameters
    ----------
    frame : rows; numbers are averaged, text, booleans and categories are counted
    segments : (n,) the segment of each row
    key : a column that identifies rows and is passed over
    smallest : fewest rows that a number rests on; what rests on fewer is null. 0 shows everything

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
    sums = segment_sums(table, codes, len(names), centres, counted)
    return replace(sums, smallest=smallest).table(list(names))


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
