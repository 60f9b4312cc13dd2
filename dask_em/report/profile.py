"""Who is in each segment: means and shares in the user's units, against everybody.

For a number: mean, median, and z = (mean of the segment - mean of all) / standard deviation of all.
For a category: the share of each level among the rows where it is known, and lift = share / share among all.
Numbers that rest on fewer than ten rows are left out, since they could describe a person.

Knows pandas and nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from dask_em.errors import DataError

MINIMUM_ROWS = 10
COLUMNS = ["column", "level", "segment", "size", "missing", "mean", "median", "share", "overall", "lift", "z"]

Floats = NDArray[np.float64]


def segment_profile(
    frame: pd.DataFrame, segments: ArrayLike, weights: ArrayLike | None = None, key: str | None = None
) -> pd.DataFrame:
    """Describe every column in every segment.

    Parameters
    ----------
    frame : pandas.DataFrame
        The customers. Numbers are averaged; strings, booleans and categories are counted; dates are passed over.
    segments : array_like of shape (n,)
        The segment of each row.
    weights : array_like of shape (n,), optional
        Row weights; every row counts once by default.
    key : str, optional
        A column that identifies customers, which is passed over.

    Returns
    -------
    pandas.DataFrame
        One row per column, level (null for numbers) and segment. `size` is the weight of the segment, `missing` the share of
        it without a value, `overall` the mean or share among all. What does not apply is null, and so is everything that
        rests on fewer than ten rows with a value.

    Raises
    ------
    DataError
        The lengths differ, or a weight is negative or missing.
    """
    codes, names = pd.factorize(np.asarray(segments), sort=True)
    weight = np.ones(len(frame)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(frame) == len(codes) == len(weight):
        raise DataError("table, segments and weights differ in length: give one segment and one weight per row")
    if not (weight >= 0).all():
        raise DataError("weights hold negative or missing values: give numbers from zero up")
    size = np.bincount(codes, weight, minlength=len(names))
    rows = [
        {"column": str(name), "segment": names[j], "size": size[j], **cell}
        for position, name in enumerate(frame.columns)
        if name != key
        for j, cell in _cells(frame.iloc[:, position], codes, weight, len(names))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _cells(
    column: pd.Series, codes: NDArray[np.int64], weight: Floats, n_segments: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    kinds = pd.api.types
    if kinds.is_datetime64_any_dtype(column.dtype) or kinds.is_timedelta64_dtype(column.dtype):
        return
    counted = kinds.is_bool_dtype(column.dtype) or not kinds.is_numeric_dtype(column.dtype)
    yield from (_level_cells if counted else _number_cells)(column, codes, weight, n_segments)


def _number_cells(
    column: pd.Series, codes: NDArray[np.int64], weight: Floats, n_segments: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    known = ~np.isnan(values)
    overall = _mean(values[known], weight[known])
    spread = np.sqrt(_mean((values[known] - overall) ** 2, weight[known]))
    for j in range(n_segments):
        inside = codes == j
        seen = inside & known
        if seen.sum() < MINIMUM_ROWS or known.sum() < MINIMUM_ROWS:
            yield j, {}
            continue
        mean = _mean(values[seen], weight[seen])
        yield (
            j,
            {
                "missing": _missing(inside, known, weight),
                "mean": mean,
                "median": _median(values[seen], weight[seen]),
                "overall": overall,
                "z": (mean - overall) / spread if spread > 0 else np.nan,
            },
        )


def _level_cells(
    column: pd.Series, codes: NDArray[np.int64], weight: Floats, n_segments: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    known = column.notna().to_numpy(dtype=bool)
    level_codes, levels = pd.factorize(column[known].astype(str).to_numpy(dtype=object), sort=True)
    overall = _shares(level_codes, weight[known], len(levels))
    for j in range(n_segments):
        inside = codes == j
        seen = inside & known
        shares = _shares(level_codes[inside[known]], weight[seen], len(levels))
        enough = seen.sum() >= MINIMUM_ROWS
        for level, share, of_all in zip(levels, shares, overall, strict=True):
            cell: dict[str, Any] = {"level": level}
            if enough:
                lift = share / of_all if of_all > 0 else np.nan
                missing = _missing(inside, known, weight)
                cell |= {"missing": missing, "share": share, "overall": of_all, "lift": lift}
            yield j, cell


def _missing(inside: NDArray[np.bool_], known: NDArray[np.bool_], weight: Floats) -> float:
    return _mean((~known[inside]).astype(np.float64), weight[inside])


def _mean(values: Floats, weight: Floats) -> float:
    total = weight.sum()
    return float(values @ weight / total) if total > 0 else float("nan")


def _shares(codes: NDArray[np.int64], weight: Floats, n_levels: int) -> Floats:
    total = weight.sum()
    counts = np.bincount(codes, weight, minlength=n_levels)
    return counts / total if total > 0 else np.full(n_levels, np.nan)


def _median(values: Floats, weight: Floats) -> float:
    """The weighted median: half of the weight on either side, the middle of two where they tie."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    half = reached[-1] / 2
    if half <= 0:
        return float("nan")
    low = np.searchsorted(reached, half, side="left")
    high = np.searchsorted(reached, half, side="right")
    return float((values[order[low]] + values[order[min(high, len(values) - 1)]]) / 2)
